//! Interruptions of a run, after which it goes on.

use super::Machine;
use super::requests::Requests;
use crate::cpu;
use core::sync::atomic::Ordering;

impl Machine {
    /// Interrupts the run, by the lead: the owners of the vCPUs let go of them soon, as they are, and leave their states if
    /// that is wanted.
    pub(super) fn pause_run(&self, leaves_state: bool) {
        self.run.pauses.store(true, Ordering::Relaxed);
        self.run.leaves_state.store(leaves_state, Ordering::Relaxed);
        self.run.number.store(0, Ordering::SeqCst);
        self.attend_others();
    }

    /// Lets run `number`, which was interrupted, go on.
    pub(super) fn resume_run(&self, number: u64) {
        self.run.pauses.store(false, Ordering::Relaxed);
        self.run.leaves_state.store(false, Ordering::Relaxed);
        self.run.number.store(number, Ordering::SeqCst);
        self.attend_others();
    }

    /// Makes the other processors that own vCPUs look; the lead's looks at its own next.
    fn attend_others(&self) {
        let own = self.vcpus[0].cpu;
        for vcpu in self.vcpus.iter().filter(|vcpu| vcpu.cpu != own) {
            cpu::attend(vcpu.cpu);
        }
    }

    /// Takes everything of the devices back from where others reach it, while the run is interrupted: nobody touches the
    /// guest's memory until it goes on. What comes meanwhile is kept for it.
    pub(super) fn stand_still(&'static self) {
        self.network.hold();
        self.devices.lock().rest(&mut Requests::new(self));
    }

    /// The opposite of [`Self::stand_still`].
    pub(super) fn go_on(&'static self) {
        let now = self.time();
        let mut devices = self.devices.lock();
        devices.resume(now, &mut Requests::new(self));
        self.network.release();
        self.glance.update(&devices);
    }
}
