//! Room for a window of segments, made once.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

/// The number of a slot.
pub(super) type SlotId = u16;

/// Slots for segments.
pub(super) struct Slab {
    memory: Box<[u8]>,
    slots: SlotId,
    /// Bytes of a slot.
    stride: usize,
    lengths: Box<[u16]>,
    free: Vec<SlotId>,
}

impl Slab {
    /// So many slots of `stride` bytes.
    pub(super) fn new(slots: SlotId, stride: usize) -> Self {
        let mut slab = Self {
            memory: vec![0; usize::from(slots) * stride].into_boxed_slice(),
            slots,
            stride,
            lengths: vec![0; usize::from(slots)].into_boxed_slice(),
            free: Vec::with_capacity(usize::from(slots)),
        };
        slab.clear();
        slab
    }

    /// Frees all slots.
    pub(super) fn clear(&mut self) {
        self.free.clear();
        self.free.extend((0..self.slots).rev());
    }

    /// How many slots are free.
    pub(super) const fn free(&self) -> usize {
        self.free.len()
    }

    /// Bytes of the longest segment.
    pub(super) const fn stride(&self) -> usize {
        self.stride
    }

    /// How many slots there are.
    pub(super) const fn slots(&self) -> usize {
        self.slots as usize
    }

    /// Takes a free slot, into which `fill` writes a segment and says how many bytes it has.
    pub(super) fn put(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> Option<SlotId> {
        let slot = *self.free.last()?;
        let start = usize::from(slot) * self.stride;
        let place = self.memory.get_mut(start..start + self.stride)?;
        let length = fill(place).min(self.stride);
        *self.lengths.get_mut(usize::from(slot))? = u16::try_from(length).ok()?;
        self.free.pop()
    }

    /// The segment in a slot.
    pub(super) fn get(&self, slot: SlotId) -> &[u8] {
        let index = usize::from(slot);
        let length = self.lengths.get(index).copied().unwrap_or(0);
        let start = index * self.stride;
        self.memory
            .get(start..start + usize::from(length))
            .unwrap_or(&[])
    }

    /// Frees a slot that [`Self::put`] took.
    pub(super) fn release(&mut self, slot: SlotId) {
        self.free.push(slot);
    }
}
