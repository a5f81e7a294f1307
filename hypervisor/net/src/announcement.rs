//! A frame by which a network learns where a station is.

use crate::MacAddress;
use crate::header::{ADDRESSES, HEADER, RARP_TYPE};

/// Bytes of the frame: the shortest that there is, without its checksum.
pub const ANNOUNCEMENT_BYTES: usize = 60;

/// Hardware type Ethernet and protocol type IPv4, the lengths of their addresses, and the operation "request reverse" (RFC 903).
const REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 3];
/// Bytes of an IPv4 address.
const PROTOCOL_ADDRESS: usize = 4;

/// A station's question to everybody for its own IP address (RARP, RFC 903). Nobody answers it, and it needs no IP address
/// to be known, but switches see it come from where the station is now.
#[must_use]
pub fn announcement(station: MacAddress) -> [u8; ANNOUNCEMENT_BYTES] {
    const SENDER: usize = HEADER + REQUEST.len();
    const TARGET: usize = SENDER + 6 + PROTOCOL_ADDRESS;
    let mut frame = [0; ANNOUNCEMENT_BYTES];
    frame[..6].copy_from_slice(&MacAddress::BROADCAST.0);
    frame[6..ADDRESSES].copy_from_slice(&station.0);
    frame[ADDRESSES..HEADER].copy_from_slice(&RARP_TYPE.to_be_bytes());
    frame[HEADER..SENDER].copy_from_slice(&REQUEST);
    frame[SENDER..SENDER + 6].copy_from_slice(&station.0);
    frame[TARGET..TARGET + 6].copy_from_slice(&station.0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Header;

    #[test]
    fn an_announcement_is_the_stations_own_broadcast() {
        let station = MacAddress([0x52, 0x54, 0, 1, 2, 3]);
        let frame = announcement(station);
        let header = Header::read(&frame).expect("a header");
        assert_eq!(header.destination, MacAddress::BROADCAST);
        assert_eq!(header.source, station);
        // What the guard against wrong senders looks at.
        assert!(header.is_of(station, &frame));
        assert!(!header.is_of(MacAddress::BROADCAST, &frame));
        assert_eq!(frame[20..22], [0, 3]);
    }
}
