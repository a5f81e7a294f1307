//! The NE2000 on either bus, driven at random: whatever a guest writes and whatever arrives, the card can be saved and
//! restored, string accesses are what single ones are, and a driver that starts over can work.
#![no_main]

use devices::nic::{NicConfig, NicModel, Outgoing, Sent};
use devices::virtio::{Fault, Part, Receiver};
use devices::{
    DiskError, Effects, MemoryAccess, OutsideMemory, Pc, PcConfig, ResetCause, Ticks, VirtioConfig,
    Width,
};
use libfuzzer_sys::fuzz_target;
use net::MacAddress;

/// The longest frame, without its check sequence.
const LONGEST: usize = 1518;
/// The cards' first ports, in their order.
const PORTS: [u16; 2] = [0x300, 0xC200];
const DATA: u16 = 0x10;

#[derive(Default, PartialEq)]
struct World {
    sent: Vec<Vec<u8>>,
    busy: bool,
    rooms: u32,
}

impl MemoryAccess for World {
    fn read_memory(&mut self, address: u64, _bytes: &mut [u8]) -> Result<(), OutsideMemory> {
        Err(OutsideMemory(address))
    }

    fn write_memory(&mut self, address: u64, _bytes: &[u8]) -> Result<(), OutsideMemory> {
        Err(OutsideMemory(address))
    }

    fn load_u16(&mut self, address: u64) -> Result<u16, OutsideMemory> {
        Err(OutsideMemory(address))
    }

    fn store_u16(&mut self, address: u64, _value: u16) -> Result<(), OutsideMemory> {
        Err(OutsideMemory(address))
    }
}

impl Effects for World {
    fn console_output(&mut self, _byte: u8) {}

    fn reset(&mut self, _cause: ResetCause) {}

    fn power_off(&mut self) {}

    fn watchdog_expired(&mut self) {}

    fn read_disk(&mut self, _disk: u8, _offset: u64, _into: Part) -> Result<(), DiskError> {
        Err(DiskError::Disk)
    }

    fn write_disk(&mut self, _disk: u8, _offset: u64, _from: Part) -> Result<(), DiskError> {
        Err(DiskError::Disk)
    }

    fn flush_disk(&mut self, _disk: u8) -> Result<(), DiskError> {
        Err(DiskError::Disk)
    }

    fn virtio_console_output(&mut self, _bytes: &[u8]) {}

    fn entropy(&mut self, _bytes: &mut [u8]) -> usize {
        0
    }

    fn device_stopped(&mut self, _device: u8, _fault: Fault, _count: u32) {}

    fn send_frame(&mut self, _nic: u8, frame: &Outgoing<'_>) -> Result<Sent, OutsideMemory> {
        if self.busy {
            return Ok(Sent::Busy);
        }
        assert!((14..=LONGEST).contains(&frame.head.len()) && frame.rest.is_empty());
        self.sent.push(frame.head.to_vec());
        Ok(Sent::Done { takers: 1 })
    }

    fn room_for_frames(&mut self, _nic: u8) {
        self.rooms += 1;
    }

    fn lend_receiver(&mut self, _nic: u8, _receiver: Receiver) {}

    fn take_receiver(&mut self, _nic: u8) -> Option<Receiver> {
        None
    }
}

fn config() -> PcConfig {
    let isa = NicModel::Ne2000 {
        port: 0x300,
        irq: 5,
    };
    let nic = |model, last| NicConfig {
        model,
        mac: MacAddress([2, 0, 0, 0, 0, last]),
        mtu: 1500,
    };
    PcConfig {
        tsc_hz: 1_000_000_000,
        memory_bytes: 1 << 20,
        wall_clock: 0,
        com1: false,
        rtc: false,
        pci: true,
        io_apic: true,
        virtio: VirtioConfig::default(),
        nics: vec![nic(isa, 1), nic(NicModel::Rtl8029, 2)],
        watchdog: None,
    }
}

struct Bench {
    pc: Pc,
    world: World,
    now: Ticks,
    nic: u8,
    /// Whether string accesses are done at once.
    at_once: bool,
}

impl Bench {
    fn new(nic: u8, at_once: bool) -> Self {
        Self {
            pc: Pc::new(config(), Ticks(0)),
            world: World::default(),
            now: Ticks(0),
            nic,
            at_once,
        }
    }

    fn port(&self, offset: u16) -> u16 {
        PORTS[usize::from(self.nic)] + offset
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) {
        let port = self.port(offset);
        self.pc.write(port, width, value, self.now, &mut self.world);
    }

    fn read(&mut self, offset: u16, width: Width) -> u32 {
        let port = self.port(offset);
        self.pc.read(port, width, self.now, &mut self.world)
    }

    fn read_string(&mut self, width: Width, bytes: &mut [u8]) {
        let port = self.port(DATA);
        let mut done = 0;
        if self.at_once {
            done = self
                .pc
                .read_string(port, width, bytes, self.now, &mut self.world);
        }
        for element in bytes[done..].chunks_mut(usize::from(width.bytes())) {
            let value = self.read(DATA, width).to_le_bytes();
            element.copy_from_slice(&value[..element.len()]);
        }
    }

    fn write_string(&mut self, width: Width, bytes: &[u8]) {
        let port = self.port(DATA);
        let mut done = 0;
        if self.at_once {
            done = self.pc.write_string(port, width, bytes, self.now);
        }
        for element in bytes[done..].chunks(usize::from(width.bytes())) {
            let mut value = [0; 4];
            value[..element.len()].copy_from_slice(element);
            self.write(DATA, width, u32::from_le_bytes(value));
        }
    }

    /// Does a step; what the guest saw.
    fn step(&mut self, [kind, low, high, value]: [u8; 4]) -> Vec<u8> {
        let width = [Width::Byte, Width::Word, Width::Dword][usize::from(high % 3)];
        let size = usize::from(width.bytes());
        match kind % 8 {
            0 | 1 => self.write(u16::from(low % 32), Width::Byte, u32::from(value)),
            2 => return self.read(u16::from(low % 32), width).to_le_bytes().to_vec(),
            3 => {
                let mut bytes = vec![0; usize::from(low) * size];
                self.read_string(width, &mut bytes);
                return bytes;
            }
            4 => self.write_string(width, &vec![value; usize::from(low) * size]),
            5 => {
                let length = usize::from(u16::from_le_bytes([low, high]) % 1600);
                let mut frame = vec![value; length];
                for (to, from) in frame.iter_mut().zip([2, 0, 0, 0, 0, 1 + self.nic]) {
                    *to = if value % 2 == 0 { from } else { 0xFF };
                }
                return vec![u8::from(self.pc.receive_frame(self.nic, &frame, self.now))];
            }
            6 => self.pc = Pc::restore(config(), self.pc.save()).expect("its own state"),
            _ => {
                self.world.busy = value % 2 == 0;
                if let Some(at) = self.pc.next_deadline() {
                    self.now = at.max(self.now);
                    self.pc.expire(self.now, &mut self.world);
                }
            }
        }
        Vec::new()
    }

    /// A driver starts over, and a frame comes back whole.
    fn check(&mut self) {
        self.world.busy = false;
        self.read(0x1F, Width::Byte);
        for (offset, value) in [
            (0x0E, 0x49),
            (0x0C, 0x04),
            (0x0D, 0x00),
            (0x01, 0x46),
            (0x02, 0x80),
            (0x03, 0x7F),
            (0x00, 0x61),
            (0x07, 0x46),
            (0x00, 0x22),
        ] {
            self.write(offset, Width::Byte, value);
        }
        let frame: Vec<u8> = [0xFF; 6].into_iter().chain(0..200).collect();
        assert!(self.pc.receive_frame(self.nic, &frame, self.now));
        for (offset, value) in [
            (0x08, 0x04),
            (0x09, 0x46),
            (0x0A, 206),
            (0x0B, 0),
            (0x00, 0x0A),
        ] {
            self.write(offset, Width::Byte, value);
        }
        let mut back = vec![0; frame.len()];
        self.read_string(Width::Word, &mut back);
        assert_eq!(back, frame);
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let mut benches = [true, false].map(|at_once| Bench::new(first % 2, at_once));
    for operation in rest.as_chunks::<4>().0 {
        let [one, other] = benches.each_mut().map(|bench| bench.step(*operation));
        assert!(one == other);
    }
    let [one, other] = &mut benches;
    assert!(one.world == other.world && one.pc.save() == other.pc.save());
    one.check();
});
