//! Pairs of boards that fail: each row of `docs/failures.md` is a test.

mod audit;
mod handover;
mod linux;
mod rest;
mod table;
mod watched;

pub(crate) use linux::with_linux;
pub(crate) use watched::station;

use super::{Case, lab::Lab};
use crate::client::ledger::{Load, Plan};
use crate::client::{Client, Station};
use crate::paths;
use crate::twin::{Pair, Role, SIDES, Until, index};
use crate::wire::{Spells, read_capture};
use anyhow::{Context, Result, bail, ensure};
use config::OnSilence;
use mirror::Side;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::Duration;
use table::{Failure, Other, Outcome, Run};

/// What the tests are, and what people read.
const TABLE: &str = include_str!("../../../../docs/failures.md");
/// How long a test may take.
const SECONDS: u64 = 600;
/// The one that goes through all steps.
const STEPS_SECONDS: u64 = 1800;

const STATION: Station = Station::new([10, 0, 0, 9]);
const RTOS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// How long boards may take to become what they are to be.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long they must stay that.
const STEADY: Duration = Duration::from_secs(3);
/// How long the exchange may take to answer what was asked last.
const END: Duration = Duration::from_secs(20);
/// What another processor lacks, by QEMU's name: guests may use it, and need not.
const FEATURE: &str = "aes";
/// Answers that clients have got before the first step.
const WARM: usize = 100;
/// The first caller's identity and subscriber, and those of callers that begin anew.
const FIRST: (u32, u32) = (1, 1001);
const ANEW: (u32, u32) = (101, 3001);

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    let failures = match table::read(TABLE) {
        Ok(failures) => failures,
        Err(error) => {
            let about = "docs/failures.md tells what befalls pairs of boards";
            let wrong = move |_: &Lab| bail!("docs/failures.md: {error}");
            return vec![Case::new("mirror-table", about, SECONDS, wrong).on_qemu()];
        }
    };
    let case = |failure: Failure| {
        let (name, text, run) = (failure.name, failure.text, failure.run);
        let case = Case::new(name, text, SECONDS, move |lab| befalls(lab, &failure));
        match run {
            Run::Core => case.on_both(),
            Run::Usual => case.on_qemu(),
            Run::All => case.on_qemu().only_with_all(),
        }
    };
    let mut cases: Vec<_> = failures.into_iter().map(case).collect();
    cases.push(
        Case::new(
            "mirror-linux",
            "a download from Linux, its disk's file system, and what it shows of the legacy system's calls survive the board of both",
            SECONDS,
            linux::survives,
        )
        .on_qemu(),
    );
    cases.push(
        Case::new(
            "mirror-group",
            "Linux and the legacy system with their checkpoints in common: the same, and what they send each other is not held",
            SECONDS,
            linux::group_survives,
        )
        .on_qemu(),
    );
    cases.push(
        Case::new(
            "mirror-linux-steps",
            "the same where one board after the other dies at each step of the mirror's work, and returns",
            STEPS_SECONDS,
            linux::survives_each_step,
        )
        .on_qemu()
        .only_with_all(),
    );
    cases.push(
        Case::new(
            "mirror-watched",
            "both boards of a pair tell what they are, whether the guests are protected, and what epochs cost",
            SECONDS,
            watched::told,
        )
        .on_qemu(),
    );
    cases.push(
        Case::new(
            "mirror-rest",
            "a mirrored guest's reset and stop leave the pair one, and a stopped guest does not run on the other board",
            SECONDS,
            rest::counts,
        )
        .on_qemu(),
    );
    cases.push(
        Case::new(
            "mirror-switchover-load",
            "under load the guests change boards again and again, and nobody has to ask twice",
            SECONDS,
            handover::loses_nothing,
        )
        .on_qemu(),
    );
    cases.push(
        Case::new(
            "mirror-audit",
            "over a whole start of Linux the understudy is what the guests are, byte for byte, and a wrong byte is found",
            SECONDS,
            audit::finds,
        )
        .on_qemu()
        .only_with_all(),
    );
    cases.push(
        Case::new(
            "mirror-cold",
            "a guest of which only the image is kept starts afresh on the other board, beside one that goes on",
            SECONDS,
            rest::starts_afresh,
        )
        .on_qemu()
        .only_with_all(),
    );
    cases.push(
        Case::new(
            "mirror-watchdog",
            "a guest that does not feed its watchdog makes its board hand over, where its board file wants that",
            SECONDS,
            rest::gives_way,
        )
        .on_qemu()
        .only_with_all(),
    );
    cases
}

/// The text of a board file that both boards are made by.
pub(crate) fn pair_text(on_silence: Option<OnSilence>) -> Result<String> {
    let text = String::from_utf8(paths::read(&paths::default_pair())?);
    let text = text.context("the pair's file is no text")?;
    let rule = match on_silence {
        None => return Ok(text),
        Some(OnSilence::Hold) => "hold",
        Some(OnSilence::Backup) => "backup",
        Some(OnSilence::AssumeDead) => "assume-dead",
    };
    let line = |line: &str| match line.starts_with("witness = ") {
        true => format!("on_silence = \"{rule}\"\n"),
        false => format!("{line}\n"),
    };
    Ok(text.lines().map(line).collect())
}

/// The pair's text where guest and both cards on the LAN have one address: Bochs hands its card only what is for the card's own.
pub(crate) fn with_address_of_cards(text: &str) -> String {
    const CARD: &str = "52:54:00:00:0a:01";
    text.replace("52:54:00:00:0b:01", CARD).replace(
        "nics = [{ model = \"virtio\",",
        &format!("nics = [{{ model = \"virtio\", mac = \"{CARD}\","),
    )
}

/// The text of a board that does not fit its peer.
fn misfit(text: &str, other: Other) -> String {
    match other {
        Other::Nothing | Other::Processor => text.to_owned(),
        Other::Key => {
            let key = "key = \"00000000000000000000000000000001\"\n";
            let line = |line: &str| match line.starts_with("key = ") {
                true => key.to_owned(),
                false => format!("{line}\n"),
            };
            text.lines().map(line).collect()
        }
        Other::Guests => text.replace("memory = \"16M\"", "memory = \"18M\""),
    }
}

fn befalls(lab: &Lab, failure: &Failure) -> Result<()> {
    let mut text = pair_text(failure.on_silence)?;
    if lab.is_bochs() {
        text = with_address_of_cards(&text);
    }
    let boards = [text.clone(), misfit(&text, failure.other)];
    let (mut pair, guests) = lab.pair(&boards)?;
    if failure.other == Other::Processor {
        pair.without(Side::B, FEATURE);
    }
    if lab.is_bochs() {
        guests.iter().for_each(|guest| pair.lan.suit_bochs(*guest));
    }
    let capture = lab.folder("wires")?.join("lan.pcapng");
    pair.lan.capture(&capture)?;
    let client = Client::attach(&pair.lan, STATION)?;
    pair.client_is(client.end());
    if !failure.begins_off() {
        for side in SIDES {
            pair.start(side)?;
        }
        protected(&mut pair)?;
    }
    let mut load = Load::start(&client, plan(FIRST))?;
    if !failure.begins_off() {
        warm(lab, &load)?;
    }
    for step in &failure.steps {
        pair.obey(step, PATIENCE.min(lab.left()))
            .with_context(|| format!("{step:?}"))?;
    }
    // A board that has powered itself off is off.
    pair.ended()?;
    for round in 0..2 {
        for side in SIDES {
            becomes(&mut pair, side, failure.outcomes[index(side)])?;
        }
        // What they are once they must stay.
        if round == 0 {
            thread::sleep(STEADY);
        }
    }
    judge(&mut load, failure)?;
    if !failure.kept && failure.serves() {
        let mut anew = Load::start(&client, plan(ANEW))?;
        warm(lab, &anew)?;
        anew.halt(END)?;
    }
    judge_capture(&capture, &pair, &guests, failure)
}

const fn plan((identity, subscriber): (u32, u32)) -> Plan {
    Plan {
        exchange: SocketAddrV4::new(RTOS, protocol::PORT),
        callers: 4,
        identity,
        subscriber,
        pause: Duration::from_millis(10),
        wait: Duration::from_millis(200),
    }
}

/// A pair by this text that is on, with a as its protected primary, and a client on its LAN.
fn running(lab: &Lab, text: &str) -> Result<(Pair, Client)> {
    let (mut pair, _) = lab.pair(&[text.to_owned(), text.to_owned()])?;
    let client = Client::attach(&pair.lan, STATION)?;
    for side in SIDES {
        pair.start(side)?;
    }
    protected(&mut pair)?;
    Ok((pair, client))
}

/// Waits until a is the primary and protected.
fn protected(pair: &mut Pair) -> Result<()> {
    let primary = Until::Is(Role::Primary, Some(true));
    pair.until(Side::A, &primary, PATIENCE)?;
    pair.until(Side::B, &Until::Is(Role::Backup, None), PATIENCE)
}

/// Waits until the callers have got some answers.
fn warm(lab: &Lab, load: &Load) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(100);
    while load.second(PATIENCE).answered < WARM {
        ensure!(!lab.left().is_zero(), "the exchange does not answer");
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Waits until a board is what it is to be.
fn becomes(pair: &mut Pair, side: Side, outcome: Outcome) -> Result<()> {
    match outcome {
        Outcome::Any => Ok(()),
        Outcome::Off => {
            ensure!(!pair.runs(side), "board {side} is not off");
            Ok(())
        }
        Outcome::Is(role, protected) => pair.until(side, &Until::Is(role, protected), PATIENCE),
    }
}

/// Judges the answers that clients have got.
fn judge(load: &mut Load, failure: &Failure) -> Result<()> {
    load.halt(if failure.serves() && failure.kept {
        END
    } else {
        Duration::ZERO
    })?;
    if failure.kept {
        let answers = load.inspect_all(if failure.serves() { END } else { STEADY });
        match (failure.serves(), answers) {
            (true, answers) => answers?,
            (false, Ok(())) => bail!("the exchange answers, though no board may serve"),
            (false, Err(_)) => {}
        }
    } else {
        // What was answered before the state was lost is all that those callers' answers can be held against.
        return Ok(());
    }
    let summary = match load.ledger().judge() {
        Ok(summary) => summary,
        Err(faults) => {
            let all: Vec<_> = faults.iter().take(5).map(ToString::to_string).collect();
            bail!("{} answers are wrong: {}", faults.len(), all.join("; "));
        }
    };
    if let Some(most) = failure.gap {
        ensure!(
            summary.gap <= most,
            "no answer came for {:?}, which may be {most:?}",
            summary.gap
        );
    }
    Ok(())
}

/// Judges who transmitted for the guests.
fn judge_capture(
    file: &std::path::Path,
    pair: &Pair,
    guests: &[[u8; 6]],
    failure: &Failure,
) -> Result<()> {
    let packets = read_capture(&paths::read(file)?)?;
    for guest in guests {
        let boards = Spells::of(&packets, pair.lan_ends(), *guest).boards();
        ensure!(
            boards == failure.in_turn,
            "for the guest {guest:02x?} transmitted {boards:?}, not {:?}",
            failure.in_turn
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::Command;

    #[test]
    fn the_table_of_failures_is_right() {
        let failures = table::read(TABLE).unwrap();
        assert!(failures.len() >= 30);
        for failure in &failures {
            // Somebody serves, or nothing can be asked of how long it did not.
            assert!(
                failure.serves() || failure.gap.is_none(),
                "{}",
                failure.name
            );
            let last = failure.in_turn.last().copied();
            let serving = SIDES
                .into_iter()
                .find(|side| failure.outcomes[index(*side)].serves());
            assert!(serving.is_none() || serving == last, "{}", failure.name);
            assert!(!failure.steps.contains(&Command::Quit), "{}", failure.name);
        }
    }

    #[test]
    fn pairs_are_right_and_misfits_differ_from_their_peers() {
        let rules = [
            None,
            Some(OnSilence::Hold),
            Some(OnSilence::Backup),
            Some(OnSilence::AssumeDead),
        ];
        for rule in rules {
            let text = pair_text(rule).unwrap();
            let parse = |text: &str| config::toml::parse(text, "b", Some(Side::B)).unwrap().0;
            let good = parse(&text);
            let arbiter = good.mirror.as_ref().unwrap().arbiter;
            match (rule, arbiter) {
                (None, config::Arbiter::Witness { .. }) => {}
                (Some(rule), config::Arbiter::OnSilence(read)) => assert_eq!(rule, read),
                other => panic!("{other:?}"),
            }
            assert_eq!(parse(&misfit(&text, Other::Nothing)), good);
            assert_eq!(parse(&misfit(&text, Other::Processor)), good);
            let other = parse(&misfit(&text, Other::Key));
            assert!(other.mirror != good.mirror && other.guests == good.guests);
            let at_card = parse(&with_address_of_cards(&text));
            let card = config::Card::Mac(at_card.guests[0].nics[0].mac);
            assert_eq!(at_card.uplinks[0].card, card);
            let other = parse(&misfit(&text, Other::Guests));
            assert!(other.mirror == good.mirror && other.guests != good.guests);
        }
    }
}
