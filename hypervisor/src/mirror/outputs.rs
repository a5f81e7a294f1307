//! What left a mirrored guest and may not be seen yet: a takeover would go on from a state in which it never left.

use crate::network::Frame;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use mirror::{Epoch, OutputGate};
use net::{FrameQueue, MacAddress, Offload, PortSet};
use spin::{Mutex, Once};

/// Bytes that may be held: what a gigabit card sends in two milliseconds, or a long frame and many short ones.
const SIZE: usize = 256 << 10;
/// Of these, what frames leave to the console.
const CONSOLE_RESERVE: usize = 16 << 10;
/// What an output takes beside its bytes, at most.
const OVERHEAD: usize = 8;

/// What an output is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A frame of this card's.
    Frame(u8, Offload),
    /// Text for the console.
    Console,
}

/// An output that may leave.
pub(crate) enum Output<'a> {
    /// A frame of a card's.
    Frame(u8, Frame<'a>),
    /// Text for the console.
    Console(&'a [u8]),
}

/// What becomes of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It may leave now.
    Passes,
    /// It is held.
    Held,
    /// There is no room now, and will be.
    Full,
}

/// The outputs of a guest.
pub(crate) struct Outputs {
    /// Whether outputs are held, or some that were held are still there: others must not overtake them.
    holds: AtomicBool,
    /// What it sends to others of its group is not held: they belong to the same epochs.
    inside: AtomicBool,
    group: Once<Group>,
    /// Frames that were not held for that.
    passed: AtomicU64,
    queue: Mutex<Queue>,
}

/// The others of a guest's group.
struct Group {
    ports: PortSet,
    stations: Vec<MacAddress>,
}

struct Queue {
    bytes: FrameQueue,
    kinds: VecDeque<Kind>,
    gate: OutputGate,
    /// Bytes that are taken.
    taken: usize,
    /// Epochs end here; else what is left in the queue only has to leave.
    mirrored: bool,
    /// The epoch under way ends no more.
    let_go: bool,
}

impl Queue {
    fn put(
        &mut self,
        kind: Kind,
        length: usize,
        size: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> bool {
        let needed = length + OVERHEAD;
        let room = self.taken + needed <= size && self.bytes.push(length, fill);
        if room {
            self.taken += needed;
            self.kinds.push_back(kind);
            self.gate.put();
            if !self.mirrored {
                self.gate.release();
            }
        }
        room
    }
}

impl Outputs {
    /// Nothing is held.
    pub(crate) fn new() -> Self {
        Self {
            holds: AtomicBool::new(false),
            inside: AtomicBool::new(false),
            group: Once::new(),
            passed: AtomicU64::new(0),
            queue: Mutex::new(Queue {
                bytes: FrameQueue::new(SIZE),
                kinds: VecDeque::new(),
                gate: OutputGate::new(),
                taken: 0,
                mirrored: false,
                let_go: false,
            }),
        }
    }

    /// Which guests have their checkpoints together with this one: these ports, with these stations.
    pub(super) fn join(&self, ports: PortSet, stations: Vec<MacAddress>) {
        self.group.call_once(|| Group { ports, stations });
    }

    /// What is sent to those belongs to its epochs and theirs from now on, or no more.
    pub(super) fn set_inside(&self, inside: bool) {
        self.inside.store(inside, Ordering::Release);
    }

    /// A frame leaves a card.
    #[inline]
    pub(crate) fn put_frame(&self, nic: u8, frame: &Frame<'_>) -> Put {
        if !self.holds.load(Ordering::Acquire) {
            return Put::Passes;
        }
        self.hold_frame(nic, frame)
    }

    /// The ports of its group, if a frame that leaves a card need not be held as long as it leaves by those alone: it is for a station
    /// there.
    #[inline]
    pub(crate) fn inside(&self, frame: &Frame<'_>) -> Option<PortSet> {
        let group = self.group.get()?;
        if !self.inside.load(Ordering::Acquire) || !self.holds.load(Ordering::Acquire) {
            return None;
        }
        let to = frame.head().first_chunk().copied().map(MacAddress)?;
        group.stations.contains(&to).then_some(group.ports)
    }

    fn hold_frame(&self, nic: u8, frame: &Frame<'_>) -> Put {
        let kind = Kind::Frame(nic, frame.offload);
        let mut queue = self.queue.lock();
        let room = queue.put(kind, frame.length(), SIZE - CONSOLE_RESERVE, |into| {
            // Parts of it that are not in the guest's memory are zeroes.
            let read = frame.read(0, into).unwrap_or(0);
            into.get_mut(read..).unwrap_or(&mut []).fill(0);
        });
        if room { Put::Held } else { Put::Full }
    }

    /// A frame left to its group alone.
    pub(crate) fn passed_inside(&self) {
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many did.
    pub(super) fn inside_frames(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Text leaves for the console.
    pub(crate) fn put_console(&self, text: &[u8]) -> Put {
        if !self.holds.load(Ordering::Acquire) {
            return Put::Passes;
        }
        let mut queue = self.queue.lock();
        let room = queue.put(Kind::Console, text.len(), SIZE, |into| {
            into.copy_from_slice(text)
        });
        if room { Put::Held } else { Put::Full }
    }

    /// Nothing may leave the guest, whatever the backup has: from now on all is held.
    pub(crate) fn hold(&self) {
        self.queue.lock().mirrored = true;
        self.holds.store(true, Ordering::Release);
    }

    /// The guest is frozen: what left it up to now belongs to the epoch that this returns, and what leaves it from now on to the
    /// next one, and is held, unless the guest was let go since it was to be frozen.
    pub(crate) fn seal(&self) -> Epoch {
        let mut queue = self.queue.lock();
        if !queue.let_go {
            queue.mirrored = true;
            self.holds.store(true, Ordering::Release);
        }
        queue.gate.seal()
    }

    /// The epoch that is sealed next is this one.
    pub(super) fn begin(&self, epoch: Epoch) {
        let mut queue = self.queue.lock();
        queue.let_go = false;
        queue.gate.begin(epoch);
    }

    /// The backup has an epoch.
    pub(crate) fn acknowledge(&self, epoch: Epoch) {
        self.queue.lock().gate.acknowledge(epoch);
    }

    /// The guest is mirrored no longer: what is held belongs to no epoch.
    pub(crate) fn let_go(&self) {
        let mut queue = self.queue.lock();
        (queue.mirrored, queue.let_go) = (false, true);
        queue.gate.release();
        self.holds.store(!queue.bytes.is_empty(), Ordering::Release);
    }

    /// Drops what is held: somebody else's guest has put it out, or will not.
    pub(crate) fn drop_all(&self) {
        let mut queue = self.queue.lock();
        queue.bytes.clear();
        queue.kinds.clear();
        queue.taken = 0;
        queue.gate.forget();
        (queue.mirrored, queue.let_go) = (false, true);
        self.holds.store(false, Ordering::Release);
    }

    /// Whether something may leave as far as epochs go.
    pub(crate) fn waits(&self) -> bool {
        self.holds.load(Ordering::Acquire) && self.queue.lock().gate.free() > 0
    }

    /// Hands outputs to `take` that may leave, until it says that it does not take one, or there are none. Whether there was one that it took.
    pub(crate) fn release(&self, mut take: impl FnMut(&Output<'_>) -> bool) -> bool {
        let mut queue = self.queue.lock();
        let queue = &mut *queue;
        let mut left = false;
        while queue.gate.free() > 0
            && let Some(kind) = queue.kinds.front().copied()
        {
            let mut length = 0;
            let taken = queue.bytes.pop_if(|bytes| {
                length = bytes.len();
                take(&match kind {
                    Kind::Frame(nic, offload) => {
                        Output::Frame(nic, Frame::of_bytes(bytes, offload))
                    }
                    Kind::Console => Output::Console(bytes),
                })
            });
            if !taken {
                break;
            }
            queue.kinds.pop_front();
            queue.gate.take();
            queue.taken = queue.taken.saturating_sub(length + OVERHEAD);
            left = true;
        }
        if !queue.mirrored && queue.bytes.is_empty() {
            self.holds.store(false, Ordering::Release);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn frame(bytes: &[u8]) -> Frame<'_> {
        Frame::of_bytes(bytes, Offload::default())
    }

    fn released(outputs: &Outputs) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        outputs.release(|output| {
            all.push(match output {
                Output::Frame(_, frame) => {
                    let mut bytes = alloc::vec![0; frame.length()];
                    assert_eq!(frame.read(0, &mut bytes), Ok(frame.length()));
                    bytes
                }
                Output::Console(text) => text.to_vec(),
            });
            true
        });
        all
    }

    #[test]
    fn outputs_are_held_from_the_first_seal_on_and_leave_in_order() {
        let outputs = Outputs::new();
        assert_eq!(outputs.put_frame(0, &frame(&[1; 60])), Put::Passes);
        let first = outputs.seal();
        assert_eq!(outputs.put_frame(1, &frame(&[2; 60])), Put::Held);
        assert_eq!(outputs.put_console(b"three"), Put::Held);
        outputs.acknowledge(first);
        assert!(released(&outputs).is_empty());
        let second = outputs.seal();
        assert_eq!(outputs.put_console(b"four"), Put::Held);
        outputs.acknowledge(second);
        assert_eq!(released(&outputs), [[2; 60].to_vec(), b"three".to_vec()]);
        outputs.let_go();
        // It must not overtake what is still there.
        assert_eq!(outputs.put_console(b"five"), Put::Held);
        assert_eq!(released(&outputs), [b"four".to_vec(), b"five".to_vec()]);
        assert_eq!(outputs.put_console(b"six"), Put::Passes);
    }

    #[test]
    fn a_full_queue_takes_no_frame_but_still_text() {
        let outputs = Outputs::new();
        let epoch = outputs.seal();
        let long = [7; 1514];
        let mut count = 0;
        while outputs.put_frame(0, &frame(&long)) == Put::Held {
            count += 1;
        }
        assert!(count * long.len() > SIZE / 2, "{count}");
        assert_eq!(outputs.put_console(b"still"), Put::Held);
        outputs.seal();
        outputs.acknowledge(epoch.next());
        assert_eq!(released(&outputs).len(), count + 1);
        assert_eq!(outputs.put_frame(0, &frame(&long)), Put::Held);
    }

    #[test]
    fn who_cannot_take_an_output_gets_it_again() {
        let outputs = Outputs::new();
        outputs.seal();
        outputs.put_console(b"one");
        outputs.let_go();
        assert!(outputs.waits() && !outputs.release(|_| false));
        assert_eq!(released(&outputs), [b"one".to_vec()]);
        assert!(!outputs.waits());
    }

    #[test]
    fn what_is_held_without_an_epoch_leaves_when_it_is_let_go() {
        let outputs = Outputs::new();
        outputs.hold();
        assert_eq!(outputs.put_console(b"one"), Put::Held);
        assert!(released(&outputs).is_empty());
        outputs.let_go();
        assert_eq!(released(&outputs), [b"one".to_vec()]);
        assert_eq!(outputs.put_console(b"two"), Put::Passes);
    }

    #[test]
    fn what_is_dropped_never_leaves() {
        let outputs = Outputs::new();
        outputs.seal();
        outputs.put_console(b"one");
        outputs.drop_all();
        outputs.begin(Epoch(9));
        assert_eq!(outputs.seal(), Epoch(9));
        outputs.acknowledge(Epoch(9));
        assert!(released(&outputs).is_empty());
    }

    #[test]
    fn a_guest_that_is_frozen_after_it_was_let_go_puts_out_what_it_likes() {
        let outputs = Outputs::new();
        outputs.begin(Epoch(1));
        outputs.seal();
        outputs.begin(Epoch(2));
        outputs.let_go();
        outputs.seal();
        assert_eq!(outputs.put_console(b"one"), Put::Passes);
        // What is held for another reason stays.
        outputs.hold();
        outputs.seal();
        assert_eq!(outputs.put_console(b"two"), Put::Held);
    }
}
