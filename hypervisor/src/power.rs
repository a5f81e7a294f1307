//! Switching the board off.

use crate::guest::{self, GuestState};
use config::WhenAllOff;
use drivers::power::SoftOff;
use log::{error, info};

/// How and when the board goes off.
pub(crate) struct Power {
    pub(crate) soft_off: Option<SoftOff>,
    pub(crate) when_all_off: WhenAllOff,
}

impl Power {
    /// Powers the board off if none of its guests runs any more and the board file wants that.
    pub(crate) fn off_if_idle(&self) {
        let guests = guest::all();
        let over = |guest: &guest::GuestHandle| {
            matches!(guest.state(), GuestState::Off | GuestState::Crashed)
        };
        let wanted = self.when_all_off == WhenAllOff::PowerOff && !guests.is_empty();
        if wanted && guests.iter().all(over) {
            info!("no guest runs any more: powering the board off");
            self.off();
        }
    }

    /// Powers the board off; returns if the hardware has no way or did not obey, and then without its network.
    pub(crate) fn off(&self) {
        crate::console::flush();
        match self.soft_off {
            Some(soft_off) => {
                crate::stop_network();
                // SAFETY: the ports are those of the board's ACPI tables; nothing is left to save.
                unsafe { soft_off.power_off() };
                error!("the board does not obey its power-off register");
            }
            None => error!("the board's ACPI tables name no way to power off"),
        }
    }
}

/// Resets the board; returns if it did not obey, and then without its network.
pub(crate) fn reset() {
    crate::console::flush();
    crate::stop_network();
    // SAFETY: the operator wants everything on the board to stop.
    unsafe { drivers::power::reset() };
    error!("the board does not obey its reset registers");
}
