//! virtio-net by PCI (virtio 1.2, 4.1 and 5.1): two queues of split rings, and INTx.

use core::sync::atomic::{AtomicBool, Ordering};

use rtos::net::{
    FRAME_MAX, Mac,
    pci::{self, Region, Structures},
    virtqueue::{Buffer, Queue, Ring},
};

use super::{
    ethernet::{Ethernet, Fault},
    wake,
};
use crate::{
    machine::{
        pci::{Function, find},
        pic,
        registers::Registers,
        shared::Late,
    },
    system,
};

const VENDOR: u16 = 0x1af4;
/// A device of version 1, and one that can be older as well.
const DEVICES: [u16; 2] = [0x1041, 0x1000];

/// Frames that the card can hold for us.
const TO_RECEIVE: usize = 32;
/// Frames that can be under way.
const TO_SEND: usize = 16;
const RECEIVE: u16 = 0;
const SEND: u16 = 1;

static RECEIVE_RING: Ring<TO_RECEIVE> = Ring::new();
static RECEIVE_BUFFERS: [Buffer; TO_RECEIVE] = [const { Buffer::new() }; TO_RECEIVE];
static SEND_RING: Ring<TO_SEND> = Ring::new();
static SEND_BUFFERS: [Buffer; TO_SEND] = [const { Buffer::new() }; TO_SEND];
/// Where the interrupt's cause is read, which also takes the interrupt back.
static CAUSE: Late<Region> = Late::new();

/// Whether the card has said that something about it has changed.
static CHANGED: AtomicBool = AtomicBool::new(false);
/// In the cause: of the configuration.
const CAUSE_CHANGED: u8 = 2;

/// Offsets in the common configuration (4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: u16 = 0x00;
    pub(super) const DEVICE_FEATURE: u16 = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: u16 = 0x08;
    pub(super) const DRIVER_FEATURE: u16 = 0x0c;
    pub(super) const DEVICE_STATUS: u16 = 0x14;
    pub(super) const QUEUE_SELECT: u16 = 0x16;
    pub(super) const QUEUE_SIZE: u16 = 0x18;
    pub(super) const QUEUE_ENABLE: u16 = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFF: u16 = 0x1e;
    pub(super) const QUEUE_ADDRESSES: u16 = 0x20;
}

/// Bits of the device status (2.1).
mod status {
    pub(super) const ACKNOWLEDGE: u8 = 1;
    pub(super) const DRIVER: u8 = 2;
    pub(super) const DRIVER_OK: u8 = 4;
    pub(super) const FEATURES_OK: u8 = 8;
    pub(super) const NEEDS_RESET: u8 = 64;
}

/// The card has an address of its own (5.1.3).
const FEATURE_MAC: u32 = 1 << 5;
/// Version 1, in the second double word of features (6).
const FEATURE_VERSION_1: u32 = 1 << 0;
/// A reset takes no longer, in ticks.
const RESET_LIMIT: u32 = 100;

/// The card at work.
pub(crate) struct VirtioNet {
    structures: Structures,
    mac: Mac,
    receive: Queue<'static, TO_RECEIVE>,
    send: Queue<'static, TO_SEND>,
    /// Of the two queues.
    doorbells: [Registers; 2],
    /// Whether it has come up since it was last reset.
    is_up: bool,
    faults: u32,
    last_fault: Option<Fault>,
}

/// The first such card, if there is one.
pub(crate) fn search() -> Option<Function> {
    find(|vendor, device| vendor == VENDOR && DEVICES.contains(&device))
}

impl VirtioNet {
    /// Starts a card; its interrupt line.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(crate) fn start(function: Function) -> Result<(Self, u8), Fault> {
        let structures = Structures::find(&function)?;
        let line = pci::interrupt_line(&function)?;
        function.enable();
        let (receive, send, doorbells) = bring_up(&structures)?;
        let registers = Registers(structures.device);
        let mut at = 0;
        let mac = [0; 6].map(|_: u8| {
            at += 1;
            registers.read8(at - 1)
        });
        let mut card = Self {
            structures,
            mac,
            receive,
            send,
            doorbells,
            is_up: true,
            faults: 0,
            last_fault: None,
        };
        CAUSE.set(structures.isr);
        pic::set_level(line);
        pic::connect(line, interrupt);
        card.go();
        Ok((card, line))
    }

    /// Lends all buffers, and tells the card that everything is ready.
    fn go(&mut self) {
        while let Some(descriptor) = self.receive.free() {
            self.lend(descriptor);
        }
        let registers = Registers(self.structures.common);
        let ready = registers.read8(common::DEVICE_STATUS) | status::DRIVER_OK;
        registers.write8(common::DEVICE_STATUS, ready);
        self.show_buffers();
    }

    /// Lends the card the buffer of a descriptor.
    fn lend(&mut self, descriptor: u16) {
        if let Some(buffer) = RECEIVE_BUFFERS.get(usize::from(descriptor)) {
            let address = buffer.address() as u32;
            self.receive.lend(descriptor, address, Buffer::LENGTH, true);
        }
    }

    fn show_buffers(&mut self) {
        if self.receive.publish() {
            self.doorbells[0].write16(0, RECEIVE);
        }
    }

    /// Takes back what was sent.
    fn reclaim(&mut self) {
        while self.is_up {
            match self.send.take() {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(defect) => return self.break_down(Fault::Rules(defect)),
            }
        }
    }

    /// Begins anew with a card that cannot be relied on. If that fails, it keeps silent.
    fn break_down(&mut self, fault: Fault) {
        self.faults += 1;
        self.last_fault = Some(fault);
        match bring_up(&self.structures) {
            Ok((receive, send, doorbells)) => {
                (self.receive, self.send, self.doorbells) = (receive, send, doorbells);
                self.go();
            }
            Err(fault) => {
                self.is_up = false;
                self.last_fault = Some(fault);
            }
        }
    }
}

impl Ethernet for VirtioNet {
    fn mac(&self) -> Mac {
        self.mac
    }

    fn can_send(&mut self) -> bool {
        self.reclaim();
        self.is_up && self.send.free().is_some()
    }

    fn send(&mut self, frame: &[u8]) {
        let Some(descriptor) = self.send.free() else {
            return;
        };
        if let Some(buffer) = SEND_BUFFERS.get(usize::from(descriptor)) {
            let length = buffer.write(frame);
            self.send
                .lend(descriptor, buffer.address() as u32, length, false);
            if self.send.publish() {
                self.doorbells[1].write16(0, SEND);
            }
        }
    }

    fn receive(&mut self, frame: &mut [u8; FRAME_MAX]) -> Option<usize> {
        if CHANGED.swap(false, Ordering::Relaxed) {
            let status = Registers(self.structures.common).read8(common::DEVICE_STATUS);
            if status & status::NEEDS_RESET != 0 {
                self.break_down(Fault::NeedsReset);
            }
        }
        // As many as there are at most, of which some may be no frames.
        for _ in 0..TO_RECEIVE {
            if !self.is_up {
                return None;
            }
            match self.receive.take() {
                Ok(Some(done)) => {
                    let buffer = RECEIVE_BUFFERS.get(usize::from(done.descriptor));
                    let length = buffer.and_then(|buffer| buffer.read(done.length, frame));
                    self.lend(done.descriptor);
                    self.show_buffers();
                    if length.is_some() {
                        return length;
                    }
                }
                Ok(None) => return None,
                Err(defect) => self.break_down(Fault::Rules(defect)),
            }
        }
        None
    }

    fn rest(&mut self) -> bool {
        if !self.is_up {
            return true;
        }
        let is_full = self.send.free().is_none();
        SEND_RING.ask_for_interrupts(is_full);
        RECEIVE_RING.ask_for_interrupts(true);
        let is_quiet = !self.receive.has_done() && !(is_full && self.send.has_done());
        if !is_quiet {
            silence();
        }
        is_quiet
    }

    fn faults(&self) -> (u32, Option<Fault>) {
        (self.faults, self.last_fault)
    }
}

/// Brings a card up to the point at which its queues are ready, from whatever state it is in (3.1.1).
fn bring_up(structures: &Structures) -> Result<Parts, Fault> {
    let registers = Registers(structures.common);
    registers.write8(common::DEVICE_STATUS, 0);
    let is_reset = (0..RESET_LIMIT).any(|_| {
        let done = registers.read8(common::DEVICE_STATUS) == 0;
        if !done {
            system::sleep(1);
        }
        done
    });
    if !is_reset {
        return Err(Fault::Reset);
    }
    let mut state = 0;
    let mut reach = |bit: u8| {
        state |= bit;
        registers.write8(common::DEVICE_STATUS, state);
        registers.read8(common::DEVICE_STATUS) & bit != 0
    };
    reach(status::ACKNOWLEDGE);
    reach(status::DRIVER);
    for (half, wanted) in [(0, FEATURE_MAC), (1, FEATURE_VERSION_1)] {
        registers.write32(common::DEVICE_FEATURE_SELECT, half);
        if registers.read32(common::DEVICE_FEATURE) & wanted == 0 {
            return Err(Fault::Features);
        }
        registers.write32(common::DRIVER_FEATURE_SELECT, half);
        registers.write32(common::DRIVER_FEATURE, wanted);
    }
    if !reach(status::FEATURES_OK) {
        return Err(Fault::Features);
    }
    let (receive, receive_bell) = queue(structures, RECEIVE, &RECEIVE_RING)?;
    let (send, send_bell) = queue(structures, SEND, &SEND_RING)?;
    Ok((receive, send, [receive_bell, send_bell]))
}

/// The queues to receive and to send, and their doorbells.
type Parts = (
    Queue<'static, TO_RECEIVE>,
    Queue<'static, TO_SEND>,
    [Registers; 2],
);

/// Gives a queue of the card its memory.
fn queue<const N: usize>(
    structures: &Structures,
    number: u16,
    ring: &'static Ring<N>,
) -> Result<(Queue<'static, N>, Registers), Fault> {
    let registers = Registers(structures.common);
    registers.write16(common::QUEUE_SELECT, number);
    // The card's own proposal is its limit.
    let size = registers.read16(common::QUEUE_SIZE).min(N as u16);
    let queue = Queue::new(ring, size).ok_or(Fault::Queue(number))?;
    registers.write16(common::QUEUE_SIZE, size);
    for (offset, address) in (common::QUEUE_ADDRESSES..).step_by(8).zip(ring.addresses()) {
        registers.write32(offset, address as u32);
        registers.write32(offset + 4, 0);
    }
    let bell = structures.doorbell(registers.read16(common::QUEUE_NOTIFY_OFF))?;
    registers.write16(common::QUEUE_ENABLE, 1);
    Ok((queue, Registers(bell)))
}

fn silence() {
    RECEIVE_RING.ask_for_interrupts(false);
    SEND_RING.ask_for_interrupts(false);
}

/// The line may be another device's, too: then the cause says nothing.
fn interrupt() {
    let Some(register) = CAUSE.get() else { return };
    let cause = Registers(register).read8(0);
    if cause != 0 {
        if cause & CAUSE_CHANGED != 0 {
            CHANGED.store(true, Ordering::Relaxed);
        }
        silence();
        wake();
    }
}
