//! The virtio devices on arbitrary rings: whatever memory holds, a device does no more in one go than it may, comes to
//! an end or goes on in steps, can be saved and restored, and works after a reset.
#![no_main]

use std::cell::RefCell;

use devices::nic::{NicConfig, NicModel, Outgoing, Sent};
use devices::virtio::{Disk, Fault, Part, Payload, Receiver, Refusal};
use devices::{
    DiskError, Effects, MemoryAccess, OutsideMemory, Pc, PcConfig, ResetCause, Ticks, VirtioConfig,
    Width,
};
use libfuzzer_sys::fuzz_target;
use net::{MacAddress, Offload};

const MEMORY: usize = 64 << 10;
/// Bytes that a device may move in one go: a budget, a chain's descriptors, and the last request's ends.
const STEP_MAX: usize = (16 << 10) + 129 * 64 + 4096;
/// The same for a network card, with the longest frame and the descriptors of the longest chain.
const CARD_STEP_MAX: usize = STEP_MAX + 65_593 + 257 * 16;
/// Devices 2 to 5: a disk, a console, a source of entropy, a network card.
const FIRST_DEVICE: u8 = 2;
const DEVICES: u8 = 4;
const CARD: u8 = 5;
/// The network card's features: none; mergeable buffers, commands; multiqueue, what is left to be done to frames.
const CARD_FEATURES: [u64; 3] = [0, 0x0097_8000, 0x0042_B801 | 1 << 56];

struct World {
    memory: Vec<u8>,
    disk: Vec<u8>,
    moved: usize,
    stops: u32,
    receiver: Option<Receiver>,
    busy: bool,
}

impl World {
    fn at(&mut self, address: u64, length: usize) -> Result<&mut [u8], OutsideMemory> {
        self.moved += length;
        let start = usize::try_from(address).map_err(|_| OutsideMemory(address))?;
        let end = start.checked_add(length).ok_or(OutsideMemory(address))?;
        self.memory
            .get_mut(start..end)
            .ok_or(OutsideMemory(address))
    }
}

impl MemoryAccess for World {
    fn read_memory(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), OutsideMemory> {
        bytes.copy_from_slice(self.at(address, bytes.len())?);
        Ok(())
    }

    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> Result<(), OutsideMemory> {
        self.at(address, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn load_u16(&mut self, address: u64) -> Result<u16, OutsideMemory> {
        let mut bytes = [0; 2];
        self.read_memory(address, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn store_u16(&mut self, address: u64, value: u16) -> Result<(), OutsideMemory> {
        self.write_memory(address, &value.to_le_bytes())
    }
}

impl Effects for World {
    fn console_output(&mut self, _byte: u8) {}

    fn reset(&mut self, _cause: ResetCause) {}

    fn power_off(&mut self) {}

    fn watchdog_expired(&mut self) {}

    fn read_disk(&mut self, _disk: u8, offset: u64, into: Part) -> Result<(), DiskError> {
        let start = offset as usize;
        let data = self.disk.get(start..start + into.length as usize);
        let data = data.ok_or(DiskError::Disk)?.to_vec();
        Ok(self.write_memory(into.address, &data)?)
    }

    fn write_disk(&mut self, _disk: u8, offset: u64, from: Part) -> Result<(), DiskError> {
        let start = offset as usize;
        let range = start..start + from.length as usize;
        let mut data = self
            .disk
            .get(range.clone())
            .ok_or(DiskError::Disk)?
            .to_vec();
        self.read_memory(from.address, &mut data)?;
        self.disk[range].copy_from_slice(&data);
        Ok(())
    }

    fn flush_disk(&mut self, _disk: u8) -> Result<(), DiskError> {
        Ok(())
    }

    fn virtio_console_output(&mut self, _bytes: &[u8]) {}

    fn entropy(&mut self, bytes: &mut [u8]) -> usize {
        bytes.len()
    }

    fn device_stopped(&mut self, _device: u8, _fault: Fault, _count: u32) {
        self.stops += 1;
    }

    fn send_frame(&mut self, _nic: u8, frame: &Outgoing<'_>) -> Result<Sent, OutsideMemory> {
        for part in frame.rest {
            self.at(part.address, part.length as usize)?;
        }
        Ok(if self.busy {
            Sent::Busy
        } else {
            Sent::Done { takers: 1 }
        })
    }

    fn room_for_frames(&mut self, _nic: u8) {}

    fn lend_receiver(&mut self, _nic: u8, receiver: Receiver) {
        assert!(self.receiver.replace(receiver).is_none());
    }

    fn take_receiver(&mut self, _nic: u8) -> Option<Receiver> {
        self.receiver.take()
    }
}

/// A frame for the network card, whose memory the world has meanwhile.
struct Frame<'a> {
    length: u32,
    memory: &'a RefCell<&'a mut World>,
}

impl Payload for Frame<'_> {
    fn length(&self) -> u32 {
        self.length
    }

    fn head(&self) -> &[u8] {
        &[0xFF; 14]
    }

    fn copy(&self, offset: u32, into: Part) -> Result<(), OutsideMemory> {
        assert!(offset + into.length <= self.length);
        let mut world = self.memory.borrow_mut();
        world.at(into.address, into.length as usize)?.fill(0xFF);
        Ok(())
    }
}

/// Guest memory while a frame is delivered.
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

fn config() -> PcConfig {
    PcConfig {
        tsc_hz: 1_000_000_000,
        memory_bytes: MEMORY as u64,
        wall_clock: 0,
        com1: false,
        rtc: false,
        pci: true,
        io_apic: true,
        virtio: VirtioConfig {
            disks: vec![Disk {
                sectors: 64,
                read_only: false,
            }],
            console: true,
            entropy: true,
        },
        nics: vec![NicConfig {
            model: NicModel::Virtio { pairs: 2 },
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
        }],
        watchdog: None,
    }
}

struct Bench {
    pc: Pc,
    world: World,
    now: Ticks,
    device: u8,
}

impl Bench {
    fn out(&mut self, port: u16, width: Width, value: u32) {
        self.pc.write(port, width, value, self.now, &mut self.world);
    }

    fn device_out(&mut self, offset: u16, width: Width, value: u32) {
        self.out(
            0xC000 + 0x100 * u16::from(self.device) + offset,
            width,
            value,
        );
    }

    /// A frame for the network card comes, and it hears what became of it.
    fn deliver(&mut self, length: u32, hash: u32) {
        let Some(mut receiver) = self.world.receiver.take() else {
            return;
        };
        let memory = RefCell::new(&mut self.world);
        let frame = Frame {
            length,
            memory: &memory,
        };
        let mut access = Memory(&memory);
        let result = receiver.deliver(&frame, &Offload::default(), hash, &mut access);
        self.world.receiver = Some(receiver);
        let (queues, fault) = match result {
            Ok(delivery) => (1 << delivery.queue, None),
            Err(Refusal::Fault(fault)) => (0, Some(fault)),
            Err(_) => return,
        };
        let Self { pc, world, now, .. } = self;
        pc.received(0, queues, fault, *now, world);
    }

    /// Drives the device: queue 0 has its rings at 0, 0x400 and 0x800, each other queue a page behind.
    fn start(&mut self, features: u64) {
        self.out(
            0xCF8,
            Width::Dword,
            0x8000_0004 | u32::from(self.device) << 11,
        );
        self.out(0xCFC, Width::Word, 7);
        self.device_out(0x14, Width::Byte, 0);
        for (half, value) in [(0, features as u32), (1, (features >> 32) as u32 | 1)] {
            self.device_out(0x08, Width::Dword, half);
            self.device_out(0x0C, Width::Dword, value);
        }
        self.device_out(0x14, Width::Byte, 11);
        for queue in 0..5 {
            self.device_out(0x16, Width::Word, queue);
            self.device_out(0x18, Width::Word, 16);
            for (register, offset) in [(0x20, 0), (0x28, 0x400), (0x30, 0x800)] {
                self.device_out(register, Width::Dword, 0x1000 * queue + offset);
            }
            self.device_out(0x1C, Width::Word, 1);
        }
        self.device_out(0x14, Width::Byte, 15);
    }

    fn step(&mut self, operation: [u8; 4]) {
        let [kind, low, high, value] = operation;
        let at = usize::from(u16::from_le_bytes([low, high]));
        match kind % 10 {
            0 | 1 => self.device_out(0x40, Width::Word, u32::from(low % 5)),
            2 => self.world.memory[at] = value,
            // The available index of a queue.
            3 => self.world.memory[0x1000 * usize::from(low % 5) + 0x402] = value,
            4 => self.device_out(u16::from(low), Width::Byte, u32::from(value)),
            5 => {
                let Self { pc, world, now, .. } = self;
                pc.console_input(&[value; 40], *now, world);
            }
            6 => {
                self.pc.rest(&mut self.world);
                self.pc = Pc::restore(config(), self.pc.save()).expect("its own state");
                self.pc.resume(self.now, &mut self.world);
            }
            7 => self.deliver(14 + at as u32, u32::from(value)),
            8 => self.world.busy = value & 1 != 0,
            _ => {
                if let Some(at) = self.pc.next_deadline() {
                    self.now = at;
                    self.pc.expire(at, &mut self.world);
                }
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some(([device, features, length, _], rest)) = input.split_first_chunk::<4>() else {
        return;
    };
    let (operations, image) = rest.split_at(rest.len().min(4 * usize::from(*length)));
    let mut memory = image.to_vec();
    memory.resize(MEMORY, 0);
    let mut bench = Bench {
        pc: Pc::new(config(), Ticks(0)),
        world: World {
            memory,
            disk: vec![0; 64 * 512],
            moved: 0,
            stops: 0,
            receiver: None,
            busy: false,
        },
        now: Ticks(0),
        device: FIRST_DEVICE + device % DEVICES,
    };
    let card = bench.device == CARD;
    let set = CARD_FEATURES[usize::from(features >> 2) % CARD_FEATURES.len()];
    let features = u64::from(features & 3) << 28 | if card { set } else { 0 };
    let most = if card { CARD_STEP_MAX } else { STEP_MAX };
    bench.start(features);
    for operation in operations.as_chunks::<4>().0 {
        bench.world.moved = 0;
        bench.step(*operation);
        assert!(bench.world.moved <= most);
        while bench.pc.take_message().is_some() {}
    }
    bench.world.memory.fill(0);
    bench.world.busy = false;
    bench.start(features);
    // One readable byte at 0x8000; for the console's transmitter that is a request, for a disk a mistake.
    bench.world.memory[0x1000..0x1010]
        .copy_from_slice(&[0, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    bench.world.memory.copy_within(0x1000..0x1010, 0);
    bench.world.memory[0x402] = 1;
    bench.world.memory[0x1402] = 1;
    let stops = bench.world.stops;
    bench.device_out(0x40, Width::Word, 0);
    bench.device_out(0x40, Width::Word, 1);
    let used = [0x802, 0x1802].map(|at| bench.world.memory[at]);
    match bench.device - FIRST_DEVICE {
        0 => assert_eq!(bench.world.stops, stops + 1),
        1 => assert_eq!(used, [0, 1]),
        // A frame without a header is a mistake, too.
        3 => assert_eq!(bench.world.stops, stops + 1),
        _ => assert_eq!(used[0], 1),
    }
});
