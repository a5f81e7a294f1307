//! Tortures the shootdown of translations: one thread changes what is mapped, the others look whether
//! their processors still use what was there before.
//!
//! The changing thread announces a phase only when the kernel has told it that the change is done; from
//! then on no processor may use an older translation. Pages that may be forbidden are accessed by the
//! kernel on the threads' behalf, which gives an error code in place of a signal.

use crate::programs::{Outcome, number};
use crate::region::Pages;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SECONDS_DEFAULT: u64 = 5;
/// Threads that look, at least.
const LOOKERS_LEAST: usize = 2;

/// What is known of a page that is accessible at times.
const ACCESSIBLE: u64 = 0;
const FORBIDDEN: u64 = 2;
/// Phases come in this order: accessible, in change, forbidden, in change.
const PHASES: u64 = 4;

/// A page under change, and the phase that is announced.
struct Subject {
    page: Pages,
    phase: AtomicU64,
}

impl Subject {
    fn new() -> io::Result<Self> {
        Ok(Self {
            page: Pages::map(1)?,
            phase: AtomicU64::new(0),
        })
    }

    /// Announces the next phase.
    fn next_phase(&self) {
        self.phase.fetch_add(1, Ordering::AcqRel);
    }

    /// Changes the page to and fro.
    fn alternate(
        &self,
        forbid: impl FnOnce(Pages) -> io::Result<()>,
        allow: impl FnOnce(Pages) -> io::Result<()>,
    ) -> io::Result<()> {
        self.next_phase();
        forbid(self.page)?;
        self.next_phase();
        thread::yield_now();
        self.next_phase();
        allow(self.page)?;
        self.next_phase();
        thread::yield_now();
        Ok(())
    }

    /// Has the kernel write to the page, and says what is wrong with the result.
    fn look(&self, zeros: &File) -> io::Result<Option<&'static str>> {
        let before = self.phase.load(Ordering::Acquire);
        // SAFETY: the page is this program's, and holds nothing that the compiler knows of.
        let count = unsafe { libc::read(zeros.as_raw_fd(), self.page.address(), 8) };
        let forbidden = if count < 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EFAULT) {
                return Err(error);
            }
            true
        } else {
            false
        };
        let known = self.phase.load(Ordering::Acquire) == before;
        Ok(match (before % PHASES, forbidden) {
            (ACCESSIBLE, true) if known => Some("a page that is there could not be written"),
            (FORBIDDEN, false) if known => Some("a page was written through an old translation"),
            _ => None,
        })
    }
}

/// All that is under change.
struct Arena {
    /// Replaced by a page that holds the number of the phase.
    replaced: Subject,
    /// Writable, then not.
    protected: Subject,
    /// There, then not.
    unmapped: Subject,
    stop: AtomicBool,
}

impl Arena {
    fn new() -> io::Result<Self> {
        Ok(Self {
            replaced: Subject::new()?,
            protected: Subject::new()?,
            unmapped: Subject::new()?,
            stop: AtomicBool::new(false),
        })
    }

    /// Makes every kind of change once; returns how many system calls that took.
    fn change(&self) -> io::Result<u64> {
        let place = &self.replaced;
        let fresh = Pages::map(1)?;
        fresh.write_first(place.phase.load(Ordering::Relaxed) + 1);
        fresh.move_to(place.page)?;
        place.next_phase();
        self.protected.alternate(
            |page| page.set_writable(false),
            |page| page.set_writable(true),
        )?;
        self.unmapped.alternate(Pages::unmap, Pages::map_again)?;
        Ok(5)
    }

    /// Reads the page that is replaced, and says what is wrong with it.
    fn look_at_replaced(&self) -> Option<&'static str> {
        let place = &self.replaced;
        let before = place.phase.load(Ordering::Acquire);
        let found = place.page.read_first();
        // The next page may be there before it is announced.
        let newest = place.phase.load(Ordering::Acquire) + 1;
        (!(before..=newest).contains(&found)).then_some("a page that was replaced was still read")
    }

    /// Looks at everything until it is enough; returns how often.
    fn look(&self) -> io::Result<u64> {
        let zeros = File::open("/dev/zero")?;
        let mut looks = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let wrong = self
                .look_at_replaced()
                .or(self.protected.look(&zeros)?)
                .or(self.unmapped.look(&zeros)?);
            if let Some(wrong) = wrong {
                return Err(io::Error::other(wrong));
            }
            looks += 1;
        }
        Ok(looks)
    }
}

/// `tlb [SECONDS]`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let time = Duration::from_secs(number(arguments, 0, SECONDS_DEFAULT)?);
    let processors = thread::available_parallelism()?.get();
    let lookers = processors.max(LOOKERS_LEAST);
    let arena = Arena::new()?;
    let (mut changes, mut looks) = (0, 0);
    thread::scope(|scope| -> io::Result<()> {
        let lookers: Vec<_> = (0..lookers).map(|_| scope.spawn(|| arena.look())).collect();
        let start = Instant::now();
        let mut result = Ok(());
        while result.is_ok() && start.elapsed() < time && !lookers.iter().any(|l| l.is_finished()) {
            result = arena.change().map(|made| changes += made);
        }
        arena.stop.store(true, Ordering::Relaxed);
        for looker in lookers {
            match looker.join() {
                Ok(made) => looks += made?,
                Err(_) => return Err(io::Error::other("a thread has panicked")),
            }
        }
        result
    })?;
    println!(
        "tlb: {changes} changes, {looks} looks by {lookers} threads on {processors} processors"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Arena, Ordering};
    use std::fs::File;

    #[test]
    fn changes_are_right_here() {
        super::run(&["1".to_owned()]).unwrap();
    }

    #[test]
    fn what_is_old_is_found_out() {
        let arena = Arena::new().unwrap();
        let zeros = File::open("/dev/zero").unwrap();
        arena.change().unwrap();
        assert_eq!(arena.look_at_replaced(), None);
        assert_eq!(arena.protected.look(&zeros).unwrap(), None);
        // A phase is announced without its change.
        arena.replaced.phase.fetch_add(3, Ordering::AcqRel);
        assert!(arena.look_at_replaced().is_some());
        arena.protected.phase.fetch_add(2, Ordering::AcqRel);
        assert!(arena.protected.look(&zeros).unwrap().is_some());
        arena.unmapped.page.unmap().unwrap();
        assert!(arena.unmapped.look(&zeros).unwrap().is_some());
    }
}
