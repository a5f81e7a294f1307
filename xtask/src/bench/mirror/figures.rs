//! The mirror's figures, as JSON and as tables.

use super::super::rt::Latency;
use super::MISSED;
use super::readings::{Cost, Epochs, Takeover};
use crate::emulator::Emulator;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

/// Ticks that a pause may take without a page, and for each.
const PAUSE_GOAL: [i64; 2] = [15_000, 700];
/// Bytes of a page.
const PAGE: f64 = 4096.0;
/// What the board does while releases are measured.
const SCENES: [&str; 3] = ["alone", "mirrored", "while the understudy is sent"];

/// How callers were answered, in this host's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) count: usize,
    /// Datagrams that were sent again.
    pub(super) again: usize,
    pub(super) median: Duration,
    pub(super) p99: Duration,
    pub(super) max: Duration,
}

/// What was measured with epochs of one length.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// As the board file has it, in milliseconds.
    pub(super) epoch: u32,
    /// Of the board's time-stamp counter.
    pub(super) hertz: f64,
    /// Those while callers were watched.
    pub(super) epochs: Epochs,
    pub(super) cost: Cost,
    /// How long callers were watched, in this host's time.
    pub(super) host: Duration,
    /// With an understudy, and without.
    pub(super) answers: [Answers; 2],
    /// As [`SCENES`].
    pub(super) late: [Latency; 3],
    /// How long sending an understudy took, in the board's time.
    pub(super) resync: Duration,
    /// For so long in this host's time nothing failed ...
    pub(super) watched: Duration,
    /// ... and so often a board took its peer for dead nevertheless.
    pub(super) false_takeovers: usize,
    /// In the time of the board that survived.
    pub(super) takeover: Takeover,
    /// The longest time without an answer, in the callers'.
    pub(super) gap: Duration,
}

/// What follows from a run's epochs.
struct Means {
    /// Per epoch.
    pages: f64,
    bytes: f64,
    frames: f64,
    /// Bytes per page, and the pages' bytes by those.
    page_bytes: f64,
    ratio: f64,
    /// Milliseconds of the board's time.
    pause: f64,
    length: f64,
    delay: f64,
    /// Seconds of this host's for one of the board's.
    slowness: f64,
}

impl Run {
    fn means(&self) -> Means {
        let epochs = &self.epochs;
        let length = epochs.length / epochs.lengths;
        Means {
            pages: epochs.pages / epochs.count,
            bytes: epochs.bytes / epochs.count,
            frames: epochs.frames / epochs.count,
            page_bytes: epochs.bytes / epochs.pages,
            ratio: epochs.pages * PAGE / epochs.bytes,
            pause: epochs.pause / epochs.count * 1e3,
            length: length * 1e3,
            delay: epochs.delay / epochs.delays * 1e3,
            slowness: self.host.as_secs_f64() / epochs.length,
        }
    }

    /// Ticks of a time in milliseconds.
    fn ticks(&self, time: f64) -> f64 {
        time * self.hertz / 1e3
    }

    /// By how much later than without an understudy answers come, in milliseconds of this host's: half of them, and 99 of 100.
    fn added(&self) -> [f64; 2] {
        let [with, without] = &self.answers;
        let added = |of: fn(&Answers) -> Duration| ms(of(with)) - ms(of(without));
        [added(|it| it.median), added(|it| it.p99)]
    }

    fn json(&self) -> Value {
        let means = self.means();
        let cost = &self.cost;
        let answers = self.answers.map(|answers| {
            json!({
                "answers": answers.count,
                "sent_again": answers.again,
                "p50_ms": ms(answers.median),
                "p99_ms": ms(answers.p99),
                "max_ms": ms(answers.max),
            })
        });
        let late: Vec<_> = SCENES
            .iter()
            .zip(&self.late)
            .map(|(scene, late)| {
                json!({
                    "scene": scene,
                    "releases": late.count,
                    "mean": late.mean,
                    "p50": late.median,
                    "p99": late.p99,
                    "p99.9": late.p999,
                    "max": late.max,
                    "overruns": late.overruns,
                })
            })
            .collect();
        json!({
            "epoch_wanted_ms": self.epoch,
            "ticks_a_second": self.hertz,
            "host_seconds_per_board_second": means.slowness,
            "pause_ticks": {
                "checkpoints": cost.checkpoints,
                "least": cost.pause[0],
                "mean": cost.pause[2],
                "most": cost.pause[1],
                "without_a_page": cost.line.map(|line| line[0]),
                "each_page": cost.line.map(|line| line[1]),
                "goal": PAUSE_GOAL,
                "pages": cost.pages,
                "state_bytes": cost.state,
            },
            "epochs": {
                "count": self.epochs.count,
                "mean_ms": means.length,
                "pause_mean_ms": means.pause,
                "acknowledged_after_mean_ms": means.delay,
                "acknowledged_after_mean_ticks": self.ticks(means.delay),
                "acknowledged_after_mean_epochs": means.delay / means.length,
                "pages": means.pages,
                "frames": means.frames,
                "bytes": means.bytes,
                "bytes_each_page": means.page_bytes,
                "ratio": means.ratio,
                "frames_sent_again": self.epochs.again,
            },
            "answers_host_time": { "mirrored": answers[0], "alone": answers[1] },
            "releases_ticks": late,
            "resync_ms": ms(self.resync),
            "takeover": {
                "detected_ms": ms(self.takeover.detected),
                "served_ms": ms(self.takeover.served),
                "callers_gap_host_ms": ms(self.gap),
                "watched_host_seconds": self.watched.as_secs_f64(),
                "false": self.false_takeovers,
            },
        })
    }

    fn table(&self) -> String {
        let mut text = String::new();
        let means = self.means();
        let Cost {
            checkpoints,
            pages,
            pause,
            line,
            state,
        } = &self.cost;
        let [fixed, each] = PAUSE_GOAL;
        let line = line.map_or("no line".into(), |[fixed, each]| {
            format!("{fixed} and {each} for each page")
        });
        let mut say = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<34} {value}");
        };
        say(
            "pause, ticks",
            format!(
                "{line} (goal {fixed} and {each}); {} to {}, {} on average, of {checkpoints} with {} to {} pages, {} on average",
                pause[0], pause[1], pause[2], pages[0], pages[1], pages[2]
            ),
        );
        say(
            "on the link, per epoch",
            format!(
                "{:.1} pages in {:.0} bytes and {:.1} frames, {:.0} bytes a page ({:.1} to 1); state {state} bytes; {} frames again",
                means.pages,
                means.bytes,
                means.frames,
                means.page_bytes,
                means.ratio,
                self.epochs.again
            ),
        );
        say(
            "epoch, ms of the board",
            format!(
                "{:.2} on average of {}, acknowledged {:.2} ({:.0} ticks) later: {:.2} epochs; pause {:.3}",
                means.length,
                self.epochs.count,
                means.delay,
                self.ticks(means.delay),
                means.delay / means.length,
                means.pause
            ),
        );
        for (name, answers) in ["mirrored", "alone"].into_iter().zip(&self.answers) {
            say(
                &format!("answers {name}, ms of the host"),
                format!(
                    "p50 {:.1}, p99 {:.1}, max {:.1} of {}; {} sent again",
                    ms(answers.median),
                    ms(answers.p99),
                    ms(answers.max),
                    answers.count,
                    answers.again
                ),
            );
        }
        let epochs = |added: f64| added / means.slowness / means.length;
        let [median, p99] = self.added();
        say(
            "answers later by, ms of the host",
            format!(
                "p50 {median:.1} ({:.1} epochs), p99 {p99:.1} ({:.1} epochs); a second of the board's took {:.2}",
                epochs(median),
                epochs(p99),
                means.slowness
            ),
        );
        for (scene, late) in SCENES.into_iter().zip(&self.late) {
            say(
                &format!("release {scene}, ticks"),
                format!(
                    "mean {}, p50 {}, p99 {}, p99.9 {}, max {} of {}; {} overruns",
                    late.mean,
                    late.median,
                    late.p99,
                    late.p999,
                    late.max,
                    late.count,
                    late.overruns
                ),
            );
        }
        say(
            "takeover, ms of the survivor",
            format!(
                "peer taken for dead after {:.1}, guests served after {:.1}; an understudy was sent in {:.0}",
                ms(self.takeover.detected),
                ms(self.takeover.served),
                ms(self.resync)
            ),
        );
        say(
            "without an answer, ms of the host",
            format!(
                "{:.0}; before, {} false takeovers in {:.0} s",
                ms(self.gap),
                self.false_takeovers,
                self.watched.as_secs_f64()
            ),
        );
        text
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What was measured.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) emulator: Emulator,
    /// In milliseconds.
    pub(super) heartbeat: u32,
    pub(super) runs: Vec<Run>,
}

impl Figures {
    pub(super) fn json(&self) -> Value {
        json!({
            "emulator": self.emulator.to_string(),
            "heartbeat_ms": self.heartbeat,
            "dead_after_ms": self.heartbeat * MISSED,
            "runs": self.runs.iter().map(Run::json).collect::<Vec<_>>(),
        })
    }

    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "in {}, a heartbeat each {} ms, dead after {} ms\n",
            self.emulator,
            self.heartbeat,
            self.heartbeat * MISSED
        );
        for run in &self.runs {
            let _ = write!(text, "\nepochs of {} ms\n{}", run.epoch, run.table());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late(mean: u64) -> Latency {
        Latency {
            count: 1000,
            mean,
            median: mean,
            p99: mean,
            p999: mean,
            max: 2 * mean,
            overruns: 0,
        }
    }

    fn run() -> Run {
        let answers = |median| Answers {
            count: 100,
            median: Duration::from_millis(median),
            p99: Duration::from_millis(2 * median),
            ..Answers::default()
        };
        Run {
            epoch: 5,
            hertz: 5e7,
            epochs: Epochs {
                count: 1000.0,
                pages: 8000.0,
                pause: 0.4,
                lengths: 1000.0,
                length: 5.0,
                delays: 500.0,
                delay: 1.0,
                frames: 3000.0,
                bytes: 2_048_000.0,
                again: 7.0,
            },
            cost: Cost {
                checkpoints: 1000,
                pages: [4, 20, 8],
                pause: [9000, 20_000, 12_000],
                line: Some([7000, 650]),
                state: 800,
            },
            host: Duration::from_secs(10),
            answers: [answers(30), answers(10)],
            late: [late(1500), late(1600), late(1700)],
            resync: Duration::from_millis(900),
            watched: Duration::from_secs(60),
            false_takeovers: 0,
            takeover: Takeover {
                detected: Duration::from_millis(101),
                served: Duration::from_millis(103),
            },
            gap: Duration::from_millis(250),
        }
    }

    #[test]
    fn means_follow_from_sums() {
        let run = run();
        let means = run.means();
        assert_eq!(
            (means.pages, means.page_bytes, means.ratio),
            (8.0, 256.0, 16.0)
        );
        assert_eq!((means.length, means.delay, means.slowness), (5.0, 2.0, 2.0));
        assert_eq!(run.ticks(means.delay), 100_000.0);
        assert_eq!(run.added(), [20.0, 40.0]);
    }

    #[test]
    fn tables_and_json_hold_the_figures() {
        let figures = Figures {
            emulator: Emulator::Bochs,
            heartbeat: 10,
            runs: vec![run()],
        };
        let table = figures.table();
        for text in [
            "dead after 100 ms",
            "7000 and 650 for each page (goal 15000 and 700)",
            "256 bytes a page (16.0 to 1)",
            "p50 20.0 (2.0 epochs), p99 40.0 (4.0 epochs)",
            "dead after 101.0, guests served after 103.0",
        ] {
            assert!(table.contains(text), "{text} is not in\n{table}");
        }
        let json = figures.json();
        let run = &json["runs"][0];
        assert_eq!(run["epochs"]["acknowledged_after_mean_ticks"], 100_000.0);
        assert_eq!(run["releases_ticks"][2]["mean"], 1700);
        assert_eq!(run["takeover"]["false"], 0);
    }
}
