//! The page-modification log: the guest-physical addresses of pages whose dirty bits the processor set (Intel SDM volume
//! 3, section 29.3.6).

use vcpu::{FRAME_SIZE, Frame};

/// The index with which the log is empty: the processor fills it from its end.
pub(crate) const EMPTY: u16 = (FRAME_SIZE / 8 - 1) as u16;
/// The low bits of an entry say nothing.
const PAGE_MASK: u64 = !0xfff;

/// The log of a vCPU.
#[derive(Debug)]
pub(crate) struct WriteLog {
    page: Frame,
    /// The control is on.
    pub(crate) on: bool,
}

impl WriteLog {
    /// Makes a log of a frame.
    pub(crate) fn new(page: Frame) -> Self {
        Self { page, on: false }
    }

    pub(crate) fn address(&self) -> u64 {
        self.page.physical()
    }

    /// The addresses that were logged by the time the index is this one. A full log has an index below zero.
    pub(crate) fn pages(&self, index: u16) -> impl Iterator<Item = u64> {
        let (entries, _) = self.page.bytes().as_chunks::<8>();
        let first = usize::from(index.wrapping_add(1));
        let logged = entries.get(first..).unwrap_or(&[]);
        logged
            .iter()
            .map(|entry| u64::from_le_bytes(*entry) & PAGE_MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use vcpu::FrameSource;
    use vcpu::fake::Heap;

    #[test]
    fn the_log_is_filled_from_its_end() {
        let mut page = Heap { left: 1 }.frame().unwrap();
        for (slot, entry) in page
            .bytes_mut()
            .as_chunks_mut::<8>()
            .0
            .iter_mut()
            .enumerate()
        {
            *entry = ((slot as u64 * 0x1000) | 0x123).to_le_bytes();
        }
        let log = WriteLog::new(page);
        let pages = |index| log.pages(index).collect::<Vec<_>>();
        assert_eq!(pages(EMPTY), []);
        assert_eq!(pages(EMPTY - 1), [511 * 0x1000]);
        assert_eq!(pages(508), [509 * 0x1000, 510 * 0x1000, 511 * 0x1000]);
        assert_eq!(pages(u16::MAX).len(), 512);
        // What no processor leaves.
        assert_eq!(pages(0x8000), []);
    }
}
