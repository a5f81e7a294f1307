//! The legacy real-time system: it tests itself, keeps time, listens, and is prompt.

use super::Case;
use super::lab::{Lab, Session};
use crate::emulator::bochs::IPS;
use anyhow::{Context, Result, ensure};

/// The model without accessed/dirty bits, page-modification log and x2APIC.
pub(super) const SANDY_BRIDGE: &str = "corei7_sandy_bridge_2600k";
/// The executive's prompt.
pub(super) const PROMPT: &str = "rtos> ";
/// How far clocks may be apart.
const CLOCK_TOLERANCE_PPM: i64 = 1000;

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "rtos-selftest-1cpu",
            "the RTOS passes its self-test on a board with one processor",
            240,
            |lab| selftest(lab, None, 1),
        )
        .on_both(),
        Case::new(
            "rtos-selftest-2cpu",
            "the same on the second of two processors",
            240,
            |lab| selftest(lab, None, 2),
        )
        .on_both(),
        Case::new(
            "rtos-selftest-1cpu-sandy-bridge",
            "the same on a processor that lacks the newer parts of VT-x",
            240,
            |lab| selftest(lab, Some(SANDY_BRIDGE), 1),
        )
        .on_bochs(),
        Case::new(
            "rtos-selftest-2cpu-sandy-bridge",
            "the same on the second of two such processors",
            240,
            |lab| selftest(lab, Some(SANDY_BRIDGE), 2),
        )
        .on_bochs(),
        Case::new(
            "rtos-clock",
            "the RTOS's clocks agree with the board's within 0.1 %",
            240,
            |lab| clock(lab, 3),
        )
        .on_bochs(),
        Case::new("rtos-clock-minute", "the same over a minute", 900, |lab| {
            clock(lab, 60)
        })
        .on_bochs()
        .only_with_all(),
        Case::new(
            "rtos-typing",
            "what is typed reaches the RTOS, and its answer comes back",
            180,
            typing,
        ),
        Case::new(
            "rtos-jitter",
            "the RTOS measures its release latency and misses no period",
            240,
            |lab| jitter(lab, 1000),
        )
        .on_both(),
        Case::new(
            "rtos-jitter-long",
            "the same over half a minute",
            900,
            |lab| jitter(lab, 30_000),
        )
        .only_with_all(),
    ]
}

/// A board with the RTOS alone on the last processor.
pub(super) fn board(cpus: u32, command_line: &str) -> String {
    format!(
        "[board]\nname = \"rtos-test\"\ncpus = {cpus}\nwhen_all_off = \"power-off\"\n\n\
         [[guest]]\nname = \"rtos\"\nimage = \"@rtos\"\nmemory = \"16M\"\ncpu = {}\n\
         command_line = \"{command_line}\"\n",
        cpus - 1
    )
}

fn selftest(lab: &Lab, model: Option<&str>, cpus: u32) -> Result<()> {
    let mut session = lab.boot_with(&board(cpus, "run=selftest;halt"), |setup| {
        setup.cpu_model = model.map(str::to_owned);
    })?;
    session.expect(" passed, 0 failed")?;
    session.expect("rtos: powered off")?;
    session.wait_power_off()?;
    session.never_said("FAILED")
}

/// Both clocks of the guest's PC against each other, and its time-stamp counter, which is the
/// board's, against them.
fn clock(lab: &Lab, seconds: u64) -> Result<()> {
    let mut session = lab.boot(&board(2, &format!("run=clock_{seconds};halt")))?;
    let line = session.expect_line("clock: ")?;
    let error: i64 = number_before(&line, "ppm")?;
    ensure!(
        error.abs() <= CLOCK_TOLERANCE_PPM,
        "the PIT differs from the RTC by more than 0.1 %: {line}"
    );
    let ticks: i64 = number_before(&line, "tsc")?;
    let expected = i64::try_from(seconds * IPS)?;
    let error = (ticks - expected) * 1_000_000 / expected;
    ensure!(
        error.abs() <= CLOCK_TOLERANCE_PPM,
        "the guest's seconds differ from the board's by {error} ppm, more than 0.1 %: {line}"
    );
    session.wait_power_off()
}

fn typing(lab: &Lab) -> Result<()> {
    let mut session = lab.boot(&board(2, ""))?;
    session.expect(PROMPT)?;
    session.send("nonsense\r")?;
    session.expect("nonsense")?;
    session.expect("no such command")?;
    session.expect(PROMPT)?;
    session.send("halt\r")?;
    session.wait_power_off()
}

fn jitter(lab: &Lab, releases: u32) -> Result<()> {
    let mut session = lab.boot(&board(2, &format!("run=jitter_{releases};halt")))?;
    session.expect(&format!("jitter: n={releases} "))?;
    let line = session.expect_line("jitter: period=")?;
    let overruns: i64 = number_before(&line, "overruns")?;
    ensure!(overruns == 0, "{overruns} periods were missed: {line}");
    session.wait_power_off()
}

/// The number in front of a unit.
pub(super) fn number_before(line: &str, unit: &str) -> Result<i64> {
    let words: Vec<_> = line.split_whitespace().collect();
    let at = words
        .iter()
        .position(|word| word.trim_end_matches(',') == unit);
    let word = at.and_then(|at| words.get(at.checked_sub(1)?));
    let word = word.with_context(|| format!("\"{line}\" has no number of {unit}"))?;
    word.parse()
        .with_context(|| format!("\"{word}\" before {unit} is not a number"))
}

/// Boots the RTOS beside others and waits for its prompt.
///
/// # Errors
///
/// Where it does not come.
pub(super) fn ready(session: &mut Session) -> Result<()> {
    session.expect(PROMPT).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        assert_eq!(
            number_before("pit against tsc -12 ppm, fine", "ppm").unwrap(),
            -12
        );
        assert!(number_before("ppm", "ppm").is_err());
    }

    #[test]
    fn boards_are_right() {
        for cpus in [1, 2] {
            let text = board(cpus, "x");
            config::toml::parse(&text, "b", None).unwrap();
        }
    }
}
