//! NE2000 and its PCI descendant, the RTL8029AS (National Semiconductor DP8390D; Realtek RTL8029AS): a DP8390 with 16 KiB
//! of its own memory, which is copied to and from through one port.
//!
//! Copying takes as long as anything does here, and may be interrupted after each word. Only what interrupts may not see
//! half done is done with interrupts off: the change of register pages, three accesses.

use pc::{
    cpu,
    port::{inb, insw, outb, outsw},
};
use rtos::net::{
    FRAME_MAX, Mac,
    dp8390::{HEADER, Pages},
    pci::{self, Region},
    settings::IsaPlace,
};

use super::{
    ethernet::{Ethernet, Fault},
    wake,
};
use crate::{
    machine::{
        pci::{Function, find},
        pic,
        shared::Late,
    },
    system,
};

const REALTEK: u16 = 0x10ec;
const RTL8029: u16 = 0x8029;

/// Offsets of the ports: of the DP8390 in page 0, and of the card around it.
mod port {
    pub(super) const COMMAND: u16 = 0x00;
    pub(super) const PAGE_START: u16 = 0x01;
    pub(super) const PAGE_STOP: u16 = 0x02;
    pub(super) const BOUNDARY: u16 = 0x03;
    pub(super) const SEND_PAGE: u16 = 0x04;
    pub(super) const SEND_COUNT: u16 = 0x05;
    pub(super) const INTERRUPT_STATUS: u16 = 0x07;
    pub(super) const COPY_ADDRESS: u16 = 0x08;
    pub(super) const COPY_COUNT: u16 = 0x0a;
    pub(super) const RECEIVE_SETTING: u16 = 0x0c;
    pub(super) const SEND_SETTING: u16 = 0x0d;
    pub(super) const DATA_SETTING: u16 = 0x0e;
    pub(super) const INTERRUPT_MASK: u16 = 0x0f;
    /// In page 1.
    pub(super) const MAC: u16 = 0x01;
    pub(super) const CURRENT: u16 = 0x07;
    pub(super) const GROUPS: u16 = 0x08;
    pub(super) const DATA: u16 = 0x10;
    pub(super) const RESET: u16 = 0x1f;
}

/// Bits of the command.
mod command {
    pub(super) const STOP: u8 = 0x01;
    pub(super) const START: u8 = 0x02;
    pub(super) const SEND: u8 = 0x04;
    pub(super) const COPY_IN: u8 = 0x08;
    pub(super) const COPY_OUT: u8 = 0x10;
    pub(super) const NO_COPY: u8 = 0x20;
    pub(super) const PAGE_1: u8 = 0x40;
}

/// Bits of interrupt status and mask.
mod interrupts {
    pub(super) const RECEIVED: u8 = 0x01;
    pub(super) const SENT: u8 = 0x02;
    pub(super) const RECEIVE_ERROR: u8 = 0x04;
    pub(super) const SEND_ERROR: u8 = 0x08;
    pub(super) const OVERFLOW: u8 = 0x10;
    pub(super) const COPIED: u8 = 0x40;
    pub(super) const RESET: u8 = 0x80;
    pub(super) const OF_RECEIVING: u8 = RECEIVED | RECEIVE_ERROR | OVERFLOW;
    pub(super) const OF_SENDING: u8 = SENT | SEND_ERROR;
}

/// Words, in Intel's order, by bursts of eight bytes, no loopback.
const DATA_BY_WORDS: u8 = 0x49;
/// Frames to our address and to all.
const ACCEPT: u8 = 0x04;
/// Frames are watched, and not stored.
const MONITOR: u8 = 0x20;
const LOOPBACK: u8 = 0x02;
const NORMAL: u8 = 0x00;

/// The card's memory lies from page 0x40 on; a frame to be sent is put first.
const SEND_PAGE: u8 = 0x40;
const PAGES: Pages = Pages {
    start: 0x46,
    stop: 0x80,
};
/// The shortest frame on the wire, without its checksum.
const SHORTEST: usize = 60;
/// What a card of 16 bits has behind its address, at these places.
const SIGNATURE: (u8, [usize; 2]) = (0x57, [14, 15]);
/// How often a short wait asks.
const PATIENCE: u32 = 10_000;
/// Ticks within which a frame is sent, collisions and all.
const SEND_LIMIT: u64 = 100;
/// Ticks after which a chip that was told to stop has: 1.6 ms.
const STOP_TIME: u32 = 3;

/// Of the card that interrupts, for the handler.
static PORT: Late<u16> = Late::new();

/// The card at work.
pub(crate) struct Ne2000 {
    base: u16,
    mac: Mac,
    /// The page of the next frame.
    next: u8,
    /// When the frame that is being sent was begun, and its length.
    sending: Option<(u64, u16)>,
    faults: u32,
    last_fault: Option<Fault>,
}

/// The first RTL8029, if there is one.
pub(crate) fn search() -> Option<Function> {
    find(|vendor, device| (vendor, device) == (REALTEK, RTL8029))
}

impl Ne2000 {
    /// Starts a card on PCI; its interrupt line.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(crate) fn start_pci(function: Function) -> Result<(Self, u8), Fault> {
        let Region::Ports(base) = pci::base_address(&function, 0)? else {
            return Err(pci::Defect::BaseAddress(0).into());
        };
        let line = pci::interrupt_line(&function)?;
        function.enable();
        let mut card = Self::new(base);
        let memory = card.reset()?;
        pic::set_level(line);
        card.go(memory, line)?;
        Ok((card, line))
    }

    /// Starts a card on the ISA bus.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(crate) fn start_isa(place: IsaPlace) -> Result<Self, Fault> {
        let mut card = Self::new(place.port);
        let memory = card.reset()?;
        let (signature, places) = SIGNATURE;
        if places.iter().any(|&place| memory[place] != signature) {
            return Err(Fault::Signature);
        }
        card.go(memory, place.line)?;
        Ok(card)
    }

    const fn new(base: u16) -> Self {
        Self {
            base,
            mac: [0; 6],
            next: 0,
            sending: None,
            faults: 0,
            last_fault: None,
        }
    }

    fn input(&self, port: u16) -> u8 {
        inb(self.base + port)
    }

    fn output(&self, port: u16, value: u8) {
        outb(self.base + port, value);
    }

    fn output16(&self, port: u16, value: u16) {
        let [low, high] = value.to_le_bytes();
        self.output(port, low);
        self.output(port + 1, high);
    }

    /// Waits shortly for bits of the interrupt status, and clears them.
    fn await_status(&self, bits: u8) -> bool {
        let is_there = |_| self.input(port::INTERRUPT_STATUS) & bits != 0;
        let found = (0..PATIENCE).any(is_there);
        self.output(port::INTERRUPT_STATUS, bits);
        found
    }

    /// Resets the card, and reads what it says of itself: its address is in front.
    fn reset(&self) -> Result<[u8; 16], Fault> {
        self.output(port::RESET, self.input(port::RESET));
        if !self.await_status(interrupts::RESET) {
            return Err(Fault::Reset);
        }
        self.output(port::COMMAND, command::NO_COPY | command::STOP);
        self.output(port::INTERRUPT_MASK, 0);
        self.output(port::DATA_SETTING, DATA_BY_WORDS);
        self.output(port::RECEIVE_SETTING, MONITOR);
        self.output(port::SEND_SETTING, LOOPBACK);
        self.output(port::INTERRUPT_STATUS, !interrupts::RESET);
        // Each byte stands in a word of its own.
        let mut words = [0; 32];
        self.copy_in(0, &mut words)?;
        let mut bytes = [0; 16];
        for (byte, word) in bytes.iter_mut().zip(words.chunks(2)) {
            *byte = word[0];
        }
        Ok(bytes)
    }

    /// Takes the address, and begins to work.
    fn go(&mut self, memory: [u8; 16], line: u8) -> Result<(), Fault> {
        self.mac.copy_from_slice(&memory[..6]);
        if self.mac[0] & 1 != 0 || self.mac == [0; 6] {
            return Err(Fault::Signature);
        }
        self.begin();
        PORT.set(self.base);
        pic::connect(line, interrupt);
        Ok(())
    }

    /// Sets a stopped chip up and starts it.
    fn begin(&mut self) {
        self.sending = None;
        self.output(port::PAGE_START, PAGES.start);
        self.output(port::PAGE_STOP, PAGES.stop);
        self.output(port::BOUNDARY, PAGES.start);
        self.next = PAGES.after(PAGES.start);
        cpu::without_interrupts(|| {
            self.output(
                port::COMMAND,
                command::PAGE_1 | command::NO_COPY | command::STOP,
            );
            for (offset, byte) in (port::MAC..).zip(self.mac) {
                self.output(offset, byte);
            }
            for offset in 0..8 {
                self.output(port::GROUPS + offset, 0);
            }
            self.output(port::CURRENT, self.next);
            self.output(port::COMMAND, command::NO_COPY | command::STOP);
        });
        self.output(port::INTERRUPT_STATUS, !interrupts::RESET);
        self.output(port::COMMAND, command::NO_COPY | command::START);
        self.output(port::SEND_SETTING, NORMAL);
        self.output(port::RECEIVE_SETTING, ACCEPT);
    }

    /// Begins anew with a card that cannot be relied on. If that fails, it keeps silent.
    fn break_down(&mut self, fault: Fault) {
        self.note(fault);
        match self.reset() {
            Ok(_) => self.begin(),
            Err(fault) => self.last_fault = Some(fault),
        }
    }

    fn note(&mut self, fault: Fault) {
        self.faults += 1;
        self.last_fault = Some(fault);
    }

    /// Sets the chip up to copy from or to an address of the card's memory.
    fn begin_copy(&self, address: u16, length: usize, direction: u8) {
        self.output(port::INTERRUPT_STATUS, interrupts::COPIED);
        self.output16(port::COPY_ADDRESS, address);
        self.output16(port::COPY_COUNT, length as u16);
        self.output(port::COMMAND, direction | command::START);
    }

    fn end_copy(&self) -> Result<(), Fault> {
        if self.await_status(interrupts::COPIED) {
            Ok(())
        } else {
            Err(Fault::Copy)
        }
    }

    /// Copies from the card's memory.
    fn copy_in(&self, address: u16, bytes: &mut [u8]) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.begin_copy(address, bytes.len().next_multiple_of(2), command::COPY_IN);
        insw(self.base + port::DATA, bytes);
        let is_odd = bytes.len() % 2 != 0;
        if let Some(last) = bytes.last_mut().filter(|_| is_odd) {
            let mut pair = [0; 2];
            insw(self.base + port::DATA, &mut pair);
            *last = pair[0];
        }
        self.end_copy()
    }

    /// Copies a frame to where it is sent from, and fills it up to the shortest.
    fn copy_out(&self, frame: &[u8]) -> Result<u16, Fault> {
        let length = frame.len().max(SHORTEST).next_multiple_of(2);
        let (pairs, odd) = frame.split_at(frame.len() & !1);
        self.begin_copy(u16::from(SEND_PAGE) << 8, length, command::COPY_OUT);
        outsw(self.base + port::DATA, pairs);
        let mut rest = [0; SHORTEST + 2];
        if let [last] = odd {
            rest[0] = *last;
        }
        outsw(self.base + port::DATA, &rest[..length - pairs.len()]);
        self.end_copy()?;
        Ok(frame.len().max(SHORTEST) as u16)
    }

    /// The page that the chip writes next.
    fn current(&self) -> u8 {
        cpu::without_interrupts(|| {
            self.output(
                port::COMMAND,
                command::PAGE_1 | command::NO_COPY | command::START,
            );
            let page = self.input(port::CURRENT);
            self.output(port::COMMAND, command::NO_COPY | command::START);
            page
        })
    }

    /// Lets the chip use all pages before this one.
    fn release(&mut self, next: u8) {
        self.next = next;
        self.output(port::BOUNDARY, PAGES.before(next));
    }

    /// Throws away what is in the ring.
    fn empty(&mut self) {
        let current = self.current();
        if PAGES.contains(current) {
            self.release(current);
        } else {
            self.break_down(Fault::Reset);
        }
    }

    /// What the datasheet demands after an overflow of the ring, or the chip may go on wrongly.
    fn recover(&mut self) {
        self.note(Fault::Overflow);
        let was_sending = self.input(port::COMMAND) & command::SEND != 0;
        self.output(port::COMMAND, command::NO_COPY | command::STOP);
        system::sleep(STOP_TIME);
        self.output16(port::COPY_COUNT, 0);
        let done = self.input(port::INTERRUPT_STATUS) & interrupts::OF_SENDING != 0;
        self.output(port::SEND_SETTING, LOOPBACK);
        self.output(port::COMMAND, command::NO_COPY | command::START);
        self.empty();
        self.output(port::INTERRUPT_STATUS, interrupts::OVERFLOW);
        self.output(port::SEND_SETTING, NORMAL);
        if was_sending
            && !done
            && let Some((_, length)) = self.sending
        {
            self.fire(length);
        }
    }

    /// Sends what has been copied.
    fn fire(&mut self, length: u16) {
        self.sending = Some((system::now(), length));
        self.output(port::SEND_PAGE, SEND_PAGE);
        self.output16(port::SEND_COUNT, length);
        let send = command::NO_COPY | command::SEND | command::START;
        self.output(port::COMMAND, send);
    }

    /// Reads the frame at the next page.
    fn read(&mut self, frame: &mut [u8; FRAME_MAX]) -> Result<usize, Fault> {
        let mut header = [0; HEADER as usize];
        self.copy_in(u16::from(self.next) << 8, &mut header)?;
        let stored = PAGES.header(self.next, header).map_err(Fault::Ring)?;
        let mut rest = &mut frame[..usize::from(stored.length)];
        for (address, length) in PAGES.spans(self.next, stored.length) {
            let (part, more) = rest.split_at_mut(usize::from(length));
            self.copy_in(address, part)?;
            rest = more;
        }
        self.release(stored.next);
        Ok(usize::from(stored.length))
    }
}

impl Ethernet for Ne2000 {
    fn mac(&self) -> Mac {
        self.mac
    }

    fn can_send(&mut self) -> bool {
        let Some((begun, _)) = self.sending else {
            return true;
        };
        if self.input(port::COMMAND) & command::SEND == 0 {
            self.output(port::INTERRUPT_STATUS, interrupts::OF_SENDING);
            self.sending = None;
        } else if system::now() - begun > SEND_LIMIT {
            self.break_down(Fault::Send);
        }
        self.sending.is_none()
    }

    fn send(&mut self, frame: &[u8]) {
        if self.sending.is_some() {
            return;
        }
        match self.copy_out(&frame[..frame.len().min(FRAME_MAX)]) {
            Ok(length) => self.fire(length),
            Err(fault) => self.break_down(fault),
        }
    }

    fn receive(&mut self, frame: &mut [u8; FRAME_MAX]) -> Option<usize> {
        let status = self.input(port::INTERRUPT_STATUS);
        if status & interrupts::OVERFLOW != 0 {
            self.recover();
        }
        // Before the look at the ring: what comes after it interrupts again.
        let seen = interrupts::RECEIVED | interrupts::RECEIVE_ERROR;
        self.output(port::INTERRUPT_STATUS, seen);
        if self.current() == self.next {
            return None;
        }
        match self.read(frame) {
            Ok(length) => Some(length),
            Err(fault @ Fault::Ring(_)) => {
                self.note(fault);
                self.empty();
                None
            }
            Err(fault) => {
                self.break_down(fault);
                None
            }
        }
    }

    fn rest(&mut self) -> bool {
        let sending = if self.can_send() {
            0
        } else {
            interrupts::OF_SENDING
        };
        // What has happened since it was last asked for interrupts at once.
        self.output(port::INTERRUPT_MASK, interrupts::OF_RECEIVING | sending);
        true
    }

    fn faults(&self) -> (u32, Option<Fault>) {
        (self.faults, self.last_fault)
    }
}

/// The line may be another device's, too: then the status says nothing that was asked for.
fn interrupt() {
    let Some(base) = PORT.get() else { return };
    let all = interrupts::OF_RECEIVING | interrupts::OF_SENDING;
    if inb(base + port::INTERRUPT_STATUS) & all != 0 {
        outb(base + port::INTERRUPT_MASK, 0);
        wake();
    }
}
