//! Access to the ports and the message table by configuration accesses, for firmware that has no other (4.1.4.9).

use serde::{Deserialize, Serialize};

use super::{Function, PAGE, PORTS, PORTS_BAR, TABLE_BAR};
use crate::pc::{Effects, Width};

/// The window through which firmware reaches the ports by configuration accesses.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowStateV1 {
    /// Which base address register.
    pub bar: u8,
    /// Where behind it.
    pub offset: u32,
    /// The size of the access in bytes.
    pub length: u32,
}

impl Function {
    /// What the window shows: which device register, and the size of the access.
    fn windowed(&self) -> Option<(u8, u16, Width)> {
        let width = match self.window.length {
            1 => Width::Byte,
            2 => Width::Word,
            4 => Width::Dword,
            _ => return None,
        };
        let end = match self.window.bar {
            PORTS_BAR => PORTS,
            TABLE_BAR => PAGE,
            _ => return None,
        };
        let offset = u16::try_from(self.window.offset).ok()?;
        let fits = offset < end && u32::from(offset).is_multiple_of(self.window.length);
        fits.then_some((self.window.bar, offset, width))
    }

    pub(super) fn read_window(&mut self) -> u32 {
        match self.windowed() {
            Some((PORTS_BAR, offset, width)) => self.read_port(offset, width),
            Some((_, offset, Width::Dword)) => self.msix.read(offset),
            _ => 0,
        }
    }

    pub(super) fn write_window(&mut self, value: u32, lanes: u32, effects: &mut impl Effects) {
        match self.windowed() {
            Some((_, _, width)) if width.mask() & !lanes != 0 => {}
            Some((PORTS_BAR, offset, width)) => {
                self.write_port(offset, width, value & width.mask(), effects);
            }
            Some((_, offset, Width::Dword)) => self.msix.write(offset, value),
            _ => {}
        }
    }
}
