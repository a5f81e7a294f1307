//! What an operator sees of the mirror, and can want of it.

use super::drill::{self, Step};
use super::kept::Kept;
use super::{Mirror, Stage, State};
use crate::console;
use crate::network::network;
use drivers::tsc;
use mirror::{Command, InputCounters, Path, Side};

macro_rules! say {
    ($($arguments:tt)*) => { console::write(format_args!($($arguments)*)) };
}

/// Lets `work` see the mirror, once it runs.
fn with_state(work: impl FnOnce(&Mirror, &mut State)) {
    let Some(mirror) = network().and_then(|network| network.mirror()) else {
        return say!("the board file names no mirror\n");
    };
    match &mut *mirror.stage.lock() {
        Stage::Running(state) => work(mirror, state),
        Stage::Waiting(_) | Stage::Failed => {
            say!("mirror: side {}, not running\n", mirror.config.side);
        }
    }
}

/// Shows what the board is in its pair.
pub(crate) fn show() {
    with_state(|mirror, state| show_state(mirror.config.side, state));
}

fn show_state(side: Side, state: &State) {
    let node = &state.node;
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
    for kept in state.hands.kept() {
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
    let inputs = node.inputs();
    if inputs != InputCounters::default() {
        say!(
            "  handed over: {} frames for guests sent after them, {} given to guests here, {} dropped\n",
            inputs.told,
            inputs.delivered,
            inputs.dropped
        );
    }
    for path in [Path::Link, Path::Lan] {
        say!("  {path}: dropped: {}\n", node.drops(path));
    }
}

/// Wants something of the board's node; what follows the name is a drill's step, or off for audits.
pub(crate) fn command(name: &str, more: Option<&str>) {
    let command = match name {
        "die" => return die(more),
        "audit" => return audit(more),
        "spoil" => return with_state(|_, state| spoil(state)),
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
    with_state(|mirror, state| {
        let (node, hands, now) = state.call(mirror, tsc::read());
        node.command(command, now, hands);
    });
}

/// The board dies at a step.
fn die(step: Option<&str>) {
    match step.and_then(Step::named) {
        Some(step) => drill::end_at(step),
        None => {
            say!("at which step?");
            Step::ALL.iter().for_each(|step| say!(" {}", step.name()));
            say!("\n");
        }
    }
}

/// Epochs have digests, or no more.
fn audit(more: Option<&str>) {
    let wanted = match more {
        None => true,
        Some("off") => false,
        Some(other) => return say!("{other}: only off is known\n"),
    };
    with_state(|_, state| {
        for kept in state.hands.kept() {
            kept.machine.digest_captures(wanted);
        }
    });
}

/// Spoils the understudies that are kept here.
fn spoil(state: &State) {
    if state.node.role().role().owns() {
        return say!("there is no understudy here\n");
    }
    state.hands.kept().for_each(Kept::spoil);
}
