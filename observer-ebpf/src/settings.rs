//! What only the loader knows, and writes here before the object is loaded: field offsets that differ between
//! kernels, from the tracepoints' `format` files (the values below are those of 6.18) and from the kernel's types, the
//! ring's size, and whether user space decides on a process before anything of it is captured.

/// A field that this kernel does not have, or does not tell of.
pub const ABSENT: u32 = u32::MAX;

macro_rules! settings {
    ($($name:ident = $default:expr;)*) => {
        $(
            #[unsafe(no_mangle)]
            static $name: u32 = $default;
        )*
        /// Reads a value in a way that the compiler cannot fold: the loader changes it.
        pub mod read {
            $(
                #[inline(always)]
                #[allow(non_snake_case)]
                pub fn $name() -> u32 {
                    // SAFETY: a static of this crate.
                    unsafe { core::ptr::read_volatile(&raw const super::$name) }
                }
            )*
        }
    };
}

settings! {
    READ_FAMILY = 20;
    READ_SPORT = 16;
    READ_DPORT = 18;
    READ_SADDR = 22;
    READ_DADDR = 26;
    READ_SADDR_V6 = 30;
    READ_DADDR_V6 = 46;
    FORK_CHILD = 20;
    EXIT_GROUP_DEAD = 32;
    OOM_PID = 8;
    TASK_EXIT_CODE = ABSENT;
    TASK_SIGNAL = ABSENT;
    SIGNAL_LIVE = ABSENT;
    SIGNAL_FLAGS = ABSENT;
    SIGNAL_EXIT_CODE = ABSENT;
    SIGNAL_OOM_MM = ABSENT;
    RING_BYTES = 16 << 20;
    ASK_FIRST = 0;
}
