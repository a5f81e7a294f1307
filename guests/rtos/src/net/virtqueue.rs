//! The driver's side of a split virtqueue (virtio 1.2, 2.7), with one buffer to a descriptor.
//!
//! The device reads and writes the ring and the buffers at any time, as another processor would. They are therefore
//! made of atomics, and no more can go wrong than that nonsense is read.

use core::{
    fmt,
    sync::atomic::{AtomicU16, AtomicU32, Ordering, fence},
};

use super::FRAME_MAX;

const WRITABLE: u16 = 2;
/// In the flags of the available ring.
const NO_INTERRUPT: u16 = 1;
/// In the flags of the used ring.
const NO_NOTIFY: u16 = 1;

#[repr(C, align(16))]
#[derive(Debug)]
struct Descriptor {
    address: AtomicU32,
    address_high: AtomicU32,
    length: AtomicU32,
    flags: AtomicU16,
    next: AtomicU16,
}

#[repr(C, align(2))]
#[derive(Debug)]
struct Available<const N: usize> {
    flags: AtomicU16,
    index: AtomicU16,
    ring: [AtomicU16; N],
}

#[repr(C)]
#[derive(Debug)]
struct UsedElement {
    id: AtomicU32,
    length: AtomicU32,
}

#[repr(C, align(4))]
#[derive(Debug)]
struct Used<const N: usize> {
    flags: AtomicU16,
    index: AtomicU16,
    ring: [UsedElement; N],
}

const _: () = assert!(size_of::<Descriptor>() == 16 && size_of::<UsedElement>() == 8);
const _: () = assert!(size_of::<Available<4>>() == 12 && size_of::<Used<4>>() == 36);

/// The memory of a queue of up to `N` descriptors, a power of two.
#[repr(C)]
#[derive(Debug)]
pub struct Ring<const N: usize> {
    descriptors: [Descriptor; N],
    available: Available<N>,
    used: Used<N>,
}

impl<const N: usize> Ring<N> {
    /// An empty ring.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two() && N <= 1 << 15) };
        Self {
            descriptors: [const {
                Descriptor {
                    address: AtomicU32::new(0),
                    address_high: AtomicU32::new(0),
                    length: AtomicU32::new(0),
                    flags: AtomicU16::new(0),
                    next: AtomicU16::new(0),
                }
            }; N],
            available: Available {
                flags: AtomicU16::new(0),
                index: AtomicU16::new(0),
                ring: [const { AtomicU16::new(0) }; N],
            },
            used: Used {
                flags: AtomicU16::new(0),
                index: AtomicU16::new(0),
                ring: [const {
                    UsedElement {
                        id: AtomicU32::new(0),
                        length: AtomicU32::new(0),
                    }
                }; N],
            },
        }
    }

    /// Where the device finds the descriptors, the available ring and the used ring.
    #[must_use]
    pub fn addresses(&self) -> [usize; 3] {
        [
            (&raw const self.descriptors).addr(),
            (&raw const self.available).addr(),
            (&raw const self.used).addr(),
        ]
    }

    /// Asks the device for interrupts, or for none. It may still send one that it was about to.
    pub fn ask_for_interrupts(&self, wanted: bool) {
        let flags = if wanted { 0 } else { NO_INTERRUPT };
        self.available.flags.store(flags, Ordering::Relaxed);
        // What the caller looks at next must not be read before the device can see this.
        fence(Ordering::SeqCst);
    }
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// What the device has done that it must not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Defect {
    /// It gave back a descriptor that it does not have.
    Descriptor(u32),
    /// It gave back more descriptors than there are.
    Index(u16),
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptor(id) => write!(f, "it gave back descriptor {id}, which it had not"),
            Self::Index(count) => write!(f, "it gave back {count} descriptors at once"),
        }
    }
}

/// A buffer that the device has given back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Done {
    /// Its descriptor.
    pub descriptor: u16,
    /// Bytes that the device says it has written.
    pub length: u32,
}

/// A queue at work.
#[derive(Debug)]
pub struct Queue<'a, const N: usize> {
    ring: &'a Ring<N>,
    /// Descriptors in use of the ring's: a power of two.
    size: u16,
    /// What the device has.
    lent: [bool; N],
    offered: u16,
    taken: u16,
}

impl<'a, const N: usize> Queue<'a, N> {
    /// A queue of `size` descriptors on a ring that no device uses now; `None` if the size is not possible.
    #[must_use]
    pub fn new(ring: &'a Ring<N>, size: u16) -> Option<Self> {
        if !size.is_power_of_two() || usize::from(size) > N {
            return None;
        }
        ring.available.index.store(0, Ordering::Relaxed);
        ring.used.index.store(0, Ordering::Relaxed);
        ring.used.flags.store(0, Ordering::Relaxed);
        ring.ask_for_interrupts(false);
        Some(Self {
            ring,
            size,
            lent: [false; N],
            offered: 0,
            taken: 0,
        })
    }

    /// The memory.
    #[must_use]
    pub const fn ring(&self) -> &'a Ring<N> {
        self.ring
    }

    /// A descriptor that the device does not have.
    #[must_use]
    pub fn free(&self) -> Option<u16> {
        (0..self.size).find(|&descriptor| !self.lent[usize::from(descriptor)])
    }

    /// Lends the device a buffer by a descriptor that it does not have. It sees it once this is [published](Self::publish).
    pub fn lend(&mut self, descriptor: u16, address: u32, length: u32, writable: bool) {
        let place = usize::from(descriptor % self.size);
        debug_assert!(!self.lent[place]);
        self.lent[place] = true;
        let entry = &self.ring.descriptors[place];
        entry.address.store(address, Ordering::Relaxed);
        entry.address_high.store(0, Ordering::Relaxed);
        entry.length.store(length, Ordering::Relaxed);
        let flags = if writable { WRITABLE } else { 0 };
        entry.flags.store(flags, Ordering::Relaxed);
        let slot = usize::from(self.offered % self.size);
        self.ring.available.ring[slot].store(descriptor % self.size, Ordering::Relaxed);
        self.offered = self.offered.wrapping_add(1);
    }

    /// Shows the device what has been lent; whether it wants to be told.
    pub fn publish(&mut self) -> bool {
        self.ring
            .available
            .index
            .store(self.offered, Ordering::Release);
        fence(Ordering::SeqCst);
        self.ring.used.flags.load(Ordering::Relaxed) & NO_NOTIFY == 0
    }

    /// Whether the device has given something back that was not taken yet.
    #[must_use]
    pub fn has_done(&self) -> bool {
        self.ring.used.index.load(Ordering::Acquire) != self.taken
    }

    /// Takes what the device has given back, one buffer at a time.
    ///
    /// # Errors
    /// If the device breaks the rules. It must then be reset.
    pub fn take(&mut self) -> Result<Option<Done>, Defect> {
        let count = self
            .ring
            .used
            .index
            .load(Ordering::Acquire)
            .wrapping_sub(self.taken);
        if count == 0 {
            return Ok(None);
        }
        if count > self.size {
            return Err(Defect::Index(count));
        }
        let element = &self.ring.used.ring[usize::from(self.taken % self.size)];
        let id = element.id.load(Ordering::Relaxed);
        let place = usize::try_from(id)
            .ok()
            .filter(|&place| place < usize::from(self.size));
        let lent = place.and_then(|place| self.lent.get_mut(place));
        match lent {
            Some(lent) if *lent => *lent = false,
            _ => return Err(Defect::Descriptor(id)),
        }
        self.taken = self.taken.wrapping_add(1);
        Ok(Some(Done {
            descriptor: id as u16,
            length: element.length.load(Ordering::Relaxed),
        }))
    }
}

/// Bytes before the frame in a buffer (virtio 1.2, 5.1.6): all of them zero, as nothing was negotiated that uses them.
pub const HEADER: usize = 12;
const WORDS: usize = (HEADER + FRAME_MAX).div_ceil(4);

/// A buffer for one frame and what stands before it.
#[repr(C, align(4))]
#[derive(Debug)]
pub struct Buffer([AtomicU32; WORDS]);

impl Buffer {
    /// Its length in bytes.
    pub const LENGTH: u32 = (WORDS * 4) as u32;

    /// An empty buffer.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; WORDS])
    }

    /// Where the device finds it.
    #[must_use]
    pub fn address(&self) -> usize {
        (&raw const self.0).addr()
    }

    /// Writes a frame; the bytes that the device is to read. What is too long for a frame is cut off.
    pub fn write(&self, frame: &[u8]) -> u32 {
        let frame = &frame[..frame.len().min(FRAME_MAX)];
        let (header, words) = self.0.split_at(HEADER / 4);
        for word in header {
            word.store(0, Ordering::Relaxed);
        }
        for (word, bytes) in words.iter().zip(frame.chunks(4)) {
            let mut whole = [0; 4];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u32::from_le_bytes(whole), Ordering::Relaxed);
        }
        (HEADER + frame.len()) as u32
    }

    /// Reads the frame of a buffer into which the device has written so many bytes; its length, if there is one.
    pub fn read(&self, written: u32, frame: &mut [u8; FRAME_MAX]) -> Option<usize> {
        let length = usize::try_from(written).ok()?.checked_sub(HEADER)?;
        let frame = frame.get_mut(..length)?;
        let words = &self.0[HEADER / 4..];
        for (bytes, word) in frame.chunks_mut(4).zip(words) {
            let whole = word.load(Ordering::Relaxed).to_le_bytes();
            bytes.copy_from_slice(&whole[..bytes.len()]);
        }
        (length > 0).then_some(length)
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::atomic::Ordering};

    use proptest::prelude::*;

    use super::{
        Buffer, Defect, Done, FRAME_MAX, HEADER, NO_INTERRUPT, NO_NOTIFY, Queue, Ring, WRITABLE,
    };

    const N: usize = 8;

    /// A device as the specification wants it.
    #[derive(Default)]
    struct Device {
        seen: u16,
        used: u16,
        has: VecDeque<u16>,
    }

    impl Device {
        fn look(&mut self, ring: &Ring<N>, size: u16) {
            let index = ring.available.index.load(Ordering::Acquire);
            while self.seen != index {
                let slot = usize::from(self.seen % size);
                self.has
                    .push_back(ring.available.ring[slot].load(Ordering::Relaxed));
                self.seen = self.seen.wrapping_add(1);
            }
        }

        fn give_back(&mut self, ring: &Ring<N>, size: u16, at: usize, length: u32) -> Option<Done> {
            let descriptor = self.has.remove(at % self.has.len().max(1))?;
            self.give(ring, size, u32::from(descriptor), length);
            Some(Done { descriptor, length })
        }

        fn give(&mut self, ring: &Ring<N>, size: u16, id: u32, length: u32) {
            let element = &ring.used.ring[usize::from(self.used % size)];
            element.id.store(id, Ordering::Relaxed);
            element.length.store(length, Ordering::Relaxed);
            self.used = self.used.wrapping_add(1);
            ring.used.index.store(self.used, Ordering::Release);
        }
    }

    #[test]
    fn a_descriptor_says_what_was_lent() {
        let ring = Ring::<N>::new();
        let mut queue = Queue::new(&ring, 4).unwrap();
        queue.lend(2, 0x1234_5678, 99, true);
        assert_eq!(ring.available.index.load(Ordering::Relaxed), 0);
        assert!(queue.publish());
        assert_eq!(ring.available.index.load(Ordering::Relaxed), 1);
        let descriptor = &ring.descriptors[2];
        assert_eq!(descriptor.address.load(Ordering::Relaxed), 0x1234_5678);
        assert_eq!(descriptor.length.load(Ordering::Relaxed), 99);
        assert_eq!(descriptor.flags.load(Ordering::Relaxed), WRITABLE);
        ring.used.flags.store(NO_NOTIFY, Ordering::Relaxed);
        assert!(!queue.publish());
        assert_eq!(ring.available.flags.load(Ordering::Relaxed), NO_INTERRUPT);
        ring.ask_for_interrupts(true);
        assert_eq!(ring.available.flags.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn sizes_are_powers_of_two_that_fit() {
        let ring = Ring::<N>::new();
        for (size, fits) in [(0, false), (1, true), (3, false), (8, true), (16, false)] {
            assert_eq!(Queue::new(&ring, size).is_some(), fits, "{size}");
        }
    }

    #[test]
    fn a_device_that_breaks_the_rules_is_found_out() {
        let ring = Ring::<N>::new();
        let fresh = || (Queue::new(&ring, 4).unwrap(), Device::default());
        let (mut queue, mut device) = fresh();
        queue.lend(0, 0, 0, false);
        queue.publish();
        device.give(&ring, 4, 1, 0);
        assert_eq!(queue.take(), Err(Defect::Descriptor(1)));
        let (mut queue, mut device) = fresh();
        device.give(&ring, 4, 4, 0);
        assert_eq!(queue.take(), Err(Defect::Descriptor(4)));
        let (mut queue, mut device) = fresh();
        queue.lend(3, 0, 0, false);
        device.give(&ring, 4, 3, 0);
        device.give(&ring, 4, 3, 0);
        assert!(queue.take().is_ok());
        assert_eq!(queue.take(), Err(Defect::Descriptor(3)));
        let (mut queue, _) = fresh();
        ring.used.index.store(5, Ordering::Relaxed);
        assert_eq!(queue.take(), Err(Defect::Index(5)));
    }

    proptest! {
        /// Every buffer comes back once, with its length, in the order of the device, over any number of turns of the
        /// rings and of their 16-bit indices.
        #[test]
        fn all_buffers_come_back(
            start: u16,
            size in prop::sample::select(vec![1_u16, 2, 4, 8]),
            steps in prop::collection::vec((0_u8..3, 0_usize..8, any::<u32>()), 1..300),
        ) {
            let ring = Ring::<N>::new();
            let mut queue = Queue::new(&ring, size).unwrap();
            let mut device = Device { seen: start, used: start, has: VecDeque::new() };
            (queue.offered, queue.taken) = (start, start);
            ring.used.index.store(start, Ordering::Relaxed);
            ring.available.index.store(start, Ordering::Relaxed);
            let mut expected = VecDeque::new();
            let mut lent = 0;
            for (step, at, length) in steps {
                match step {
                    0 => if let Some(descriptor) = queue.free() {
                        queue.lend(descriptor, 0, 0, true);
                        queue.publish();
                        lent += 1;
                    } else {
                        prop_assert_eq!(lent, size);
                    },
                    1 => {
                        device.look(&ring, size);
                        expected.extend(device.give_back(&ring, size, at, length));
                    }
                    _ => {
                        prop_assert_eq!(queue.has_done(), !expected.is_empty());
                        let taken = queue.take().unwrap();
                        prop_assert_eq!(taken, expected.pop_front());
                        lent -= u16::from(taken.is_some());
                    }
                }
            }
        }

        #[test]
        fn frames_come_out_as_they_went_in(frame in prop::collection::vec(any::<u8>(), 1..FRAME_MAX + 10)) {
            let buffer = Buffer::new();
            let written = buffer.write(&frame);
            let mut read = [0; FRAME_MAX];
            let length = buffer.read(written, &mut read).unwrap();
            prop_assert_eq!(&read[..length], &frame[..frame.len().min(FRAME_MAX)]);
        }
    }

    #[test]
    fn lengths_that_are_none() {
        let (buffer, mut frame) = (Buffer::new(), [0; FRAME_MAX]);
        for written in [0, HEADER as u32, (HEADER + FRAME_MAX) as u32 + 1, u32::MAX] {
            assert_eq!(buffer.read(written, &mut frame), None, "{written}");
        }
    }
}
