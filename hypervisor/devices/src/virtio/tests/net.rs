//! The network card with a driver that has one.

mod control;
mod lending;
mod offload;
mod properties;
mod receive;
mod transmit;

use core::cell::RefCell;

use net::Offload;

use super::World;
use super::driver::*;
use crate::pc::{MemoryAccess, OutsideMemory};
use crate::virtio::{Delivery, Part, Payload, Receiver, Refusal};

/// The card's number.
const NIC: u8 = 0;
const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

const CSUM: u64 = 1 << 0;
const GUEST_CSUM: u64 = 1 << 1;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const GUEST_ECN: u64 = 1 << 9;
const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
const HOST_ECN: u64 = 1 << 13;
const MRG_RXBUF: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;
const CTRL_VQ: u64 = 1 << 17;
const CTRL_RX: u64 = 1 << 18;
const CTRL_RX_EXTRA: u64 = 1 << 20;
const GUEST_ANNOUNCE: u64 = 1 << 21;
const MQ: u64 = 1 << 22;
const CTRL_MAC_ADDR: u64 = 1 << 23;
const GUEST_USO4: u64 = 1 << 54;
const GUEST_USO6: u64 = 1 << 55;
const HOST_USO: u64 = 1 << 56;

/// Sets of features that go together.
pub(super) const SETS: [u64; 4] = [
    0,
    MRG_RXBUF | CTRL_VQ | CTRL_RX | CTRL_RX_EXTRA | CTRL_MAC_ADDR,
    MRG_RXBUF | CTRL_VQ | MQ | CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN | HOST_USO,
    CTRL_VQ | MQ | CTRL_RX | GUEST_ANNOUNCE | GUEST_CSUM | GUEST_TSO4 | GUEST_USO6,
];

/// Queues: without multiqueue, the control queue is where the second receive queue would be.
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const SECOND_RECEIVE: u16 = 2;
const SECOND_TRANSMIT: u16 = 3;
const CONTROL: u16 = 2;
const CONTROL_OF_MANY: u16 = 4;

/// Bytes of the header before a frame.
const HEADER: u32 = 12;
const BUFFERS: u64 = 0x2000;
/// Behind the rings there is room for the longest frame.
const LONG_BUFFER: u64 = 0x2_0000;

/// Guest memory as the world sees it while it delivers.
struct Memory<'a>(&'a RefCell<&'a mut World>);

impl MemoryAccess for Memory<'_> {
    fn read_memory(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), OutsideMemory> {
        self.0.borrow_mut().read_memory(address, bytes)
    }

    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> Result<(), OutsideMemory> {
        self.0.borrow_mut().write_memory(address, bytes)
    }

    fn load_u16(&mut self, address: u64) -> Result<u16, OutsideMemory> {
        self.0.borrow_mut().load_u16(address)
    }

    fn store_u16(&mut self, address: u64, value: u16) -> Result<(), OutsideMemory> {
        self.0.borrow_mut().store_u16(address, value)
    }
}

/// A frame on its way into the guest's memory.
struct Frame<'a> {
    bytes: &'a [u8],
    memory: &'a RefCell<&'a mut World>,
}

impl Payload for Frame<'_> {
    fn length(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn head(&self) -> &[u8] {
        &self.bytes[..self.bytes.len().min(192)]
    }

    fn copy(&self, offset: u32, into: Part) -> Result<(), OutsideMemory> {
        let bytes = &self.bytes[offset as usize..][..into.length as usize];
        self.memory.borrow_mut().write_memory(into.address, bytes)
    }
}

impl Bench {
    fn receiver(&self) -> &Receiver {
        self.world.lent.0[usize::from(NIC)].as_ref().expect("lent")
    }

    fn lent(&self) -> bool {
        self.world.lent.0[usize::from(NIC)].is_some()
    }

    /// Does with a frame for the card what the world does, but tells nobody.
    pub(super) fn deliver(
        &mut self,
        bytes: &[u8],
        offload: &Offload,
        hash: u32,
    ) -> Result<Delivery, Refusal> {
        let lent = &mut self.world.lent.0[usize::from(NIC)];
        let mut receiver = lent.take().ok_or(Refusal::NoBuffers)?;
        let memory = RefCell::new(&mut self.world);
        let frame = Frame {
            bytes,
            memory: &memory,
        };
        let result = receiver.deliver(&frame, offload, hash, &mut Memory(&memory));
        self.world.lent.0[usize::from(NIC)] = Some(receiver);
        result
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<Delivery, Refusal> {
        self.deliver(bytes, &Offload::default(), 0)
    }

    /// Tells the card what became of a frame.
    pub(super) fn tell(&mut self, result: Result<Delivery, Refusal>) {
        let (queues, fault) = match result {
            Ok(delivery) if delivery.interrupt => (1 << delivery.queue, None),
            Err(Refusal::Fault(fault)) => (0, Some(fault)),
            _ => return,
        };
        let Self { pc, world, now, .. } = self;
        pc.received(NIC, queues, fault, *now, world);
    }

    /// Gives the card a buffer to receive into: a chain of parts from descriptor `head` on.
    pub(super) fn give(&mut self, queue: u16, head: u16, parts: &[(u64, u32)]) {
        let parts: Vec<_> = parts
            .iter()
            .map(|(address, length)| (*address, *length, WRITE))
            .collect();
        self.chain(queue, head, &parts);
        self.offer(queue, head);
    }

    /// Sends a frame with its header in one buffer.
    pub(super) fn send(&mut self, header: &[u8; HEADER as usize], frame: &[u8]) {
        self.store(LONG_BUFFER, header);
        self.store(LONG_BUFFER + u64::from(HEADER), frame);
        let part = (LONG_BUFFER, HEADER + frame.len() as u32, 0);
        self.chain(TRANSMIT, 0, &[part]);
        self.offer(TRANSMIT, 0);
        self.ring(TRANSMIT);
    }

    /// Gives the card a command; returns the answer.
    fn command(&mut self, queue: u16, bytes: &[u8]) -> u8 {
        self.store(BUFFERS, bytes);
        self.store(BUFFERS - 1, &[0xEE]);
        let parts = [(BUFFERS, bytes.len() as u32, 0), (BUFFERS - 1, 1, WRITE)];
        self.chain(queue, 0, &parts);
        self.offer(queue, 0);
        self.ring(queue);
        self.load(BUFFERS - 1, 1)[0]
    }

    pub(super) fn rest(&mut self) {
        self.pc.rest(&mut self.world);
    }

    pub(super) fn resume(&mut self) {
        self.pc.resume(self.now, &mut self.world);
    }
}

/// A frame to the card of so many bytes.
pub(super) fn frame(length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|at| (at * 7 + at / 256) as u8).collect();
    bytes[..6].copy_from_slice(&MAC);
    bytes[12..14].copy_from_slice(&[0x88, 0xB5]);
    bytes
}

/// The first 54 bytes of a TCP segment over IPv4.
fn tcp4() -> Vec<u8> {
    let mut bytes = frame(54);
    bytes[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
    // Eight words of TCP header.
    bytes[14 + 20 + 12] = 0x80;
    bytes
}

/// The first 74 bytes of a TCP segment over IPv6.
fn tcp6() -> Vec<u8> {
    let mut bytes = frame(74);
    bytes[12..15].copy_from_slice(&[0x86, 0xDD, 0x60]);
    bytes[14 + 40 + 12] = 0x50;
    bytes
}
