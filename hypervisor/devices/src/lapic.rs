//! The local APIC of a virtual processor, as xAPIC and x2APIC.
//!
//! Source: Intel SDM volume 3, chapter 11 "Advanced Programmable Interrupt Controller (APIC)".
//!
//! Each belongs to its processor alone. What a register access means for others comes out as an [`Effect`]; what others
//! mean for this one goes in as a message ([`LocalApic::accept`]). Others find out by its [`Address`] which messages are
//! for it ([`receivers`]).
//!
//! Not there: suppression of EOI broadcasts, LVT CMCI, remote read, focus processors. The ID of an xAPIC is read-only.

mod access;
mod address;
mod base;
mod command;
mod lend;
mod lvt;
#[cfg(test)]
mod mode_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod reference;
mod register;
mod state;
#[cfg(test)]
mod tests;
mod timer;
#[cfg(test)]
mod timer_tests;
mod vectors;

use crate::msi::{DeliveryMode, Dispatch, FIRST_VECTOR, Message};
use crate::time::Ticks;
pub use address::{Address, Model, receivers};
use base::Base;
pub use base::Mode;
use command::Command;
pub use lend::{Lent, Request};
use lvt::{ENTRIES, Lvt, LvtBits, TimerMode};
use register::{Errors, Spurious};
pub use state::LocalApicStateV1;
pub use timer::TICKS_PER_CYCLE;
use timer::Timer;
use vectors::Vectors;

/// What a local APIC is made of.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct LocalApicConfig {
    /// The x2APIC ID. An xAPIC shows its low 8 bits, so processors from 256 on are for x2APIC only.
    pub id: u32,
    /// Whether this is the bootstrap processor's.
    pub bootstrap: bool,
    /// Width of a physical address (CPUID 80000008H), which IA32_APIC_BASE must not exceed.
    pub physical_bits: u8,
    /// Whether CPUID offers x2APIC mode.
    pub x2apic: bool,
    /// Whether CPUID offers TSC-deadline mode.
    pub tsc_deadline: bool,
}

/// What a register access does beyond the local APIC.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// A message goes out; perhaps to its sender too.
    Ipi(Dispatch),
    /// An interrupt that stood for a level is done: I/O APICs must hear of its vector.
    EndOfInterrupt(u8),
    /// [`LocalApic::address`] or [`LocalApic::page`] may have changed.
    Address,
}

/// What a message does to the processor.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Delivery {
    /// Nothing.
    Dropped,
    /// An interrupt is requested that was not before: [`LocalApic::interrupt_pending`] may have changed.
    Requested,
    /// An interrupt is requested that was already.
    Coalesced,
    /// A system management interrupt is due.
    Smi,
    /// A non-maskable interrupt is due.
    Nmi,
    /// The processor is to take an INIT: see [`LocalApic::init`].
    Init,
    /// The processor, if it waits for that, is to start at this page.
    StartUp(u8),
    /// An interrupt is due whose vector the 8259A pair supplies.
    ExtInt,
}

/// An access that raises a general-protection exception, #GP(0).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Fault;

/// What can happen near the processor.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The thermal sensor.
    Thermal,
    /// An overflow of a performance counter.
    Performance,
    /// The LINT0 pin. What the 8259A pair drives there is the business of [`LocalApic::extint_enabled`].
    Lint0,
    /// The LINT1 pin: NMI.
    Lint1,
}

/// A local APIC.
#[derive(Clone, Debug)]
pub struct LocalApic {
    config: LocalApicConfig,
    base: Base,
    task_priority: u8,
    /// The processor priority; follows from the task priority and the vectors in service.
    priority: u8,
    /// The highest requested vector above the processor priority; 0 if there is none.
    pending: u8,
    /// IRR: vectors that wait for the processor.
    requests: Vectors,
    /// ISR: vectors that the processor serves.
    in_service: Vectors,
    /// TMR: vectors that last came as a level.
    levels: Vectors,
    /// Logical destination of an xAPIC.
    logical: u8,
    /// Model bits of the destination format register.
    format: u8,
    spurious: Spurious,
    lvt: [LvtBits; ENTRIES],
    /// Errors since the error status register was last written.
    new_errors: Errors,
    /// What the error status register reads.
    errors: Errors,
    command: Command,
    /// The high half of the interrupt command register.
    command_destination: u32,
    timer: Timer,
}

impl LocalApic {
    /// A local APIC after a hardware reset: an xAPIC, disabled by software.
    #[must_use]
    pub fn new(config: LocalApicConfig) -> Self {
        Self {
            config,
            base: Base::reset(config.bootstrap),
            task_priority: 0,
            priority: 0,
            pending: 0,
            requests: Vectors::default(),
            in_service: Vectors::default(),
            levels: Vectors::default(),
            logical: 0,
            format: 0xF,
            spurious: Spurious::VECTOR,
            lvt: [LvtBits::MASKED; ENTRIES],
            new_errors: Errors::empty(),
            errors: Errors::empty(),
            command: Command::empty(),
            command_destination: 0,
            timer: Timer::new(),
        }
    }

    /// A hardware reset (SDM 11.4.7.1).
    pub fn reset(&mut self) {
        *self = Self::new(self.config);
    }

    /// An INIT (SDM 11.4.7.3): a reset that keeps the mode and the bootstrap flag.
    pub fn init(&mut self) {
        *self = Self {
            base: self.base,
            ..Self::new(self.config)
        };
    }

    /// What firmware does to a bootstrap processor's: virtual wire mode, in which the 8259A pair interrupts through
    /// LINT0 and LINT1 is NMI.
    pub fn set_virtual_wire(&mut self) {
        self.spurious |= Spurious::ENABLED;
        self.lvt[Lvt::Lint0 as usize] = LvtBits::from_bits_retain(7 << 8);
        self.lvt[Lvt::Lint1 as usize] = LvtBits::from_bits_retain(4 << 8);
    }

    /// Whether the processor is the one that starts by itself.
    #[must_use]
    pub fn bootstrap(&self) -> bool {
        self.base.bootstrap()
    }

    /// The mode that IA32_APIC_BASE selects.
    #[inline]
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.base.mode()
    }

    /// Where in physical memory the registers are; nowhere unless it is an xAPIC.
    #[must_use]
    pub fn page(&self) -> Option<u64> {
        (self.mode() == Mode::XApic).then(|| self.base.page())
    }

    /// Which messages are for this local APIC.
    #[inline]
    #[must_use]
    pub fn address(&self) -> Address {
        let (id, model) = match self.mode() {
            Mode::Disabled => (self.config.id, Model::Off),
            Mode::X2Apic => (self.config.id, Model::Wide),
            Mode::XApic if self.format == 0 => (self.config.id & 0xFF, Model::Cluster),
            Mode::XApic => (self.config.id & 0xFF, Model::Flat),
        };
        Address {
            id,
            logical: self.logical,
            model,
            enabled: self.enabled(),
        }
    }

    /// Whether it takes interrupts.
    fn enabled(&self) -> bool {
        self.mode() != Mode::Disabled && self.spurious.contains(Spurious::ENABLED)
    }

    /// Control register 8: the upper half of the task priority.
    #[inline]
    #[must_use]
    pub fn cr8(&self) -> u8 {
        self.task_priority >> 4
    }

    /// Sets control register 8; only 4 bits count.
    #[inline]
    pub fn set_cr8(&mut self, value: u8) {
        self.set_task_priority(value << 4);
    }

    #[inline]
    fn set_task_priority(&mut self, value: u8) {
        self.task_priority = value;
        self.update();
    }

    /// The vector that the processor should take now, if it takes interrupts.
    #[inline]
    #[must_use]
    pub fn interrupt_pending(&self) -> Option<u8> {
        (self.pending != 0).then_some(self.pending)
    }

    /// The processor takes the pending interrupt; returns its vector. With none pending, that is the spurious one,
    /// which needs no end of interrupt (SDM 11.9).
    ///
    /// [`next_deadline`](Self::next_deadline) may come back by this.
    #[inline]
    pub fn acknowledge(&mut self) -> u8 {
        let vector = self.pending;
        if vector == 0 {
            return self.spurious.bits() as u8;
        }
        self.requests.remove(vector);
        self.in_service.insert(vector);
        self.update();
        vector
    }

    /// Whether what the 8259A pair requests reaches the processor: through LINT0, or past a disabled local APIC.
    #[inline]
    #[must_use]
    pub fn extint_enabled(&self) -> bool {
        let entry = self.lvt[Lvt::Lint0 as usize];
        let external = matches!(
            DeliveryMode::decode(entry.bits()),
            Some(DeliveryMode::ExtInt)
        );
        self.mode() == Mode::Disabled || (external && !entry.masked())
    }

    /// A message that is for this local APIC arrives.
    #[inline]
    pub fn accept(&mut self, message: Message) -> Delivery {
        match message.mode {
            _ if self.mode() == Mode::Disabled => Delivery::Dropped,
            DeliveryMode::Fixed | DeliveryMode::LowestPriority if self.enabled() => {
                self.request(message.vector, message.level)
            }
            DeliveryMode::ExtInt if self.enabled() => Delivery::ExtInt,
            DeliveryMode::Fixed | DeliveryMode::LowestPriority | DeliveryMode::ExtInt => {
                Delivery::Dropped
            }
            DeliveryMode::Smi => Delivery::Smi,
            DeliveryMode::Nmi => Delivery::Nmi,
            DeliveryMode::Init => Delivery::Init,
            DeliveryMode::StartUp => Delivery::StartUp(message.vector),
        }
    }

    /// Something happens near the processor: its entry in the local vector table says what comes of it.
    pub fn signal(&mut self, source: Source) -> Delivery {
        let which = match source {
            Source::Thermal => Lvt::Thermal,
            Source::Performance => Lvt::Performance,
            Source::Lint0 => Lvt::Lint0,
            Source::Lint1 => Lvt::Lint1,
        };
        if self.mode() == Mode::Disabled {
            // The pins are the processor's own (SDM 11.4.3).
            return match source {
                Source::Lint0 => Delivery::ExtInt,
                Source::Lint1 => Delivery::Nmi,
                Source::Thermal | Source::Performance => Delivery::Dropped,
            };
        }
        let entry = self.lvt[which as usize];
        if entry.masked() {
            return Delivery::Dropped;
        }
        if source == Source::Performance {
            self.lvt[which as usize] |= LvtBits::MASKED;
        }
        match DeliveryMode::decode(entry.bits()) {
            Some(DeliveryMode::Fixed) => self.request(entry.vector(), false),
            Some(DeliveryMode::Smi) => Delivery::Smi,
            Some(DeliveryMode::Nmi) => Delivery::Nmi,
            Some(DeliveryMode::Init) => Delivery::Init,
            Some(DeliveryMode::ExtInt) => Delivery::ExtInt,
            Some(DeliveryMode::LowestPriority | DeliveryMode::StartUp) | None => Delivery::Dropped,
        }
    }

    /// The earliest time at which [`expire`](Self::expire) must be called: `None` while the timer is stopped or masked,
    /// or while its next period could only request what is requested already.
    ///
    /// Any register access, [`acknowledge`](Self::acknowledge) and `expire` may change it. An `expire` before each
    /// acknowledge keeps it from lying in the past.
    #[inline]
    #[must_use]
    pub fn next_deadline(&self) -> Option<Ticks> {
        let entry = self.lvt[Lvt::Timer as usize];
        let deadline = self.timer.deadline;
        if deadline == Ticks::NEVER || entry.masked() {
            return None;
        }
        if matches!(entry.timer_mode(), TimerMode::Periodic) {
            let vector = entry.vector();
            let coalesces = if vector < FIRST_VECTOR {
                self.new_errors.contains(Errors::RECEIVE_ILLEGAL_VECTOR)
            } else {
                self.requests.contains(vector)
            };
            if coalesces {
                return None;
            }
        }
        Some(deadline)
    }

    /// Brings the timer up to `now`. Cheap when nothing is due.
    #[inline]
    pub fn expire(&mut self, now: Ticks) {
        if now >= self.timer.deadline && self.timer.deadline != Ticks::NEVER {
            self.fire(now);
        }
    }

    /// The timer is due.
    fn fire(&mut self, now: Ticks) {
        let entry = self.lvt[Lvt::Timer as usize];
        self.timer.expire(entry.timer_mode(), now);
        if !entry.masked() {
            let _ = self.request(entry.vector(), false);
        }
    }

    /// Periods of the timer that fell together with another because the guest did not run: ticks it did not get.
    #[must_use]
    pub fn missed_timer_ticks(&self) -> u64 {
        self.timer.missed
    }

    /// Sets a vector's request bit.
    #[inline]
    fn request(&mut self, vector: u8, level: bool) -> Delivery {
        if vector < FIRST_VECTOR {
            return self.raise(Errors::RECEIVE_ILLEGAL_VECTOR);
        }
        if level {
            self.levels.insert(vector);
        } else {
            self.levels.remove(vector);
        }
        if !self.requests.insert(vector) {
            return Delivery::Coalesced;
        }
        if vector > self.pending && vector >> 4 > self.priority >> 4 {
            self.pending = vector;
        }
        Delivery::Requested
    }

    /// Notes an error; the first since the error status register was written interrupts (SDM 11.5.3).
    #[cold]
    #[inline(never)]
    fn raise(&mut self, error: Errors) -> Delivery {
        let first = self.new_errors.is_empty();
        self.new_errors |= error;
        let entry = self.lvt[Lvt::Error as usize];
        if !first || entry.masked() {
            return Delivery::Dropped;
        }
        if entry.vector() < FIRST_VECTOR {
            self.new_errors |= Errors::RECEIVE_ILLEGAL_VECTOR;
            return Delivery::Dropped;
        }
        self.request(entry.vector(), false)
    }

    /// The end of the interrupt that is served first.
    #[inline]
    fn end_of_interrupt(&mut self) -> Option<Effect> {
        let vector = self.in_service.highest();
        if vector == 0 {
            return None;
        }
        self.in_service.remove(vector);
        self.update();
        self.levels
            .contains(vector)
            .then_some(Effect::EndOfInterrupt(vector))
    }

    /// Computes the processor priority (SDM 11.8.3.1) and what is pending above it.
    #[inline]
    fn update(&mut self) {
        let served = self.in_service.highest() & 0xF0;
        self.priority = if self.task_priority >= served {
            self.task_priority
        } else {
            served
        };
        let requested = self.requests.highest();
        self.pending = if requested >> 4 > self.priority >> 4 {
            requested
        } else {
            0
        };
    }
}
