//! What a PCI function's configuration says of it (PCI Local Bus 3.0, chapter 6; virtio 1.2, 4.1.4).

use core::fmt;

use super::is_bus_line;

/// A function's configuration, read in double words.
pub trait Configuration {
    /// The double word at an offset, which is a multiple of four.
    fn read(&self, offset: u8) -> u32;
}

/// Vendor and device.
pub const ID: u8 = 0x00;
/// Command below, status above.
pub const COMMAND: u8 = 0x04;
const HEADER: u8 = 0x0c;
const FIRST_BAR: u8 = 0x10;
/// Where a bridge keeps its bus numbers.
const BUSES: u8 = 0x18;
const CAPABILITIES: u8 = 0x34;
const INTERRUPT: u8 = 0x3c;

const STATUS_HAS_CAPABILITIES: u32 = 1 << 20;
const VENDOR_SPECIFIC: u8 = 0x09;
/// Capabilities lie behind the header, and each has at least a double word.
const MOST_CAPABILITIES: usize = 48;

/// Why a function cannot be driven.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Defect {
    /// A base address register is empty, beyond 4 GiB, or of no kind that there is.
    BaseAddress(u8),
    /// A capability of virtio that must be there is not: its type.
    Structure(u8),
    /// A structure of virtio is smaller than its registers, or leaves the addresses that there are: its type.
    Bounds(u8),
    /// It has no interrupt, or the firmware has given it no line of the bus; what stands in the register.
    Interrupt(u8),
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BaseAddress(index) => write!(f, "its base address {index} cannot be used"),
            Self::Structure(kind) => write!(f, "its structure {kind} is missing"),
            Self::Bounds(kind) => write!(f, "its structure {kind} is not where one can be"),
            Self::Interrupt(line) => write!(f, "its interrupt line is {line}"),
        }
    }
}

/// Where registers are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Region {
    /// From this port on.
    Ports(u16),
    /// From this address on.
    Memory(u32),
}

impl Region {
    /// The region that begins so many bytes further and has `length` bytes; `None` if that leaves the ports or addresses.
    #[must_use]
    pub fn part(self, offset: u32, length: u32) -> Option<Self> {
        let last = offset.checked_add(length.checked_sub(1)?)?;
        match self {
            Self::Ports(port) => {
                port.checked_add(u16::try_from(last).ok()?)?;
                Some(Self::Ports(port + offset as u16))
            }
            Self::Memory(address) => {
                address.checked_add(last)?;
                Some(Self::Memory(address + offset))
            }
        }
    }
}

/// Whether there is no function.
#[must_use]
pub fn is_absent(configuration: &impl Configuration) -> bool {
    configuration.read(ID) & 0xffff == 0xffff
}

/// Whether the device has more functions than this first one.
#[must_use]
pub fn has_more_functions(configuration: &impl Configuration) -> bool {
    configuration.read(HEADER) & 1 << 23 != 0
}

/// The bus behind it, if it is a bridge to another one.
#[must_use]
pub fn bus_behind(configuration: &impl Configuration) -> Option<u8> {
    let is_bridge = configuration.read(HEADER) >> 16 & 0x7f == 1;
    is_bridge.then(|| (configuration.read(BUSES) >> 8) as u8)
}

/// What a base address register says.
///
/// # Errors
/// If there is nothing that this program can reach.
pub fn base_address(configuration: &impl Configuration, index: u8) -> Result<Region, Defect> {
    let defect = Defect::BaseAddress(index);
    if index > 5 {
        return Err(defect);
    }
    let register = |index: u8| configuration.read(FIRST_BAR + index * 4);
    let low = register(index);
    if low & 1 != 0 {
        let port = u16::try_from(low & !3).map_err(|_| defect)?;
        return (port != 0).then_some(Region::Ports(port)).ok_or(defect);
    }
    let is_low = match low >> 1 & 3 {
        0 => true,
        2 => index < 5 && register(index + 1) == 0,
        _ => false,
    };
    let address = low & !0xf;
    (is_low && address != 0)
        .then_some(Region::Memory(address))
        .ok_or(defect)
}

/// The interrupt line that the firmware has given it.
///
/// # Errors
/// If there is none.
pub fn interrupt_line(configuration: &impl Configuration) -> Result<u8, Defect> {
    let [line, pin, ..] = configuration.read(INTERRUPT).to_le_bytes();
    let is_line = pin != 0 && is_bus_line(line);
    is_line.then_some(line).ok_or(Defect::Interrupt(line))
}

/// Where the registers of a virtio device are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Structures {
    /// The common configuration.
    pub common: Region,
    /// The doorbells.
    pub notify: Region,
    /// Bytes of the doorbells.
    notify_length: u32,
    /// Bytes from one doorbell to the next.
    multiplier: u32,
    /// Why it interrupts.
    pub isr: Region,
    /// What is particular to this kind of device.
    pub device: Region,
}

/// A capability's type, and the bytes that its structure must have.
const COMMON: (u8, u32) = (1, 0x38);
const NOTIFY: (u8, u32) = (2, 2);
const ISR: (u8, u32) = (3, 1);
/// A network card's address and status.
const DEVICE: (u8, u32) = (4, 8);

impl Structures {
    /// Walks the capabilities. Of several of one type the first counts, as the device prefers it (4.1.4.1).
    ///
    /// # Errors
    /// If one is missing, or is where it cannot be.
    pub fn find(configuration: &impl Configuration) -> Result<Self, Defect> {
        let region = |(kind, least): (u8, u32)| -> Result<(Region, u32, u32), Defect> {
            let capability = capabilities(configuration)
                .find(|&at| {
                    let [id, _, _, found] = configuration.read(at).to_le_bytes();
                    id == VENDOR_SPECIFIC && found == kind
                })
                .ok_or(Defect::Structure(kind))?;
            // A capability's place is at most 0xfc; one that does not fit is none.
            let word = |index: u8| {
                let at = capability.checked_add(index * 4);
                at.map(|at| configuration.read(at))
                    .ok_or(Defect::Bounds(kind))
            };
            let [index, ..] = word(1)?.to_le_bytes();
            let (offset, length) = (word(2)?, word(3)?);
            if length < least {
                return Err(Defect::Bounds(kind));
            }
            let whole = base_address(configuration, index)?;
            let part = whole.part(offset, length).ok_or(Defect::Bounds(kind))?;
            let multiplier = if kind == NOTIFY.0 { word(4)? } else { 0 };
            Ok((part, length, multiplier))
        };
        let (notify, notify_length, multiplier) = region(NOTIFY)?;
        Ok(Self {
            common: region(COMMON)?.0,
            notify,
            notify_length,
            multiplier,
            isr: region(ISR)?.0,
            device: region(DEVICE)?.0,
        })
    }

    /// The doorbell of a queue that is the so many-th by its notify offset.
    ///
    /// # Errors
    /// If it is outside of the doorbells.
    pub fn doorbell(&self, number: u16) -> Result<Region, Defect> {
        let defect = Defect::Bounds(NOTIFY.0);
        let offset = u32::from(number)
            .checked_mul(self.multiplier)
            .ok_or(defect)?;
        let is_inside = offset
            .checked_add(2)
            .is_some_and(|end| end <= self.notify_length);
        let doorbell = self.notify.part(offset, 2);
        doorbell.filter(|_| is_inside).ok_or(defect)
    }
}

/// The places of the capabilities.
fn capabilities(configuration: &impl Configuration) -> impl Iterator<Item = u8> {
    let has = configuration.read(COMMAND) & STATUS_HAS_CAPABILITIES != 0;
    let first = if has {
        configuration.read(CAPABILITIES) as u8
    } else {
        0
    };
    let place = |pointer: u8| Some(pointer & !3).filter(|&at| at >= 0x40);
    core::iter::successors(place(first), move |&at| {
        place((configuration.read(at) >> 8) as u8)
    })
    .take(MOST_CAPABILITIES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        Configuration, Defect, Region, Structures, base_address, bus_behind, has_more_functions,
        interrupt_line, is_absent,
    };

    struct Bytes([u8; 256]);

    impl Configuration for Bytes {
        fn read(&self, offset: u8) -> u32 {
            assert_eq!(offset % 4, 0);
            let at = usize::from(offset);
            u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap())
        }
    }

    impl Bytes {
        fn set(&mut self, at: usize, value: u32) {
            self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }

    /// A virtio-net device with everything behind one register.
    fn virtio(bar: usize, low: u32) -> Bytes {
        let mut bytes = Bytes([0; 256]);
        bytes.set(0, 0x1041_1af4);
        bytes.set(4, 1 << 20);
        bytes.set(0x10 + bar * 4, low);
        bytes.set(0x34, 0x40);
        bytes.set(0x3c, 0x10b);
        // Not one of virtio's.
        bytes.set(0x40, 0x5011);
        let structures = [(1, 0, 0x38), (3, 0x38, 1), (4, 0x40, 0x14), (2, 0x80, 8)];
        for (index, (kind, offset, length)) in structures.into_iter().enumerate() {
            let at = 0x50 + index * 0x14;
            let next = if index == 3 { 0 } else { at as u32 + 0x14 };
            bytes.set(at, kind << 24 | 0x14 << 16 | next << 8 | 9);
            bytes.set(at + 4, bar as u32);
            bytes.set(at + 8, offset);
            bytes.set(at + 12, length);
            bytes.set(at + 16, 4);
        }
        bytes
    }

    #[test]
    fn structures_in_ports_and_in_memory() {
        let found = Structures::find(&virtio(0, 0xc001)).unwrap();
        assert_eq!(found.common, Region::Ports(0xc000));
        assert_eq!(found.isr, Region::Ports(0xc038));
        assert_eq!(found.device, Region::Ports(0xc040));
        assert_eq!(found.doorbell(0), Ok(Region::Ports(0xc080)));
        assert_eq!(found.doorbell(1), Ok(Region::Ports(0xc084)));
        assert_eq!(found.doorbell(2), Err(Defect::Bounds(2)));
        // A prefetchable one of 64 bits.
        let found = Structures::find(&virtio(4, 0xfebf_000c)).unwrap();
        assert_eq!(found.device, Region::Memory(0xfebf_0040));
        assert_eq!(found.doorbell(1), Ok(Region::Memory(0xfebf_0084)));
    }

    #[test]
    fn defects_are_found() {
        let with = |change: &dyn Fn(&mut Bytes)| {
            let mut bytes = virtio(4, 0xfebf_000c);
            change(&mut bytes);
            Structures::find(&bytes).unwrap_err()
        };
        assert_eq!(with(&|bytes| bytes.set(0x24, 1)), Defect::BaseAddress(4));
        assert_eq!(with(&|bytes| bytes.set(0x20, 0xc)), Defect::BaseAddress(4));
        assert_eq!(with(&|bytes| bytes.0[0x54] = 6), Defect::BaseAddress(6));
        assert_eq!(with(&|bytes| bytes.0[0x53] = 9), Defect::Structure(1));
        assert_eq!(with(&|bytes| bytes.set(4, 0)), Defect::Structure(2));
        assert_eq!(with(&|bytes| bytes.set(0x5c, 0x37)), Defect::Bounds(1));
        assert_eq!(
            with(&|bytes| bytes.set(0x58, 0x0140_ffff)),
            Defect::Bounds(1)
        );
    }

    #[test]
    fn lines_of_the_pc() {
        let with = |register: u32| {
            let mut bytes = virtio(0, 0xc001);
            bytes.set(0x3c, register);
            interrupt_line(&bytes)
        };
        assert_eq!(with(0x10b), Ok(11));
        for (register, line) in [
            (0x00b, 11),
            (0x1ff, 255),
            (0x100, 0),
            (0x110, 16),
            (0x104, 4),
            (0x102, 2),
        ] {
            assert_eq!(with(register), Err(Defect::Interrupt(line)));
        }
    }

    #[test]
    fn headers() {
        assert!(is_absent(&Bytes([0xff; 256])) && !is_absent(&virtio(0, 0xc001)));
        let mut bridge = virtio(0, 0xc001);
        assert_eq!(
            (bus_behind(&bridge), has_more_functions(&bridge)),
            (None, false)
        );
        bridge.0[0x0e] = 0x81;
        bridge.set(0x18, 0x0005_0300);
        assert_eq!(
            (bus_behind(&bridge), has_more_functions(&bridge)),
            (Some(3), true)
        );
    }

    #[test]
    fn parts_stay_within() {
        assert_eq!(
            Region::Ports(0xfff0).part(8, 8),
            Some(Region::Ports(0xfff8))
        );
        assert_eq!(Region::Ports(0xfff0).part(8, 9), None);
        assert_eq!(Region::Memory(0xffff_fff0).part(0x10, 1), None);
        assert_eq!(Region::Memory(0).part(u32::MAX, 2), None);
        assert_eq!(Region::Ports(0).part(0, 0), None);
    }

    proptest! {
        /// Whatever a configuration holds, the walk ends.
        #[test]
        fn any_configuration(bytes in prop::collection::vec(any::<u8>(), 256)) {
            let mut bytes = Bytes(bytes.try_into().unwrap());
            bytes.0[6] |= 0x10;
            let _ = Structures::find(&bytes);
            for index in 0..8 {
                let _ = base_address(&bytes, index);
            }
        }
    }
}
