//! Counters of the kernel side, and runs that the kernel skipped.

use std::{
    fs,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};
use observer_ebpf::{COUNTERS, Counter};

use super::load::{LoadError, take};

/// Counter values, summed over CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; COUNTERS as usize]);

impl Counts {
    /// One counter.
    pub const fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Records that could not be sent, for whatever cause.
    pub const fn dropped(&self) -> u64 {
        self.get(Counter::DroppedRingData) + self.get(Counter::DroppedRingFull)
    }

    /// Whether `seen = submitted + dropped`, which holds whenever no probe is running.
    pub const fn balanced(&self) -> bool {
        self.get(Counter::Seen) == self.get(Counter::Submitted) + self.dropped()
    }
}

pub(super) struct Counters(PerCpuArray<MapData, [u64; COUNTERS as usize]>);

impl Counters {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        PerCpuArray::try_from(take(ebpf, "COUNTS")?)
            .map(Self)
            .map_err(|source| LoadError::Map { map: "COUNTS", source })
    }

    pub(super) fn read(&self) -> Counts {
        let mut counts = Counts::default();
        if let Ok(cpus) = self.0.get(&0, 0) {
            for cpu in cpus.iter() {
                for (sum, value) in counts.0.iter_mut().zip(cpu) {
                    *sum = sum.wrapping_add(*value);
                }
            }
        }
        counts
    }
}

/// Runs of a program that the kernel skipped because another one was running, from its fdinfo.
pub(super) fn recursion_misses(program: BorrowedFd<'_>) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}
