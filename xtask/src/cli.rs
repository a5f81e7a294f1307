//! The command line.

use crate::emulator::{CardModel, Chipset, Choice};
use crate::network::{Forward, StationAddress};
use crate::twin;
use crate::wire;
use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use mirror::Side;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;

/// Build, run, test and measure Understudy.
///
/// Everything that this tool makes goes into target/understudy. What it needs from the
/// distribution (GRUB, a linker, the emulators QEMU and Bochs) it installs with apt-get after saying so;
/// --no-install makes it name the packages instead.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the tool can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build the hypervisor, this project's guests and a bootable image.
    ///
    /// Leaves in target/understudy: understudy.elf (the hypervisor with symbols), rtos.elf and
    /// probes.elf (the guests), board.bin (the board's description as the hypervisor reads it),
    /// understudy.iso, which boots from CD or USB stick (with --side, the last two lie in side-a or side-b), and, for boards that name @linux,
    /// @linux-generic or their file systems, linux/ and linux-generic/ with a kernel and an initial
    /// file system made of the distribution's packages. The built hypervisor is checked: no instruction in it may touch vector or
    /// floating-point registers, and no memory may be both writable and executable.
    Build(BuildOptions),
    /// Boot a board in an emulator and be its console.
    ///
    /// Builds first. At a terminal, keys go to the board; Ctrl-] ends the session, and so does the
    /// board when it powers off. With --headless the console goes to standard output and the exit
    /// code is 0 when the text of --until appeared, or, without --until, when the board powered
    /// off; otherwise it is 1. Logs lie in target/understudy/run. If the hypervisor panicked, the
    /// backtrace is shown with function names and lines.
    ///
    /// The board's network cards are on a wire with a station of this host, whose ports lead to guests: with
    /// --tcp 8080:10.0.0.3:80, `curl http://localhost:8080/` fetches a guest's page.
    ///
    /// With --twin it boots both boards of a pair, each with its card on the LAN and one on a dedicated link, and a client that
    /// asks the legacy system's exchange without end and shows each second how it is answered. Lines that are typed, or a
    /// script, kill, freeze and separate the boards. At the end all answers are judged, and who transmitted for the guests;
    /// the exit code is 0 only if both are good. Logs and captures lie in target/understudy/twin.
    #[command(after_long_help = format!("{}\n\n--twin\n\n{}", wire::HELP, twin::HELP))]
    Run(Box<RunOptions>),
    /// Run the checks and tests: on the host, then of whole boards in emulators.
    ///
    /// Host rows are the formatting, the lints and all tests of all crates. Then boards boot, some at a time, each test with a
    /// deadline: all in QEMU, and in Bochs those whose outcome depends on VT-x, on how guests boot or on the devices' timing.
    /// Rows are named TEST@EMULATOR; their transcripts lie in target/understudy/test/NAME. A summary follows, and the last
    /// line is `N passed, M failed`. The exit code is 0 only if nothing failed.
    Test(TestOptions),
    /// Be the witness of a pair of boards: decide which of them may serve when they do not hear each other.
    ///
    /// Run it on a machine that is neither of the boards, at the address that their board file names. It answers their
    /// questions over UDP and writes each decision to the disk first, so it may be killed and started again at any time; while
    /// it is away, a pair goes on as it is, and nobody takes over. Its ledger must never be lost or put back from an older copy:
    /// a witness that has forgotten what it granted may let both boards serve. If the ledger is lost, stop both boards before
    /// a new one is begun.
    Witness(WitnessOptions),
    /// Measure what the hypervisor costs.
    #[command(subcommand)]
    Bench(Bench),
    /// Run the mirror in a simulator where boards and wires fail, until something goes wrong.
    ///
    /// Two boards, a witness and clients are simulated, with faults that a seed decides, and a judge checks what clients saw, who
    /// transmitted and what was resumed. The same seed always takes the same steps. Where the judge finds something, what happened
    /// before is shown, and the exit code is 1.
    Simulate(SimulateOptions),
    /// Name the functions and lines of a panic's backtrace in a console log.
    ///
    /// Uses the symbols of the hypervisor that was built last. `run` does this by itself.
    Symbolize {
        /// The log; the one of the last run if none is named.
        log: Option<PathBuf>,
    },
}

/// Options of `simulate`.
#[derive(Args, Clone, Debug)]
pub(crate) struct SimulateOptions {
    /// The seed of the first run.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Runs, each with the next seed.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub runs: u64,
    /// How long faults go on in each, in seconds of the simulation.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub length: u64,
    /// Who decides which board serves; all of them, one after the other, if not given.
    #[arg(long, value_enum)]
    pub arbiter: Option<Arbiter>,
    /// Leave out of a run that fails what may be left out, and show which faults remain.
    #[arg(long)]
    pub shrink: bool,
}

/// Who decides which board serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arbiter {
    /// A witness.
    Witness,
    /// The backup may go on, a primary waits.
    Backup,
    /// Both wait for an operator.
    Hold,
    /// Whoever is left goes on.
    AssumeDead,
}

/// Options of everything that builds.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct BuildOptions {
    /// Optimise (the default).
    #[arg(long, conflicts_with = "debug")]
    pub release: bool,
    /// Do not optimise; overflow checks and debug assertions are on.
    #[arg(long)]
    pub debug: bool,
    /// The board to build an image for; boot/boards/default.toml if none is named.
    #[arg(long, value_name = "FILE")]
    pub board: Option<PathBuf>,
    /// Which board of a pair the image is for, where the board file has [mirror].
    #[arg(long, value_name = "a|b")]
    pub side: Option<Side>,
    /// Words for the hypervisor's own command line.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub append: String,
    /// Install nothing: name the missing packages and stop.
    #[arg(long)]
    pub no_install: bool,
}

/// Options of `run`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunOptions {
    /// How to build.
    #[command(flatten)]
    pub build: BuildOptions,
    /// Use no terminal: print the console and end with an exit code.
    #[arg(long)]
    pub headless: bool,
    /// End once the console says this.
    #[arg(long, value_name = "TEXT")]
    pub until: Option<String>,
    /// End after this many seconds; 300 with --headless, else no limit.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Type TEXT once PATTERN has appeared; may be given several times, and they are done in
    /// order, before --until is looked for. In TEXT, \r is the Enter key and \x0f is Ctrl-O.
    #[arg(
        long = "type",
        num_args = 3,
        value_names = ["TEXT", "after", "PATTERN"],
        allow_hyphen_values = true
    )]
    pub typed: Vec<String>,
    /// The emulator's name of the processor model; the one that has the most for a hypervisor if not given.
    /// (`bochs --help cpu` and `qemu-system-x86_64 -cpu help` list them.)
    #[arg(long, value_name = "MODEL")]
    pub cpu_model: Option<String>,
    /// The chipset; q35 in QEMU and pc in Bochs if not given.
    #[arg(long, value_enum)]
    pub machine: Option<Chipset>,
    /// Processors of the emulated machine; as many as the board names if not given.
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// RAM of the emulated machine in MiB; enough for the board's guests if not given.
    #[arg(long, value_name = "MIB")]
    pub mem: Option<u32>,
    /// The emulator.
    #[arg(long, value_enum, default_value = "auto")]
    pub emulator: Choice,
    /// Give this terminal to Bochs's debugger; the console goes into its log only.
    #[arg(long)]
    pub debugger: bool,
    /// The network.
    #[command(flatten)]
    pub network: NetworkOptions,
    /// Boot both boards of a pair; boot/boards/twin.toml if none is named.
    #[arg(long, conflicts_with_all = ["side", "headless", "until", "typed", "cpus", "mem", "cpu_model", "machine", "debugger", "wire"])]
    pub twin: bool,
    /// With --twin, do what this file says instead of what is typed (see below).
    #[arg(long, value_name = "FILE", requires = "twin")]
    pub script: Option<PathBuf>,
    /// With --twin, the exchange that the client asks.
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        requires = "twin",
        default_value = "10.0.0.2:5000"
    )]
    pub exchange: SocketAddrV4,
}

/// Options of `run` about the network.
#[derive(Args, Clone, Debug)]
pub(crate) struct NetworkOptions {
    /// Make the board's network cards of this model; may be given several times, for one card after the other. There are as
    /// many cards as the board file has uplinks, or as models are given where that is more. A card has the MAC address by which its
    /// uplink is named, or 52:54:00:00:00:01, :02 and so on. They are 82540EMs if nothing is given, and all on one wire.
    #[arg(long, value_enum, value_name = "MODEL")]
    pub card: Vec<CardModel>,
    /// Let the wire lose, delay, double, change frames, or be cut, as a script says (see below).
    #[arg(long, value_name = "SCRIPT")]
    pub wire: Option<PathBuf>,
    /// Capture what is sent into a file for Wireshark (pcapng), with what the wire did to each frame as a comment.
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,
    /// Let a TCP port of this host lead to a guest: PORT:ADDRESS:PORT. May be given several times.
    #[arg(long, value_name = "FORWARD")]
    pub tcp: Vec<Forward>,
    /// Let a UDP port of this host lead to a guest: PORT:ADDRESS:PORT. May be given several times.
    #[arg(long, value_name = "FORWARD")]
    pub udp: Vec<Forward>,
    /// The address of this host's station, and how many bits of it are the net's.
    #[arg(long, value_name = "ADDRESS/BITS", default_value = "10.0.0.254/24")]
    pub station: StationAddress,
}

/// Options of `witness`.
#[derive(Args, Clone, Debug)]
pub(crate) struct WitnessOptions {
    /// Where it listens, such as 0.0.0.0:7400.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// The file of its ledger.
    #[arg(long, value_name = "FILE")]
    pub(crate) state: PathBuf,
    /// The board file of the pair, which holds the key.
    #[arg(long, value_name = "FILE")]
    pub(crate) board: PathBuf,
    /// Begin a ledger; the file must not be there yet.
    #[arg(long)]
    pub(crate) new: bool,
}

/// What can be measured.
///
/// In Bochs, where a tick is an instruction and two runs are identical.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Measure the VM exits, seen from inside a guest.
    ///
    /// Besides the ticks of each kind of exit, an instruction trace counts what is dear on silicon:
    /// VMREAD, VMWRITE, MSR accesses, saved and restored extended state, invalidations, atomic memory
    /// accesses, port accesses. Also measured: the image's size, the hypervisor's memory, and the ticks
    /// from entry to the first guest instruction. Takes some minutes. The figures are kept in
    /// target/understudy/bench/exits.json.
    Exits(ExitsOptions),
    /// Measure Linux's way from the kernel's entry to its first program, natively and as a guest.
    ///
    /// The same kernel, initial file system, command line and size of memory in the same emulated
    /// machine. Also told: the guest's exits by reason, and the ticks that the hypervisor spent on them.
    /// Takes some two minutes. The figures are kept in target/understudy/bench/boot.json.
    Boot(BenchOptions),
    /// Measure how late the RTOS's most urgent task is released, beside an idle and a busy Linux.
    ///
    /// On boards where the RTOS has a processor of its own, and where it shares the one there is. Takes
    /// some ten minutes. The figures are kept in target/understudy/bench/rt.json.
    Rt(RtOptions),
    /// Measure what a network frame costs, from a guest to the wire, from the wire to a guest, and from guest to guest.
    ///
    /// Told per frame are the ticks that the machine is busy with it, the VM exits, and the interrupts of guests
    /// and of the card, for frames of 64 and 1500 bytes, one at a time and many together; and how long the legacy system's
    /// exchange takes to answer a question from the wire. Takes some three minutes, and three more for the peer. The figures are
    /// kept in target/understudy/bench/net.json.
    Net(NetOptions),
    /// Measure what the mirror costs a pair of boards, and how long a takeover takes.
    ///
    /// The legacy system is asked by callers over the LAN while it is mirrored, while it is not, and while an understudy is sent; and
    /// boards that serve have their plugs pulled. Told are the epochs' pauses, pages and bytes, how long answers and releases take, and how long
    /// after its peer's last word the other board serves. In Bochs ticks are instructions, but two boards, and callers beside them,
    /// keep no step, so nothing is the same twice. Takes some four minutes for each length of epochs. The figures are kept in
    /// target/understudy/bench/mirror.json.
    Mirror(MirrorOptions),
}

/// Options of every measurement.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchOptions {
    /// Print the figures as JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Install nothing: name the missing packages and stop.
    #[arg(long)]
    pub(crate) no_install: bool,
}

/// Options of `bench exits`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ExitsOptions {
    /// What every measurement knows.
    #[command(flatten)]
    pub(crate) bench: BenchOptions,
    /// Measure another hypervisor, too, in the same emulator with the same loops.
    #[arg(long, value_enum)]
    pub(crate) peer: Option<Peer>,
}

/// Options of `bench net`.
#[derive(Args, Clone, Debug)]
pub(crate) struct NetOptions {
    /// What every measurement knows.
    #[command(flatten)]
    pub(crate) bench: BenchOptions,
    /// Measure another hypervisor, too, in the same emulator with guests that do the same.
    #[arg(long, value_enum)]
    pub(crate) peer: Option<Peer>,
    /// Measure only the parts whose name holds this: frames, exchange.
    pub(crate) part: Option<String>,
}

/// Options of `bench rt`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RtOptions {
    /// What every measurement knows.
    #[command(flatten)]
    pub(crate) bench: BenchOptions,
    /// Releases of each measurement, 1,000 a second of the board's time; under a flood 7,200 at least, so that frames come at
    /// every moment of a period.
    #[arg(long, value_name = "N", default_value_t = 30_000,
          value_parser = clap::value_parser!(u32).range(100..=32_000))]
    pub(crate) releases: u32,
    /// Measure only the scenes whose name holds this: own-idle, own-busy, own-flood, own-burst, shared-idle, shared-busy,
    /// shared-flood, shared-burst.
    pub scene: Option<String>,
}

/// Options of `bench mirror`.
#[derive(Args, Clone, Debug)]
pub(crate) struct MirrorOptions {
    /// What every measurement knows.
    #[command(flatten)]
    pub(crate) bench: BenchOptions,
    /// The emulator.
    #[arg(long, value_enum, default_value = "bochs")]
    pub(crate) emulator: Choice,
    /// How long the callers are watched each time, in seconds of this host.
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// How long epochs are to be, in milliseconds; several make several measurements.
    #[arg(long, value_name = "MS", value_delimiter = ',', default_values_t = [5, 20])]
    pub(crate) epochs: Vec<u32>,
    /// Measure the mirror of Linux, too, beside the legacy system. In Bochs that takes long.
    #[arg(long)]
    pub(crate) linux: bool,
    /// Takeovers to measure, with epochs of the last length.
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub(crate) takeovers: u32,
    /// Milliseconds between two heartbeats while takeovers are measured; ten times that is the silence after which a peer is taken
    /// for dead.
    #[arg(long, value_name = "MS", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) heartbeat: u32,
    /// The same while costs are measured, which a board that is taken for dead would spoil: emulated boards stall when their host does.
    #[arg(long, value_name = "MS", default_value_t = 300,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) patient_heartbeat: u32,
}

/// Hypervisors to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// KVM of the distribution's kernel.
    Kvm,
}

/// Options of `test`.
#[derive(Args, Clone, Debug)]
pub(crate) struct TestOptions {
    /// Run only the tests whose name contains this.
    pub(crate) filter: Option<String>,
    /// Name the tests that would run, and run none.
    #[arg(long)]
    pub(crate) list: bool,
    /// Run every test in every emulator that it can run in, the slow ones, too.
    #[arg(long)]
    pub(crate) all: bool,
    /// Write the results as JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Use no colours.
    #[arg(long)]
    pub(crate) plain: bool,
    /// How many tests run at a time; as many as this host has processors if not given, for an emulated board keeps one busy.
    #[arg(long, value_name = "N", default_value_t = processors())]
    pub(crate) jobs: usize,
    /// The emulator; auto is both.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) emulator: Choice,
    /// Install nothing: name the missing packages and stop.
    #[arg(long)]
    pub(crate) no_install: bool,
}

/// Processors of this host.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl NetworkOptions {
    /// Whether what happens on the wire matters to somebody outside the board.
    pub(crate) fn is_used(&self) -> bool {
        self.wire.is_some()
            || self.capture.is_some()
            || !self.tcp.is_empty()
            || !self.udp.is_empty()
    }
}

impl RunOptions {
    /// What is to be typed, each with the pattern that must have appeared.
    ///
    /// # Errors
    ///
    /// Where the word between the two is not `after`, or an escape is not known.
    pub(crate) fn typing(&self) -> Result<Vec<(String, String)>> {
        let mut typing = Vec::new();
        for words in self.typed.chunks(3) {
            let [text, after, pattern] = words else {
                bail!("--type needs three words: TEXT after PATTERN");
            };
            if after != "after" {
                bail!(
                    "--type is written: --type TEXT after PATTERN; found \"{after}\" in the middle"
                );
            }
            typing.push((unescape(text)?, pattern.clone()));
        }
        Ok(typing)
    }
}

/// Resolves `\r`, `\n`, `\t`, `\\` and `\xNN`.
fn unescape(text: &str) -> Result<String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        result += before;
        let mut escape = after.chars();
        rest = match escape.next() {
            Some('r') => {
                result.push('\r');
                escape.as_str()
            }
            Some('n') => {
                result.push('\n');
                escape.as_str()
            }
            Some('t') => {
                result.push('\t');
                escape.as_str()
            }
            Some('\\') => {
                result.push('\\');
                escape.as_str()
            }
            Some('x') => {
                let digits = escape.as_str();
                let byte = digits.get(..2).map(|two| u8::from_str_radix(two, 16));
                match byte {
                    Some(Ok(byte)) if byte.is_ascii() => result.push(char::from(byte)),
                    _ => bail!("\"\\x\" in \"{text}\" needs two hexadecimal digits below 80"),
                }
                &digits[2..]
            }
            _ => bail!("\"{text}\" holds an unknown escape; known are \\r \\n \\t \\\\ \\xNN"),
        };
    }
    Ok(result + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn run_options(arguments: &[&str]) -> RunOptions {
        let all = ["cargo xtask", "run"].iter().chain(arguments);
        match Cli::try_parse_from(all)
            .expect("the arguments are right")
            .command
        {
            Command::Run(options) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn typing_comes_in_order_with_its_patterns() {
        let options = run_options(&[
            "--headless",
            "--type",
            "\\x0fh",
            "after",
            "ready",
            "--type",
            "guests\\r",
            "after",
            "understudy> ",
            "--until",
            "done",
        ]);
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            options.typing().unwrap(),
            [pair("\u{f}h", "ready"), pair("guests\r", "understudy> ")]
        );
        assert!(
            run_options(&["--type", "a", "before", "b"])
                .typing()
                .is_err()
        );
        assert_eq!(options.until.as_deref(), Some("done"));
        assert_eq!(options.mem, None);
        assert!(!options.build.debug);
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape("a\\rb\\n\\t\\\\c").unwrap(), "a\rb\n\t\\c");
        assert!(unescape("\\q").is_err());
        assert!(unescape("\\x8").is_err());
        assert!(unescape("\\xff").is_err());
        assert!(unescape("end\\").is_err());
    }

    #[test]
    fn release_and_debug_exclude_each_other() {
        assert!(Cli::try_parse_from(["x", "build", "--release", "--debug"]).is_err());
        assert!(Cli::try_parse_from(["x", "build", "--release"]).is_ok());
    }
}
