//! The network around the board of `cargo xtask run`: a wire with the board's cards, and a station on it through which
//! programs of this host reach the board's guests, without any rights.

use crate::cli::NetworkOptions;
use crate::client::{Client, Station, Stream, UdpPort};
use crate::emulator::{CardModel, NetworkCard};
use crate::paths;
use crate::wire::{Script, Wire};
use anyhow::{Context, Result, bail};
use config::{Card, Uplink};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long a guest may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(24 * 3600);
/// How long answers to a program's datagrams are waited for.
const UDP_IDLE: Duration = Duration::from_secs(60);
/// The longest datagram that is not sent in pieces: what a frame holds without the headers of IPv4 and UDP.
const DATAGRAM: usize = 1500 - 20 - 8;

/// A port of this host that leads to one of a guest's: `8080:10.0.0.3:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    port: u16,
    to: SocketAddrV4,
}

impl FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(port, to)| {
            let port = port.parse().ok()?;
            let to: SocketAddrV4 = to.parse().ok()?;
            (to.port() != 0).then_some(Self { port, to })
        });
        parsed.ok_or_else(|| "write PORT:ADDRESS:PORT, such as 8080:10.0.0.3:80".into())
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "localhost:{} leads to {}", self.port, self.to)
    }
}

/// The address of this host's station, with the length of the net's prefix: `10.0.0.254/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StationAddress {
    address: Ipv4Addr,
    prefix: u8,
}

impl FromStr for StationAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            Some(Self {
                address: address.parse().ok()?,
                prefix: prefix.parse().ok().filter(|prefix| *prefix <= 32)?,
            })
        });
        parsed.ok_or_else(|| "write ADDRESS/BITS, such as 10.0.0.254/24".into())
    }
}

/// What is around the board.
#[derive(Debug)]
pub(crate) struct Network {
    /// The board's cards.
    pub(crate) cards: Vec<NetworkCard>,
    wire: Wire,
    script: Option<Script>,
    /// Kept while the board runs: it answers pings.
    _station: Option<Arc<Client>>,
}

impl Network {
    /// Lays what the board and the options ask for.
    ///
    /// # Errors
    ///
    /// Where the script names ends that are not there, or a file or port cannot be used.
    pub(crate) fn lay(
        options: &NetworkOptions,
        script: Option<Script>,
        uplinks: &[Uplink],
    ) -> Result<Self> {
        let wire = Wire::lay()?;
        if let Some(file) = &options.capture {
            wire.capture(file)?;
        }
        let mut cards = Vec::new();
        for number in 0..uplinks.len().max(options.card.len()) {
            let model = options.card.get(number).or(options.card.last());
            // Both emulators have this one.
            let model = model.copied().unwrap_or(CardModel::E1000);
            let mut card = NetworkCard::on(&wire, model, number as u8 + 1)?;
            if let Some(Card::Mac(address)) = uplinks.get(number).map(|uplink| uplink.card) {
                card.address = address.0;
            }
            cards.push(card);
        }
        if cards.is_empty() && options.is_used() {
            bail!(
                "the board has no network card: its file has no [[uplink]], and no --card is given"
            );
        }
        let station = if cards.is_empty() {
            None
        } else {
            Some(station(&wire, options)?)
        };
        if let Some(end) = script.as_ref().and_then(Script::last_end)
            && end >= wire.ends()
        {
            bail!(
                "the wire's script names the end {end}, but there are only {}",
                wire.ends()
            );
        }
        Ok(Self {
            cards,
            wire,
            script,
            _station: station,
        })
    }

    /// Starts the script's time.
    pub(crate) fn start(&mut self) {
        if let Some(script) = self.script.take() {
            self.wire.play(script);
        }
    }
}

/// Reads the script that the options name.
///
/// # Errors
///
/// Where it cannot be read, or is wrong.
pub(crate) fn script(options: &NetworkOptions) -> Result<Option<Script>> {
    let Some(file) = &options.wire else {
        return Ok(None);
    };
    let text = String::from_utf8(paths::read(file)?);
    let text = text.with_context(|| format!("{} is no text", file.display()))?;
    let script = text.parse();
    let script = script.with_context(|| format!("{} is wrong", file.display()))?;
    Ok(Some(script))
}

/// Puts this host's station on the wire, and opens the ports that lead to guests.
///
/// # Errors
///
/// Where a port cannot be used.
pub(crate) fn station(wire: &Wire, options: &NetworkOptions) -> Result<Arc<Client>> {
    let StationAddress { address, prefix } = options.station;
    let station = Station {
        prefix,
        ..Station::new(address.octets())
    };
    let client = Arc::new(Client::attach(wire, station)?);
    for forward in &options.tcp {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, forward.port))
            .with_context(|| format!("cannot listen at the TCP port {}", forward.port))?;
        let (client, to) = (Arc::clone(&client), forward.to);
        spawn(move || forward_connections(&listener, &client, to))?;
        eprintln!("    TCP: {forward}");
    }
    for forward in &options.udp {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, forward.port))
            .with_context(|| format!("cannot listen at the UDP port {}", forward.port))?;
        let (client, to) = (Arc::clone(&client), forward.to);
        spawn(move || forward_datagrams(&Arc::new(socket), &client, to))?;
        eprintln!("    UDP: {forward}");
    }
    Ok(client)
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name("forward".into());
    thread.spawn(work).context("cannot start a thread")?;
    Ok(())
}

/// Connects whoever connects, until this program ends. Where the guest refuses, the connection is closed.
fn forward_connections(listener: &TcpListener, client: &Arc<Client>, to: SocketAddrV4) {
    for stream in listener.incoming().flatten() {
        let client = Arc::clone(client);
        let _ = spawn(move || {
            if let Ok(mut guest) = client.connect(*to.ip(), to.port(), CONNECT) {
                guest.set_timeout(IDLE);
                join(&stream, &guest);
            }
        });
    }
}

/// Copies in both directions until both are over.
fn join(host: &TcpStream, guest: &Stream) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let copied = copy(&mut &*host, &mut &*guest);
            guest.finish();
            if copied.is_err() {
                let _ = host.shutdown(Shutdown::Both);
            }
        });
        let copied = copy(&mut &*guest, &mut &*host);
        let _ = host.shutdown(match copied {
            Ok(()) => Shutdown::Write,
            Err(_) => Shutdown::Both,
        });
    });
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Passes datagrams on until this program ends; each program that sends some has a port of the station's, to which the
/// answers come, for a while.
fn forward_datagrams(socket: &Arc<UdpSocket>, client: &Client, to: SocketAddrV4) {
    let mut senders: BTreeMap<SocketAddr, Arc<Sender>> = BTreeMap::new();
    let mut buffer = vec![0; DATAGRAM + 1];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        senders.retain(|_, sender| !sender.idle.load(Ordering::Relaxed));
        let known = match senders.get(&from) {
            Some(sender) => Ok(Arc::clone(sender)),
            None => Sender::start(client, socket, from),
        };
        // What cannot be sent is lost, as datagrams may be.
        if let Ok(sender) = known
            && length <= DATAGRAM
        {
            let _ = sender.port.send_to(&buffer[..length], to);
            senders.insert(from, sender);
        }
    }
}

/// A program of this host that sends datagrams.
struct Sender {
    port: UdpPort,
    /// No answer has come for a while, and none will be passed on any more.
    idle: AtomicBool,
}

impl Sender {
    fn start(client: &Client, socket: &Arc<UdpSocket>, from: SocketAddr) -> Result<Arc<Self>> {
        let sender = Arc::new(Self {
            port: client.udp(None)?,
            idle: AtomicBool::new(false),
        });
        let (own, socket) = (Arc::clone(&sender), Arc::clone(socket));
        spawn(move || {
            while let Some((bytes, _)) = own.port.receive(UDP_IDLE) {
                let _ = socket.send_to(&bytes, from);
            }
            own.idle.store(true, Ordering::Relaxed);
        })?;
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn forwards_are_read() {
        let forward: Forward = "8080:10.0.0.3:80".parse().unwrap();
        assert_eq!(forward.to_string(), "localhost:8080 leads to 10.0.0.3:80");
        for text in ["8080", "x:10.0.0.3:80", "8080:10.0.0.3", "1:10.0.0.3:0", ""] {
            assert!(text.parse::<Forward>().is_err(), "{text}");
        }
        assert!("10.0.0.254/24".parse::<StationAddress>().is_ok());
        assert!("10.0.0.254/33".parse::<StationAddress>().is_err());
        assert!("10.0.0.254".parse::<StationAddress>().is_err());
    }

    fn options(arguments: &[&str]) -> NetworkOptions {
        let words = ["cargo xtask", "run"].iter().chain(arguments);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Run(options) => options.network,
            other => panic!("{other:?}"),
        }
    }

    /// A wire with this host's station, and a guest's.
    fn forwarded(arguments: &[&str]) -> (Wire, Arc<Client>, Client) {
        let wire = Wire::lay().unwrap();
        let station = station(&wire, &options(arguments)).unwrap();
        let guest = Client::attach(&wire, Station::new([10, 0, 0, 3])).unwrap();
        (wire, station, guest)
    }

    /// A port that is free now.
    fn port() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap().port()
    }

    #[test]
    fn a_connection_to_this_host_reaches_the_guest_and_ends_on_both_sides() {
        let port = port();
        let (_wire, _station, guest) = forwarded(&["--tcp", &format!("{port}:10.0.0.3:80")]);
        let listening = guest.listen(80, SOON);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = listening.accepted();
                let mut question = String::new();
                stream.read_to_string(&mut question).unwrap();
                stream
                    .write_all(question.to_uppercase().as_bytes())
                    .unwrap();
            });
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.write_all(b"hello").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "HELLO");
        });
        let mut refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        refused.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(refused.read(&mut [0]).unwrap(), 0, "nobody listens there");
    }

    #[test]
    fn each_sender_of_datagrams_gets_its_own_answers() {
        let port = port();
        let (_wire, _station, guest) = forwarded(&["--udp", &format!("{port}:10.0.0.3:7")]);
        let echo = guest.udp(Some(7)).unwrap();
        let programs = [(); 2].map(|()| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            socket.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            socket
        });
        for round in 0..2 {
            for (number, program) in programs.iter().enumerate() {
                program.send(&[number as u8, round]).unwrap();
            }
            let questions = [(); 2].map(|()| echo.receive(SOON).unwrap());
            for (bytes, from) in questions.iter().rev() {
                echo.send_to(bytes, *from).unwrap();
            }
            for (number, program) in programs.iter().enumerate() {
                let mut answer = [0; 10];
                assert_eq!(program.recv(&mut answer).unwrap(), 2);
                assert_eq!(answer[..2], [number as u8, round]);
            }
        }
    }

    fn uplink(card: Card) -> Uplink {
        Uplink {
            name: "lan".into(),
            card,
            vlans: config::Vlans::access(1),
            mtu: 1500,
        }
    }

    #[test]
    fn each_uplink_has_a_card_of_the_model_that_was_asked_for() {
        let lay = |arguments: &[&str], uplinks: &[Uplink]| {
            let network = Network::lay(&options(arguments), None, uplinks)?;
            let cards = network.cards.iter();
            let cards = cards.map(|card| (card.model, card.address_text(), card.plug.end));
            anyhow::Ok(cards.collect::<Vec<_>>())
        };
        let card = |model, address: &str, end| (model, address.to_owned(), end);
        assert_eq!(lay(&[], &[]).unwrap(), []);
        let uplinks = [
            uplink(Card::Mac("02:00:00:00:00:07".parse().unwrap())),
            uplink(Card::Slot {
                bus: 0,
                device: 3,
                function: 0,
            }),
        ];
        let first = card(CardModel::E1000, "02:00:00:00:00:07", 0);
        let second = card(CardModel::E1000, "52:54:00:00:00:02", 1);
        assert_eq!(lay(&[], &uplinks).unwrap(), [first, second]);
        let first = card(CardModel::Igb, "02:00:00:00:00:07", 0);
        let second = card(CardModel::Igb, "52:54:00:00:00:02", 1);
        assert_eq!(
            lay(&["--card", "82576"], &uplinks).unwrap(),
            [first, second]
        );
        let first = card(CardModel::E1000e, "52:54:00:00:00:01", 0);
        assert_eq!(lay(&["--card", "82574l"], &[]).unwrap(), [first]);
        let port = port();
        let forward = format!("{port}:10.0.0.3:80");
        let error = lay(&["--tcp", &forward], &[]).unwrap_err().to_string();
        assert!(error.contains("no network card"), "{error}");
    }

    #[test]
    fn a_wrong_script_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("script");
        let options = options(&["--card", "82540em", "--wire", file.to_str().unwrap()]);
        let lay = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Network::lay(&options, script(&options)?, &[])
        };
        assert!(lay("at 1s from 1 cut\n").is_ok());
        let error = format!("{:#}", lay("at 1s from 2 cut\n").unwrap_err());
        assert!(error.contains("the end 2, but there are only 2"), "{error}");
        let error = format!("{:#}", lay("\nat 1s cat\n").unwrap_err());
        assert!(
            error.contains("script is wrong: line 2: \"cat\""),
            "{error}"
        );
    }
}
