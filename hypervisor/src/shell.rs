//! The operator's shell.

use crate::console;
use crate::guest::{self, Command, GuestHandle, Tracking};
use crate::machine::checkpoints::{self, Order};
use crate::network::operator;
use core::fmt;
use log::LevelFilter;
use spin::Mutex;

const LINE_MAX: usize = 80;
/// Milliseconds between two checkpoints, at most: an hour.
const CHECKPOINT_MS_MAX: u64 = 3_600_000;

struct Input {
    bytes: [u8; LINE_MAX],
    length: usize,
}

static INPUT: Mutex<Input> = Mutex::new(Input {
    bytes: [0; LINE_MAX],
    length: 0,
});

const HELP: &str = "\
help            this text
guests          the guests and their states
start GUEST     load and start a guest
stop GUEST      stop a guest
restart GUEST   stop a guest and start it afresh
freeze GUEST    keep a guest's whole state aside, and erase the guest
thaw GUEST      let a frozen guest go on
checkpoint GUEST [MS]
                keep what the guest is now, or what it is each so many milliseconds, to go back
                to; off: no more. The guest runs on
revert GUEST    let a guest go on from its last checkpoint. A third word: audit (see whether
                all of it is there)
dump GUEST      a guest's registers
show GUEST      what is kept of a guest's output
dirty GUEST     how many pages a guest wrote since the last time; the first time, begin
                to track that. A third word: list (which pages), off (track no more),
                protect (begin, by write protection though the processor keeps a log)
stat [GUEST]    exits by reason, with their number, total and worst ticks
trace GUEST     the last exits of a guest's vCPUs
net             the ports of the virtual switch, and what went through them
link PORT up    put the cable into a port, or pull it out (down)
hold PORT MS    let what a card of the board receives wait in it for some milliseconds
capture PORT    capture what goes through a port, for /capture.pcap of the hypervisor's own
                station. A third word: off; or capture clear: forget what was captured
mirror          what this board is in its pair; with a second word: switchover (hand the
                guests over), force (serve, whatever the peer does), solo (without the
                peer), resync (with it again), audit (compare all
                of the understudy at each epoch's end; audit off: no more), spoil (change a
                byte of the understudy: to see that an audit finds it), die STEP (end the board as a defect would, when
                its mirror comes to a step: to see what comes of that)
cpus            the processors
mem             memory
log LEVEL       error, warn, info, debug or trace
reset           reset the board
panic           end the hypervisor as a defect of it would: to see what comes of that
hang GUEST      let the processor of a guest hang, likewise
poweroff        power the board off
Ctrl-O 1..8     to that guest's console; Ctrl-O h: back here; Ctrl-O Ctrl-O: a literal Ctrl-O
";

macro_rules! say {
    ($($arguments:tt)*) => { console::write(format_args!($($arguments)*)) };
}

/// Shows the prompt on a line of its own.
pub(crate) fn prompt() {
    say!("\nunderstudy> ");
}

/// A typed byte.
pub(crate) fn input(byte: u8) {
    const BACKSPACE: u8 = 0x08;
    const DELETE: u8 = 0x7f;
    let mut input = INPUT.lock();
    match byte {
        b'\r' | b'\n' => {
            let Input { bytes, length } = &mut *input;
            let line = core::str::from_utf8(&bytes[..*length]).unwrap_or("");
            say!("\n");
            execute(line.trim());
            *length = 0;
            say!("understudy> ");
        }
        BACKSPACE | DELETE if input.length > 0 => {
            input.length -= 1;
            say!("\x08 \x08");
        }
        b' '..=b'~' if input.length < LINE_MAX => {
            let at = input.length;
            input.bytes[at] = byte;
            input.length += 1;
            say!("{}", char::from(byte));
        }
        _ => {}
    }
}

fn execute(line: &str) {
    let mut words = line.split_ascii_whitespace();
    let (Some(command), argument) = (words.next(), words.next()) else {
        return;
    };
    match (command, argument) {
        ("help", _) => say!("{HELP}"),
        ("guests", _) => guests(),
        ("start", name) => ask(name, Command::Start),
        ("stop", name) => ask(name, Command::Stop),
        ("restart", name) => ask(name, Command::Restart),
        ("freeze", name) => ask(name, Command::Freeze),
        ("thaw", name) => ask(name, Command::Thaw),
        ("checkpoint", name) => checkpoint(name, words.next()),
        ("revert", name) => with_guest(name, |guest| {
            let audit = words.next() == Some("audit");
            checkpoints::order(guest, Order::Revert { audit });
        }),
        ("dump", name) => ask(name, Command::Dump),
        ("dirty", name) => dirty(name, words.next()),
        ("show", name) => with_guest(name, console::show_history),
        ("stat", None) => guest::all()
            .iter()
            .for_each(|guest| send(guest, Command::Statistics)),
        ("stat", name) => ask(name, Command::Statistics),
        ("trace", name) => ask(name, Command::Trace),
        ("net", _) => operator::show(),
        ("link", port) => match words.next() {
            Some("up") => operator::set_link(port, true),
            Some("down") => operator::set_link(port, false),
            _ => say!("link PORT up, or link PORT down\n"),
        },
        ("hold", port) => operator::hold(port, words.next()),
        ("capture", Some("clear")) => operator::forget_captured(),
        ("capture", port) => operator::capture(port, words.next() != Some("off")),
        ("mirror", None) => crate::mirror::operator::show(),
        ("mirror", Some(wanted)) => crate::mirror::operator::command(wanted, words.next()),
        ("cpus", _) => cpus(),
        ("mem", _) => memory(),
        ("log", level) => log_level(level),
        ("hang", name) => ask(name, Command::Hang),
        ("panic", _) => panic!("an operator wanted it"),
        ("reset", _) => crate::power::reset(),
        ("poweroff", _) => {
            if let Some(shared) = crate::cpu::shared() {
                shared.power.off();
            }
        }
        (other, _) => say!("{other}: no such command; try help\n"),
    }
}

fn guests() {
    say!(
        "{:>2}  {:<15} {:<10} {:>8}  cpu\n",
        "#",
        "name",
        "state",
        "memory"
    );
    for guest in guest::all() {
        let mib = Mib(guest.memory);
        let (number, state) = (guest.index + 1, guest.state());
        say!("{number:>2}  {:<15} {state:<10} {mib:>8} ", guest.name,);
        for cpu in &guest.cpus {
            say!(" {cpu}");
        }
        say!("\n");
    }
}

struct Mib(u64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad_integral(true, "", alloc::format!("{}M", self.0 >> 20).as_str())
    }
}

fn ask(name: Option<&str>, command: Command) {
    with_guest(name, |guest| send(guest, command));
}

fn dirty(name: Option<&str>, what: Option<&str>) {
    let tracking = match what {
        None => Tracking::Report,
        Some("list") => Tracking::List,
        Some("protect") => Tracking::Protect,
        Some("off") => Tracking::Off,
        Some(other) => return say!("{other}: neither list nor off nor protect\n"),
    };
    ask(name, Command::Track(tracking));
}

fn checkpoint(name: Option<&str>, what: Option<&str>) {
    let order = match (what, what.and_then(|word| word.parse().ok())) {
        (None, _) => Order::Take { every: None },
        (Some(_), Some(every @ 1..=CHECKPOINT_MS_MAX)) => Order::Take { every: Some(every) },
        (Some("off"), _) => Order::Off,
        (Some(other), _) => {
            return say!("{other}: neither off nor 1 to {CHECKPOINT_MS_MAX} milliseconds\n");
        }
    };
    with_guest(name, |guest| checkpoints::order(guest, order));
}

fn with_guest(name: Option<&str>, act: impl FnOnce(&'static GuestHandle)) {
    match (name, name.and_then(guest::find)) {
        (_, Some(guest)) => act(guest),
        (Some(name), None) => say!("{name}: no such guest\n"),
        (None, None) => say!("which guest?\n"),
    }
}

fn send(guest: &GuestHandle, command: Command) {
    if !guest.command(command) {
        say!("{}: too many commands wait for its processor\n", guest.name);
    }
}

fn cpus() {
    let Some(shared) = crate::cpu::shared() else {
        return;
    };
    for (number, apic_id) in shared.cpus.iter().enumerate() {
        say!("cpu {number}: APIC ID {apic_id}, guests:");
        for guest in guest::all() {
            for (vcpu, cpu) in guest.cpus.iter().enumerate() {
                match guest.cpus.len() {
                    _ if *cpu != number => {}
                    1 => say!(" {}", guest.name),
                    _ => say!(" {}.{vcpu}", guest.name),
                }
            }
        }
        say!("\n");
    }
    say!(
        "TSC {} Hz, {} NMIs\n",
        shared.facts.tsc_hz,
        crate::cpu::nmis()
    );
}

fn memory() {
    let Some(shared) = crate::cpu::shared() else {
        return;
    };
    let memory = shared.memory.lock();
    say!(
        "{} KiB free, {} KiB in use by the hypervisor's structures\n",
        memory.free() / 1024,
        memory.own() / 1024
    );
    for range in memory.free_ranges() {
        say!("  {:#012x} to {:#012x}\n", range.start, range.end);
    }
}

fn log_level(level: Option<&str>) {
    match level.and_then(|level| level.parse::<LevelFilter>().ok()) {
        Some(level) => log::set_max_level(level),
        None => say!("log level is {}\n", log::max_level()),
    }
}
