//! Our own network: three guests on one processor, of which one watches how busy that is.
//!
//! `guests/probes/src/net` is what they run. The observer says on its console when it goes on to something else; what exits and
//! interrupts there were until then, the hypervisor's shell tells.

use super::super::{LIMIT, SHELL_PROMPT, Workshop, statistics_of};
use super::far_end::{CARD, FarEnd, Wanted};
use super::figures::Frames;
use crate::emulator::Machine;
use crate::paths;
use anyhow::{Context, Result, bail, ensure};
use std::thread;
use std::time::Duration;

/// Milliseconds for which frames wait in the card. It is given one each millisecond.
const HOLD: u32 = 200;
/// Until the observer, which goes on, has opened its window.
const OPENED: Duration = Duration::from_millis(20);
/// The guests that send and receive, most urgent first.
const WORKERS: [&str; 2] = ["first", "second"];
/// The guest that watches, on the first console.
const OBSERVER: &str = "observer";

/// The board. The first worker has the card's address, since the emulator lets no other frames in.
fn board() -> String {
    let guest = |name: &str, priority: u32, probe: &str, number: u8| {
        format!(
            "[[guest]]\nname = \"{name}\"\nimage = \"@probes\"\nmemory = \"16M\"\ncpu = 0\n\
             priority = {priority}\ncommand_line = \"{probe}\"\ndevices = [\"com1\", \"rtc\", \"pci\", \"apic\"]\n\
             nics = [{{ model = \"virtio\", mac = \"52:54:00:00:00:{number:02x}\" }}]\n\n"
        )
    };
    let mut text = "[board]\nname = \"bench-net\"\ncpus = 1\n\n".to_owned();
    text += &guest(OBSERVER, 1, "net-observe", 9);
    for (name, number) in WORKERS.into_iter().zip(CARD..) {
        text += &guest(name, 100 - u32::from(number), "net-work", number);
    }
    text + &format!("[[uplink]]\nname = \"lan\"\ncard = \"52:54:00:00:00:{CARD:02x}\"\n")
}

/// Counts since the board's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    exits: i64,
    interrupts: i64,
    card_interrupts: i64,
}

/// Measures; returns the ticks in a thousand that the machine is busy with nothing, too.
///
/// # Errors
///
/// Where the board does not run through, or frames were lost.
pub(super) fn measure(workshop: &Workshop) -> Result<(Vec<Frames>, f64)> {
    const NAME: &str = "net-run";
    let folder = workshop.folder("net-wire");
    paths::make_folder(&folder)?;
    let far_end = FarEnd::lay(&folder)?;
    let mut machine = workshop.start_with(&board(), NAME, |setup| {
        setup.cards = vec![far_end.card()];
    })?;
    let measured = serve(&mut machine, &far_end);
    let (frames, quiet, sent) =
        measured.with_context(|| format!("see {}", paths::shown(&workshop.folder(NAME))))?;
    let heard = far_end.heard();
    ensure!(
        sent == heard,
        "the guests sent {sent} frames to the wire, but {heard} came"
    );
    Ok((frames, quiet))
}

/// Serves the observer until it is done, and returns how many frames went to the wire, too.
fn serve(machine: &mut Machine, far_end: &FarEnd) -> Result<(Vec<Frames>, f64, u64)> {
    let mut frames = Vec::new();
    let mut quiet = 0.0;
    let mut phases: Vec<Counts> = Vec::new();
    loop {
        let said = machine.expect("\n", LIMIT)?;
        let line = said.trim();
        if let Some(wanted) = Wanted::read(line) {
            provide(machine, far_end, wanted)?;
        } else if line == "net phase" {
            phases.push(counts(machine)?);
            go_on(machine)?;
        } else if let Some(result) = line.strip_prefix("net quiet ") {
            quiet = share(result).with_context(|| format!("\"{line}\" tells no share"))?;
        } else if line.starts_with("net ") {
            let [before, with, without] = phases[..] else {
                bail!("\"{line}\" came after {} phases", phases.len());
            };
            let line = completed(line, before, with, without);
            frames.push(Frames::read(&line).with_context(|| format!("\"{line}\"?"))?);
            phases.clear();
        } else if let Some(sent) = line.strip_prefix("end sent=") {
            return Ok((frames, quiet, sent.parse()?));
        } else if line.contains("FAILED") {
            bail!("{line}");
        }
    }
}

/// The share, in thousandths, that `ticks=N of=N` tells.
fn share(text: &str) -> Option<f64> {
    let (ticks, of) = text.strip_prefix("ticks=")?.split_once(" of=")?;
    let (ticks, of): (f64, f64) = (ticks.parse().ok()?, of.parse().ok()?);
    Some(ticks * 1000.0 / of)
}

/// The observer's line with what it cannot count: the phase with frames less that without.
fn completed(line: &str, before: Counts, with: Counts, without: Counts) -> String {
    let of = |count: fn(&Counts) -> i64| 2 * count(&with) - count(&before) - count(&without);
    format!(
        "{line} exits={} interrupts={} card_interrupts={}",
        of(|counts| counts.exits),
        of(|counts| counts.interrupts),
        of(|counts| counts.card_interrupts)
    )
}

/// Has frames come while the observer watches. Many of them wait in the card until all are there.
fn provide(machine: &mut Machine, far_end: &FarEnd, wanted: Wanted) -> Result<()> {
    if wanted.is_many() {
        shell(machine, &format!("hold lan {HOLD}"))?;
        far_end.send(wanted);
        go_on(machine)
    } else {
        go_on(machine)?;
        thread::sleep(OPENED);
        far_end.send(wanted);
        Ok(())
    }
}

/// Has the shell obey, and returns what it says.
fn shell(machine: &mut Machine, command: &str) -> Result<String> {
    machine.send(&format!("\u{f}h{command}\r"))?;
    // Its echo; prompts may have come before.
    machine.expect(command, LIMIT)?;
    machine.expect(SHELL_PROMPT, LIMIT)
}

/// Lets the observer go on.
fn go_on(machine: &mut Machine) -> Result<()> {
    machine.send("\u{f}1")?;
    machine.expect(&format!("[{OBSERVER}: running]\n"), LIMIT)?;
    machine.send("\r")
}

fn counts(machine: &mut Machine) -> Result<Counts> {
    let mut counts = Counts::default();
    for worker in WORKERS {
        for vcpu in statistics_of(machine, worker)? {
            // Being scheduled is none.
            let exits = vcpu.exits.iter().filter(|exits| exits.name != "schedule");
            counts.exits += exits.map(|exits| exits.count as i64).sum::<i64>();
            counts.interrupts += vcpu.interrupts as i64;
        }
    }
    let ports = shell(machine, "net")?;
    counts.card_interrupts =
        card_interrupts(&ports).context("the shell tells of no interrupts of the card")?;
    Ok(counts)
}

/// The number in `lan ... N interrupts`.
fn card_interrupts(ports: &str) -> Option<i64> {
    let line = ports.lines().find(|line| line.starts_with("lan "))?;
    let (_, count) = line.trim().strip_suffix(" interrupts")?.rsplit_once(' ')?;
    count.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_board_is_right() {
        config::toml::parse(&board(), "b", None).unwrap();
    }

    #[test]
    fn what_the_observer_cannot_count_is_added() {
        let counts = |exits, interrupts, card_interrupts| Counts {
            exits,
            interrupts,
            card_interrupts,
        };
        let line = completed(
            "net to-wire each length=64 frames=512 ticks=1024000",
            counts(100, 10, 1),
            counts(700, 40, 3),
            counts(750, 50, 3),
        );
        let frames = Frames::read(&line).unwrap();
        assert_eq!((frames.exits, frames.interrupts), (550, 20));
        assert_eq!(frames.card_interrupts, 2);
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(share("ticks=5000 of=1000000"), Some(5.0));
        assert_eq!(share("ticks=5000"), None);
        let ports = "port  link\nlan   up  1 2 0 1  82540EM at 00:02.0, up, 1000 Mbit/s full duplex, 17 interrupts\n";
        assert_eq!(card_interrupts(ports), Some(17));
        assert_eq!(card_interrupts("first.0 up 1 2 0 1  guest first\n"), None);
    }
}
