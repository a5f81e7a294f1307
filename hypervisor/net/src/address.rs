//! Hardware addresses.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// An Ethernet address (IEEE 802, 8.2), in the order of transmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address of all stations.
    pub const BROADCAST: Self = Self([0xFF; 6]);

    /// Whether it names several stations; the broadcast address does, too.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it can be a station's own: not a group's, and not all zeroes.
    #[must_use]
    pub const fn is_station(self) -> bool {
        !self.is_group() && self.bits() != 0
    }

    /// As a number of 48 bits.
    pub(crate) const fn bits(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        (u32::from_be_bytes([a, b, c, d]) as u64) << 16 | u16::from_be_bytes([e, f]) as u64
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text that is no hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseMacError;

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a MAC address is six pairs of hexadecimal digits with colons between them")
    }
}

impl core::error::Error for ParseMacError {}

impl FromStr for MacAddress {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let mut parts = text.split(':');
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part = parts.next().ok_or(ParseMacError)?;
            let digits = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16)
                .ok()
                .filter(|_| digits)
                .ok_or(ParseMacError)?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(ParseMacError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_back(bytes: [u8; 6]) {
            let address = MacAddress(bytes);
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn other_texts_are_none() {
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:5",
            "52:54:00:12:34:+5",
            "52-54-00-12-34-56",
        ] {
            assert_eq!(text.parse::<MacAddress>(), Err(ParseMacError), "{text}");
        }
    }

    #[test]
    fn groups_and_stations() {
        assert!(MacAddress::BROADCAST.is_group());
        assert!(MacAddress([1, 0, 0x5E, 0, 0, 1]).is_group());
        assert!(MacAddress([0x52, 0x54, 0, 0, 0, 1]).is_station());
        assert!(!MacAddress([0; 6]).is_station());
    }
}
