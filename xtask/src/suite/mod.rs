//! `cargo xtask test`: checks and tests on the host, then whole boards in an emulator.

mod boards;
mod checkpoint;
mod dirty;
mod exchange;
mod gateway;
mod host;
mod junit;
pub(crate) mod lab;
mod lan;
mod linux;
mod mach;
pub(crate) mod management;
pub(crate) mod mirror;
mod natively;
mod neighbours;
mod old_cards;
mod probes;
mod report;
mod rtos;
mod watchdog;
mod wire;

use crate::build;
use crate::cli::{BuildOptions, TestOptions};
use crate::compile;
use crate::emulator::Emulator;
use crate::paths;
use anyhow::{Result, bail};
use lab::Lab;
use report::{Report, Row, Verdict};
use std::cmp::Reverse;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What a test does.
type Run = Box<dyn Fn(&Lab) -> Result<()> + Send + Sync>;

/// One test of a whole board.
pub(crate) struct Case {
    /// Its name, which filters match.
    pub name: &'static str,
    /// What it shows, for the list.
    pub about: &'static str,
    /// How long it may take in all.
    pub deadline: Duration,
    /// Where it can run; there `--all` runs it.
    pub able: Places,
    /// Where every run runs it.
    pub usual: Places,
    /// The test.
    pub run: Run,
}

/// Emulators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    qemu: bool,
    bochs: bool,
}

impl Places {
    const NOWHERE: Self = Self::new(false, false);
    const QEMU: Self = Self::new(true, false);
    const BOCHS: Self = Self::new(false, true);
    const BOTH: Self = Self::new(true, true);

    const fn new(qemu: bool, bochs: bool) -> Self {
        Self { qemu, bochs }
    }

    const fn contains(self, emulator: Emulator) -> bool {
        match emulator {
            Emulator::Qemu(_) => self.qemu,
            Emulator::Bochs => self.bochs,
        }
    }
}

impl Case {
    /// A test that can run anywhere, and that every run makes in QEMU alone, which is the faster.
    pub(crate) fn new(
        name: &'static str,
        about: &'static str,
        seconds: u64,
        run: impl Fn(&Lab) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            about,
            deadline: Duration::from_secs(seconds),
            able: Places::BOTH,
            usual: Places::QEMU,
            run: Box::new(run),
        }
    }

    /// The same, in Bochs as well: it depends on the shell over VT-x, on how guests boot, or on the devices' timing.
    pub(crate) fn on_both(mut self) -> Self {
        self.usual = Places::BOTH;
        self
    }

    /// The same, in Bochs only: it needs its processor models, its clock or its debugger.
    pub(crate) fn on_bochs(mut self) -> Self {
        self.able = Places::BOCHS;
        self.usual = Places::BOCHS;
        self
    }

    /// The same, in QEMU only: it needs its processor models, its chipsets or its cards.
    pub(crate) fn on_qemu(mut self) -> Self {
        self.able = Places::QEMU;
        self.usual = Places::QEMU;
        self
    }

    /// The same, only with `--all`.
    pub(crate) fn only_with_all(mut self) -> Self {
        self.usual = Places::NOWHERE;
        self
    }
}

/// A test in one emulator.
struct Boards<'a> {
    case: &'a Case,
    emulator: Emulator,
    /// What filters match and what its folder is called: `rtos-typing@qemu`.
    name: String,
}

/// What `options` select. The longest come first, so that none runs alone at the end.
fn selected<'a>(cases: &'a [Case], options: &TestOptions) -> Vec<Boards<'a>> {
    let mut rows: Vec<_> = cases
        .iter()
        .flat_map(|case| {
            let places = if options.all { case.able } else { case.usual };
            let emulators = options.emulator.all().into_iter();
            emulators
                .filter(move |emulator| places.contains(*emulator))
                .map(move |emulator| Boards {
                    case,
                    emulator,
                    name: format!("{}@{}", case.name, emulator.tag()),
                })
        })
        .filter(|row| is_wanted(&row.name, options))
        .collect();
    // A deadline tells how long a test takes where it is slow.
    let haste = |row: &Boards<'_>| (Reverse(row.case.deadline), row.emulator != Emulator::Bochs);
    rows.sort_by_key(haste);
    rows
}

fn is_wanted(name: &str, options: &TestOptions) -> bool {
    let filter = options.filter.as_deref();
    filter.is_none_or(|filter| name.contains(filter))
}

/// All tests of whole boards.
fn cases() -> Vec<Case> {
    let groups = [
        rtos::cases(),
        boards::cases(),
        mach::cases(),
        linux::cases(),
        probes::cases(),
        wire::cases(),
        exchange::cases(),
        gateway::cases(),
        lan::cases(),
        management::cases(),
        neighbours::cases(),
        natively::cases(),
        old_cards::cases(),
        watchdog::cases(),
        dirty::cases(),
        checkpoint::cases(),
        mirror::cases(),
    ];
    groups.into_iter().flatten().collect()
}

/// Runs what the filter selects; the last line printed is `N passed, M failed`.
///
/// # Errors
///
/// Where not even the tests can be started.
pub(crate) fn test(options: &TestOptions) -> Result<ExitCode> {
    let start = Instant::now();
    let host: Vec<_> = host::checks()
        .into_iter()
        .filter(|check| is_wanted(check.name, options))
        .collect();
    let cases = cases();
    let boards = selected(&cases, options);
    if options.list {
        let names = host.iter().map(|check| (check.name, check.about));
        let boards = boards.iter().map(|row| (row.name.as_str(), row.case.about));
        for (name, about) in names.chain(boards) {
            println!("{name:<38} {about}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    if host.is_empty() && boards.is_empty() {
        bail!("no test's name contains that; --list shows them, --all --list really all");
    }
    let report = Report::new(options.plain);
    for check in &host {
        report.started(check.name);
        let start = Instant::now();
        let verdict = Verdict::of(check.run());
        report.add(Row::new(check.name, start.elapsed(), verdict));
    }
    if !boards.is_empty() {
        let start = Instant::now();
        let claim = paths::claim("test")?;
        match prepare(options, &boards, &claim.folder) {
            Ok(programs) => {
                report.add(Row::new("build", start.elapsed(), Verdict::Passed));
                let lab = |row: &Boards<'_>| {
                    Lab::new(
                        row.emulator,
                        &programs,
                        &claim.folder.join(&row.name),
                        row.case.deadline,
                        !options.no_install,
                    )
                };
                run_boards(&boards, options.jobs, &report, lab);
            }
            Err(error) => {
                let verdict = Verdict::of(Err(error));
                report.add(Row::new("build", start.elapsed(), verdict));
            }
        }
    }
    let good = report.finish(start.elapsed());
    if let Some(file) = &options.junit {
        paths::write(file, junit::document(&report.rows()))?;
    }
    report.total();
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Builds what the boards need, and installs their emulators. One that cannot be installed is an error: else half
/// of the tests would silently not be made.
fn prepare(
    options: &TestOptions,
    boards: &[Boards<'_>],
    folder: &Path,
) -> Result<compile::Programs> {
    let build = BuildOptions {
        no_install: options.no_install,
        ..BuildOptions::default()
    };
    let needs: Vec<_> = options
        .emulator
        .all()
        .into_iter()
        .filter(|emulator| boards.iter().any(|row| row.emulator == *emulator))
        .flat_map(|emulator| emulator.needs().iter().copied())
        .collect();
    build::programs(&build, &needs, &folder.join("programs"))
}

/// Runs the tests, some at a time.
fn run_boards(
    boards: &[Boards<'_>],
    jobs: usize,
    report: &Report,
    lab: impl Fn(&Boards<'_>) -> Lab + Sync,
) {
    let next = AtomicUsize::new(0);
    let printing = Mutex::new(());
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, boards.len()) {
            scope.spawn(|| {
                while let Some(row) = boards.get(next.fetch_add(1, Ordering::Relaxed)) {
                    report.started(&row.name);
                    let start = Instant::now();
                    let verdict = Verdict::of((row.case.run)(&lab(row)));
                    let _one_at_a_time = printing.lock();
                    report.add(Row::new(&row.name, start.elapsed(), verdict));
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn options(arguments: &[&str]) -> TestOptions {
        let words = ["cargo xtask", "test"].iter().chain(arguments);
        match Cli::parse_from(words).command {
            Command::Test(options) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tiers_and_emulators_select_the_rows() {
        let run: fn(&Lab) -> Result<()> = |_| Ok(());
        let cases = [
            Case::new("plain", "", 60, run),
            Case::new("shell", "", 120, run).on_both(),
            Case::new("models", "", 60, run).on_bochs(),
            Case::new("cards", "", 60, run).on_qemu(),
            Case::new("slow", "", 900, run).only_with_all(),
        ];
        let names = |arguments: &[&str]| -> Vec<String> {
            let rows = selected(&cases, &options(arguments));
            rows.into_iter().map(|row| row.name).collect()
        };
        assert_eq!(
            names(&[]),
            [
                "shell@bochs",
                "shell@qemu",
                "models@bochs",
                "plain@qemu",
                "cards@qemu"
            ]
        );
        assert_eq!(
            names(&["--emulator", "bochs"]),
            ["shell@bochs", "models@bochs"]
        );
        assert_eq!(
            names(&["--all", "--emulator", "qemu"]),
            ["slow@qemu", "shell@qemu", "plain@qemu", "cards@qemu"]
        );
        assert_eq!(names(&["--all", "plain"]), ["plain@bochs", "plain@qemu"]);
        assert_eq!(names(&["shell@b"]), ["shell@bochs"]);
    }

    #[test]
    fn names_are_unique_and_fit_a_folder() {
        let mut names: Vec<_> = cases().iter().map(|case| case.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+');
        assert!(names.iter().all(|name| name.chars().all(fits)), "{names:?}");
    }
}
