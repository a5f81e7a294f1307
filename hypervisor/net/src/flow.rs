//! Which flow a frame belongs to.

use crate::header::Header;

/// A number that all frames of a connection have in one direction, by addresses and ports of IPv4 and IPv6: frames that begin
/// with `head` and are of no such kind have 0.
#[must_use]
pub fn flow_hash(head: &[u8]) -> u32 {
    const IPV4: u16 = 0x0800;
    const IPV6: u16 = 0x86DD;
    let Some(header) = Header::read(head) else {
        return 0;
    };
    let Some(packet) = head.get(header.length()..) else {
        return 0;
    };
    let first = packet.first().copied().unwrap_or(0);
    let (addresses, protocol, transport, whole) = match header.kind() {
        IPV4 => {
            // A piece of a packet has no ports.
            const FRAGMENT: u8 = 0x3F;
            let whole =
                packet.get(6).is_some_and(|byte| byte & FRAGMENT == 0) && packet.get(7) == Some(&0);
            (12..20, 9, usize::from(first & 0xF) * 4, whole)
        }
        IPV6 => (8..40, 6, 40, true),
        _ => return 0,
    };
    let (Some(addresses), Some(protocol)) = (packet.get(addresses), packet.get(protocol)) else {
        return 0;
    };
    let ports = match protocol {
        6 | 17 if whole => packet.get(transport..transport + 4).unwrap_or(&[]),
        _ => &[],
    };
    let mut hash = 0_u32;
    for word in addresses
        .as_chunks::<4>()
        .0
        .iter()
        .chain(ports.as_chunks::<4>().0)
    {
        hash = (hash.rotate_left(5) ^ u32::from_ne_bytes(*word)).wrapping_mul(0x9E37_79B1);
    }
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(source: u8, port: u16, fragment: u8) -> Vec<u8> {
        let mut head = vec![2; 12];
        head.extend([8, 0, 0x45, 0, 0, 40, 0, 0, fragment, 0, 64, 17, 0, 0]);
        head.extend([10, 0, 0, source, 10, 0, 0, 9]);
        head.extend(port.to_be_bytes());
        head.extend([0, 53, 0, 8, 0, 0]);
        head
    }

    #[test]
    fn connections_differ_and_pieces_stay_together() {
        let one = flow_hash(&packet(1, 1000, 0));
        assert_eq!(one, flow_hash(&packet(1, 1000, 0x40)));
        assert_ne!(one, flow_hash(&packet(1, 1001, 0)));
        assert_ne!(one, flow_hash(&packet(2, 1000, 0)));
        assert_eq!(
            flow_hash(&packet(1, 1000, 0x20)),
            flow_hash(&packet(1, 1001, 0x20))
        );
        let mut tagged = packet(1, 1000, 0);
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        assert_eq!(flow_hash(&tagged), one);
        // All queues of a few get something.
        let mut seen = [false; 8];
        for port in 0..64 {
            seen[flow_hash(&packet(1, port, 0)) as usize % 8] = true;
        }
        assert_eq!(seen, [true; 8]);
    }

    proptest! {
        #[test]
        fn any_bytes_have_one(head in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = flow_hash(&head);
        }
    }
}
