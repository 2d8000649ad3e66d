//! GPUs of this node: what was read of them, and what that says about requests. No IO, no clock: readings come in with
//! their times, as records do.
//!
//! In: a [`Round`] of readings each second, and requests that start, deliver and end. Out: request records with their
//! GPUs' figures, what changed about devices, and what a scrape tells.

mod allocation;
mod attribution;
mod energy;
mod ledger;
mod series;
mod transitions;
mod xid;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use allocation::{Allocated, Allocation, Source, allocated};
pub use attribution::{Owner, Use, used};
pub use ledger::{Diagnosis, Key, Ledger, Shares, Told};
pub use series::{Samples, Series};
pub use transitions::{Change, Transition, Transitions};
pub use xid::{FATAL_XIDS, OTHER_XID};

/// One GPU, as it is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// `GPU-…`.
    pub uuid: String,
    /// Number among the node's GPUs, in the order of their buses.
    pub index: u32,
    /// Number of its device file, `/dev/nvidia<minor>`.
    pub minor: Option<u32>,
    /// The model, such as `NVIDIA H100 80GB HBM3`.
    pub model: String,
    /// Its place on the bus.
    pub bus: Option<String>,
    /// The driver's version.
    pub driver: String,
}

/// Bytes of a device's memory. The parts other than the total are disjoint and add up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// Allocated.
    pub used: u64,
    /// Not allocated.
    pub free: u64,
    /// Kept by the driver.
    pub reserved: u64,
}

/// What the counters inside the GPU say (GPM), as shares from 0 to 1 of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Activity {
    /// Multiprocessors that had work.
    pub sm: Option<f64>,
    /// Warps that were active, of those that could be.
    pub occupancy: Option<f64>,
    /// Time in which tensor cores worked.
    pub tensor: Option<f64>,
    /// Bandwidth of the memory that was used.
    pub dram: Option<f64>,
    /// Bytes a second sent over `NVLink`.
    pub nvlink_sent: Option<f64>,
    /// Bytes a second received over `NVLink`.
    pub nvlink_received: Option<f64>,
}

/// One MIG instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Instance {
    /// `MIG-…`.
    pub uuid: String,
    /// Id of its GPU instance, once a process on it told.
    pub gpu_instance: Option<u32>,
    /// The profile's name, such as `1g.10gb`.
    pub profile: String,
    /// Its memory.
    pub memory: Option<Memory>,
    /// How busy it was.
    pub activity: Activity,
}

/// A process with a context on a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// UUID of the MIG instance that it is on.
    pub instance: Option<String>,
    /// Bytes of the device's memory that it uses.
    pub memory: Option<u64>,
    /// Share of time in which its kernels ran, 0 to 1, at its highest in the round.
    pub utilization: Option<f64>,
    /// Whose it is.
    pub owner: Arc<Owner>,
}

/// What was read of a device in one round. What is absent the device does not tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Which.
    pub device: Arc<Device>,
    /// It has fallen off the bus, or cannot be used until it is reset: nothing else is told.
    pub lost: bool,
    /// Shares of time in which a kernel ran, 0 to 1.
    pub utilization: Samples,
    /// Shares of time in which the memory was read or written, 0 to 1.
    pub memory_utilization: Samples,
    /// Watts.
    pub power: Samples,
    /// Its memory.
    pub memory: Option<Memory>,
    /// How busy it was, by its own counters.
    pub activity: Activity,
    /// Degrees Celsius by sensor.
    pub temperatures: BTreeMap<&'static str, f64>,
    /// Watts that it may draw.
    pub power_limit: Option<f64>,
    /// Joules since the driver was loaded, as the device counts.
    pub energy: Option<f64>,
    /// Hertz by clock.
    pub clocks: BTreeMap<&'static str, f64>,
    /// Reasons for which its clocks are lower than they could be, at the end of the round.
    pub throttled_by: Vec<&'static str>,
    /// Seconds by policy for which it was held back since the driver was loaded, as the device counts.
    pub violations: BTreeMap<&'static str, f64>,
    /// Errors of its memory since it was made, by whether they were corrected.
    pub ecc_errors: BTreeMap<&'static str, u64>,
    /// Rows of its memory that were replaced, by why.
    pub remapped_rows: BTreeMap<&'static str, u64>,
    /// Whether a row waits for a reset to be replaced.
    pub remap_pending: Option<bool>,
    /// Whether one could not be.
    pub remap_failed: Option<bool>,
    /// Packets that were sent again over PCIe.
    pub pcie_replays: Option<u64>,
    /// Bytes a second over PCIe by direction, as the device measured for 20 ms.
    pub pcie: BTreeMap<&'static str, f64>,
    /// Shares of their speed of its fans.
    pub fans: Vec<f64>,
    /// Its MIG instances.
    pub instances: Vec<Instance>,
    /// Processes on it; of none it is told if that cannot be asked.
    pub processes: Option<Vec<Process>>,
    /// XID errors since the round before.
    pub xids: Vec<u64>,
}

impl Reading {
    /// Causes by which its clocks are held back, which are heat, power or a fault: not that it is idle, nor how it was
    /// set.
    pub fn held_back_by(&self) -> impl Iterator<Item = &'static str> {
        let all = self.throttled_by.iter().copied();
        all.filter(|reason| !["idle", "applications_clocks", "display_clocks"].contains(reason))
    }
}

/// What was read of all devices.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// When: monotonic nanoseconds.
    pub time: u64,
    /// The devices.
    pub readings: Vec<Reading>,
}
