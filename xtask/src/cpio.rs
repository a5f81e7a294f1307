//! Archives in the "newc" format of cpio, which Linux unpacks as its first file system.
//!
//! Source: Documentation/driver-api/early-userspace/buffer-format.rst of Linux 6.1.

use anyhow::{Context, Result};

/// An archive in the making. Every file belongs to root and is of the start of the epoch, so that the
/// same content makes the same bytes.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder.
    pub(crate) fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, (0, 0), &[], 0);
    }

    /// Adds the node of a character device.
    pub(crate) fn device(&mut self, name: &str, major: u32, minor: u32) {
        self.entry(name, 0o020_600, (major, minor), &[], 0);
    }

    /// Adds a file that may be run.
    ///
    /// # Errors
    ///
    /// Where it is too large.
    pub(crate) fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let length = u32::try_from(bytes.len()).context("a file is too large for the archive")?;
        self.entry(name, 0o100_755, (0, 0), bytes, length);
        Ok(())
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, name: &str, target: &str) {
        // A path fits by far.
        self.entry(
            name,
            0o120_777,
            (0, 0),
            target.as_bytes(),
            target.len() as u32,
        );
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), bytes: &[u8], length: u32) {
        self.entries += 1;
        let name_size = name.len() + 1;
        let (major, minor) = device;
        // Magic, inode, mode, uid, gid, links, time, size, device (2), its node (2), name, check.
        let header = format!(
            "070701{:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{length:08x}{:08x}{:08x}\
             {major:08x}{minor:08x}{name_size:08x}{:08x}",
            self.entries, 0, 0, 1, 0, 0, 0, 0
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(bytes);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The archive's bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[], 0);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn archives_have_the_form_that_linux_reads() {
        let mut archive = Archive::default();
        archive.device("dev/console", 5, 1);
        archive.link("sh", "busybox");
        archive.file("init", b"abcde").unwrap();
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let first = &text[..110];
        assert!(first.starts_with("0707010000000100002180"), "{first}");
        assert_eq!(&first[78..94], "0000000500000001");
        assert_eq!(&first[94..102], "0000000c");
        assert!(text.contains("sh\0\0\0\0busybox\0"), "{text}");
        let second = text.find("init\0").unwrap() - 110;
        assert_eq!(&text[second + 54..second + 62], "00000005");
        assert!(text.contains("abcde\x00\x00\x00070701"));
        assert!(text.contains("TRAILER!!!\0"));
    }
}
