//! Every metric against the scenario.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use observer_tests::gpu::{Driver, NODE, Reading, now, two_h100};

const GIB: f64 = 1_073_741_824.0;

#[test]
fn every_metric_is_what_the_scenario_says() {
    let mut devices = two_h100();
    // For two seconds SW power cap and HW thermal slowdown; idle on the other from the first.
    devices[0].throttle = vec![[0.6, 4.0 + 64.0], [2.6, 0.0]];
    devices[1].throttle = vec![[0.6, 1.0], [2.6, 0.0]];
    devices[0].xids = vec![[2.0, 31.0], [2.1, 79.0], [3.5, 31.0]];
    // Peaks that lie between two rounds: the device's own buffers have them.
    devices[0].power = vec![[0.0, 300.0], [1.52, 300.0], [1.52, 650.0], [1.56, 650.0], [1.56, 300.0]];
    devices[0].utilization = vec![[0.0, 80.0], [1.5, 95.0], [1.67, 80.0]];
    let driver = Driver::install(devices.clone());
    let reading = Reading::start(&driver.library());
    let metrics = reading.wait("the last XID error", |metrics| {
        metrics.value("llm_gpu_xid_errors_total", &[("gpu", "0"), ("xid", "31")]) == Some(2.0)
    });
    let at = driver.scenario.at(now());
    println!("{}", metrics.0);
    metrics.assert_lint();
    let (whole, split) = (devices[0].uuid.as_str(), devices[1].uuid.as_str());
    let first = [("UUID", whole), ("gpu", "0"), ("model_name", "NVIDIA H100 80GB HBM3"), ("node", NODE)];
    let with = |more: &[(&'static str, &'static str)]| [&first[..], more].concat();
    let info =
        with(&[("driver_version", "570.86.15"), ("pci_bus_id", "00000000:01:00.0"), ("device", "nvidia0")]);
    for (name, labels, expected) in [
        ("llm_gpu_info", info, 1.0),
        ("llm_gpu_lost", with(&[]), 0.0),
        ("llm_gpu_utilization_ratio", with(&[]), 0.8),
        ("llm_gpu_utilization_peak_ratio", with(&[]), 0.95),
        ("llm_gpu_memory_utilization_ratio", with(&[]), 0.4),
        ("llm_gpu_sm_active_ratio", with(&[]), 0.62),
        ("llm_gpu_sm_occupancy_ratio", with(&[]), 0.31),
        ("llm_gpu_tensor_active_ratio", with(&[]), 0.2),
        ("llm_gpu_dram_active_ratio", with(&[]), 0.55),
        ("llm_gpu_memory_bytes", with(&[("state", "used")]), 40.0 * GIB),
        ("llm_gpu_memory_bytes", with(&[("state", "reserved")]), GIB),
        ("llm_gpu_memory_bytes", with(&[("state", "free")]), 39.0 * GIB),
        ("llm_gpu_power_watts", with(&[]), 300.0),
        ("llm_gpu_power_peak_watts", with(&[]), 650.0),
        ("llm_gpu_power_limit_watts", with(&[]), 700.0),
        ("llm_gpu_temperature_celsius", with(&[("sensor", "gpu")]), 61.0),
        ("llm_gpu_temperature_celsius", with(&[("sensor", "memory")]), 72.0),
        ("llm_gpu_clock_hertz", with(&[("clock", "sm")]), 1.98e9),
        ("llm_gpu_clock_hertz", with(&[("clock", "memory")]), 2.619e9),
        ("llm_gpu_fan_speed_ratio", with(&[("fan", "0")]), 0.4),
        ("llm_gpu_pcie_bytes_per_second", with(&[("direction", "sent")]), 1e6),
        ("llm_gpu_pcie_bytes_per_second", with(&[("direction", "received")]), 2e6),
        ("llm_gpu_nvlink_bytes_per_second", with(&[("direction", "sent")]), 104_857_600.0),
        ("llm_gpu_nvlink_bytes_per_second", with(&[("direction", "received")]), 209_715_200.0),
        ("llm_gpu_violation_seconds_total", with(&[("policy", "power")]), 1.0),
        ("llm_gpu_violation_seconds_total", with(&[("policy", "thermal")]), 2.0),
        ("llm_gpu_violation_seconds_total", with(&[("policy", "reliability")]), 6.0),
        ("llm_gpu_xid_errors_total", with(&[("xid", "31"), ("fatal", "false")]), 2.0),
        ("llm_gpu_xid_errors_total", with(&[("xid", "79"), ("fatal", "true")]), 1.0),
        ("llm_gpu_xid_errors_total", with(&[("xid", "48"), ("fatal", "true")]), 0.0),
        ("llm_gpu_ecc_errors_total", with(&[("type", "corrected")]), 5.0),
        ("llm_gpu_ecc_errors_total", with(&[("type", "uncorrected")]), 6.0),
        ("llm_gpu_remapped_rows_total", with(&[("type", "correctable")]), 1.0),
        ("llm_gpu_remapped_rows_total", with(&[("type", "uncorrectable")]), 2.0),
        ("llm_gpu_row_remap_pending", with(&[]), 1.0),
        ("llm_gpu_row_remap_failed", with(&[]), 0.0),
        ("llm_gpu_pcie_replays_total", with(&[]), 3.0),
    ] {
        let value = metrics.value(name, &labels).unwrap_or_else(|| panic!("no {name} {labels:?}"));
        assert!((value - expected).abs() <= expected * 1e-9, "{name} {labels:?}: {value}, not {expected}");
    }
    let energy = metrics.value("llm_gpu_energy_joules_total", &first).expect("energy");
    let drawn = 300.0 * at + 0.04 * 350.0;
    assert!((drawn - 300.0 * 0.6..=drawn).contains(&energy), "{energy} of {drawn} J, as of the last round");
    for (gpu, reason) in [("0", "sw_power_cap"), ("0", "hw_thermal"), ("1", "idle")] {
        let labels = [("gpu", gpu), ("reason", reason)];
        let seconds = metrics.value("llm_gpu_throttled_seconds_total", &labels).expect(reason);
        // Each edge is as exact as rounds are.
        assert!((seconds - 2.0).abs() < 0.5, "{reason}: {seconds}");
    }
    let instance = devices[1].mig[0].uuid.as_str();
    let mig = [("UUID", split), ("MIG_UUID", instance), ("GPU_I_ID", "1"), ("GPU_I_PROFILE", "3g.40gb")];
    let used = metrics.value("llm_gpu_mig_memory_bytes", &[&mig[..], &[("state", "used")]].concat());
    assert_eq!(used, Some(15.0 * GIB));
    let free = metrics.value("llm_gpu_mig_memory_bytes", &[&mig[..], &[("state", "free")]].concat());
    assert_eq!(free, Some(25.0 * GIB));
    assert_eq!(metrics.value("llm_gpu_mig_sm_active_ratio", &mig), Some(0.5));
    assert_eq!(metrics.value("llm_gpu_mig_tensor_active_ratio", &mig), Some(0.2));
    assert_eq!(metrics.value("llm_gpu_mig_dram_active_ratio", &mig), Some(0.55));
    let process = [
        ("namespace", "ml"),
        ("pod", "pod-101"),
        ("container", "server-101"),
        ("UUID", whole),
        ("pid", "101"),
    ];
    assert_eq!(metrics.value("llm_gpu_process_memory_bytes", &process), Some(30.0 * GIB));
    assert_eq!(metrics.value("llm_gpu_process_utilization_ratio", &process), Some(0.7));
    let other = metrics.value("llm_gpu_process_utilization_ratio", &[("pod", "pod-102"), ("UUID", whole)]);
    assert_eq!(other, Some(0.1));
    // NVML does not tell it of MIG instances.
    assert_eq!(metrics.value("llm_gpu_process_utilization_ratio", &[("pod", "pod-103")]), None);
    let on_instance = [("pod", "pod-103"), ("UUID", split), ("MIG_UUID", instance)];
    assert_eq!(metrics.value("llm_gpu_process_memory_bytes", &on_instance), Some(15.0 * GIB));
    let info = [("pod", "pod-102"), ("UUID", whole), ("MIG_UUID", ""), ("source", "nvml")];
    assert_eq!(metrics.value("llm_gpu_allocation_info", &info), Some(1.0));
    assert_eq!(metrics.sum("llm_gpu_allocation_info", &[]), Some(3));
    for (state, expected) in [("reading", 1.0), ("absent", 0.0), ("failed", 0.0), ("starting", 0.0)] {
        assert_eq!(metrics.value("observer_gpu_state", &[("state", state)]), Some(expected));
    }
    // Each watt and each byte once, shared or split.
    assert_eq!(metrics.sum("llm_gpu_power_watts", &[]), Some(500));
    assert_eq!(metrics.sum("llm_gpu_memory_bytes", &[]), Some(160 << 30));
}

#[test]
fn every_fatal_xid_is_counted_as_one() {
    const XIDS: [u32; 11] = [13, 31, 48, 63, 64, 74, 79, 94, 95, 119, 120];
    let mut devices = two_h100();
    devices[1].xids =
        XIDS.iter().zip(0..).map(|(xid, at)| [1.0 + 0.1 * f64::from(at), f64::from(*xid)]).collect();
    let driver = Driver::install(devices);
    let reading = Reading::start(&driver.library());
    let count = |gpu: &str, xid: u32| {
        let (xid, fatal) = (xid.to_string(), (xid >= 48).to_string());
        let labels = [("gpu", gpu), ("xid", xid.as_str()), ("fatal", fatal.as_str())];
        reading.metrics().value("llm_gpu_xid_errors_total", &labels)
    };
    reading.wait("the last of them", |_| count("1", 120) == Some(1.0));
    assert!(XIDS.iter().all(|xid| count("1", *xid) == Some(1.0)), "{}", reading.metrics().0);
    assert!(XIDS[2..].iter().all(|xid| count("0", *xid) == Some(0.0)), "there before it comes");
    assert_eq!(count("0", 31), None);
}

#[test]
fn what_the_reading_says_of_itself() {
    const NO_PERMISSION: u32 = 4;
    let mut driver = Driver::install(two_h100());
    driver.change(|scenario| {
        scenario.skew = -3_600_000_000;
        scenario.fail.insert("nvmlDeviceGetTemperature".into(), NO_PERMISSION);
        scenario.devices[1].fail.insert("nvmlDeviceGetFanSpeed_v2".into(), 3);
    });
    let began = now();
    let reading = Reading::every(&driver.library(), Duration::from_millis(50));
    // Nobody takes its rounds, of which 64 may wait.
    let metrics = reading.wait("more rounds than may wait", |metrics| {
        metrics.value("observer_gpu_rounds_dropped_total", &[]) > Some(4.0)
    });
    let all = (now() - began) as f64 / 1e6;
    let value = |name| metrics.value(name, &[]).unwrap_or_else(|| panic!("no {name}"));
    let rounds = value("observer_gpu_rounds_total");
    let dropped = metrics.value("observer_gpu_rounds_dropped_total", &[]);
    assert_eq!(dropped, Some(rounds - 64.0));
    assert_eq!(reading.rounds.try_iter().count(), 64);
    let took = value("observer_gpu_rounds_seconds_total");
    assert!((1e-4..all).contains(&took), "{took} s of {all} s");
    println!("a round of two devices takes {:.2} ms of the fake", took / rounds * 1e3);
    assert!((0.0..0.5).contains(&value("observer_gpu_sample_age_seconds")));
    // Power's samples come in each round, the others' some six a second.
    let mistimed = value("observer_gpu_samples_mistimed_total");
    assert!((2.0 * rounds..=6.0 * rounds).contains(&mistimed), "{mistimed} in {rounds} rounds");
    let failed = [("function", "nvmlDeviceGetTemperature"), ("error", "no_permission")];
    let failures = metrics.value("observer_gpu_call_failures_total", &failed);
    assert_eq!(failures, Some(2.0 * rounds), "two devices, each round");
    assert_eq!(metrics.sum("observer_gpu_call_failures_total", &[]), Some(2 * rounds as u64));
    let fan = metrics.value("observer_gpu_unsupported", &[("function", "nvmlDeviceGetFanSpeed")]);
    assert_eq!(fan, Some(1.0), "one device does not");
    metrics.assert_lint();
}

/// Each metric, and the test in which its value is what the scenario says.
const CHECKED: &[(&str, &str)] = &[
    ("llm_gpu_allocation_info", "the_kubelet_tells_of_idle_shared_and_split_gpus"),
    ("llm_gpu_apportioned_joules_total", "what_requests_cost_and_what_is_to_be_looked_at"),
    ("llm_gpu_apportioned_requests_total", "what_requests_cost_and_what_is_to_be_looked_at"),
    ("llm_gpu_apportioned_seconds_total", "what_requests_cost_and_what_is_to_be_looked_at"),
    ("llm_gpu_apportioned_tokens_total", "what_requests_cost_and_what_is_to_be_looked_at"),
    ("llm_gpu_busy_without_request_seconds_total", "what_requests_cost_and_what_is_to_be_looked_at"),
    ("llm_gpu_clock_hertz", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_dram_active_ratio", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_ecc_errors_total", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_energy_joules_total", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_fan_speed_ratio", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_idle_while_waiting_seconds_total", "what_requests_cost_and_what_is_to_be_looked_at"),
    ("llm_gpu_info", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_lost", "a_device_that_falls_off_the_bus_is_lost_and_the_other_is_read"),
    ("llm_gpu_memory_bytes", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_memory_utilization_ratio", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_mig_dram_active_ratio", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_mig_memory_bytes", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_mig_sm_active_ratio", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_mig_tensor_active_ratio", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_nvlink_bytes_per_second", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_pcie_bytes_per_second", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_pcie_replays_total", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_power_limit_watts", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_power_peak_watts", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_power_watts", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_process_memory_bytes", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_process_utilization_ratio", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_remapped_rows_total", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_row_remap_failed", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_row_remap_pending", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_sm_active_ratio", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_sm_occupancy_ratio", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_temperature_celsius", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_tensor_active_ratio", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_throttled_seconds_total", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_throttled_while_serving_seconds_total", "what_requests_cost_and_what_is_to_be_looked_at"),
    ("llm_gpu_utilization_peak_ratio", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_utilization_ratio", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_violation_seconds_total", "every_metric_is_what_the_scenario_says"),
    ("llm_gpu_xid_errors_total", "every_fatal_xid_is_counted_as_one"),
    ("observer_gpu_allocation_disagreements", "the_kubelet_tells_of_idle_shared_and_split_gpus"),
    ("observer_gpu_call_failures_total", "what_the_reading_says_of_itself"),
    ("observer_gpu_requests_unsettled_total", "what_requests_cost_and_what_is_to_be_looked_at"),
    ("observer_gpu_rounds_dropped_total", "what_the_reading_says_of_itself"),
    ("observer_gpu_rounds_seconds_total", "what_the_reading_says_of_itself"),
    ("observer_gpu_rounds_total", "what_the_reading_says_of_itself"),
    ("observer_gpu_sample_age_seconds", "what_the_reading_says_of_itself"),
    ("observer_gpu_samples_mistimed_total", "what_the_reading_says_of_itself"),
    ("observer_gpu_state", "every_metric_is_what_the_scenario_says"),
    ("observer_gpu_unsupported", "what_the_reading_says_of_itself"),
    ("observer_pod_resources_reads_total", "the_kubelet_tells_of_idle_shared_and_split_gpus"),
];

#[test]
fn no_metric_is_without_a_test() {
    // In text, what stands between quotation marks is every second part.
    let source = include_str!("../../../observer/src/export/prometheus/gpu.rs");
    let ours = |text: &&str| {
        let is_name = text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_name && ["llm_gpu_", "observer_"].iter().any(|start| text.starts_with(start))
    };
    let exported: BTreeSet<&str> = source.split('"').skip(1).step_by(2).filter(ours).collect();
    let checked: BTreeMap<&str, &str> = CHECKED.iter().copied().collect();
    assert_eq!(exported, checked.keys().copied().collect(), "what is exported, and what is checked");
    let files = ["allocations.rs", "faults.rs", "metrics.rs", "requests.rs"];
    let text: Vec<String> = files
        .iter()
        .map(|file| format!("{}/tests/gpu/{file}", env!("CARGO_MANIFEST_DIR")))
        .map(|path| std::fs::read_to_string(&path).expect("a test's source"))
        .collect();
    for (metric, test) in checked {
        let names = |text: &String| {
            let (_, rest) = text.split_once(&format!("fn {test}("))?;
            // To the end of the function.
            Some(rest.split("\n}\n").next()?.contains(&format!("\"{metric}\"")))
        };
        assert_eq!(text.iter().find_map(names), Some(true), "{metric} in {test}");
    }
}
