//! Guests that change boards again and again, under load: nobody has to ask twice, whatever was on its way meanwhile.

use super::watched::station;
use super::{END, FIRST, PATIENCE, pair_text, plan, running, warm, with_address_of_cards};
use crate::client::ledger::{Load, Plan};
use crate::suite::lab::Lab;
use crate::suite::management::Metrics;
use crate::twin::{Role, Until};
use anyhow::{Result, bail, ensure};
use mirror::Side;
use std::thread;
use std::time::Duration;

/// How often the guests change boards.
const TURNS: usize = 4;
/// How long callers wait for an answer: longer than any switchover takes.
const LONG: Duration = Duration::from_secs(10);
/// For how long there is load between two of them.
const WHILE: Duration = Duration::from_secs(1);

pub(super) fn loses_nothing(lab: &Lab) -> Result<()> {
    let mut text = pair_text(None)?;
    if lab.is_bochs() {
        text = with_address_of_cards(&text);
    }
    let (mut pair, client) = running(lab, &text)?;
    let mut load = Load::start(
        &client,
        Plan {
            callers: 8,
            pause: Duration::from_millis(2),
            wait: LONG,
            ..plan(FIRST)
        },
    )?;
    warm(lab, &load)?;
    let protected = Until::Is(Role::Primary, Some(true));
    let (mut from, mut to) = (Side::A, Side::B);
    for _ in 0..TURNS {
        pair.shell(from, "mirror switchover")?;
        pair.until(to, &protected, PATIENCE)?;
        thread::sleep(WHILE);
        std::mem::swap(&mut from, &mut to);
    }
    load.halt(END)?;
    let repeated = match load.ledger().judge() {
        Ok(summary) => summary.repeated,
        Err(faults) => bail!("{faults:?}"),
    };
    ensure!(repeated == 0, "{repeated} questions had to be asked again");
    load.inspect_all(END)?;
    if let Err(faults) = load.ledger().judge() {
        bail!("{faults:?}");
    }
    // It was not for want of questions.
    let mut delivered = 0.0;
    for side in [Side::A, Side::B] {
        let page = Metrics::read_from(&client, station(side))?;
        delivered += page.of("understudy_mirror_delivered_frames_total")?;
        let refused = page.of("understudy_mirror_refused_frames_total")?;
        ensure!(refused == 0.0, "{refused} frames found no taker");
    }
    ensure!(delivered > 0.0, "no question came while the guests moved");
    Ok(())
}
