//! The virtual switch: which way a frame goes.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::bucket::{Bucket, Rate};
use crate::header::{Header, Rewritten};
use crate::stations::{Learnt, Stations};
use crate::{MacAddress, PortId, PortSet, VlanId};

/// The first bytes of addresses whose frames no bridge passes on (IEEE 802.1Q, table 8-1); the last is any below 0x10.
const RESERVED: [u8; 5] = [0x01, 0x80, 0xC2, 0x00, 0x00];

/// What a switch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchConfig {
    /// Ticks of its clock in a second.
    pub ticks_per_second: u64,
    /// Seconds after which a station that was not heard of is forgotten.
    pub ageing_seconds: u64,
    /// A number that others cannot guess.
    pub seed: u64,
}

/// What a port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// The VLAN of frames without a tag.
    pub untagged: Option<VlanId>,
    /// The VLANs of frames with a tag.
    pub tagged: Vec<VlanId>,
    /// Whose address nobody else may use while the port is [open](Switch::open).
    pub station: Option<MacAddress>,
    /// Whether nobody but `station` may send from here.
    pub guard: bool,
    /// Most stations that are learnt behind it: what keeps one port from crowding others' out.
    pub quota: u16,
    /// A limit of what comes in.
    pub ingress: Option<Rate>,
    /// A limit of what goes out.
    pub egress: Option<Rate>,
    /// The priority that frames from here get where they leave with a tag, 0 to 7.
    pub priority: u8,
}

impl Default for PortConfig {
    /// A port without VLANs or limits.
    fn default() -> Self {
        Self {
            untagged: None,
            tagged: Vec::new(),
            station: None,
            guard: false,
            quota: 256,
            ingress: None,
            egress: None,
            priority: 0,
        }
    }
}

/// Why a frame went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// Its header is none.
    Malformed,
    /// The port is not in its VLAN.
    Vlan,
    /// It comes from another station than it says.
    Spoofed,
    /// Bridges do not pass it on.
    Reserved,
    /// More came in than the port's limit.
    IngressLimit,
    /// More was to go out than the port's limit.
    EgressLimit,
    /// The port's link is down.
    Down,
}

impl Reason {
    /// All of them, each at its number.
    pub const ALL: [Self; 7] = [
        Self::Malformed,
        Self::Vlan,
        Self::Spoofed,
        Self::Reserved,
        Self::IngressLimit,
        Self::EgressLimit,
        Self::Down,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Vlan => "vlan",
            Self::Spoofed => "spoofed",
            Self::Reserved => "reserved",
            Self::IngressLimit => "ingress-limit",
            Self::EgressLimit => "egress-limit",
            Self::Down => "link-down",
        }
    }
}

/// What went through a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that came in, and their bytes.
    pub frames_in: u64,
    /// Bytes that came in.
    pub bytes_in: u64,
    /// Frames that were to go out.
    pub frames_out: u64,
    /// Bytes that were to go out.
    pub bytes_out: u64,
    /// Frames that went no further, by [`Reason`].
    pub dropped: [u64; Reason::ALL.len()],
    /// Stations that were behind another port before.
    pub moved: u64,
}

/// The ways of a VLAN's frames.
#[derive(Clone, Copy, Debug, Default)]
struct Members {
    all: PortSet,
    tagged: PortSet,
}

#[derive(Clone, Debug)]
struct Port {
    config: PortConfig,
    ingress: Option<Bucket>,
    egress: Option<Bucket>,
    counters: Counters,
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// The ports that it leaves by.
    pub ports: PortSet,
    /// Somebody looks at what goes through one of its ports.
    pub captured: bool,
    /// Those of its ports where it leaves with a tag.
    tagged: PortSet,
    /// Whether it came with one that can stay as it is, or with one at all.
    right_tag: bool,
    any_tag: bool,
    vlan: Option<VlanId>,
    priority: u8,
}

impl Forwarding {
    const NOWHERE: Self = Self {
        ports: PortSet::EMPTY,
        captured: false,
        tagged: PortSet::EMPTY,
        right_tag: false,
        any_tag: false,
        vlan: None,
        priority: 0,
    };

    /// The first bytes of the frame, which begins with `head`, as they are to leave by a port; `None` if they are to leave as
    /// they came.
    #[inline]
    #[must_use]
    pub fn rewritten(&self, port: PortId, head: &[u8]) -> Option<Rewritten> {
        let tagged = self.tagged.contains(port);
        let stays = if tagged {
            self.right_tag
        } else {
            !self.any_tag
        };
        if stays {
            return None;
        }
        let tag = self
            .vlan
            .filter(|_| tagged)
            .map(|vlan| (vlan, self.priority));
        Rewritten::new(head, self.any_tag, tag)
    }
}

/// A learning switch with VLANs (IEEE 802.1Q).
#[derive(Clone, Debug)]
pub struct Switch {
    ticks_per_second: u64,
    ports: Vec<Port>,
    /// By their numbers.
    vlans: Box<[Members]>,
    stations: Stations,
    /// Stations of open ports: they are behind those alone.
    bound: Vec<(MacAddress, PortId)>,
    /// Ports with a carrier, and those that the operator has not switched off.
    carrier: PortSet,
    enabled: PortSet,
    mirrored: PortSet,
}

impl Switch {
    /// A switch without ports.
    #[must_use]
    pub fn new(config: SwitchConfig) -> Self {
        let ageing = config
            .ageing_seconds
            .saturating_mul(config.ticks_per_second);
        Self {
            ticks_per_second: config.ticks_per_second,
            ports: Vec::new(),
            vlans: vec![Members::default(); usize::from(VlanId::MAX) + 1].into_boxed_slice(),
            stations: Stations::new(ageing, config.seed),
            bound: Vec::with_capacity(PortId::COUNT_MAX),
            carrier: PortSet::EMPTY,
            enabled: PortSet::EMPTY,
            mirrored: PortSet::EMPTY,
        }
    }

    /// Adds a port, whose link is up. `None` if there are [`PortId::COUNT_MAX`] already.
    pub fn add_port(&mut self, config: PortConfig) -> Option<PortId> {
        let id = PortId::new(self.ports.len())?;
        let tagged = config.tagged.iter().map(|vlan| (vlan, true));
        for (vlan, tagged) in config
            .untagged
            .iter()
            .map(|vlan| (vlan, false))
            .chain(tagged)
        {
            if let Some(members) = self.vlans.get_mut(vlan.index()) {
                members.all.set(id, true);
                members.tagged.set(id, tagged);
            }
        }
        let bucket = |rate: Option<Rate>| rate.map(|rate| Bucket::new(rate, self.ticks_per_second));
        self.carrier.set(id, true);
        self.enabled.set(id, true);
        self.stations.set_quota(id, config.quota);
        self.ports.push(Port {
            ingress: bucket(config.ingress),
            egress: bucket(config.egress),
            config,
            counters: Counters::default(),
        });
        Some(id)
    }

    /// Which way a frame goes that came in at `from`, `length` bytes long and beginning with `head`: that must hold what there
    /// is of the first 18 bytes, and of ARP packets the first 32, if senders are to be checked.
    #[inline]
    pub fn forward(&mut self, from: PortId, head: &[u8], length: usize, now: u64) -> Forwarding {
        let up = self.carrier.and(self.enabled);
        let Some(port) = self.ports.get_mut(from.index()) else {
            return Forwarding::NOWHERE;
        };
        if !up.contains(from) {
            return port.counters.drop(Reason::Down);
        }
        let (header, vlan) = match port.admit(head, length, now, from, &self.vlans, &self.bound) {
            Ok(admitted) => admitted,
            Err(reason) => return port.counters.drop(reason),
        };
        if self.stations.learn(header.source, vlan, from, now) == Learnt::Moved {
            port.counters.moved += 1;
        }
        let priority = header.tag.map_or(port.config.priority, |tag| tag.priority);
        let members = self.vlans.get(vlan.index()).copied().unwrap_or_default();
        let known = if header.destination.is_group() {
            None
        } else {
            let learnt = self.stations.find(header.destination, vlan, now);
            learnt.or_else(|| self.bound_to(header.destination, members.all))
        };
        let mut ports = known.map_or(members.all, |port| members.all.and(PortSet::of(port)));
        ports.set(from, false);
        let captured = !ports.and(self.mirrored).is_empty() || self.mirrored.contains(from);
        ports = ports.and(up);
        for id in ports.iter() {
            if let Some(port) = self.ports.get_mut(id.index())
                && !port.emit(length, now)
            {
                ports.set(id, false);
            }
        }
        Forwarding {
            ports,
            captured,
            tagged: members.tagged,
            right_tag: header.tag.is_some_and(|tag| tag.vlan == vlan.number()),
            any_tag: header.tag.is_some(),
            vlan: Some(vlan),
            priority,
        }
    }

    /// The one of these ports that a station is bound to. One that has said nothing yet, or had no room in the table, is there, too.
    #[cold]
    fn bound_to(&self, station: MacAddress, among: PortSet) -> Option<PortId> {
        let mut bound = self.bound.iter();
        let found = bound.find(|(own, port)| *own == station && among.contains(*port));
        found.map(|(_, port)| *port)
    }

    /// A frame that was to be [forwarded](Self::forward) so was not, and will come again: it does not count.
    #[cold]
    pub fn take_back(&mut self, from: PortId, way: &Forwarding, length: usize) {
        if let Some(port) = self.ports.get_mut(from.index()) {
            port.counters.frames_in -= 1;
            port.counters.bytes_in -= length as u64;
            if let Some(bucket) = &mut port.ingress {
                bucket.give(length);
            }
        }
        for id in way.ports.iter() {
            if let Some(port) = self.ports.get_mut(id.index()) {
                port.counters.frames_out -= 1;
                port.counters.bytes_out -= length as u64;
                if let Some(bucket) = &mut port.egress {
                    bucket.give(length);
                }
            }
        }
    }

    /// The carrier of a port comes or goes.
    pub fn set_carrier(&mut self, port: PortId, there: bool) {
        self.carrier.set(port, there);
        if !there {
            self.stations.forget(port);
        }
    }

    /// The operator switches a port on or off.
    pub fn set_enabled(&mut self, port: PortId, enabled: bool) {
        self.enabled.set(port, enabled);
        if !enabled {
            self.stations.forget(port);
        }
    }

    /// Whether frames come in and go out at a port.
    #[must_use]
    pub fn is_up(&self, port: PortId) -> bool {
        self.carrier.and(self.enabled).contains(port)
    }

    /// A port's own station comes or goes: while it is there, it is nowhere else. When it goes, the stations behind the port are
    /// forgotten.
    pub fn open(&mut self, port: PortId, open: bool) {
        self.bound.retain(|(_, id)| *id != port);
        let station = self
            .ports
            .get(port.index())
            .and_then(|it| it.config.station);
        match station {
            Some(station) if open => {
                // Others may have had its address meanwhile.
                self.stations.forget_station(station);
                self.bound.push((station, port));
            }
            _ => self.stations.forget(port),
        }
    }

    /// How many stations are known behind a port.
    #[must_use]
    pub fn stations(&self, port: PortId) -> u16 {
        self.stations.count(port)
    }

    /// Whether frames that come in or go out at a port are to be captured.
    pub fn set_mirrored(&mut self, port: PortId, mirrored: bool) {
        self.mirrored.set(port, mirrored);
    }

    /// The ports whose frames are captured.
    #[must_use]
    pub const fn mirrored(&self) -> PortSet {
        self.mirrored
    }

    /// What went through a port.
    #[must_use]
    pub fn counters(&self, port: PortId) -> Counters {
        let port = self.ports.get(port.index());
        port.map(|port| port.counters).unwrap_or_default()
    }
}

impl Port {
    /// A frame comes in: its header and its VLAN, if it is let in.
    #[inline]
    fn admit(
        &mut self,
        head: &[u8],
        length: usize,
        now: u64,
        id: PortId,
        vlans: &[Members],
        bound: &[(MacAddress, PortId)],
    ) -> Result<(Header, VlanId), Reason> {
        self.counters.frames_in += 1;
        self.counters.bytes_in += length as u64;
        let header = Header::read(head).ok_or(Reason::Malformed)?;
        if !header.source.is_station() || header.has_more_tags() {
            return Err(Reason::Malformed);
        }
        let vlan = match header.tag {
            // A tag that only gives a priority (IEEE 802.1Q, 6.9.1).
            Some(tag) if tag.vlan != 0 => VlanId::new(tag.vlan).filter(|vlan| {
                vlans
                    .get(vlan.index())
                    .is_some_and(|it| it.all.contains(id))
            }),
            _ => self.config.untagged,
        };
        let vlan = vlan.ok_or(Reason::Vlan)?;
        let spoofed = match self.config.station {
            Some(station) if self.config.guard => !header.is_of(station, head),
            _ => bound
                .iter()
                .any(|(station, port)| *station == header.source && *port != id),
        };
        if spoofed {
            return Err(Reason::Spoofed);
        }
        let [first @ .., last] = header.destination.0;
        if first == RESERVED && last < 0x10 {
            return Err(Reason::Reserved);
        }
        let within = self
            .ingress
            .as_mut()
            .is_none_or(|bucket| bucket.take(length, now));
        within.then_some((header, vlan)).ok_or(Reason::IngressLimit)
    }

    /// A frame is to go out; whether it may.
    #[inline]
    fn emit(&mut self, length: usize, now: u64) -> bool {
        if let Some(bucket) = &mut self.egress
            && !bucket.take(length, now)
        {
            self.counters.drop(Reason::EgressLimit);
            return false;
        }
        self.counters.frames_out += 1;
        self.counters.bytes_out += length as u64;
        true
    }
}

impl Counters {
    fn drop(&mut self, reason: Reason) -> Forwarding {
        if let Some(count) = self.dropped.get_mut(reason as usize) {
            *count += 1;
        }
        Forwarding::NOWHERE
    }
}
