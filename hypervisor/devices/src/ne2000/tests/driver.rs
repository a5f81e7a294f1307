//! A board with both kinds of card, and a driver as those of the time were.

use net::MacAddress;

use crate::nic::{NicConfig, NicModel};
use crate::pc::tests::config;
use crate::pc::{Pc, PcConfig, Width};
use crate::time::Ticks;
use crate::virtio::tests::World;

/// The ISA card: network card 1 of the board, behind a virtio one.
pub(super) const ISA: u8 = 1;
pub(super) const ISA_PORT: u16 = 0x300;
pub(super) const ISA_IRQ: u8 = 5;
/// The PCI card: network card 2, device 7.
pub(super) const PCI: u8 = 2;
pub(super) const PCI_DEVICE: u8 = 7;
pub(super) const PCI_PORT: u16 = 0xC700;
pub(super) const ISA_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
pub(super) const PCI_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];

/// Ports.
pub(super) const DATA: u16 = 0x10;
pub(super) const RESET: u16 = 0x1F;
/// Registers of page 0; some are others when they are written to.
pub(super) const CR: u16 = 0x00;
pub(super) const PSTART: u16 = 0x01;
pub(super) const PSTOP: u16 = 0x02;
pub(super) const BNRY: u16 = 0x03;
pub(super) const TSR: u16 = 0x04;
pub(super) const TPSR: u16 = 0x04;
pub(super) const TBCR: u16 = 0x05;
pub(super) const ISR: u16 = 0x07;
pub(super) const RSAR: u16 = 0x08;
pub(super) const RBCR: u16 = 0x0A;
pub(super) const RSR: u16 = 0x0C;
pub(super) const RCR: u16 = 0x0C;
pub(super) const TCR: u16 = 0x0D;
pub(super) const DCR: u16 = 0x0E;
pub(super) const IMR: u16 = 0x0F;
pub(super) const MISSED: u16 = 0x0F;
/// Registers of page 1.
pub(super) const PAR: u16 = 0x01;
pub(super) const CURR: u16 = 0x07;
pub(super) const MAR: u16 = 0x08;

/// Commands, remote DMA off.
pub(super) const STOP: u8 = 0x21;
pub(super) const START: u8 = 0x22;
pub(super) const SEND: u8 = 0x26;
pub(super) const PAGE_1: u8 = 0x40;
/// Commands with remote DMA.
pub(super) const READ: u8 = 0x0A;
pub(super) const WRITE: u8 = 0x12;
pub(super) const REMOVE: u8 = 0x1A;

/// Interrupts.
pub(super) const RECEIVED: u8 = 0x01;
pub(super) const SENT: u8 = 0x02;
pub(super) const OVERWRITE: u8 = 0x10;
pub(super) const COUNTER: u8 = 0x20;
pub(super) const DONE: u8 = 0x40;
pub(super) const OFF_LINE: u8 = 0x80;

/// Where the driver keeps what it sends, and the ring.
pub(super) const TRANSMIT_PAGE: u8 = 0x40;
pub(super) const RING: u8 = 0x46;
pub(super) const END: u8 = 0x80;

pub(super) fn board() -> PcConfig {
    let card = |model, mac| NicConfig {
        model,
        mac: MacAddress(mac),
        mtu: 1500,
    };
    let mut config = config();
    let isa = NicModel::Ne2000 {
        port: ISA_PORT,
        irq: ISA_IRQ,
    };
    config.nics.push(card(isa, ISA_MAC));
    config.nics.push(card(NicModel::Rtl8029, PCI_MAC));
    config
}

/// A board, its world, and which of the cards is driven.
pub(super) struct Bench {
    pub(super) pc: Pc,
    pub(super) world: World,
    pub(super) now: Ticks,
    pub(super) nic: u8,
    port: u16,
    /// The page that the driver reads next.
    next: u8,
}

impl Bench {
    pub(super) fn new(nic: u8) -> Self {
        Self {
            pc: Pc::new(board(), Ticks(0)),
            world: World::default(),
            now: Ticks(0),
            nic,
            port: if nic == ISA { ISA_PORT } else { PCI_PORT },
            next: RING,
        }
    }

    /// A card on line, its ring empty, that takes frames for it and for all.
    pub(super) fn driven(nic: u8) -> Self {
        let mut bench = Self::new(nic);
        bench.start();
        bench
    }

    pub(super) fn read(&mut self, offset: u16, width: Width) -> u32 {
        let Self { pc, world, now, .. } = self;
        pc.read(self.port + offset, width, *now, world)
    }

    pub(super) fn write(&mut self, offset: u16, width: Width, value: u32) {
        let Self { pc, world, now, .. } = self;
        pc.write(self.port + offset, width, value, *now, world);
    }

    pub(super) fn inb(&mut self, offset: u16) -> u8 {
        self.read(offset, Width::Byte) as u8
    }

    pub(super) fn outb(&mut self, offset: u16, value: u8) {
        self.write(offset, Width::Byte, u32::from(value));
    }

    /// Writes a pair of registers.
    pub(super) fn pair(&mut self, offset: u16, value: u16) {
        let [low, high] = value.to_le_bytes();
        self.outb(offset, low);
        self.outb(offset + 1, high);
    }

    /// Reads a register of page 1.
    pub(super) fn page_1(&mut self, offset: u16) -> u8 {
        let command = self.inb(CR);
        self.outb(CR, command & 0x3F | PAGE_1);
        let value = self.inb(offset);
        self.outb(CR, command);
        value
    }

    /// Writes to a register of page 1.
    pub(super) fn set_page_1(&mut self, offset: u16, value: u8) {
        let command = self.inb(CR);
        self.outb(CR, command & 0x3F | PAGE_1);
        self.outb(offset, value);
        self.outb(CR, command);
    }

    pub(super) fn start(&mut self) {
        let station = if self.nic == ISA { ISA_MAC } else { PCI_MAC };
        self.inb(RESET);
        assert_eq!(self.inb(CR), STOP);
        assert_eq!(self.inb(ISR) & OFF_LINE, OFF_LINE);
        self.outb(DCR, 0x49);
        self.outb(RCR, 0x04);
        self.outb(TCR, 0);
        self.ring(RING, END);
        self.outb(ISR, 0xFF);
        self.outb(IMR, 0x3F);
        for (at, byte) in (0..).zip(station) {
            self.set_page_1(PAR + at, byte);
        }
        self.outb(CR, START);
    }

    /// Gives the card a ring, which is empty.
    pub(super) fn ring(&mut self, first: u8, end: u8) {
        self.outb(PSTART, first);
        self.outb(PSTOP, end);
        self.outb(BNRY, end - 1);
        self.set_page_1(CURR, first);
        self.next = first;
    }

    /// Remote DMA from the card's memory, by words.
    pub(super) fn load(&mut self, address: u16, length: u16) -> Vec<u8> {
        self.pair(RSAR, address);
        self.pair(RBCR, length);
        self.outb(CR, READ);
        let words = (0..length.div_ceil(2)).map(|_| self.read(DATA, Width::Word) as u16);
        let mut bytes: Vec<u8> = words.flat_map(u16::to_le_bytes).collect();
        assert_eq!(self.inb(ISR) & DONE, DONE);
        self.outb(ISR, DONE);
        self.outb(CR, START);
        bytes.truncate(usize::from(length));
        bytes
    }

    /// Remote DMA to the card's memory, by words.
    pub(super) fn store(&mut self, address: u16, bytes: &[u8]) {
        self.pair(RSAR, address);
        self.pair(RBCR, bytes.len() as u16);
        self.outb(CR, WRITE);
        for chunk in bytes.chunks(2) {
            let high = chunk.get(1).copied().unwrap_or(0);
            self.write(
                DATA,
                Width::Word,
                u32::from(high) << 8 | u32::from(chunk[0]),
            );
        }
        assert_eq!(self.inb(ISR) & DONE, DONE);
        self.outb(ISR, DONE);
        self.outb(CR, START);
    }

    /// Reads of the data port at once.
    pub(super) fn read_string(&mut self, width: Width, bytes: &mut [u8]) -> usize {
        let Self { pc, world, now, .. } = self;
        pc.read_string(self.port + DATA, width, bytes, *now, world)
    }

    /// Writes to the data port at once.
    pub(super) fn write_string(&mut self, width: Width, bytes: &[u8]) -> usize {
        self.pc
            .write_string(self.port + DATA, width, bytes, self.now)
    }

    /// A frame comes from the wire.
    pub(super) fn arrive(&mut self, frame: &[u8]) -> bool {
        self.pc.receive_frame(self.nic, frame, self.now)
    }

    pub(super) fn room(&self) -> bool {
        self.pc.nic_room(self.nic)
    }

    /// The driver takes the oldest frame out of the ring: its status, and what was stored.
    pub(super) fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        if self.next == self.page_1(CURR) {
            return None;
        }
        let address = u16::from(self.next) << 8;
        let header = self.load(address, 4);
        let length = u16::from_le_bytes([header[2], header[3]]);
        let frame = self.load(address + 4, length);
        self.next = header[1];
        let boundary = if self.next == RING { END } else { self.next };
        self.outb(BNRY, boundary - 1);
        Some((header[0], frame))
    }

    /// The driver sends a frame.
    pub(super) fn send(&mut self, frame: &[u8]) {
        self.store(u16::from(TRANSMIT_PAGE) << 8, frame);
        self.outb(TPSR, TRANSMIT_PAGE);
        self.pair(TBCR, frame.len() as u16);
        self.outb(CR, SEND);
    }

    /// The board goes on from its saved state.
    pub(super) fn renew(&mut self) {
        self.pc = Pc::restore(board(), self.pc.save()).expect("its own state");
    }
}

/// A frame of a length for a station, its bytes all different from their neighbours.
pub(super) fn frame(destination: [u8; 6], length: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
    frame[..6].copy_from_slice(&destination);
    frame
}

/// A frame as the card stores it.
pub(super) fn stored(frame: &[u8]) -> Vec<u8> {
    let mut stored = frame.to_vec();
    stored.resize(frame.len().max(60) + 4, 0);
    stored
}

pub(super) const BROADCAST: [u8; 6] = [0xFF; 6];
