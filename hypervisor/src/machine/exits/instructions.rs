//! The instructions that exit, done for the guest: ports, CPUID, MSRs, control registers.

use super::super::crash::Crash;
use super::super::requests::Requests;
use super::super::string_io;
use super::{Context, End};
use crate::cpuid::Live;
use crate::msrs;
use devices::lapic::Fault;
use drivers::tsc;
use vcpu::{Active, ControlRegisterAccess, Direction, Event, IoAccess, RareExit};

/// The guest uses XSAVE.
const CR4_OSXSAVE: u64 = 1 << 18;

impl Context<'_> {
    #[inline(always)]
    pub(super) fn io(
        &mut self,
        active: &mut impl Active,
        access: IoAccess,
    ) -> Result<Option<End>, Crash> {
        let now = self.platform.lock_for_access();
        let width = device_width(access.width());
        let mut requests = Requests::new(self.machine);
        match access.direction() {
            Direction::In => {
                let value = self
                    .platform
                    .pc()
                    .read(access.port(), width, now, &mut requests);
                let rax = &mut active.gprs_mut().rax;
                *rax = match access.width() {
                    vcpu::Width::Byte => *rax & !0xff | u64::from(value & 0xff),
                    vcpu::Width::Word => *rax & !0xffff | u64::from(value & 0xffff),
                    vcpu::Width::Dword => u64::from(value),
                };
            }
            Direction::Out => {
                let value = active.gprs().rax as u32;
                self.platform
                    .pc()
                    .write(access.port(), width, value, now, &mut requests);
            }
        }
        self.platform.settle();
        active.skip_instruction()?;
        if may_take_input(access.port()) {
            self.platform.feed_console(self.machine.handle);
        }
        if requests.made_room() {
            self.platform.room_made(self.machine.handle);
            self.limit = self.limit.min(self.platform.look_at());
        }
        Ok(requests.end())
    }

    #[inline(always)]
    pub(super) fn cpuid(&mut self, active: &mut impl Active) -> Result<(), Crash> {
        let (leaf, sub_leaf) = (active.gprs().rax as u32, active.gprs().rcx as u32);
        let [eax, ebx, ecx, edx] = self
            .machine
            .cpuid
            .get(leaf, sub_leaf, || live_state(active, self.index));
        let gprs = active.gprs_mut();
        gprs.rax = u64::from(eax);
        gprs.rbx = u64::from(ebx);
        gprs.rcx = u64::from(ecx);
        gprs.rdx = u64::from(edx);
        Ok(active.skip_instruction()?)
    }

    pub(super) fn read_msr(&mut self, active: &mut impl Active) -> Result<(), Crash> {
        let value = match msrs::read(active.gprs().rcx as u32) {
            msrs::Read::Value(value) => value,
            msrs::Read::Tsc => self.platform.guest_tsc(tsc::read()),
            msrs::Read::Efer => active.paging()?.efer,
            msrs::Read::LocalApic => {
                let msr = active.gprs().rcx as u32;
                match self.platform.read_msr(msr, tsc::read()) {
                    Ok(value) => value,
                    Err(Fault) => return Ok(active.inject(Event::GENERAL_PROTECTION)?),
                }
            }
            msrs::Read::Clock => {
                let Some(value) = self.platform.read_clock_msr(active.gprs().rcx as u32) else {
                    return Ok(active.inject(Event::GENERAL_PROTECTION)?);
                };
                value
            }
            msrs::Read::Fault => {
                self.statistics.unknown_msrs += 1;
                return Ok(active.inject(Event::GENERAL_PROTECTION)?);
            }
        };
        let gprs = active.gprs_mut();
        gprs.rax = value & 0xffff_ffff;
        gprs.rdx = value >> 32;
        Ok(active.skip_instruction()?)
    }

    pub(super) fn write_msr(&mut self, active: &mut impl Active) -> Result<(), Crash> {
        let gprs = active.gprs();
        let value = (gprs.rdx << 32) | (gprs.rax & 0xffff_ffff);
        let accepted = match msrs::write(gprs.rcx as u32, value) {
            msrs::Write::Ignore => true,
            msrs::Write::Tsc => {
                let offset = self.platform.set_guest_tsc(value, tsc::read());
                active.set_tsc_offset(offset)?;
                true
            }
            msrs::Write::Efer => active.write_efer(value)?,
            msrs::Write::LocalApic => {
                let msr = active.gprs().rcx as u32;
                let mode = msrs::sets_apic_mode(msr);
                if mode {
                    self.take_apic(active)?;
                }
                let accepted = self.platform.write_msr(msr, value, tsc::read()).is_ok();
                if mode {
                    self.lend_apic(active)?;
                }
                accepted
            }
            msrs::Write::Clock => {
                let msr = active.gprs().rcx as u32;
                self.platform.write_clock_msr(msr, value, tsc::read())
            }
            msrs::Write::Fault => {
                self.statistics.unknown_msrs += 1;
                false
            }
        };
        if accepted {
            Ok(active.skip_instruction()?)
        } else {
            Ok(active.inject(Event::GENERAL_PROTECTION)?)
        }
    }

    #[cold]
    pub(super) fn string_io(
        &mut self,
        active: &mut impl Active,
        access: IoAccess,
    ) -> Result<Option<End>, Crash> {
        let now = self.platform.lock_for_access();
        let mut requests = Requests::new(self.machine);
        string_io::step(
            active,
            access,
            &self.machine.memory,
            self.platform.pc(),
            now,
            &mut requests,
        )?;
        self.platform.settle();
        Ok(requests.end())
    }

    /// XSETBV, which may exit before the processor has looked whether it is allowed at all.
    pub(super) fn set_xcr(&mut self, active: &mut impl Active) -> Result<(), Crash> {
        let gprs = active.gprs();
        let value = (gprs.rdx << 32) | (gprs.rax & 0xffff_ffff);
        let register = gprs.rcx as u32;
        if active.paging()?.cr4 & CR4_OSXSAVE == 0 {
            return Ok(active.inject(Event::INVALID_OPCODE)?);
        }
        if active.privilege_level()? != 0 || register != 0 || !active.write_xcr0(value) {
            return Ok(active.inject(Event::GENERAL_PROTECTION)?);
        }
        Ok(active.skip_instruction()?)
    }

    pub(super) fn control_register(
        &mut self,
        active: &mut impl Active,
        access: ControlRegisterAccess,
    ) -> Result<(), Crash> {
        let unexpected = Crash::Unexpected(RareExit::ControlRegister(access));
        let accepted = match access {
            ControlRegisterAccess::Write { register: 8, gpr } => {
                let value = active.gpr(gpr)?;
                let valid = value <= 0xf;
                if valid {
                    self.platform.set_cr8(value as u8);
                }
                valid
            }
            ControlRegisterAccess::Read { register: 8, gpr } => {
                active.set_gpr(gpr, self.platform.cr8())?;
                true
            }
            ControlRegisterAccess::Read { register: 4, gpr } => {
                active.set_gpr(gpr, active.paging()?.cr4)?;
                true
            }
            ControlRegisterAccess::Write { register, gpr } => {
                let written = active.write_control_register(register, active.gpr(gpr)?)?;
                written.ok_or(unexpected)?
            }
            // CR3, CLTS and LMSW touch nothing that the guest does not own alone.
            _ => return Err(unexpected),
        };
        if accepted {
            Ok(active.skip_instruction()?)
        } else {
            Ok(active.inject(Event::GENERAL_PROTECTION)?)
        }
    }
}

pub(in super::super) fn device_width(width: vcpu::Width) -> devices::Width {
    match width {
        vcpu::Width::Byte => devices::Width::Byte,
        vcpu::Width::Word => devices::Width::Word,
        vcpu::Width::Dword => devices::Width::Dword,
    }
}

/// Whether the guest may have room for what is typed after an access to this port: COM1's, or a device's on the PCI bus.
const fn may_take_input(port: u16) -> bool {
    port & !7 == 0x3f8 || port >= 0x1000
}

#[cold]
fn live_state(active: &impl Active, index: u32) -> Live {
    let osxsave = active
        .paging()
        .is_ok_and(|paging| paging.cr4 & CR4_OSXSAVE != 0);
    Live {
        osxsave,
        xcr0: active.xcr0(),
        apic_id: index,
    }
}
