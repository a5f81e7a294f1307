//! Registers of devices, in ports or in memory.

use pc::port::{inb, inl, inw, outb, outl, outw};
use rtos::net::pci::Region;

/// A place for one register that holds a `T`.
trait Width: Copy {
    fn input(port: u16) -> Self;
    fn output(port: u16, value: Self);
}

macro_rules! widths {
    ($($type:ty: $input:path, $output:path;)*) => {$(
        impl Width for $type {
            fn input(port: u16) -> Self {
                $input(port)
            }

            fn output(port: u16, value: Self) {
                $output(port, value);
            }
        }
    )*};
}

widths! {
    u8: inb, outb;
    u16: inw, outw;
    u32: inl, outl;
}

/// Registers of a device, from a place on that its configuration tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers(pub(crate) Region);

impl Registers {
    fn read<T: Width>(self, offset: u16) -> T {
        match self.0 {
            Region::Ports(port) => T::input(port.wrapping_add(offset)),
            Region::Memory(address) => {
                let register = address.wrapping_add(u32::from(offset)) as *const T;
                // SAFETY: a device answers there, says its configuration, so no object of this program lies there.
                unsafe { register.read_volatile() }
            }
        }
    }

    fn write<T: Width>(self, offset: u16, value: T) {
        match self.0 {
            Region::Ports(port) => T::output(port.wrapping_add(offset), value),
            Region::Memory(address) => {
                let register = address.wrapping_add(u32::from(offset)) as *mut T;
                // SAFETY: as in `read`.
                unsafe { register.write_volatile(value) }
            }
        }
    }

    /// A byte.
    pub(crate) fn read8(self, offset: u16) -> u8 {
        self.read(offset)
    }

    /// A word.
    pub(crate) fn read16(self, offset: u16) -> u16 {
        self.read(offset)
    }

    /// A double word.
    pub(crate) fn read32(self, offset: u16) -> u32 {
        self.read(offset)
    }

    /// Sets a byte.
    pub(crate) fn write8(self, offset: u16, value: u8) {
        self.write(offset, value);
    }

    /// Sets a word.
    pub(crate) fn write16(self, offset: u16, value: u16) {
        self.write(offset, value);
    }

    /// Sets a double word.
    pub(crate) fn write32(self, offset: u16, value: u32) {
        self.write(offset, value);
    }
}
