//! What goes wrong with a driver: nothing waits, nothing old looks like new, and it is said.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use observer_tests::{
    agent::Metrics,
    gpu::{Driver, Reading, now, two_h100},
    workload::quiet,
};

const NOT_SUPPORTED: u32 = 3;
const DRIVER_NOT_LOADED: u32 = 9;
const VERSION_MISMATCH: u32 = 18;

fn is(state: &'static str) -> impl Fn(&Metrics) -> bool {
    move |metrics| metrics.value("observer_gpu_state", &[("state", state)]) == Some(1.0)
}

/// Whether anything of a GPU is told.
fn tells(metrics: &Metrics) -> bool {
    metrics.0.lines().any(|line| line.starts_with("llm_gpu"))
}

#[test]
fn without_a_library_there_is_one_word_and_it_is_found_when_it_comes() {
    let driver = Driver::install(two_h100());
    let (there, away) = (driver.library(), driver.library().with_extension("away"));
    fs::rename(&there, &away).expect("rename");
    let reading = Reading::start(&there);
    let metrics = reading.wait("absent", is("absent"));
    let lines: Vec<_> =
        metrics.0.lines().filter(|line| line.contains("gpu") && !line.starts_with('#')).collect();
    assert_eq!(lines.len(), 4, "no noise: {lines:#?}");
    fs::rename(&away, &there).expect("rename");
    assert!(tells(&reading.wait("the library", is("reading"))));
}

#[test]
fn a_library_that_cannot_be_loaded_or_has_another_version_is_said_to_fail_and_tried_again() {
    let mut driver = Driver::install(two_h100());
    let good = fs::read(driver.library()).expect("the library");
    fs::write(driver.library(), "no library").expect("a file");
    let reading = Reading::start(&driver.library());
    assert!(!tells(&reading.wait("failed", is("failed"))));
    driver.change(|scenario| {
        scenario.fail.insert("nvmlInit_v2".into(), VERSION_MISMATCH);
    });
    fs::remove_file(driver.library()).expect("remove");
    fs::write(driver.library(), good).expect("the library");
    quiet(Duration::from_secs(6));
    assert!(is("failed")(&reading.metrics()), "the library and the driver do not fit");
    driver.change(|scenario| scenario.fail.clear());
    reading.wait("a driver that fits", is("reading"));
}

#[test]
fn a_driver_that_is_unloaded_is_picked_up_again() {
    let mut driver = Driver::install(two_h100());
    let reading = Reading::start(&driver.library());
    reading.wait("readings", is("reading"));
    driver.change(|scenario| {
        scenario.fail.insert("*".into(), DRIVER_NOT_LOADED);
    });
    reading.wait("the end of the driver", is("failed"));
    // The last round grows old, and then nothing of it is told.
    let metrics = reading.wait("stale", |metrics| !tells(metrics));
    assert!(metrics.value("observer_gpu_sample_age_seconds", &[]) > Some(0.9));
    driver.change(|scenario| {
        scenario.fail.clear();
        scenario.devices[0].name = "NVIDIA H200".into();
    });
    let metrics = reading.wait("the driver", |metrics| is("reading")(metrics) && tells(metrics));
    assert!(metrics.0.contains("model_name=\"NVIDIA H200\""), "devices are found anew");
}

#[test]
fn a_device_that_falls_off_the_bus_is_lost_and_the_other_is_read() {
    let mut driver = Driver::install(two_h100());
    let reading = Reading::start(&driver.library());
    reading.wait("readings", |metrics| metrics.value("llm_gpu_power_watts", &[("gpu", "0")]).is_some());
    driver.change(|scenario| scenario.devices[0].lost_at = Some(0.0));
    let lost = |gpu: &'static str, is: f64| {
        move |metrics: &Metrics| metrics.value("llm_gpu_lost", &[("gpu", gpu)]) == Some(is)
    };
    let metrics = reading.wait("the loss", lost("0", 1.0));
    assert_eq!(metrics.value("llm_gpu_power_watts", &[("gpu", "0")]), None, "its last values are not told");
    assert_eq!(metrics.value("llm_gpu_power_watts", &[("gpu", "1")]), Some(200.0));
    assert_eq!(metrics.value("llm_gpu_lost", &[("gpu", "1")]), Some(0.0));
    driver.change(|scenario| scenario.devices[0].lost_at = None);
    reading.wait("its return", lost("0", 0.0));
}

#[test]
fn a_call_that_hangs_makes_readings_old_and_nothing_else() {
    let mut driver = Driver::install(two_h100());
    let reading = Reading::start(&driver.library());
    reading.wait("readings", tells);
    driver.change(|scenario| {
        scenario.hang.insert("nvmlDeviceGetTemperature".into(), 2.0);
    });
    let metrics = reading.wait("old readings", |metrics| !tells(metrics));
    let age = metrics.value("observer_gpu_sample_age_seconds", &[]).expect("an age");
    assert!((1.0..4.5).contains(&age), "{age}");
    let begun = now();
    reading.metrics();
    assert!(now() - begun < 200_000, "a scrape does not wait for the driver");
    driver.change(|scenario| scenario.hang.clear());
    reading.wait("readings again", tells);
}

#[test]
fn samples_of_another_clock_are_not_believed() {
    let mut driver = Driver::install(two_h100());
    driver.change(|scenario| scenario.skew = -3_600_000_000);
    let reading = Reading::start(&driver.library());
    let metrics =
        reading.wait("readings", |metrics| metrics.value("observer_gpu_rounds_total", &[]) > Some(2.0));
    assert!(metrics.value("observer_gpu_samples_mistimed_total", &[]) > Some(0.0));
    assert_eq!(metrics.value("llm_gpu_power_watts", &[("gpu", "0")]), Some(300.0), "the present value");
    assert_eq!(metrics.value("llm_gpu_utilization_ratio", &[("gpu", "0")]), Some(0.8));
}

/// What is lost without each function, of devices or of all; empty where another one takes its place.
const FUNCTIONS: &[(&str, &str)] = &[
    ("nvmlDeviceGetAttributes_v2", ""),
    ("nvmlDeviceGetClockInfo", "llm_gpu_clock_hertz"),
    ("nvmlDeviceGetComputeRunningProcesses_v3", "llm_gpu_process_memory_bytes"),
    ("nvmlDeviceGetCount_v2", "*"),
    ("nvmlDeviceGetCurrentClocksThrottleReasons", "llm_gpu_throttled_seconds_total"),
    ("nvmlDeviceGetEnforcedPowerLimit", "llm_gpu_power_limit_watts"),
    ("nvmlDeviceGetFanSpeed_v2", "llm_gpu_fan_speed_ratio"),
    ("nvmlDeviceGetFieldValues", "llm_gpu_remapped_rows_total"),
    ("nvmlDeviceGetHandleByIndex_v2", "*"),
    ("nvmlDeviceGetMPSComputeRunningProcesses_v3", ""),
    ("nvmlDeviceGetMaxMigDeviceCount", "llm_gpu_mig_memory_bytes"),
    ("nvmlDeviceGetMemoryInfo_v2", "llm_gpu_memory_bytes"),
    ("nvmlDeviceGetMigDeviceHandleByIndex", "llm_gpu_mig_memory_bytes"),
    ("nvmlDeviceGetMigMode", "llm_gpu_mig_memory_bytes"),
    ("nvmlDeviceGetMinorNumber", ""),
    ("nvmlDeviceGetName", ""),
    ("nvmlDeviceGetNumFans", "llm_gpu_fan_speed_ratio"),
    ("nvmlDeviceGetPciInfo_v3", ""),
    ("nvmlDeviceGetPcieReplayCounter", "llm_gpu_pcie_replays_total"),
    ("nvmlDeviceGetPcieThroughput", "llm_gpu_pcie_bytes_per_second"),
    ("nvmlDeviceGetPowerUsage", ""),
    ("nvmlDeviceGetProcessUtilization", "llm_gpu_process_utilization_ratio"),
    ("nvmlDeviceGetSamples", ""),
    ("nvmlDeviceGetTemperature", ""),
    ("nvmlDeviceGetTotalEccErrors", "llm_gpu_ecc_errors_total"),
    ("nvmlDeviceGetTotalEnergyConsumption", "llm_gpu_energy_joules_total"),
    ("nvmlDeviceGetUUID", "*"),
    ("nvmlDeviceGetUtilizationRates", ""),
    ("nvmlDeviceGetViolationStatus", "llm_gpu_violation_seconds_total"),
    ("nvmlDeviceRegisterEvents", ""),
    ("nvmlEventSetCreate", ""),
    ("nvmlEventSetFree", ""),
    ("nvmlEventSetWait_v2", ""),
    ("nvmlGpmMetricsGet", "llm_gpu_sm_active_ratio"),
    ("nvmlGpmMigSampleGet", "llm_gpu_mig_sm_active_ratio"),
    ("nvmlGpmQueryDeviceSupport", "llm_gpu_sm_active_ratio"),
    ("nvmlGpmSampleAlloc", "llm_gpu_sm_active_ratio"),
    ("nvmlGpmSampleFree", ""),
    ("nvmlGpmSampleGet", "llm_gpu_sm_active_ratio"),
    ("nvmlInit_v2", "*"),
    ("nvmlShutdown", ""),
    ("nvmlSystemGetDriverVersion", ""),
];

fn families(metrics: &Metrics) -> BTreeSet<String> {
    let lines = metrics.0.lines().filter(|line| line.starts_with("llm_gpu_"));
    lines.filter_map(|line| line.split_once('{')).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn without_any_one_function_what_it_tells_is_missing_and_nothing_else() {
    let mut devices = two_h100();
    devices[0].throttle = vec![[0.0, 4.0]];
    let full = Driver::install(devices.clone());
    let reading = Reading::start(&full.library());
    let all = |metrics: &Metrics| {
        metrics.value("llm_gpu_sm_active_ratio", &[("gpu", "0")]).is_some()
            && metrics.0.contains("llm_gpu_mig_sm_active_ratio{")
            && metrics.0.contains("llm_gpu_process_utilization_ratio{")
    };
    let with_all = families(&reading.wait("everything", all));
    println!("{:<46} lost without it", "function");
    let mut tested = BTreeMap::new();
    // All at once: each is another library, another driver.
    let drivers: Vec<_> = FUNCTIONS
        .iter()
        .map(|(function, lost)| {
            let mut driver = Driver::install(devices.clone());
            driver.change(|scenario| {
                scenario.fail.insert((*function).to_owned(), NOT_SUPPORTED);
            });
            let reading = Reading::start(&driver.library());
            (*function, *lost, driver, reading)
        })
        .collect();
    for (function, lost, driver, reading) in &drivers {
        if *lost == "*" {
            quiet(Duration::from_millis(20));
            let metrics = reading.metrics();
            assert!(!tells(&metrics), "{function}: {}", metrics.0);
            println!("{function:<46} all");
            tested.insert(*function, driver.called());
            continue;
        }
        let missing = |metrics: &Metrics| {
            let left = families(metrics);
            with_all.difference(&left).cloned().collect::<Vec<_>>()
        };
        let expected = |metrics: &Metrics| {
            let missing = missing(metrics);
            let rounds = metrics.value("observer_gpu_rounds_total", &[]) > Some(6.0);
            rounds
                && (missing.is_empty() == lost.is_empty())
                && (lost.is_empty() || missing.iter().any(|one| one == lost))
        };
        let metrics = reading.wait(function, expected);
        let what = missing(&metrics);
        println!("{function:<46} {}", what.join(", "));
        // It is noted once and not asked for again: unsupported is no failure.
        assert!(!metrics.0.contains("observer_gpu_call_failures_total{"), "{function}: {}", metrics.0);
        assert_eq!(metrics.sum("llm_gpu_power_watts", &[]), Some(500), "{function}");
        tested.insert(*function, driver.called());
    }
    drop(reading);
    let called: BTreeSet<String> = full.called().into_iter().chain(tested.into_values().flatten()).collect();
    let untested: Vec<_> =
        called.iter().filter(|name| !FUNCTIONS.iter().any(|(function, _)| function == name)).collect();
    assert!(untested.is_empty(), "called and not in the table: {untested:?}");
    let uncalled: Vec<_> = FUNCTIONS.iter().filter(|(function, _)| !called.contains(*function)).collect();
    assert!(uncalled.is_empty(), "in the table and never called: {uncalled:?}");
}
