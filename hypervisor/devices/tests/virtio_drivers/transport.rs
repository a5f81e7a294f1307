//! The board, and the way to its devices: ports.

use std::cell::RefCell;
use std::rc::Rc;

use devices::nic::{NicConfig, NicModel, Outgoing, Sent};
use devices::virtio::{Disk, Fault, Part, Payload, Receiver, Refusal};
use devices::{
    DiskError, Effects, MemoryAccess, OutsideMemory, Pc, PcConfig, ResetCause, Ticks, VirtioConfig,
    Width,
};
use net::{MacAddress, Offload};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{self as drivers, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::memory::Arena;

/// The network card's address.
pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

fn config() -> PcConfig {
    let disk = |sectors, read_only| Disk { sectors, read_only };
    PcConfig {
        tsc_hz: 1_000_000_000,
        memory_bytes: 16 << 20,
        wall_clock: 0,
        com1: false,
        rtc: false,
        pci: true,
        io_apic: true,
        virtio: VirtioConfig {
            disks: vec![disk(1024, false), disk(8, true)],
            console: true,
            entropy: true,
        },
        nics: vec![NicConfig {
            model: NicModel::Virtio { pairs: 1 },
            mac: MacAddress(MAC),
            mtu: 1500,
        }],
        watchdog: None,
    }
}

/// What the devices reach.
struct World {
    disks: Vec<Vec<u8>>,
    console: Vec<u8>,
    entropy: Vec<u8>,
    stops: Vec<(u8, Fault)>,
    receiver: Option<Receiver>,
    sent: Vec<Vec<u8>>,
}

impl World {
    fn on_disk(&mut self, disk: u8, offset: u64, length: u32) -> Result<&mut [u8], DiskError> {
        let (start, disk) = (offset as usize, self.disks.get_mut(usize::from(disk)));
        disk.and_then(|disk| disk.get_mut(start..start + length as usize))
            .ok_or(DiskError::Disk)
    }
}

impl MemoryAccess for World {
    fn read_memory(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), OutsideMemory> {
        Arena::read(address, bytes)
    }

    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> Result<(), OutsideMemory> {
        Arena::write(address, bytes)
    }

    fn load_u16(&mut self, address: u64) -> Result<u16, OutsideMemory> {
        let mut bytes = [0; 2];
        Arena::read(address, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn store_u16(&mut self, address: u64, value: u16) -> Result<(), OutsideMemory> {
        Arena::write(address, &value.to_le_bytes())
    }
}

impl Effects for World {
    fn console_output(&mut self, _byte: u8) {}

    fn reset(&mut self, _cause: ResetCause) {}

    fn power_off(&mut self) {}

    fn watchdog_expired(&mut self) {}

    fn read_disk(&mut self, disk: u8, offset: u64, into: Part) -> Result<(), DiskError> {
        Ok(Arena::write(
            into.address,
            self.on_disk(disk, offset, into.length)?,
        )?)
    }

    fn write_disk(&mut self, disk: u8, offset: u64, from: Part) -> Result<(), DiskError> {
        Ok(Arena::read(
            from.address,
            self.on_disk(disk, offset, from.length)?,
        )?)
    }

    fn flush_disk(&mut self, _disk: u8) -> Result<(), DiskError> {
        Ok(())
    }

    fn virtio_console_output(&mut self, bytes: &[u8]) {
        self.console.extend_from_slice(bytes);
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> usize {
        bytes.copy_from_slice(&self.entropy[..bytes.len()]);
        bytes.len()
    }

    fn device_stopped(&mut self, device: u8, fault: Fault, _count: u32) {
        self.stops.push((device, fault));
    }

    fn send_frame(&mut self, _nic: u8, frame: &Outgoing<'_>) -> Result<Sent, OutsideMemory> {
        let mut bytes = frame.head.to_vec();
        for part in frame.rest {
            let mut more = vec![0; part.length as usize];
            Arena::read(part.address, &mut more)?;
            bytes.append(&mut more);
        }
        self.sent.push(bytes);
        Ok(Sent::Done { takers: 1 })
    }

    fn room_for_frames(&mut self, _nic: u8) {}

    fn lend_receiver(&mut self, _nic: u8, receiver: Receiver) {
        self.receiver = Some(receiver);
    }

    fn take_receiver(&mut self, _nic: u8) -> Option<Receiver> {
        self.receiver.take()
    }
}

/// A frame for the board.
struct Frame<'a>(&'a [u8]);

impl Payload for Frame<'_> {
    fn length(&self) -> u32 {
        self.0.len() as u32
    }

    fn head(&self) -> &[u8] {
        self.0
    }

    fn copy(&self, offset: u32, into: Part) -> Result<(), OutsideMemory> {
        Arena::write(
            into.address,
            &self.0[offset as usize..][..into.length as usize],
        )
    }
}

struct Machine {
    pc: Pc,
    world: World,
    now: Ticks,
}

/// A board with two disks, a console and a source of entropy.
#[derive(Clone)]
pub(crate) struct Board(Rc<RefCell<Machine>>);

impl Board {
    pub(crate) fn new() -> Self {
        Self(Rc::new(RefCell::new(Machine {
            pc: Pc::new(config(), Ticks(0)),
            world: World {
                disks: vec![vec![0; 1024 * 512], vec![0x5A; 8 * 512]],
                console: Vec::new(),
                entropy: (0..1000).map(|at| (at * at / 5) as u8).collect(),
                stops: Vec::new(),
                receiver: None,
                sent: Vec::new(),
            },
            now: Ticks(0),
        })))
    }

    /// The ports of a device, as a driver of the bus leaves them: with bus mastering on.
    pub(crate) fn ports(&self, device: u8) -> Ports {
        let slot = 0x8000_0000 | u32::from(device) << 11;
        self.out(0xCF8, Width::Dword, slot);
        let identity = self.read(0xCFC, Width::Dword);
        assert_eq!(identity & 0xFFFF, 0x1AF4);
        self.out(0xCF8, Width::Dword, slot | 4);
        self.out(0xCFC, Width::Word, 7);
        self.out(0xCF8, Width::Dword, slot | 0x10);
        let base = self.read(0xCFC, Width::Dword);
        assert_eq!(base & 3, 1, "ports");
        Ports {
            board: self.clone(),
            base: base as u16 & !3,
            kind: match (identity >> 16) - 0x1040 {
                1 => DeviceType::Network,
                2 => DeviceType::Block,
                3 => DeviceType::Console,
                4 => DeviceType::EntropySource,
                other => panic!("a device of type {other}"),
            },
        }
    }

    fn read(&self, port: u16, width: Width) -> u32 {
        let Machine { pc, world, now } = &mut *self.0.borrow_mut();
        pc.read(port, width, *now, world)
    }

    fn out(&self, port: u16, width: Width, value: u32) {
        let Machine { pc, world, now } = &mut *self.0.borrow_mut();
        pc.write(port, width, value, *now, world);
    }

    /// Lets the devices do what they are due to do next; whether there was something.
    pub(crate) fn step(&self) -> bool {
        let Machine { pc, world, now } = &mut *self.0.borrow_mut();
        let Some(at) = pc.next_deadline() else {
            return false;
        };
        *now = at;
        pc.expire(at, world);
        true
    }

    /// Saves the board and goes on with a new one in that state.
    pub(crate) fn replace(&self) {
        let machine = &mut *self.0.borrow_mut();
        machine.pc.rest(&mut machine.world);
        machine.pc = Pc::restore(config(), machine.pc.save()).expect("its own state");
        machine.pc.resume(machine.now, &mut machine.world);
    }

    /// A frame for the network card comes; whether it took it.
    pub(crate) fn deliver(&self, frame: &[u8]) -> bool {
        let Machine { pc, world, now } = &mut *self.0.borrow_mut();
        let Some(mut receiver) = world.receiver.take() else {
            return false;
        };
        assert!(receiver.wants(frame));
        let result = receiver.deliver(&Frame(frame), &Offload::default(), 0, world);
        world.receiver = Some(receiver);
        match result {
            Ok(delivery) if delivery.interrupt => {
                pc.received(0, 1 << delivery.queue, None, *now, world);
            }
            Ok(_) => {}
            Err(Refusal::NoBuffers) => return false,
            Err(refusal) => panic!("{refusal}"),
        }
        true
    }

    /// The frames that the network card sent.
    pub(crate) fn sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.borrow_mut().world.sent)
    }

    /// Types.
    pub(crate) fn input(&self, bytes: &[u8]) -> usize {
        let Machine { pc, world, now } = &mut *self.0.borrow_mut();
        pc.console_input(bytes, *now, world)
    }

    pub(crate) fn console(&self) -> Vec<u8> {
        self.0.borrow().world.console.clone()
    }

    pub(crate) fn entropy(&self) -> Vec<u8> {
        self.0.borrow().world.entropy.clone()
    }

    pub(crate) fn stops(&self) -> Vec<(u8, Fault)> {
        self.0.borrow().world.stops.clone()
    }

    pub(crate) fn disk(&self, number: usize) -> Vec<u8> {
        self.0.borrow().world.disks[number].clone()
    }

    pub(crate) fn set_disk(&self, number: usize, data: &[u8]) {
        self.0.borrow_mut().world.disks[number].copy_from_slice(data);
    }
}

/// A transport over the ports of a device.
pub(crate) struct Ports {
    board: Board,
    base: u16,
    kind: DeviceType,
}

impl Ports {
    fn read(&self, offset: u16, width: Width) -> u32 {
        self.board.read(self.base + offset, width)
    }

    fn out(&self, offset: u16, width: Width, value: u32) {
        self.board.out(self.base + offset, width, value);
    }

    fn select(&self, queue: u16) {
        self.out(0x16, Width::Word, u32::from(queue));
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.out(0x14, Width::Byte, 0);
    }
}

impl Transport for Ports {
    fn device_type(&self) -> DeviceType {
        self.kind
    }

    fn read_device_features(&mut self) -> u64 {
        (0..2).fold(0, |features, half| {
            self.out(0x00, Width::Dword, half);
            features | u64::from(self.read(0x04, Width::Dword)) << (32 * half)
        })
    }

    fn write_driver_features(&mut self, features: u64) {
        for half in 0..2 {
            self.out(0x08, Width::Dword, half);
            self.out(0x0C, Width::Dword, (features >> (32 * half)) as u32);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.select(queue);
        self.read(0x18, Width::Word)
    }

    fn notify(&mut self, queue: u16) {
        self.out(0x40, Width::Word, u32::from(queue));
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_truncate(self.read(0x14, Width::Byte))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.out(0x14, Width::Byte, status.bits());
        assert_eq!(self.get_status(), status, "taken");
    }

    fn set_guest_page_size(&mut self, _size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        available: PhysAddr,
        used: PhysAddr,
    ) {
        self.select(queue);
        self.out(0x18, Width::Word, size);
        for (register, address) in [(0x20, descriptors), (0x28, available), (0x30, used)] {
            self.out(register, Width::Dword, address as u32);
            self.out(register + 4, Width::Dword, (address >> 32) as u32);
        }
        self.out(0x1C, Width::Word, 1);
    }

    fn queue_unset(&mut self, _queue: u16) {
        // Only a reset of the device takes a queue back.
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.select(queue);
        self.read(0x1C, Width::Word) == 1
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::from_bits_truncate(self.read(0x44, Width::Byte))
    }

    fn read_config_generation(&self) -> u32 {
        self.read(0x15, Width::Byte)
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> drivers::Result<T> {
        let bytes: Vec<u8> = (0..size_of::<T>())
            .map(|at| self.read(0x80 + (offset + at) as u16, Width::Byte) as u8)
            .collect();
        Ok(T::read_from_bytes(&bytes).expect("as many bytes"))
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _: usize,
        _: T,
    ) -> drivers::Result<()> {
        unreachable!("nothing in these configurations can be written")
    }
}
