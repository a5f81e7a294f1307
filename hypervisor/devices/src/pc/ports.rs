//! Port accesses.

use super::{Effects, IRQ_CLOCK, IRQ_COM1, IRQ_TIMER, Pc, ResetCause, Width};
use crate::pic::{self, Which};
use crate::power::{self, Power, Request, SCI_IRQ};
use crate::time::Ticks;

/// CONFIG_ADDRESS and CONFIG_DATA of PCI.
const PCI_ADDRESS: u16 = 0xCF8;
const PCI_DATA: u16 = 0xCFC;
/// The first port that PCI devices can decode.
const DEVICES: u16 = crate::pci::endpoint::IO_FIRST as u16;

/// What a byte-wide port belongs to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Port {
    /// A counter of the interval timer.
    Counter(u8),
    TimerControl,
    SystemB,
    KeyboardData,
    KeyboardCommand,
    ClockIndex,
    ClockData,
    /// COM1, by offset.
    Serial(u8),
    SystemA,
    ResetControl,
    Sense(Which),
    /// CONFIG_DATA, by offset.
    PciData(u8),
    /// The power management block, by offset.
    Power(u16),
    /// Written to for its side effects on a bus that is not there: the POST code and a port used for delays.
    Delay,
    Nothing,
}

impl Port {
    const fn decode(port: u16) -> Self {
        match port {
            0x40..=0x42 => Self::Counter((port & 3) as u8),
            0x43 => Self::TimerControl,
            0x60 => Self::KeyboardData,
            0x61 => Self::SystemB,
            0x64 => Self::KeyboardCommand,
            0x70 => Self::ClockIndex,
            0x71 => Self::ClockData,
            0x80 | 0xED => Self::Delay,
            0x92 => Self::SystemA,
            0x3F8..=0x3FF => Self::Serial((port & 7) as u8),
            0x4D0 => Self::Sense(Which::Master),
            0x4D1 => Self::Sense(Which::Slave),
            0xCF9 => Self::ResetControl,
            PCI_DATA..=0xCFF => Self::PciData((port & 3) as u8),
            _ => match port.wrapping_sub(power::BASE) {
                offset if Power::claims(offset) => Self::Power(offset),
                _ => Self::Nothing,
            },
        }
    }
}

/// The interrupt controller's register behind a port.
#[inline]
const fn pic_register(port: u16) -> Option<(Which, pic::Register)> {
    if port & !0x81 != 0x20 {
        return None;
    }
    let which = if port & 0x80 == 0 {
        Which::Master
    } else {
        Which::Slave
    };
    let register = if port & 1 == 0 {
        pic::Register::Command
    } else {
        pic::Register::Data
    };
    Some((which, register))
}

/// The byte of a doubleword at `offset`, which counts modulo 4.
const fn lane(offset: u16) -> u32 {
    8 * (offset as u32 & 3)
}

/// The bits of a doubleword that an access of `width` moves at `offset`, if it stays within.
pub(super) const fn lanes(offset: u8, width: Width) -> Option<u32> {
    if offset + width.bytes() > 4 {
        None
    } else {
        Some(width.mask() << lane(offset as u16))
    }
}

impl Pc {
    /// A guest's read of `width` from `port`. Bits above the width are 0.
    #[inline]
    pub fn read(&mut self, port: u16, width: Width, now: Ticks, effects: &mut impl Effects) -> u32 {
        if now < self.next_event
            && width == Width::Byte
            && let Some((which, register)) = pic_register(port)
        {
            return u32::from(self.lines.pic.read(which, register));
        }
        self.read_any(port, width, now, effects)
    }

    /// A guest's write of `width` to `port`. Bits of `value` above the width are ignored.
    #[inline]
    pub fn write(
        &mut self,
        port: u16,
        width: Width,
        value: u32,
        now: Ticks,
        effects: &mut impl Effects,
    ) {
        if now < self.next_event
            && width == Width::Byte
            && let Some((which, register)) = pic_register(port)
        {
            return self.write_pic(which, register, value as u8);
        }
        self.write_any(port, width, value, now, effects);
    }

    #[inline]
    fn write_pic(&mut self, which: Which, register: pic::Register, value: u8) {
        let masks = self.lines.pic.masks();
        self.lines.pic.write(which, register, value);
        if self.lines.pic.masks() != masks {
            self.rearm();
        }
    }

    /// A read of any port at any time. Out of line, so that the short way above saves no registers for it.
    #[inline(never)]
    fn read_any(&mut self, port: u16, width: Width, now: Ticks, effects: &mut impl Effects) -> u32 {
        self.tick(now);
        let device = if port >= DEVICES {
            self.read_device(port, width, effects)
        } else {
            self.read_adapter(port, width, effects)
        };
        if let Some(value) = device {
            // A read may end an interrupt, or work: some registers are read for what it does.
            self.settle_bus(now);
            return value;
        }
        if let Some(value) = self.read_pci(port, width) {
            return value;
        }
        let mut value = 0;
        let mut claimed = false;
        // A doubleword at 0xCF8 is the bridge's even if there is none: it must not reach 0xCF9.
        if port != PCI_ADDRESS || width != Width::Dword {
            for offset in 0..u16::from(width.bytes()) {
                let byte = self.read_byte(port.wrapping_add(offset), now);
                claimed |= byte.is_some();
                value |= u32::from(byte.unwrap_or(0xFF)) << lane(offset);
            }
        }
        if claimed {
            return value;
        }
        self.unclaimed.count(port);
        width.mask()
    }

    /// A write to any port at any time.
    #[inline(never)]
    fn write_any(
        &mut self,
        port: u16,
        width: Width,
        value: u32,
        now: Ticks,
        effects: &mut impl Effects,
    ) {
        self.tick(now);
        let device = if port >= DEVICES {
            self.write_device(port, width, value, effects)
        } else {
            self.write_adapter(port, width, value, effects)
        };
        if device {
            return self.settle_bus(now);
        }
        if self.write_pci(port, width, value, now, effects) {
            return;
        }
        let mut claimed = false;
        if port != PCI_ADDRESS || width != Width::Dword {
            for offset in 0..u16::from(width.bytes()) {
                let byte = (value >> lane(offset)) as u8;
                claimed |= self.write_byte(port.wrapping_add(offset), byte, now, effects);
            }
        }
        if !claimed {
            self.unclaimed.count(port);
        }
    }

    /// A configuration access, if it is one.
    fn read_pci(&mut self, port: u16, width: Width) -> Option<u32> {
        let pci = self.pci.as_mut()?;
        match port {
            PCI_ADDRESS if width == Width::Dword => Some(pci.address()),
            PCI_DATA..=0xCFF if pci.enabled() => {
                let offset = (port & 3) as u8;
                lanes(offset, width)?;
                let value = pci.read() >> lane(port) & width.mask();
                self.settle_lines();
                Some(value)
            }
            _ => None,
        }
    }

    /// A configuration access; whether it was one.
    fn write_pci(
        &mut self,
        port: u16,
        width: Width,
        value: u32,
        now: Ticks,
        effects: &mut impl Effects,
    ) -> bool {
        let Some(pci) = &mut self.pci else {
            return false;
        };
        match port {
            PCI_ADDRESS if width == Width::Dword => pci.set_address(value),
            PCI_DATA..=0xCFF if pci.enabled() => match lanes((port & 3) as u8, width) {
                Some(lanes) => {
                    pci.write(value << lane(port), lanes, now, effects);
                    self.settle_function(now);
                }
                None => return false,
            },
            _ => return false,
        }
        true
    }

    /// A read of one byte, as an ISA bus splits wider ones; `None` if no device claims the port.
    fn read_byte(&mut self, port: u16, now: Ticks) -> Option<u8> {
        if let Some((which, register)) = pic_register(port) {
            return Some(self.lines.pic.read(which, register));
        }
        match Port::decode(port) {
            Port::Counter(index) => Some(self.pit.read_counter(index, now)),
            Port::SystemB => Some(self.pit.read_port_b(now)),
            Port::KeyboardData => Some(self.keyboard.data()),
            Port::KeyboardCommand => Some(self.keyboard.status()),
            Port::ClockData => {
                let rtc = self.rtc.as_mut()?;
                let value = rtc.read(now);
                // A read of register C ends an interrupt, and gives the next one a deadline.
                if self.lines.pic.line(IRQ_CLOCK) != rtc.interrupt() {
                    self.lines.set(IRQ_CLOCK, rtc.interrupt());
                    self.clock_next = rtc.next_rise();
                    self.rearm();
                }
                Some(value)
            }
            Port::Serial(offset) => {
                let uart = self.uart.as_mut()?;
                let value = uart.read(offset);
                self.lines.set(IRQ_COM1, uart.line());
                Some(value)
            }
            Port::SystemA => Some(self.system.port_a()),
            Port::ResetControl => Some(self.system.reset_control()),
            Port::Sense(which) => Some(self.lines.pic.sense(which)),
            Port::Power(offset) => Some((self.power.read(offset & !3, now) >> lane(offset)) as u8),
            Port::PciData(offset) => {
                let pci = self.pci.as_mut().filter(|pci| pci.enabled())?;
                let value = (pci.read() >> lane(u16::from(offset))) as u8;
                self.settle_lines();
                Some(value)
            }
            // Write-only: nothing drives the bus.
            Port::TimerControl | Port::Delay => Some(0xFF),
            Port::ClockIndex => self.rtc.as_ref().map(|_| 0xFF),
            Port::Nothing => None,
        }
    }

    /// A write of one byte; whether a device claims the port.
    fn write_byte(&mut self, port: u16, value: u8, now: Ticks, effects: &mut impl Effects) -> bool {
        if let Some((which, register)) = pic_register(port) {
            self.write_pic(which, register, value);
            return true;
        }
        match Port::decode(port) {
            Port::Counter(index) => {
                self.pit.write_counter(index, value, now);
                if index == 0 {
                    self.timer_changed();
                }
            }
            Port::TimerControl => {
                if self.pit.write_control(value, now) {
                    self.timer_changed();
                }
            }
            Port::SystemB => self.pit.write_port_b(value, now),
            Port::KeyboardData => {
                if self.keyboard.write_data(value).is_some() {
                    effects.reset(ResetCause::Keyboard);
                }
            }
            Port::KeyboardCommand => {
                if self.keyboard.write_command(value).is_some() {
                    effects.reset(ResetCause::Keyboard);
                }
            }
            Port::ClockIndex => match &mut self.rtc {
                Some(rtc) => rtc.select(value),
                None => return false,
            },
            Port::ClockData => {
                let Some(rtc) = &mut self.rtc else {
                    return false;
                };
                rtc.write(value, now);
                self.lines.set(IRQ_CLOCK, rtc.interrupt());
                self.clock_next = rtc.next_rise();
                self.rearm();
            }
            Port::Serial(offset) => return self.write_serial(offset, value, effects),
            Port::SystemA => {
                if self.system.write_port_a(value).is_some() {
                    effects.reset(ResetCause::Port92);
                }
            }
            Port::ResetControl => {
                if self.system.write_reset_control(value).is_some() {
                    effects.reset(ResetCause::Cf9);
                }
            }
            Port::Sense(which) => self.lines.pic.set_sense(which, value),
            Port::Power(offset) => {
                let (value, lanes) = (u32::from(value) << lane(offset), 0xFF << lane(offset));
                if self.power.write(offset & !3, value, lanes, now) == Some(Request::PowerOff) {
                    effects.power_off();
                }
                self.lines.set(SCI_IRQ, self.power.interrupt());
                self.power_next = self.power.next_rise();
                self.rearm();
            }
            Port::PciData(offset) => match &mut self.pci {
                Some(pci) if pci.enabled() => {
                    let shift = lane(u16::from(offset));
                    pci.write(u32::from(value) << shift, 0xFF << shift, now, effects);
                    self.settle_function(now);
                }
                _ => return false,
            },
            Port::Delay => {}
            Port::Nothing => return false,
        }
        true
    }

    fn write_serial(&mut self, offset: u8, value: u8, effects: &mut impl Effects) -> bool {
        let Some(uart) = &mut self.uart else {
            return false;
        };
        if uart.transmits(offset) {
            self.lines.set(IRQ_COM1, false);
        }
        if let Some(byte) = uart.write(offset, value) {
            effects.console_output(byte);
        }
        self.lines.set(IRQ_COM1, uart.line());
        true
    }

    /// Counter 0 was programmed.
    fn timer_changed(&mut self) {
        self.lines.set(IRQ_TIMER, self.pit.output());
        self.timer_next = self.pit.next_rise();
        self.rearm();
    }
}
