//! What goes wrong with a driver: nothing waits, nothing old looks like new, and it is said.

use std::{fs, time::Duration};

use observer_tests::{
    agent::Metrics,
    gpu::{Driver, Reading, now, two_h100},
    workload::quiet,
};

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
    // The last that it says is why.
    let at = driver.scenario.at(now());
    driver.change(|scenario| {
        scenario.devices[0].lost_at = Some(at);
        scenario.devices[0].xids = vec![[at, 79.0]];
    });
    let lost = |gpu: &'static str, is: f64| {
        move |metrics: &Metrics| metrics.value("llm_gpu_lost", &[("gpu", gpu)]) == Some(is)
    };
    let metrics = reading.wait("the loss", lost("0", 1.0));
    assert_eq!(metrics.value("llm_gpu_power_watts", &[("gpu", "0")]), None, "its last values are not told");
    assert_eq!(metrics.value("llm_gpu_xid_errors_total", &[("gpu", "0"), ("xid", "79")]), Some(1.0));
    assert_eq!(metrics.value("llm_gpu_power_watts", &[("gpu", "1")]), Some(200.0));
    assert_eq!(metrics.value("llm_gpu_lost", &[("gpu", "1")]), Some(0.0));
    driver.change(|scenario| scenario.devices[0].lost_at = None);
    reading.wait("its return", lost("0", 0.0));
}

#[test]
fn what_is_not_supported_is_asked_for_once_as_long_as_the_driver_is_loaded() {
    const NOT_SUPPORTED: u32 = 3;
    let mut driver = Driver::install(two_h100());
    driver.change(|scenario| {
        scenario.fail.insert("nvmlDeviceGetTotalEccErrors".into(), NOT_SUPPORTED);
    });
    let reading = Reading::start(&driver.library());
    let has = |metrics: &Metrics| metrics.0.contains("llm_gpu_ecc_errors_total{");
    reading.wait("readings", tells);
    driver.change(|scenario| scenario.fail.clear());
    reading.wait_for_rounds();
    assert!(!has(&reading.wait_for_rounds()), "it is asked for again");
    driver.change(|scenario| {
        scenario.fail.insert("*".into(), DRIVER_NOT_LOADED);
    });
    reading.wait("the end of the driver", is("failed"));
    driver.change(|scenario| scenario.fail.clear());
    reading.wait("another driver", has);
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
