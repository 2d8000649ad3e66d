//! The observer about itself: one snapshot of what it counted on the way from the kernel to the metrics.
//!
//! In: counters that the rooms keep. Out: [`AgentStats`], read by the exporter at each scrape.

use std::collections::BTreeMap;

use observer_ebpf::{COUNTERS, Counter};

/// Everything that the observer counted about itself, since it started.
#[derive(Clone, Debug, Default)]
pub struct AgentStats {
    /// Counters of the kernel side, summed over CPUs, in the order of [`Counter::ALL`].
    pub kernel: [u64; COUNTERS as usize],
    /// Records that user space took in: out of the ring, and the few that it makes itself.
    pub received: u64,
    /// Records that the core consumed.
    pub decoded: u64,
    /// Records that user space did not decode, by cause.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Bytes of followed connections whose records never came, by what positions tell.
    pub lost_bytes: u64,
    /// Defects of HTTP messages on the wire, by name.
    pub defects: BTreeMap<&'static str, u64>,
    /// Connections that were given up because all together held too much memory.
    pub evicted: u64,
    /// LLM requests that observed processes sent, by what is known of the request that caused each.
    pub upstream: [(&'static str, u64); 3],
    /// Connections that are followed now, by state.
    pub connections: BTreeMap<&'static str, u64>,
    /// Processes that serve something, by whether they are observed.
    pub processes: [(&'static str, u64); 3],
    /// Finished requests that are remembered, the bytes that they take, and how many were forgotten for want of room.
    pub recent: [u64; 3],
    /// What is kept on disk, if anything is.
    pub store: Option<crate::store::Snapshot>,
    /// What was read of logs.
    pub logs: crate::logs::Counts,
    /// The probes.
    pub probes: Vec<Probe>,
}

/// One probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Its name, such as `sys_enter`.
    pub name: String,
    /// Whether it is attached; what the kernel lacks is a degraded mode with a name.
    pub attached: bool,
    /// Runs that the kernel says it skipped.
    pub missed: u64,
}

impl AgentStats {
    /// One counter of the kernel side.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.kernel[counter as usize]
    }

    /// Records that the kernel side wanted to send and could not.
    pub fn kernel_dropped(&self) -> u64 {
        self.counter(Counter::DroppedRingData) + self.counter(Counter::DroppedRingFull)
    }
}

/// Log records that others sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceivedCounts {
    /// Lines that were taken in.
    pub lines: u64,
    /// Records that were not, because they are events.
    pub events: u64,
    /// Messages that were refused because there was no room.
    pub no_room: u64,
    /// Messages that were refused because they are none.
    pub malformed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_place() {
        let mut stats = AgentStats::default();
        for (at, counter) in Counter::ALL.into_iter().enumerate() {
            stats.kernel[at] = 100 + at as u64;
            assert_eq!(stats.counter(counter), 100 + at as u64);
        }
        assert_eq!(
            stats.kernel_dropped(),
            stats.counter(Counter::DroppedRingData) + stats.counter(Counter::DroppedRingFull)
        );
    }
}
