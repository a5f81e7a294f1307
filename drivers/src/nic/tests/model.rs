//! A card for the driver to run on: registers, and descriptor rings in memory. What it sends comes back to it.

use crate::dma::Dma;
use crate::nic::registers::{
    AddressHigh, CAUSE_SET, CAUSES, Control, EEPROM_READ, EepromControl, ExtendedConfiguration,
    InterruptCauses, MASK_CLEAR, MASK_SET, MDI_CONTROL, Named, OWNERS, Queue, RECEIVE_ADDRESSES,
    ReceiveControl, Register, Registers, Semaphore, Status, TransmitControl, counter,
    receive_queue, transmit_queue,
};
use crate::nic::{Model, RING};
use crate::pci::{self, Configuration, Function, PciAddress};
use std::boxed::Box;
use std::collections::{HashMap, VecDeque};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard};
use std::vec::Vec;

pub(super) const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

/// What the test makes of the card.
pub(super) struct State {
    model: Model,
    registers: HashMap<u32, u32>,
    /// Causes that are set, and those that interrupt.
    causes: u32,
    mask: u32,
    /// Frames on the wire.
    pub(super) wire: VecDeque<Vec<u8>>,
    /// Every frame that was sent.
    pub(super) sent: Vec<Vec<u8>>,
    /// Contexts that were given.
    pub(super) contexts: usize,
    context: [u64; 2],
    /// Microseconds that the driver has waited.
    pub(super) waited: u64,
    pub(super) resets: u32,
    pub(super) link: bool,
    pub(super) sends: bool,
    pub(super) receives: bool,
    pub(super) gone: bool,
    /// Frames are not sent back.
    pub(super) deaf: bool,
    /// Status and error bits of received frames, beside "done" and "end".
    pub(super) receive_status: u64,
    /// Bytes that a receive descriptor takes at most.
    pub(super) receive_part: usize,
    /// Without an address in its registers.
    pub(super) blank: bool,
    pub(super) eeprom: Option<[u16; 3]>,
    pub(super) firmware_holds: bool,
    /// The control register of its PHY, which sleeps at first.
    pub(super) phy_control: u16,
    /// It does not come out of a reset.
    pub(super) stuck: bool,
    /// Registers that were read: that is what takes time.
    pub(super) reads: u64,
    pub(super) command: u32,
}

pub(super) struct CardModel(Mutex<State>);

impl CardModel {
    pub(super) fn new(model: Model) -> &'static Self {
        Box::leak(Box::new(Self(Mutex::new(State {
            model,
            registers: HashMap::new(),
            causes: 0,
            mask: 0,
            wire: VecDeque::new(),
            sent: Vec::new(),
            contexts: 0,
            context: [0; 2],
            waited: 0,
            resets: 0,
            link: true,
            sends: true,
            receives: true,
            gone: false,
            deaf: false,
            receive_status: 0,
            receive_part: usize::MAX,
            blank: false,
            eeprom: None,
            firmware_holds: false,
            phy_control: 1 << 11,
            stuck: false,
            reads: 0,
            command: 0,
        }))))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test has failed in here")
    }

    pub(super) fn function(&'static self) -> Function {
        pci::enumerate(self).remove(0)
    }

    /// Whether it raises its interrupt.
    pub(super) fn interrupts(&self) -> bool {
        let state = self.state();
        state.causes & state.mask != 0
    }

    /// Goes on with what there is to do.
    pub(super) fn work(&self) {
        self.state().work();
    }
}

/// Memory that the model reaches by its virtual address.
pub(super) fn memory(bytes: usize) -> Dma {
    let words: &'static mut [u64] = std::vec![0; bytes / 8].leak();
    let pointer = NonNull::from(words).cast::<u8>();
    // SAFETY: leaked just now; words are aligned well enough for what is done here.
    unsafe { Dma::new(pointer.as_ptr() as u64, pointer, bytes) }
}

impl Configuration for CardModel {
    fn read(&self, address: PciAddress, offset: u8) -> u32 {
        let ours = PciAddress {
            bus: 0,
            device: 3,
            function: 0,
        };
        match offset {
            _ if address != ours => u32::MAX,
            0x00 => 0x100E_8086,
            0x04 => self.state().command,
            _ => 0,
        }
    }

    fn write(&self, _: PciAddress, offset: u8, value: u32) {
        if offset == 0x04 {
            self.state().command = value;
        }
    }
}

impl Registers for &'static CardModel {
    fn read(&self, register: Register) -> u32 {
        self.state().read(register)
    }

    fn write(&self, register: Register, value: u32) {
        self.state().write(register, value);
    }

    fn wait(&self, microseconds: u32) {
        self.state().waited += u64::from(microseconds);
    }
}

impl State {
    fn get(&self, register: Register) -> u32 {
        self.registers.get(&register.0).copied().unwrap_or(0)
    }

    fn put(&mut self, register: Register, value: u32) {
        self.registers.insert(register.0, value);
    }

    /// Adds to a counter.
    pub(super) fn count(&mut self, counter: Register, by: u32) {
        self.put(counter, self.get(counter) + by);
    }

    fn read(&mut self, register: Register) -> u32 {
        self.reads += 1;
        if self.gone {
            return u32::MAX;
        }
        match register {
            CAUSES => std::mem::take(&mut self.causes),
            Status::AT => {
                let mut status = Status::FULL_DUPLEX | Status::SPEED_1000;
                status.set(Status::LINK_UP, self.link);
                let control = Control::from_bits_retain(self.get(Control::AT));
                let master = !control.contains(Control::MASTER_DISABLE);
                status.set(Status::MASTER_ENABLED, master);
                status.bits()
            }
            Control::AT if self.stuck => self.get(register) | Control::RESET.bits(),
            EepromControl::AT => EepromControl::AUTO_READ_DONE.bits(),
            Semaphore::AT => {
                // Reading takes it.
                let value = self.get(register);
                self.put(register, value | Semaphore::SOFTWARE.bits());
                value
            }
            ExtendedConfiguration::AT if self.firmware_holds => {
                self.get(register) & !ExtendedConfiguration::SOFTWARE_OWNS.bits()
            }
            OWNERS if self.firmware_holds => self.get(register) | 0xFFFF << 16,
            Register(at) if (0x4000..0x4100).contains(&at) => {
                self.registers.remove(&at).unwrap_or(0)
            }
            _ => self.get(register),
        }
    }

    fn write(&mut self, register: Register, value: u32) {
        self.put(register, value);
        let tail = [receive_queue(Queue::Tail), transmit_queue(Queue::Tail)];
        match register {
            Control::AT if value & Control::RESET.bits() != 0 => self.reset(),
            CAUSE_SET => self.causes |= value,
            MASK_SET => self.mask |= value,
            MASK_CLEAR => self.mask &= !value,
            MDI_CONTROL => {
                if value >> 26 & 0b11 == 0b01 {
                    self.phy_control = value as u16;
                }
                let answer = value & !0xFFFF | u32::from(self.phy_control);
                self.put(register, answer | 1 << 28);
            }
            EEPROM_READ => {
                let (done, shift) = match self.model {
                    Model::I82540em => (1 << 4, 8),
                    _ => (1 << 1, 2),
                };
                let index = (value >> shift) as usize;
                if let Some(word) = self.eeprom.and_then(|words| words.get(index).copied()) {
                    self.put(register, done | u32::from(word) << 16);
                }
            }
            _ if tail.contains(&register) => self.work(),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.resets += 1;
        self.registers.clear();
        self.causes = 0;
        self.mask = 0;
        self.context = [0; 2];
        // Whatever ailed it is over.
        self.sends = true;
        self.receives = true;
        if !self.blank {
            let [a, b, c, d, e, f] = MAC;
            let high = u32::from(u16::from_le_bytes([e, f]));
            self.put(RECEIVE_ADDRESSES, u32::from_le_bytes([a, b, c, d]));
            self.put(RECEIVE_ADDRESSES.nth(1), high | AddressHigh::VALID.bits());
        }
    }

    fn may_master(&self) -> bool {
        self.command & 1 << 2 != 0
    }

    /// Sends what is in the transmit ring, and puts what is on the wire into the receive ring.
    fn work(&mut self) {
        let enabled = self.get(TransmitControl::AT) & TransmitControl::ENABLE.bits() != 0;
        if enabled && self.sends && self.may_master() {
            self.send();
        }
        let enabled = self.get(ReceiveControl::AT) & ReceiveControl::ENABLE.bits() != 0;
        if enabled && self.receives && self.may_master() {
            self.receive();
        }
    }

    fn ring(&self, at: fn(Queue) -> Register) -> (*mut [u64; 2], u32, u32) {
        let low = u64::from(self.get(at(Queue::BaseLow)));
        let base = low | u64::from(self.get(at(Queue::BaseHigh))) << 32;
        assert_eq!(self.get(at(Queue::Length)) as usize, RING * 16);
        let (head, tail) = (self.get(at(Queue::Head)), self.get(at(Queue::Tail)));
        (base as *mut [u64; 2], head, tail)
    }

    fn send(&mut self) {
        const DESCRIPTOR_KIND: u64 = 0b1111 << 20;
        let advanced = !matches!(self.model, Model::I82540em | Model::I82574l);
        let context_kind = if advanced { 2 << 20 } else { 0 };
        let (ring, mut head, tail) = self.ring(transmit_queue);
        while head != tail {
            // SAFETY: the driver's ring, which the model reaches by its address.
            let descriptor = unsafe { &mut *ring.add(head as usize) };
            if descriptor[1] & DESCRIPTOR_KIND == context_kind {
                self.contexts += 1;
                self.context = *descriptor;
            } else {
                let length = usize::from(descriptor[1] as u16);
                // SAFETY: the driver's buffer, which it named just now.
                let bytes =
                    unsafe { std::slice::from_raw_parts(descriptor[0] as *const u8, length) };
                let mut frame = bytes.to_vec();
                if descriptor[1] & 1 << 41 != 0 {
                    let [context, kind] = self.context;
                    let (start, target) = if advanced {
                        let start = (context & 0x1FF) + (context >> 9 & 0x7F);
                        (start, start + if kind & 1 << 11 != 0 { 16 } else { 6 })
                    } else {
                        (context >> 32 & 0xFF, context >> 40 & 0xFF)
                    };
                    insert_checksum(&mut frame, start as usize, target as usize);
                }
                descriptor[1] |= 1 << 32;
                self.causes |= InterruptCauses::TRANSMITTED.bits();
                self.count(counter::GOOD_TRANSMITTED, 1);
                if !self.deaf {
                    self.wire.push_back(frame.clone());
                }
                self.sent.push(frame);
            }
            head = (head + 1) % RING as u32;
        }
        self.put(transmit_queue(Queue::Head), head);
    }

    fn receive(&mut self) {
        let advanced = !matches!(self.model, Model::I82540em | Model::I82574l);
        while let Some(frame) = self.wire.front() {
            let (ring, mut head, tail) = self.ring(receive_queue);
            let parts: Vec<Vec<u8>> = frame
                .chunks(self.receive_part)
                .map(<[u8]>::to_vec)
                .collect();
            let room = (tail + RING as u32 - head) % RING as u32;
            if parts.len() > room as usize {
                self.causes |= InterruptCauses::OVERRUN.bits();
                return;
            }
            for (index, part) in parts.iter().enumerate() {
                // SAFETY: the driver's ring, which the model reaches by its address.
                let descriptor = unsafe { &mut *ring.add(head as usize) };
                let buffer = descriptor[0] as *mut u8;
                // SAFETY: the driver's buffer, and no test has longer parts than fit.
                unsafe { buffer.copy_from(part.as_ptr(), part.len()) };
                let last = if index + 1 == parts.len() { 0b10 } else { 0 };
                let status = 1 | last | self.receive_status;
                let length = part.len() as u64;
                descriptor[1] = if advanced {
                    status | length << 32
                } else {
                    length | status << 32
                };
                head = (head + 1) % RING as u32;
            }
            self.wire.pop_front();
            self.put(receive_queue(Queue::Head), head);
            self.count(counter::GOOD_RECEIVED, 1);
            self.causes |= InterruptCauses::RECEIVED.bits();
        }
    }
}

/// The sum of 16-bit words with the carries added, which is what is checked and inserted (RFC 1071).
pub(super) fn sum(bytes: &[u8]) -> u16 {
    let total: u64 = bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    let folded = (total & 0xFFFF) + (total >> 16);
    ((folded & 0xFFFF) + (folded >> 16)) as u16
}

fn insert_checksum(frame: &mut [u8], start: usize, target: usize) {
    let checksum = !sum(&frame[start..]);
    frame[target..target + 2].copy_from_slice(&checksum.to_be_bytes());
}
