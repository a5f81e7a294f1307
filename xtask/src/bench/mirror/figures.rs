//! The mirror's figures, as JSON and as tables.

use super::costs::{Answers, Costs};
use super::linux::Linux;
use super::readings::{Cost, Takeover};
use super::takeovers::Takeovers;
use super::{MISSED, Times};
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

/// What follows from epochs.
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

impl Costs {
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

    fn json(&self, times: Times) -> Value {
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
            "epoch_wanted_ms": times.epoch,
            "heartbeat_ms": times.heartbeat,
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
            "without_faults": {
                "host_seconds": self.watched.as_secs_f64(),
                "held": self.held,
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
            "without faults",
            format!(
                "guests held {} times in {:.0} s of the host; an understudy was sent in {:.0} ms of the board",
                self.held,
                self.watched.as_secs_f64(),
                ms(self.resync)
            ),
        );
        text
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Takeovers {
    /// Least, mean and most, in milliseconds.
    fn spread(&self, of: fn(&Takeover) -> Duration) -> [f64; 3] {
        let times = self.all.iter().map(|takeover| ms(of(takeover)));
        let least = times.clone().fold(f64::INFINITY, f64::min);
        let most = times.clone().fold(0.0, f64::max);
        [least, times.sum::<f64>() / self.all.len() as f64, most]
    }

    fn json(&self, times: Times) -> Value {
        json!({
            "epoch_wanted_ms": times.epoch,
            "heartbeat_ms": times.heartbeat,
            "dead_after_ms": times.heartbeat * MISSED,
            "count": self.all.len(),
            "detected_ms": self.spread(|it| it.detected),
            "served_ms": self.spread(|it| it.served),
            "resumed_ms": self.spread(|it| it.served + it.resumed),
            "callers_gap_host_ms": self.gap.map(ms),
            "without_faults_host_seconds": self.watched.as_secs_f64(),
            "false_takeovers": self.false_ones,
        })
    }

    fn table(&self, times: Times) -> String {
        let mut text = format!(
            "\n{} takeovers, a heartbeat each {} ms, dead after {} ms; ms of the survivor since its peer's last word\n",
            self.all.len(),
            times.heartbeat,
            times.heartbeat * MISSED
        );
        let resumed = self.spread(|it| it.served + it.resumed);
        for (name, [least, mean, most]) in [
            ("taken for dead", self.spread(|it| it.detected)),
            ("guests served", self.spread(|it| it.served)),
            ("guest runs", resumed),
        ] {
            let _ = writeln!(
                text,
                "  {name:<34} {least:.1} to {most:.1}, {mean:.1} on average"
            );
        }
        let gap = self.gap.map_or_else(
            || "not told: a board died without an understudy".into(),
            |gap| format!("{:.0} at most", ms(gap)),
        );
        let _ = writeln!(
            text,
            "  {:<34} {gap}\n  {:<34} {} in {:.0} s of the host",
            "without an answer, ms of the host",
            "false takeovers",
            self.false_ones,
            self.watched.as_secs_f64()
        );
        text
    }
}

impl Linux {
    /// Pages per epoch, ticks of a pause, and milliseconds of the board from end to end and until acknowledged.
    fn means(&self) -> [[f64; 4]; 2] {
        self.epochs.map(|epochs| {
            [
                epochs.pages / epochs.count,
                epochs.pause / epochs.count * self.hertz,
                epochs.length / epochs.lengths * 1e3,
                epochs.delay / epochs.delays * 1e3,
            ]
        })
    }

    fn json(&self) -> Value {
        let [idle, busy] = self.means().map(|[pages, pause, length, delay]| {
            json!({
                "pages": pages,
                "pause_ticks": pause,
                "epoch_ms": length,
                "acknowledged_after_ms": delay,
            })
        });
        json!({
            "idle": idle,
            "busy": busy,
            "pause_most_ticks": self.cost.pause[1],
            "without_a_page": self.cost.line.map(|line| line[0]),
            "each_page": self.cost.line.map(|line| line[1]),
        })
    }

    fn table(&self) -> String {
        let Cost {
            pages, pause, line, ..
        } = &self.cost;
        let line = line.map_or("no line".into(), |[fixed, each]| {
            format!("{fixed} and {each} for each page")
        });
        let mut text = format!(
            "\nLinux\n  pause, ticks: {line}; {} to {} with {} to {} pages\n",
            pause[0], pause[1], pages[0], pages[1]
        );
        for (name, means) in ["idle", "busy"].into_iter().zip(self.means()) {
            let [pages, pause, length, delay] = means;
            let _ = writeln!(
                text,
                "  {name}: {pages:.1} pages, pause {pause:.0} ticks, epoch {length:.2} ms, acknowledged {delay:.2} ms later"
            );
        }
        text
    }
}

/// What was measured, each with the times in the boards' file.
#[derive(Debug)]
pub(super) struct Figures {
    emulator: Emulator,
    pub(super) costs: Vec<(Times, Costs)>,
    pub(super) takeovers: Option<(Times, Takeovers)>,
    pub(super) linux: Option<Linux>,
}

impl Figures {
    pub(super) const fn new(emulator: Emulator) -> Self {
        Self {
            emulator,
            costs: Vec::new(),
            takeovers: None,
            linux: None,
        }
    }

    pub(super) fn json(&self) -> Value {
        let costs: Vec<_> = self
            .costs
            .iter()
            .map(|(times, costs)| costs.json(*times))
            .collect();
        json!({
            "emulator": self.emulator.to_string(),
            "costs": costs,
            "takeovers": self.takeovers.as_ref().map(|(times, takeovers)| takeovers.json(*times)),
            "linux": self.linux.as_ref().map(Linux::json),
        })
    }

    pub(super) fn table(&self) -> String {
        let mut text = format!("in {}\n", self.emulator);
        for (times, costs) in &self.costs {
            let Times { epoch, heartbeat } = times;
            let table = costs.table();
            let _ = write!(
                text,
                "\nepochs of {epoch} ms, a heartbeat each {heartbeat} ms\n{table}"
            );
        }
        if let Some((times, takeovers)) = &self.takeovers {
            text += &takeovers.table(*times);
        }
        if let Some(linux) = &self.linux {
            text += &linux.table();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::rt::Latency;
    use super::super::readings::Epochs;
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
            received: 0,
            sent: 0,
        }
    }

    fn costs() -> Costs {
        let answers = |median| Answers {
            count: 100,
            median: Duration::from_millis(median),
            p99: Duration::from_millis(2 * median),
            ..Answers::default()
        };
        Costs {
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
            held: 0,
        }
    }

    fn takeovers() -> Takeovers {
        let takeover = |detected| Takeover {
            detected: Duration::from_millis(detected),
            served: Duration::from_millis(detected + 2),
            resumed: Duration::from_millis(1),
        };
        Takeovers {
            all: vec![takeover(100), takeover(104)],
            watched: Duration::from_secs(20),
            false_ones: 3,
            gap: Some(Duration::from_millis(250)),
        }
    }

    #[test]
    fn means_follow_from_sums() {
        let costs = costs();
        let means = costs.means();
        let pages = (means.pages, means.page_bytes, means.ratio);
        assert_eq!(pages, (8.0, 256.0, 16.0));
        assert_eq!((means.length, means.delay, means.slowness), (5.0, 2.0, 2.0));
        assert_eq!(costs.ticks(means.delay), 100_000.0);
        assert_eq!(costs.added(), [20.0, 40.0]);
        let detected = takeovers().spread(|it| it.detected);
        assert_eq!(detected, [100.0, 102.0, 104.0]);
    }

    #[test]
    fn tables_and_json_hold_the_figures() {
        let times = |heartbeat| Times {
            epoch: 5,
            heartbeat,
        };
        let figures = Figures {
            emulator: Emulator::Bochs,
            costs: vec![(times(100), costs())],
            takeovers: Some((times(10), takeovers())),
            linux: Some(Linux {
                hertz: 5e7,
                epochs: [costs().epochs; 2],
                cost: costs().cost,
            }),
        };
        let table = figures.table();
        for text in [
            "dead after 100 ms",
            "7000 and 650 for each page (goal 15000 and 700)",
            "256 bytes a page (16.0 to 1)",
            "p50 20.0 (2.0 epochs), p99 40.0 (4.0 epochs)",
            "103.0 to 107.0, 105.0 on average",
            "3 in 20 s",
            "8.0 pages, pause 20000 ticks",
        ] {
            assert!(table.contains(text), "{text} is not in\n{table}");
        }
        let json = figures.json();
        let costs = &json["costs"][0];
        assert_eq!(costs["epochs"]["acknowledged_after_mean_ticks"], 100_000.0);
        assert_eq!(costs["releases_ticks"][2]["mean"], 1700);
        assert_eq!(json["takeovers"]["served_ms"][1], 104.0);
    }
}
