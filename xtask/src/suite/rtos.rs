//! The legacy real-time system: it tests itself, keeps time, listens, and is prompt.

use super::Case;
use super::lab::{Lab, Session};
use crate::emulator::Setup;
use anyhow::{Context, Result, ensure};

/// The model without accessed/dirty bits, page-modification log and x2APIC.
const SANDY_BRIDGE: &str = "corei7_sandy_bridge_2600k";
/// The executive's prompt.
pub(super) const PROMPT: &str = "rtos> ";
/// What the self-test ends with when all is well.
const SELFTEST_PASSED: &str = "selftest: PASSED";

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "rtos-selftest-1cpu",
            "the RTOS passes its self-test on a board with one processor",
            240,
            |lab| selftest(lab, Setup::CPU_MODEL, 1),
        ),
        Case::new(
            "rtos-selftest-2cpu",
            "the same on the second of two processors",
            240,
            |lab| selftest(lab, Setup::CPU_MODEL, 2),
        ),
        Case::new(
            "rtos-selftest-1cpu-sandy-bridge",
            "the same on a processor that lacks the newer parts of VT-x",
            240,
            |lab| selftest(lab, SANDY_BRIDGE, 1),
        )
        .on_bochs(),
        Case::new(
            "rtos-selftest-2cpu-sandy-bridge",
            "the same on the second of two such processors",
            240,
            |lab| selftest(lab, SANDY_BRIDGE, 2),
        )
        .on_bochs(),
        Case::new(
            "rtos-clock",
            "the RTOS's clocks agree with the board's within 0.1 %",
            240,
            clock,
        )
        .on_bochs(),
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
            jitter,
        ),
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

fn selftest(lab: &Lab, model: &str, cpus: u32) -> Result<()> {
    let mut session = lab.boot_with(&board(cpus, "run=selftest;halt"), |setup| {
        setup.cpu_model = model.to_owned();
    })?;
    session.expect(SELFTEST_PASSED)?;
    session.expect("rtos: powered off")?;
    session.wait_power_off()?;
    session.never_said("FAILED")
}

fn clock(lab: &Lab) -> Result<()> {
    let mut session = lab.boot(&board(2, "run=clock_5;halt"))?;
    let line = session.expect_line("clock: ")?;
    let ppm = number_before(&line, "ppm")?;
    ensure!(
        ppm.abs() <= 1000,
        "the RTOS's clocks differ by {ppm} ppm, more than 0.1 %: {line}"
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

fn jitter(lab: &Lab) -> Result<()> {
    let mut session = lab.boot(&board(2, "run=jitter_1000;halt"))?;
    let line = session.expect_line("jitter: ")?;
    let overruns = field(&line, "overruns")?;
    ensure!(overruns == 0, "{overruns} periods were missed: {line}");
    session.wait_power_off()
}

/// The number in `name=number`.
///
/// # Errors
///
/// Where the line has no such field.
pub(super) fn field(line: &str, name: &str) -> Result<u64> {
    let value = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .with_context(|| format!("\"{line}\" has no field {name}="))?;
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    digits
        .parse()
        .with_context(|| format!("{name}={value} is not a number"))
}

/// The number in front of a unit.
fn number_before(line: &str, unit: &str) -> Result<i64> {
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
    fn fields_and_units_are_read() {
        assert_eq!(field("jitter: max=12 overruns=0", "overruns").unwrap(), 0);
        assert_eq!(field("max=12us x", "max").unwrap(), 12);
        assert!(field("max=12", "min").is_err());
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
            config::toml::parse(&text, "b").unwrap();
        }
    }
}
