//! Switching the board off and resetting it.

use crate::{port, tsc};

/// How the board is powered off: the ACPI PM1 control registers and the sleep type of S5
/// (ACPI 6.5, sections 4.8.3.2 and 7.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftOff {
    /// Port of the PM1a control register.
    pub pm1a_control: u16,
    /// Port of the PM1b control register, where there is one.
    pub pm1b_control: Option<u16>,
    /// SLP_TYP values for PM1a and PM1b.
    pub sleep_types: [u8; 2],
}

impl SoftOff {
    /// Powers the board off. Returns if the hardware did not obey within a second or so: it takes the command as a
    /// request, and the processors run on until it has come about.
    ///
    /// # Safety
    ///
    /// The ports must be what ACPI says; everything on the board stops.
    pub unsafe fn power_off(&self) {
        const SLEEP_ENABLE: u16 = 1 << 13;
        let command = |kind: u8| SLEEP_ENABLE | (u16::from(kind & 7) << 10);
        // SAFETY: passed on to the caller.
        unsafe {
            port::write_u16(self.pm1a_control, command(self.sleep_types[0]));
            if let Some(pm1b) = self.pm1b_control {
                port::write_u16(pm1b, command(self.sleep_types[1]));
            }
        }
        give_time();
    }

    /// Finds the sleep types of S5 in the bytes of a DSDT: `Name (\_S5, Package () { a, b, ... })`.
    #[must_use]
    pub fn find_s5(dsdt: &[u8]) -> Option<[u8; 2]> {
        const NAME_OP: u8 = 0x08;
        const PACKAGE_OP: u8 = 0x12;
        let at = dsdt.windows(4).enumerate().find_map(|(at, window)| {
            let named = at >= 1 && dsdt[at - 1] == NAME_OP
                || at >= 2 && dsdt[at - 2] == NAME_OP && dsdt[at - 1] == b'\\';
            (window == b"_S5_" && named).then_some(at + 4)
        })?;
        let mut rest = dsdt.get(at..)?.iter().copied();
        if rest.next()? != PACKAGE_OP {
            return None;
        }
        // PkgLength: the top two bits of its first byte count the bytes that follow.
        let more = rest.next()? >> 6;
        for _ in 0..more {
            rest.next()?;
        }
        let _elements = rest.next()?;
        let mut integer = || match rest.next()? {
            zero @ 0x00 => Some(zero),
            one @ 0x01 => Some(one),
            0x0a => rest.next(),
            _ => None,
        };
        Some([integer()?, integer()?])
    }
}

/// Spins for a second or more, whatever the processor.
fn give_time() {
    const TSC_TICKS: u64 = 5_000_000_000;
    let start = tsc::read();
    while tsc::read().wrapping_sub(start) < TSC_TICKS {
        core::hint::spin_loop();
    }
}

/// Resets the board by the reset control register and, failing that, the keyboard controller. Returns if they did not obey.
///
/// # Safety
///
/// Everything on the board stops.
pub unsafe fn reset() {
    // SAFETY: passed on to the caller.
    unsafe {
        port::write_u8(0xcf9, 0x02);
        port::write_u8(0xcf9, 0x06);
        port::write_u8(0x64, 0xfe);
    }
    give_time();
}

#[cfg(test)]
mod tests {
    use super::SoftOff;

    #[test]
    fn sleep_types_are_found_in_their_encodings() {
        let dsdt = b"\x10\x20xxxx\x08_S5_\x12\x06\x04\x00\x01\x00\x00rest";
        assert_eq!(SoftOff::find_s5(dsdt), Some([0, 1]));
        let dsdt = b"\x08\\_S5_\x12\x08\x04\x0a\x05\x0a\x07\x00\x00";
        assert_eq!(SoftOff::find_s5(dsdt), Some([5, 7]));
    }

    #[test]
    fn broken_tables_have_none() {
        assert_eq!(SoftOff::find_s5(b"_S5_"), None);
        assert_eq!(SoftOff::find_s5(b"\x08_S5_\x12"), None);
        assert_eq!(SoftOff::find_s5(b"\x08_S5_\x12\x06\x04\x0c\x00\x00"), None);
    }
}
