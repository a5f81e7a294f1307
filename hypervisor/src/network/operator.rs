//! What an operator sees of the network, and can change.

use super::port::{End, Port};
use super::{Network, network};
use crate::console;
use core::fmt;
use core::sync::atomic::Ordering;
use drivers::nic::Link;
use drivers::tsc;
use net::Reason;

/// Most milliseconds that frames wait in a card for the operator.
const HOLD_MAX: u64 = 1000;

macro_rules! say {
    ($($arguments:tt)*) => { console::write(format_args!($($arguments)*)) };
}

/// Shows all ports.
pub(crate) fn show() {
    let Some(network) = network() else {
        return say!("the board file names no network\n");
    };
    say!(
        "{:<18} {:<6} {:>10} {:>10} {:>8} {:>8}  behind it\n",
        "port",
        "link",
        "frames in",
        "out",
        "dropped",
        "stations"
    );
    for port in &network.ports {
        let switch = network.switch.lock();
        let (counters, up) = (switch.counters(port.id), switch.is_up(port.id));
        let stations = switch.stations(port.id);
        drop(switch);
        let refused = port.refused.load(Ordering::Relaxed);
        let dropped = counters.dropped.iter().sum::<u64>() + refused;
        say!(
            "{:<18} {:<6} {:>10} {:>10} {dropped:>8} {stations:>8}  {}\n",
            port.name,
            if up { "up" } else { "down" },
            counters.frames_in,
            counters.frames_out,
            Behind(port),
        );
        for (reason, count) in Reason::ALL.iter().zip(counters.dropped) {
            if count > 0 {
                say!("    {count} {}\n", reason.name());
            }
        }
        if refused > 0 {
            say!("    {refused} no-room\n");
        }
    }
    let capture = network.capture.lock();
    let (kept, forgotten) = (capture.len(), capture.forgotten());
    drop(capture);
    if kept > 0 {
        say!("{kept} frames are captured, {forgotten} older ones gone: see /capture.pcap\n");
    }
}

/// Finds a port by its name, or says that there is none.
fn find(name: Option<&str>) -> Option<(&'static Network, &'static Port)> {
    let found = network().and_then(|network| {
        let port = network
            .ports
            .iter()
            .find(|port| Some(&*port.name) == name)?;
        Some((network, port))
    });
    if found.is_none() {
        say!("which port? (net lists them)\n");
    }
    found
}

/// Pulls the cable out of a port, or puts it in again: the guest behind it sees its link go or come.
pub(crate) fn set_link(name: Option<&str>, up: bool) {
    let Some((network, port)) = find(name) else {
        return;
    };
    network.switch.lock().set_enabled(port.id, up);
    if let End::Guest(guest) = &port.end {
        guest.set_link(up);
    }
}

/// Lets what a card receives wait in it for some milliseconds, to see what a burst does.
pub(crate) fn hold(name: Option<&str>, milliseconds: Option<&str>) {
    let milliseconds = milliseconds.and_then(|text| text.parse().ok());
    let Some(milliseconds) = milliseconds.filter(|wanted| *wanted <= HOLD_MAX) else {
        return say!("hold PORT MILLISECONDS, {HOLD_MAX} at most\n");
    };
    let Some((_, port)) = find(name) else {
        return;
    };
    match &port.end {
        End::Uplink(uplink) => uplink.hold(tsc::read(), milliseconds),
        End::Guest(_) | End::Station(_) => say!("only a card of the board has room for frames\n"),
    }
}

/// Captures what goes through a port, or does so no longer.
pub(crate) fn capture(name: Option<&str>, wanted: bool) {
    if let Some((network, port)) = find(name) {
        network.switch.lock().set_mirrored(port.id, wanted);
    }
}

/// Forgets what was captured.
pub(crate) fn forget_captured() {
    if let Some(network) = network() {
        network.capture.lock().clear();
    }
}

/// What is behind a port, for people.
struct Behind<'a>(&'a Port);

impl fmt::Display for Behind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.end {
            End::Uplink(uplink) => {
                let nic = uplink.nic();
                write!(f, "{} at {}", nic.model(), nic.address())?;
                match nic.link() {
                    Link::Down => f.write_str(", no carrier")?,
                    link => write!(f, ", {link}")?,
                }
                write!(f, ", {} interrupts", uplink.interrupted())
            }
            End::Guest(guest) => write!(f, "guest {}", guest.guest.name),
            End::Station(_) => f.write_str("the hypervisor's own station"),
        }
    }
}
