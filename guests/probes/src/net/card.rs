//! A minimal driver of the virtio network card (virtio 1.2, 4.1 and 5.1), with the event index.
//!
//! It works as those of operating systems do: it rings where the device asks for that, halts while there is nothing to
//! do, takes all that is there, and wants no interrupts meanwhile. Interrupts are messages.

use core::{
    arch::global_asm,
    sync::atomic::{AtomicU16, AtomicU32, Ordering, fence},
};

use pc::{
    cpu,
    port::{inb, inl, outb, outl, outw},
};

use crate::{
    bench::{X2APIC_EOI, set_gate},
    probe::Failure,
};

/// Descriptors of a queue, each with a buffer of its own.
const SIZE: u16 = 256;
/// Bytes of a buffer.
const BUFFER: usize = 2048;
/// Bytes before a frame (5.1.6).
pub(super) const HEADER: usize = 12;
/// Vector of both queues' interrupts.
const VECTOR: u32 = 0x60;

// It interrupts everything, and changes nothing.
global_asm!(
    r#"
    .section .text.net, "ax"
    .globl net_interrupt
net_interrupt:
    push eax
    push ecx
    push edx
    mov ecx, {end}
    xor eax, eax
    xor edx, edx
    wrmsr
    pop edx
    pop ecx
    pop eax
    iretd
    "#,
    end = const X2APIC_EOI,
);

unsafe extern "C" {
    static net_interrupt: u8;
}

#[repr(C, align(16))]
struct Descriptor {
    address: AtomicU32,
    address_high: AtomicU32,
    length: AtomicU32,
    flags: AtomicU16,
    next: AtomicU16,
}

#[repr(C)]
struct Available {
    flags: AtomicU16,
    index: AtomicU16,
    ring: [AtomicU16; SIZE as usize],
    used_event: AtomicU16,
}

#[repr(C)]
struct Element {
    id: AtomicU32,
    length: AtomicU32,
}

#[repr(C, align(4))]
struct Used {
    flags: AtomicU16,
    index: AtomicU16,
    ring: [Element; SIZE as usize],
    available_event: AtomicU16,
}

const _: () = assert!(size_of::<Descriptor>() == 16 && size_of::<Element>() == 8);
const _: () = assert!(size_of::<Available>() == 518 && size_of::<Used>() == 2056);

/// The memory of a queue.
struct Ring {
    descriptors: [Descriptor; SIZE as usize],
    available: Available,
    used: Used,
    buffers: [[AtomicU32; BUFFER / 4]; SIZE as usize],
}

impl Ring {
    const fn new() -> Self {
        Self {
            descriptors: [const {
                Descriptor {
                    address: AtomicU32::new(0),
                    address_high: AtomicU32::new(0),
                    length: AtomicU32::new(0),
                    flags: AtomicU16::new(0),
                    next: AtomicU16::new(0),
                }
            }; SIZE as usize],
            available: Available {
                flags: AtomicU16::new(0),
                index: AtomicU16::new(0),
                ring: [const { AtomicU16::new(0) }; SIZE as usize],
                used_event: AtomicU16::new(0),
            },
            used: Used {
                flags: AtomicU16::new(0),
                index: AtomicU16::new(0),
                ring: [const {
                    Element {
                        id: AtomicU32::new(0),
                        length: AtomicU32::new(0),
                    }
                }; SIZE as usize],
                available_event: AtomicU16::new(0),
            },
            buffers: [const { [const { AtomicU32::new(0) }; BUFFER / 4] }; SIZE as usize],
        }
    }

    /// Makes a buffer available.
    fn offer(&self, buffer: u16) {
        let index = self.available.index.load(Ordering::Relaxed);
        self.available.ring[usize::from(index % SIZE)].store(buffer, Ordering::Relaxed);
        self.available
            .index
            .store(index.wrapping_add(1), Ordering::Release);
    }

    /// Whether the device asks to be told of what became available since an old index.
    fn asks(&self, old: u16) -> bool {
        fence(Ordering::SeqCst);
        let event = self.used.available_event.load(Ordering::Relaxed);
        let new = self.available.index.load(Ordering::Relaxed);
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
    }

    /// Asks for an interrupt once the element at an index is used.
    fn ask(&self, index: u16) {
        self.available.used_event.store(index, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn used(&self) -> u16 {
        self.used.index.load(Ordering::Acquire)
    }

    /// Halts until an interrupt comes, unless the device has used up to another index meanwhile.
    fn wait_while_used(&self, index: u16) {
        cpu::disable_interrupts();
        if self.used() == index {
            cpu::wait_for_interrupt();
        } else {
            cpu::enable_interrupts();
        }
    }
}

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
static RINGS: [Ring; 2] = [const { Ring::new() }; 2];

/// Registers of the first base address register's ports, of the common configuration (4.1.4.3) and behind it. Where they are,
/// the capabilities say; this driver knows our device.
mod register {
    pub(super) const DRIVER_FEATURE_SELECT: u16 = 0x08;
    pub(super) const DRIVER_FEATURE: u16 = 0x0c;
    pub(super) const DEVICE_STATUS: u16 = 0x14;
    pub(super) const QUEUE_SELECT: u16 = 0x16;
    pub(super) const QUEUE_SIZE: u16 = 0x18;
    pub(super) const QUEUE_VECTOR: u16 = 0x1a;
    pub(super) const QUEUE_ENABLE: u16 = 0x1c;
    pub(super) const QUEUE_ADDRESSES: u16 = 0x20;
    pub(super) const DOORBELL: u16 = 0x40;
    pub(super) const ADDRESS: u16 = 0x80;
}

/// Features (6) in two halves: an address of its own and the event index; version 1.
const FEATURES: [u32; 2] = [1 << 5 | 1 << 29, 1];

/// The card at work.
pub(super) struct Card {
    ports: u16,
    /// Its address.
    pub(super) mac: [u8; 6],
    /// Index of the next used element of the receive queue.
    next: u16,
}

/// A register of the first function of a device's configuration space.
struct Configuration(u32);

impl Configuration {
    fn read(&self, register: u32) -> u32 {
        outl(0xcf8, 1 << 31 | self.0 << 11 | register);
        inl(0xcfc)
    }

    fn write(&self, register: u32, value: u32) {
        outl(0xcf8, 1 << 31 | self.0 << 11 | register);
        outl(0xcfc, value);
    }
}

impl Card {
    /// Starts the card. The local APIC must be in x2APIC mode. Interrupts are on from here.
    ///
    /// # Errors
    /// If there is none, or it does not take the features.
    pub(super) fn start() -> Result<Self, Failure> {
        const VIRTIO_NET: u32 = 0x1041_1af4;
        const PORTS_AND_MEMORY_AND_MASTER: u32 = 7;
        const MSIX: u32 = 0x98;
        const MSIX_ENABLE: u32 = 1 << 31;
        let function = (0..32)
            .map(Configuration)
            .find(|function| function.read(0) == VIRTIO_NET)
            .ok_or(Failure {
                what: "no virtio network card",
                found: 0,
            })?;
        function.write(4, PORTS_AND_MEMORY_AND_MASTER);
        let ports = function.read(0x10) as u16 & !3;
        let table = function.read(0x14) & !0xf;
        set_gate(VECTOR, &raw const net_interrupt);
        for (at, value) in [0xfee0_0000, 0, VECTOR, 0].into_iter().enumerate() {
            // SAFETY: the first entry of the MSI-X table, which the base address register has put outside of all memory.
            unsafe { (table as *mut u32).add(at).write_volatile(value) };
        }
        function.write(MSIX, MSIX_ENABLE);
        let mut state = 0;
        let mut reach = |bit: u8| {
            state |= bit;
            outb(ports + register::DEVICE_STATUS, state);
            inb(ports + register::DEVICE_STATUS) & bit != 0
        };
        reach(1);
        reach(2);
        for (half, wanted) in (0..).zip(FEATURES) {
            outl(ports + register::DRIVER_FEATURE_SELECT, half);
            outl(ports + register::DRIVER_FEATURE, wanted);
        }
        if !reach(8) {
            return Err(Failure {
                what: "features",
                found: FEATURES[0],
            });
        }
        enable(ports, RECEIVE, 2);
        enable(ports, TRANSMIT, 0);
        for buffer in 0..SIZE {
            RINGS[0].offer(buffer);
        }
        reach(4);
        cpu::enable_interrupts();
        let mut at = register::ADDRESS;
        let mac = [0; 6].map(|_: u8| {
            at += 1;
            inb(ports + at - 1)
        });
        Ok(Self {
            ports,
            mac,
            next: 0,
        })
    }

    /// Has all frames that are sent from now on begin like this.
    pub(super) fn fill(&self, start: &[u8]) {
        for buffer in &RINGS[1].buffers {
            write(buffer, start);
        }
    }

    fn ring_doorbell(&self, queue: u16, old: u16) {
        if RINGS[usize::from(queue)].asks(old) {
            outw(self.ports + register::DOORBELL, queue);
        }
    }

    /// Sends frames of this length, and rings after each of them or after the last; halts until the device has used all.
    pub(super) fn send(&self, frames: u16, length: u32, one_by_one: bool) {
        let ring = &RINGS[1];
        let start = ring.available.index.load(Ordering::Relaxed);
        let end = start.wrapping_add(frames);
        if frames == 0 {
            return;
        }
        ring.ask(end.wrapping_sub(1));
        for index in 0..frames {
            let index = start.wrapping_add(index);
            let descriptor = &ring.descriptors[usize::from(index % SIZE)];
            descriptor
                .length
                .store(HEADER as u32 + length, Ordering::Relaxed);
            ring.offer(index % SIZE);
            if one_by_one {
                self.ring_doorbell(TRANSMIT, index);
            }
        }
        if !one_by_one {
            self.ring_doorbell(TRANSMIT, start);
        }
        loop {
            let used = ring.used();
            if used == end {
                return;
            }
            ring.wait_while_used(used);
        }
    }

    /// Hands the next frame that has come to `take`, with its length, and its buffer back to the device.
    pub(super) fn take<T>(&mut self, take: impl FnOnce(&Received<'_>) -> T) -> Option<T> {
        let ring = &RINGS[0];
        if ring.used() == self.next {
            return None;
        }
        let element = &ring.used.ring[usize::from(self.next % SIZE)];
        let buffer = element.id.load(Ordering::Relaxed) as u16 % SIZE;
        let taken = take(&Received {
            length: (element.length.load(Ordering::Relaxed) as usize).saturating_sub(HEADER),
            words: &ring.buffers[usize::from(buffer)],
        });
        let old = ring.available.index.load(Ordering::Relaxed);
        ring.offer(buffer);
        self.ring_doorbell(RECEIVE, old);
        self.next = self.next.wrapping_add(1);
        Some(taken)
    }

    /// Halts until there is a frame.
    pub(super) fn wait(&self) {
        RINGS[0].ask(self.next);
        RINGS[0].wait_while_used(self.next);
    }
}

/// A frame that has come.
pub(super) struct Received<'a> {
    /// Its bytes.
    pub(super) length: usize,
    words: &'a [AtomicU32],
}

impl Received<'_> {
    /// Reads its first bytes.
    pub(super) fn read<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        for (bytes, word) in bytes.chunks_mut(4).zip(&self.words[HEADER / 4..]) {
            let whole = word.load(Ordering::Relaxed).to_le_bytes();
            bytes.copy_from_slice(&whole[..bytes.len()]);
        }
        bytes
    }
}

fn write(buffer: &[AtomicU32], start: &[u8]) {
    for (bytes, word) in start.chunks(4).zip(&buffer[HEADER / 4..]) {
        let mut whole = [0; 4];
        whole[..bytes.len()].copy_from_slice(bytes);
        word.store(u32::from_le_bytes(whole), Ordering::Relaxed);
    }
}

/// Gives a queue its memory.
fn enable(ports: u16, queue: u16, flags: u16) {
    let ring = &RINGS[usize::from(queue)];
    for (descriptor, buffer) in ring.descriptors.iter().zip(&ring.buffers) {
        let address = buffer.as_ptr() as u32;
        descriptor.address.store(address, Ordering::Relaxed);
        descriptor.length.store(BUFFER as u32, Ordering::Relaxed);
        descriptor.flags.store(flags, Ordering::Relaxed);
    }
    // No interrupts before they are asked for.
    ring.ask(u16::MAX);
    outw(ports + register::QUEUE_SELECT, queue);
    outw(ports + register::QUEUE_SIZE, SIZE);
    outw(ports + register::QUEUE_VECTOR, 0);
    let parts = [
        (&raw const ring.descriptors).addr(),
        (&raw const ring.available).addr(),
        (&raw const ring.used).addr(),
    ];
    for (offset, address) in (register::QUEUE_ADDRESSES..).step_by(8).zip(parts) {
        outl(ports + offset, address as u32);
        outl(ports + offset + 4, 0);
    }
    outw(ports + register::QUEUE_ENABLE, 1);
}
