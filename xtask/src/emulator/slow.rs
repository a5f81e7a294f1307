//! A board that gets only a part of the time, as one does whose firmware, or a neighbour's load, takes the rest.

use super::process::Group;
use crate::wire::Share;
use anyhow::{Context, Result};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// It stands still once in so long.
const PERIOD: Duration = Duration::from_millis(100);

/// Stops a board again and again. Dropping it lets the board go on.
#[derive(Debug)]
pub(super) struct Slow {
    over: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Slow {
    /// Begins to let the processes of a group run for this share of the time.
    ///
    /// # Errors
    ///
    /// Where no thread can be started.
    pub(super) fn down(group: Group, share: Share) -> Result<Self> {
        let (over, ended) = mpsc::channel();
        let run = share.of(PERIOD);
        let work = move || {
            for (stopped, time) in [(true, PERIOD - run), (false, run)].into_iter().cycle() {
                // It has ended, or is to be left alone.
                if group.pause(stopped).is_err()
                    || ended.recv_timeout(time) != Err(RecvTimeoutError::Timeout)
                {
                    break;
                }
            }
            let _ = group.pause(false);
        };
        let thread = thread::Builder::new().name("slow".into());
        let thread = thread.spawn(work).context("cannot start a thread")?;
        Ok(Self {
            over: Some(over),
            thread: Some(thread),
        })
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.over.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::process::{Guarded, command};
    use std::time::Instant;

    /// Clock ticks that a process has run in user mode, and whether it is stopped: fields 14 and 3 (proc_pid_stat(5)).
    fn ran(child: &Guarded) -> (u64, bool) {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", child.group().leader()));
        let text = text.unwrap();
        let (_, rest) = text.rsplit_once(") ").unwrap();
        let fields: Vec<_> = rest.split(' ').collect();
        (fields[11].parse().unwrap(), fields[0] == "T")
    }

    #[test]
    fn a_slow_child_runs_a_part_of_the_time_and_goes_on_behind_it() {
        const LENGTH: Duration = Duration::from_secs(2);
        let mut busy = command("sh");
        busy.args(["-c", "while :; do :; done"]);
        let child = Guarded::spawn(busy).unwrap();
        let slow = Slow::down(child.group(), Share::percent(20)).unwrap();
        let (before, _) = ran(&child);
        thread::sleep(LENGTH);
        let (after, _) = ran(&child);
        // A hundred ticks are a second.
        let share = (after - before) as f64 / (LENGTH.as_secs_f64() * 100.0);
        assert!(share > 0.0 && share < 0.6, "{share}");
        drop(slow);
        let deadline = Instant::now() + Duration::from_secs(10);
        while ran(&child).1 {
            assert!(Instant::now() < deadline, "it stands still");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
