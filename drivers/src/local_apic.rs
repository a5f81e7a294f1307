//! The local APIC (Intel SDM volume 3, chapter 11), in xAPIC or x2APIC mode as the firmware left it.

use core::arch::x86_64::__cpuid;
use core::ptr::NonNull;
use x86_64::registers::model_specific::Msr;

const APIC_BASE: u32 = 0x1b;
const TSC_DEADLINE: u32 = 0x6e0;
const X2APIC_FIRST: u32 = 0x800;

/// IA32_APIC_BASE: enabled.
const BASE_ENABLE: u64 = 1 << 11;
/// IA32_APIC_BASE: x2APIC mode.
const BASE_X2APIC: u64 = 1 << 10;

/// Register numbers: the x2APIC MSR is 0x800 plus the number, the xAPIC offset 16 times it.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Register {
    Id = 0x02,
    TaskPriority = 0x08,
    Eoi = 0x0b,
    Spurious = 0x0f,
    CommandLow = 0x30,
    CommandHigh = 0x31,
    Timer = 0x32,
    InitialCount = 0x38,
    CurrentCount = 0x39,
    Divide = 0x3e,
}

/// The first of eight registers with a bit for each interrupt that is asked for.
const REQUESTS: u32 = 0x20;

const SOFTWARE_ENABLE: u32 = 1 << 8;
const LVT_MASKED: u32 = 1 << 16;
const LVT_TSC_DEADLINE: u32 = 2 << 17;
const DIVIDE_BY_1: u32 = 0b1011;
const DELIVERY_PENDING: u32 = 1 << 12;

/// What an inter-processor interrupt does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipi {
    /// An interrupt with this vector.
    Fixed(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// INIT (level asserted).
    Init,
    /// Start-up at physical address `page << 12`.
    StartUp(u8),
}

impl Ipi {
    /// The low half of the interrupt command register (section 11.6.1).
    const fn command(self) -> u32 {
        const ASSERT: u32 = 1 << 14;
        match self {
            Self::Fixed(vector) => ASSERT | vector as u32,
            Self::Nmi => ASSERT | (4 << 8),
            Self::Init => ASSERT | (5 << 8),
            Self::StartUp(page) => ASSERT | (6 << 8) | page as u32,
        }
    }
}

/// How the registers are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// The 4 KiB page at this virtual address.
    Page(NonNull<u32>),
    /// x2APIC MSRs.
    Msr,
}

/// This processor's local APIC. `Copy`, because each processor finds its own behind the same access.
#[derive(Clone, Copy, Debug)]
pub struct LocalApic {
    access: Access,
    deadline_mode: bool,
}

// SAFETY: whichever processor calls a method talks to its own APIC; the access path is the same on all.
unsafe impl Send for LocalApic {}
// SAFETY: as above; no method keeps state in the value.
unsafe impl Sync for LocalApic {}

impl LocalApic {
    /// Bytes of its registers in memory.
    pub const BYTES: u64 = 0x1000;

    /// Physical address of this processor's APIC page.
    #[must_use]
    pub fn physical_base() -> u64 {
        // SAFETY: every 64-bit processor has an APIC and this MSR.
        unsafe { Msr::new(APIC_BASE).read() & 0x000f_ffff_ffff_f000 }
    }

    /// The access path of this processor; `page` maps [`LocalApic::physical_base`] uncached.
    ///
    /// # Safety
    ///
    /// `page` must stay mapped, and the caller must own the APICs of all processors.
    #[must_use]
    pub unsafe fn new(page: NonNull<u32>) -> Self {
        // SAFETY: as in `physical_base`.
        let base = unsafe { Msr::new(APIC_BASE).read() };
        let access = if base & BASE_X2APIC != 0 {
            Access::Msr
        } else {
            Access::Page(page)
        };
        let deadline_mode = __cpuid(1).ecx & (1 << 24) != 0;
        Self {
            access,
            deadline_mode,
        }
    }

    /// Enables this processor's APIC with its timer masked, in the mode of the first processor.
    pub fn enable(&self, spurious_vector: u8) {
        // SAFETY: enabling the APIC, and x2APIC mode where the first processor has it, is what this
        // driver is the owner for.
        unsafe {
            let mut base = Msr::new(APIC_BASE);
            let mode = if self.access == Access::Msr {
                BASE_X2APIC
            } else {
                0
            };
            let value = base.read() | BASE_ENABLE;
            base.write(value);
            if mode != 0 {
                base.write(value | mode);
            }
        }
        self.write(Register::TaskPriority, 0);
        self.write(Register::Timer, LVT_MASKED);
        self.write(Register::Divide, DIVIDE_BY_1);
        self.write(
            Register::Spurious,
            SOFTWARE_ENABLE | u32::from(spurious_vector),
        );
    }

    /// This processor's APIC ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        let id = self.read(Register::Id);
        if self.access == Access::Msr {
            id
        } else {
            id >> 24
        }
    }

    /// Ends the interrupt in service.
    pub fn end_of_interrupt(&self) {
        self.write(Register::Eoi, 0);
    }

    /// Sends an inter-processor interrupt.
    pub fn send(&self, destination: u32, ipi: Ipi) {
        match self.access {
            Access::Msr => {
                let command = (u64::from(destination) << 32) | u64::from(ipi.command());
                // SAFETY: the x2APIC interrupt command register; sending is the caller's wish.
                unsafe { Msr::new(X2APIC_FIRST + Register::CommandLow as u32).write(command) };
            }
            Access::Page(_) => {
                self.wait_for_delivery();
                self.write(Register::CommandHigh, destination << 24);
                self.write(Register::CommandLow, ipi.command());
            }
        }
    }

    /// The last IPI leaves within microseconds; a bound keeps broken hardware from hanging us.
    fn wait_for_delivery(&self) {
        const PATIENCE: u32 = 1_000_000;
        for _ in 0..PATIENCE {
            if self.read(Register::CommandLow) & DELIVERY_PENDING == 0 {
                return;
            }
            core::hint::spin_loop();
        }
    }

    /// Measures the timer against the TSC: timer ticks during `tsc_ticks`.
    #[must_use]
    pub fn timer_ticks_during(&self, tsc_ticks: u64) -> u32 {
        self.write(Register::Timer, LVT_MASKED);
        self.write(Register::InitialCount, u32::MAX);
        let start = crate::tsc::read();
        while crate::tsc::read().wrapping_sub(start) < tsc_ticks {
            core::hint::spin_loop();
        }
        let ticks = u32::MAX - self.read(Register::CurrentCount);
        self.write(Register::InitialCount, 0);
        ticks
    }

    /// Whether the timer takes TSC deadlines.
    #[must_use]
    pub fn has_deadline_mode(&self) -> bool {
        self.deadline_mode
    }

    /// Raises `vector` when the TSC reaches `deadline` (deadline mode only).
    pub fn arm_deadline(&self, vector: u8, deadline: u64) {
        self.write(Register::Timer, LVT_TSC_DEADLINE | u32::from(vector));
        // The page write above and the MSR write below are ordered only by a fence (section 11.5.4.1).
        // SAFETY: a fence, then the deadline MSR that CPUID reports; 0 would disarm.
        unsafe {
            core::arch::asm!("mfence", options(nostack, preserves_flags));
            Msr::new(TSC_DEADLINE).write(deadline.max(1));
        }
    }

    /// Raises `vector` after `ticks` timer ticks.
    pub fn arm_one_shot(&self, vector: u8, ticks: u32) {
        self.write(Register::Timer, u32::from(vector));
        self.write(Register::InitialCount, ticks.max(1));
    }

    /// Stops the timer.
    pub fn disarm(&self) {
        self.write(Register::Timer, LVT_MASKED);
    }

    /// Whether this processor has been asked for an interrupt with this vector, and has not taken it yet (section 11.8.4).
    #[must_use]
    pub fn is_pending(&self, vector: u8) -> bool {
        let requests = REQUESTS + u32::from(vector / 32);
        self.read_number(requests) & 1 << (vector % 32) != 0
    }

    fn read(&self, register: Register) -> u32 {
        self.read_number(register as u32)
    }

    fn read_number(&self, number: u32) -> u32 {
        match self.access {
            // SAFETY: an APIC register that exists; the page is mapped by the contract of `new`.
            Access::Page(page) => unsafe { page.add(number as usize * 4).read_volatile() },
            // SAFETY: an x2APIC register that exists.
            Access::Msr => unsafe { Msr::new(X2APIC_FIRST + number).read() as u32 },
        }
    }

    fn write(&self, register: Register, value: u32) {
        match self.access {
            // SAFETY: as in `read`; the APIC is ours.
            Access::Page(page) => unsafe {
                page.add(register as usize * 4).write_volatile(value);
            },
            // SAFETY: as in `read`; the APIC is ours.
            Access::Msr => unsafe {
                Msr::new(X2APIC_FIRST + register as u32).write(u64::from(value));
            },
        }
    }
}
