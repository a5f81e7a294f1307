//! The network's part of a board file.

use super::File;
use super::rate::parse_rate;
use super::reader::Table;
use crate::network::{
    Card, GuestNic, Management, NicModel, Uplink, VLAN_DEFAULT, Vlans, derived_mac,
};
use crate::validate::{GuestKey, ManagementKey, Place, UplinkKey};
use ::toml::de::DeValue;
use mirror::Side;
use net::MacAddress;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::str::FromStr;

pub(super) const UPLINK_KEYS: &[&str] = &["name", "card", "vlan", "trunk", "mtu"];
pub(super) const MANAGEMENT_KEYS: &[&str] = &["mac", "address", "gateway", "vlan"];
const NIC_KEYS: &[&str] = &[
    "model",
    "mac",
    "port",
    "irq",
    "vlan",
    "trunk",
    "guard",
    "urgent",
    "receive_limit",
    "transmit_limit",
    "mtu",
    "queues",
];
/// Where an NE2000 is if its table does not say.
const NE2000_PORT: u16 = 0x300;
const NE2000_IRQ: u8 = 5;

/// The name of the management station among those that addresses are derived from.
const MANAGEMENT: &str = "management";

impl File<'_, '_> {
    pub(super) fn uplink(&mut self, index: usize, table: &Table<'_>) -> Uplink {
        let name = table.required_string("name", self.notes);
        let card = self.required_text(table, "card", card);
        let vlans = self.vlans(table);
        let mtu = table.integer_or("mtu", u16::MAX, GuestNic::MTU_DEFAULT, self.notes);
        self.mark(name.is_none(), Place::Uplink(index, UplinkKey::Name));
        self.mark(card.is_none(), Place::Uplink(index, UplinkKey::Card));
        self.mark(vlans.is_none(), Place::Uplink(index, UplinkKey::Vlan));
        Uplink {
            name: name.unwrap_or_default(),
            // A card that no other stand-in is.
            card: card.unwrap_or(Card::Slot {
                bus: u8::MAX,
                device: u8::try_from(index).unwrap_or(u8::MAX),
                function: u8::MAX,
            }),
            vlans: vlans.unwrap_or(Vlans::access(VLAN_DEFAULT)),
            mtu: mtu.unwrap_or(GuestNic::MTU_DEFAULT),
        }
    }

    pub(super) fn management(&mut self, board: &str, table: &Table<'_>) -> Management {
        // The guests' addresses move from board to board; the station's does not.
        let index = match self.side {
            None | Some(Side::A) => 0,
            Some(Side::B) => 1,
        };
        let mac = self.mac(table, || derived_mac(board, MANAGEMENT, index));
        let address = self.required_text(table, "address", network);
        let gateway = self.text(table, "gateway", |text| {
            text.parse::<Ipv4Addr>()
                .map_err(|_| "write it like \"192.0.2.1\"")
        });
        let vlan = table.integer_or("vlan", u16::MAX, VLAN_DEFAULT, self.notes);
        for (bad, key) in [
            (mac.is_none(), ManagementKey::Mac),
            (address.is_none(), ManagementKey::Address),
            (address.is_none(), ManagementKey::Gateway),
            (vlan.is_none(), ManagementKey::Vlan),
        ] {
            self.mark(bad, Place::Management(key));
        }
        let (address, prefix) = address.unwrap_or((Ipv4Addr::LOCALHOST, 8));
        Management {
            mac: mac.unwrap_or_else(|| derived_mac(board, MANAGEMENT, index)),
            address: address.octets(),
            prefix,
            gateway: gateway.map(|gateway| gateway.octets()),
            vlan: vlan.unwrap_or(VLAN_DEFAULT),
        }
    }

    pub(super) fn nics(
        &mut self,
        board: &str,
        index: usize,
        guest: &Table<'_>,
        name: Option<&str>,
        vcpus: usize,
    ) -> Vec<GuestNic> {
        let mut nics = Vec::new();
        for (at, value) in guest.array("nics", self.notes).iter().enumerate() {
            let DeValue::Table(table) = value.get_ref() else {
                let advice = "a network card is written { model = \"virtio\" }";
                self.notes.error(value.span().start, advice);
                continue;
            };
            let start = value.span().start;
            let table = Table::new(table, start, "a network card", NIC_KEYS, self.notes);
            let derived = || derived_mac(board, name.unwrap_or("?"), at);
            let nic = self.nic(&table, vcpus, derived);
            self.mark(nic.is_none(), Place::Guest(index, GuestKey::Nic(at)));
            nics.push(nic.unwrap_or_else(|| GuestNic {
                model: NicModel::Virtio,
                mac: derived(),
                vlans: Vlans::access(VLAN_DEFAULT),
                guard: false,
                urgent: false,
                receive_limit: None,
                transmit_limit: None,
                mtu: GuestNic::MTU_DEFAULT,
                queues: 1,
            }));
        }
        nics
    }

    fn nic(
        &mut self,
        table: &Table<'_>,
        vcpus: usize,
        derived: impl FnOnce() -> MacAddress,
    ) -> Option<GuestNic> {
        let port = table.integer_or("port", u16::MAX, NE2000_PORT, self.notes);
        let irq = table.integer_or("irq", u8::MAX, NE2000_IRQ, self.notes);
        table.required("model", self.notes);
        let models = &[
            ("virtio", NicModel::Virtio),
            ("rtl8029", NicModel::Rtl8029),
            (
                "ne2000",
                NicModel::Ne2000 {
                    port: port.unwrap_or(NE2000_PORT),
                    irq: irq.unwrap_or(NE2000_IRQ),
                },
            ),
        ];
        let model = table.choice("model", models, self.notes);
        if !matches!(model, None | Some(NicModel::Ne2000 { .. })) {
            for key in ["port", "irq"] {
                if table.get(key).is_some() {
                    let reason = format!("only the model \"ne2000\" has the key \"{key}\"");
                    self.notes.error(table.position(key), reason);
                }
            }
        }
        let queues = if model == Some(NicModel::Virtio) {
            u16::try_from(vcpus).unwrap_or(u16::MAX)
        } else {
            1
        };
        let queues = table.integer_or("queues", u16::MAX, queues, self.notes);
        let mtu = table.integer_or("mtu", u16::MAX, GuestNic::MTU_DEFAULT, self.notes);
        let mac = self.mac(table, derived);
        let vlans = self.vlans(table);
        let mut limit = |key| self.text(table, key, parse_rate);
        let (receive_limit, transmit_limit) = (limit("receive_limit"), limit("transmit_limit"));
        port?;
        irq?;
        Some(GuestNic {
            model: model?,
            mac: mac?,
            vlans: vlans?,
            guard: table.boolean("guard", self.notes).unwrap_or(false),
            urgent: table.boolean("urgent", self.notes).unwrap_or(false),
            receive_limit,
            transmit_limit,
            mtu: mtu?,
            queues: queues?,
        })
    }

    /// The keys `vlan`, whose frames have no tag, and `trunk`, those whose have.
    fn vlans(&mut self, table: &Table<'_>) -> Option<Vlans> {
        let untagged = match table.get("vlan") {
            Some(_) => Some(table.required_integer("vlan", u16::MAX, self.notes)?),
            None => None,
        };
        let tagged = match table.get("trunk") {
            Some(_) => table.required_integers("trunk", u16::MAX, self.notes)?,
            None => Vec::new(),
        };
        Some(match untagged {
            None if tagged.is_empty() => Vlans::access(VLAN_DEFAULT),
            _ => Vlans { untagged, tagged },
        })
    }

    fn mac(
        &mut self,
        table: &Table<'_>,
        derived: impl FnOnce() -> MacAddress,
    ) -> Option<MacAddress> {
        match table.get("mac") {
            Some(_) => self.text(table, "mac", MacAddress::from_str),
            None => Some(derived()),
        }
    }

    /// A key whose text means something else.
    pub(super) fn text<T, E: Display>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = table.string(key, self.notes)?;
        read(&text)
            .map_err(|advice| {
                let reason = format!("{key} cannot be \"{text}\": {advice}");
                self.notes.error(table.position(key), reason);
            })
            .ok()
    }

    pub(super) fn required_text<T, E: Display>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        table.required(key, self.notes)?;
        self.text(table, key, read)
    }
}

/// A card, by its place or its address.
pub(super) fn card(text: &str) -> Result<Card, &'static str> {
    const ADVICE: &str = "name the card by its place on the PCI bus, like \"00:03.0\", or by its MAC address, like \
                          \"52:54:00:12:34:56\"";
    if let Ok(mac) = text.parse() {
        return Ok(Card::Mac(mac));
    }
    let slot = || {
        let (bus, rest) = text.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let number = |digits: &str, length| {
            let fits = digits.len() == length && digits.bytes().all(|d| d.is_ascii_hexdigit());
            u8::from_str_radix(digits, 16).ok().filter(|_| fits)
        };
        Some(Card::Slot {
            bus: number(bus, 2)?,
            device: number(device, 2)?,
            function: number(function, 1)?,
        })
    };
    slot().ok_or(ADVICE)
}

/// An address and how many bits of it name the network.
fn network(text: &str) -> Result<(Ipv4Addr, u8), &'static str> {
    let parts = text.split_once('/');
    let read =
        parts.and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)));
    read.ok_or("write the address and the length of the network's, like \"192.0.2.2/24\"")
}
