//! What the boot command line says of the network.
//!
//! * `net=virtio`, `net=ne2000` or `net=auto` asks for a network, and for the card. `auto` takes a virtio card, else an
//!   RTL8029, else an NE2000 if `isa=` says where. `ne2000` takes the one of `isa=`, else an RTL8029, else an
//!   NE2000 in its usual place.
//! * `ip=10.0.0.2/24` is the address and the length of the net's prefix.
//! * `gw=10.0.0.1` is the router to other nets, if there is one.
//! * `isa=0x300,5` says where an NE2000 is: first port and interrupt line.

use core::fmt;

use super::is_bus_line;

/// Which cards are looked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cards {
    /// virtio-net.
    Virtio,
    /// NE2000 and its descendants.
    Ne2000,
    /// What there is.
    Any,
}

/// Where an NE2000 is on the ISA bus.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IsaPlace {
    /// Its first port.
    pub port: u16,
    /// Its interrupt line.
    pub line: u8,
}

impl IsaPlace {
    /// How most were delivered.
    pub const USUAL: Self = Self {
        port: 0x300,
        line: 5,
    };
}

/// The settings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settings {
    /// The cards to look for.
    pub cards: Cards,
    /// Where an NE2000 is said to be.
    pub isa: Option<IsaPlace>,
    /// Our address.
    pub address: [u8; 4],
    /// Bits of it that name the net, up to 32.
    pub prefix: u8,
    /// The router.
    pub gateway: Option<[u8; 4]>,
}

/// Which option is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wrong {
    /// `net=` names no card.
    Net,
    /// `ip=` is missing, or is no address of a machine with a prefix.
    Ip,
    /// `gw=` is no address within the net.
    Gateway,
    /// `isa=` is no port and line.
    Isa,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Net => "net= must be virtio, ne2000 or auto",
            Self::Ip => "ip= must be an address and a prefix, such as 10.0.0.2/24",
            Self::Gateway => "gw= must be another address of the net",
            Self::Isa => "isa= must be a port and a line, such as 0x300,5",
        })
    }
}

impl Settings {
    /// Reads the options by a function that knows their values; none without `net=`.
    ///
    /// # Errors
    /// The first option that is wrong.
    pub fn read<'a>(option: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Self>, Wrong> {
        let cards = match option("net") {
            None => return Ok(None),
            Some("virtio") => Cards::Virtio,
            Some("ne2000") => Cards::Ne2000,
            Some("auto") => Cards::Any,
            Some(_) => return Err(Wrong::Net),
        };
        let (address, prefix) = option("ip").and_then(net).ok_or(Wrong::Ip)?;
        let gateway = match option("gw") {
            None => None,
            Some(text) => {
                let gateway = quad(text).ok_or(Wrong::Gateway)?;
                let fits = same_net(gateway, address, prefix) && gateway != address;
                Some(fits.then_some(gateway).ok_or(Wrong::Gateway)?)
            }
        };
        let isa = match option("isa") {
            None => None,
            Some(text) => Some(isa(text).ok_or(Wrong::Isa)?),
        };
        Ok(Some(Self {
            cards,
            isa,
            address,
            prefix,
            gateway,
        }))
    }
}

fn quad(text: &str) -> Option<[u8; 4]> {
    let address: core::net::Ipv4Addr = text.parse().ok()?;
    Some(address.octets())
}

/// The bits of an address that name the machine within its net.
fn host(address: [u8; 4], prefix: u8) -> (u32, u32) {
    let mask = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    (u32::from_be_bytes(address) & mask, mask)
}

fn same_net(one: [u8; 4], other: [u8; 4], prefix: u8) -> bool {
    let (_, mask) = host(one, prefix);
    (u32::from_be_bytes(one) ^ u32::from_be_bytes(other)) & !mask == 0
}

/// An address that a machine can have, and its prefix.
fn net(text: &str) -> Option<([u8; 4], u8)> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix) = (quad(address)?, prefix.parse().ok()?);
    // Neither the net itself nor all its machines; a net of two has neither (RFC 3021).
    let (host, mask) = host(address, prefix);
    let one_machine = mask <= 1 || (host != 0 && host != mask);
    let unicast = !matches!(address[0], 0 | 127 | 224..);
    ((1..=32).contains(&prefix) && one_machine && unicast).then_some((address, prefix))
}

fn isa(text: &str) -> Option<IsaPlace> {
    let (port, line) = text.split_once(',')?;
    let port = u16::from_str_radix(port.strip_prefix("0x")?, 16).ok()?;
    let line = line.parse().ok()?;
    // The card has 32 ports.
    let fits = port.is_multiple_of(0x20) && (0x100..=0x3e0).contains(&port);
    (fits && is_bus_line(line)).then_some(IsaPlace { port, line })
}

#[cfg(test)]
mod tests {
    use pc::cmdline::CommandLine;

    use super::{Cards, IsaPlace, Settings, Wrong};

    fn read(text: &str) -> Result<Option<Settings>, Wrong> {
        let line = CommandLine::new(text);
        Settings::read(|name| line.option(name))
    }

    #[test]
    fn options_are_read() {
        assert_eq!(read("run=selftest ip=nonsense"), Ok(None));
        let expected = Settings {
            cards: Cards::Any,
            isa: None,
            address: [10, 0, 0, 2],
            prefix: 24,
            gateway: None,
        };
        assert_eq!(read("net=auto ip=10.0.0.2/24"), Ok(Some(expected)));
        let settings = read("net=ne2000 ip=192.0.2.1/31 gw=192.0.2.0 isa=0x320,5");
        let expected = Settings {
            cards: Cards::Ne2000,
            isa: Some(IsaPlace {
                port: 0x320,
                line: 5,
            }),
            address: [192, 0, 2, 1],
            prefix: 31,
            gateway: Some([192, 0, 2, 0]),
        };
        assert_eq!(settings, Ok(Some(expected)));
    }

    #[test]
    fn wrong_options_are_named() {
        assert_eq!(read("net=e1000 ip=10.0.0.2/24"), Err(Wrong::Net));
        for ip in [
            "",
            "ip=10.0.0.2",
            "ip=10.0.0.2/33",
            "ip=10.0.0.2/0",
            "ip=10.0.0.256/24",
            "ip=10.0.0.0/24",
            "ip=10.0.0.255/24",
            "ip=127.0.0.1/8",
            "ip=224.0.0.1/8",
            "ip=0.0.0.1/8",
            "ip=255.255.255.255/32",
        ] {
            assert_eq!(read(&format!("net=virtio {ip}")), Err(Wrong::Ip), "{ip}");
        }
        for gateway in ["10.0.1.1", "10.0.0.2", "x"] {
            let text = format!("net=virtio ip=10.0.0.2/24 gw={gateway}");
            assert_eq!(read(&text), Err(Wrong::Gateway), "{gateway}");
        }
        for isa in [
            "300,9", "0x300", "0x310,9", "0x300,16", "0x300,8", "0x400,9", "0x0,9", "0x300,0",
        ] {
            let text = format!("net=ne2000 ip=10.0.0.2/24 isa={isa}");
            assert_eq!(read(&text), Err(Wrong::Isa), "{isa}");
        }
    }
}
