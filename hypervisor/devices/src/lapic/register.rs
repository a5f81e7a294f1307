//! The registers of a local APIC (SDM tables 11-1 and 11-6).

use bitflags::bitflags;

use super::lvt::Lvt;

/// A register, by its place in the xAPIC page and among the x2APIC MSRs.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Register {
    Id,
    Version,
    TaskPriority,
    ArbitrationPriority,
    ProcessorPriority,
    EndOfInterrupt,
    RemoteRead,
    LogicalDestination,
    DestinationFormat,
    Spurious,
    InService(u8),
    TriggerMode(u8),
    Request(u8),
    ErrorStatus,
    Command,
    CommandHigh,
    Lvt(Lvt),
    InitialCount,
    CurrentCount,
    Divide,
    SelfIpi,
}

impl Register {
    /// The register at `index * 16` in the page, or `0x800 + index` among the MSRs.
    #[inline]
    pub(super) const fn decode(index: u8) -> Option<Self> {
        Some(match index {
            0x02 => Self::Id,
            0x03 => Self::Version,
            0x08 => Self::TaskPriority,
            0x09 => Self::ArbitrationPriority,
            0x0A => Self::ProcessorPriority,
            0x0B => Self::EndOfInterrupt,
            0x0C => Self::RemoteRead,
            0x0D => Self::LogicalDestination,
            0x0E => Self::DestinationFormat,
            0x0F => Self::Spurious,
            0x10..=0x17 => Self::InService(index - 0x10),
            0x18..=0x1F => Self::TriggerMode(index - 0x18),
            0x20..=0x27 => Self::Request(index - 0x20),
            0x28 => Self::ErrorStatus,
            0x30 => Self::Command,
            0x31 => Self::CommandHigh,
            0x32 => Self::Lvt(Lvt::Timer),
            0x33 => Self::Lvt(Lvt::Thermal),
            0x34 => Self::Lvt(Lvt::Performance),
            0x35 => Self::Lvt(Lvt::Lint0),
            0x36 => Self::Lvt(Lvt::Lint1),
            0x37 => Self::Lvt(Lvt::Error),
            0x38 => Self::InitialCount,
            0x39 => Self::CurrentCount,
            0x3E => Self::Divide,
            0x3F => Self::SelfIpi,
            _ => return None,
        })
    }
}

/// The version register: an integrated APIC whose last LVT entry is number 5, without suppression of EOI broadcasts.
pub(super) const VERSION: u32 = 0x0005_0014;

bitflags! {
    /// Spurious-interrupt vector register (SDM figure 11-23).
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Spurious: u32 {
        /// The vector of an interrupt that is gone when it is acknowledged.
        const VECTOR = 0xFF;
        /// The APIC is enabled by software.
        const ENABLED = 1 << 8;
        /// Focus processor checking is off; storage only.
        const NO_FOCUS = 1 << 9;
    }

    /// Error status register (SDM figure 11-9).
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Errors: u8 {
        /// A message was sent with a vector below 16.
        const SEND_ILLEGAL_VECTOR = 1 << 5;
        /// A message or a local interrupt came with a vector below 16.
        const RECEIVE_ILLEGAL_VECTOR = 1 << 6;
        /// A register was accessed that does not exist.
        const ILLEGAL_REGISTER = 1 << 7;
    }
}
