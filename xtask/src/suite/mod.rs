//! `cargo xtask test`: checks and tests on the host, then whole boards in an emulator.

mod boards;
mod host;
mod junit;
pub(crate) mod lab;
mod linux;
mod mach;
mod probes;
mod report;
mod rtos;

use crate::build;
use crate::cli::{BuildOptions, TestOptions};
use crate::compile;
use crate::emulator::Emulator;
use crate::paths;
use anyhow::{Result, bail};
use lab::Lab;
use report::{Report, Row, Verdict};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// One test of a whole board.
pub(crate) struct Case {
    /// Its name, which filters match.
    pub name: &'static str,
    /// What it shows, for the list.
    pub about: &'static str,
    /// How long it may take in all.
    pub deadline: Duration,
    /// Whether it needs Bochs: its processor models, its clock or its debugger.
    pub bochs_only: bool,
    /// Whether it runs only with `--all`.
    pub slow: bool,
    /// The test.
    pub run: fn(&Lab) -> Result<()>,
}

impl Case {
    /// A test that every run makes on every emulator.
    pub(crate) const fn new(
        name: &'static str,
        about: &'static str,
        seconds: u64,
        run: fn(&Lab) -> Result<()>,
    ) -> Self {
        Self {
            name,
            about,
            deadline: Duration::from_secs(seconds),
            bochs_only: false,
            slow: false,
            run,
        }
    }

    /// The same, on Bochs only.
    pub(crate) const fn on_bochs(mut self) -> Self {
        self.bochs_only = true;
        self
    }

    /// The same, only with `--all`.
    pub(crate) const fn only_with_all(mut self) -> Self {
        self.slow = true;
        self
    }
}

/// All tests of whole boards.
fn cases() -> Vec<Case> {
    let groups = [
        rtos::cases(),
        boards::cases(),
        mach::cases(),
        linux::cases(),
        probes::cases(),
    ];
    groups.into_iter().flatten().collect()
}

/// Runs what the filter selects; the last line printed is `N passed, M failed`.
///
/// # Errors
///
/// Where not even the tests can be started.
pub(crate) fn test(options: &TestOptions) -> Result<ExitCode> {
    let wanted = |name: &str| {
        let filter = options.filter.as_deref();
        filter.is_none_or(|filter| name.contains(filter))
    };
    let host: Vec<_> = host::checks()
        .into_iter()
        .filter(|check| wanted(check.name))
        .collect();
    let cases: Vec<_> = cases()
        .into_iter()
        .filter(|case| wanted(case.name) && (options.all || !case.slow))
        .collect();
    if options.list {
        let names = host.iter().map(|check| (check.name, check.about));
        for (name, about) in names.chain(cases.iter().map(|case| (case.name, case.about))) {
            println!("{name:<34} {about}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    if host.is_empty() && cases.is_empty() {
        bail!(
            "no test's name contains that; --list shows them all, --all --list the slow ones too"
        );
    }
    let report = Report::new(options.plain);
    for check in &host {
        report.started(check.name);
        let start = Instant::now();
        let verdict = Verdict::of(check.run());
        report.add(Row::new(check.name, start.elapsed(), verdict));
    }
    if !cases.is_empty() {
        let start = Instant::now();
        let claim = paths::claim("test")?;
        match prepare(options, &claim.folder) {
            Ok((emulator, programs)) => {
                report.add(Row::new("build", start.elapsed(), Verdict::Passed));
                let lab = |case: &Case| {
                    Lab::new(
                        case,
                        emulator,
                        &programs,
                        &claim.folder,
                        !options.no_install,
                    )
                };
                run_cases(&cases, options.jobs, emulator, &report, lab);
            }
            Err(error) => {
                let verdict = Verdict::of(Err(error));
                report.add(Row::new("build", start.elapsed(), verdict));
            }
        }
    }
    let good = report.finish();
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

/// Builds what the boards need.
fn prepare(options: &TestOptions, folder: &Path) -> Result<(Emulator, compile::Programs)> {
    let may_install = !options.no_install;
    let emulator = options.emulator.settle(may_install)?;
    let build = BuildOptions {
        no_install: options.no_install,
        ..BuildOptions::default()
    };
    let programs = build::programs(&build, emulator.needs(), &folder.join("programs"))?;
    Ok((emulator, programs))
}

/// Runs the cases, some at a time.
fn run_cases(
    cases: &[Case],
    jobs: usize,
    emulator: Emulator,
    report: &Report,
    lab: impl Fn(&Case) -> Lab + Sync,
) {
    let next = AtomicUsize::new(0);
    let printing = Mutex::new(());
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, cases.len()) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    report.started(case.name);
                    let start = Instant::now();
                    let verdict = if case.bochs_only && emulator != Emulator::Bochs {
                        Verdict::Skipped("it needs Bochs".into())
                    } else {
                        Verdict::of((case.run)(&lab(case)))
                    };
                    let _one_at_a_time = printing.lock();
                    report.add(Row::new(case.name, start.elapsed(), verdict));
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

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
