//! The NE2000: National's DP8390 with 16 KiB of memory behind a data port. On the ISA bus, or as Realtek's RTL8029 on the
//! PCI bus.
//!
//! Sources: National Semiconductor DP8390D data sheet and application note AN-874; Realtek RTL8029AS data sheet. Of the
//! card around the chip there is no data sheet: what is at its ports is what drivers rely on.
//!
//! Time does not pass on this wire: a frame is sent when the driver says so, unless the world has no room for it. Frames
//! carry no check sequence, so none is wrong; a frame that is too short is padded, as its sender's card would have done.
//!
//! A driver moves frames by accesses to one port. Those of a string instruction can be done many at once
//! ([`Pc::read_string`](crate::Pc::read_string)).

mod memory;
mod receive;
mod registers;
mod remote;
mod rtl8029;
mod state;
#[cfg(test)]
mod tests;
mod transmit;

use crate::nic::NicConfig;
use crate::pc::{Effects, Width};
use memory::Memory;
use registers::{
    Command, Config2, Config3, DataConfig, EepromCommand, Interrupts, Readable, ReceiveConfig,
    ReceiveStatus, TransmitConfig, TransmitStatus, Writable,
};
pub(crate) use rtl8029::Rtl8029;
pub use rtl8029::Rtl8029StateV1;
pub use state::{Ne2000StateV1, RealtekStateV1};

/// Ports of a card.
pub(crate) const PORTS: u16 = 0x20;
/// The first of the data ports, which are one register.
const DATA: u16 = 0x10;
/// The first of the reset ports, which are one, too.
const RESET: u16 = 0x18;

/// Bytes of a frame's header, of the shortest frame and of the longest, with a VLAN's tag; all without the check
/// sequence.
const HEADER: usize = 14;
const SHORTEST: usize = 60;
const LONGEST: usize = 1518;

/// What Realtek's chips have more: page 3.
#[derive(Copy, Clone, Debug)]
struct Realtek {
    eeprom: EepromCommand,
    config2: Config2,
    config3: Config3,
}

impl Realtek {
    /// Registers 0xA and 0xB of page 0, and 0xE and 0xF of page 3.
    const SIGNATURE: [u8; 2] = *b"PC";
    const MODEL: [u8; 2] = [0x29, 0x80];

    const RESET: Self = Self {
        eeprom: EepromCommand::empty(),
        config2: Config2::empty(),
        config3: Config3::empty(),
    };

    /// Whether configuration registers can be written to.
    const fn unlocked(&self) -> bool {
        self.eeprom.contains(EepromCommand::MODE)
    }
}

/// A card.
#[derive(Clone, Debug)]
pub(crate) struct Ne2000 {
    /// Its number among the board's network cards.
    nic: u8,
    memory: Memory,
    command: Command,
    page_start: u8,
    page_stop: u8,
    boundary: u8,
    current: u8,
    transmit_page: u8,
    transmit_count: u16,
    transmit_status: TransmitStatus,
    receive_status: ReceiveStatus,
    interrupts: Interrupts,
    mask: Interrupts,
    remote_address: u16,
    remote_count: u16,
    /// The page behind the frame that is being removed from the ring.
    remote_next: u8,
    receive_config: ReceiveConfig,
    transmit_config: TransmitConfig,
    data_config: DataConfig,
    /// Frames with a wrong alignment, with a wrong check sequence, and without a buffer.
    tallies: [u8; 3],
    station: [u8; 6],
    groups: [u8; 8],
    realtek: Option<Realtek>,
}

impl Ne2000 {
    /// An NE2000 as network card `nic` of the board, as power-up leaves it.
    pub(crate) fn new(nic: u8, config: &NicConfig) -> Self {
        Self::with_memory(nic, Memory::new(config.mac), None)
    }

    /// An RTL8029.
    fn realtek(nic: u8, config: &NicConfig) -> Self {
        Self::with_memory(nic, Memory::new(config.mac), Some(Realtek::RESET))
    }

    fn with_memory(nic: u8, memory: Memory, realtek: Option<Realtek>) -> Self {
        Self {
            nic,
            memory,
            command: Command::STOP.union(Command::ABORT),
            page_start: 0,
            page_stop: 0,
            boundary: 0,
            current: 0,
            transmit_page: 0,
            transmit_count: 0,
            transmit_status: TransmitStatus::empty(),
            receive_status: ReceiveStatus::empty(),
            interrupts: Interrupts::RESET,
            mask: Interrupts::empty(),
            remote_address: 0,
            remote_count: 0,
            remote_next: 0,
            receive_config: ReceiveConfig::empty(),
            transmit_config: TransmitConfig::empty(),
            data_config: DataConfig::LONG,
            tallies: [0; 3],
            station: [0; 6],
            groups: [0; 8],
            realtek,
        }
    }

    /// A reset of the board: power-up again.
    pub(crate) fn power_up(&mut self) {
        let realtek = self.realtek.map(|_| Realtek::RESET);
        let mut memory = core::mem::take(&mut self.memory);
        memory.clear();
        *self = Self::with_memory(self.nic, memory, realtek);
    }

    /// A reset of the controller, which touches few registers (DP8390D, "Reset").
    fn reset(&mut self) {
        self.command = Command::STOP | Command::ABORT;
        self.interrupts |= Interrupts::RESET;
        self.mask = Interrupts::empty();
        self.data_config |= DataConfig::LONG;
        self.transmit_config -= TransmitConfig::LOOPBACK;
    }

    /// Whether the port at `offset` is the data port.
    pub(crate) const fn is_data(offset: u16) -> bool {
        DATA <= offset && offset < RESET
    }

    /// Its number among the board's network cards.
    pub(crate) const fn nic(&self) -> u8 {
        self.nic
    }

    /// Whether it asks for its interrupt.
    pub(crate) const fn interrupt(&self) -> bool {
        self.interrupts.intersects(self.mask)
    }

    /// A read of `width` from the port at `offset`, 0 to 31.
    pub(crate) fn read_port(
        &mut self,
        offset: u16,
        width: Width,
        effects: &mut impl Effects,
    ) -> u32 {
        if Self::is_data(offset) {
            return self.moving(effects, |card, _| card.read_data(width));
        }
        let mut value = 0;
        for (index, at) in (offset..).take(usize::from(width.bytes())).enumerate() {
            value |= u32::from(self.read_byte(at, effects)) << (8 * index);
        }
        value
    }

    fn read_byte(&mut self, offset: u16, effects: &mut impl Effects) -> u8 {
        match offset {
            0..DATA => self.read_register(offset as u8),
            DATA..RESET => self.read_port(offset, Width::Byte, effects) as u8,
            RESET..PORTS => {
                self.reset();
                0xFF
            }
            _ => 0xFF,
        }
    }

    /// A write of `width` to the port at `offset`, 0 to 31.
    pub(crate) fn write_port(
        &mut self,
        offset: u16,
        width: Width,
        value: u32,
        effects: &mut impl Effects,
    ) {
        if Self::is_data(offset) {
            return self.write_data(width, value);
        }
        for (index, at) in (offset..).take(usize::from(width.bytes())).enumerate() {
            let byte = (value >> (8 * index)) as u8;
            match at {
                0..DATA => self.moving(effects, |card, effects| {
                    card.write_register(at as u8, byte, effects);
                }),
                DATA..RESET => self.write_data(Width::Byte, u32::from(byte)),
                // A write ends what a read of these ports begins, and that ended already.
                _ => {}
            }
        }
    }

    /// As many reads of `width` from the data port as fill `bytes` or as there are data for; returns the bytes that were
    /// read.
    pub(crate) fn read_string(
        &mut self,
        width: Width,
        bytes: &mut [u8],
        effects: &mut impl Effects,
    ) -> usize {
        self.moving(effects, |card, _| card.read_run(width, bytes))
    }

    /// Does an access, and says so if it made room for frames.
    fn moving<E: Effects, T>(
        &mut self,
        effects: &mut E,
        access: impl FnOnce(&mut Self, &mut E) -> T,
    ) -> T {
        let room = self.room();
        let result = access(self, effects);
        if !room && self.room() {
            effects.room_for_frames(self.nic);
        }
        result
    }

    fn read_register(&mut self, offset: u8) -> u8 {
        let Some(register) = Readable::decode(self.command.page(), offset) else {
            return 0xFF;
        };
        let byte = |bytes: &[u8], at: u8| bytes.get(usize::from(at)).copied().unwrap_or(0xFF);
        match register {
            Readable::Command => self.command.bits(),
            Readable::LocalAddress(at) => byte(&[0, self.current], at),
            Readable::Boundary => self.boundary,
            Readable::TransmitStatus => self.transmit_status.bits(),
            Readable::Collisions | Readable::Fifo => 0,
            Readable::Interrupts => self.interrupts.bits(),
            Readable::RemoteAddress(at) => byte(&self.remote_address.to_le_bytes(), at),
            Readable::ReceiveStatus => self.receive_status.bits(),
            Readable::Tally(at) => {
                let tally = self.tallies.get_mut(usize::from(at));
                tally.map_or(0, core::mem::take)
            }
            Readable::Station(at) => byte(&self.station, at),
            Readable::Current => self.current,
            Readable::Group(at) => byte(&self.groups, at),
            Readable::PageStart => self.page_start,
            Readable::PageStop => self.page_stop,
            Readable::RemoteNext => self.remote_next,
            Readable::TransmitPage => self.transmit_page,
            Readable::ReceiveConfig => self.receive_config.bits() | !ReceiveConfig::all().bits(),
            Readable::TransmitConfig => self.transmit_config.bits() | !TransmitConfig::all().bits(),
            Readable::DataConfig => self.data_config.bits() | !DataConfig::all().bits(),
            Readable::Mask => self.mask.bits(),
            Readable::Signature(at) => self.realtek.map_or(0xFF, |_| byte(&Realtek::SIGNATURE, at)),
            Readable::EepromCommand => self.realtek.map_or(0xFF, |chip| chip.eeprom.bits()),
            // The version, and a medium that is not coaxial.
            Readable::Config0 => self.realtek.map_or(0xFF, |_| 0),
            Readable::Config2 => self.realtek.map_or(0xFF, |chip| chip.config2.bits()),
            Readable::Config3 => self.realtek.map_or(0xFF, |chip| chip.config3.bits()),
            Readable::Model(at) => self.realtek.map_or(0xFF, |_| byte(&Realtek::MODEL, at)),
        }
    }

    fn write_register(&mut self, offset: u8, value: u8, effects: &mut impl Effects) {
        let Some(register) = Writable::decode(self.command.page(), offset) else {
            return;
        };
        let merge = |word: u16, at: u8| {
            let lane = 8 * u32::from(at);
            word & !(0xFF << lane) | u16::from(value) << lane
        };
        match register {
            Writable::Command => self.write_command(value, effects),
            Writable::PageStart => self.page_start = value,
            Writable::PageStop => self.page_stop = value,
            Writable::Boundary => {
                self.boundary = value;
                // What overflowed has room again.
                if self.command.online() {
                    self.interrupts -= Interrupts::RESET;
                }
            }
            Writable::TransmitPage => self.transmit_page = value,
            Writable::TransmitCount(at) => self.transmit_count = merge(self.transmit_count, at),
            Writable::Interrupts => {
                self.interrupts -= Interrupts::from_bits_truncate(value) - Interrupts::RESET;
            }
            Writable::RemoteAddress(at) => self.remote_address = merge(self.remote_address, at),
            Writable::RemoteCount(at) => self.remote_count = merge(self.remote_count, at),
            Writable::ReceiveConfig => {
                self.receive_config = ReceiveConfig::from_bits_truncate(value);
            }
            Writable::TransmitConfig => {
                self.transmit_config = TransmitConfig::from_bits_truncate(value);
            }
            Writable::DataConfig => self.data_config = DataConfig::from_bits_truncate(value),
            Writable::Mask => {
                self.mask = Interrupts::from_bits_truncate(value) - Interrupts::RESET;
            }
            Writable::Station(at) => set(&mut self.station, at, value),
            Writable::Current => self.current = value,
            Writable::Group(at) => set(&mut self.groups, at, value),
            Writable::EepromCommand | Writable::Config2 | Writable::Config3 => {
                if let Some(chip) = &mut self.realtek {
                    chip.write(register, value);
                }
            }
        }
    }

    /// The command register. Without start or stop, the controller stays as it is.
    fn write_command(&mut self, value: u8, effects: &mut impl Effects) {
        let state = Command::START | Command::STOP;
        let mut command = Command::from_bits_retain(value);
        if !command.intersects(state) {
            command |= self.command & state;
        }
        let waits = self.working();
        command.set(
            Command::TRANSMIT,
            command.online() && (waits || command.contains(Command::TRANSMIT)),
        );
        self.command = command;
        if command.contains(Command::STOP) {
            self.interrupts |= Interrupts::RESET;
        } else if value & Command::START.bits() != 0 {
            self.interrupts -= Interrupts::RESET;
        }
        self.start_remote();
        if self.working() && !waits {
            self.work(effects);
        }
    }
}

impl Realtek {
    fn write(&mut self, register: Writable, value: u8) {
        match register {
            Writable::EepromCommand => self.eeprom = EepromCommand::from_bits_truncate(value),
            Writable::Config2 if self.unlocked() => {
                self.config2 = Config2::from_bits_truncate(value);
            }
            Writable::Config3 if self.unlocked() => {
                self.config3 = Config3::from_bits_truncate(value);
            }
            _ => {}
        }
    }
}

fn set(bytes: &mut [u8], at: u8, value: u8) {
    if let Some(byte) = bytes.get_mut(usize::from(at)) {
        *byte = value;
    }
}
