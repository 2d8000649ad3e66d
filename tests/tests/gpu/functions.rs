//! Every function of NVML that is called, and exactly what is lost where it is not supported.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use fake_nvml::{Device, Process};
use observer_tests::{
    agent::Metrics,
    gpu::{Driver, Reading, two_h100},
    workload::{folder, quiet},
};

const NOT_SUPPORTED: u32 = 3;

/// All is lost.
const ALL: &[&str] = &["*"];

const GPM: &[&str] = &[
    "llm_gpu_dram_active_ratio",
    "llm_gpu_mig_dram_active_ratio",
    "llm_gpu_mig_sm_active_ratio",
    "llm_gpu_mig_tensor_active_ratio",
    "llm_gpu_nvlink_bytes_per_second{direction=received}",
    "llm_gpu_nvlink_bytes_per_second{direction=sent}",
    "llm_gpu_sm_active_ratio",
    "llm_gpu_sm_occupancy_ratio",
    "llm_gpu_tensor_active_ratio",
];

const GPM_OF_INSTANCES: &[&str] =
    &["llm_gpu_mig_dram_active_ratio", "llm_gpu_mig_sm_active_ratio", "llm_gpu_mig_tensor_active_ratio"];

const INSTANCES: &[&str] = &[
    "label GPU_I_ID",
    "label GPU_I_PROFILE",
    "llm_gpu_mig_dram_active_ratio",
    "llm_gpu_mig_memory_bytes{state=free}",
    "llm_gpu_mig_memory_bytes{state=reserved}",
    "llm_gpu_mig_memory_bytes{state=used}",
    "llm_gpu_mig_sm_active_ratio",
    "llm_gpu_mig_tensor_active_ratio",
];

const INSTANCES_AND_THEIR_PROCESSES: &[&str] = &[
    "label GPU_I_ID",
    "label GPU_I_PROFILE",
    "llm_gpu_mig_dram_active_ratio",
    "llm_gpu_mig_memory_bytes{state=free}",
    "llm_gpu_mig_memory_bytes{state=reserved}",
    "llm_gpu_mig_memory_bytes{state=used}",
    "llm_gpu_mig_sm_active_ratio",
    "llm_gpu_mig_tensor_active_ratio",
    "llm_gpu_process_memory_bytes{process=python-103}",
];

const XIDS: &[&str] = &["llm_gpu_xid_errors_total{xid=31}"];

/// What is lost without each function; nothing where another one takes its place.
const FUNCTIONS: &[(&str, &[&str])] = &[
    ("nvmlDeviceGetAttributes_v2", &[]),
    ("nvmlDeviceGetClockInfo", &["llm_gpu_clock_hertz{clock=memory}", "llm_gpu_clock_hertz{clock=sm}"]),
    (
        "nvmlDeviceGetComputeRunningProcesses_v3",
        &[
            "label GPU_I_ID",
            "llm_gpu_mig_dram_active_ratio",
            "llm_gpu_mig_sm_active_ratio",
            "llm_gpu_mig_tensor_active_ratio",
            "llm_gpu_process_memory_bytes{process=python-101}",
            "llm_gpu_process_memory_bytes{process=python-102}",
            "llm_gpu_process_memory_bytes{process=python-103}",
            "llm_gpu_process_utilization_ratio{process=python-101}",
            "llm_gpu_process_utilization_ratio{process=python-102}",
        ],
    ),
    ("nvmlDeviceGetCount_v2", ALL),
    ("nvmlDeviceGetCurrentClocksThrottleReasons", &["llm_gpu_throttled_seconds_total{reason=sw_power_cap}"]),
    ("nvmlDeviceGetEnforcedPowerLimit", &["llm_gpu_power_limit_watts"]),
    ("nvmlDeviceGetFanSpeed_v2", &["llm_gpu_fan_speed_ratio{fan=0}"]),
    (
        "nvmlDeviceGetFieldValues",
        &[
            "llm_gpu_remapped_rows_total{type=correctable}",
            "llm_gpu_remapped_rows_total{type=uncorrectable}",
            "llm_gpu_row_remap_failed",
            "llm_gpu_row_remap_pending",
            "llm_gpu_temperature_celsius{sensor=memory}",
        ],
    ),
    ("nvmlDeviceGetHandleByIndex_v2", ALL),
    (
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
        &[
            "llm_gpu_process_memory_bytes{process=python-104}",
            "llm_gpu_process_utilization_ratio{process=python-104}",
        ],
    ),
    ("nvmlDeviceGetMaxMigDeviceCount", INSTANCES_AND_THEIR_PROCESSES),
    (
        "nvmlDeviceGetMemoryInfo_v2",
        &[
            "llm_gpu_memory_bytes{state=free}",
            "llm_gpu_memory_bytes{state=reserved}",
            "llm_gpu_memory_bytes{state=used}",
            "llm_gpu_mig_memory_bytes{state=free}",
            "llm_gpu_mig_memory_bytes{state=reserved}",
            "llm_gpu_mig_memory_bytes{state=used}",
        ],
    ),
    ("nvmlDeviceGetMigDeviceHandleByIndex", INSTANCES_AND_THEIR_PROCESSES),
    ("nvmlDeviceGetMigMode", INSTANCES),
    ("nvmlDeviceGetMinorNumber", &["label device"]),
    ("nvmlDeviceGetName", &["label model_name"]),
    ("nvmlDeviceGetNumFans", &["llm_gpu_fan_speed_ratio{fan=0}"]),
    ("nvmlDeviceGetPciInfo_v3", &["label pci_bus_id"]),
    ("nvmlDeviceGetPcieReplayCounter", &["llm_gpu_pcie_replays_total"]),
    (
        "nvmlDeviceGetPcieThroughput",
        &[
            "llm_gpu_pcie_bytes_per_second{direction=received}",
            "llm_gpu_pcie_bytes_per_second{direction=sent}",
        ],
    ),
    ("nvmlDeviceGetPowerUsage", &[]),
    (
        "nvmlDeviceGetProcessUtilization",
        &[
            "llm_gpu_process_utilization_ratio{process=python-101}",
            "llm_gpu_process_utilization_ratio{process=python-102}",
            "llm_gpu_process_utilization_ratio{process=python-104}",
        ],
    ),
    ("nvmlDeviceGetSamples", &[]),
    ("nvmlDeviceGetTemperature", &["llm_gpu_temperature_celsius{sensor=gpu}"]),
    (
        "nvmlDeviceGetTotalEccErrors",
        &["llm_gpu_ecc_errors_total{type=corrected}", "llm_gpu_ecc_errors_total{type=uncorrected}"],
    ),
    ("nvmlDeviceGetTotalEnergyConsumption", &["llm_gpu_energy_joules_total"]),
    ("nvmlDeviceGetUUID", ALL),
    ("nvmlDeviceGetUtilizationRates", &[]),
    (
        "nvmlDeviceGetViolationStatus",
        &[
            "llm_gpu_violation_seconds_total{policy=power}",
            "llm_gpu_violation_seconds_total{policy=reliability}",
            "llm_gpu_violation_seconds_total{policy=thermal}",
        ],
    ),
    ("nvmlDeviceRegisterEvents", XIDS),
    ("nvmlEventSetCreate", XIDS),
    ("nvmlEventSetFree", &[]),
    ("nvmlEventSetWait_v2", XIDS),
    ("nvmlGpmMetricsGet", GPM),
    ("nvmlGpmMigSampleGet", GPM_OF_INSTANCES),
    ("nvmlGpmQueryDeviceSupport", GPM),
    ("nvmlGpmSampleAlloc", GPM),
    ("nvmlGpmSampleFree", &[]),
    (
        "nvmlGpmSampleGet",
        &[
            "llm_gpu_dram_active_ratio",
            "llm_gpu_nvlink_bytes_per_second{direction=received}",
            "llm_gpu_nvlink_bytes_per_second{direction=sent}",
            "llm_gpu_sm_active_ratio",
            "llm_gpu_sm_occupancy_ratio",
            "llm_gpu_tensor_active_ratio",
        ],
    ),
    ("nvmlInit_v2", ALL),
    ("nvmlShutdown", &[]),
    ("nvmlSystemGetDriverVersion", &["label driver_version"]),
];

/// Labels that make a series another of its family.
const PARTS: [&str; 11] =
    ["state", "sensor", "clock", "fan", "direction", "reason", "policy", "xid", "type", "process", "source"];

/// Labels that functions of their own tell.
const TOLD: [&str; 6] = ["driver_version", "pci_bus_id", "device", "model_name", "GPU_I_ID", "GPU_I_PROFILE"];

/// What is told: series without the names of devices, and labels that are not empty.
fn told(metrics: &Metrics) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for line in metrics.0.lines().filter(|line| line.starts_with("llm_gpu_")) {
        let (name, rest) = line.split_once('{').expect("labels");
        let (labels, _) = rest.rsplit_once('}').expect("labels");
        let mut series = name.to_owned();
        for (label, value) in labels.split(',').filter_map(|label| label.split_once('=')) {
            let value = value.trim_matches('"');
            if PARTS.contains(&label) && !value.is_empty() {
                write!(series, "{{{label}={value}}}").expect("text");
            } else if TOLD.contains(&label) && !value.is_empty() {
                told.insert(format!("label {label}"));
            }
        }
        told.insert(series);
    }
    told
}

/// Two H100s with all that can be told of them.
fn devices() -> Vec<Device> {
    let mut devices = two_h100();
    devices[0].throttle = vec![[0.0, 4.0]];
    devices[0].xids = vec![[1.5, 31.0]];
    devices[0].processes.push(Process { pid: 104, memory: 1 << 30, sm: 5, mps: true });
    devices
}

#[test]
fn without_any_one_function_what_it_tells_is_missing_and_nothing_else() {
    let full = Driver::install(devices());
    let reading = Reading::start(&full.library());
    let named: BTreeSet<&str> =
        FUNCTIONS.iter().flat_map(|(_, lost)| *lost).copied().filter(|lost| *lost != "*").collect();
    let everything = |metrics: &Metrics| named.iter().all(|one| told(metrics).contains(*one));
    let with_all = told(&reading.wait("everything", everything));
    // All at once: each is another library, another driver.
    let drivers: Vec<_> = FUNCTIONS
        .iter()
        .map(|(function, lost)| {
            let mut driver = Driver::install(devices());
            driver.change(|scenario| {
                scenario.fail.insert((*function).to_owned(), NOT_SUPPORTED);
            });
            let reading = Reading::start(&driver.library());
            (*function, *lost, driver, reading)
        })
        .collect();
    let mut tested = BTreeMap::new();
    for (function, lost, driver, reading) in &drivers {
        if *lost == ALL {
            quiet(Duration::from_millis(20));
            assert_eq!(told(&reading.metrics()), BTreeSet::new(), "{function}");
            tested.insert(*function, driver.called());
            continue;
        }
        let missing =
            |metrics: &Metrics| -> Vec<String> { with_all.difference(&told(metrics)).cloned().collect() };
        // After the XID error, which is there for a fifteenth round.
        let metrics = reading.wait(function, |metrics| {
            let rounds = metrics.value("observer_gpu_rounds_total", &[]);
            rounds > Some(15.0) && (missing(metrics) == *lost || rounds > Some(40.0))
        });
        assert_eq!(missing(&metrics), *lost, "{function}");
        // It is noted once and not asked for again: unsupported is no failure.
        assert!(!metrics.0.contains("observer_gpu_call_failures_total{"), "{function}: {}", metrics.0);
        assert_eq!(metrics.sum("llm_gpu_power_watts", &[]), Some(500), "{function}");
        tested.insert(*function, driver.called());
    }
    drop(reading);
    let called: BTreeSet<String> = full.called().into_iter().chain(tested.into_values().flatten()).collect();
    let table: BTreeSet<String> = FUNCTIONS.iter().map(|(function, _)| (*function).to_owned()).collect();
    assert_eq!(called, table, "functions that are called, and those of the table");
}

#[test]
fn the_documentation_has_this_table() {
    let mut table = "| function of NVML | lost where it is not supported |\n| --- | --- |\n".to_owned();
    for (function, lost) in FUNCTIONS {
        let lost = match *lost {
            [] => "nothing".to_owned(),
            ["*"] => "everything".to_owned(),
            lost => documented(lost),
        };
        writeln!(table, "| `{function}` | {lost} |").expect("text");
    }
    let docs = std::fs::read_to_string(folder("../docs/gpu.md")).expect("the documentation");
    assert!(docs.contains(&table), "docs/gpu.md should have:\n{table}");
}

/// Names of metrics without their prefix, each once, and labels.
fn documented(lost: &[&str]) -> String {
    let mut names: Vec<String> = Vec::new();
    for one in lost {
        let name = one.strip_prefix("llm_gpu_").unwrap_or(one);
        // Whose process it is was the scenario's choice, and which error.
        let name = if name.contains("process=") || name.contains("xid=") {
            name.split_once('{').map_or(name, |(name, _)| name)
        } else {
            name
        };
        let name = match name.strip_prefix("label ") {
            Some(label) => format!("label `{label}`"),
            None => format!("`{name}`"),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}
