//! Who has which GPU: by processes, and by what the kubelet says.

use std::{fs, time::Duration};

use observer::{
    export::prometheus::GpuTold,
    gpu::{AllocationsTold, watch_allocations},
};
use observer_tests::{
    agent::Metrics,
    gpu::{Driver, Reading, two_h100},
    kubelet,
};

#[tokio::test]
async fn the_kubelet_tells_of_idle_shared_and_split_gpus() {
    let devices = two_h100();
    let (whole, split) = (devices[0].uuid.clone(), devices[1].uuid.clone());
    let (used, idle) = (devices[1].mig[0].uuid.clone(), devices[1].mig[1].uuid.clone());
    let driver = Driver::install(devices);
    let reading = Reading::start(&driver.library());
    reading.wait("readings", |metrics| metrics.value("llm_gpu_power_watts", &[("gpu", "1")]).is_some());
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("kubelet.sock");
    let told = AllocationsTold::default();
    // Asked for before there is a kubelet.
    tokio::spawn(watch_allocations(socket.clone(), told.clone()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(told.get(), (None, 0, 0), "no kubelet, no word about it");
    let (first, second) = (format!("{whole}::0"), format!("{whole}::1"));
    kubelet::serve(
        &socket,
        &[
            ("pod-101", "nvidia.com/gpu.shared", &[&first]),
            ("pod-9", "nvidia.com/gpu.shared", &[&second]),
            ("pod-8", "nvidia.com/mig-3g.40gb", &[&idle]),
            ("pod-7", "example.com/fpga", &[&whole]),
            ("pod-6", "nvidia.com/gpu", &["GPU-of-another-node"]),
        ],
    );
    let wait = |what: &'static str, answered: bool| {
        let told = told.clone();
        async move {
            for _ in 0..150 {
                if told.get().0.is_some() == answered {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            panic!("did not come: {what}");
        }
    };
    wait("the kubelet's answer", true).await;
    let metrics = reading.metrics_with(GpuTold { allocations: told.get(), ..GpuTold::default() });
    metrics.assert_lint();
    let info = |pod: &str, uuid: &str, mig: &str, source: &str| {
        let labels = [("pod", pod), ("UUID", uuid), ("MIG_UUID", mig), ("source", source)];
        metrics.value("llm_gpu_allocation_info", &labels)
    };
    for (pod, uuid, mig) in [("pod-101", &whole, ""), ("pod-9", &whole, ""), ("pod-8", &split, idle.as_str())]
    {
        assert_eq!(info(pod, uuid, mig, "pod_resources"), Some(1.0), "{pod}\n{}", metrics.0);
    }
    for (pod, uuid, mig) in
        [("pod-101", &whole, ""), ("pod-102", &whole, ""), ("pod-103", &split, used.as_str())]
    {
        assert_eq!(info(pod, uuid, mig, "nvml"), Some(1.0), "{pod}\n{}", metrics.0);
    }
    assert_eq!(metrics.sum("llm_gpu_allocation_info", &[]), Some(6));
    // The container of the processes is called otherwise than the one that has the GPU, and two have none.
    assert_eq!(metrics.value("observer_gpu_allocation_disagreements", &[]), Some(3.0));
    let reads = |metrics: &Metrics, result: &str| {
        metrics.value("observer_pod_resources_reads_total", &[("result", result)])
    };
    assert_eq!((reads(&metrics, "ok"), reads(&metrics, "failed")), (Some(1.0), Some(0.0)));
    fs::remove_file(&socket).expect("the end of the kubelet");
    wait("the end of the kubelet", false).await;
    let metrics = reading.metrics_with(GpuTold { allocations: told.get(), ..GpuTold::default() });
    assert_eq!(metrics.sum("llm_gpu_allocation_info", &[("source", "pod_resources")]), None);
    assert_eq!(metrics.value("observer_gpu_allocation_disagreements", &[]), None);
    assert_eq!((reads(&metrics, "ok"), reads(&metrics, "failed")), (Some(1.0), Some(1.0)));
}
