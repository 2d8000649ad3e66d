//! Every metric against the scenario.

use observer_tests::gpu::{Driver, NODE, Reading, two_h100};

const GIB: f64 = 1_073_741_824.0;

#[test]
fn every_metric_is_what_the_scenario_says() {
    let mut devices = two_h100();
    // SW power cap and HW thermal slowdown; idle on the other.
    devices[0].throttle = vec![[0.0, 4.0 + 64.0]];
    devices[1].throttle = vec![[0.0, 1.0]];
    devices[0].xids = vec![[2.0, 31.0], [2.1, 79.0]];
    let driver = Driver::install(devices.clone());
    let reading = Reading::start(&driver.library());
    let metrics = reading.wait("the XID errors", |metrics| {
        metrics.value("llm_gpu_xid_errors_total", &[("gpu", "0"), ("xid", "79")]) == Some(1.0)
    });
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
        ("llm_gpu_utilization_peak_ratio", with(&[]), 0.8),
        ("llm_gpu_memory_utilization_ratio", with(&[]), 0.4),
        ("llm_gpu_sm_active_ratio", with(&[]), 0.62),
        ("llm_gpu_sm_occupancy_ratio", with(&[]), 0.31),
        ("llm_gpu_tensor_active_ratio", with(&[]), 0.2),
        ("llm_gpu_dram_active_ratio", with(&[]), 0.55),
        ("llm_gpu_memory_bytes", with(&[("state", "used")]), 40.0 * GIB),
        ("llm_gpu_memory_bytes", with(&[("state", "reserved")]), GIB),
        ("llm_gpu_memory_bytes", with(&[("state", "free")]), 39.0 * GIB),
        ("llm_gpu_power_watts", with(&[]), 300.0),
        ("llm_gpu_power_peak_watts", with(&[]), 300.0),
        ("llm_gpu_power_limit_watts", with(&[]), 700.0),
        ("llm_gpu_temperature_celsius", with(&[("sensor", "gpu")]), 61.0),
        ("llm_gpu_temperature_celsius", with(&[("sensor", "memory")]), 72.0),
        ("llm_gpu_clock_hertz", with(&[("clock", "sm")]), 1.98e9),
        ("llm_gpu_clock_hertz", with(&[("clock", "memory")]), 2.619e9),
        ("llm_gpu_fan_speed_ratio", with(&[("fan", "0")]), 0.4),
        ("llm_gpu_pcie_bytes_per_second", with(&[("direction", "sent")]), 1e6),
        ("llm_gpu_pcie_bytes_per_second", with(&[("direction", "received")]), 2e6),
        ("llm_gpu_nvlink_bytes_per_second", with(&[("direction", "sent")]), 104_857_600.0),
        ("llm_gpu_nvlink_bytes_per_second", with(&[("direction", "received")]), 104_857_600.0),
        ("llm_gpu_violation_seconds_total", with(&[("policy", "power")]), 1.0),
        ("llm_gpu_violation_seconds_total", with(&[("policy", "thermal")]), 2.0),
        ("llm_gpu_violation_seconds_total", with(&[("policy", "reliability")]), 6.0),
        ("llm_gpu_xid_errors_total", with(&[("xid", "31"), ("fatal", "false")]), 1.0),
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
    assert!((600.0..3000.0).contains(&energy), "300 W for some seconds: {energy}");
    for (gpu, reason) in [("0", "sw_power_cap"), ("0", "hw_thermal"), ("1", "idle")] {
        let labels = [("gpu", gpu), ("reason", reason)];
        let seconds = metrics.value("llm_gpu_throttled_seconds_total", &labels).expect(reason);
        assert!((1.0..10.0).contains(&seconds), "{reason}: {seconds}");
    }
    let instance = devices[1].mig[0].uuid.as_str();
    let mig = [("UUID", split), ("MIG_UUID", instance), ("GPU_I_ID", "1"), ("GPU_I_PROFILE", "3g.40gb")];
    let used = metrics.value("llm_gpu_mig_memory_bytes", &[&mig[..], &[("state", "used")]].concat());
    assert_eq!(used, Some(15.0 * GIB));
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
    let on_instance = [("pod", "pod-103"), ("UUID", split), ("MIG_UUID", instance)];
    assert_eq!(metrics.value("llm_gpu_process_memory_bytes", &on_instance), Some(15.0 * GIB));
    let info = [("pod", "pod-102"), ("UUID", whole), ("MIG_UUID", ""), ("source", "nvml")];
    assert_eq!(metrics.value("llm_gpu_allocation_info", &info), Some(1.0));
    assert_eq!(metrics.value("observer_gpu_state", &[("state", "reading")]), Some(1.0));
    // Each watt and each byte once, shared or split.
    assert_eq!(metrics.sum("llm_gpu_power_watts", &[]), Some(500));
    assert_eq!(metrics.sum("llm_gpu_memory_bytes", &[]), Some(160 << 30));
}
