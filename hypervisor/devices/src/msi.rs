//! Interrupt messages: what local APICs, I/O APICs and message-signalled devices say to processors.
//!
//! Sources: Intel SDM volume 3, chapter 11 "Advanced Programmable Interrupt Controller (APIC)", for MSI section 11.11.

/// The first vector that an interrupt may have; those below are for exceptions.
pub const FIRST_VECTOR: u8 = 16;

/// What a message does to a processor that it reaches.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// 000: the interrupt of the vector.
    Fixed,
    /// 001: the interrupt of the vector, at one of the processors that are addressed.
    LowestPriority,
    /// 010: a system management interrupt.
    Smi,
    /// 100: a non-maskable interrupt.
    Nmi,
    /// 101: an INIT.
    Init,
    /// 110: a start-up at the page that the vector names.
    StartUp,
    /// 111: an interrupt whose vector the 8259A pair supplies.
    ExtInt,
}

impl DeliveryMode {
    /// The mode in bits 8 to 10 of a register or of a message's data; `None` is the reserved 011.
    #[inline]
    #[must_use]
    pub const fn decode(register: u32) -> Option<Self> {
        match (register >> 8) & 7 {
            0 => Some(Self::Fixed),
            1 => Some(Self::LowestPriority),
            2 => Some(Self::Smi),
            4 => Some(Self::Nmi),
            5 => Some(Self::Init),
            6 => Some(Self::StartUp),
            7 => Some(Self::ExtInt),
            _ => None,
        }
    }
}

/// An interrupt message.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it does.
    pub mode: DeliveryMode,
    /// The vector. Of a start-up, the page at which to start; unused in other modes.
    pub vector: u8,
    /// Whether it stands for a level, so that its end must be told to the I/O APIC.
    pub level: bool,
}

impl Message {
    /// An edge-triggered interrupt.
    #[must_use]
    pub const fn fixed(vector: u8) -> Self {
        Self {
            mode: DeliveryMode::Fixed,
            vector,
            level: false,
        }
    }
}

/// Which processors a message is for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The sender.
    Itself,
    /// All processors, the sender too.
    Everyone,
    /// All processors but the sender.
    Others,
    /// The one with this APIC ID.
    Physical(u32),
    /// Those whose logical ID this selects; how depends on the mode of each local APIC.
    Logical(u32),
}

impl Destination {
    /// The 8-bit destination of an xAPIC, an I/O APIC or an MSI address; all ones is a broadcast in either mode.
    #[inline]
    #[must_use]
    pub const fn narrow(logical: bool, id: u8) -> Self {
        match (logical, id) {
            (_, 0xFF) => Self::Everyone,
            (false, id) => Self::Physical(id as u32),
            (true, id) => Self::Logical(id as u32),
        }
    }

    /// The 32-bit destination of an x2APIC; all ones is a broadcast in either mode.
    #[inline]
    #[must_use]
    pub const fn wide(logical: bool, id: u32) -> Self {
        match (logical, id) {
            (_, u32::MAX) => Self::Everyone,
            (false, id) => Self::Physical(id),
            (true, id) => Self::Logical(id),
        }
    }
}

/// A message on its way.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// For whom.
    pub destination: Destination,
    /// What.
    pub message: Message,
}

/// Addresses of messages: 0xFEExx000, above which everything is 0.
const ADDRESS_BASE: u64 = 0xFEE0_0000;
const ADDRESS_MASK: u64 = !0xF_FFFF;
/// Redirection hint: any one of the processors that are addressed.
const ADDRESS_REDIRECTION: u64 = 1 << 3;
/// Destination mode: the destination is a logical one.
const ADDRESS_LOGICAL: u64 = 1 << 2;
/// Level: the message asserts. Only meaningful with a level trigger.
const DATA_ASSERT: u32 = 1 << 14;
/// Trigger mode: level.
const DATA_LEVEL: u32 = 1 << 15;

/// The message that a device sends by writing `data` to `address` (SDM 11.11, "Message signalled interrupts").
///
/// `None` where no interrupt comes of it: the address is not one of messages, the delivery mode is reserved, or a
/// level ends.
#[must_use]
pub const fn decode(address: u64, data: u32) -> Option<Dispatch> {
    if address & ADDRESS_MASK != ADDRESS_BASE {
        return None;
    }
    let level = data & DATA_LEVEL != 0;
    if level && data & DATA_ASSERT == 0 {
        return None;
    }
    let redirected = address & ADDRESS_REDIRECTION != 0;
    let mode = match DeliveryMode::decode(data) {
        None | Some(DeliveryMode::StartUp) => return None,
        Some(DeliveryMode::Fixed) if redirected => DeliveryMode::LowestPriority,
        Some(mode) => mode,
    };
    Some(Dispatch {
        destination: Destination::narrow(address & ADDRESS_LOGICAL != 0, (address >> 12) as u8),
        message: Message {
            mode,
            vector: data as u8,
            level,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dispatch(address: u64, data: u32) -> Dispatch {
        decode(address, data).expect("a message")
    }

    #[test]
    fn a_message_as_linux_composes_it() {
        assert_eq!(
            dispatch(0xFEE0_3000, 0x0000_4041),
            Dispatch {
                destination: Destination::Physical(3),
                message: Message::fixed(0x41),
            }
        );
        let logical = dispatch(0xFEE0_2004, 0x41);
        assert_eq!(logical.destination, Destination::Logical(2));
        assert_eq!(logical.message.mode, DeliveryMode::Fixed);
    }

    #[test]
    fn a_redirection_hint_asks_for_one_receiver() {
        for data in [0x0041, 0x0141] {
            let hint = dispatch(0xFEE0_F00C, data);
            assert_eq!(hint.destination, Destination::Logical(0x0F));
            assert_eq!(hint.message.mode, DeliveryMode::LowestPriority);
        }
        let nmi = dispatch(0xFEE0_100C, 0x0400);
        assert_eq!(nmi.message.mode, DeliveryMode::Nmi);
    }

    #[test]
    fn all_ones_are_everyone() {
        for address in [0xFEEF_F000, 0xFEEF_F004] {
            let destination = dispatch(address, 0x41).destination;
            assert_eq!(destination, Destination::Everyone);
        }
        assert_eq!(Destination::wide(true, u32::MAX), Destination::Everyone);
        assert_eq!(Destination::wide(false, 0xFF), Destination::Physical(0xFF));
    }

    #[test]
    fn what_is_no_interrupt() {
        for (address, data) in [
            (0xFED0_0000, 0x41),
            (0x1_FEE0_0000, 0x41),
            (0xFEE0_0000, 0x0341),
            (0xFEE0_0000, 0x0641),
            (0xFEE0_0000, 0x8041),
        ] {
            assert_eq!(decode(address, data), None, "{address:#x} {data:#x}");
        }
        assert!(dispatch(0xFEE0_0000, 0xC041).message.level);
    }
}
