//! PCI configuration, by mechanism 1 (PCI Local Bus 3.0, 3.2.2.3.2).

use core::fmt;

use pc::{
    cpu,
    port::{inl, outl},
};
use rtos::net::pci::{self, COMMAND, Configuration, ID};

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;

const PORTS: u32 = 1 << 0;
const MEMORY: u32 = 1 << 1;
const MASTER: u32 = 1 << 2;
const NO_INTERRUPT: u32 = 1 << 10;
/// The status beside the command, whose bits are cleared by writing ones.
const COMMAND_ALONE: u32 = 0xffff;

/// A function of a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Function {
    bus: u8,
    device: u8,
    function: u8,
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bus,
            device,
            function,
        } = self;
        write!(f, "{bus:02x}:{device:02x}.{function}")
    }
}

impl Function {
    fn access<T>(self, offset: u8, data: impl FnOnce() -> T) -> T {
        let [bus, device, function] = [self.bus, self.device, self.function].map(u32::from);
        let place = bus << 16 | device << 11 | function << 8 | u32::from(offset & !3);
        // Address and data are one access.
        cpu::without_interrupts(|| {
            outl(ADDRESS, ENABLE | place);
            data()
        })
    }

    /// Lets the device answer, use memory by itself, and interrupt.
    pub(crate) fn enable(self) {
        let command = self.read(COMMAND) & COMMAND_ALONE & !NO_INTERRUPT;
        let command = command | PORTS | MEMORY | MASTER;
        self.access(COMMAND, || outl(DATA, command));
    }
}

impl Configuration for Function {
    fn read(&self, offset: u8) -> u32 {
        self.access(offset, || inl(DATA))
    }
}

/// The first function, of all buses, whose vendor and device are as wanted.
pub(crate) fn find(wanted: impl Fn(u16, u16) -> bool) -> Option<Function> {
    let mut last_bus = 0;
    let mut bus = 0;
    while bus <= last_bus {
        for device in 0..32 {
            let first = Function {
                bus,
                device,
                function: 0,
            };
            if pci::is_absent(&first) {
                continue;
            }
            let functions = if pci::has_more_functions(&first) {
                8
            } else {
                1
            };
            for function in 0..functions {
                let function = Function { function, ..first };
                if pci::is_absent(&function) {
                    continue;
                }
                let id = function.read(ID);
                if wanted(id as u16, (id >> 16) as u16) {
                    return Some(function);
                }
                last_bus = last_bus.max(pci::bus_behind(&function).unwrap_or(0));
            }
        }
        bus = bus.checked_add(1)?;
    }
    None
}
