//! How the network comes about: from the board file, and the cards that there are.

use super::guest_end::GuestEnd;
use super::inbox::Inbox;
use super::pins::Pins;
use super::port::{End, Port};
use super::station::Station;
use super::turns::Turns;
use super::uplink::{Interrupting, Uplink};
use super::{NETWORK, Network};
use crate::cpu::{take_interrupts, vector};
use crate::guest;
use crate::host::Interrupts;
use crate::memory::{OutOfMemory, PhysicalMemory};
use crate::mirror::Mirror;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use config::{Board, Card, GuestNic, Vlans};
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::AtomicUsize;
use drivers::dma::Dma;
use drivers::entropy::Generator;
use drivers::local_apic::LocalApic;
use drivers::nic::{self, Delivery, Found, Nic, OpenError, OpenOptions};
use drivers::pci::{Message, PciAddress};
use drivers::tsc;
use log::{error, info};
use net::{Capture, MacAddress, PortConfig, Rate, Switch, SwitchConfig, VlanId};
use spin::Mutex;
use vcpu::FrameSource;

/// Seconds after which a station that was not heard of is forgotten (IEEE 802.1Q, table 8-6).
const AGEING_SECONDS: u64 = 300;
/// What passes a limit at once: this part of what passes in a second, and a long frame.
const BURST_PART: u64 = 100;
/// Bytes of the longest frame: with a tag, and as long as IPv4 allows.
const FRAME_MAX: u64 = 18 + 0xFFFF;
/// Bytes that may wait for the hypervisor's own station.
const STATION_WAITING: usize = 32 << 10;
/// The priority of frames from urgent ports where they leave with a tag: that of voice (IEEE 802.1Q, table I-2).
const URGENT_PRIORITY: u8 = 5;
/// Stations that are learnt behind a guest's card at most, as behind a bridge in it; an uplink has the rest of the world.
const GUEST_QUOTA: u16 = 16;
/// Bytes of captured frames that are kept.
const CAPTURE_SIZE: usize = 128 << 10;
/// The UDP port from which the witness is asked.
const DATAGRAM_PORT: u16 = 7400;

/// Everything that the network is made of.
pub(crate) struct Parts<'a> {
    pub(crate) board: &'a Board,
    /// Cards that were found.
    pub(crate) cards: Vec<Found>,
    pub(crate) memory: &'a mut PhysicalMemory,
    pub(crate) local_apic: LocalApic,
    pub(crate) interrupts: Interrupts,
    /// APIC ID of the processor that tends the network.
    pub(crate) tender: u32,
    pub(crate) tsc_hz: u64,
}

/// Why an uplink has no card.
enum CardError {
    Absent,
    Memory(OutOfMemory),
    Open(OpenError),
}

impl fmt::Display for CardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("it is not on this board"),
            Self::Memory(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
        }
    }
}

/// Makes the network of the board file, if it has one. What cannot be had of it is told, and left out.
pub(crate) fn set_up(mut parts: Parts<'_>) {
    let board = parts.board;
    if !board.has_network() {
        return;
    }
    let mut builder = Builder {
        switch: Switch::new(SwitchConfig {
            ticks_per_second: parts.tsc_hz,
            ageing_seconds: AGEING_SECONDS,
            seed: seed(),
        }),
        ports: Vec::new(),
    };
    let mut uplinks = Vec::new();
    for uplink in &board.uplinks {
        let name = format!("uplink {}", uplink.name);
        uplinks.push(None);
        match open(&name, uplink.card, uplink.mtu, &mut parts) {
            Ok((nic, delivery)) => {
                let end = Uplink::new(uplink.name.clone(), nic, delivery, parts.tsc_hz / 1000);
                let config = port_config(&uplink.vlans);
                let place = uplinks.last_mut();
                builder.add(uplink.name.clone(), false, config, |port| {
                    if let Some(place) = place {
                        *place = Some(port);
                    }
                    End::Uplink(end)
                });
            }
            Err(reason) => error!("{name}: no card at {}: {reason}", uplink.card),
        }
    }
    for (config, handle) in board.guests.iter().zip(guest::all()) {
        for (at, nic) in (0..).zip(&config.nics) {
            let name = format!("{}.{at}", config.name);
            let end = GuestEnd::new(handle, config.priority, at, nic);
            builder.add(name, nic.urgent, nic_port(nic), |_| End::Guest(end));
        }
    }
    let mirror = board.mirror.as_ref().map(|mirror| {
        let card = match open("mirror", mirror.card, mirror.mtu, &mut parts) {
            Ok((nic, delivery)) => Some(Uplink::new(
                "of the mirror".into(),
                nic,
                delivery,
                parts.tsc_hz / 1000,
            )),
            Err(reason) => {
                error!("mirror: no card at {}: {reason}", mirror.card);
                None
            }
        };
        Mirror::new(board, mirror, card, parts.tsc_hz)
    });
    let mut station = None;
    if let Some(management) = &board.management {
        let config = PortConfig {
            station: Some(management.mac),
            guard: true,
            quota: GUEST_QUOTA,
            ..port_config(&Vlans::access(management.vlan))
        };
        builder.add("management".into(), false, config, |port| {
            let datagrams = board.mirror.as_ref().map_or(0, |_| DATAGRAM_PORT);
            station = Some(Station::new(
                port,
                management,
                parts.tsc_hz,
                seed(),
                datagrams,
            ));
            let inbox = Inbox::new(STATION_WAITING);
            inbox.open(true);
            End::Station(inbox)
        });
        if let Some(port) = builder.ports.last() {
            builder.switch.open(port.id, true);
        }
    }
    NETWORK.call_once(|| Network {
        switch: Mutex::new(builder.switch),
        ports: builder.ports,
        capture: Mutex::new(Capture::new(CAPTURE_SIZE)),
        station,
        mirror,
        uplinks,
        pins: Pins::new(parts.interrupts),
        turns: Turns::new((parts.tsc_hz / 1_000_000).max(1)),
        first: AtomicUsize::new(0),
        tsc_hz: parts.tsc_hz,
        start: tsc::read(),
    });
}

/// A number that nobody outside the board knows, as far as it has a source of such.
fn seed() -> u64 {
    let mut bytes = tsc::read().to_le_bytes();
    if let Some(generator) = Generator::new() {
        generator.fill(&mut bytes);
    }
    u64::from_le_bytes(bytes)
}

struct Builder {
    switch: Switch,
    ports: Vec<Port>,
}

impl Builder {
    fn add(
        &mut self,
        name: String,
        urgent: bool,
        mut config: PortConfig,
        end: impl FnOnce(net::PortId) -> End,
    ) {
        if urgent {
            config.priority = URGENT_PRIORITY;
        }
        // The board file has no more ports than there can be.
        if let Some(id) = self.switch.add_port(config) {
            self.ports.push(Port::new(id, name, urgent, end(id)));
        }
    }
}

/// Finds a card, and lets it run. Returns it, and how its interrupts come.
fn open(
    name: &str,
    card: Card,
    mtu: u16,
    parts: &mut Parts<'_>,
) -> Result<(Box<dyn Nic>, Interrupting), CardError> {
    let wanted = |found: &Found| match card {
        Card::Slot {
            bus,
            device,
            function,
        } => {
            found.address()
                == PciAddress {
                    bus,
                    device,
                    function,
                }
        }
        Card::Mac(mac) => MacAddress(found.mac()) == mac,
    };
    let at = parts
        .cards
        .iter()
        .position(wanted)
        .ok_or(CardError::Absent)?;
    let found = parts.cards.swap_remove(at);
    let jumbo = mtu > GuestNic::MTU_DEFAULT;
    let memory = dma(nic::dma_bytes(jumbo), parts.memory).map_err(CardError::Memory)?;
    let delivery = if found.has_messages() {
        Delivery::Message(message(parts.tender))
    } else {
        Delivery::Pin
    };
    let line = found.interrupt_line();
    let nic = found
        .open(memory, OpenOptions { jumbo, delivery })
        .map_err(CardError::Open)?;
    let interrupts = match delivery {
        Delivery::Message(_) => Interrupting::Message,
        Delivery::Pin => match find_pin(&*nic, line, parts) {
            Some(input) => Interrupting::Pin(input),
            None => Interrupting::Never,
        },
    };
    info!(
        "{name}: {} at {}, {}, {interrupts}",
        nic.model(),
        nic.address(),
        MacAddress(nic.mac()),
    );
    nic.set_filter(&nic::Filter {
        promiscuous: true,
        ..nic::Filter::default()
    });
    Ok((nic, interrupts))
}

/// Finds out where a card's interrupt pin arrives, and routes it to this processor, the tender.
fn find_pin(nic: &dyn Nic, line: Option<u8>, parts: &mut Parts<'_>) -> Option<u32> {
    /// How long an interrupt is on its way at most: far more than the pause that cards make between two of theirs.
    const PATIENCE_MICROSECONDS: u64 = 1000;
    let patience = parts.tsc_hz / 1_000_000 * PATIENCE_MICROSECONDS;
    let local_apic = parts.local_apic;
    let probe = || {
        if local_apic.is_pending(vector::NETWORK) {
            // It is not this card that holds the input.
            return false;
        }
        nic.raise_test_interrupt();
        let until = tsc::read() + patience;
        let mut came = local_apic.is_pending(vector::NETWORK);
        while !came && tsc::read() < until {
            core::hint::spin_loop();
            came = local_apic.is_pending(vector::NETWORK);
        }
        nic.handle_interrupt();
        came
    };
    parts
        .interrupts
        .find_pin(line, parts.tender, vector::NETWORK, probe, take_interrupts)
}

/// What a card writes to interrupt the tender (SDM volume 3, 11.11).
fn message(tender: u32) -> Message {
    const LOCAL_APICS: u64 = 0xFEE0_0000;
    Message {
        address: LOCAL_APICS | u64::from(tender & 0xFF) << 12,
        data: u32::from(vector::NETWORK),
    }
}

/// Takes memory for a card. Old ones reach no more than 4 GiB.
fn dma(bytes: usize, memory: &mut PhysicalMemory) -> Result<Dma, OutOfMemory> {
    const REACH: u64 = 1 << 32;
    let physical = memory.take_zeroed(bytes as u64, REACH)?;
    let pointer = memory.direct_map().pointer(physical);
    let pointer = NonNull::new(pointer).ok_or(OutOfMemory {
        wanted: bytes as u64,
        free: memory.free(),
    })?;
    // SAFETY: taken just now, zeroed, page-aligned, mapped for good, and never given back.
    Ok(unsafe { Dma::new(physical, pointer, bytes) })
}

fn vlans(numbers: &[u16]) -> impl Iterator<Item = VlanId> + '_ {
    numbers.iter().copied().filter_map(VlanId::new)
}

fn port_config(of: &Vlans) -> PortConfig {
    PortConfig {
        untagged: of.untagged.and_then(VlanId::new),
        tagged: vlans(&of.tagged).collect(),
        ..PortConfig::default()
    }
}

fn nic_port(nic: &GuestNic) -> PortConfig {
    PortConfig {
        station: Some(nic.mac),
        guard: nic.guard,
        quota: GUEST_QUOTA,
        ingress: nic.transmit_limit.map(rate),
        egress: nic.receive_limit.map(rate),
        ..port_config(&nic.vlans)
    }
}

/// A limit in bits a second.
fn rate(bits: u64) -> Rate {
    let bytes_per_second = (bits / 8).max(1);
    let burst = bytes_per_second / BURST_PART + FRAME_MAX;
    Rate {
        bytes_per_second,
        burst: u32::try_from(burst).unwrap_or(u32::MAX),
    }
}
