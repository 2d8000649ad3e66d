//! What a fake NVML tells, and the arithmetic that tests check it by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Points of a curve: seconds after the scenario's origin, and the value from there on.
pub type Curve = Vec<[f64; 2]>;

/// All of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Scenario {
    /// The driver's version.
    pub driver: String,
    /// The origin of its clock: microseconds since 1970.
    pub origin: u64,
    /// The devices.
    pub devices: Vec<Device>,
    /// What functions return in place of success, by name; `*` for all.
    pub fail: BTreeMap<String, u32>,
    /// For how many seconds each call of a function hangs.
    pub hang: BTreeMap<String, f64>,
    /// Microseconds by which the times of samples are wrong.
    pub skew: i64,
}

/// One GPU.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// `GPU-…`.
    pub uuid: String,
    /// The model.
    pub name: String,
    /// Number of its device file.
    pub minor: u32,
    /// Watts, linear between points.
    pub power: Curve,
    /// Percent, in steps.
    pub utilization: Curve,
    /// Percent, in steps.
    pub memory_utilization: Curve,
    /// Bytes.
    pub total: u64,
    /// Bytes.
    pub reserved: u64,
    /// Bytes, in steps.
    pub used: Curve,
    /// Bits of the reasons for lower clocks, in steps.
    pub throttle: Curve,
    /// Seconds after the origin, and the number of an XID error.
    pub xids: Curve,
    /// Seconds after the origin from which it has fallen off the bus.
    pub lost_at: Option<f64>,
    /// What it tells by GPM; none before Hopper.
    pub gpm: Option<Gpm>,
    /// Processes on it, if it is not split.
    pub processes: Vec<Process>,
    /// Its MIG instances; MIG is on if there are some.
    pub mig: Vec<Instance>,
    /// As of the scenario, for this device.
    pub fail: BTreeMap<String, u32>,
}

/// One MIG instance.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Instance {
    /// `MIG-…`.
    pub uuid: String,
    /// Id of its GPU instance.
    pub gpu_instance: u32,
    /// The profile's name as `nvidia-smi` has it.
    pub name: String,
    /// Compute and memory slices.
    pub slices: u32,
    /// Bytes.
    pub total: u64,
    /// Bytes.
    pub used: u64,
    /// Processes on it.
    pub processes: Vec<Process>,
    /// What it tells by GPM.
    pub gpm: Option<Gpm>,
}

/// One process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Its id on the host.
    pub pid: u32,
    /// Bytes.
    pub memory: u64,
    /// Percent.
    pub sm: u32,
    /// It reaches the GPU through MPS.
    pub mps: bool,
}

/// Percent; bytes a second.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpm {
    /// Streaming multiprocessors with work.
    pub sm: f64,
    /// Warps of those that could be active.
    pub occupancy: f64,
    /// Tensor cores.
    pub tensor: f64,
    /// Bandwidth of the memory.
    pub dram: f64,
    /// `NVLink`, MiB a second that are sent; twice as many are received.
    pub nvlink: f64,
}

/// The value of a curve in steps at a time; 0 before its first point.
pub fn step(curve: &[[f64; 2]], at: f64) -> f64 {
    curve.iter().rev().find(|point| point[0] <= at).map_or(0.0, |point| point[1])
}

/// The value of a curve that is linear between its points; constant beyond them.
pub fn linear(curve: &[[f64; 2]], at: f64) -> f64 {
    let (Some(first), Some(last)) = (curve.first(), curve.last()) else { return 0.0 };
    if at <= first[0] {
        return first[1];
    }
    let pair = curve.windows(2).find(|pair| pair[0][0] <= at && at < pair[1][0]);
    pair.map_or(last[1], |pair| {
        let share = (at - pair[0][0]) / (pair[1][0] - pair[0][0]);
        pair[0][1] + share * (pair[1][1] - pair[0][1])
    })
}

/// The integral of such a curve, exact.
pub fn integral(curve: &[[f64; 2]], from: f64, to: f64) -> f64 {
    let mut cuts: Vec<f64> = curve.iter().map(|point| point[0]).filter(|at| from < *at && *at < to).collect();
    cuts.insert(0, from);
    cuts.push(to);
    cuts.windows(2)
        .map(|cut| {
            // Points of a jump have the same time: each side is taken from the inside.
            let width = cut[1] - cut[0];
            let (a, b) = (linear(curve, cut[0] + width * 1e-9), linear(curve, cut[1] - width * 1e-9));
            width * f64::midpoint(a, b)
        })
        .sum()
}

impl Scenario {
    /// Seconds after the origin.
    pub fn at(&self, micros: u64) -> f64 {
        (micros as f64 - self.origin as f64) / 1e6
    }

    /// What a function returns in place of success.
    pub fn failure(&self, function: &str) -> Option<u32> {
        self.fail.get(function).or_else(|| self.fail.get("*")).copied()
    }
}
