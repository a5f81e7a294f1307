//! The PCI bus (PCI Local Bus Specification 3.0).

use core::fmt;
use core::str::FromStr;

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
