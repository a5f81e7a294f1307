//! What other processors leave for a vCPU, until its owner takes it.

use super::local::Local;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use devices::lapic::Address;
use devices::msi::{DeliveryMode, Message};
use serde::{Deserialize, Serialize};

const NMI: u32 = 1 << 8;
const INIT: u32 = 1 << 9;
const START_UP: u32 = 1 << 10;
const PAGE: u32 = 0xff;

/// Messages for a vCPU, collected as its local APIC would: a vector that came twice came once.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// Something was left since the last look.
    filled: AtomicBool,
    /// Vectors that came as edges and as levels, in words of 64.
    edges: [AtomicU64; 4],
    levels: [AtomicU64; 4],
    /// Non-maskable interrupt, INIT, start-up and its page.
    signals: AtomicU32,
    /// Which messages are for this vCPU, as its owner last knew ([`Address::to_bits`]).
    address: AtomicU64,
}

/// What was left for a vCPU and not yet taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MailboxStateV1 {
    edges: [u64; 4],
    levels: [u64; 4],
    signals: u32,
}

impl Mailbox {
    /// Leaves a message. The owner is to be told.
    pub(super) fn post(&self, message: Message) {
        match message.mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                let words = if message.level {
                    &self.levels
                } else {
                    &self.edges
                };
                let (word, bit) = (message.vector >> 6, message.vector & 63);
                words[usize::from(word)].fetch_or(1 << bit, Ordering::Relaxed);
            }
            DeliveryMode::Nmi => self.signal(NMI),
            DeliveryMode::Init => {
                // A start-up that came before an INIT is over.
                let after = |signals| Some(signals & !(START_UP | PAGE) | INIT);
                let _ = self
                    .signals
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
            }
            DeliveryMode::StartUp => {
                // The first page counts until it is taken: the second of two start-ups does nothing.
                let page = START_UP | u32::from(message.vector);
                let first = |signals| (signals & START_UP == 0).then_some(signals | page);
                let _ = self
                    .signals
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, first);
            }
            // There is no system management mode, and the 8259A pair's line has its own way.
            DeliveryMode::Smi | DeliveryMode::ExtInt => return,
        }
        self.filled.swap(true, Ordering::AcqRel);
    }

    fn signal(&self, signal: u32) {
        self.signals.fetch_or(signal, Ordering::Relaxed);
    }

    /// For the owner: moves everything to the vCPU.
    #[inline]
    pub(super) fn empty_into(&self, local: &mut Local) {
        // Most looks find nothing, and then one shared load is all.
        if self.filled.load(Ordering::Relaxed) && self.filled.swap(false, Ordering::Acquire) {
            self.move_into(local);
        }
    }

    #[cold]
    fn move_into(&self, local: &mut Local) {
        let signals = self.signals.swap(0, Ordering::Relaxed);
        let mut signal = |mode, vector| {
            local.accept(Message {
                mode,
                vector,
                level: false,
            });
        };
        if signals & INIT != 0 {
            signal(DeliveryMode::Init, 0);
        }
        if signals & START_UP != 0 {
            signal(DeliveryMode::StartUp, (signals & PAGE) as u8);
        }
        if signals & NMI != 0 {
            signal(DeliveryMode::Nmi, 0);
        }
        for (words, level) in [(&self.edges, false), (&self.levels, true)] {
            for (index, word) in (0_u8..).zip(words) {
                let mut bits = word.swap(0, Ordering::Relaxed);
                while bits != 0 {
                    let vector = 64 * index + bits.trailing_zeros() as u8;
                    bits &= bits - 1;
                    local.accept(Message {
                        mode: DeliveryMode::Fixed,
                        vector,
                        level,
                    });
                }
            }
        }
    }

    /// Forgets everything; from now on messages for this address are for the vCPU.
    pub(super) fn reset(&self, address: Address) {
        self.filled.store(false, Ordering::Relaxed);
        for word in self.edges.iter().chain(&self.levels) {
            word.store(0, Ordering::Relaxed);
        }
        self.signals.store(0, Ordering::Relaxed);
        self.set_address(address);
    }

    /// What is left there, once nobody posts any more.
    pub(super) fn save(&self) -> MailboxStateV1 {
        let words = |words: &[AtomicU64; 4]| words.each_ref().map(|w| w.load(Ordering::Relaxed));
        MailboxStateV1 {
            edges: words(&self.edges),
            levels: words(&self.levels),
            signals: self.signals.load(Ordering::Relaxed),
        }
    }

    /// Puts back what was left.
    pub(super) fn restore(&self, state: &MailboxStateV1) {
        for (words, saved) in [(&self.edges, state.edges), (&self.levels, state.levels)] {
            for (word, saved) in words.iter().zip(saved) {
                word.store(saved, Ordering::Relaxed);
            }
        }
        // Bits that mean nothing are not looked at.
        self.signals.store(state.signals, Ordering::Relaxed);
        self.filled.store(true, Ordering::Release);
    }

    /// Which messages are for this vCPU.
    pub(super) fn address(&self) -> Address {
        Address::from_bits(self.address.load(Ordering::Relaxed))
    }

    /// Says which messages are for this vCPU.
    pub(super) fn set_address(&self, address: Address) {
        self.address.store(address.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::lapic::LocalApicConfig;

    fn local() -> Local {
        let mut local = Local::new(Some(LocalApicConfig {
            id: 1,
            bootstrap: false,
            physical_bits: 39,
            x2apic: true,
            tsc_deadline: true,
        }));
        local.enable_for_test();
        local
    }

    fn message(mode: DeliveryMode, vector: u8, level: bool) -> Message {
        Message {
            mode,
            vector,
            level,
        }
    }

    #[test]
    fn interrupts_arrive_once_and_by_priority() {
        let (mailbox, mut local) = (Mailbox::default(), local());
        for (vector, level) in [(0x31, false), (0xef, false), (0x31, false), (0x80, true)] {
            mailbox.post(message(DeliveryMode::Fixed, vector, level));
        }
        assert!(!local.interrupt_pending(false));
        mailbox.empty_into(&mut local);
        for vector in [0xef, 0x80, 0x31] {
            assert!(local.interrupt_pending(false), "{vector:#x}");
            assert_eq!(local.acknowledge(), Some(vector));
            local.end_of_interrupt_for_test();
        }
        assert!(!local.interrupt_pending(false));
        mailbox.empty_into(&mut local);
        assert!(!local.interrupt_pending(false));
    }

    #[test]
    fn the_first_start_up_counts() {
        let (mailbox, mut local) = (Mailbox::default(), local());
        mailbox.post(message(DeliveryMode::Init, 0, false));
        mailbox.post(message(DeliveryMode::StartUp, 0x9a, false));
        mailbox.post(message(DeliveryMode::StartUp, 0x77, false));
        mailbox.empty_into(&mut local);
        assert!(local.take_init());
        assert_eq!(local.take_start_up(), Some(0x9a));
        assert_eq!(local.take_start_up(), None);
        assert!(!local.take_init());
    }

    #[test]
    fn an_init_ends_a_start_up_before_it() {
        let (mailbox, mut local) = (Mailbox::default(), local());
        mailbox.post(message(DeliveryMode::StartUp, 0x9a, false));
        mailbox.post(message(DeliveryMode::Init, 0, false));
        mailbox.post(message(DeliveryMode::StartUp, 0x77, false));
        mailbox.empty_into(&mut local);
        assert!(local.take_init());
        assert_eq!(local.take_start_up(), Some(0x77));
    }

    #[test]
    fn what_was_left_survives_a_reset() {
        let (mailbox, mut local) = (Mailbox::default(), local());
        mailbox.post(message(DeliveryMode::Fixed, 0x91, true));
        mailbox.post(message(DeliveryMode::Nmi, 0, false));
        let state = mailbox.save();
        mailbox.reset(local.address());
        mailbox.restore(&state);
        assert_eq!(mailbox.save(), state);
        mailbox.empty_into(&mut local);
        assert!(local.nmi_pending());
        assert_eq!(local.acknowledge(), Some(0x91));
    }

    #[test]
    fn what_was_there_before_a_reset_does_not_arrive() {
        let (mailbox, mut local) = (Mailbox::default(), local());
        mailbox.post(message(DeliveryMode::Nmi, 0, false));
        mailbox.post(message(DeliveryMode::Fixed, 0x40, false));
        mailbox.reset(local.address());
        mailbox.empty_into(&mut local);
        assert!(!local.nmi_pending() && !local.interrupt_pending(false));
    }
}
