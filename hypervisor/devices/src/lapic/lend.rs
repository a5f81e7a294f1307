//! Lending interrupts to a processor that keeps them by itself while it runs the guest.
//!
//! What is lent are the task priority and the vectors in service. Requests wait here until the guest takes them; then
//! they follow one by one ([`LocalApic::sole_request`]). Everything else stays, and works on.

use super::{Effect, LocalApic, Mode};

/// What is lent of a local APIC.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Lent {
    /// Task priority register.
    pub task_priority: u8,
    /// In-service register in words of 64, the lowest vectors first.
    pub in_service: [u64; 4],
}

/// A request for the processor to keep.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The vector.
    pub vector: u8,
    /// It came as a level: the end of the interrupt must be told ([`LocalApic::ended`]).
    pub level: bool,
}

impl LocalApic {
    /// Whether it may be lent: enabled, in x2APIC mode, with no request or one that the processor should take now. No
    /// register access may change the mode while it is lent: it must be given back before writes of IA32_APIC_BASE and
    /// of the spurious-interrupt vector register.
    #[must_use]
    pub fn can_be_lent(&self) -> bool {
        self.mode() == Mode::X2Apic
            && self.enabled()
            && self.requests.highest() == self.pending
            && self.requests.at_most_one()
    }

    /// Lends the interrupts. Until [`give_back`](Self::give_back), [`interrupt_pending`](Self::interrupt_pending) is
    /// about requests that must follow, and nothing may be asked of what is lent: the local APIC cannot be saved.
    pub fn lend(&mut self) -> Lent {
        let lent = Lent {
            task_priority: core::mem::take(&mut self.task_priority),
            in_service: core::mem::take(&mut self.in_service).words(),
        };
        self.update();
        lent
    }

    /// While the interrupts are lent: the request, if there is one and no more. Once the processor keeps it, it must be
    /// taken out here ([`take_request`](Self::take_request)).
    #[inline]
    #[must_use]
    pub fn sole_request(&self) -> Option<Request> {
        let vector = self.pending;
        (vector != 0 && self.requests.at_most_one()).then(|| Request {
            vector,
            level: self.levels.contains(vector),
        })
    }

    /// While the interrupts are lent: takes out the request that now the processor keeps.
    #[inline]
    pub fn take_request(&mut self, request: Request) {
        self.requests.remove(request.vector);
        self.update();
    }

    /// Takes back what was lent, with what the processor has made of it and the requests that it has not delivered.
    pub fn give_back(&mut self, lent: &Lent, requests: [u64; 4]) {
        self.task_priority = lent.task_priority;
        self.requests.merge(requests);
        self.in_service.merge(lent.in_service);
        self.update();
    }

    /// The vectors that last came as a level, in words of 64.
    #[must_use]
    pub fn levels(&self) -> [u64; 4] {
        self.levels.words()
    }

    /// While the interrupts are lent: the guest ended the one with this vector.
    pub fn ended(&self, vector: u8) -> Option<Effect> {
        self.levels
            .contains(vector)
            .then_some(Effect::EndOfInterrupt(vector))
    }
}

#[cfg(test)]
mod tests {
    use super::super::LocalApicConfig;
    use super::*;
    use crate::msi::{DeliveryMode, Message};
    use crate::time::Ticks;
    use proptest::prelude::*;

    const BASE: u32 = 0x1B;
    const TASK_PRIORITY: u32 = 0x808;
    const END: u32 = 0x80B;
    const SPURIOUS: u32 = 0x80F;

    fn apic() -> LocalApic {
        let mut apic = LocalApic::new(LocalApicConfig {
            id: 0,
            bootstrap: true,
            physical_bits: 39,
            x2apic: true,
            tsc_deadline: true,
        });
        assert!(!apic.can_be_lent());
        for (msr, value) in [(BASE, 0xFEE0_0D00), (SPURIOUS, 0x1FF)] {
            let _ = apic.write_msr(msr, value, Ticks(0)).expect("a write");
        }
        assert!(apic.can_be_lent());
        apic
    }

    fn message(vector: u8, level: bool) -> Message {
        Message {
            mode: DeliveryMode::Fixed,
            vector,
            level,
        }
    }

    /// What a processor does with what it was lent (SDM 30.1.2 to 30.2.2), by the way of another local APIC.
    #[derive(Clone, Debug)]
    enum Turn {
        Arrive(u8, bool),
        Deliver,
        End,
        TaskPriority(u8),
        Lend,
        Return,
    }

    fn turns() -> impl Strategy<Value = Vec<Turn>> {
        let turn = prop_oneof![
            6 => (16u8.., any::<bool>()).prop_map(|(vector, level)| Turn::Arrive(vector, level)),
            6 => Just(Turn::Deliver),
            4 => Just(Turn::End),
            2 => any::<u8>().prop_map(Turn::TaskPriority),
            4 => Just(Turn::Lend),
            1 => Just(Turn::Return),
        ];
        proptest::collection::vec(turn, 1..100)
    }

    proptest! {
        /// Lent and given back at any time, a local APIC behaves as one that is not.
        #[test]
        fn lending_changes_nothing(turns in turns()) {
            let mut plain = apic();
            let mut lender = apic();
            // The processor.
            let mut borrower = apic();
            let mut lent = false;
            for turn in turns {
                match turn {
                    Turn::Arrive(vector, level) => {
                        let _ = plain.accept(message(vector, level));
                        let _ = lender.accept(message(vector, level));
                    }
                    Turn::Deliver if lent => {
                        let before = plain.interrupt_pending();
                        match lender.sole_request() {
                            Some(request) if before == Some(request.vector) => {
                                prop_assert_eq!(request.level, plain.levels.contains(request.vector));
                                lender.take_request(request);
                                prop_assert_eq!(lender.interrupt_pending(), None);
                                let _ = borrower.accept(message(request.vector, false));
                                prop_assert_eq!(plain.acknowledge(), borrower.acknowledge());
                            }
                            // More than one, or it is not its turn: no longer the processor's business.
                            Some(_) | None => {
                                lender.give_back(&borrower.lend(), [0; 4]);
                                lent = false;
                            }
                        }
                    }
                    Turn::Deliver => prop_assert_eq!(plain.acknowledge(), lender.acknowledge()),
                    Turn::End if lent => {
                        let vector = borrower.in_service.highest();
                        let _ = borrower.write_msr(END, 0, Ticks(0));
                        let effect = plain.write_msr(END, 0, Ticks(0)).expect("an end");
                        prop_assert_eq!(effect, lender.ended(vector));
                    }
                    Turn::End => {
                        let effect = plain.write_msr(END, 0, Ticks(0));
                        prop_assert_eq!(effect, lender.write_msr(END, 0, Ticks(0)));
                    }
                    Turn::TaskPriority(value) => {
                        let _ = plain.write_msr(TASK_PRIORITY, value.into(), Ticks(0));
                        let holder = if lent { &mut borrower } else { &mut lender };
                        let _ = holder.write_msr(TASK_PRIORITY, value.into(), Ticks(0));
                    }
                    Turn::Lend if !lent && lender.can_be_lent() => {
                        prop_assert_eq!(lender.interrupt_pending(), plain.interrupt_pending());
                        borrower.give_back(&lender.lend(), [0; 4]);
                        prop_assert_eq!(lender.interrupt_pending(), plain.interrupt_pending());
                        lent = true;
                    }
                    Turn::Lend => {}
                    Turn::Return => {
                        if lent {
                            lender.give_back(&borrower.lend(), [0; 4]);
                            lent = false;
                        }
                        prop_assert_eq!(lender.save(), plain.save());
                        prop_assert_eq!(lender.interrupt_pending(), plain.interrupt_pending());
                    }
                }
                prop_assert_eq!(lender.levels(), plain.levels());
            }
        }
    }

    #[test]
    fn requests_follow_one_by_one_or_not_at_all() {
        let mut apic = apic();
        let _ = apic.accept(message(0x40, true));
        let mut lent = apic.lend();
        let request = Request {
            vector: 0x40,
            level: true,
        };
        assert_eq!(apic.sole_request(), Some(request));
        let _ = apic.accept(message(0x31, false));
        assert_eq!(apic.sole_request(), None);
        assert_eq!(apic.interrupt_pending(), Some(0x40));
        apic.take_request(request);
        assert_eq!(apic.interrupt_pending(), Some(0x31));
        // A request that came back undelivered, and a task priority that the other one does not exceed.
        lent.task_priority = 0x35;
        apic.give_back(&lent, [0, 1, 0, 0]);
        assert!(!apic.can_be_lent());
        assert_eq!(apic.acknowledge(), 0x40);
        assert_eq!(apic.interrupt_pending(), None);
        assert!(!apic.can_be_lent());
        assert_eq!(apic.save().requests, [1 << 0x31, 0, 0, 0]);
    }
}
