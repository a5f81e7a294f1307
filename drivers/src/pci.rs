//! The PCI bus (PCI Local Bus Specification 3.0; sections named here are its own).

mod function;

pub use function::{Bar, Capability, Command, Function};

use crate::port;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;
use spin::Mutex;

/// Where a function is on the PCI bus; written `00:03.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// The bus.
    pub bus: u8,
    /// The device on it, 0 to 31.
    pub device: u8,
    /// The function of the device, 0 to 7.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// A text that is no PCI address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsePciAddressError;

impl fmt::Display for ParsePciAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a PCI address is written bus:device.function, in hexadecimal, like 00:1f.6")
    }
}

impl core::error::Error for ParsePciAddressError {}

impl FromStr for PciAddress {
    type Err = ParsePciAddressError;

    fn from_str(text: &str) -> Result<Self, ParsePciAddressError> {
        let number = |digits: &str, longest: usize, max: u8| {
            let plain = digits.len() <= longest && digits.bytes().all(|b| b.is_ascii_hexdigit());
            u8::from_str_radix(digits, 16)
                .ok()
                .filter(|number| plain && *number <= max)
                .ok_or(ParsePciAddressError)
        };
        let (bus, rest) = text.split_once(':').ok_or(ParsePciAddressError)?;
        let (device, function) = rest.split_once('.').ok_or(ParsePciAddressError)?;
        Ok(Self {
            bus: number(bus, 2, 0xFF)?,
            device: number(device, 2, 31)?,
            function: number(function, 1, 7)?,
        })
    }
}

/// What a device writes, and where, to interrupt a processor (section 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Physical address of the write.
    pub address: u64,
    /// The value.
    pub data: u32,
}

/// Access to configuration space, in aligned double words.
pub trait Configuration: Send + Sync {
    /// Reads the double word at byte `offset` of a function's configuration space; all ones if there is no such function.
    fn read(&self, address: PciAddress, offset: u8) -> u32;

    /// Writes it.
    fn write(&self, address: PciAddress, offset: u8, value: u32);
}

/// Configuration mechanism 1 (section 3.2.2.3.2).
struct Ports(Mutex<()>);

static PORTS: Ports = Ports(Mutex::new(()));

/// The board's configuration space, by ports.
///
/// # Safety
///
/// Nobody but the returned value may use ports 0xCF8 to 0xCFF.
pub unsafe fn configuration() -> &'static dyn Configuration {
    &PORTS
}

impl Ports {
    const ADDRESS: u16 = 0xCF8;
    const DATA: u16 = 0xCFC;
    /// An access takes some microseconds at most; who holds the lock longer was stopped by a panic, and will not go on.
    const PATIENCE: u32 = 1_000_000;

    fn with<T>(&self, address: PciAddress, offset: u8, access: impl FnOnce() -> T) -> T {
        const ENABLE: u32 = 1 << 31;
        let _guard = (0..Self::PATIENCE).find_map(|_| {
            core::hint::spin_loop();
            self.0.try_lock()
        });
        let selected = ENABLE
            | u32::from(address.bus) << 16
            | u32::from(address.device & 31) << 11
            | u32::from(address.function & 7) << 8
            | u32::from(offset & !3);
        // SAFETY: the ports are this value's by the contract of `configuration`.
        unsafe { port::write_u32(Self::ADDRESS, selected) };
        access()
    }
}

impl Configuration for Ports {
    fn read(&self, address: PciAddress, offset: u8) -> u32 {
        // SAFETY: the port is this value's; reading configuration space has no side effect.
        self.with(address, offset, || unsafe { port::read_u32(Self::DATA) })
    }

    fn write(&self, address: PciAddress, offset: u8, value: u32) {
        // SAFETY: the port is this value's; `Function` writes what its methods promise.
        self.with(address, offset, || unsafe {
            port::write_u32(Self::DATA, value);
        });
    }
}

/// Finds all functions, in the order of their addresses.
///
/// Every bus is looked at, not only those behind the bridges of bus 0: boards with several root bridges number them as they
/// like.
#[must_use]
pub fn enumerate(configuration: &'static dyn Configuration) -> Vec<Function> {
    let mut found: Vec<Function> = Vec::new();
    for bus in 0..=u8::MAX {
        for device in 0..32 {
            let at = |function| PciAddress {
                bus,
                device,
                function,
            };
            let Some(first) = Function::find(configuration, at(0)) else {
                continue;
            };
            let functions = if first.has_siblings() { 1..8 } else { 1..1 };
            found.push(first);
            found.extend(functions.filter_map(|f| Function::find(configuration, at(f))));
        }
    }
    let bridges: Vec<(u8, PciAddress)> = found
        .iter()
        .filter_map(|function| Some((function.secondary_bus()?, function.address())))
        .collect();
    for function in &mut found {
        let bus = function.address().bus;
        let above = bridges
            .iter()
            .find(|(secondary, bridge)| *secondary == bus && bridge.bus < bus);
        function.set_bridge(above.map(|(_, bridge)| *bridge));
    }
    found
}

#[cfg(test)]
mod tests;
