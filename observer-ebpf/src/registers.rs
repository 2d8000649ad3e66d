//! Arguments of a system call from its saved registers. The order of registers is user ABI
//! (`struct user_regs_struct` on x86-64, `struct user_pt_regs` on arm64).

use aya_ebpf::helpers::bpf_probe_read_kernel;

/// Numbers of the calls that the probes must know before any table is asked.
pub mod number {
    #[cfg(bpf_target_arch = "x86_64")]
    mod arch {
        pub const ACCEPT: u64 = 43;
        pub const ACCEPT4: u64 = 288;
        pub const LISTEN: u64 = 50;
        pub const READ: u64 = 0;
        pub const READV: u64 = 19;
        pub const RECVFROM: u64 = 45;
        pub const RECVMSG: u64 = 47;
        pub const RECVMMSG: u64 = 299;
        pub const WRITE: u64 = 1;
        pub const WRITEV: u64 = 20;
        pub const SENDTO: u64 = 44;
        pub const SENDMSG: u64 = 46;
        pub const SENDMMSG: u64 = 307;
        pub const SENDFILE: u64 = 40;
        pub const CONNECT: u64 = 42;
        pub const CLOSE: u64 = 3;
        pub const CLOSE_RANGE: u64 = 436;
        pub const SHUTDOWN: u64 = 48;
        pub const DUP2: u64 = 33;
        pub const DUP3: u64 = 292;
        pub const SPLICE: u64 = 275;
    }
    #[cfg(bpf_target_arch = "aarch64")]
    mod arch {
        pub const ACCEPT: u64 = 202;
        pub const ACCEPT4: u64 = 242;
        pub const LISTEN: u64 = 201;
        pub const READ: u64 = 63;
        pub const READV: u64 = 65;
        pub const RECVFROM: u64 = 207;
        pub const RECVMSG: u64 = 212;
        pub const RECVMMSG: u64 = 243;
        pub const WRITE: u64 = 64;
        pub const WRITEV: u64 = 66;
        pub const SENDTO: u64 = 206;
        pub const SENDMSG: u64 = 211;
        pub const SENDMMSG: u64 = 269;
        pub const SENDFILE: u64 = 71;
        pub const CONNECT: u64 = 203;
        pub const CLOSE: u64 = 57;
        pub const CLOSE_RANGE: u64 = 436;
        pub const SHUTDOWN: u64 = 210;
        /// arm64 has no `dup2`: a number that no call has.
        pub const DUP2: u64 = u64::MAX;
        pub const DUP3: u64 = 24;
        pub const SPLICE: u64 = 76;
    }
    pub use arch::*;
}

/// The arguments that probes look at.
pub struct Arguments {
    pub first: u64,
    pub second: u64,
    pub third: u64,
    pub fourth: u64,
}

/// Reads the arguments of a call at its entry.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub fn arguments(regs: *const u8) -> Option<Arguments> {
    // r10, r9, r8, rax, rcx, rdx, rsi, rdi: words 7 to 14 of pt_regs.
    // SAFETY: reads kernel memory through the helper, which checks it.
    let words: [u64; 8] = unsafe { bpf_probe_read_kernel(regs.add(7 * 8).cast()) }.ok()?;
    Some(Arguments { first: words[7], second: words[6], third: words[5], fourth: words[0] })
}

/// Arguments of a call at its exit: a system call leaves these registers alone.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub fn returning_arguments(regs: *const u8) -> Option<Arguments> {
    arguments(regs)
}

/// Number of the call that is returning, and its first argument.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
pub fn returning(regs: *const u8) -> Option<(u64, u64)> {
    // rdi and orig_rax: words 14 and 15 of pt_regs.
    // SAFETY: reads kernel memory through the helper, which checks it.
    let words: [u64; 2] = unsafe { bpf_probe_read_kernel(regs.add(14 * 8).cast()) }.ok()?;
    Some((words[1], words[0]))
}

/// Reads the arguments of a call at its entry.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
pub fn arguments(regs: *const u8) -> Option<Arguments> {
    // SAFETY: reads kernel memory through the helper, which checks it.
    let words: [u64; 4] = unsafe { bpf_probe_read_kernel(regs.cast()) }.ok()?;
    Some(Arguments { first: words[0], second: words[1], third: words[2], fourth: words[3] })
}

/// Arguments of a call at its exit: x0 holds what is returned, orig_x0 what was given.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
pub fn returning_arguments(regs: *const u8) -> Option<Arguments> {
    let (_, first) = returning(regs)?;
    arguments(regs).map(|arguments| Arguments { first, ..arguments })
}

/// Number of the call that is returning, and its first argument.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
pub fn returning(regs: *const u8) -> Option<(u64, u64)> {
    // user_pt_regs is 34 words long; orig_x0 and syscallno follow it.
    // SAFETY: reads kernel memory through the helper, which checks it.
    let words: [u64; 2] = unsafe { bpf_probe_read_kernel(regs.add(34 * 8).cast()) }.ok()?;
    Some((words[1] & 0xffff_ffff, words[0]))
}
