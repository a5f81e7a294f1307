//! Which emulator boots a board: what was asked for, and what this host offers.

use super::qemu::Accelerator;
use crate::install::{self, Need};
use crate::progress;
use anyhow::Result;
use clap::ValueEnum;
use std::fmt;

/// Which emulator to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// `run`: the fastest that works here. `test`: both.
    Auto,
    /// Bochs, which emulates VT-x in full on any host.
    Bochs,
    /// QEMU: with KVM where this host offers nested VT-x or AMD-V, else with TCG, which emulates AMD-V on any host.
    Qemu,
}

/// The emulator that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Emulator {
    /// Bochs.
    Bochs,
    /// QEMU, whose processors are run by this.
    Qemu(Accelerator),
}

/// The processor's support for hypervisors that a board sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Virtualization {
    /// Intel's.
    VtX,
    /// AMD's.
    AmdV,
}

impl Choice {
    /// Settles on one emulator that works here, and says why it is that. QEMU is installed at once where that is
    /// allowed, because without it Bochs may take its place.
    ///
    /// # Errors
    ///
    /// Where QEMU was asked for and cannot be installed.
    pub(crate) fn settle(self, may_install: bool) -> Result<(Emulator, String)> {
        if self == Self::Bochs {
            return Ok((Emulator::Bochs, "it was asked for".into()));
        }
        let (accelerator, why) = Accelerator::of_this_host();
        match (self, install::ensure(&[install::QEMU], may_install)) {
            (_, Ok(())) => Ok((Emulator::Qemu(accelerator), why.into())),
            (Self::Auto, Err(error)) => {
                progress::note(&format!("{error:#}"));
                Ok((Emulator::Bochs, "QEMU cannot be installed".into()))
            }
            (_, Err(error)) => Err(error),
        }
    }

    /// All emulators that are meant, installed or not.
    pub(crate) fn all(self) -> Vec<Emulator> {
        let qemu = Emulator::Qemu(Accelerator::of_this_host().0);
        match self {
            Self::Auto => vec![qemu, Emulator::Bochs],
            Self::Bochs => vec![Emulator::Bochs],
            Self::Qemu => vec![qemu],
        }
    }
}

impl Emulator {
    /// Whether QEMU's translator runs the processors.
    pub(crate) const fn is_tcg(self) -> bool {
        matches!(self, Self::Qemu(Accelerator::Tcg))
    }

    /// What must be on this machine for it.
    pub(crate) const fn needs(self) -> &'static [&'static [Need]] {
        match self {
            Self::Bochs => &[install::BOCHS],
            Self::Qemu(_) => &[install::QEMU],
        }
    }

    /// What a board of the usual processor model sees in it.
    pub(crate) const fn virtualization(self) -> Virtualization {
        match self {
            Self::Bochs => Virtualization::VtX,
            Self::Qemu(accelerator) => accelerator.virtualization(),
        }
    }

    /// A short name, for folders and tests.
    pub(crate) const fn tag(self) -> &'static str {
        match self {
            Self::Bochs => "bochs",
            Self::Qemu(_) => "qemu",
        }
    }
}

impl fmt::Display for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bochs => f.write_str("Bochs")?,
            Self::Qemu(Accelerator::Kvm(_)) => f.write_str("QEMU with KVM")?,
            Self::Qemu(Accelerator::Tcg) => f.write_str("QEMU with TCG")?,
        }
        write!(f, " ({})", self.virtualization())
    }
}

impl fmt::Display for Virtualization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VtX => "VT-x",
            Self::AmdV => "AMD-V",
        })
    }
}
