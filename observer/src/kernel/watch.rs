//! The watch bytes of processes, mapped into this process: a store instead of a system call.
#![expect(unsafe_code, reason = "shared memory with the kernel side")]

use std::{
    io,
    os::fd::AsFd as _,
    ptr::NonNull,
    sync::atomic::{AtomicU8, Ordering},
};

use aya::maps::Map;
use observer_ebpf::watch::{ADOPTED, DENIED, INBOUND, ROW, ROWS};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::load::LoadError;

const LENGTH: usize = (ROW * ROWS) as usize;

/// One byte per possible process id.
pub struct WatchBytes {
    bytes: NonNull<AtomicU8>,
}

// SAFETY: the memory is shared with the kernel and only touched through atomics.
unsafe impl Send for WatchBytes {}

impl WatchBytes {
    pub(super) fn map(map: &Map) -> Result<Self, LoadError> {
        let Map::Array(data) = map else { return Err(LoadError::Absent("WATCH")) };
        // SAFETY: a new mapping of the map's whole length; nothing else refers to it.
        let address = unsafe {
            mmap(
                std::ptr::null_mut(),
                LENGTH,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                data.fd().as_fd(),
                0,
            )
        }
        .map_err(|error| LoadError::Watch(error.into()))?;
        NonNull::new(address.cast())
            .map(|bytes| Self { bytes })
            .ok_or_else(|| LoadError::Watch(io::Error::other("mapped at address 0")))
    }

    fn byte(&self, tgid: u32) -> Option<&AtomicU8> {
        // SAFETY: the index is below the mapping's length, and the mapping lives as long as `self`.
        ((tgid as usize) < LENGTH).then(|| unsafe { self.bytes.add(tgid as usize).as_ref() })
    }

    /// Watches a process that ran before the probes did, unless it is denied.
    pub fn adopt(&self, tgid: u32) {
        if let Some(byte) = self.byte(tgid)
            && byte.load(Ordering::Relaxed) & DENIED == 0
        {
            byte.fetch_or(INBOUND | ADOPTED, Ordering::Relaxed);
        }
    }

    /// Watches a process that was denied until now. One that has replaced its program meanwhile asks again.
    pub fn admit(&self, tgid: u32) {
        if let Some(byte) = self.byte(tgid)
            && self.is_denied(tgid)
        {
            byte.fetch_or(INBOUND | ADOPTED, Ordering::Relaxed);
            byte.fetch_and(!DENIED, Ordering::Relaxed);
        }
    }

    /// Whether this process is denied.
    pub fn is_denied(&self, tgid: u32) -> bool {
        self.byte(tgid).is_some_and(|byte| byte.load(Ordering::Relaxed) & DENIED != 0)
    }

    /// Does not watch this process, as long as its program runs.
    pub fn deny(&self, tgid: u32) {
        if let Some(byte) = self.byte(tgid) {
            byte.store(DENIED, Ordering::Relaxed);
        }
    }

    /// Forgets a process that is gone.
    pub fn clear(&self, tgid: u32) {
        if let Some(byte) = self.byte(tgid) {
            byte.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for WatchBytes {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; no reference outlives `self`.
        let _ = unsafe { munmap(self.bytes.as_ptr().cast(), LENGTH) };
    }
}
