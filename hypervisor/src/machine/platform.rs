//! What surrounds a vCPU during a run: its own interrupt state, the shared devices, the guest's clock.

mod apic;

use super::local::Local;
use super::origin::Origin;
use super::requests::Requests;
use super::{Glance, Machine, pvclock};
use crate::cpu;
use crate::guest::{ARRIVAL_NEAR, GuestHandle, TIMER_QUIET};
use core::sync::atomic::Ordering;
use devices::lapic::{Effect, Fault, receivers};
use devices::msi::Dispatch;
use devices::{Pc, Ticks};
use drivers::tsc;
use spin::MutexGuard;

/// The I/O APIC's page.
const IO_APIC_PAGE: u64 = 0xfec0_0000;
const PAGE_MASK: u64 = !0xfff;

/// A device that is mapped into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mapped {
    LocalApic,
    IoApic,
    /// A device on the PCI bus.
    Pci,
}

impl Glance {
    /// Notes what is to be seen without the lock; returns whether vCPU 0, which sees to it, must look.
    pub(super) fn update(&self, pc: &Pc) -> bool {
        let deadline = pc.next_deadline().unwrap_or(Ticks::NEVER).0;
        let interrupt = pc.interrupt_pending();
        let earlier = deadline < self.deadline.swap(deadline, Ordering::AcqRel);
        let rises = interrupt && !self.interrupt.swap(interrupt, Ordering::AcqRel);
        if !interrupt {
            self.interrupt.store(false, Ordering::Release);
        }
        earlier || rises
    }

    /// When the devices' next timer is due, in guest time.
    pub(super) fn deadline(&self) -> Ticks {
        Ticks(self.deadline.load(Ordering::Acquire))
    }

    /// Whether the 8259A pair asks for vCPU 0.
    pub(super) fn interrupt(&self) -> bool {
        self.interrupt.load(Ordering::Acquire)
    }
}

/// The surroundings of vCPU `index` while its owner deals with it.
pub(super) struct Platform<'a> {
    machine: &'static Machine,
    index: usize,
    local: &'a mut Local,
    /// The devices, as long as they are locked: with one vCPU all the time, else from their first use up to the next
    /// entry into the guest.
    devices: Option<MutexGuard<'static, Pc>>,
    origin: Origin,
    /// A vCPU of this guest that takes turns with this one on the same processor has something to do.
    pub(super) yields: bool,
}

impl<'a> Platform<'a> {
    pub(super) fn new(machine: &'static Machine, index: usize, local: &'a mut Local) -> Self {
        let devices = machine.is_uniprocessor().then(|| machine.devices.lock());
        Self {
            machine,
            index,
            local,
            devices,
            origin: machine.origin(),
            yields: false,
        }
    }

    /// The shared devices, locked until [`Platform::release`].
    #[inline(always)]
    pub(super) fn pc(&mut self) -> &mut Pc {
        self.devices
            .get_or_insert_with(|| self.machine.devices.lock())
    }

    /// Locks the devices unless another vCPU has them; returns whether they are locked now. An exit that can be had again
    /// does not wait for them: a more urgent guest on this processor comes in between.
    #[inline(always)]
    pub(super) fn try_lock(&mut self) -> bool {
        if self.devices.is_none() {
            self.devices = self.machine.devices.try_lock();
        }
        self.devices.is_some()
    }

    /// Locks the devices for an access, and returns its time: no access that waited for the lock comes before one that
    /// did not.
    #[inline(always)]
    pub(super) fn lock_for_access(&mut self) -> Ticks {
        self.pc();
        self.time(tsc::read())
    }

    /// Lets the guest's other vCPUs have the devices, before this one enters the guest.
    #[inline(always)]
    pub(super) fn release(&mut self) {
        if !self.machine.is_uniprocessor() && self.devices.is_some() {
            self.unlock();
        }
    }

    /// Unlocks devices that others look at.
    #[inline(never)]
    fn unlock(&mut self) {
        let Some(devices) = self.devices.take() else {
            return;
        };
        let look = self.machine.glance.update(&devices);
        drop(devices);
        if look && self.index != 0 {
            self.tell(0);
        }
    }

    /// Makes another vCPU's owner look at it.
    fn tell(&mut self, index: usize) {
        let vcpus = &self.machine.vcpus;
        if vcpus[index].cpu == vcpus[self.index].cpu {
            self.yields = true;
        } else {
            cpu::attend_vcpu(vcpus[index].cpu, self.machine.config.priority);
        }
    }

    /// Guest time of a TSC value of the board.
    #[inline(always)]
    pub(super) fn time(&self, tsc: u64) -> Ticks {
        self.origin.time(tsc)
    }

    /// Whether this vCPU sees to the shared devices' timers, console and interrupt line.
    #[inline(always)]
    fn tends_devices(&self) -> bool {
        self.index == 0
    }

    /// The board's TSC at which the next timer interrupts, or, of devices that are not locked, may have something to do.
    pub(super) fn next_timer(&self) -> Option<u64> {
        let Some(pc) = self.devices.as_ref().filter(|_| self.tends_devices()) else {
            return self.next_deadline();
        };
        let local = self.local.next_deadline().unwrap_or(Ticks::NEVER);
        let next = local.min(pc.next_tick());
        (next != Ticks::NEVER).then(|| self.origin.tsc(next))
    }

    /// The board's TSC at which the next timer is due.
    #[inline(always)]
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let pc = match &self.devices {
            _ if !self.tends_devices() => None,
            Some(pc) => pc.next_deadline(),
            None => {
                let at = self.machine.glance.deadline();
                (at != Ticks::NEVER).then_some(at)
            }
        };
        let next = match (pc, self.local.next_deadline()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        next.map(|at| self.origin.tsc(at))
    }

    /// Brings every timer that this vCPU sees to up to the board's TSC; those of the shared devices stay due while another
    /// vCPU has the devices.
    pub(super) fn expire(&mut self, tsc: u64) {
        let now = self.time(tsc);
        self.local.expire(now);
        if self.tends_devices()
            && (self.devices.is_some() || self.machine.glance.deadline() <= now)
            && self.try_lock()
        {
            let mut requests = Requests::new(self.machine);
            self.pc().expire(now, &mut requests);
            self.settle();
        }
    }

    /// Whether the 8259A pair asks for this vCPU.
    #[inline(always)]
    fn pic_pending(&self) -> bool {
        match &self.devices {
            _ if !self.tends_devices() => false,
            Some(pc) => pc.interrupt_pending(),
            None => self.machine.glance.interrupt(),
        }
    }

    /// Whether an interrupt or an NMI asks for the vCPU.
    #[inline(always)]
    pub(super) fn event_pending(&self) -> bool {
        self.interrupt_pending() || self.local.nmi_pending()
    }

    /// Whether an NMI asks for the vCPU.
    pub(super) fn nmi_pending(&self) -> bool {
        self.local.nmi_pending()
    }

    /// The vCPU takes the NMI.
    pub(super) fn acknowledge_nmi(&mut self) {
        self.local.acknowledge_nmi();
    }

    /// Whether an INIT waits for the vCPU.
    pub(super) fn init_pending(&self) -> bool {
        self.local.init_pending()
    }

    /// Whether an interrupt asks for the vCPU.
    #[inline(always)]
    pub(super) fn interrupt_pending(&self) -> bool {
        self.local.interrupt_pending(self.pic_pending())
    }

    /// The vCPU takes the interrupt: its vector.
    pub(super) fn acknowledge(&mut self) -> u8 {
        if self.pic_pending() && self.local.extint_enabled() {
            return self.pc().acknowledge();
        }
        match self.local.acknowledge() {
            Some(vector) => vector,
            // No local APIC, and the line fell meanwhile: the pair says "spurious" by itself.
            None => self.pc().acknowledge(),
        }
    }

    /// Takes the devices' messages to the local APICs: to be called after whatever can move a line.
    #[inline(always)]
    pub(super) fn settle(&mut self) {
        if let Some(pc) = &mut self.devices
            && let Some(message) = pc.take_message()
        {
            self.deliver_messages(message);
        }
    }

    #[cold]
    #[inline(never)]
    fn deliver_messages(&mut self, first: Dispatch) {
        let mut next = Some(first);
        while let Some(dispatch) = next {
            self.deliver(dispatch, false);
            next = self.pc().take_message();
        }
    }

    /// Takes a message, the vCPU's own or a device's, to whom it is for.
    fn deliver(&mut self, dispatch: Dispatch, own: bool) {
        let machine = self.machine;
        if machine.is_uniprocessor() {
            if self.local.address().matches(dispatch.destination, own) {
                self.local.accept(dispatch.message);
            }
            return;
        }
        let addresses = machine.vcpus.iter().map(|vcpu| vcpu.mailbox.address());
        for index in receivers(dispatch, own.then_some(self.index), addresses) {
            if index == self.index {
                self.local.accept(dispatch.message);
            } else {
                machine.vcpus[index].mailbox.post(dispatch.message);
                self.tell(index);
            }
        }
    }

    fn apply(&mut self, effect: Option<Effect>) {
        match effect {
            None => {}
            Some(Effect::Address) => {
                let mailbox = &self.machine.vcpus[self.index].mailbox;
                mailbox.set_address(self.local.address());
            }
            Some(Effect::Ipi(dispatch)) => self.deliver(dispatch, true),
            Some(Effect::EndOfInterrupt(vector)) => {
                self.pc().end_of_interrupt(vector);
                self.settle();
            }
        }
    }

    /// A read of one of the local APIC's MSRs.
    ///
    /// # Errors
    ///
    /// [`Fault`] where the MSR does not exist, for want of a local APIC perhaps.
    pub(super) fn read_msr(&mut self, msr: u32, tsc: u64) -> Result<u64, Fault> {
        let now = self.time(tsc);
        self.local.read_msr(msr, now)
    }

    /// A write of one of the local APIC's MSRs.
    ///
    /// # Errors
    ///
    /// [`Fault`] where the MSR does not exist or does not take the value.
    pub(super) fn write_msr(&mut self, msr: u32, value: u64, tsc: u64) -> Result<(), Fault> {
        let now = self.time(tsc);
        let effect = self.local.write_msr(msr, value, now)?;
        self.apply(effect);
        Ok(())
    }

    /// The guest's TSC.
    pub(super) fn guest_tsc(&self, tsc: u64) -> u64 {
        self.time(tsc).0.wrapping_add(self.local.tsc_adjust())
    }

    /// The guest sets its TSC; returns what must be added to the board's for the guest to read it.
    pub(super) fn set_guest_tsc(&mut self, value: u64, tsc: u64) -> u64 {
        let now = self.time(tsc);
        self.local.set_tsc(value, now);
        // Where the clock is was checked as the guest said it.
        self.write_system_time(tsc);
        self.local.tsc_adjust().wrapping_add(self.origin.offset())
    }

    /// A read of one of the paravirtual clock's MSRs; `None` where there is no such clock.
    pub(super) fn read_clock_msr(&self, msr: u32) -> Option<u64> {
        self.machine.has_paravirtual_clock().then(|| {
            if msr == pvclock::SYSTEM_TIME {
                self.local.system_time()
            } else {
                0
            }
        })
    }

    /// A write of one of the paravirtual clock's MSRs; whether there is such a clock and memory where the guest wants it.
    pub(super) fn write_clock_msr(&mut self, msr: u32, value: u64, tsc: u64) -> bool {
        let machine = self.machine;
        if !machine.has_paravirtual_clock() {
            return false;
        }
        if msr != pvclock::SYSTEM_TIME {
            let seconds = machine.board.wall_clock(self.origin.0);
            return pvclock::write_wall_clock(&machine.memory, value, seconds).is_ok();
        }
        let before = self.local.system_time();
        self.local.set_system_time(value);
        let written = self.write_system_time(tsc);
        if !written {
            self.local.set_system_time(before);
        }
        written
    }

    /// Brings the vCPU's paravirtual clock up to date; whether there is memory where it is.
    fn write_system_time(&self, tsc: u64) -> bool {
        let machine = self.machine;
        pvclock::write_system_time(
            &machine.memory,
            self.local.system_time(),
            machine.clock_hz(),
            self.guest_tsc(tsc),
            self.time(tsc),
        )
        .is_ok()
    }

    /// CR8, the task priority.
    pub(super) fn cr8(&self) -> u64 {
        self.local.cr8()
    }

    /// A write of CR8.
    pub(super) fn set_cr8(&mut self, value: u8) {
        self.local.set_cr8(value);
    }

    /// The device that is mapped at a guest-physical address.
    pub(super) fn mapped(&mut self, physical: u64) -> Option<Mapped> {
        let apic = self.local.page();
        match physical & PAGE_MASK {
            page if apic == Some(page) => Some(Mapped::LocalApic),
            IO_APIC_PAGE if self.machine.has_apics() => Some(Mapped::IoApic),
            _ => self.pc().mapped(physical).then_some(Mapped::Pci),
        }
    }

    /// A read of `size` bytes from a mapped device. An APIC's registers are 32 bits wide; a smaller access
    /// sees a part of one, a larger one sees nothing behind it.
    pub(super) fn mapped_read(
        &mut self,
        device: Mapped,
        physical: u64,
        size: u32,
        tsc: u64,
    ) -> u64 {
        let offset = (physical & !PAGE_MASK) as u16;
        let now = self.time(tsc);
        let word = offset & !3;
        let value = match device {
            Mapped::LocalApic => self.local.mmio_read(word, now),
            Mapped::IoApic => self.pc().io_apic_read(word),
            Mapped::Pci => return self.pc().memory_read(physical, size, now),
        };
        u64::from(value >> (8 * (offset & 3)))
    }

    /// A write to a mapped device. Only whole registers of an APIC can be written.
    pub(super) fn mapped_write(
        &mut self,
        device: Mapped,
        physical: u64,
        size: u32,
        value: u64,
        tsc: u64,
    ) {
        let offset = (physical & !PAGE_MASK) as u16;
        let now = self.time(tsc);
        let whole = size >= 4 && offset.is_multiple_of(4);
        match device {
            Mapped::LocalApic | Mapped::IoApic if !whole => {}
            Mapped::LocalApic => {
                let effect = self.local.mmio_write(offset, value as u32, now);
                self.apply(effect);
            }
            Mapped::IoApic => {
                self.pc().io_apic_write(offset, value as u32);
                self.settle();
            }
            Mapped::Pci => {
                self.pc().memory_write(physical, size, value, now);
                self.settle();
            }
        }
    }

    /// Shows the guest's network cards what has come for them.
    #[inline(always)]
    fn feed_network(&mut self, guest: &GuestHandle) {
        if guest.network_waits() {
            self.take_arrivals(guest);
        }
    }

    /// A card has room for frames that wait.
    #[cold]
    pub(super) fn room_made(&mut self, guest: &GuestHandle) {
        if guest.urgent {
            self.look_later();
        } else {
            self.feed_network(guest);
        }
    }

    /// Looks at the network if the board's TSC says that it is time.
    #[inline(always)]
    pub(super) fn look(&mut self, guest: &GuestHandle, now: u64) {
        if now >= self.local.look_at {
            self.local.look_at = u64::MAX;
            self.publish_tick(guest);
            self.feed_network(guest);
        }
    }

    /// Looks at the network of a vCPU that is halted: that of an urgent guest has time, unless it has an interrupt to see to.
    #[inline(always)]
    pub(super) fn look_while_halted(&mut self, guest: &GuestHandle, now: u64) {
        if !guest.urgent {
            self.local.look_at = u64::MAX;
            return self.feed_network(guest);
        }
        if self.event_pending() {
            return;
        }
        self.look(guest, now);
        if guest.network_waits() && !guest.is_about_due(now, ARRIVAL_NEAR) {
            self.take_arrivals(guest);
        }
    }

    /// The board's TSC at which the owner must look at the network.
    #[inline(always)]
    pub(super) const fn look_at(&self) -> u64 {
        self.local.look_at
    }

    /// An interrupt was delivered: the network of an urgent guest waits until that is seen to.
    #[inline(always)]
    pub(super) fn note_delivery(&mut self, now: u64) {
        if self.machine.handle.urgent {
            self.local.look_at = now + TIMER_QUIET;
        }
    }

    /// When, in the board's TSC, the interrupt was delivered that an urgent guest is just seeing to, if there is one.
    pub(super) fn seen_to(&self, now: u64) -> Option<u64> {
        let left = self.local.look_at.checked_sub(now)?;
        (1..=TIMER_QUIET)
            .contains(&left)
            .then(|| self.local.look_at - TIMER_QUIET)
    }

    /// Tells those who have frames for an urgent guest when its next timer is due. Only the shared devices' timers are heeded.
    fn publish_tick(&mut self, guest: &GuestHandle) {
        if guest.urgent
            && self.tends_devices()
            && let Some(pc) = &self.devices
        {
            guest.set_timer(match pc.next_tick() {
                Ticks::NEVER => 0,
                tick => self.origin.tsc(tick),
            });
        }
    }

    /// Looks at the network once what the guest is at can be done.
    pub(super) fn look_later(&mut self) {
        self.local.look_at = self.local.look_at.min(tsc::read() + TIMER_QUIET);
    }

    #[cold]
    #[inline(never)]
    fn take_arrivals(&mut self, guest: &GuestHandle) {
        if !self.try_lock() {
            // Another vCPU has the devices, for long perhaps.
            return self.look_later();
        }
        // What comes from here on is noted anew.
        guest.take_network();
        self.local.look_at = u64::MAX;
        let machine = self.machine;
        let now = self.time(tsc::read());
        let mut requests = Requests::new(machine);
        if machine.network.feed(self.pc(), now, &mut requests) {
            guest.note_network();
            self.look_later();
            if !self.tends_devices() {
                self.tell(0);
            }
        }
        self.settle();
    }

    /// Gives the guest typed bytes as far as it has room.
    pub(super) fn feed_console(&mut self, guest: &GuestHandle) {
        if !guest.input_waits() {
            return;
        }
        let mut bytes = [0; 64];
        let room = self.pc().console_room().min(bytes.len());
        let count = guest.take_input(&mut bytes[..room]);
        let now = self.time(tsc::read());
        let mut requests = Requests::new(self.machine);
        self.pc().console_input(&bytes[..count], now, &mut requests);
        self.settle();
    }
}

impl Drop for Platform<'_> {
    fn drop(&mut self) {
        // Nobody but the one vCPU looks at the devices, and never without locking them.
        if !self.machine.is_uniprocessor() {
            self.unlock();
        }
    }
}
