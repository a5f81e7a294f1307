//! Child processes that never outlive this tool.
//!
//! Every child leads its own process group, is known to [`kill_all`], which each exit path calls,
//! and is killed by the kernel should this process die without saying goodbye.

use crate::paths;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

static RUNNING: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// A running child; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Guarded {
    child: Child,
    group: i32,
}

/// A child's processes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group(Pid);

impl Group {
    /// The number of the process that leads them.
    #[cfg(test)]
    pub(super) const fn leader(self) -> i32 {
        self.0.as_raw()
    }

    /// Stops them where they stand, and lets them go on.
    ///
    /// # Errors
    ///
    /// Where they have ended.
    pub(super) fn pause(self, stopped: bool) -> Result<()> {
        let signal = if stopped {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        };
        killpg(self.0, signal).context("the program has ended")
    }
}

impl Guarded {
    /// Starts a program that [`command`] has begun.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub(crate) fn spawn(mut command: Command) -> Result<Self> {
        command.process_group(0);
        // The lock is held across the start, so that no exit path can miss the newcomer.
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let group = i32::try_from(child.id()).context("the system gave an odd process id")?;
        running.push(group);
        drop(running);
        Ok(Self { child, group })
    }

    /// The child's standard output, where it was piped.
    pub(crate) fn take_output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// The child's exit status, if it has ended.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        if status.is_some() {
            self.forget();
        }
        status
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.status() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The child, to be stopped where it stands.
    pub(super) const fn group(&self) -> Group {
        Group(Pid::from_raw(self.group))
    }

    /// Ends the child at once. Bochs catches milder signals and hangs.
    pub(crate) fn kill(&mut self) {
        if self.status().is_none() {
            let _ = killpg(Pid::from_raw(self.group), Signal::SIGKILL);
            let _ = self.child.wait();
            self.forget();
        }
    }

    fn forget(&self) {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|group| *group != self.group);
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Kills every child that still runs.
pub(crate) fn kill_all() {
    // A panic may come while the lock is held; then the death signal does the work.
    if let Ok(mut running) = RUNNING.try_lock() {
        for group in running.drain(..) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

/// The start of a call whose child the kernel kills when the thread that starts it ends.
pub(crate) fn command(program: &str) -> Command {
    match paths::program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--", program]);
            command
        }
        None => Command::new(program),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_killed_when_it_is_dropped() {
        let mut sleeper = command("sleep");
        sleeper.arg("600");
        let child = Guarded::spawn(sleeper).unwrap();
        let group = Pid::from_raw(child.group);
        assert!(killpg(group, None).is_ok());
        drop(child);
        assert!(killpg(group, None).is_err());
    }

    #[test]
    fn a_child_stands_still_and_goes_on_and_is_killed_where_it_stands() {
        let state = |child: &Guarded| {
            let file = format!("/proc/{}/stat", child.group);
            let text = std::fs::read_to_string(file).unwrap();
            let (_, rest) = text.rsplit_once(") ").unwrap();
            rest.starts_with('T')
        };
        let is = |child: &Guarded, stopped| {
            let deadline = Instant::now() + Duration::from_secs(10);
            while state(child) != stopped {
                assert!(Instant::now() < deadline);
                thread::sleep(Duration::from_millis(1));
            }
        };
        let mut sleeper = command("sleep");
        sleeper.arg("600");
        let mut child = Guarded::spawn(sleeper).unwrap();
        for stopped in [true, false, true] {
            child.group().pause(stopped).unwrap();
            is(&child, stopped);
        }
        child.kill();
        assert!(child.group().pause(false).is_err());
    }

    #[test]
    fn the_status_of_an_ended_child_is_known() {
        let mut child = Guarded::spawn(command("false")).unwrap();
        let status = child.wait(Duration::from_secs(10)).unwrap();
        assert_eq!(status.code(), Some(1));
    }
}
