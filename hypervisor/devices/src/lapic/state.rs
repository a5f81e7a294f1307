//! The saved state of a local APIC.

use serde::{Deserialize, Serialize};

use super::access::lvt_bits;
use super::base::Base;
use super::command::Command;
use super::lvt::{ENTRIES, Lvt, LvtBits, TimerMode};
use super::register::{Errors, Spurious};
use super::timer::{DIVIDE_BITS, Timer};
use super::vectors::Vectors;
use super::{LocalApic, LocalApicConfig, Mode};
use crate::pc::StateError;
use crate::time::Ticks;

/// The saved state of a local APIC. Its deadline is in guest TSC ticks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalApicStateV1 {
    /// The x2APIC ID.
    pub id: u32,
    /// IA32_APIC_BASE.
    pub base: u64,
    /// Task priority register.
    pub task_priority: u8,
    /// Interrupt request register in words of 64, the lowest vectors first.
    pub requests: [u64; 4],
    /// In-service register.
    pub in_service: [u64; 4],
    /// Trigger mode register.
    pub levels: [u64; 4],
    /// Logical destination of an xAPIC.
    pub logical: u8,
    /// Model bits of the destination format register.
    pub format: u8,
    /// Spurious-interrupt vector register.
    pub spurious: u32,
    /// The local vector table: timer, thermal sensor, performance counters, LINT0, LINT1, error.
    pub lvt: [u32; ENTRIES],
    /// Errors that the error status register does not show yet.
    pub new_errors: u8,
    /// Error status register.
    pub errors: u8,
    /// Interrupt command register.
    pub command: u64,
    /// Divide configuration register.
    pub divide: u8,
    /// Initial count register.
    pub initial_count: u32,
    /// When the timer is due; `u64::MAX` when it is stopped.
    pub deadline: u64,
    /// See [`LocalApic::missed_timer_ticks`].
    pub missed: u64,
}

impl LocalApic {
    /// The local APIC's state.
    #[must_use]
    pub fn save(&self) -> LocalApicStateV1 {
        LocalApicStateV1 {
            id: self.config.id,
            base: self.base.value(),
            task_priority: self.task_priority,
            requests: self.requests.words(),
            in_service: self.in_service.words(),
            levels: self.levels.words(),
            logical: self.logical,
            format: self.format,
            spurious: self.spurious.bits(),
            lvt: self.lvt.map(|entry| entry.bits()),
            new_errors: self.new_errors.bits(),
            errors: self.errors.bits(),
            command: u64::from(self.command_destination) << 32 | u64::from(self.command.bits()),
            divide: self.timer.divide,
            initial_count: self.timer.initial,
            deadline: self.timer.deadline.0,
            missed: self.timer.missed,
        }
    }

    /// A local APIC in a saved state.
    ///
    /// # Errors
    ///
    /// [`StateError::Invalid`] for a state that a local APIC of this configuration cannot be in.
    pub fn restore(config: LocalApicConfig, state: &LocalApicStateV1) -> Result<Self, StateError> {
        let invalid = |what| move || StateError::Invalid(what);
        let ensure = |holds: bool, what| {
            if holds {
                Ok(())
            } else {
                Err(StateError::Invalid(what))
            }
        };
        ensure(state.id == config.id, "local APIC: ID")?;
        let base = Base::decode(state.base, config.physical_bits, config.x2apic)
            .map_err(|_| StateError::Invalid("local APIC: base"))?;
        let vectors = |words| Vectors::from_words(words).ok_or_else(invalid("local APIC: vectors"));
        let errors = |bits| Errors::from_bits(bits).ok_or_else(invalid("local APIC: errors"));
        let mut apic = Self {
            base,
            task_priority: state.task_priority,
            requests: vectors(state.requests)?,
            in_service: vectors(state.in_service)?,
            levels: vectors(state.levels)?,
            logical: state.logical,
            format: state.format,
            spurious: Spurious::from_bits(state.spurious)
                .ok_or_else(invalid("local APIC: spurious"))?,
            new_errors: errors(state.new_errors)?,
            errors: errors(state.errors)?,
            command: Command::from_bits(state.command as u32)
                .filter(|command| !command.contains(Command::STATUS))
                .ok_or_else(invalid("local APIC: command"))?,
            command_destination: (state.command >> 32) as u32,
            timer: Timer {
                divide: state.divide,
                initial: state.initial_count,
                deadline: Ticks(state.deadline),
                missed: state.missed,
            },
            ..Self::new(config)
        };
        ensure(state.format <= 0xF, "local APIC: format")?;
        let wide = base.mode() == Mode::X2Apic;
        ensure(
            wide || apic.command_destination & 0x00FF_FFFF == 0,
            "local APIC: command",
        )?;
        ensure(
            base.mode() == Mode::XApic || (state.logical, state.format) == (0, 0xF),
            "local APIC: logical destination",
        )?;
        let idle = state.requests == [0; 4]
            && state.in_service == [0; 4]
            && apic.timer.deadline == Ticks::NEVER;
        ensure(
            base.mode() != Mode::Disabled || idle,
            "local APIC: not disabled",
        )?;
        for (which, bits) in Lvt::ALL.into_iter().zip(state.lvt) {
            let entry = LvtBits::from_bits(bits)
                .filter(|entry| {
                    (lvt_bits(config, which) - LvtBits::READ_ONLY).contains(*entry)
                        && (apic.spurious.contains(Spurious::ENABLED) || entry.masked())
                })
                .ok_or_else(invalid("local APIC: local vector table"))?;
            apic.lvt[which as usize] = entry;
        }
        apic.check_timer()?;
        apic.update();
        Ok(apic)
    }

    /// Refuses a timer that cannot be.
    fn check_timer(&self) -> Result<(), StateError> {
        let timer = &self.timer;
        let stopped = timer.deadline == Ticks::NEVER;
        let fits = match self.lvt[Lvt::Timer as usize].timer_mode() {
            TimerMode::OneShot | TimerMode::Periodic => stopped || timer.initial != 0,
            TimerMode::TscDeadline => timer.initial == 0,
            TimerMode::Reserved => timer.initial == 0 && stopped,
        };
        if fits && timer.divide & !DIVIDE_BITS == 0 {
            Ok(())
        } else {
            Err(StateError::Invalid("local APIC: timer"))
        }
    }
}
