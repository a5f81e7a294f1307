//! Data that tasks and interrupts share.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, Ordering},
};

use pc::cpu;

/// A value that is used only with interrupts off, by one user at a time.
pub(crate) struct Shared<T> {
    value: UnsafeCell<T>,
    used: AtomicBool,
}

// SAFETY: there is one processor; `with` keeps interrupts off, and `used` keeps out a second user.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            value: UnsafeCell::new(value),
            used: AtomicBool::new(false),
        }
    }

    /// Uses the value.
    pub(crate) fn with<R>(&self, user: impl FnOnce(&mut T) -> R) -> R {
        cpu::without_interrupts(|| {
            // With interrupts off, a load and a store are as good as one step.
            assert!(
                !self.used.load(Ordering::Relaxed),
                "shared data is used within its own use"
            );
            self.used.store(true, Ordering::Relaxed);
            // SAFETY: `used` was clear, so there is no other reference, and none comes before it is again.
            let result = user(unsafe { &mut *self.value.get() });
            self.used.store(false, Ordering::Relaxed);
            result
        })
    }
}

/// A value that is set once, at the start.
pub(crate) struct Late<T>(Shared<Option<T>>);

impl<T: Copy> Late<T> {
    pub(crate) const fn new() -> Self {
        Self(Shared::new(None))
    }

    pub(crate) fn set(&self, value: T) {
        self.0.with(|place| *place = Some(value));
    }

    pub(crate) fn get(&self) -> Option<T> {
        self.0.with(|place| *place)
    }
}

/// Memory that one task takes for itself, and keeps.
pub(crate) struct Own<T> {
    value: UnsafeCell<T>,
    taken: Shared<bool>,
}

// SAFETY: `take` gives the only reference away, once.
unsafe impl<T: Send> Sync for Own<T> {}

impl<T> Own<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            value: UnsafeCell::new(value),
            taken: Shared::new(false),
        }
    }

    /// Takes the memory; `None` if that was done before.
    pub(crate) fn take(&'static self) -> Option<&'static mut T> {
        let was_taken = self.taken.with(|taken| core::mem::replace(taken, true));
        // SAFETY: `taken` was clear, and stays set: there is no other reference, and none will come.
        (!was_taken).then(|| unsafe { &mut *self.value.get() })
    }
}
