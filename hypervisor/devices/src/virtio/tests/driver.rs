//! A driver for tests: it does what it is told, right or wrong.

use super::World;
use crate::msi::Dispatch;
use crate::pc::tests::config;
use crate::pc::{MemoryAccess, Pc, PcConfig, PcStateV1, Width};
use crate::pci::DeviceStateV1;
use crate::time::Ticks;
use crate::virtio::FunctionStateV1;

/// PCI device numbers on the board under test.
pub(super) const DISK: u8 = 2;
pub(super) const READ_ONLY_DISK: u8 = 3;
pub(super) const CONSOLE: u8 = 4;
pub(super) const ENTROPY: u8 = 5;
pub(super) const CARD: u8 = 6;

/// Where the driver keeps its rings: 16 entries each, a page for each queue.
pub(super) const RINGS: u64 = 0x1_0000;
pub(super) const SIZE: u16 = 16;
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

pub(super) const INDIRECT_DESC: u64 = 1 << 28;
pub(super) const EVENT_IDX: u64 = 1 << 29;
pub(super) const VERSION_1: u64 = 1 << 32;

pub(super) const NEEDS_RESET: u8 = 64;

/// A board with a driver for one of its devices.
#[derive(Clone, Debug)]
pub(super) struct Bench {
    pub(super) pc: Pc,
    pub(super) world: World,
    pub(super) now: Ticks,
    pub(super) device: u8,
}

impl Bench {
    pub(super) fn new(device: u8) -> Self {
        Self::with(config(), device)
    }

    pub(super) fn with(config: PcConfig, device: u8) -> Self {
        let mut bench = Self {
            pc: Pc::new(config, Ticks(0)),
            world: World::default(),
            now: Ticks(0),
            device,
        };
        // I/O, memory, bus mastering.
        bench.configure(0x04, 7);
        bench
    }

    /// A device that is driven with `features`, its queues enabled, without messages.
    pub(super) fn driven(device: u8, features: u64) -> Self {
        let mut bench = Self::new(device);
        bench.start(features);
        bench
    }

    pub(super) fn start(&mut self, features: u64) {
        self.negotiate(features);
        for queue in 0..self.queues() {
            self.enable(queue);
        }
        self.out(0x14, Width::Byte, 15);
    }

    pub(super) fn negotiate(&mut self, features: u64) {
        self.out(0x14, Width::Byte, 0);
        self.out(0x14, Width::Byte, 3);
        let features = features | VERSION_1;
        for half in 0..2 {
            self.out(0x08, Width::Dword, half);
            self.out(0x0C, Width::Dword, (features >> (32 * half)) as u32);
        }
        self.out(0x14, Width::Byte, 11);
    }

    pub(super) fn queues(&mut self) -> u16 {
        self.read(0x12, Width::Word) as u16
    }

    pub(super) fn enable(&mut self, queue: u16) {
        self.out(0x16, Width::Word, u32::from(queue));
        self.out(0x18, Width::Word, u32::from(SIZE));
        let base = RINGS + 0x1000 * u64::from(queue);
        for (register, address) in [(0x20, base), (0x28, base + AVAILABLE), (0x30, base + USED)] {
            self.out(register, Width::Dword, address as u32);
            self.out(register + 4, Width::Dword, (address >> 32) as u32);
        }
        self.out(0x1C, Width::Word, 1);
    }

    pub(super) fn configuration(&mut self, register: u8) -> u32 {
        let address = 0x8000_0000 | u32::from(self.device) << 11 | u32::from(register);
        let (now, world) = (self.now, &mut self.world);
        self.pc.write(0xCF8, Width::Dword, address, now, world);
        self.pc.read(0xCFC, Width::Dword, now, world)
    }

    pub(super) fn configure(&mut self, register: u8, value: u32) {
        self.configuration(register & !3);
        let width = if register == 0x04 {
            Width::Word
        } else {
            Width::Dword
        };
        let (now, world) = (self.now, &mut self.world);
        let port = 0xCFC + u16::from(register & 3);
        self.pc.write(port, width, value, now, world);
    }

    pub(super) fn port(&self, offset: u16) -> u16 {
        0xC000 + 0x100 * u16::from(self.device) + offset
    }

    pub(super) fn out(&mut self, offset: u16, width: Width, value: u32) {
        let port = self.port(offset);
        self.pc.write(port, width, value, self.now, &mut self.world);
    }

    pub(super) fn read(&mut self, offset: u16, width: Width) -> u32 {
        let port = self.port(offset);
        self.pc.read(port, width, self.now, &mut self.world)
    }

    pub(super) fn status(&mut self) -> u8 {
        self.read(0x14, Width::Byte) as u8
    }

    pub(super) fn interrupts(&mut self) -> u8 {
        self.read(0x44, Width::Byte) as u8
    }

    fn table(&self) -> u64 {
        0xC000_0000 + 0x1000 * u64::from(self.device)
    }

    pub(super) fn table_read(&mut self, offset: u64) -> u32 {
        self.pc.memory_read(self.table() + offset, 4, self.now) as u32
    }

    pub(super) fn table_write(&mut self, offset: u64, value: u32) {
        let address = self.table() + offset;
        self.pc.memory_write(address, 4, u64::from(value), self.now);
    }

    /// Enables messages: the vectors 0x40 and up to processor 0, the first for the configuration.
    pub(super) fn use_messages(&mut self) {
        for entry in 0..=self.queues() {
            let at = 16 * u64::from(entry);
            self.table_write(at, 0xFEE0_0000);
            self.table_write(at + 4, 0);
            self.table_write(at + 8, 0x40 + u32::from(entry));
            self.table_write(at + 12, 0);
        }
        self.configure(0x98, 0x8000_0000);
        self.out(0x10, Width::Word, 0);
        for queue in 0..self.queues() {
            self.out(0x16, Width::Word, u32::from(queue));
            self.out(0x1A, Width::Word, u32::from(queue) + 1);
        }
    }

    /// The vectors of the messages that went out.
    pub(super) fn vectors(&mut self) -> Vec<u8> {
        let dispatches = core::iter::from_fn(|| self.pc.take_message());
        dispatches
            .map(|Dispatch { message, .. }| message.vector)
            .collect()
    }

    /// Whether the device's input of the I/O APIC is asserted.
    pub(super) fn line(&self) -> bool {
        let input = crate::acpi::pci_input(self.device, 0);
        self.pc.save().io_apic.expect("there").lines & 1 << input != 0
    }

    pub(super) fn store(&mut self, address: u64, bytes: &[u8]) {
        self.world.write_memory(address, bytes).expect("in memory");
    }

    pub(super) fn load(&self, address: u64, length: usize) -> &[u8] {
        &self.world.memory[address as usize..][..length]
    }

    pub(super) fn load_u16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.load(address, 2).try_into().expect("two"))
    }

    /// Writes a descriptor into a table.
    pub(super) fn describe(
        &mut self,
        table: u64,
        index: u16,
        (address, length): (u64, u32),
        flags: u16,
        next: u16,
    ) {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.store(table + 16 * u64::from(index), &bytes);
    }

    /// Writes a chain into the table of queue `queue`, from descriptor `head` on.
    pub(super) fn chain(&mut self, queue: u16, head: u16, parts: &[(u64, u32, u16)]) {
        for (index, (address, length, flags)) in parts.iter().enumerate() {
            let at = head + index as u16;
            let last = index + 1 == parts.len();
            let flags = flags | if last { 0 } else { NEXT };
            self.describe(ring(queue), at, (*address, *length), flags, at + 1);
        }
    }

    /// Makes a chain available.
    pub(super) fn offer(&mut self, queue: u16, head: u16) {
        let available = ring(queue) + AVAILABLE;
        let index = self.load_u16(available + 2);
        let slot = u64::from(index % SIZE);
        self.store(available + 4 + 2 * slot, &head.to_le_bytes());
        self.store(available + 2, &index.wrapping_add(1).to_le_bytes());
    }

    pub(super) fn set_available(&mut self, queue: u16, offset: u64, value: u16) {
        self.store(ring(queue) + AVAILABLE + offset, &value.to_le_bytes());
    }

    pub(super) fn set_used_event(&mut self, queue: u16, value: u16) {
        self.set_available(queue, 4 + 2 * u64::from(SIZE), value);
    }

    pub(super) fn available_event(&self, queue: u16) -> u16 {
        self.load_u16(ring(queue) + USED + 4 + 8 * u64::from(SIZE))
    }

    pub(super) fn ring(&mut self, queue: u16) {
        self.out(0x40, Width::Word, u32::from(queue));
    }

    pub(super) fn used(&self, queue: u16) -> u16 {
        self.load_u16(ring(queue) + USED + 2)
    }

    /// An element of the used ring: head and length.
    pub(super) fn used_element(&self, queue: u16, index: u16) -> (u32, u32) {
        let at = ring(queue) + USED + 4 + 8 * u64::from(index % SIZE);
        let word = |at| u32::from_le_bytes(self.load(at, 4).try_into().expect("four"));
        (word(at), word(at + 4))
    }

    /// Lets time pass until the devices are at rest; returns how often they went on.
    pub(super) fn finish(&mut self) -> usize {
        for times in 0..100_000 {
            let Some(at) = self.pc.next_deadline() else {
                return times;
            };
            assert!(at > self.now);
            self.now = at;
            self.pc.expire(at, &mut self.world);
        }
        panic!("no end of work");
    }

    /// Puts a disk request together at descriptor `head`, its header and status at `place`.
    pub(super) fn request(
        &mut self,
        head: u16,
        place: u64,
        (kind, sector): (u32, u64),
        data: &[(u64, u32, u16)],
    ) {
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        self.store(place, &header);
        self.store(place + 16, &[0xEE]);
        let mut parts = vec![(place, 16, 0)];
        parts.extend(data);
        parts.push((place + 16, 1, WRITE));
        self.chain(0, head, &parts);
    }

    /// Does a disk request with its header and status at 0x100; returns the status.
    pub(super) fn perform(&mut self, kind: u32, sector: u64, data: &[(u64, u32, u16)]) -> u8 {
        self.request(0, 0x100, (kind, sector), data);
        self.offer(0, 0);
        self.ring(0);
        self.finish();
        self.load(0x110, 1)[0]
    }
}

/// The descriptor table of a queue.
pub(super) const fn ring(queue: u16) -> u64 {
    RINGS + 0x1000 * queue as u64
}

/// The virtio device that is the board's `at`th on the bus.
pub(super) fn function(state: &mut PcStateV1, at: usize) -> &mut FunctionStateV1 {
    let bus = state.pci.as_mut().expect("there");
    match &mut bus.devices[at] {
        DeviceStateV1::Virtio(function) => function,
        DeviceStateV1::Rtl8029(_) | DeviceStateV1::Watchdog(_) => panic!("not virtio"),
    }
}
