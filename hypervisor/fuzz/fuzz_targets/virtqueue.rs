//! The virtio devices on arbitrary rings: whatever memory holds, a device does no more in one go than it may, comes to
//! an end or goes on in steps, can be saved and restored, and works after a reset.
#![no_main]

use devices::nic::{Outgoing, Sent};
use devices::virtio::{Disk, Fault, Part, Receiver};
use devices::{
    DiskError, Effects, MemoryAccess, OutsideMemory, Pc, PcConfig, ResetCause, Ticks, VirtioConfig, Width,
};
use libfuzzer_sys::fuzz_target;

const MEMORY: usize = 64 << 10;
/// Bytes that a device may move in one go: a budget, a chain's descriptors, and the last request's ends.
const STEP_MAX: usize = (16 << 10) + 129 * 64 + 4096;
/// Devices 2 to 4: a disk, a console, a source of entropy.
const FIRST_DEVICE: u8 = 2;
const DEVICES: u8 = 3;

struct World {
    memory: Vec<u8>,
    disk: Vec<u8>,
    moved: usize,
    stops: u32,
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

    fn send_frame(&mut self, _nic: u8, _frame: &Outgoing<'_>) -> Result<Sent, OutsideMemory> {
        Ok(Sent::Done)
    }

    fn room_for_frames(&mut self, _nic: u8) {}

    fn lend_receiver(&mut self, _nic: u8, _receiver: Receiver) {}

    fn take_receiver(&mut self, _nic: u8) -> Option<Receiver> {
        None
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
        nics: Vec::new(),
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

    /// Drives the device: queue 0 has its rings at 0, 0x400 and 0x800, queue 1 a page behind.
    fn start(&mut self, features: u32) {
        self.out(
            0xCF8,
            Width::Dword,
            0x8000_0004 | u32::from(self.device) << 11,
        );
        self.out(0xCFC, Width::Word, 7);
        self.device_out(0x14, Width::Byte, 0);
        for (half, value) in [(0, features), (1, 1)] {
            self.device_out(0x08, Width::Dword, half);
            self.device_out(0x0C, Width::Dword, value);
        }
        self.device_out(0x14, Width::Byte, 11);
        for queue in 0..2 {
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
        match kind % 8 {
            0 | 1 => self.device_out(0x40, Width::Word, u32::from(low % 2)),
            2 => self.world.memory[at] = value,
            // The available index of a queue.
            3 => self.world.memory[0x1000 * usize::from(low % 2) + 0x402] = value,
            4 => self.device_out(u16::from(low), Width::Byte, u32::from(value)),
            5 => {
                let Self { pc, world, now, .. } = self;
                pc.console_input(&[value; 40], *now, world);
            }
            6 => self.pc = Pc::restore(config(), self.pc.save()).expect("its own state"),
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
        },
        now: Ticks(0),
        device: FIRST_DEVICE + device % DEVICES,
    };
    let features = u32::from(features & 3) << 28;
    bench.start(features);
    for operation in operations.as_chunks::<4>().0 {
        bench.world.moved = 0;
        bench.step(*operation);
        assert!(bench.world.moved <= STEP_MAX);
        while bench.pc.take_message().is_some() {}
    }
    bench.world.memory.fill(0);
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
        _ => assert_eq!(used[0], 1),
    }
});
