//! A cgroup with little memory.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// A memory cgroup of its own, removed when it goes out of scope.
pub struct MemoryCgroup(PathBuf);

impl MemoryCgroup {
    /// With a limit in bytes, in whichever hierarchy has the memory controller.
    ///
    /// # Panics
    /// When there can be none.
    pub fn new(limit: u64) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("observer-test-{}-{number}", std::process::id());
        let (parent, file) = if fs::metadata("/sys/fs/cgroup/memory").is_ok() {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            // Elsewhere it is the kernel's default, or systemd's.
            let _given_already = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
            ("/sys/fs/cgroup", "memory.max")
        };
        let path = PathBuf::from(parent).join(name);
        fs::create_dir(&path).expect("a cgroup for the test");
        fs::write(path.join(file), limit.to_string()).expect("its limit");
        // What is swapped out needs no memory.
        let _no_swap = fs::write(path.join("memory.swap.max"), "0");
        Self(path)
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
