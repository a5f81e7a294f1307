//! What the hypervisor tells of the board: as Prometheus' metrics and as JSON.

use super::Network;
use super::port::{End, Port};
use crate::cpu;
use crate::guest::{self, GuestHandle, GuestState};
use crate::machine::Totals;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::sync::atomic::Ordering;
use drivers::nic::{Link, Nic, Statistics};
use drivers::tsc;
use manage::{Body, Content, Page};
use net::{Counters, Reason};

/// The board, as its network's station tells of it.
pub(super) struct Report<'a>(pub(super) &'a Network);

impl Content for Report<'_> {
    fn write(&self, page: Page, to: &mut Body) {
        // What there is no room for, the station does not say.
        let _ = match page {
            Page::Metrics => self.metrics(to),
            Page::Status => self.status(to),
            Page::Capture => {
                self.0.capture.lock().write(|bytes| to.push(bytes));
                Ok(())
            }
        };
    }
}

/// Begins a metric.
pub(crate) fn metric(to: &mut impl Write, kind: &str, name: &str, help: &str) -> fmt::Result {
    writeln!(
        to,
        "# HELP understudy_{name} {help}\n# TYPE understudy_{name} {kind}"
    )
}

/// States of a guest, as metrics name them.
const STATES: [GuestState; 6] = [
    GuestState::Stopped,
    GuestState::Running,
    GuestState::Off,
    GuestState::Crashed,
    GuestState::Restarting,
    GuestState::Frozen,
];

type PortValue = (&'static str, &'static str, fn(&Counters) -> u64);
type CardValue = (&'static str, &'static str, fn(&Statistics) -> u64);
type VcpuValue = (&'static str, &'static str, fn(&Totals) -> u64);

const PORT_VALUES: [PortValue; 5] = [
    (
        "port_received_frames_total",
        "Frames that came in at a port of the virtual switch.",
        |counters| counters.frames_in,
    ),
    ("port_received_bytes_total", "Their bytes.", |counters| {
        counters.bytes_in
    }),
    (
        "port_transmitted_frames_total",
        "Frames that were to leave by a port.",
        |counters| counters.frames_out,
    ),
    ("port_transmitted_bytes_total", "Their bytes.", |counters| {
        counters.bytes_out
    }),
    (
        "port_moved_stations_total",
        "Stations that were behind another port before.",
        |counters| counters.moved,
    ),
];

const CARD_VALUES: [CardValue; 8] = [
    (
        "card_received_frames_total",
        "Good frames that a card received.",
        |statistics| statistics.received_frames,
    ),
    (
        "card_transmitted_frames_total",
        "Frames that a card sent.",
        |statistics| statistics.transmitted_frames,
    ),
    (
        "card_missed_frames_total",
        "Frames that were lost because the card's memory was full.",
        |statistics| statistics.missed,
    ),
    (
        "card_crc_errors_total",
        "Frames with a wrong check sequence.",
        |statistics| statistics.crc_errors,
    ),
    (
        "card_symbol_errors_total",
        "Frames with symbols that are none.",
        |statistics| statistics.symbol_errors,
    ),
    (
        "card_length_errors_total",
        "Frames of a wrong length.",
        |statistics| statistics.length_errors,
    ),
    (
        "card_link_losses_total",
        "Times that the link went down.",
        |statistics| statistics.link_losses,
    ),
    (
        "card_resets_total",
        "Times that a card was reset because it hung.",
        |statistics| statistics.resets,
    ),
];

const VCPU_VALUES: [VcpuValue; 5] = [
    (
        "vcpu_exits_total",
        "Exits of a virtual processor since its guest's start.",
        |totals| totals.exits,
    ),
    (
        "vcpu_guest_ticks_total",
        "TSC ticks in the guest.",
        |totals| totals.guest,
    ),
    (
        "vcpu_root_ticks_total",
        "TSC ticks in the hypervisor on the guest's account.",
        |totals| totals.root,
    ),
    (
        "vcpu_halted_ticks_total",
        "TSC ticks in which it waited for an interrupt.",
        |totals| totals.halted,
    ),
    (
        "vcpu_interrupts_total",
        "Interrupts delivered to it.",
        |totals| totals.interrupts,
    ),
];

/// The totals of a guest's vCPUs, by their numbers.
fn vcpus(guest: &GuestHandle) -> impl Iterator<Item = (usize, Totals)> + '_ {
    let machine = guest.machine.get().copied().flatten();
    machine
        .into_iter()
        .flat_map(|machine| machine.totals().enumerate())
}

impl Report<'_> {
    fn cards(&self) -> impl Iterator<Item = (&Port, &dyn Nic)> {
        self.0.ports.iter().filter_map(|port| match &port.end {
            End::Uplink(uplink) => Some((port, uplink.nic())),
            End::Guest(_) | End::Station(_) => None,
        })
    }

    fn counters(&self) -> Vec<(&str, Counters)> {
        let switch = self.0.switch.lock();
        let ports = self.0.ports.iter();
        ports
            .map(|port| (port.name.as_str(), switch.counters(port.id)))
            .collect()
    }

    fn metrics(&self, to: &mut impl Write) -> fmt::Result {
        metric(to, "gauge", "info", "The version of the hypervisor.")?;
        writeln!(
            to,
            "understudy_info{{version=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        )?;
        metric(
            to,
            "gauge",
            "uptime_seconds",
            "Seconds since the board's start.",
        )?;
        writeln!(to, "understudy_uptime_seconds {}", uptime())?;
        metric(to, "gauge", "tsc_hertz", "TSC ticks a second.")?;
        writeln!(to, "understudy_tsc_hertz {}", frequency())?;
        self.guest_metrics(to)?;
        self.port_metrics(to)?;
        self.card_metrics(to)?;
        match &self.0.mirror {
            Some(mirror) => mirror.metrics(to),
            None => Ok(()),
        }
    }

    fn guest_metrics(&self, to: &mut impl Write) -> fmt::Result {
        metric(to, "gauge", "guest_state", "Whether a guest is in a state.")?;
        for guest in guest::all() {
            let (name, now) = (&guest.name, guest.state());
            for state in STATES {
                let value = u8::from(state == now);
                writeln!(
                    to,
                    "understudy_guest_state{{guest=\"{name}\",state=\"{state}\"}} {value}"
                )?;
            }
        }
        for (name, help, value) in VCPU_VALUES {
            metric(to, "counter", name, help)?;
            for guest in guest::all() {
                for (index, totals) in vcpus(guest) {
                    let (guest, value) = (&guest.name, value(&totals));
                    writeln!(
                        to,
                        "understudy_{name}{{guest=\"{guest}\",vcpu=\"{index}\"}} {value}"
                    )?;
                }
            }
        }
        Ok(())
    }

    fn port_metrics(&self, to: &mut impl Write) -> fmt::Result {
        let counters = self.counters();
        for (name, help, value) in PORT_VALUES {
            metric(to, "counter", name, help)?;
            for (port, counters) in &counters {
                let value = value(counters);
                writeln!(to, "understudy_{name}{{port=\"{port}\"}} {value}")?;
            }
        }
        let name = "port_dropped_frames_total";
        metric(to, "counter", name, "Frames that went no further.")?;
        for (port, counters) in &counters {
            for (reason, value) in Reason::ALL.iter().zip(counters.dropped) {
                let reason = reason.name();
                writeln!(
                    to,
                    "understudy_{name}{{port=\"{port}\",reason=\"{reason}\"}} {value}"
                )?;
            }
        }
        for port in &self.0.ports {
            let value = port.refused.load(Ordering::Relaxed);
            let port = &port.name;
            writeln!(
                to,
                "understudy_{name}{{port=\"{port}\",reason=\"no-room\"}} {value}"
            )?;
        }
        Ok(())
    }

    fn card_metrics(&self, to: &mut impl Write) -> fmt::Result {
        metric(to, "gauge", "card_link_up", "Whether a card's link is up.")?;
        for (port, nic) in self.cards() {
            let (port, up) = (&port.name, u8::from(nic.link() != Link::Down));
            writeln!(to, "understudy_card_link_up{{port=\"{port}\"}} {up}")?;
        }
        // A card's counters are slow to read, so each is read once.
        let cards: Vec<_> = self
            .cards()
            .map(|(port, nic)| (&port.name, nic.statistics()))
            .collect();
        for (name, help, value) in CARD_VALUES {
            metric(to, "counter", name, help)?;
            for (port, statistics) in &cards {
                let value = value(statistics);
                writeln!(to, "understudy_{name}{{port=\"{port}\"}} {value}")?;
            }
        }
        Ok(())
    }

    /// Names are of letters, digits, points and dashes: none needs to be quoted.
    fn status(&self, to: &mut impl Write) -> fmt::Result {
        write!(
            to,
            "{{\"version\":\"{}\",\"uptime_seconds\":{},\"tsc_hertz\":{},\"guests\":[",
            env!("CARGO_PKG_VERSION"),
            uptime(),
            frequency(),
        )?;
        list(to, guest::all().iter(), |to, guest| {
            let (name, state, memory) = (&guest.name, guest.state(), guest.memory);
            write!(
                to,
                "{{\"name\":\"{name}\",\"state\":\"{state}\",\"memory_bytes\":{memory},\"cpus\":["
            )?;
            list(to, guest.cpus.iter(), |to, cpu| write!(to, "{cpu}"))?;
            to.write_str("]}")
        })?;
        to.write_str("],\"ports\":[")?;
        list(to, self.counters().iter(), |to, (name, counters)| {
            write!(
                to,
                "{{\"name\":\"{name}\",\"received_frames\":{},\"transmitted_frames\":{},\"dropped_frames\":{}}}",
                counters.frames_in,
                counters.frames_out,
                counters.dropped.iter().sum::<u64>(),
            )
        })?;
        to.write_str("],\"uplinks\":[")?;
        list(to, self.cards(), |to, (port, nic)| {
            let megabits = match nic.link() {
                Link::Down => 0,
                Link::Up { megabits, .. } => megabits,
            };
            write!(
                to,
                "{{\"name\":\"{}\",\"card\":\"{}\",\"address\":\"{}\",\"link_megabits\":{megabits}}}",
                port.name,
                nic.model(),
                nic.address(),
            )
        })?;
        to.write_char(']')?;
        if let Some(mirror) = &self.0.mirror {
            to.write_str(",\"mirror\":")?;
            mirror.status(to)?;
        }
        to.write_str("}\n")
    }
}

/// Writes the elements of a list, with commas in between.
pub(crate) fn list<W: Write, T>(
    to: &mut W,
    elements: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut W, T) -> fmt::Result,
) -> fmt::Result {
    for (at, element) in elements.enumerate() {
        if at > 0 {
            to.write_str(",")?;
        }
        write(to, element)?;
    }
    Ok(())
}

fn frequency() -> u64 {
    cpu::shared().map_or(0, |shared| shared.facts.tsc_hz)
}

/// Seconds since the image's first instruction.
fn uptime() -> u64 {
    cpu::shared().map_or(0, |shared| {
        let ticks = tsc::read().saturating_sub(shared.facts.entry_tsc);
        ticks / shared.facts.tsc_hz.max(1)
    })
}
