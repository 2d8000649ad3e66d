//! Where the driver's library is.

use std::path::{Path, PathBuf};

/// Its name: what the driver installs, not the development package.
const NAME: &str = "libnvidia-ml.so.1";

/// Folders that it may be in, those of the node's driver before those of whatever image this runs in: gpu-operator's
/// driver container, Google's driver installer, distributions. Below `/host` where the chart mounts them.
const FOLDERS: [&str; 16] = [
    "/host/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
    "/host/run/nvidia/driver/usr/lib/aarch64-linux-gnu",
    "/host/run/nvidia/driver/usr/lib64",
    "/host/home/kubernetes/bin/nvidia/lib64",
    "/host/usr/lib/x86_64-linux-gnu",
    "/host/usr/lib/aarch64-linux-gnu",
    "/host/usr/lib64",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
    "/run/nvidia/driver/usr/lib/aarch64-linux-gnu",
    "/run/nvidia/driver/usr/lib64",
    "/home/kubernetes/bin/nvidia/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
];

/// The library that is configured, or else the first that is there.
pub(super) fn find(configured: Option<&Path>) -> Option<PathBuf> {
    match configured {
        Some(path) => path.exists().then(|| path.to_owned()),
        None => FOLDERS.iter().map(|folder| Path::new(folder).join(NAME)).find(|path| path.exists()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_is_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        assert_eq!(find(Some(&path)), None);
        std::fs::write(&path, "").unwrap();
        assert_eq!(find(Some(&path)), Some(path));
    }
}
