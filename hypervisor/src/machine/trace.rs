//! The last exits of a vCPU and what was injected into it, for whoever looks for the reason of a crash.

use alloc::boxed::Box;
use core::fmt;
use vcpu::{Direction, Exit};

/// Events that are kept; a power of two.
const SIZE: usize = 256;
/// Those of them that are shown.
const SHOWN: usize = 48;

/// What happened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Exit(Exit),
    /// An interrupt with this vector was injected.
    Interrupt(u8),
    /// The processor was told to deliver an interrupt with this vector.
    Requested(u8),
    Nmi,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(Exit::Io(access)) => {
                let direction = match access.direction() {
                    Direction::In => "in",
                    Direction::Out => "out",
                };
                let string = if access.is_string() { " string" } else { "" };
                let bytes = access.width().bytes();
                write!(f, "{direction} {:#06x} {bytes}{string}", access.port())
            }
            Self::Exit(exit) => write!(f, "{exit:?}"),
            Self::Interrupt(vector) => write!(f, "injected {vector:#04x}"),
            Self::Requested(vector) => write!(f, "requested {vector:#04x}"),
            Self::Nmi => write!(f, "injected NMI"),
        }
    }
}

/// A ring of events, each with the board's TSC.
#[derive(Debug)]
pub(super) struct Trace {
    events: Box<[(u64, Event); SIZE]>,
    /// Events in all; the next one goes here, modulo the size.
    count: usize,
}

impl Trace {
    pub(super) fn new() -> Self {
        Self {
            events: Box::new([(0, Event::Nmi); SIZE]),
            count: 0,
        }
    }

    #[inline(always)]
    pub(super) fn add(&mut self, tsc: u64, event: Event) {
        self.events[self.count % SIZE] = (tsc, event);
        self.count = self.count.wrapping_add(1);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }
}

/// The last events, the newest last, with the ticks since the one before.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.count.min(SHOWN);
        write!(f, "{} events, the last {shown}:", self.count)?;
        let mut before = None;
        for at in self.count - shown..self.count {
            let (tsc, event) = self.events[at % SIZE];
            let since = before.map_or(0, |before| tsc.wrapping_sub(before));
            before = Some(tsc);
            write!(f, "\n  {tsc} +{since:<8} {event}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_events_are_shown() {
        let mut trace = Trace::new();
        for at in 0..1000_u64 {
            trace.add(10 * at, Event::Interrupt(at as u8));
        }
        let text = trace.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "1000 events, the last 48:");
        assert_eq!(lines.len(), 49);
        assert_eq!(lines[48], "  9990 +10       injected 0xe7");
        trace.clear();
        assert_eq!(trace.to_string(), "0 events, the last 0:");
    }
}
