//! A mirrored guest that resets itself, or is stopped: the pair stays one, and what the guest is counts on the other board, too.

use super::{PATIENCE, RTOS, pair_text, running};
use crate::suite::lab::Lab;
use crate::suite::management::wait_for_ping;
use crate::twin::{Role, Until};
use anyhow::{Result, ensure};
use mirror::Side;
use std::thread;
use std::time::Duration;

/// Several epochs.
const WHILE: Duration = Duration::from_secs(2);
const MOMENT: Duration = Duration::from_millis(500);

pub(super) fn counts(lab: &Lab) -> Result<()> {
    let text = pair_text(None)?;
    let (mut pair, client) = running(lab, &text)?;
    wait_for_ping(lab, &client, RTOS, 56)?;

    let a = pair.machine(Side::A)?;
    a.send("\u{f}1reboot\r")?;
    a.expect("rtos: reset by the guest", PATIENCE)?;
    a.expect("rtos: started", PATIENCE)?;
    wait_for_ping(lab, &client, RTOS, 56)?;
    thread::sleep(WHILE);
    let primary = Until::Is(Role::Primary, Some(true));
    pair.until(Side::A, &primary, MOMENT)?;

    pair.shell(Side::A, "stop rtos")?;
    pair.machine(Side::A)?.expect("rtos: stopped", PATIENCE)?;
    thread::sleep(WHILE);
    pair.until(Side::A, &primary, MOMENT)?;
    pair.kill(Side::A)?;
    pair.until(Side::B, &Until::Is(Role::Solo, None), PATIENCE)?;
    ensure!(
        client.ping(RTOS, 56, MOMENT).is_err(),
        "a guest that was stopped answers"
    );
    pair.shell(Side::B, "start rtos")?;
    pair.machine(Side::B)?.expect("rtos: started", PATIENCE)?;
    wait_for_ping(lab, &client, RTOS, 56)?;
    Ok(())
}

/// A guest that hangs as soon as it is started, with a watchdog that it does not feed.
const HANGS: &str = "[[guest]]\nname = \"probe\"\nimage = \"@probes\"\nmemory = \"16M\"\ncpu = 0\n\
    command_line = \"hang\"\nmirror = \"warm\"\nwatchdog = \"failover\"\n\n[[uplink]]";

pub(super) fn gives_way(lab: &Lab) -> Result<()> {
    let text = pair_text(None)?.replacen("[[uplink]]", HANGS, 1);
    let (mut pair, client) = running(lab, &text)?;
    let expired = "probe: its watchdog has expired: failover";
    pair.machine(Side::A)?.expect(expired, PATIENCE)?;
    let primary = Until::Is(Role::Primary, Some(true));
    pair.until(Side::B, &primary, PATIENCE)?;
    wait_for_ping(lab, &client, RTOS, 56)
}

/// A guest of which nothing but its image is kept.
const COLD: &str = "[[guest]]\nname = \"spare\"\nimage = \"@rtos\"\nmemory = \"16M\"\ncpu = 0\nmirror = \"cold\"\n\n[[uplink]]";

pub(super) fn starts_afresh(lab: &Lab) -> Result<()> {
    let text = pair_text(None)?.replacen("[[uplink]]", COLD, 1);
    let (mut pair, client) = running(lab, &text)?;
    wait_for_ping(lab, &client, RTOS, 56)?;
    let mut started = |side| -> Result<bool> {
        let text = pair.machine(side)?.console.text();
        Ok(text.contains("spare: started"))
    };
    ensure!(
        started(Side::A)? && !started(Side::B)?,
        "it runs on one board, or on both"
    );
    pair.kill(Side::A)?;
    pair.machine(Side::B)?.expect("rtos: resumed", PATIENCE)?;
    wait_for_ping(lab, &client, RTOS, 56)?;
    let text = pair.machine(Side::B)?.console.text();
    ensure!(text.contains("spare: started"), "it was not started afresh");
    Ok(())
}
