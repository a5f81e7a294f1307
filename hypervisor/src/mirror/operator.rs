//! What an operator sees of the mirror, and can want of it.

use super::drill::{self, Step};
use super::kept::Kept;
use super::{Mirror, Stage};
use crate::console;
use crate::network::network;
use drivers::tsc;
use mirror::{Command, Path};

macro_rules! say {
    ($($arguments:tt)*) => { console::write(format_args!($($arguments)*)) };
}

fn mirror() -> Option<&'static Mirror> {
    network().and_then(|network| network.mirror())
}

/// Shows what the board is in its pair.
pub(crate) fn show() {
    let Some(mirror) = mirror() else {
        return say!("the board file names no mirror\n");
    };
    let stage = mirror.stage.lock();
    let Stage::Running(state) = &*stage else {
        return say!("mirror: side {}, not running\n", mirror.config.side);
    };
    let (node, side) = (&state.node, mirror.config.side);
    let role = node.role();
    let newest = node.epochs().map(|(_, sealed, _)| sealed).max();
    let committed = node.committed().filter_map(|(_, it)| it.map(|it| it.epoch));
    let epoch = newest
        .into_iter()
        .chain(committed)
        .max()
        .unwrap_or_default();
    say!(
        "mirror: side {side}, {}, term {}, {}, epoch {epoch}\n",
        role.role(),
        role.term(),
        role.protection()
    );
    for (group, sealed, acknowledged) in node.epochs() {
        say!("  guest {group}: epoch {sealed} ended, {acknowledged} acknowledged\n");
    }
    for (group, committed) in node.committed() {
        if let Some(committed) = committed {
            say!(
                "  guest {group}: understudy as of epoch {}\n",
                committed.epoch
            );
        }
    }
    for kept in &state.hands.kept {
        if kept.epochs.pages > 0 {
            say!("  {}: {}\n", kept.guest.name, kept.epochs.cost);
        }
        if kept.epochs.inspected > 0 {
            say!(
                "  {}: {} epochs compared, {} differ\n",
                kept.guest.name,
                kept.epochs.inspected,
                kept.epochs.differing
            );
        }
    }
    let link = node.link().counters();
    say!(
        "  link: {} frames and {} bytes sent, {} of them again; {} frames received\n",
        link.sent_frames,
        link.sent_bytes,
        link.retransmissions,
        link.received_frames
    );
    for path in [Path::Link, Path::Lan] {
        for (name, count) in mirror::Dropped::NAMES.iter().zip(node.drops(path).counts) {
            if count > 0 {
                say!("  {path}: {count} dropped: {name}\n");
            }
        }
    }
}

/// Wants something of the board's node; what follows the name is a drill's step, or off for audits.
pub(crate) fn command(name: &str, more: Option<&str>) {
    if name == "die" {
        return match more.and_then(Step::named) {
            Some(step) => drill::end_at(step),
            None => {
                say!("at which step?");
                Step::ALL.iter().for_each(|step| say!(" {}", step.name()));
                say!("\n");
            }
        };
    }
    if name == "audit" {
        let wanted = match more {
            None => true,
            Some("off") => false,
            Some(other) => return say!("{other}: only off is known\n"),
        };
        return match mirror().map(|mirror| mirror.stage.lock()).as_deref() {
            Some(Stage::Running(state)) => {
                for kept in &state.hands.kept {
                    kept.machine.digest_captures(wanted);
                }
            }
            _ => say!("the mirror does not run\n"),
        };
    }
    if name == "spoil" {
        return match mirror().map(|mirror| mirror.stage.lock()).as_deref() {
            Some(Stage::Running(state)) if !state.node.role().role().owns() => {
                state.hands.kept.iter().for_each(Kept::spoil);
            }
            _ => say!("there is no understudy here\n"),
        };
    }
    let command = match name {
        "switchover" => Command::Switchover,
        "force" => Command::Force,
        "solo" => Command::Detach,
        "resync" => Command::Attach,
        _ => {
            return say!(
                "{name}: neither switchover nor force nor solo nor resync nor audit nor spoil nor die\n"
            );
        }
    };
    let Some(mirror) = mirror() else {
        return say!("the board file names no mirror\n");
    };
    match &mut *mirror.stage.lock() {
        Stage::Running(state) => {
            let tsc = tsc::read();
            let now = mirror.instant(tsc);
            state.hands.be_called(tsc, now);
            state.node.command(command, now, &mut state.hands);
        }
        _ => say!("the mirror does not run\n"),
    }
}
