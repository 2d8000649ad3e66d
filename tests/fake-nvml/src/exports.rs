//! The C interface: functions as `nvml.h` declares them, those that the observer calls.

#![expect(unsafe_code, reason = "a C interface")]

use std::{
    ffi::{c_char, c_int, c_longlong, c_uint, c_ulonglong},
    sync::Mutex,
};

use nvml_wrapper_sys::bindings::{
    field_id, nvmlDevice_t, nvmlDeviceAttributes_t, nvmlEventData_t, nvmlEventSet_t, nvmlFieldValue_t,
    nvmlGpmMetricsGet_t, nvmlGpmSample_t, nvmlGpmSupport_t, nvmlMemory_v2_t, nvmlPciInfo_t,
    nvmlProcessInfo_t, nvmlProcessUtilizationSample_t,
    nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE as INSUFFICIENT,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID,
    nvmlReturn_enum_NVML_ERROR_NOT_FOUND as NOT_FOUND,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED, nvmlReturn_enum_NVML_ERROR_TIMEOUT as TIMEOUT,
    nvmlReturn_enum_NVML_SUCCESS as SUCCESS, nvmlReturn_t, nvmlSample_t, nvmlUtilization_t, nvmlValue_t,
    nvmlViolationTime_t,
};

use crate::{
    loaded::{Failure, Target, enter, enter_device, handle, now},
    scenario::{Gpm, Process, integral, linear, step},
};

/// No instance, in what is told of a process.
const NONE: u32 = u32::MAX;

fn code(result: Result<(), Failure>) -> nvmlReturn_t {
    result.err().unwrap_or(SUCCESS)
}

/// Writes text and its end into a buffer of the caller's.
unsafe fn text(value: &str, into: *mut c_char, length: usize) -> Result<(), Failure> {
    if value.len() >= length {
        return Err(INSUFFICIENT);
    }
    for (at, byte) in value.bytes().chain([0]).enumerate() {
        // SAFETY: within the length that the caller gave.
        unsafe { into.add(at).write(byte as c_char) };
    }
    Ok(())
}

/// Answers a function of a device: what `$body` computes of the target is written to `$into`.
macro_rules! tell {
    ($($(#[$why:meta])* $name:ident($($extra:ident: $kind:ty),*) -> $out:ty = |$target:ident| $body:expr;)*) => {$(
        $(#[$why])*
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(device: nvmlDevice_t, $($extra: $kind,)* into: *mut $out) -> nvmlReturn_t {
            code(enter_device(stringify!($name), device as usize).and_then(|$target| {
                let value: Result<$out, Failure> = $body;
                // SAFETY: a place for it.
                unsafe { into.write(value?) };
                Ok(())
            }))
        }
    )*};
}

tell! {
    nvmlDeviceGetMinorNumber() -> c_uint = |t| Ok(t.device().minor);
    nvmlDeviceGetUtilizationRates() -> nvmlUtilization_t = |t| whole(&t).map(|()| nvmlUtilization_t {
        gpu: step(&t.device().utilization, t.at) as u32,
        memory: step(&t.device().memory_utilization, t.at) as u32,
    });
    nvmlDeviceGetTemperature(_sensor: c_uint) -> c_uint = |t| whole(&t).map(|()| 61);
    nvmlDeviceGetPowerUsage() -> c_uint =
        |t| whole(&t).map(|()| (linear(&t.device().power, t.at) * 1e3).round() as u32);
    nvmlDeviceGetEnforcedPowerLimit() -> c_uint = |t| whole(&t).map(|()| 700_000);
    nvmlDeviceGetTotalEnergyConsumption() -> c_ulonglong =
        |t| whole(&t).map(|()| (integral(&t.device().power, 0.0, t.at) * 1e3) as u64);
    nvmlDeviceGetClockInfo(kind: c_uint) -> c_uint = |t| whole(&t).map(|()| [1755, 1980, 2619, 1545][kind.min(3) as usize]);
    nvmlDeviceGetCurrentClocksThrottleReasons() -> c_ulonglong =
        |t| whole(&t).map(|()| step(&t.device().throttle, t.at) as u64);
    nvmlDeviceGetViolationStatus(policy: c_uint) -> nvmlViolationTime_t =
        |t| whole(&t).map(|()| nvmlViolationTime_t {
            referenceTime: now(),
            violationTime: u64::from(policy + 1) * 1_000_000_000,
        });
    nvmlDeviceGetTotalEccErrors(kind: c_uint, _counter: c_uint) -> c_ulonglong =
        |t| whole(&t).map(|()| u64::from(kind) + 5);
    nvmlDeviceGetPcieReplayCounter() -> c_uint = |t| whole(&t).map(|()| 3);
    nvmlDeviceGetPcieThroughput(counter: c_uint) -> c_uint = |t| whole(&t).map(|()| (counter + 1) * 1000);
    nvmlDeviceGetNumFans() -> c_uint = |t| whole(&t).map(|()| 1);
    nvmlDeviceGetFanSpeed_v2(_fan: c_uint) -> c_uint = |t| whole(&t).map(|()| 40);
    nvmlDeviceGetMaxMigDeviceCount() -> c_uint = |t| Ok(if t.device().mig.is_empty() { 0 } else { 7 });
    nvmlDeviceGetMigDeviceHandleByIndex(index: c_uint) -> nvmlDevice_t = |t| {
        let at = index as usize;
        if at < t.device().mig.len() { Ok(handle(t.device, Some(at)) as nvmlDevice_t) } else { Err(NOT_FOUND) }
    };
    nvmlDeviceGetAttributes_v2() -> nvmlDeviceAttributes_t = |t| {
        let instance = t.instance().ok_or(NOT_SUPPORTED)?;
        Ok(nvmlDeviceAttributes_t {
            multiprocessorCount: 16 * instance.slices,
            sharedCopyEngineCount: 1,
            sharedDecoderCount: 1,
            sharedEncoderCount: 0,
            sharedJpegCount: 1,
            sharedOfaCount: 0,
            gpuInstanceSliceCount: instance.slices,
            computeInstanceSliceCount: instance.slices,
            memorySizeMB: instance.total >> 20,
        })
    };
}

/// Of a MIG instance little is told.
fn whole(target: &Target) -> Result<(), Failure> {
    if target.instance.is_some() { Err(NOT_SUPPORTED) } else { Ok(()) }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    code(enter("nvmlInit_v2").map(drop))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    code(enter("nvmlShutdown").map(drop))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(into: *mut c_char, length: c_uint) -> nvmlReturn_t {
    // SAFETY: as the caller says.
    code(enter("nvmlSystemGetDriverVersion").and_then(|s| unsafe { text(&s.driver, into, length as usize) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(into: *mut c_uint) -> nvmlReturn_t {
    // SAFETY: a place for it.
    code(enter("nvmlDeviceGetCount_v2").map(|s| unsafe { into.write(s.devices.len() as u32) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, into: *mut nvmlDevice_t) -> nvmlReturn_t {
    let found = enter_device("nvmlDeviceGetHandleByIndex_v2", handle(index as usize, None));
    // SAFETY: a place for it.
    code(found.map(|t| unsafe { into.write(handle(t.device, None) as nvmlDevice_t) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUUID(
    device: nvmlDevice_t,
    into: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    code(enter_device("nvmlDeviceGetUUID", device as usize).and_then(|t| {
        let uuid = t.instance().map_or(&t.device().uuid, |instance| &instance.uuid);
        // SAFETY: as the caller says.
        unsafe { text(uuid, into, length as usize) }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetName(
    device: nvmlDevice_t,
    into: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    code(enter_device("nvmlDeviceGetName", device as usize).and_then(|t| {
        let name = &t.device().name;
        let name = t.instance().map_or_else(|| name.clone(), |one| format!("{name} MIG {}", one.name));
        // SAFETY: as the caller says.
        unsafe { text(&name, into, length as usize) }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, into: *mut nvmlPciInfo_t) -> nvmlReturn_t {
    code(enter_device("nvmlDeviceGetPciInfo_v3", device as usize).and_then(|t| {
        let mut info = nvmlPciInfo_t {
            busIdLegacy: [0; 16],
            domain: 0,
            bus: t.device as u32 + 1,
            device: 0,
            pciDeviceId: 0x2330_10de,
            pciSubSystemId: 0,
            busId: [0; 32],
        };
        let bus = format!("00000000:{:02X}:00.0", info.bus);
        // SAFETY: arrays of the lengths that are given, then a place for the result.
        unsafe {
            text(&bus[4..], info.busIdLegacy.as_mut_ptr(), 16)?;
            text(&bus, info.busId.as_mut_ptr(), 32)?;
            into.write(info);
        }
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: nvmlDevice_t,
    into: *mut nvmlMemory_v2_t,
) -> nvmlReturn_t {
    code(enter_device("nvmlDeviceGetMemoryInfo_v2", device as usize).and_then(|t| {
        // SAFETY: the caller's structure, of the version that it says.
        let memory = unsafe { &mut *into };
        if memory.version as usize != size_of::<nvmlMemory_v2_t>() | 2 << 24 {
            return Err(INVALID);
        }
        let device = t.device();
        let used = step(&device.used, t.at) as u64;
        let (total, reserved, used) =
            t.instance().map_or((device.total, device.reserved, used), |one| (one.total, 0, one.used));
        (memory.total, memory.reserved, memory.used) = (total, reserved, used);
        memory.free = total - reserved - used;
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> nvmlReturn_t {
    code(enter_device("nvmlDeviceGetMigMode", device as usize).and_then(|t| {
        whole(&t)?;
        let mode = u32::from(!t.device().mig.is_empty());
        // SAFETY: places for them.
        unsafe {
            current.write(mode);
            pending.write(mode);
        }
        Ok(())
    }))
}

/// Times at which a buffer has samples, microseconds: of `period`, the last 120, later than `last`.
fn times(target: &Target, period: u64, last: u64) -> Vec<u64> {
    let newest = now() / period;
    let times = (newest.saturating_sub(119)..=newest).map(|number| number * period);
    let skewed = times.map(|time| (time, time.saturating_add_signed(target.scenario.skew)));
    skewed.filter(|(_, told)| *told > last).map(|(time, _)| time).collect()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetSamples(
    device: nvmlDevice_t,
    kind: c_uint,
    last: c_ulonglong,
    value_type: *mut c_uint,
    count: *mut c_uint,
    into: *mut nvmlSample_t,
) -> nvmlReturn_t {
    const UNSIGNED: c_uint = 1;
    code(enter_device("nvmlDeviceGetSamples", device as usize).and_then(|t| {
        whole(&t)?;
        let device = t.device();
        let period = if kind == 0 { 20_000 } else { 166_667 };
        if into.is_null() {
            // SAFETY: a place for it.
            unsafe { count.write(120) };
            return Ok(());
        }
        let times = times(&t, period, last);
        // SAFETY: a place for as many as the caller says.
        let room = unsafe { count.read() } as usize;
        if times.is_empty() {
            return Err(NOT_FOUND);
        }
        let times = &times[times.len().saturating_sub(room)..];
        for (at, time) in times.iter().enumerate() {
            let moment = t.scenario.at(*time);
            let value = match kind {
                0 => linear(&device.power, moment) * 1e3,
                1 => step(&device.utilization, moment),
                2 => step(&device.memory_utilization, moment),
                _ => return Err(NOT_SUPPORTED),
            };
            let sample = nvmlSample_t {
                timeStamp: time.saturating_add_signed(t.scenario.skew),
                sampleValue: nvmlValue_t { uiVal: value.round() as u32 },
            };
            // SAFETY: within the room that there is.
            unsafe { into.add(at).write(sample) };
        }
        // SAFETY: places for them.
        unsafe {
            count.write(times.len() as u32);
            value_type.write(UNSIGNED);
        }
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> nvmlReturn_t {
    const UNSIGNED: c_uint = 1;
    code(enter_device("nvmlDeviceGetFieldValues", device as usize).and_then(|t| {
        whole(&t)?;
        for at in 0..count.max(0) as usize {
            // SAFETY: the caller has as many.
            let value = unsafe { &mut *values.add(at) };
            let told = match value.fieldId {
                field_id::NVML_FI_DEV_MEMORY_TEMP => 72,
                field_id::NVML_FI_DEV_REMAPPED_COR => 1,
                field_id::NVML_FI_DEV_REMAPPED_UNC => 2,
                field_id::NVML_FI_DEV_REMAPPED_PENDING => 1,
                field_id::NVML_FI_DEV_REMAPPED_FAILURE => 0,
                _ => {
                    value.nvmlReturn = NOT_SUPPORTED;
                    continue;
                }
            };
            value.nvmlReturn = SUCCESS;
            value.timestamp = now() as c_longlong;
            value.valueType = UNSIGNED;
            value.value = nvmlValue_t { uiVal: told };
        }
        Ok(())
    }))
}

/// Processes of a device or an instance, those of MPS or the others, with the instance.
fn processes(target: &Target, mps: bool) -> Vec<(Process, u32)> {
    let of = |list: &[Process], instance: u32| -> Vec<_> {
        list.iter().filter(|one| one.mps == mps).map(|one| (one.clone(), instance)).collect()
    };
    if let Some(instance) = target.instance() {
        return of(&instance.processes, instance.gpu_instance);
    }
    let device = target.device();
    let split = device.mig.iter().flat_map(|one| of(&one.processes, one.gpu_instance));
    of(&device.processes, NONE).into_iter().chain(split).collect()
}

unsafe fn list(
    name: &'static str,
    mps: bool,
    device: nvmlDevice_t,
    count: *mut c_uint,
    into: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    code(enter_device(name, device as usize).and_then(|t| {
        let processes = processes(&t, mps);
        // SAFETY: a place for the number, and for as many as it says.
        unsafe {
            let room = count.read() as usize;
            count.write(processes.len() as u32);
            if room < processes.len() {
                return Err(INSUFFICIENT);
            }
            for (at, (process, instance)) in processes.iter().enumerate() {
                into.add(at).write(nvmlProcessInfo_t {
                    pid: process.pid,
                    usedGpuMemory: process.memory,
                    gpuInstanceId: *instance,
                    computeInstanceId: if *instance == NONE { NONE } else { 0 },
                });
            }
        }
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    into: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    // SAFETY: as the caller says.
    unsafe { list("nvmlDeviceGetComputeRunningProcesses_v3", false, device, count, into) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMPSComputeRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    into: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    // SAFETY: as the caller says.
    unsafe { list("nvmlDeviceGetMPSComputeRunningProcesses_v3", true, device, count, into) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    device: nvmlDevice_t,
    into: *mut nvmlProcessUtilizationSample_t,
    count: *mut c_uint,
    last: c_ulonglong,
) -> nvmlReturn_t {
    code(enter_device("nvmlDeviceGetProcessUtilization", device as usize).and_then(|t| {
        if !t.device().mig.is_empty() {
            return Err(NOT_SUPPORTED);
        }
        let told: Vec<_> = [false, true].into_iter().flat_map(|mps| processes(&t, mps)).collect();
        let time = now() / 1_000_000 * 1_000_000;
        // SAFETY: a place for the number, and for as many as it says.
        unsafe {
            let room = count.read() as usize;
            count.write(told.len() as u32);
            if time <= last || told.is_empty() {
                return Err(NOT_FOUND);
            }
            if into.is_null() || room < told.len() {
                return Err(INSUFFICIENT);
            }
            for (at, (process, _)) in told.iter().enumerate() {
                into.add(at).write(nvmlProcessUtilizationSample_t {
                    pid: process.pid,
                    timeStamp: time,
                    smUtil: process.sm,
                    memUtil: process.sm / 2,
                    encUtil: 0,
                    decUtil: 0,
                });
            }
        }
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmQueryDeviceSupport(
    device: nvmlDevice_t,
    into: *mut nvmlGpmSupport_t,
) -> nvmlReturn_t {
    code(enter_device("nvmlGpmQueryDeviceSupport", device as usize).map(|t| {
        // SAFETY: the caller's structure.
        unsafe { (*into).isSupportedDevice = u32::from(t.device().gpm.is_some()) };
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmSampleAlloc(into: *mut nvmlGpmSample_t) -> nvmlReturn_t {
    // SAFETY: a place for it. The sample is given back by nvmlGpmSampleFree.
    code(
        enter("nvmlGpmSampleAlloc")
            .map(|_| unsafe { into.write(Box::into_raw(Box::new(Gpm::default())).cast()) }),
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmSampleFree(sample: nvmlGpmSample_t) -> nvmlReturn_t {
    // SAFETY: from nvmlGpmSampleAlloc.
    drop(unsafe { Box::from_raw(sample.cast::<Gpm>()) });
    code(enter("nvmlGpmSampleFree").map(drop))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmSampleGet(device: nvmlDevice_t, sample: nvmlGpmSample_t) -> nvmlReturn_t {
    code(enter_device("nvmlGpmSampleGet", device as usize).and_then(|t| {
        let gpm = t.device().gpm.ok_or(NOT_SUPPORTED)?;
        // SAFETY: from nvmlGpmSampleAlloc.
        unsafe { sample.cast::<Gpm>().write(gpm) };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmMigSampleGet(
    device: nvmlDevice_t,
    instance: c_uint,
    sample: nvmlGpmSample_t,
) -> nvmlReturn_t {
    code(enter_device("nvmlGpmMigSampleGet", device as usize).and_then(|t| {
        let found = t.device().mig.iter().find(|one| one.gpu_instance == instance).ok_or(INVALID)?;
        let gpm = found.gpm.ok_or(NOT_SUPPORTED)?;
        // SAFETY: from nvmlGpmSampleAlloc.
        unsafe { sample.cast::<Gpm>().write(gpm) };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmMetricsGet(request: *mut nvmlGpmMetricsGet_t) -> nvmlReturn_t {
    code(enter("nvmlGpmMetricsGet").map(|_| {
        // SAFETY: the caller's structure, whose samples are from nvmlGpmSampleAlloc.
        let (request, gpm) = unsafe { (&mut *request, (*request).sample2.cast::<Gpm>().read()) };
        for metric in request.metrics.iter_mut().take(request.numMetrics as usize) {
            metric.nvmlReturn = SUCCESS;
            metric.value = match metric.metricId {
                2 => gpm.sm,
                3 => gpm.occupancy,
                5 => gpm.tensor,
                10 => gpm.dram,
                // Received is twice as much as sent, so that they can be told apart.
                60 => 2.0 * gpm.nvlink,
                61 => gpm.nvlink,
                _ => {
                    metric.nvmlReturn = NOT_SUPPORTED;
                    0.0
                }
            };
        }
    }))
}

/// The number of the last set of events; which devices are registered with which, and until when their events were
/// told.
static EVENTS: Mutex<(usize, Vec<Registered>)> = Mutex::new((0, Vec::new()));

/// Set, device, and until when it was told, seconds after the origin.
type Registered = (usize, usize, f64);

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(into: *mut nvmlEventSet_t) -> nvmlReturn_t {
    code(enter("nvmlEventSetCreate").map(|_| {
        let mut events = EVENTS.lock().expect("events");
        events.0 += 1;
        // SAFETY: a place for it; nobody looks into a set.
        unsafe { into.write(events.0 as nvmlEventSet_t) };
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    EVENTS.lock().expect("events").1.retain(|(of, ..)| *of != set as usize);
    code(enter("nvmlEventSetFree").map(drop))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    _types: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    code(enter_device("nvmlDeviceRegisterEvents", device as usize).map(|t| {
        EVENTS.lock().expect("events").1.push((set as usize, t.device, t.at));
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    into: *mut nvmlEventData_t,
    timeout: c_uint,
) -> nvmlReturn_t {
    const XID: c_ulonglong = 8;
    let begun = now();
    loop {
        let scenario = match enter("nvmlEventSetWait_v2") {
            Ok(scenario) => scenario,
            Err(failure) => return failure,
        };
        let at = scenario.at(now());
        for (_, device, told) in
            EVENTS.lock().expect("events").1.iter_mut().filter(|one| one.0 == set as usize)
        {
            let Some(known) = scenario.devices.get(*device) else { continue };
            let next = known.xids.iter().find(|xid| xid[0] > *told && xid[0] <= at);
            if let Some([time, xid]) = next {
                *told = *time;
                let data = nvmlEventData_t {
                    device: handle(*device, None) as nvmlDevice_t,
                    eventType: XID,
                    eventData: *xid as u64,
                    gpuInstanceId: NONE,
                    computeInstanceId: NONE,
                };
                // SAFETY: a place for it.
                unsafe { into.write(data) };
                return SUCCESS;
            }
        }
        if now() - begun >= u64::from(timeout) * 1000 {
            return TIMEOUT;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
