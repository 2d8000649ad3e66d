//! An empty pair: what benchmarks hold the real one against. The agent never attaches it.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn empty_enter(_ctx: RawTracePointContext) -> i32 {
    0
}

#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn empty_exit(_ctx: RawTracePointContext) -> i32 {
    0
}
