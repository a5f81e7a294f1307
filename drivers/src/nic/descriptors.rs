//! Descriptors: 16 bytes, as two 64-bit words of which the first mostly is a buffer's address.

use super::Checksum;

/// Bytes of a descriptor.
pub(super) const DESCRIPTOR_BYTES: usize = 16;

/// The layouts that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Of the 8254x (sections 3.2.3 and 3.3) and the 82574 (sections 7.1.4 and 7.2.10).
    Legacy,
    /// Of the 82576 (sections 7.1.5 and 7.2.2).
    Advanced,
}

/// What the card wrote to a receive descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Bytes in its buffer.
    pub(super) length: usize,
    /// The frame ends here.
    pub(super) last: bool,
    /// The frame is damaged.
    pub(super) damaged: bool,
    /// See [`super::Received::checksum_valid`].
    pub(super) checksum_valid: bool,
}

/// What the card does to frames that ask for it, until it is told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context([u64; 2]);

impl Context {
    pub(super) fn words(self) -> [u64; 2] {
        self.0
    }
}

/// Bits of a transmit descriptor's second word.
mod transmit {
    pub(super) const DATA_LEGACY: u64 = 0b0001 << 20;
    pub(super) const CONTEXT_ADVANCED: u64 = 0b0010 << 20;
    pub(super) const DATA_ADVANCED: u64 = 0b0011 << 20;
    pub(super) const END_OF_FRAME: u64 = 1 << 24;
    pub(super) const INSERT_CRC: u64 = 1 << 25;
    pub(super) const REPORT: u64 = 1 << 27;
    pub(super) const EXTENDED: u64 = 1 << 29;
    pub(super) const DONE: u64 = 1 << 32;
    pub(super) const INSERT_CHECKSUM: u64 = 1 << 41;
    /// Of an advanced descriptor: the frame's length, without headers where it is cut.
    pub(super) const PAYLOAD_SHIFT: u32 = 46;
}

impl Format {
    /// A receive descriptor for the card.
    pub(super) fn empty(buffer: u64) -> [u64; 2] {
        [buffer, 0]
    }

    /// Reads the second word of a receive descriptor; `None` if it is the card's still.
    pub(super) fn written(self, word: u64) -> Option<Written> {
        match self {
            Self::Legacy => {
                const DONE: u8 = 1 << 0;
                const LAST: u8 = 1 << 1;
                const IGNORE_CHECKSUMS: u8 = 1 << 2;
                const L4_CHECKED: u8 = 1 << 5;
                const L4_WRONG: u8 = 1 << 5;
                const IP_WRONG: u8 = 1 << 6;
                let [length0, length1, _, _, status, errors, _, _] = word.to_le_bytes();
                (status & DONE != 0).then_some(Written {
                    length: usize::from(u16::from_le_bytes([length0, length1])),
                    last: status & LAST != 0,
                    damaged: errors & !(L4_WRONG | IP_WRONG) != 0,
                    checksum_valid: status & (IGNORE_CHECKSUMS | L4_CHECKED) == L4_CHECKED
                        && errors & (L4_WRONG | IP_WRONG) == 0,
                })
            }
            Self::Advanced => {
                const DONE: u32 = 1 << 0;
                const LAST: u32 = 1 << 1;
                const L4_CHECKED: u32 = 1 << 5;
                const L4_WRONG: u32 = 1 << 29;
                const IP_WRONG: u32 = 1 << 30;
                const DAMAGED: u32 = 1 << 31;
                let status = word as u32;
                (status & DONE != 0).then_some(Written {
                    length: usize::from((word >> 32) as u16),
                    last: status & LAST != 0,
                    damaged: status & DAMAGED != 0,
                    checksum_valid: status & L4_CHECKED != 0 && status & (L4_WRONG | IP_WRONG) == 0,
                })
            }
        }
    }

    /// A transmit descriptor for a whole frame.
    pub(super) fn frame(self, buffer: u64, length: u16, checksum: bool) -> [u64; 2] {
        use transmit::{
            DATA_ADVANCED, DATA_LEGACY, END_OF_FRAME, EXTENDED, INSERT_CHECKSUM, INSERT_CRC,
            PAYLOAD_SHIFT, REPORT,
        };
        let length = u64::from(length);
        let kind = match self {
            Self::Legacy => DATA_LEGACY,
            Self::Advanced => DATA_ADVANCED | length << PAYLOAD_SHIFT,
        };
        let checksum = if checksum { INSERT_CHECKSUM } else { 0 };
        let flags = END_OF_FRAME | INSERT_CRC | REPORT | EXTENDED;
        [buffer, length | kind | flags | checksum]
    }

    /// Whether the card is done with a transmit descriptor, by its second word.
    pub(super) fn sent(word: u64) -> bool {
        word & transmit::DONE != 0
    }

    /// How a card is told to insert this checksum; `None` if it cannot. `frame` is at least its header, up to the checksum.
    pub(super) fn context(self, checksum: Checksum, frame: &[u8]) -> Option<Context> {
        use transmit::{CONTEXT_ADVANCED, EXTENDED};
        let target = checksum.start.checked_add(checksum.offset)?;
        if usize::from(target) + 2 > frame.len() {
            return None;
        }
        match self {
            // Any two bytes that a byte can name.
            Self::Legacy => {
                let start = u8::try_from(checksum.start).ok()?;
                let target = u8::try_from(target).ok()?;
                // To the frame's end: the end's field stays 0.
                let word = u64::from(start) << 32 | u64::from(target) << 40;
                Some(Context([word, EXTENDED]))
            }
            // The card knows where TCP and UDP keep their checksums, and wants to know what comes before them.
            Self::Advanced => {
                const TCP: u64 = 0b01 << 11;
                const IPV4: u64 = 1 << 10;
                const IP_LENGTH_MAX: u16 = 0x1FF;
                let protocol = match checksum.offset {
                    16 => TCP,
                    6 => 0,
                    _ => return None,
                };
                let (header, ether_type) = ether_type(frame)?;
                let version = match ether_type {
                    0x0800 => IPV4,
                    0x86DD => 0,
                    _ => return None,
                };
                let ip_length = checksum.start.checked_sub(header)?;
                let fits = (1..=IP_LENGTH_MAX).contains(&ip_length);
                fits.then_some(Context([
                    u64::from(ip_length) | u64::from(header) << 9,
                    CONTEXT_ADVANCED | EXTENDED | protocol | version,
                ]))
            }
        }
    }
}

/// The length of a frame's Ethernet header, and what follows it (IEEE 802.1Q, 9.4).
fn ether_type(frame: &[u8]) -> Option<(u16, u16)> {
    const TAGGED: u16 = 0x8100;
    let at = |offset: usize| {
        let bytes = frame.get(offset..offset + 2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    match at(12)? {
        TAGGED => Some((18, at(16)?)),
        other => Some((14, other)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Checksum, Context, Format, Written};

    #[test]
    fn receive_descriptors_tell_length_and_checksums() {
        let frame = |checksum_valid| Written {
            length: 0x5EA,
            last: true,
            damaged: false,
            checksum_valid,
        };
        for format in [Format::Legacy, Format::Advanced] {
            assert_eq!(format.written(0), None);
        }
        // Status 0x63: done, last, TCP and IP checked.
        let legacy = |word| Format::Legacy.written(word);
        assert_eq!(legacy(0x0063_1234_05EA), Some(frame(true)));
        assert_eq!(
            legacy(0x0067_1234_05EA),
            Some(frame(false)),
            "to be ignored"
        );
        assert_eq!(legacy(0x2063_1234_05EA), Some(frame(false)), "TCP wrong");
        assert_eq!(legacy(0x4063_1234_05EA), Some(frame(false)), "IP wrong");
        assert_eq!(legacy(0x0003_1234_05EA), Some(frame(false)), "not checked");
        assert!(legacy(0x0163_1234_05EA).is_some_and(|written| written.damaged));
        assert!(legacy(0x0061_1234_05EA).is_some_and(|written| !written.last));

        let advanced = |word| Format::Advanced.written(word);
        assert_eq!(advanced(0x0000_05EA_0000_0063), Some(frame(true)));
        assert_eq!(advanced(0x0000_05EA_2000_0063), Some(frame(false)));
        assert_eq!(advanced(0x0000_05EA_4000_0063), Some(frame(false)));
        assert_eq!(advanced(0x0000_05EA_0000_0003), Some(frame(false)));
        assert!(advanced(0x0000_05EA_8000_0063).is_some_and(|written| written.damaged));
    }

    #[test]
    fn transmit_descriptors_hold_whole_frames() {
        let legacy = Format::Legacy.frame(0x1234_5000, 60, false);
        assert_eq!(legacy, [0x1234_5000, 0x2B10_003C]);
        let advanced = Format::Advanced.frame(0x1234_5000, 60, true);
        assert_eq!(advanced, [0x1234_5000, 60 << 46 | 0x0200_2B30_003C]);
        assert!(!Format::sent(legacy[1]) && !Format::sent(advanced[1]));
        assert!(Format::sent(legacy[1] | 1 << 32));
    }

    fn tcp_at(start: u16) -> Checksum {
        Checksum { start, offset: 16 }
    }

    #[test]
    fn older_cards_insert_a_checksum_anywhere_near_the_start() {
        let context = |checksum, length| Format::Legacy.context(checksum, &[0; 1514][..length]);
        let expected = Context([34 << 32 | 50 << 40, 0x2000_0000]);
        assert_eq!(context(tcp_at(34), 60), Some(expected));
        assert_eq!(context(tcp_at(34), 51), None, "behind the end");
        assert_eq!(context(tcp_at(240), 1514), None, "out of a byte's reach");
        assert_eq!(context(tcp_at(u16::MAX), 1514), None);
    }

    #[test]
    fn newer_cards_insert_those_of_tcp_and_udp_over_ip() {
        let mut frame = [0; 80];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        let context = |checksum, frame: &[u8]| Format::Advanced.context(checksum, frame);
        let expected = Context([14 << 9 | 20, 0x2020_0C00]);
        assert_eq!(context(tcp_at(34), &frame), Some(expected));
        let udp = |start| Checksum { start, offset: 6 };
        let expected = Context([14 << 9 | 20, 0x2020_0400]);
        assert_eq!(context(udp(34), &frame), Some(expected));
        let other = Checksum {
            start: 34,
            offset: 2,
        };
        assert_eq!(context(other, &frame), None);
        assert_eq!(context(tcp_at(14), &frame), None, "no IP header");

        frame[12..18].copy_from_slice(&[0x81, 0x00, 0x00, 0x05, 0x86, 0xDD]);
        let expected = Context([18 << 9 | 40, 0x2020_0800]);
        assert_eq!(context(tcp_at(58), &frame), Some(expected));
        frame[16] = 0;
        assert_eq!(context(tcp_at(58), &frame), None, "not IP");
    }
}
