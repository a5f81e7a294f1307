//! The local vector table (SDM 11.5.1).

use bitflags::bitflags;

/// The number of entries.
pub(super) const ENTRIES: usize = 6;

/// An entry, in the order of the registers from 320H.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Lvt {
    Timer,
    Thermal,
    Performance,
    Lint0,
    Lint1,
    Error,
}

impl Lvt {
    /// All entries, in order.
    pub(super) const ALL: [Self; ENTRIES] = [
        Self::Timer,
        Self::Thermal,
        Self::Performance,
        Self::Lint0,
        Self::Lint1,
        Self::Error,
    ];

    /// The bits that an entry has, whether or not they can be written.
    pub(super) const fn bits(self) -> LvtBits {
        const VECTOR: LvtBits = LvtBits::VECTOR
            .union(LvtBits::STATUS)
            .union(LvtBits::MASKED);
        const MODE: LvtBits = VECTOR.union(LvtBits::DELIVERY);
        match self {
            Self::Timer => VECTOR.union(LvtBits::TIMER_MODE),
            Self::Thermal | Self::Performance => MODE,
            Self::Lint0 | Self::Lint1 => MODE
                .union(LvtBits::POLARITY)
                .union(LvtBits::REMOTE_IRR)
                .union(LvtBits::LEVEL),
            Self::Error => VECTOR,
        }
    }
}

bitflags! {
    /// A register of the table (SDM figure 11-8).
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct LvtBits: u32 {
        /// The vector.
        const VECTOR = 0xFF;
        /// The delivery mode.
        const DELIVERY = 7 << 8;
        /// Delivery status: always idle; read only.
        const STATUS = 1 << 12;
        /// Active low. No effect: inputs are asserted or not.
        const POLARITY = 1 << 13;
        /// Of a level-triggered input whose interrupt is in service; read only, always 0.
        const REMOTE_IRR = 1 << 14;
        /// Level-triggered.
        const LEVEL = 1 << 15;
        /// Held back.
        const MASKED = 1 << 16;
        /// The timer's mode.
        const TIMER_MODE = 3 << 17;

        /// Bits that a write does not change.
        const READ_ONLY = Self::STATUS.bits() | Self::REMOTE_IRR.bits();
    }
}

impl LvtBits {
    /// The vector.
    pub(super) const fn vector(self) -> u8 {
        self.bits() as u8
    }

    /// Whether nothing comes of the entry's event.
    pub(super) const fn masked(self) -> bool {
        self.contains(Self::MASKED)
    }

    /// The mode of the timer's entry.
    pub(super) const fn timer_mode(self) -> TimerMode {
        match self.intersection(Self::TIMER_MODE).bits() >> 17 {
            0 => TimerMode::OneShot,
            1 => TimerMode::Periodic,
            2 => TimerMode::TscDeadline,
            _ => TimerMode::Reserved,
        }
    }
}

/// How the timer works (SDM table 11-2).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum TimerMode {
    /// Counts down once.
    OneShot,
    /// Counts down again and again.
    Periodic,
    /// Waits for the TSC to reach IA32_TSC_DEADLINE.
    TscDeadline,
    /// Does nothing.
    Reserved,
}

impl TimerMode {
    /// Whether the count registers have a meaning.
    pub(super) const fn counts(self) -> bool {
        matches!(self, Self::OneShot | Self::Periodic)
    }
}
