//! Checkpoints of guests that run on, and guests that go on from their last checkpoint.

use super::Case;
use super::boards;
use super::lab::{Lab, Session};
use super::linux;
use super::rtos;
use anyhow::{Context, Result, ensure};

/// MiB beside a guest's own memory: what is kept of it, its disk, and room for copies.
const RTOS_MORE: u32 = 16 + 8;
const LINUX_MORE: u32 = 256 + 16;

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "checkpoint-rtos",
            "the RTOS passes its self-test while checkpoints are taken, and goes on from the last one",
            240,
            |lab| rtos(lab, None),
        )
        .on_both(),
        Case::new(
            "checkpoint-rtos-sandy-bridge",
            "the same on a processor that keeps no log of written pages",
            240,
            |lab| rtos(lab, Some(rtos::SANDY_BRIDGE)),
        )
        .on_bochs(),
        Case::new(
            "checkpoint-linux",
            "Linux on two processors works while checkpoints are taken, and goes on from the last one with all it had begun",
            900,
            linux,
        )
        .on_both(),
    ]
}

/// Asks for checkpoints of a guest, once or each so many milliseconds, and waits until it was copied a first time.
fn begin(session: &mut Session, guest: &str, every: u32) -> Result<()> {
    boards::shell(session)?;
    session.send(&format!("checkpoint {guest} {every}\r"))?;
    session.expect_unless(&format!("{guest}: "), "no checkpoint")?;
    session
        .expect_unless(" pages copied", "no checkpoint")
        .map(drop)
}

/// Takes one more checkpoint, the last.
fn take_last(session: &mut Session, guest: &str) -> Result<()> {
    boards::shell(session)?;
    session.send(&format!("checkpoint {guest}\r"))?;
    session.expect_unless(&format!("{guest}: 1 checkpoints of "), "no checkpoint")?;
    session.expect(" bytes of state").map(drop)
}

/// Ticks that a guest may stand still for a checkpoint of no pages, and for each page: the goal is 700, which the longest
/// pauses come to within a few.
const PAUSE: (u64, u64) = (15_000, 750);
/// Pages that can be copied at once, and ticks for each page that waits until others were taken.
const POOL: u64 = 1024;
const WAIT: u64 = 1_500;

/// The same behind many; what those have cost is as it should be where ticks are instructions.
fn end(lab: &Lab, session: &mut Session, guest: &str) -> Result<()> {
    take_last(session, guest)?;
    if !lab.is_bochs() {
        return Ok(());
    }
    let own = format!("{guest}: ");
    let figures = |line: &&str| line.contains(&own) && line.contains(" checkpoints of ");
    session
        .text()
        .lines()
        .filter(figures)
        .try_for_each(check_pause)
}

fn check_pause(line: &str) -> Result<()> {
    let most = |unit| -> Result<u64> {
        let (before, _) = line
            .split_once(unit)
            .with_context(|| format!("no{unit} in {line:?}"))?;
        let word = before.rsplit(' ').next().unwrap_or("");
        word.parse()
            .with_context(|| format!("{word:?} before{unit} is not a number"))
    };
    let (pages, pause) = (most(" pages")?, most(" ticks")?);
    ensure!(
        pause <= PAUSE.0 + PAUSE.1 * pages + WAIT * pages.saturating_sub(POOL),
        "a guest stood still for {pause} ticks at {pages} pages: {line}"
    );
    Ok(())
}

/// Lets a guest go on from its last checkpoint, all of whose pages must be there.
fn audit(session: &mut Session, guest: &str) -> Result<()> {
    boards::shell(session)?;
    session.send(&format!("revert {guest} audit\r"))?;
    session.expect_unless(" pages put back", "no checkpoint")?;
    let said = session.expect(" pages differ")?;
    ensure!(
        said.ends_with(" 0 pages differ"),
        "the checkpoint is not whole: {said}"
    );
    session
        .expect_unless(&format!("{guest}: resumed"), "cannot")
        .map(drop)
}

/// The same at once, without a look at the pages.
fn revert(session: &mut Session, guest: &str) -> Result<()> {
    boards::shell(session)?;
    session.send(&format!("revert {guest}\r"))?;
    session
        .expect_unless(&format!("{guest}: resumed"), "cannot")
        .map(drop)
}

fn rtos(lab: &Lab, model: Option<&str>) -> Result<()> {
    let mut session = lab.boot_with(&rtos::board(2, ""), |setup| {
        setup.megabytes += RTOS_MORE;
        setup.cpu_model = model.map(str::to_owned);
    })?;
    rtos::ready(&mut session)?;
    begin(&mut session, "rtos", 10)?;
    session.send("\x0f1selftest\r")?;
    session
        .expect_unless(" passed, 0 failed", "FAILED")
        .context("while checkpoints are taken")?;
    session.send("register 101\r")?;
    session.expect("101 registered")?;
    end(lab, &mut session, "rtos")?;
    session.send("\x0f1register 102\r")?;
    session.expect("102 registered")?;
    for back in [audit, revert] {
        back(&mut session, "rtos")?;
        session.send("\x0f1register 101\r")?;
        session.expect_unless("101 already registered", "101 registered")?;
        session.send("register 102\r")?;
        session.expect_unless("102 registered", "102 already")?;
    }
    session.send("selftest\r")?;
    session
        .expect_unless(" passed, 0 failed", "FAILED")
        .context("behind a checkpoint")?;
    boards::shell(&mut session)?;
    session.send("checkpoint rtos off\r")?;
    session.expect("rtos: has no checkpoint any more")?;
    session.send("\x0f1halt\r")?;
    session.wait_power_off()
}

/// What Linux does while checkpoints are taken of it.
const LOAD: &str = "(clockcheck 10; load 4; tlb 4; disktest /dev/vda 2; dd if=/dev/urandom of=/kept bs=1k count=900; \
     sha256sum /kept > /kept.sum; dd if=/kept of=/dev/vda bs=1k; echo all do''ne) 2>&1 &\n";

fn linux(lab: &Lab) -> Result<()> {
    let board = linux::board(2, "[0, 1]", 1, "run=selftest");
    let mut session = lab.boot_with(&board, |setup| setup.megabytes += LINUX_MORE)?;
    linux::userland(&mut session)?;
    begin(&mut session, "linux", 20)?;
    session.send("\x0f1\n")?;
    linux::ask(&mut session, "sleep 3; echo sle''pt", "slept")?;
    boards::shell(&mut session)?;
    // What an idle guest costs is told by itself.
    session.send("checkpoint linux 20\r")?;
    session.expect(" bytes of state")?;
    session.send(&format!("\x0f1{LOAD}"))?;
    session
        .expect_unless("all done", "FAILED")
        .context("while checkpoints are taken")?;
    end(lab, &mut session, "linux")?;
    let before = uptime(&mut session)?;
    let lost = "dd if=/dev/zero of=/kept bs=1k count=900; dd if=/dev/zero of=/dev/vda bs=1k count=900; touch /lost; sync; echo lo''st";
    linux::ask(&mut session, lost, "lost")?;
    revert(&mut session, "linux")?;
    let after = uptime(&mut session)?;
    ensure!(
        after >= before,
        "Linux's clock went back from {before} s to {after} s"
    );
    kept(&mut session)?;
    take_last(&mut session, "linux")?;
    session.send("\x0f1\n")?;
    linux::ask(&mut session, lost, "lost")?;
    // That takes longer than Linux's clock bears where it is the PC's power management timer.
    audit(&mut session, "linux")?;
    kept(&mut session)?;
    linux::ask(&mut session, "clockcheck 3", "clockcheck: ok")?;
    linux::ask(&mut session, "nproc", "\n2\n")?;
    session.send("\x0f2selftest\r")?;
    session
        .expect_unless(" passed, 0 failed", "FAILED")
        .context("the RTOS beside it")?;
    session.send("halt\r")?;
    session.expect("rtos: powered off")?;
    session.send("\x0f1\n")?;
    linux::power_off(&mut session)
}

/// Linux has what it had at its last checkpoint.
fn kept(session: &mut Session) -> Result<()> {
    session.send("\x0f1\n")?;
    linux::ask(session, "sha256sum -c /kept.sum", "/kept: OK")?;
    let disk = "dd if=/dev/vda bs=1k count=900 iflag=direct | cmp - /kept && echo sa''me";
    linux::ask(session, disk, "same")?;
    linux::ask(session, "ls /lost || echo go''ne", "gone").map(drop)
}

/// Seconds that Linux says it is up.
fn uptime(session: &mut Session) -> Result<f64> {
    session.send("\x0f1cat /proc/uptime | sed 's/^/u''p /'\n")?;
    session.expect("\nup ")?;
    let said = session.expect(" ")?;
    said.trim()
        .parse()
        .with_context(|| format!("{said:?} is no time"))
}
