//! An initial file system in the kernel's `newc` cpio format (Documentation/driver-api/early-userspace/buffer-format).

/// Folder, rwxr-xr-x.
const FOLDER: u32 = 0o040_755;

/// Regular file, rwxr-xr-x.
const PROGRAM: u32 = 0o100_755;

/// Character device, rw-------.
const DEVICE: u32 = 0o020_600;

/// An archive under construction.
#[derive(Default)]
pub(super) struct Initramfs {
    bytes: Vec<u8>,
    entries: u32,
}

impl Initramfs {
    /// An empty folder.
    pub(super) fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER, (0, 0), &[]);
    }

    /// An executable file.
    pub(super) fn program(&mut self, name: &str, content: &[u8]) {
        self.entry(name, PROGRAM, (0, 0), content);
    }

    /// A character device.
    pub(super) fn device(&mut self, name: &str, major: u32, minor: u32) {
        self.entry(name, DEVICE, (major, minor), &[]);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let links = if mode == FOLDER { 2 } else { 1 };
        let size = content.len() as u32;
        let name_size = name.len() as u32 + 1;
        self.bytes.extend_from_slice(b"070701");
        // inode, mode, uid, gid, links, time, size, device, device of a device, name's size, checksum.
        for field in [self.entries, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0] {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    /// Names and contents begin and end at multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Initramfs;

    #[test]
    fn an_archive_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Initramfs::default();
        archive.program("init", b"hello");
        let bytes = archive.finish();
        let header = "070701000000010000\
                      81ED0000000000000000000000010000000000000005\
                      000000000000000000000000000000000000000500000000";
        assert_eq!(String::from_utf8_lossy(&bytes[..110]), header);
        // 110 bytes of header, name and its end, one byte of padding.
        assert_eq!(&bytes[110..116], b"init\0\0");
        assert_eq!(&bytes[116..124], b"hello\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert!(bytes.len().is_multiple_of(4) && bytes[124 + 110..].starts_with(b"TRAILER!!!\0"));
    }
}
