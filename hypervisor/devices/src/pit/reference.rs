//! A clock-stepped model of a counter, written from the data sheet's mode definitions, for comparison.

use super::control::{Access, Mode};

/// One counter, stepped at each falling edge of CLK.
#[derive(Clone, Debug)]
pub(super) struct Stepped {
    pub(super) mode: Mode,
    access: Access,
    bcd: bool,
    gate: bool,
    pub(super) out: bool,
    /// The counting element; what a read gives.
    ce: u16,
    /// The count register, once it is complete.
    cr: Option<u16>,
    first_byte: Option<u8>,
    second_read: bool,
    latch: Option<u16>,
    status: Option<u8>,
    null: bool,
    /// The next clock transfers CR to CE.
    transfer: bool,
    /// CE was loaded since the control word.
    running: bool,
    /// The first pass of the count is not over.
    first_pass: bool,
    /// Mode 3: the period that was loaded is odd, and its high half still has its extra clock to come.
    extra: bool,
    strobe: bool,
}

impl Stepped {
    pub(super) fn new(gate: bool) -> Self {
        Self {
            mode: Mode::TerminalCount,
            access: Access::Low,
            bcd: false,
            gate,
            out: false,
            ce: 0,
            cr: None,
            first_byte: None,
            second_read: false,
            latch: None,
            status: None,
            null: true,
            transfer: false,
            running: false,
            first_pass: false,
            extra: false,
            strobe: false,
        }
    }

    fn periodic(&self) -> bool {
        self.mode == Mode::RateGenerator || self.mode == Mode::SquareWave
    }

    /// CR as it goes into CE, with the model's reading of illegal counts.
    fn register(&self) -> u16 {
        let mut raw = self.cr.unwrap_or(0);
        if self.bcd {
            let mut number = 0u32;
            for shift in [12, 8, 4, 0] {
                number = number * 10 + u32::from(raw >> shift & 0xF);
            }
            raw = 0;
            for shift in [0, 4, 8, 12] {
                raw |= ((number % 10) as u16) << shift;
                number /= 10;
            }
        }
        if self.periodic() && raw == 1 { 2 } else { raw }
    }

    fn decrement(&mut self) {
        if !self.bcd {
            self.ce = self.ce.wrapping_sub(1);
            return;
        }
        // Borrow digit by digit.
        for shift in [0, 4, 8, 12] {
            if self.ce >> shift & 0xF != 0 {
                self.ce -= 1 << shift;
                return;
            }
            self.ce |= 9 << shift;
        }
    }

    fn transfer_count(&mut self) {
        let register = self.register();
        self.null = false;
        self.ce = register;
        if self.mode == Mode::SquareWave {
            self.ce &= !1;
            self.extra = register & 1 != 0;
        }
    }

    /// One falling edge of CLK; returns whether the output rose.
    pub(super) fn clock(&mut self) -> bool {
        let before = self.out;
        let strobe_ends = self.strobe;
        if self.transfer {
            self.transfer = false;
            self.running = true;
            self.first_pass = true;
            self.transfer_count();
            match self.mode {
                Mode::OneShot => self.out = false,
                Mode::SquareWave => self.out = true,
                _ => {}
            }
        } else if self.running {
            self.count();
        }
        if strobe_ends {
            self.strobe = false;
            self.out = true;
        }
        !before && self.out
    }

    fn count(&mut self) {
        let held = match self.mode {
            Mode::TerminalCount => !self.gate || self.first_byte.is_some(),
            Mode::OneShot | Mode::HardwareStrobe => false,
            _ => !self.gate,
        };
        if held {
            return;
        }
        match self.mode {
            Mode::TerminalCount | Mode::OneShot => {
                self.decrement();
                if self.ce == 0 && self.first_pass {
                    self.first_pass = false;
                    self.out = true;
                }
            }
            Mode::SoftwareStrobe | Mode::HardwareStrobe => {
                self.decrement();
                if self.ce == 0 && self.first_pass {
                    self.first_pass = false;
                    self.out = false;
                    self.strobe = true;
                }
            }
            Mode::RateGenerator => {
                if self.ce == 1 {
                    self.transfer_count();
                    self.out = true;
                } else {
                    self.decrement();
                    if self.ce == 1 {
                        self.out = false;
                    }
                }
            }
            Mode::SquareWave => {
                let ends = if self.out && self.extra {
                    self.ce == 0
                } else {
                    self.ce == 2
                };
                if ends {
                    self.out = !self.out;
                    self.transfer_count();
                } else {
                    self.decrement();
                    self.decrement();
                }
            }
        }
    }

    pub(super) fn set_gate(&mut self, gate: bool) {
        let rises = gate && !self.gate;
        self.gate = gate;
        match self.mode {
            Mode::TerminalCount | Mode::SoftwareStrobe => {}
            _ => self.transfer |= rises && self.cr.is_some(),
        }
        if !gate && self.periodic() {
            self.out = true;
        }
    }

    pub(super) fn control(&mut self, mode: Mode, access: Access, bcd: bool) {
        *self = Self {
            mode,
            access,
            bcd,
            ce: self.ce,
            ..Self::new(self.gate)
        };
        self.out = mode != Mode::TerminalCount;
    }

    pub(super) fn write(&mut self, value: u8) {
        let cr = match self.access {
            Access::Low => u16::from(value),
            Access::High => u16::from(value) * 256,
            Access::Both => match self.first_byte {
                None => {
                    self.first_byte = Some(value);
                    if self.mode == Mode::TerminalCount {
                        self.out = false;
                        self.transfer = false;
                    }
                    return;
                }
                Some(low) => u16::from(low) + u16::from(value) * 256,
            },
        };
        self.first_byte = None;
        self.cr = Some(cr);
        self.null = true;
        match self.mode {
            Mode::TerminalCount => {
                self.out = false;
                self.transfer = true;
            }
            Mode::SoftwareStrobe => self.transfer = true,
            Mode::RateGenerator | Mode::SquareWave if !self.running => self.transfer = true,
            _ => {}
        }
    }

    pub(super) fn latch_count(&mut self) {
        self.latch = self.latch.or(Some(self.ce));
    }

    pub(super) fn latch_status(&mut self) {
        let mode = match self.mode {
            Mode::TerminalCount => 0,
            Mode::OneShot => 1,
            Mode::RateGenerator => 2,
            Mode::SquareWave => 3,
            Mode::SoftwareStrobe => 4,
            Mode::HardwareStrobe => 5,
        };
        let access = match self.access {
            Access::Low => 1,
            Access::High => 2,
            Access::Both => 3,
        };
        let flag = |set: bool, value: u8| if set { value } else { 0 };
        let status = flag(self.out, 0x80)
            + flag(self.null, 0x40)
            + access * 16
            + mode * 2
            + flag(self.bcd, 1);
        self.status = self.status.or(Some(status));
    }

    pub(super) fn read(&mut self) -> u8 {
        if let Some(status) = self.status.take() {
            return status;
        }
        let value = self.latch.unwrap_or(self.ce);
        let high = self.access == Access::High || self.second_read;
        if self.access == Access::Both {
            self.second_read = !self.second_read;
        }
        if !self.second_read {
            self.latch = None;
        }
        (if high { value / 256 } else { value % 256 }) as u8
    }
}
