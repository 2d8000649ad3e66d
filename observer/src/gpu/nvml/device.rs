//! One device in one round. Units of NVML (percent, milliwatts, millijoules, KB, MHz) become base units here.

use std::sync::Arc;

use nvml_wrapper::{
    Nvml,
    bitmasks::device::ThrottleReasons,
    enum_wrappers::device::{
        Clock, EccCounter, MemoryError, PcieUtilCounter, PerformancePolicy, Sampling, TemperatureSensor,
    },
    enums::{
        device::{SampleValue, UsedGpuMemory},
        gpm::GpmMetricId,
    },
    error::NvmlError,
    gpm::gpm_metrics_get,
    struct_wrappers::device::ProcessInfo,
    structs::device::FieldId,
    sys_exports::field_id,
};

use super::{Asking, Known};
use crate::{
    gpu::Owners,
    gpus::{Activity, Instance, Memory, Process, Reading, Samples},
};

/// Processes of one device that are told of.
const PROCESSES: usize = 1024;

/// Fans of one device that are asked.
const FANS: u32 = 16;

/// MIG instances of one device: NVIDIA's limit is 7.
const INSTANCES: u32 = 16;

/// Times of samples further from now than this are of another clock than ours.
const SKEW: u64 = 60_000_000_000;

/// Samples of the future are wrong, but for what clocks differ in reading.
const EARLY: u64 = 1_000_000_000;

/// What was told of processes' utilisation holds for so long.
const HOLDS: u64 = 2_000_000_000;

const REASONS: [(ThrottleReasons, &str); 9] = [
    (ThrottleReasons::GPU_IDLE, "idle"),
    (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, "applications_clocks"),
    (ThrottleReasons::SW_POWER_CAP, "sw_power_cap"),
    (ThrottleReasons::HW_SLOWDOWN, "hw_slowdown"),
    (ThrottleReasons::SYNC_BOOST, "sync_boost"),
    (ThrottleReasons::SW_THERMAL_SLOWDOWN, "sw_thermal"),
    (ThrottleReasons::HW_THERMAL_SLOWDOWN, "hw_thermal"),
    (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "hw_power_brake"),
    (ThrottleReasons::DISPLAY_CLOCK_SETTING, "display_clocks"),
];

/// Reads all of it, `now` on the monotonic and on the wall clock. How many lists of samples had impossible times.
pub(super) fn read<'nvml>(
    nvml: &'nvml Nvml,
    known: &mut Known<'nvml>,
    asking: &mut Asking<'_>,
    now: (u64, u64),
    into: &mut Reading,
    owners: &Owners,
) -> u64 {
    let mut mistimed = 0;
    curves(known, asking, now, into, &mut mistimed);
    moments(known, asking, into);
    errors(known, asking, into);
    links(known, asking, into);
    let is_split =
        asking.ask("nvmlDeviceGetMigMode", || known.device.mig_mode()).is_some_and(|mode| mode.current == 1);
    into.processes = if is_split {
        instances(known, asking, into, owners)
    } else {
        processes(known, asking, now.0, owners)
    };
    activities(nvml, known, asking, into);
    mistimed
}

/// What has a buffer of samples in the device, so that nothing between two rounds is lost; else the present value.
fn curves(
    known: &mut Known<'_>,
    asking: &mut Asking<'_>,
    now: (u64, u64),
    into: &mut Reading,
    mistimed: &mut u64,
) {
    let device = &known.device;
    let percent = |value: f64| value / 100.0;
    let mut buffer = |function, kind: Sampling, slot: usize, scale: fn(f64) -> f64| {
        let seen = &mut known.seen[slot];
        let found = asking.ask(function, || device.samples(kind, *seen).or_else(no_news))?;
        *seen = found.iter().map(|sample| sample.timestamp).fold(*seen, u64::max);
        let told: Option<Samples> = found
            .iter()
            .map(|one| Some((monotonic(one.timestamp, now)?, scale(number(&one.value)))))
            .collect();
        if told.is_none() {
            *mistimed += 1;
        }
        told
    };
    let power = buffer("nvmlDeviceGetSamples(power)", Sampling::Power, 0, |value| value / 1e3);
    let busy = buffer("nvmlDeviceGetSamples(utilization)", Sampling::GpuUtilization, 1, percent);
    let memory = buffer("nvmlDeviceGetSamples(memory)", Sampling::MemoryUtilization, 2, percent);
    into.power = power.unwrap_or_else(|| {
        let watts = asking.ask("nvmlDeviceGetPowerUsage", || device.power_usage());
        watts.map(|milliwatts| (now.0, f64::from(milliwatts) / 1e3)).into_iter().collect()
    });
    if busy.is_none() || memory.is_none() {
        let rates = asking.ask("nvmlDeviceGetUtilizationRates", || device.utilization_rates());
        let at = |value: Option<u32>| value.map(|value| (now.0, percent(value.into()))).into_iter().collect();
        let (gpu, memory_rate) =
            (rates.as_ref().map(|rates| rates.gpu), rates.as_ref().map(|rates| rates.memory));
        into.utilization = busy.unwrap_or_else(|| at(gpu));
        into.memory_utilization = memory.unwrap_or_else(|| at(memory_rate));
    } else {
        (into.utilization, into.memory_utilization) = (busy.unwrap_or_default(), memory.unwrap_or_default());
    }
}

/// A buffer without anything new is no failure of the buffer.
fn no_news<T>(error: NvmlError) -> Result<Vec<T>, NvmlError> {
    match error {
        NvmlError::NotFound | NvmlError::NoData => Ok(Vec::new()),
        error => Err(error),
    }
}

/// A time of the wall clock, microseconds, on the monotonic one; none if it cannot be of that clock.
fn monotonic(micros: u64, (monotonic, wall): (u64, u64)) -> Option<u64> {
    let time = micros.checked_mul(1000)?;
    let is_near = time <= wall + EARLY && time + SKEW >= wall;
    is_near.then(|| (monotonic + time).saturating_sub(wall))
}

fn number(value: &SampleValue) -> f64 {
    match value {
        SampleValue::F64(value) => *value,
        SampleValue::U32(value) => f64::from(*value),
        SampleValue::U64(value) => *value as f64,
        SampleValue::I64(value) => *value as f64,
    }
}

fn memory(device: &nvml_wrapper::Device<'_>) -> Result<Memory, NvmlError> {
    let told = device.memory_info()?;
    Ok(Memory { total: told.total, used: told.used, free: told.free, reserved: told.reserved })
}

fn moments(known: &Known<'_>, asking: &mut Asking<'_>, into: &mut Reading) {
    const MEGA: f64 = 1e6;
    let device = &known.device;
    into.memory = asking.ask("nvmlDeviceGetMemoryInfo", || memory(device));
    let degrees = asking.ask("nvmlDeviceGetTemperature", || device.temperature(TemperatureSensor::Gpu));
    into.temperatures.extend(degrees.map(|degrees| ("gpu", f64::from(degrees))));
    let limit = asking.ask("nvmlDeviceGetEnforcedPowerLimit", || device.enforced_power_limit());
    into.power_limit = limit.map(|milliwatts| f64::from(milliwatts) / 1e3);
    let energy = asking.ask("nvmlDeviceGetTotalEnergyConsumption", || device.total_energy_consumption());
    into.energy = energy.map(|millijoules| millijoules as f64 / 1e3);
    for (function, clock, name) in [
        ("nvmlDeviceGetClockInfo(sm)", Clock::SM, "sm"),
        ("nvmlDeviceGetClockInfo(memory)", Clock::Memory, "memory"),
    ] {
        let told = asking.ask(function, || device.clock_info(clock));
        into.clocks.extend(told.map(|megahertz| (name, f64::from(megahertz) * MEGA)));
    }
    let reasons =
        asking.ask("nvmlDeviceGetCurrentClocksThrottleReasons", || device.current_throttle_reasons());
    let reasons = reasons.unwrap_or(ThrottleReasons::NONE);
    into.throttled_by =
        REASONS.iter().filter(|(bit, _)| reasons.contains(*bit)).map(|(_, name)| *name).collect();
    for (function, policy, name) in [
        ("nvmlDeviceGetViolationStatus(power)", PerformancePolicy::Power, "power"),
        ("nvmlDeviceGetViolationStatus(thermal)", PerformancePolicy::Thermal, "thermal"),
        ("nvmlDeviceGetViolationStatus(reliability)", PerformancePolicy::Reliability, "reliability"),
    ] {
        let told = asking.ask(function, || device.violation_status(policy));
        into.violations.extend(told.map(|told| (name, told.violation_time as f64 / 1e9)));
    }
    let fans = asking.ask("nvmlDeviceGetNumFans", || device.num_fans()).unwrap_or(0).min(FANS);
    for fan in 0..fans {
        let speed = asking.ask("nvmlDeviceGetFanSpeed", || device.fan_speed(fan));
        into.fans.extend(speed.map(|percent| f64::from(percent) / 100.0));
    }
}

fn errors(known: &Known<'_>, asking: &mut Asking<'_>, into: &mut Reading) {
    let device = &known.device;
    for (function, kind, name) in [
        ("nvmlDeviceGetTotalEccErrors(corrected)", MemoryError::Corrected, "corrected"),
        ("nvmlDeviceGetTotalEccErrors(uncorrected)", MemoryError::Uncorrected, "uncorrected"),
    ] {
        let told = asking.ask(function, || device.total_ecc_errors(kind, EccCounter::Aggregate));
        into.ecc_errors.extend(told.map(|count| (name, count)));
    }
    let fields = [
        field_id::NVML_FI_DEV_MEMORY_TEMP,
        field_id::NVML_FI_DEV_REMAPPED_COR,
        field_id::NVML_FI_DEV_REMAPPED_UNC,
        field_id::NVML_FI_DEV_REMAPPED_PENDING,
        field_id::NVML_FI_DEV_REMAPPED_FAILURE,
    ];
    let ids = fields.map(FieldId);
    let told = asking.ask("nvmlDeviceGetFieldValues", || device.field_values_for(&ids));
    // Each has an error of its own, which says that this device has no such field.
    let value = |at: usize| -> Option<f64> {
        let sample = told.as_ref()?.get(at)?.as_ref().ok()?;
        Some(number(sample.value.as_ref().ok()?))
    };
    // A memory without a sensor says 0.
    into.temperatures.extend(value(0).filter(|degrees| *degrees > 0.0).map(|degrees| ("memory", degrees)));
    into.remapped_rows.extend(value(1).map(|rows| ("correctable", rows as u64)));
    into.remapped_rows.extend(value(2).map(|rows| ("uncorrectable", rows as u64)));
    into.remap_pending = value(3).map(|value| value != 0.0);
    into.remap_failed = value(4).map(|value| value != 0.0);
}

fn links(known: &Known<'_>, asking: &mut Asking<'_>, into: &mut Reading) {
    const KILO: f64 = 1e3;
    let device = &known.device;
    let replays = asking.ask("nvmlDeviceGetPcieReplayCounter", || device.pcie_replay_counter());
    into.pcie_replays = replays.map(u64::from);
    for (function, counter, name) in [
        ("nvmlDeviceGetPcieThroughput(sent)", PcieUtilCounter::Send, "sent"),
        ("nvmlDeviceGetPcieThroughput(received)", PcieUtilCounter::Receive, "received"),
    ] {
        let told = asking.ask(function, || device.pcie_throughput(counter));
        into.pcie.extend(told.map(|kilobytes| (name, f64::from(kilobytes) * KILO)));
    }
}

/// Processes that compute on a device or an instance, those behind MPS included.
fn running(device: &nvml_wrapper::Device<'_>, asking: &mut Asking<'_>) -> Option<Vec<ProcessInfo>> {
    let own = asking.ask("nvmlDeviceGetComputeRunningProcesses", || device.running_compute_processes());
    let mps =
        asking.ask("nvmlDeviceGetMPSComputeRunningProcesses", || device.mps_running_compute_processes());
    if own.is_none() && mps.is_none() {
        return None;
    }
    let mut all: Vec<ProcessInfo> = own.into_iter().chain(mps).flatten().collect();
    all.sort_by_key(|one| one.pid);
    all.dedup_by_key(|one| one.pid);
    all.truncate(PROCESSES);
    Some(all)
}

fn process(info: &ProcessInfo, instance: Option<&str>, utilization: Option<f64>, owners: &Owners) -> Process {
    let memory = match info.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    };
    Process { instance: instance.map(str::to_owned), memory, utilization, owner: Arc::new(owners(info.pid)) }
}

fn processes(
    known: &mut Known<'_>,
    asking: &mut Asking<'_>,
    now: u64,
    owners: &Owners,
) -> Option<Vec<Process>> {
    let device = &known.device;
    let running = running(device, asking)?;
    let seen = &mut known.seen[3];
    let samples = asking
        .ask("nvmlDeviceGetProcessUtilization", || device.process_utilization_stats(*seen).or_else(no_news));
    let samples = samples.unwrap_or_default();
    *seen = samples.iter().map(|sample| sample.timestamp).fold(*seen, u64::max);
    // They come once a second or less: between two of them the last ones hold.
    if !samples.is_empty() || now.saturating_sub(known.busy.0) > HOLDS {
        let told = samples.iter().filter(|sample| sample.sm_util <= 100);
        known.busy = (now, told.map(|sample| (sample.pid, f64::from(sample.sm_util) / 100.0)).collect());
    }
    let utilization = |pid: u32| {
        let own = known.busy.1.iter().filter(|(of, _)| *of == pid);
        own.map(|(_, share)| *share).reduce(f64::max)
    };
    Some(running.iter().map(|info| process(info, None, utilization(info.pid), owners)).collect())
}

/// The instances, and the processes on them.
fn instances(
    known: &Known<'_>,
    asking: &mut Asking<'_>,
    into: &mut Reading,
    owners: &Owners,
) -> Option<Vec<Process>> {
    let count = asking.ask("nvmlDeviceGetMaxMigDeviceCount", || known.device.mig_device_count())?;
    let mut all = Vec::new();
    for index in 0..count.min(INSTANCES) {
        let found =
            asking.ask("nvmlDeviceGetMigDeviceHandleByIndex", || known.device.mig_device_by_index(index));
        let Some(device) = found else { continue };
        let Some(uuid) = asking.ask("nvmlDeviceGetUUID(mig)", || device.uuid()) else { continue };
        let name = asking.ask("nvmlDeviceGetName(mig)", || device.name()).unwrap_or_default();
        let profile = name.rsplit_once("MIG ").map(|(_, profile)| profile.to_owned());
        let profile = profile.or_else(|| {
            let told = asking.ask("nvmlDeviceGetAttributes(mig)", || device.attributes())?;
            // As NVIDIA names profiles: compute slices, then memory in GB.
            Some(format!("{}g.{}gb", told.gpu_instance_slice_count, told.memory_size_mb.div_ceil(1024)))
        });
        let memory = asking.ask("nvmlDeviceGetMemoryInfo(mig)", || memory(&device));
        let running = running(&device, asking).unwrap_or_default();
        into.instances.push(Instance {
            gpu_instance: running.iter().find_map(|one| one.gpu_instance_id),
            profile: profile.unwrap_or_default(),
            memory,
            activity: Activity::default(),
            uuid: uuid.clone(),
        });
        all.extend(running.iter().map(|info| process(info, Some(&uuid), None, owners)));
    }
    Some(all)
}

/// GPM: two moments of the device's counters make the figures of the time between them.
fn activities<'nvml>(
    nvml: &'nvml Nvml,
    known: &mut Known<'nvml>,
    asking: &mut Asking<'_>,
    into: &mut Reading,
) {
    if asking.ask("nvmlGpmQueryDeviceSupport", || known.device.gpm_support()) != Some(true) {
        return;
    }
    let before = std::mem::take(&mut known.gpm);
    let mut ids = vec![None];
    ids.extend(into.instances.iter().filter_map(|one| one.gpu_instance).map(Some));
    for id in ids {
        let sample = match id {
            None => asking.ask("nvmlGpmSampleGet", || known.device.gpm_sample()),
            Some(id) => asking.ask("nvmlGpmMigSampleGet", || known.device.gpm_mig_sample(id)),
        };
        let Some(sample) = sample else { continue };
        if let Some((_, earlier)) = before.iter().find(|(of, _)| *of == id) {
            let told = activity(nvml, earlier, &sample, asking).unwrap_or_default();
            match into.instances.iter_mut().find(|one| id.is_some() && one.gpu_instance == id) {
                Some(instance) => instance.activity = told,
                None => into.activity = told,
            }
        }
        known.gpm.push((id, sample));
    }
}

fn activity<'nvml>(
    nvml: &'nvml Nvml,
    earlier: &nvml_wrapper::GpmSample<'nvml>,
    later: &nvml_wrapper::GpmSample<'nvml>,
    asking: &mut Asking<'_>,
) -> Option<Activity> {
    const MEBI: f64 = 1_048_576.0;
    let ids = [
        GpmMetricId::SmUtil,
        GpmMetricId::SmOccupancy,
        GpmMetricId::AnyTensorUtil,
        GpmMetricId::DramBwUtil,
        GpmMetricId::NvlinkTotalTxPerSec,
        GpmMetricId::NvlinkTotalRxPerSec,
    ];
    let told = asking.ask("nvmlGpmMetricsGet", || gpm_metrics_get(nvml, earlier, later, &ids))?;
    let value = |at: usize, scale: f64| {
        told.get(at)?.as_ref().ok().map(|told| told.value * scale).filter(|value| value.is_finite())
    };
    Some(Activity {
        sm: value(0, 0.01),
        occupancy: value(1, 0.01),
        tensor: value(2, 0.01),
        dram: value(3, 0.01),
        nvlink_sent: value(4, MEBI),
        nvlink_received: value(5, MEBI),
    })
}
