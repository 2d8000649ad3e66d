//! GPUs as metric families: a snapshot in, families out, no state.
//!
//! Gauges of a device bear the device's names and no pod: a shared one would be counted once for each pod. The pod comes
//! by a join with `llm_gpu_allocation_info`. What a MIG instance tells has names of its own, so that a sum over devices
//! counts each watt and each byte once.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, Opts};

use crate::gpu::{State, Told};
use crate::gpus::{self, Allocation, Diagnosis, FATAL_XIDS, Instance, Memory, Reading, Samples, allocated};

use super::labels::bounded;

/// What a scrape is told of GPUs.
#[derive(Clone, Debug, Default)]
pub struct GpuTold {
    /// This node's name.
    pub node: String,
    /// What was read.
    pub read: Told,
    /// What that says about requests.
    pub requests: gpus::Told,
    /// What the kubelet allocated, if it says, and how often it did and did not answer.
    pub allocations: (Option<Vec<Allocation>>, u64, u64),
}

/// One metric: how it is called, what it means, whether it only grows, and its own labels.
struct Metric(&'static str, &'static str, bool, &'static [&'static str]);

const DEVICE: [&str; 4] = ["UUID", "gpu", "model_name", "node"];

/// Where a value is.
type Seconds = fn(&Diagnosis) -> f64;
type Share = fn(&Instance) -> Option<f64>;

/// Values of labels, and the value.
type Row = (Vec<String>, f64);

struct Families(Vec<MetricFamily>);

impl Families {
    fn add(&mut self, common: &[&str], metric: &Metric, rows: Vec<Row>) -> prometheus::Result<()> {
        let Metric(name, help, counter, own) = *metric;
        let (options, names) = (Opts::new(name, help), [common, own].concat());
        // A family without a sample is no family.
        if rows.is_empty() {
            return Ok(());
        }
        if counter {
            let vector = CounterVec::new(options, &names)?;
            for (labels, value) in rows {
                vector.with_label_values(&labels).inc_by(value.max(0.0));
            }
            self.0.extend(vector.collect());
        } else {
            let vector = GaugeVec::new(options, &names)?;
            for (labels, value) in rows {
                vector.with_label_values(&labels).set(value);
            }
            self.0.extend(vector.collect());
        }
        Ok(())
    }

    /// A metric of devices: for each the values of its own labels, and the value.
    fn of_devices(
        &mut self,
        told: &GpuTold,
        metric: &Metric,
        values: impl Fn(&Reading) -> Vec<Row>,
    ) -> prometheus::Result<()> {
        let mut rows = Vec::new();
        for reading in told.read.round.iter().flat_map(|round| &round.readings) {
            let device = device(told, reading);
            rows.extend(
                values(reading).into_iter().map(|(own, value)| ([&device[..], &own].concat(), value)),
            );
        }
        self.add(&DEVICE, metric, rows)
    }
}

fn device(told: &GpuTold, reading: &Reading) -> [String; 4] {
    let device = &reading.device;
    [bounded(&device.uuid), device.index.to_string(), bounded(&device.model), told.node.clone()]
}

fn one(value: Option<f64>) -> Vec<Row> {
    value.map(|value| (Vec::new(), value)).into_iter().collect()
}

fn by<'a, V: Copy + Into<f64> + 'a>(values: impl IntoIterator<Item = (&'a &'static str, &'a V)>) -> Vec<Row> {
    values.into_iter().map(|(name, value)| (vec![(*name).to_owned()], (*value).into())).collect()
}

fn counts<'a>(values: impl IntoIterator<Item = (&'a &'static str, &'a u64)>) -> Vec<Row> {
    values.into_iter().map(|(name, value)| (vec![(*name).to_owned()], *value as f64)).collect()
}

fn mean(samples: &Samples) -> Option<f64> {
    let sum: f64 = samples.iter().map(|(_, value)| *value).sum();
    (!samples.is_empty()).then(|| sum / samples.len() as f64)
}

fn parts(memory: &Memory) -> [(&'static str, u64); 3] {
    [("used", memory.used), ("free", memory.free), ("reserved", memory.reserved)]
}

/// All families; `names` are those of the workload labels.
pub(super) fn families(names: &[&'static str], told: &GpuTold) -> prometheus::Result<Vec<MetricFamily>> {
    let mut all = Families(Vec::new());
    if !told.read.enabled {
        return Ok(all.0);
    }
    itself(&mut all, told)?;
    devices(&mut all, told)?;
    health(&mut all, told)?;
    instances(&mut all, told)?;
    tenants(&mut all, names, told)?;
    requests(&mut all, names, told)?;
    Ok(all.0)
}

fn devices(all: &mut Families, told: &GpuTold) -> prometheus::Result<()> {
    let gauge = |name, help| Metric(name, help, false, &[]);
    let sums = |reading: &Reading| told.read.sums.get(&reading.device.uuid);
    let info = Metric("llm_gpu_info", INFO, false, &["driver_version", "pci_bus_id", "device"]);
    all.of_devices(told, &info, |r| {
        let bus = r.device.bus.clone().unwrap_or_default();
        let file = r.device.minor.map_or(String::new(), |minor| format!("nvidia{minor}"));
        vec![(vec![bounded(&r.device.driver), bounded(&bus), file], 1.0)]
    })?;
    all.of_devices(told, &gauge("llm_gpu_lost", LOST), |r| one(Some(f64::from(u8::from(r.lost)))))?;
    all.of_devices(told, &gauge("llm_gpu_utilization_ratio", UTILIZATION), |r| one(mean(&r.utilization)))?;
    all.of_devices(told, &gauge("llm_gpu_utilization_peak_ratio", UTILIZATION_PEAK), |r| {
        one(sums(r).filter(|_| !r.lost).and_then(crate::gpu::Sums::utilization_peak))
    })?;
    all.of_devices(told, &gauge("llm_gpu_memory_utilization_ratio", MEMORY_UTILIZATION), |r| {
        one(mean(&r.memory_utilization))
    })?;
    all.of_devices(told, &gauge("llm_gpu_sm_active_ratio", SM), |r| one(r.activity.sm))?;
    all.of_devices(told, &gauge("llm_gpu_sm_occupancy_ratio", OCCUPANCY), |r| one(r.activity.occupancy))?;
    all.of_devices(told, &gauge("llm_gpu_tensor_active_ratio", TENSOR), |r| one(r.activity.tensor))?;
    all.of_devices(told, &gauge("llm_gpu_dram_active_ratio", DRAM), |r| one(r.activity.dram))?;
    let memory = Metric("llm_gpu_memory_bytes", MEMORY, false, &["state"]);
    all.of_devices(told, &memory, |r| {
        let of = |memory: &Memory| {
            parts(memory).map(|(state, bytes)| (vec![state.to_owned()], bytes as f64)).to_vec()
        };
        r.memory.as_ref().map(of).unwrap_or_default()
    })?;
    all.of_devices(told, &gauge("llm_gpu_power_watts", POWER), |r| {
        one(r.power.last().map(|(_, watts)| *watts))
    })?;
    all.of_devices(told, &gauge("llm_gpu_power_peak_watts", POWER_PEAK), |r| {
        one(sums(r).filter(|_| !r.lost).and_then(crate::gpu::Sums::power_peak))
    })?;
    all.of_devices(told, &gauge("llm_gpu_power_limit_watts", POWER_LIMIT), |r| one(r.power_limit))?;
    let energy = Metric("llm_gpu_energy_joules_total", ENERGY, true, &[]);
    all.of_devices(told, &energy, |r| one(r.energy))?;
    let temperature = Metric("llm_gpu_temperature_celsius", TEMPERATURE, false, &["sensor"]);
    all.of_devices(told, &temperature, |r| by(&r.temperatures))?;
    all.of_devices(told, &Metric("llm_gpu_clock_hertz", CLOCK, false, &["clock"]), |r| by(&r.clocks))?;
    let fan = Metric("llm_gpu_fan_speed_ratio", FAN, false, &["fan"]);
    all.of_devices(told, &fan, |r| {
        r.fans.iter().enumerate().map(|(fan, speed)| (vec![fan.to_string()], *speed)).collect()
    })?;
    let pcie = Metric("llm_gpu_pcie_bytes_per_second", PCIE, false, &["direction"]);
    all.of_devices(told, &pcie, |r| by(&r.pcie))?;
    let nvlink = Metric("llm_gpu_nvlink_bytes_per_second", NVLINK, false, &["direction"]);
    all.of_devices(told, &nvlink, |r| {
        let both = [("sent", r.activity.nvlink_sent), ("received", r.activity.nvlink_received)];
        both.into_iter().filter_map(|(name, value)| Some((vec![name.to_owned()], value?))).collect()
    })
}

fn health(all: &mut Families, told: &GpuTold) -> prometheus::Result<()> {
    let sums = |reading: &Reading| told.read.sums.get(&reading.device.uuid);
    let throttled = Metric("llm_gpu_throttled_seconds_total", THROTTLED, true, &["reason"]);
    all.of_devices(told, &throttled, |r| sums(r).map(|sums| by(&sums.throttled)).unwrap_or_default())?;
    let violation = Metric("llm_gpu_violation_seconds_total", VIOLATION, true, &["policy"]);
    all.of_devices(told, &violation, |r| by(&r.violations))?;
    let xids = Metric("llm_gpu_xid_errors_total", XID, true, &["xid", "fatal"]);
    all.of_devices(told, &xids, |r| {
        let mut counts = sums(r).map(|sums| sums.xids.clone()).unwrap_or_default();
        // There at 0, so that a first one is seen to come.
        for xid in FATAL_XIDS {
            counts.entry(xid).or_default();
        }
        let row = |(xid, count): (u64, u64)| {
            (vec![xid.to_string(), FATAL_XIDS.contains(&xid).to_string()], count as f64)
        };
        counts.into_iter().map(row).collect()
    })?;
    let ecc = Metric("llm_gpu_ecc_errors_total", ECC, true, &["type"]);
    all.of_devices(told, &ecc, |r| counts(&r.ecc_errors))?;
    let rows = Metric("llm_gpu_remapped_rows_total", ROWS, true, &["type"]);
    all.of_devices(told, &rows, |r| counts(&r.remapped_rows))?;
    let truth = |value: Option<bool>| one(value.map(|holds| f64::from(u8::from(holds))));
    let pending = Metric("llm_gpu_row_remap_pending", ROW_PENDING, false, &[]);
    all.of_devices(told, &pending, |r| truth(r.remap_pending))?;
    let failed = Metric("llm_gpu_row_remap_failed", ROW_FAILED, false, &[]);
    all.of_devices(told, &failed, |r| truth(r.remap_failed))?;
    let replays = Metric("llm_gpu_pcie_replays_total", REPLAYS, true, &[]);
    all.of_devices(told, &replays, |r| one(r.pcie_replays.map(|count| count as f64)))?;
    let diagnosis: [(_, _, Seconds); 3] = [
        ("llm_gpu_throttled_while_serving_seconds_total", THROTTLED_SERVING, |d| d.throttled_while_serving),
        ("llm_gpu_idle_while_waiting_seconds_total", IDLE_WAITING, |d| d.idle_while_waiting),
        ("llm_gpu_busy_without_request_seconds_total", BUSY_ALONE, |d| d.busy_without_request),
    ];
    for (name, help, seconds) in diagnosis {
        all.of_devices(told, &Metric(name, help, true, &[]), |r| {
            one(told.requests.diagnosis.get(&r.device.uuid).map(seconds))
        })?;
    }
    Ok(())
}

fn instances(all: &mut Families, told: &GpuTold) -> prometheus::Result<()> {
    let rows = |reading: &Reading, values: &dyn Fn(&Instance) -> Vec<Row>| {
        let mut rows = Vec::new();
        for instance in &reading.instances {
            let names = [
                bounded(&instance.uuid),
                instance.gpu_instance.map_or(String::new(), |id| id.to_string()),
                bounded(&instance.profile),
            ];
            rows.extend(
                values(instance).into_iter().map(|(own, value)| ([&names[..], &own].concat(), value)),
            );
        }
        rows
    };
    let memory = Metric(
        "llm_gpu_mig_memory_bytes",
        MIG_MEMORY,
        false,
        &["MIG_UUID", "GPU_I_ID", "GPU_I_PROFILE", "state"],
    );
    all.of_devices(told, &memory, |r| {
        rows(r, &|one| {
            let of =
                |memory: &Memory| parts(memory).map(|(state, bytes)| (vec![state.to_owned()], bytes as f64));
            one.memory.as_ref().map(of).into_iter().flatten().collect()
        })
    })?;
    let activities: [(_, _, Share); 3] = [
        ("llm_gpu_mig_sm_active_ratio", MIG_SM, |one| one.activity.sm),
        ("llm_gpu_mig_tensor_active_ratio", MIG_TENSOR, |one| one.activity.tensor),
        ("llm_gpu_mig_dram_active_ratio", MIG_DRAM, |one| one.activity.dram),
    ];
    for (name, help, value) in activities {
        let metric = Metric(name, help, false, &["MIG_UUID", "GPU_I_ID", "GPU_I_PROFILE"]);
        all.of_devices(told, &metric, |r| rows(r, &|instance| one(value(instance))))?;
    }
    Ok(())
}

fn tenants(all: &mut Families, names: &[&'static str], told: &GpuTold) -> prometheus::Result<()> {
    let readings = told.read.round.as_ref().map_or(&[][..], |round| &round.readings);
    let (who, disagreements) = allocated(readings, told.allocations.0.as_deref());
    let rows = who.into_iter().map(|one| {
        let names = one.names.map(|name| bounded(&name));
        let own = [bounded(&one.device), bounded(&one.instance), one.source.as_str().to_owned()];
        ([&names[..], &own].concat(), 1.0)
    });
    let info = Metric("llm_gpu_allocation_info", ALLOCATION, false, &["UUID", "MIG_UUID", "source"]);
    all.add(names, &info, rows.collect())?;
    let own: &[&str] = &["UUID", "MIG_UUID", "gpu", "pid", "process"];
    let (mut memory, mut utilization) = (Vec::new(), Vec::new());
    for reading in readings {
        for process in reading.processes.iter().flatten() {
            let owner = &process.owner;
            let mut labels = owner.names.clone().map(|name| bounded(&name)).to_vec();
            labels.extend([
                bounded(&reading.device.uuid),
                bounded(process.instance.as_deref().unwrap_or_default()),
                reading.device.index.to_string(),
                owner.pid.to_string(),
                bounded(&owner.process),
            ]);
            memory.extend(process.memory.map(|bytes| (labels.clone(), bytes as f64)));
            utilization.extend(process.utilization.map(|share| (labels, share)));
        }
    }
    all.add(names, &Metric("llm_gpu_process_memory_bytes", PROCESS_MEMORY, false, own), memory)?;
    all.add(
        names,
        &Metric("llm_gpu_process_utilization_ratio", PROCESS_UTILIZATION, false, own),
        utilization,
    )?;
    if told.allocations.0.is_some() {
        let metric = Metric("observer_gpu_allocation_disagreements", DISAGREEMENTS, false, &[]);
        all.add(&[], &metric, vec![(Vec::new(), disagreements as f64)])?;
    }
    let (answered, failed) = (told.allocations.1, told.allocations.2);
    if answered + failed > 0 {
        let rows = [("ok", answered), ("failed", failed)]
            .map(|(result, count)| (vec![result.to_owned()], count as f64));
        let metric = Metric("observer_pod_resources_reads_total", POD_RESOURCES, true, &["result"]);
        all.add(&[], &metric, rows.to_vec())?;
    }
    Ok(())
}

fn requests(all: &mut Families, names: &[&'static str], told: &GpuTold) -> prometheus::Result<()> {
    let names = [names, &["gen_ai_request_model"]].concat();
    let shares = &told.requests.shares;
    let rows = |value: fn(&gpus::Shares) -> f64| -> Vec<Row> {
        shares
            .iter()
            .map(|(key, shares)| (key.clone().map(|part| bounded(&part)).to_vec(), value(shares)))
            .collect()
    };
    let joules = Metric("llm_gpu_apportioned_joules_total", JOULES, true, &[]);
    all.add(&names, &joules, rows(|shares| shares.joules))?;
    let seconds = Metric("llm_gpu_apportioned_seconds_total", SECONDS, true, &[]);
    all.add(&names, &seconds, rows(|shares| shares.seconds))?;
    let counted = Metric("llm_gpu_apportioned_requests_total", APPORTIONED, true, &[]);
    all.add(&names, &counted, rows(|shares| shares.requests as f64))?;
    let of = |kind: &str, value: fn(&gpus::Shares) -> f64| -> Vec<Row> {
        rows(value)
            .into_iter()
            .map(|(labels, value)| ([labels, vec![kind.to_owned()]].concat(), value))
            .collect()
    };
    let both =
        [of("input", |shares| shares.input as f64), of("output", |shares| shares.output as f64)].concat();
    all.add(&names, &Metric("llm_gpu_apportioned_tokens_total", TOKENS, true, &["type"]), both)
}

fn itself(all: &mut Families, told: &GpuTold) -> prometheus::Result<()> {
    let read = &told.read;
    let state = |state: State| (vec![state.as_str().to_owned()], f64::from(u8::from(state == read.state)));
    all.add(&[], &Metric("observer_gpu_state", STATE, false, &["state"]), State::ALL.map(state).to_vec())?;
    // Without a GPU that is all.
    if read.rounds.0 == 0 {
        return Ok(());
    }
    all.add(&[], &Metric("observer_gpu_sample_age_seconds", AGE, false, &[]), one(read.age))?;
    let number = |name, help, value: f64| (Metric(name, help, true, &[]), vec![(Vec::new(), value)]);
    for (metric, rows) in [
        number("observer_gpu_rounds_total", ROUNDS, read.rounds.0 as f64),
        number("observer_gpu_rounds_seconds_total", ROUND_SECONDS, read.rounds.1),
        number("observer_gpu_rounds_dropped_total", ROUNDS_DROPPED, read.dropped as f64),
        number("observer_gpu_samples_mistimed_total", MISTIMED, read.mistimed as f64),
        number("observer_gpu_requests_unsettled_total", UNSETTLED, told.requests.unsettled as f64),
    ] {
        all.add(&[], &metric, rows)?;
    }
    let unsupported = read.calls.unsupported.iter();
    let rows = unsupported.map(|(function, devices)| (vec![(*function).to_owned()], devices.len() as f64));
    all.add(&[], &Metric("observer_gpu_unsupported", UNSUPPORTED, false, &["function"]), rows.collect())?;
    let failures = read.calls.failures.iter();
    let rows = failures
        .map(|((function, error), count)| (vec![(*function).to_owned(), (*error).to_owned()], *count as f64));
    all.add(
        &[],
        &Metric("observer_gpu_call_failures_total", FAILURES, true, &["function", "error"]),
        rows.collect(),
    )
}

const INFO: &str = "1 for each GPU: its driver's version, its place on the bus and its device file.";
const LOST: &str = "1 for a GPU that has fallen off the bus or has to be reset: nothing else is told of it.";
const UTILIZATION: &str = "Share of the last second in which at least one kernel ran: a GPU with one busy \
                           multiprocessor of 132 shows 1. llm_gpu_sm_active_ratio, where there is one, says more.";
const UTILIZATION_PEAK: &str = "The highest sample of utilization of the last 30 seconds, from the GPU's own buffer: \
                                some six a second.";
const MEMORY_UTILIZATION: &str = "Share of the last second in which the GPU's memory was read or written.";
const SM: &str = "Share of multiprocessors that had work in the last second (GPM, Hopper and later).";
const OCCUPANCY: &str = "Share of warps that were active, of those that could be (GPM, Hopper and later).";
const TENSOR: &str = "Share of the last second in which tensor cores worked (GPM, Hopper and later).";
const DRAM: &str =
    "Share of the memory's bandwidth that was used in the last second (GPM, Hopper and later).";
const MEMORY: &str =
    "Bytes of a GPU's memory by state: used, free, reserved by the driver; they add up to all of it.";
const POWER: &str = "What the GPU draws, watts; boards of Ampere and later average over a second.";
const POWER_PEAK: &str =
    "The highest power of the last 30 seconds, from the GPU's own buffer: some 50 samples a second.";
const POWER_LIMIT: &str = "What the GPU may draw, watts.";
const ENERGY: &str = "Joules that the GPU drew since its driver was loaded, as it counts itself.";
const TEMPERATURE: &str = "Degrees Celsius by sensor: gpu, memory.";
const CLOCK: &str = "Clocks as they are: sm, memory.";
const FAN: &str = "Share of its speed of each fan.";
const PCIE: &str = "Bytes a second over PCIe by direction, seen from the GPU, as it measured for 20 ms.";
const NVLINK: &str =
    "Bytes a second over all NVLinks by direction, seen from the GPU (GPM, Hopper and later).";
const THROTTLED: &str = "Seconds in which clocks were lower than they could be, by reason (idle is one, and \
                         applications_clocks is how they were set), by what was so at the end of each round.";
const VIOLATION: &str = "Seconds since the driver was loaded in which the GPU was held back, by policy (power, \
                         thermal, reliability), as it counts itself.";
const XID: &str = "XID errors since the observer started, by number; fatal are those after which work is lost or the \
                   GPU has to be looked at. Of several within a second NVML may tell the last.";
const ECC: &str = "Errors of the GPU's memory in its life, by whether they were corrected.";
const ROWS: &str = "Rows of the GPU's memory that were replaced, by the error that was the reason.";
const ROW_PENDING: &str = "Whether a row waits for a reset of the GPU to be replaced.";
const ROW_FAILED: &str = "Whether a row could not be replaced: the GPU has to be exchanged.";
const REPLAYS: &str = "Packets that were sent again over PCIe.";
const THROTTLED_SERVING: &str = "Seconds in which heat, power or a fault held the GPU's clocks back while a request \
                                 that uses it was in flight.";
const IDLE_WAITING: &str = "Seconds in which the GPU was less than 5 % utilized while a request that uses it waited for \
                            its first token: bad batching, or an engine that is stuck.";
const BUSY_ALONE: &str = "Seconds in which the GPU was more than 20 % utilized while no request that uses it was in \
                          flight: somebody else's work.";
const MIG_MEMORY: &str =
    "Bytes of a MIG instance's memory by state; parts of llm_gpu_memory_bytes of its GPU.";
const MIG_SM: &str = "Share of a MIG instance's multiprocessors that had work in the last second (GPM).";
const MIG_TENSOR: &str = "Share of the last second in which a MIG instance's tensor cores worked (GPM).";
const MIG_DRAM: &str = "Share of a MIG instance's memory bandwidth that was used in the last second (GPM).";
const ALLOCATION: &str = "1 for each container that has a GPU or MIG instance, by who says so: nvml (a process of it is \
                          there) or pod_resources (the kubelet allocated it). To join pods to gauges of GPUs.";
const PROCESS_MEMORY: &str = "Bytes of a GPU's memory that a process uses.";
const PROCESS_UTILIZATION: &str = "Share of time in which a process' kernels ran, at its highest in the last second; not \
                                   told of MIG instances.";
const DISAGREEMENTS: &str = "Containers with a process on a GPU that the kubelet did not allocate to them.";
const POD_RESOURCES: &str = "Questions to the kubelet's pod-resources API, by result.";
const JOULES: &str = "Energy of GPUs that is apportioned to finished requests, not measured of them: requests in flight \
                      share what a GPU draws by their tokens. Over llm_gpu_apportioned_tokens_total{type=output}: joules \
                      per output token.";
const SECONDS: &str = "Time of GPUs that is apportioned to finished requests by the same shares.";
const APPORTIONED: &str = "Finished requests that energy and time of GPUs were apportioned to.";
const TOKENS: &str =
    "Tokens of the requests that energy and time of GPUs were apportioned to, by type: input, output.";
const STATE: &str =
    "1 for where reading GPUs stands: starting, absent (no driver's library), failed, reading.";
const AGE: &str = "Seconds since GPUs were read last. It grows while a call into the driver hangs; after five intervals \
                   nothing that was read before is told any more.";
const ROUNDS: &str = "Rounds in which all GPUs were read.";
const ROUND_SECONDS: &str = "Seconds that these took, on a thread of their own.";
const ROUNDS_DROPPED: &str =
    "Rounds that requests did not get to see, since the thread that captures was busy.";
const MISTIMED: &str = "Lists of samples whose times cannot be right: the present value took their place.";
const UNSETTLED: &str = "Finished requests with a GPU whose energy could not be told: readings did not cover them, or they \
                         were seen incompletely.";
const UNSUPPORTED: &str = "GPUs that do not support a function of NVML, by function; it is not called again.";
const FAILURES: &str = "Calls of NVML that failed otherwise, by function and error.";
