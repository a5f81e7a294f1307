//! The I/O APIC (Intel 82093AA datasheet, chapter 3).

use core::ptr::NonNull;

const SELECT: usize = 0;
/// Register offsets in units of 32 bits.
const WINDOW: usize = 4;

const VERSION: u32 = 0x01;
const REDIRECTION: u32 = 0x10;

const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;

/// How an interrupt input signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Trigger {
    /// Level-triggered instead of edge-triggered.
    pub level: bool,
    /// Active low instead of active high.
    pub active_low: bool,
}

/// One I/O APIC.
pub struct IoApic {
    registers: NonNull<u32>,
    first_input: u32,
    inputs: u32,
}

// SAFETY: memory-mapped registers that this value owns; any processor may use them, one at a time.
unsafe impl Send for IoApic {}

impl IoApic {
    /// Bytes of its registers in memory.
    pub const BYTES: u64 = 0x20;

    /// Takes over an I/O APIC whose first input is global interrupt `first_input`, and masks
    /// everything.
    ///
    /// # Safety
    ///
    /// `registers` must map the I/O APIC's page uncached for good, with no other user.
    #[must_use]
    pub unsafe fn new(registers: NonNull<u32>, first_input: u32) -> Self {
        let mut new = Self {
            registers,
            first_input,
            inputs: 0,
        };
        new.inputs = ((new.read(VERSION) >> 16) & 0xff) + 1;
        for input in 0..new.inputs {
            new.write(REDIRECTION + 2 * input, MASKED);
        }
        new
    }

    /// Whether global interrupt `global` comes in here.
    #[must_use]
    pub fn serves(&self, global: u32) -> bool {
        global
            .checked_sub(self.first_input)
            .is_some_and(|input| input < self.inputs)
    }

    /// Routes global interrupt `global` to the processor with APIC ID `destination` as `vector`.
    pub fn route(&mut self, global: u32, trigger: Trigger, destination: u8, vector: u8) {
        let Some(input) = global
            .checked_sub(self.first_input)
            .filter(|i| *i < self.inputs)
        else {
            return;
        };
        let mut low = u32::from(vector);
        if trigger.level {
            low |= LEVEL;
        }
        if trigger.active_low {
            low |= ACTIVE_LOW;
        }
        self.write(REDIRECTION + 2 * input + 1, u32::from(destination) << 24);
        self.write(REDIRECTION + 2 * input, low);
    }

    /// Keeps global interrupt `global` from every processor.
    pub fn mask(&mut self, global: u32) {
        if self.serves(global) {
            self.write(REDIRECTION + 2 * (global - self.first_input), MASKED);
        }
    }

    fn read(&mut self, register: u32) -> u32 {
        // SAFETY: the page is mapped and ours by the contract of `new`.
        unsafe {
            self.registers.add(SELECT).write_volatile(register);
            self.registers.add(WINDOW).read_volatile()
        }
    }

    fn write(&mut self, register: u32, value: u32) {
        // SAFETY: as in `read`.
        unsafe {
            self.registers.add(SELECT).write_volatile(register);
            self.registers.add(WINDOW).write_volatile(value);
        }
    }
}
