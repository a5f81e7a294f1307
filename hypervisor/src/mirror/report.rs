//! What the hypervisor tells the world of its mirror: metrics, and a part of the board's status.

use super::figures::Epochs;
use super::hands::Hands;
use super::{Mirror, Outputs, Stage, State};
use crate::network::report::{list, metric};
use core::fmt::{self, Write};
use mirror::{Epoch, Path, Protection, Role};

/// The epochs of a guest: that which ended last here, that which the backup has of it, and that which is kept here.
#[derive(Clone, Copy, Default)]
struct Marks {
    ended: Epoch,
    acknowledged: Epoch,
    kept: Epoch,
}

fn marks(state: &State, group: u8) -> Marks {
    let mut leading = state.node.epochs();
    let (_, ended, acknowledged) = leading
        .find(|(number, ..)| *number == group)
        .unwrap_or_default();
    let mut kept = state.node.committed();
    let kept = kept.find(|(number, _)| *number == group);
    let kept = kept.and_then(|(_, committed)| committed);
    Marks {
        ended,
        acknowledged,
        kept: kept.map_or_else(Epoch::default, |committed| committed.epoch),
    }
}

type Mark = (&'static str, &'static str, fn(&Marks) -> Epoch);

const MARKS: [Mark; 3] = [
    (
        "mirror_epoch_ended",
        "The guest's last epoch that ended on this board.",
        |marks| marks.ended,
    ),
    (
        "mirror_epoch_acknowledged",
        "The last one of these that the backup has.",
        |marks| marks.acknowledged,
    ),
    (
        "mirror_epoch_kept",
        "The epoch that the understudy on this board is as of.",
        |marks| marks.kept,
    ),
];

impl Mirror {
    /// Writes its metrics.
    pub(crate) fn metrics(&self, to: &mut impl Write) -> fmt::Result {
        let stage = self.stage.lock();
        let Stage::Running(state) = &*stage else {
            return Ok(());
        };
        let role = state.node.role();
        metric(
            to,
            "gauge",
            "mirror_role",
            "Whether the board is that in its pair.",
        )?;
        for known in Role::ALL {
            let value = u8::from(role.role() == known);
            writeln!(to, "understudy_mirror_role{{role=\"{known}\"}} {value}")?;
        }
        metric(to, "gauge", "mirror_term", "The term that the board is in.")?;
        writeln!(to, "understudy_mirror_term {}", role.term())?;
        let help =
            "Whether the service would survive the death of the board that serves, and why not.";
        metric(to, "gauge", "mirror_protected", help)?;
        match role.protection() {
            Protection::Protected => {
                writeln!(to, "understudy_mirror_protected{{reason=\"\"}} 1")?;
            }
            Protection::Unprotected(why) => {
                writeln!(to, "understudy_mirror_protected{{reason=\"{why}\"}} 0")?;
            }
        }
        for (name, help, mark) in MARKS {
            metric(to, "gauge", name, help)?;
            for (group, kept) in state.hands.by_groups() {
                let (guest, value) = (&kept.guest.name, mark(&marks(state, group)));
                writeln!(to, "understudy_{name}{{guest=\"{guest}\"}} {value}")?;
            }
        }
        epochs(&state.hands, to)?;
        self.link(state, to)
    }

    fn link(&self, state: &State, to: &mut impl Write) -> fmt::Result {
        let (link, inputs) = (state.node.link().counters(), state.node.inputs());
        for (name, help, value) in [
            (
                "mirror_sent_frames_total",
                "Frames of data that were sent on the link.",
                link.sent_frames,
            ),
            ("mirror_sent_bytes_total", "Their bytes.", link.sent_bytes),
            (
                "mirror_retransmitted_frames_total",
                "Those that were sent again.",
                link.retransmissions,
            ),
            (
                "mirror_received_frames_total",
                "Frames of data that came by the link.",
                link.received_frames,
            ),
            (
                "mirror_forwarded_frames_total",
                "Frames for guests that were handed over, told to the other board.",
                inputs.told,
            ),
            (
                "mirror_delivered_frames_total",
                "Frames that came for guests on the other board, and that these got here.",
                inputs.delivered,
            ),
            (
                "mirror_refused_frames_total",
                "Such frames that found no room or no taker here.",
                inputs.dropped,
            ),
        ] {
            metric(to, "counter", name, help)?;
            writeln!(to, "understudy_{name} {value}")?;
        }
        let name = "mirror_dropped_frames_total";
        metric(
            to,
            "counter",
            name,
            "Frames of the mirror's that were dropped.",
        )?;
        for path in [Path::Link, Path::Lan] {
            for (reason, count) in mirror::Dropped::NAMES
                .iter()
                .zip(state.node.drops(path).counts)
            {
                writeln!(
                    to,
                    "understudy_{name}{{path=\"{path}\",reason=\"{reason}\"}} {count}"
                )?;
            }
        }
        Ok(())
    }

    /// Writes the value of its part in the board's status.
    pub(crate) fn status(&self, to: &mut impl Write) -> fmt::Result {
        let (side, stage) = (self.config.side, self.stage.lock());
        let Stage::Running(state) = &*stage else {
            return write!(to, "{{\"side\":\"{side}\",\"running\":false}}");
        };
        let role = state.node.role();
        write!(
            to,
            "{{\"side\":\"{side}\",\"running\":true,\"role\":\"{}\",\"term\":{},\"protection\":\"{}\",\"guests\":[",
            role.role(),
            role.term(),
            role.protection(),
        )?;
        list(to, state.hands.by_groups(), |to, (group, kept)| {
            let Marks {
                ended,
                acknowledged,
                kept: here,
            } = marks(state, group);
            write!(
                to,
                "{{\"name\":\"{}\",\"ended\":{ended},\"acknowledged\":{acknowledged},\"kept\":{here}}}",
                kept.guest.name,
            )
        })?;
        to.write_str("]}")
    }
}

/// The metrics of guests' epochs.
fn epochs(hands: &Hands, to: &mut impl Write) -> fmt::Result {
    let name = "mirror_pages_total";
    metric(
        to,
        "counter",
        name,
        "Pages that were written within epochs.",
    )?;
    for kept in hands.kept() {
        let (guest, pages) = (&kept.guest.name, kept.epochs.pages);
        writeln!(to, "understudy_{name}{{guest=\"{guest}\"}} {pages}")?;
    }
    let name = "mirror_inside_frames_total";
    let help = "Frames that were not held, since they went to guests of the same group alone.";
    metric(to, "counter", name, help)?;
    for kept in hands.kept() {
        let outputs = kept.guest.outputs.as_ref();
        let (guest, frames) = (&kept.guest.name, outputs.map_or(0, Outputs::inside_frames));
        writeln!(to, "understudy_{name}{{guest=\"{guest}\"}} {frames}")?;
    }
    type Count = (&'static str, &'static str, fn(&Epochs) -> u64);
    const COUNTS: [Count; 2] = [
        (
            "mirror_audited_epochs_total",
            "Epochs whose understudy was compared with the guest.",
            |epochs| epochs.inspected,
        ),
        (
            "mirror_wrong_epochs_total",
            "Those that were not the same.",
            |epochs| epochs.differing,
        ),
    ];
    for (name, help, value) in COUNTS {
        metric(to, "counter", name, help)?;
        for kept in hands.kept() {
            let (guest, value) = (&kept.guest.name, value(&kept.epochs));
            writeln!(to, "understudy_{name}{{guest=\"{guest}\"}} {value}")?;
        }
    }
    let name = "mirror_pause_seconds";
    metric(
        to,
        "histogram",
        name,
        "How long a guest stood still at an epoch's end.",
    )?;
    for kept in hands.kept() {
        kept.epochs.pause.write(to, name, &kept.guest.name)?;
    }
    let name = "mirror_epoch_seconds";
    metric(
        to,
        "histogram",
        name,
        "From one epoch's end to the next one's.",
    )?;
    for kept in hands.kept() {
        kept.epochs.length.write(to, name, &kept.guest.name)?;
    }
    let name = "mirror_delay_seconds";
    let help = "From an epoch's end until the backup had it: so long outputs are held, beside the epoch itself.";
    metric(to, "histogram", name, help)?;
    for kept in hands.kept() {
        kept.epochs.delay.write(to, name, &kept.guest.name)?;
    }
    Ok(())
}
