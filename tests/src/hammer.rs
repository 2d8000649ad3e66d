//! Keeps a CPU busy inside bpf(2): what makes the kernel skip programs that hang on perf events.

use std::sync::atomic::{AtomicBool, Ordering};

use aya::maps::HashMap;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Looks up keys of a map on one CPU until told to stop; how often.
///
/// # Panics
/// If a map cannot be made.
pub fn look_up_on_cpu(cpu: usize, stop: &AtomicBool) -> u64 {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).expect("a thread may choose its CPU");
    let map: HashMap<_, u64, u64> = HashMap::create(1024, 0).expect("a map for the hammer");
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let _ = map.get(&(count % 2048), 0);
        count += 1;
    }
    count
}
