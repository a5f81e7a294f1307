//! Accesses to the registers: the xAPIC page and the MSRs.

use super::address::wide_logical;
use super::base::Base;
use super::command::Command;
use super::lvt::{Lvt, LvtBits, TimerMode};
use super::register::{Errors, Register, Spurious, VERSION};
use super::timer::DIVIDE_BITS;
use super::{Effect, Fault, LocalApic, LocalApicConfig, Mode};
use crate::time::Ticks;

/// IA32_APIC_BASE.
const MSR_BASE: u32 = 0x1B;
/// IA32_TSC_DEADLINE.
const MSR_TSC_DEADLINE: u32 = 0x6E0;
/// The registers of an x2APIC.
const MSR_FIRST: u32 = 0x800;
const MSR_LAST: u32 = 0x8FF;

impl LocalApic {
    /// A 32-bit read at `offset` in the page.
    ///
    /// Only multiples of 16 are registers; the rest of the page is reserved (SDM 11.4.1). A caller takes a smaller
    /// access out of the 32 bits around it.
    #[inline]
    pub fn mmio_read(&mut self, offset: u16, now: Ticks) -> u32 {
        match in_page(offset) {
            _ if self.mode() != Mode::XApic => u32::MAX,
            Some(register) => self.read(register, now),
            None => {
                let _ = self.raise(Errors::ILLEGAL_REGISTER);
                0
            }
        }
    }

    /// A 32-bit write at `offset` in the page.
    #[inline]
    pub fn mmio_write(&mut self, offset: u16, value: u32, now: Ticks) -> Option<Effect> {
        match in_page(offset) {
            _ if self.mode() != Mode::XApic => None,
            Some(register) => self.write(register, value, now),
            None => {
                let _ = self.raise(Errors::ILLEGAL_REGISTER);
                None
            }
        }
    }

    /// A read of an MSR: IA32_APIC_BASE, IA32_TSC_DEADLINE or one from 800H to 8FFH.
    ///
    /// # Errors
    ///
    /// The read faults, as does that of any other MSR.
    #[inline]
    pub fn read_msr(&mut self, msr: u32, now: Ticks) -> Result<u64, Fault> {
        match msr {
            MSR_FIRST..=MSR_LAST => {
                let register = self.as_msr(msr)?;
                if !wide_readable(register) {
                    return Err(Fault);
                }
                let value = u64::from(self.read(register, now));
                if register == Register::Command {
                    return Ok(value | u64::from(self.command_destination) << 32);
                }
                Ok(value)
            }
            MSR_BASE => Ok(self.base.value()),
            MSR_TSC_DEADLINE if self.config.tsc_deadline => {
                self.expire(now);
                Ok(self.tsc_deadline())
            }
            _ => Err(Fault),
        }
    }

    /// A write of an MSR: IA32_APIC_BASE, IA32_TSC_DEADLINE or one from 800H to 8FFH.
    ///
    /// # Errors
    ///
    /// The write faults and does nothing, as does that of any other MSR.
    #[inline]
    pub fn write_msr(&mut self, msr: u32, value: u64, now: Ticks) -> Result<Option<Effect>, Fault> {
        match msr {
            MSR_TSC_DEADLINE if self.config.tsc_deadline => {
                self.set_tsc_deadline(value, now);
                Ok(None)
            }
            MSR_FIRST..=MSR_LAST => {
                let register = self.as_msr(msr)?;
                let writable = self.wide_writable(register).ok_or(Fault)?;
                if value & !writable != 0 {
                    return Err(Fault);
                }
                if register == Register::Command {
                    self.command_destination = (value >> 32) as u32;
                }
                Ok(self.write(register, value as u32, now))
            }
            MSR_BASE => self.set_base(value),
            _ => Err(Fault),
        }
    }

    /// The register that an MSR is, in x2APIC mode.
    #[inline]
    fn as_msr(&self, msr: u32) -> Result<Register, Fault> {
        if self.mode() != Mode::X2Apic {
            return Err(Fault);
        }
        Register::decode((msr - MSR_FIRST) as u8).ok_or(Fault)
    }

    /// The bits that may be set in a write to a register in x2APIC mode; `None` if it may not be written. Read-only
    /// bits beside writable ones are ignored, so that what was read can be written.
    #[inline]
    fn wide_writable(&self, register: Register) -> Option<u64> {
        Some(match register {
            Register::EndOfInterrupt | Register::ErrorStatus => 0,
            Register::TaskPriority | Register::SelfIpi => 0xFF,
            Register::Command => u64::from(Command::all().bits()) | 0xFFFF_FFFF << 32,
            Register::InitialCount => 0xFFFF_FFFF,
            Register::Divide => u64::from(DIVIDE_BITS),
            Register::Spurious => u64::from(Spurious::all().bits()),
            Register::Lvt(which) => u64::from(lvt_bits(self.config, which).bits()),
            _ => return None,
        })
    }

    #[inline]
    fn read(&mut self, register: Register, now: Ticks) -> u32 {
        let wide = self.mode() == Mode::X2Apic;
        match register {
            Register::TaskPriority => u32::from(self.task_priority),
            Register::ProcessorPriority => u32::from(self.priority),
            Register::Request(index) => {
                self.expire(now);
                self.requests.register(index)
            }
            Register::InService(index) => self.in_service.register(index),
            Register::TriggerMode(index) => self.levels.register(index),
            Register::CurrentCount => {
                self.expire(now);
                self.timer.count(now)
            }
            Register::Command => self.command.bits(),
            Register::CommandHigh => self.command_destination,
            Register::Id if wide => self.config.id,
            Register::Id => self.config.id << 24,
            Register::Version => VERSION,
            Register::LogicalDestination if wide => wide_logical(self.config.id),
            Register::LogicalDestination => u32::from(self.logical) << 24,
            Register::DestinationFormat => u32::from(self.format) << 28 | 0x0FFF_FFFF,
            Register::Spurious => self.spurious.bits(),
            Register::ErrorStatus => u32::from(self.errors.bits()),
            Register::Lvt(which) => self.lvt[which as usize].bits(),
            Register::InitialCount => self.timer.initial,
            Register::Divide => u32::from(self.timer.divide),
            Register::ArbitrationPriority
            | Register::EndOfInterrupt
            | Register::RemoteRead
            | Register::SelfIpi => 0,
        }
    }

    #[inline]
    fn write(&mut self, register: Register, value: u32, now: Ticks) -> Option<Effect> {
        match register {
            Register::EndOfInterrupt => return self.end_of_interrupt(),
            Register::Command => return self.send(value),
            Register::CommandHigh => self.command_destination = value & 0xFF00_0000,
            Register::TaskPriority => self.set_task_priority(value as u8),
            Register::SelfIpi => self.send_to_self(value as u8),
            Register::InitialCount => {
                self.expire(now);
                if self.timer_mode().counts() {
                    self.timer.start(value, now);
                }
            }
            Register::Divide => {
                self.expire(now);
                self.timer.set_divide(value as u8, self.timer_mode(), now);
            }
            Register::Lvt(which) => {
                self.expire(now);
                self.set_lvt(which, value);
            }
            Register::Spurious => {
                self.expire(now);
                self.set_spurious(value);
                return Some(Effect::Address);
            }
            Register::LogicalDestination => {
                self.logical = (value >> 24) as u8;
                return Some(Effect::Address);
            }
            Register::DestinationFormat => {
                self.format = (value >> 28) as u8;
                return Some(Effect::Address);
            }
            Register::ErrorStatus => {
                self.errors = self.new_errors;
                self.new_errors = Errors::empty();
            }
            Register::Id
            | Register::Version
            | Register::ArbitrationPriority
            | Register::ProcessorPriority
            | Register::RemoteRead
            | Register::InService(_)
            | Register::TriggerMode(_)
            | Register::Request(_)
            | Register::CurrentCount => {}
        }
        None
    }

    fn timer_mode(&self) -> TimerMode {
        self.lvt[Lvt::Timer as usize].timer_mode()
    }

    /// Writes an entry of the local vector table; it stays masked while disabled by software (SDM 11.4.7.2).
    fn set_lvt(&mut self, which: Lvt, value: u32) {
        let mut entry = LvtBits::from_bits_truncate(value) & lvt_bits(self.config, which);
        entry.remove(LvtBits::READ_ONLY);
        if !self.spurious.contains(Spurious::ENABLED) {
            entry |= LvtBits::MASKED;
        }
        if which == Lvt::Timer {
            self.timer
                .change_mode(self.timer_mode(), entry.timer_mode());
        }
        self.lvt[which as usize] = entry;
    }

    /// Writes the spurious-interrupt vector register; to disable masks the local vector table.
    fn set_spurious(&mut self, value: u32) {
        self.spurious = Spurious::from_bits_truncate(value);
        if !self.spurious.contains(Spurious::ENABLED) {
            for entry in &mut self.lvt {
                *entry |= LvtBits::MASKED;
            }
        }
    }

    /// Writes IA32_APIC_BASE. Disabled, the registers lose what they held.
    fn set_base(&mut self, value: u64) -> Result<Option<Effect>, Fault> {
        let config = self.config;
        let to = Base::decode(value, config.physical_bits, config.x2apic)?;
        let from = self.base.mode();
        self.base = self.base.change(to)?;
        match (from, to.mode()) {
            (Mode::XApic | Mode::X2Apic, Mode::Disabled) => self.init(),
            (Mode::XApic, Mode::X2Apic) => {
                self.command_destination = 0;
                self.logical = 0;
                self.format = 0xF;
            }
            _ => {}
        }
        Ok(Some(Effect::Address))
    }

    /// IA32_TSC_DEADLINE: 0 when disarmed and in other modes.
    fn tsc_deadline(&self) -> u64 {
        let deadline = self.timer.deadline;
        if self.timer_mode() == TimerMode::TscDeadline && deadline != Ticks::NEVER {
            deadline.0
        } else {
            0
        }
    }

    /// Writes IA32_TSC_DEADLINE, which other modes ignore; 0 disarms. A deadline that has passed is due at once.
    fn set_tsc_deadline(&mut self, value: u64, now: Ticks) {
        if self.timer_mode() != TimerMode::TscDeadline {
            return;
        }
        self.expire(now);
        self.timer.deadline = if value == 0 {
            Ticks::NEVER
        } else {
            Ticks(value)
        };
        self.expire(now);
    }
}

/// The register at an offset in the page. The self-IPI register is for x2APIC mode only.
#[inline]
fn in_page(offset: u16) -> Option<Register> {
    if offset & 0xF00F != 0 {
        return None;
    }
    Register::decode((offset >> 4) as u8).filter(|register| *register != Register::SelfIpi)
}

/// Whether a register can be read in x2APIC mode.
#[inline]
const fn wide_readable(register: Register) -> bool {
    !matches!(
        register,
        Register::EndOfInterrupt
            | Register::SelfIpi
            | Register::ArbitrationPriority
            | Register::RemoteRead
            | Register::DestinationFormat
            | Register::CommandHigh
    )
}

/// The bits that an entry of the local vector table has.
pub(super) fn lvt_bits(config: LocalApicConfig, which: Lvt) -> LvtBits {
    let mut bits = which.bits();
    if which == Lvt::Timer && !config.tsc_deadline {
        bits.remove(LvtBits::from_bits_retain(1 << 18));
    }
    bits
}
