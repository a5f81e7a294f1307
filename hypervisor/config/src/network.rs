//! A board's network: uplinks, guests' cards, and the hypervisor's own station.

use crate::board::{Board, Device, Guest};
use crate::validate::{GuestKey, ManagementKey, Place, Problem, UplinkKey};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use net::MacAddress;
use serde::{Deserialize, Serialize};

/// A number of a virtual LAN, 1 to 4094 (IEEE 802.1Q, table 9-2).
pub type VlanNumber = u16;

/// The VLAN of a port whose table names none.
pub const VLAN_DEFAULT: VlanNumber = 1;
/// The highest number of a VLAN.
pub const VLAN_MAX: VlanNumber = 4094;

/// The VLANs of a switch port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlans {
    /// The one whose frames have no tag at this port, if there is such.
    pub untagged: Option<VlanNumber>,
    /// Those whose frames are tagged. None for an access port.
    pub tagged: Vec<VlanNumber>,
}

impl Vlans {
    /// An access port.
    #[must_use]
    pub const fn access(vlan: VlanNumber) -> Self {
        Self {
            untagged: Some(vlan),
            tagged: Vec::new(),
        }
    }
}

/// Which of the board's network cards is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Card {
    /// By its place on the PCI bus (`"00:03.0"`).
    Slot {
        /// Bus number.
        bus: u8,
        /// Device number, 0 to 31.
        device: u8,
        /// Function number, 0 to 7.
        function: u8,
    },
    /// By its hardware address (`"52:54:00:12:34:56"`).
    Mac(MacAddress),
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot {
                bus,
                device,
                function,
            } => write!(f, "{bus:02x}:{device:02x}.{function}"),
            Self::Mac(mac) => mac.fmt(f),
        }
    }
}

/// A network card of the board that the virtual switch sends out of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// Its name: as [`Board::name`], unique among the uplinks.
    pub name: String,
    /// The card.
    pub card: Card,
    /// Its VLANs.
    pub vlans: Vlans,
    /// The longest packet in bytes, without the Ethernet header: 576 to [`Uplink::MTU_MAX`].
    pub mtu: u16,
}

impl Uplink {
    /// Most uplinks of a board.
    pub const COUNT_MAX: usize = 4;
    /// The longest packet of a board's card, with jumbo frames.
    pub const MTU_MAX: u16 = 9000;
}

/// The hypervisor's own station on the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Management {
    /// Its hardware address.
    pub mac: MacAddress,
    /// Its IPv4 address.
    pub address: [u8; 4],
    /// Bits of that which name the network, 1 to 30.
    pub prefix: u8,
    /// The way to other networks, if there is one.
    pub gateway: Option<[u8; 4]>,
    /// Its VLAN.
    pub vlan: VlanNumber,
}

/// What a guest's network card is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NicModel {
    /// A virtio network device (`"virtio"`).
    Virtio,
    /// A Realtek RTL8029 on the PCI bus (`"rtl8029"`).
    Rtl8029,
    /// An NE2000 on the ISA bus (`"ne2000"`).
    Ne2000 {
        /// Its first port: a multiple of 32 from 0x200 to 0x3C0, not among COM1's.
        port: u16,
        /// Its interrupt line: one of [`GuestNic::IRQS`].
        irq: u8,
    },
}

/// A guest's network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestNic {
    /// What it is.
    pub model: NicModel,
    /// Its hardware address, unique on the board.
    pub mac: MacAddress,
    /// The VLANs of its switch port.
    pub vlans: Vlans,
    /// Whether the switch takes frames with no other sender than `mac`.
    pub guard: bool,
    /// Whether frames from and to it go before others'.
    pub urgent: bool,
    /// Most bits a second that reach the guest.
    pub receive_limit: Option<u64>,
    /// Most bits a second that the guest can send.
    pub transmit_limit: Option<u64>,
    /// The longest packet in bytes, without the Ethernet header: 576 to [`GuestNic::MTU_MAX`], and 1500 but for virtio.
    pub mtu: u16,
    /// Pairs of queues, 1 to [`Guest::VCPUS_MAX`], and 1 but for virtio.
    pub queues: u16,
}

impl GuestNic {
    /// Most network cards of a guest.
    pub const COUNT_MAX: usize = 4;
    /// Interrupt lines of a PC that an ISA card can have: none of another device's. Line 9 is ACPI's.
    pub const IRQS: [u8; 5] = [3, 5, 10, 11, 15];
    /// The usual longest packet of an Ethernet.
    pub const MTU_DEFAULT: u16 = 1500;
    /// The longest packet between guests.
    pub const MTU_MAX: u16 = 9000;
    /// The shortest limit of a packet's length: what IPv4 demands of every host (RFC 791).
    pub const MTU_MIN: u16 = 576;
    /// The least limit in bits a second: below, a full frame takes too long.
    pub const LIMIT_MIN: u64 = 64_000;
}

/// An address for a card of `owner` on `board` whose table names none: the same for the same names, and most probably not
/// the same for others.
#[must_use]
pub fn derived_mac(board: &str, owner: &str, index: usize) -> MacAddress {
    // FNV-1a.
    let text = format!("{board}/{owner}/{index}");
    let hash = text.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    let [a, b, c, d, e, ..] = (hash ^ hash >> 40).to_le_bytes();
    // Locally administered, a station's.
    MacAddress([0x02, a, b, c, d, e])
}

impl Board {
    /// Most ports of the virtual switch.
    pub const PORTS_MAX: usize = 32;

    /// Whether the board has a network at all.
    #[must_use]
    pub fn has_network(&self) -> bool {
        self.management.is_some()
            || !self.uplinks.is_empty()
            || self.guests.iter().any(|guest| !guest.nics.is_empty())
    }

    pub(crate) fn network_problems(&self, problems: &mut Vec<Problem>) {
        for (index, uplink) in self.uplinks.iter().enumerate() {
            let earlier = &self.uplinks[..index];
            let add = |key, reason| problems.push(Problem::new(Place::Uplink(index, key), reason));
            uplink.problems(index, earlier, add);
        }
        if let Some(management) = &self.management {
            let add = |key, reason| problems.push(Problem::new(Place::Management(key), reason));
            management.problems(add);
        }
        let mut ports = self.uplinks.len() + usize::from(self.management.is_some());
        for (index, guest) in self.guests.iter().take(Self::GUESTS_MAX).enumerate() {
            ports += guest.nics.len();
            let mut add =
                |key, reason| problems.push(Problem::new(Place::Guest(index, key), reason));
            guest.nic_problems(&mut add);
            if ports > Self::PORTS_MAX {
                add(
                    GuestKey::Nics,
                    format!(
                        "with these the board has {ports} network ports; there are {}",
                        Self::PORTS_MAX
                    ),
                );
                break;
            }
        }
        self.mac_problems(problems);
    }

    /// Addresses that more than one station has.
    fn mac_problems(&self, problems: &mut Vec<Problem>) {
        let management = self
            .management
            .iter()
            .map(|it| (it.mac, Place::Management(ManagementKey::Mac)));
        let nics = self.guests.iter().enumerate().flat_map(|(index, guest)| {
            guest
                .nics
                .iter()
                .enumerate()
                .map(move |(at, nic)| (nic.mac, Place::Guest(index, GuestKey::Nic(at))))
        });
        let mut known = Vec::new();
        for (mac, place) in management.chain(nics) {
            if !mac.is_station() {
                problems.push(Problem::new(
                    place,
                    format!("{mac} cannot be a station's address"),
                ));
            } else if known.contains(&mac) {
                problems.push(Problem::new(
                    place,
                    format!("another station of the board has the address {mac}"),
                ));
            }
            known.push(mac);
        }
    }
}

impl Uplink {
    fn problems(&self, index: usize, earlier: &[Self], mut add: impl FnMut(UplinkKey, String)) {
        if index >= Self::COUNT_MAX {
            let reason = format!("a board has at most {} uplinks", Self::COUNT_MAX);
            return add(UplinkKey::Name, reason);
        }
        if let Some(reason) = crate::validate::name_problem("an uplink's name", &self.name) {
            add(UplinkKey::Name, reason);
        } else if earlier.iter().any(|other| other.name == self.name) {
            let reason = format!("there is already an uplink named \"{}\"", self.name);
            add(UplinkKey::Name, reason);
        }
        let possible = match self.card {
            Card::Slot {
                device, function, ..
            } => device < 32 && function < 8,
            Card::Mac(mac) => mac.is_station(),
        };
        if !possible {
            add(UplinkKey::Card, format!("no card can be at {}", self.card));
        } else if earlier.iter().any(|other| other.card == self.card) {
            let reason = format!("another uplink has the card {} already", self.card);
            add(UplinkKey::Card, reason);
        }
        if let Some(reason) = self.vlans.problem() {
            add(UplinkKey::Vlan, reason);
        }
        if let Some(reason) = mtu_problem(self.mtu, Self::MTU_MAX) {
            add(UplinkKey::Mtu, reason);
        }
    }
}

impl Management {
    fn problems(&self, mut add: impl FnMut(ManagementKey, String)) {
        let address = u32::from_be_bytes(self.address);
        if !(1..=30).contains(&self.prefix) {
            let reason = format!("a network of /{} has no room for stations", self.prefix);
            return add(ManagementKey::Address, reason);
        }
        let hosts = u32::MAX >> self.prefix;
        let station = |address: u32| !matches!(address & hosts, 0) && address & hosts != hosts;
        let first = self.address[0];
        if !station(address) || matches!(first, 0 | 127 | 224..) {
            let reason = format!("{} cannot be a station's address", Ipv4(self.address));
            add(ManagementKey::Address, reason);
        }
        if let Some(gateway) = self.gateway {
            let number = u32::from_be_bytes(gateway);
            if number ^ address > hosts || !station(number) || number == address {
                let (gateway, own) = (Ipv4(gateway), Ipv4(self.address));
                let reason = format!("{gateway} is no neighbour of {own}/{}", self.prefix);
                add(ManagementKey::Gateway, reason);
            }
        }
        if let Some(reason) = vlan_problem(self.vlan) {
            add(ManagementKey::Vlan, reason);
        }
    }
}

/// An address in its usual form.
struct Ipv4([u8; 4]);

impl fmt::Display for Ipv4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        core::net::Ipv4Addr::from(self.0).fmt(f)
    }
}

impl Guest {
    fn nic_problems(&self, mut add: impl FnMut(GuestKey, String)) {
        if self.nics.len() > GuestNic::COUNT_MAX {
            add(
                GuestKey::Nics,
                format!(
                    "{} network cards are more than the {} that a guest can have",
                    self.nics.len(),
                    GuestNic::COUNT_MAX
                ),
            );
        }
        for (at, nic) in self.nics.iter().take(GuestNic::COUNT_MAX).enumerate() {
            let earlier = &self.nics[..at];
            if let Some(reason) = self.nic_problem(nic, earlier) {
                add(GuestKey::Nic(at), reason);
            }
        }
    }

    fn nic_problem(&self, nic: &GuestNic, earlier: &[GuestNic]) -> Option<String> {
        let pci = self.devices.contains(&Device::Pci);
        let virtio = nic.model == NicModel::Virtio;
        match nic.model {
            NicModel::Virtio | NicModel::Rtl8029 if !pci => {
                return Some(
                    "this card is on the PCI bus: the guest's devices must include \"pci\"".into(),
                );
            }
            NicModel::Ne2000 { port, irq } => {
                const COM1: u16 = 0x3E0;
                if !port.is_multiple_of(32) || !(0x200..COM1).contains(&port) {
                    return Some(format!(
                        "port {port:#x} cannot be an NE2000's: a multiple of 0x20 from 0x200 to 0x3c0 can"
                    ));
                }
                if !GuestNic::IRQS.contains(&irq) {
                    return Some(format!(
                        "an NE2000 cannot have IRQ {irq}; it can have one of {:?}",
                        GuestNic::IRQS
                    ));
                }
                let clash = earlier.iter().any(|other| match other.model {
                    NicModel::Ne2000 { port: p, irq: i } => p == port || i == irq,
                    _ => false,
                });
                if clash {
                    return Some("another card of the guest has this port or IRQ".into());
                }
            }
            NicModel::Virtio | NicModel::Rtl8029 => {}
        }
        if let Some(reason) = nic.vlans.problem() {
            return Some(reason);
        }
        let most = if virtio {
            GuestNic::MTU_MAX
        } else {
            GuestNic::MTU_DEFAULT
        };
        if let Some(reason) = mtu_problem(nic.mtu, most) {
            return Some(reason);
        }
        let most = if virtio { Self::VCPUS_MAX } else { 1 };
        if nic.queues == 0 || usize::from(nic.queues) > most {
            return Some(format!("queues = {} is outside 1 to {most}", nic.queues));
        }
        let limits = [nic.receive_limit, nic.transmit_limit];
        limits
            .into_iter()
            .flatten()
            .find(|limit| *limit < GuestNic::LIMIT_MIN)
            .map(|limit| {
                format!("a limit of {limit} bits a second is too low; 64 kbit/s is the least")
            })
    }
}

impl Vlans {
    fn problem(&self) -> Option<String> {
        if self.untagged.is_none() && self.tagged.is_empty() {
            return Some("a port needs a VLAN".into());
        }
        let mut all: Vec<_> = self.untagged.iter().chain(&self.tagged).copied().collect();
        if let Some(reason) = all.iter().copied().find_map(vlan_problem) {
            return Some(reason);
        }
        all.sort_unstable();
        all.windows(2)
            .find(|pair| pair[0] == pair[1])
            .map(|pair| format!("VLAN {} is named twice", pair[0]))
    }
}

fn vlan_problem(vlan: VlanNumber) -> Option<String> {
    (vlan == 0 || vlan > VLAN_MAX).then(|| format!("VLAN {vlan} is outside 1 to {VLAN_MAX}"))
}

fn mtu_problem(mtu: u16, most: u16) -> Option<String> {
    let least = GuestNic::MTU_MIN;
    (!(least..=most).contains(&mtu)).then(|| format!("mtu = {mtu} is outside {least} to {most}"))
}
