//! Two emulated boards, the wires between them, and what can be done to them.

use super::bystander::Bystander;
use super::command::{Command, Net, Party, Until, Way};
use super::intruder::{Intruder, Trick};
use super::status::{MARK, Reason, Status, drops, drops_mark};
use crate::compile::Programs;
use crate::emulator::console::{Echo, Wait};
use crate::emulator::{CardModel, Emulator, Machine, NetworkCard, Pace, Setup};
use crate::image::LoadedBoard;
use crate::paths;
use crate::wire::{Target, Wire};
use anyhow::{Context, Error, Result, bail};
use config::{Board, Card};
use mirror::Side;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long a board may take to answer in its shell.
const SHELL: Duration = Duration::from_secs(10);
/// How often its state is asked for, where one is waited for.
const LOOK: Duration = Duration::from_millis(300);
/// Leads the console to the hypervisor's shell.
const TO_SHELL: &str = "\u{f}h";

/// Both sides, in the order in which pairs of anything are.
pub(crate) const SIDES: [Side; 2] = [Side::A, Side::B];

/// The place of a side in pairs of anything.
pub(crate) const fn index(side: Side) -> usize {
    match side {
        Side::A => 0,
        Side::B => 1,
    }
}

/// One board of the pair.
#[derive(Debug)]
struct Blade {
    setup: Setup,
    /// For the logs of all its starts.
    folder: PathBuf,
    starts: u32,
    /// None while it is off.
    machine: Option<Machine>,
    frozen: bool,
}

/// The ends of the wires that boards and others are on.
#[derive(Clone, Copy, Debug)]
struct Ends {
    lan: [usize; 2],
    link: [usize; 2],
    client: Option<usize>,
}

/// Two boards, the LAN and the link.
#[derive(Debug)]
pub(crate) struct Pair {
    emulator: Emulator,
    blades: [Blade; 2],
    /// The network of guests, client and witness.
    pub(crate) lan: Wire,
    /// The dedicated link.
    pub(crate) link: Wire,
    ends: Ends,
    /// None if the boards ask none.
    witness: Option<Bystander>,
    /// On the LAN and on the link, once they are wanted.
    intruders: [Option<Intruder>; 2],
    echo: bool,
}

/// What a board's image is, and what it needs.
pub(crate) struct Image {
    /// The CD.
    pub(crate) iso: PathBuf,
    /// Its description.
    pub(crate) board: Board,
    /// The machine's memory.
    pub(crate) megabytes: u32,
}

impl Image {
    /// Makes that of a side, from the text of a board file, in a folder.
    ///
    /// # Errors
    ///
    /// Where the text is wrong, or the CD cannot be made.
    pub(crate) fn make(text: &str, side: Side, programs: &Programs, folder: &Path) -> Result<Self> {
        let loaded = LoadedBoard::parse(text, "the pair", Some(side), &paths::root(), programs)?;
        Ok(Self {
            iso: loaded.make_image(folder, programs, "")?,
            megabytes: loaded.megabytes(),
            board: loaded.board,
        })
    }
}

/// A card of a board: it has the address by which the board file names it, or else one of the side and the number.
fn card(wire: &Wire, model: CardModel, side: Side, number: u8, named: Card) -> Result<NetworkCard> {
    let mut card = NetworkCard::on(wire, model, number)?;
    match named {
        Card::Mac(address) => card.address = address.0,
        Card::Slot { .. } => card.address[4] = index(side) as u8,
    }
    Ok(card)
}

impl Pair {
    /// Two boards that are off, with all their uplinks on the LAN. Their logs go into `folder`; with `echo`, what they say
    /// is shown, too.
    ///
    /// # Errors
    ///
    /// Where a board is none of a pair, or the wires cannot be laid.
    pub(crate) fn new(
        emulator: Emulator,
        model: CardModel,
        images: [Image; 2],
        folder: &Path,
        echo: bool,
    ) -> Result<Self> {
        let (lan, link) = (Wire::lay()?, Wire::lay()?);
        let mut ends = Ends {
            lan: [0; 2],
            link: [0; 2],
            client: None,
        };
        let mut any = None;
        let mut blades = Vec::new();
        for (side, image) in SIDES.into_iter().zip(images) {
            let Some(mirror) = &image.board.mirror else {
                bail!("board {side} has no [mirror]");
            };
            let mut cards = Vec::new();
            for uplink in &image.board.uplinks {
                let number = cards.len() as u8 + 1;
                cards.push(card(&lan, model, side, number, uplink.card)?);
            }
            let number = cards.len() as u8 + 1;
            let own = card(&link, model, side, number, mirror.card)?;
            let way = cards.get(usize::from(mirror.lan));
            ends.lan[index(side)] = way.context("the board has no uplink")?.plug.end;
            ends.link[index(side)] = own.plug.end;
            cards.push(own);
            any.get_or_insert_with(|| mirror.clone());
            let mut setup = Setup::new(image.iso, image.board.cpus, image.megabytes);
            setup.cards = cards;
            // They live in the time of those around them.
            setup.pace = Pace::RealTime;
            blades.push(Blade {
                setup,
                folder: folder.to_path_buf(),
                starts: 0,
                machine: None,
                frozen: false,
            });
        }
        // The boards agree on it, or do not pair: then it is board a's.
        let witness = match &any {
            Some(mirror) => Bystander::attach(&lan, mirror, &folder.join("witness"))?,
            None => None,
        };
        let blades = <[Blade; 2]>::try_from(blades).ok();
        Ok(Self {
            emulator,
            blades: blades.context("a pair is two boards")?,
            lan,
            link,
            ends,
            witness,
            intruders: [None, None],
            echo,
        })
    }

    /// Says which end of the LAN the client is.
    pub(crate) fn client_is(&mut self, end: usize) {
        self.ends.client = Some(end);
    }

    /// The boards' ends of the LAN.
    pub(crate) const fn lan_ends(&self) -> [usize; 2] {
        self.ends.lan
    }

    /// A board's processor lacks a feature from its next start on, which has QEMU's name.
    pub(crate) fn without(&mut self, side: Side, feature: &'static str) {
        self.blade(side).setup.lacks = Some(feature);
    }

    fn blade(&mut self, side: Side) -> &mut Blade {
        &mut self.blades[index(side)]
    }

    /// The board, while it is on.
    pub(crate) fn machine(&mut self, side: Side) -> Result<&mut Machine> {
        let machine = self.blade(side).machine.as_mut();
        machine.with_context(|| format!("board {side} is off"))
    }

    /// Powers a board on.
    ///
    /// # Errors
    ///
    /// Where it is on, or the emulator does not start.
    pub(crate) fn start(&mut self, side: Side) -> Result<()> {
        let (emulator, echo) = (self.emulator, self.echo);
        let blade = self.blade(side);
        if blade.machine.is_some() {
            bail!("board {side} is on");
        }
        blade.starts += 1;
        let folder = blade.folder.join(format!("{side}-{}", blade.starts));
        let echo = match (echo, side) {
            (false, _) => Echo::Off,
            (true, Side::A) => Echo::Lines("a| "),
            (true, Side::B) => Echo::Lines("b| "),
        };
        let machine = Machine::start(emulator, &blade.setup, &folder, echo);
        let machine = machine.with_context(|| format!("in {}", paths::shown(&folder)))?;
        blade.machine = Some(machine);
        Ok(())
    }

    /// Pulls a board's plug.
    ///
    /// # Errors
    ///
    /// Where it is off.
    pub(crate) fn kill(&mut self, side: Side) -> Result<()> {
        self.machine(side)?;
        let blade = self.blade(side);
        (blade.machine, blade.frozen) = (None, false);
        Ok(())
    }

    /// Stops a board where it stands, or lets it go on.
    ///
    /// # Errors
    ///
    /// Where it is off.
    pub(crate) fn freeze(&mut self, side: Side, frozen: bool) -> Result<()> {
        self.machine(side)?.pause(frozen)?;
        self.blade(side).frozen = frozen;
        Ok(())
    }

    /// Whether a board is on and goes on.
    pub(crate) const fn runs(&self, side: Side) -> bool {
        let blade = &self.blades[index(side)];
        blade.machine.is_some() && !blade.frozen
    }

    /// Types a line in a board's hypervisor shell.
    ///
    /// # Errors
    ///
    /// Where the board is off.
    pub(crate) fn shell(&mut self, side: Side, line: &str) -> Result<()> {
        self.machine(side)?.send(&format!("{TO_SHELL}{line}\r"))
    }

    /// What a board says of its part in the pair.
    ///
    /// # Errors
    ///
    /// Where it is off, frozen, or does not say it.
    pub(crate) fn status(&mut self, side: Side) -> Result<Status> {
        let said = self.report(side, MARK)?;
        let status: Result<Status, String> = format!("{MARK}{said}").parse();
        match status {
            Ok(status) if status.side == side => Ok(status),
            Ok(_) => bail!("board {side} says that it is the other one"),
            Err(error) => bail!(error),
        }
    }

    /// How many frames that came by a wire it says that its mirror dropped for a reason.
    fn drops(&mut self, side: Side, net: Net, reason: Reason) -> Result<u64> {
        let mark = drops_mark(net.path());
        let said = self.report(side, &mark)?;
        drops(&said, reason).map_err(Error::msg)
    }

    /// What a board's `mirror` says behind `mark`, up to the end of that line.
    fn report(&mut self, side: Side, mark: &str) -> Result<String> {
        if !self.runs(side) {
            bail!("board {side} is off or frozen");
        }
        self.machine(side)?.console.skip();
        self.shell(side, "mirror")?;
        let console = &mut self.machine(side)?.console;
        let mut said = |text| match console.wait_for(text, SHELL) {
            Wait::Found(said) => Some(said),
            Wait::TimedOut | Wait::Closed => None,
        };
        let rest = said(mark).and_then(|_| said("\n"));
        rest.with_context(|| format!("board {side} does not say what it is"))
    }

    /// Waits until something is so.
    ///
    /// # Errors
    ///
    /// Where it is not in time.
    pub(crate) fn until(&mut self, side: Side, until: &Until, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            // What was to be so, and what is.
            let (wanted, other) = match until {
                Until::Says(text) => return self.machine(side)?.expect(text, patience).map(drop),
                Until::Is(role, protected) => {
                    let other = match self.status(side) {
                        Ok(status)
                            if status.role == *role
                                && protected.is_none_or(|it| it == status.protected) =>
                        {
                            return Ok(());
                        }
                        Ok(status) => format!("{}, protected: {}", status.role, status.protected),
                        Err(error) => format!("{error:#}"),
                    };
                    (format!("did not become {role}"), other)
                }
                Until::Drops(least, net, reason) => {
                    let other = match self.drops(side, *net, *reason) {
                        Ok(count) if count >= *least => return Ok(()),
                        Ok(count) => count.to_string(),
                        Err(error) => format!("{error:#}"),
                    };
                    let path = net.path();
                    (format!("did not drop {least} of {path}: {reason}"), other)
                }
            };
            if Instant::now() >= deadline {
                bail!("board {side} {wanted}: {other}");
            }
            thread::sleep(LOOK);
        }
    }

    /// Does to the wires and boards what a command says, but for what it shows and the end.
    ///
    /// # Errors
    ///
    /// Where it cannot be done; see each of them.
    pub(crate) fn obey(&mut self, command: &Command, patience: Duration) -> Result<()> {
        match command {
            Command::Start(side) => self.start(*side),
            Command::Kill(side) => self.kill(*side),
            Command::Freeze(side, frozen) => self.freeze(*side, *frozen),
            Command::Slow(side, share) => {
                self.machine(*side)?.slow_down(*share)?;
                self.blade(*side).frozen = false;
                Ok(())
            }
            Command::Intrude(net, trick) => self.intrude(*net, *trick),
            Command::Wire(net, way, actions) => {
                let target = self.target(*net, *way)?;
                let wire = self.wire(*net);
                for action in actions {
                    wire.set(target, *action);
                }
                Ok(())
            }
            Command::Shell(side, line) => self.shell(*side, line),
            Command::Type(side, line) => self.machine(*side)?.send(&format!("{line}\r")),
            Command::Wait(time) => {
                thread::sleep(*time);
                Ok(())
            }
            Command::Until(side, until) => self.until(*side, until, patience),
            Command::Witness(on) => {
                self.witness()?.set(*on);
                Ok(())
            }
            Command::Status | Command::Quit => Ok(()),
        }
    }

    const fn wire(&self, net: Net) -> &Wire {
        match net {
            Net::Lan => &self.lan,
            Net::Link => &self.link,
        }
    }

    fn intrude(&mut self, net: Net, trick: Trick) -> Result<()> {
        let [lan, link] = &mut self.intruders;
        let (intruder, wire) = match net {
            Net::Lan => (lan, &self.lan),
            Net::Link => (link, &self.link),
        };
        let intruder = intruder.get_or_insert_with(|| Intruder::attach(wire));
        intruder.play(wire, trick)
    }

    fn witness(&self) -> Result<&Bystander> {
        let witness = self.witness.as_ref();
        witness.context("the boards' file names no witness")
    }

    fn target(&self, net: Net, way: Way) -> Result<Target> {
        let end = |party| {
            let boards = match net {
                Net::Lan => self.ends.lan,
                Net::Link => self.ends.link,
            };
            match party {
                Party::Board(side) => Ok(boards[index(side)]),
                Party::Client => self.ends.client.context("there is no client"),
                Party::Witness => self.witness().map(Bystander::end),
            }
        };
        Ok(match way {
            Way::All => Target::All,
            Way::From(party) => Target::From(end(party)?),
            Way::To(party) => Target::To(end(party)?),
            Way::End(party) => Target::End(end(party)?),
        })
    }

    /// The boards that have ended by themselves since this was asked last, and why; they are off now.
    ///
    /// # Errors
    ///
    /// Where an emulator hangs.
    pub(crate) fn ended(&mut self) -> Result<Vec<(Side, String)>> {
        let mut ended = Vec::new();
        for side in SIDES {
            let blade = self.blade(side);
            if let Some(machine) = &mut blade.machine
                && let Some(end) = machine.wait_end(Duration::ZERO)?
            {
                ended.push((side, end.to_string()));
                blade.machine = None;
            }
        }
        Ok(ended)
    }

    /// The folders of all logs so far, each with its board.
    pub(crate) fn logs(&self) -> Vec<(Side, PathBuf)> {
        let of = |side: Side| {
            let blade = &self.blades[index(side)];
            let starts = 1..=blade.starts;
            starts.map(move |start| (side, blade.folder.join(format!("{side}-{start}"))))
        };
        SIDES.into_iter().flat_map(of).collect()
    }
}
