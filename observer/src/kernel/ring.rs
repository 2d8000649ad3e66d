//! Waiting for the ring.

use std::{os::fd::BorrowedFd, time::Duration};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Waits until the ring asks to be read or the timeout has passed. An interrupted wait counts as passed.
pub(super) fn wait(ring: BorrowedFd<'_>, timeout: Duration) {
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    let _ = poll(&mut [PollFd::from_borrowed_fd(ring, PollFlags::IN)], Some(&timeout));
}
