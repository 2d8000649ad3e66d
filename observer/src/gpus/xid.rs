//! XID errors: what their numbers mean (NVIDIA, "XID Errors", in words of our own).

/// XID errors after which what ran on the GPU is lost or the GPU has to be looked at (NVIDIA, "XID Errors").
pub const FATAL_XIDS: [u64; 9] = [48, 63, 64, 74, 79, 94, 95, 119, 120];

/// In place of a number that is not told, and of numbers beyond those that are counted one by one.
pub const OTHER_XID: u64 = 999;

/// What a number means; none for those that hardly occur on GPUs of servers.
pub(super) const fn meaning(xid: u64) -> Option<&'static str> {
    Some(match xid {
        8 => "a channel's work timed out",
        13 => "a program made the compute engine fault",
        31 => "a program used memory that is not mapped",
        32 => "the command stream is invalid",
        38 => "the driver's firmware failed",
        43 => "a program's work was stopped after a fault",
        45 => "a program's work was cleaned up after its end or a fault",
        48 => "an error in memory that could not be corrected",
        61 => "an internal controller stopped at a breakpoint",
        62 => "an internal controller halted",
        63 => "a page was retired or a row remapped for errors in memory",
        64 => "a page could not be retired or a row not remapped",
        68 => "the video decoder failed",
        69 => "the compute engine refused a class of work",
        74 => "an NVLink failed",
        79 => "the GPU has fallen off the bus",
        92 => "errors in memory are corrected at a high rate",
        94 => "an uncorrected error in memory, contained to one program",
        95 => "an uncorrected error in memory, not contained: everything on the GPU is lost",
        109 => "switching between programs timed out",
        119 => "the GPU's system processor does not answer",
        120 => "the GPU's system processor failed",
        121 => "the link between chips had errors that were corrected",
        140 => "an error in memory that was not recovered from",
        143 => "the GPU could not be initialized",
        154 => "how the GPU has to be recovered changed",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fatal_one_has_a_meaning() {
        assert!(FATAL_XIDS.iter().all(|xid| meaning(*xid).is_some()));
        assert_eq!((meaning(79), meaning(OTHER_XID)), (Some("the GPU has fallen off the bus"), None));
    }
}
