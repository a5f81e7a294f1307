//! What boards of a pair say of the mirror: on their metrics' page, in their shell, and in their log.

use crate::suite::management::Metrics;
use anyhow::{Context, Result};
use std::fmt;
use std::time::Duration;

/// The guest that is watched.
pub(super) const GUEST: &str = "rtos";

/// A guest's epochs within a stretch of time. Times are the board's, in seconds, and sums.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Epochs {
    /// How many ended.
    pub(super) count: f64,
    pub(super) pages: f64,
    pub(super) pause: f64,
    /// Those that followed on another, and how long they took.
    pub(super) lengths: f64,
    pub(super) length: f64,
    /// Those that were acknowledged, and from the end until then.
    pub(super) delays: f64,
    pub(super) delay: f64,
    /// On the link.
    pub(super) frames: f64,
    pub(super) bytes: f64,
    pub(super) again: f64,
}

impl Epochs {
    /// Those since the board's start.
    pub(super) fn read(page: &Metrics, guest: &str) -> Result<Self> {
        let guest = |name: &str| page.of(&format!("understudy_mirror_{name}{{guest=\"{guest}\"}}"));
        let link = |name: &str| page.of(&format!("understudy_mirror_{name}_total"));
        Ok(Self {
            count: guest("pause_seconds_count")?,
            pages: guest("pages_total")?,
            pause: guest("pause_seconds_sum")?,
            lengths: guest("epoch_seconds_count")?,
            length: guest("epoch_seconds_sum")?,
            delays: guest("delay_seconds_count")?,
            delay: guest("delay_seconds_sum")?,
            frames: link("sent_frames")?,
            bytes: link("sent_bytes")?,
            again: link("retransmitted_frames")?,
        })
    }

    /// Those since an earlier reading.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            count: self.count - before.count,
            pages: self.pages - before.pages,
            pause: self.pause - before.pause,
            lengths: self.lengths - before.lengths,
            length: self.length - before.length,
            delays: self.delays - before.delays,
            delay: self.delay - before.delay,
            frames: self.frames - before.frames,
            bytes: self.bytes - before.bytes,
            again: self.again - before.again,
        }
    }
}

/// What the shell says of a guest's checkpoints since the board's start, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) checkpoints: u64,
    /// Least, most and mean.
    pub(super) pages: [u64; 3],
    pub(super) pause: [u64; 3],
    /// The line through the pauses: for no page, and for each. None where checkpoints are too much alike.
    pub(super) line: Option<[i64; 2]>,
    /// Bytes of the last state.
    pub(super) state: u64,
}

impl Cost {
    /// Reads `N checkpoints of N to N pages, ...`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let numbers: Vec<i64> = text
            .split(|it: char| !it.is_ascii_digit() && it != '-')
            .filter_map(|number| number.parse().ok())
            .collect();
        let count = |number: i64| u64::try_from(number).ok();
        let ([checkpoints, pages @ .., state], line) = match numbers[..] {
            [n, a, b, c, d, e, f, fixed, each, state] => {
                ([n, a, b, c, d, e, f, state], Some([fixed, each]))
            }
            [n, a, b, c, d, e, f, state] => ([n, a, b, c, d, e, f, state], None),
            _ => return None,
        };
        let [a, b, c, d, e, f] = pages;
        Some(Self {
            checkpoints: count(checkpoints)?,
            pages: [count(a)?, count(b)?, count(c)?],
            pause: [count(d)?, count(e)?, count(f)?],
            line,
            state: count(state)?,
        })
    }
}

/// A line of a board's log about the mirror, or that the guest runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// When, since the board's start.
    pub(super) at: Duration,
    pub(super) text: String,
}

/// What the log says when the guest runs on.
const RESUMED: &str = "resumed";

/// These lines in what a console has shown.
pub(super) fn log(console: &str) -> Vec<Line> {
    let line = |line: &str| {
        let (_, rest) = line.split_once('[')?;
        let (time, rest) = rest.split_once(']')?;
        let (_, text) = rest
            .split_once(" mirror: ")
            .or_else(|| rest.split_once(&format!(" {GUEST}: ")))?;
        let seconds: f64 = time.trim().parse().ok()?;
        Some(Line {
            at: Duration::try_from_secs_f64(seconds).ok()?,
            text: text.trim_end().to_owned(),
        })
    };
    console.lines().filter_map(line).collect()
}

/// How often a board took its peer for dead: asked for its term, or went on at the end of its own lease.
pub(super) fn takes(lines: &[Line]) -> usize {
    let takes = |line: &&Line| {
        line.text.starts_with(TAKES)
            && [": the peer is silent", ": the lease is over"]
                .iter()
                .any(|cause| line.text.contains(cause))
    };
    lines.iter().filter(takes).count()
}

/// How the log begins what it says when a board takes the guests.
const TAKES: &str = "the guests are this board's";

/// How a board took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Takeover {
    /// From the peer's last frame until the board took it for dead, ...
    pub(super) detected: Duration,
    /// ... and until the guests were its own.
    pub(super) served: Duration,
    /// From then until the guest ran.
    pub(super) resumed: Duration,
}

impl fmt::Display for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "detected {:.1}, served {:.1}, resumed {:.1} ms after the peer's last word",
            ms(self.detected),
            ms(self.served),
            ms(self.served + self.resumed)
        )
    }
}

impl Takeover {
    /// Reads the first one in a log.
    pub(super) fn read(lines: &[Line]) -> Result<Self> {
        let find = |start: &str| {
            let mut lines = lines.iter();
            let line = lines.find(|line| line.text.starts_with(start));
            line.with_context(|| format!("no line \"{start}\""))
        };
        let after = |line: &Line| {
            silence(&line.text).with_context(|| format!("\"{}\" tells no time", line.text))
        };
        let (asks, serves, resumed) = (find("asks the witness")?, find(TAKES)?, find(RESUMED)?);
        Ok(Self {
            detected: after(asks)?,
            served: after(serves)?,
            resumed: resumed.at.saturating_sub(serves.at),
        })
    }
}

/// The time in `...; the peer was heard 100.2ms ago`.
fn silence(text: &str) -> Option<Duration> {
    let (_, time) = text.split_once("the peer was heard ")?;
    let time = time.strip_suffix(" ago")?;
    let unit = time.trim_start_matches(|it: char| it.is_ascii_digit() || it == '.');
    let number: f64 = time.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        "s" => number,
        "ms" => number / 1e3,
        "µs" => number / 1e6,
        "ns" => number / 1e9,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shells_line_is_read() {
        let cost = Cost::read(
            "4 checkpoints of 10 to 100 pages, 42 on average, in pauses of 11000 to 65000 ticks, 30500 on average, \
             about -50 and 600 for each page; 1234 bytes of state",
        );
        let expected = Cost {
            checkpoints: 4,
            pages: [10, 100, 42],
            pause: [11_000, 65_000, 30_500],
            line: Some([-50, 600]),
            state: 1234,
        };
        assert_eq!(cost, Some(expected));
        let alike = Cost::read(
            "2 checkpoints of 7 to 7 pages, 7 on average, in pauses of 100 to 200 ticks, 150 on average; 9 bytes of state",
        );
        assert_eq!(alike.map(|cost| (cost.line, cost.state)), Some((None, 9)));
        assert_eq!(Cost::read("2 checkpoints"), None);
    }

    #[test]
    fn takeovers_are_read_from_a_log() {
        let console = "understudy> [    1.500000] INFO  mirror: waiting → backup in term 1\n\
            [    2.250000] WARN  mirror: the peer is silent on the link\n\
            [    2.350000] INFO  mirror: asks the witness for term 2: the peer is silent; the peer was heard 100.5ms ago\n\
            [    2.351000] INFO  net: nothing\n\
            [    2.360000] INFO  mirror: the guests are this board's: the peer is silent; the peer was heard 1.25s ago\n\
            [    2.360750] INFO  rtos: resumed\n";
        let lines = log(console);
        assert_eq!((lines.len(), takes(&lines)), (5, 1));
        assert_eq!(lines[1].at, Duration::from_millis(2250));
        assert_eq!(lines[1].text, "the peer is silent on the link");
        let takeover = Takeover::read(&lines).unwrap();
        assert_eq!(takeover.detected, Duration::from_micros(100_500));
        assert_eq!(takeover.served, Duration::from_millis(1250));
        assert_eq!(takeover.resumed, Duration::from_micros(750));
        Takeover::read(&lines[..3]).unwrap_err();
        assert_eq!(
            silence("the peer was heard 900µs ago"),
            Some(Duration::from_micros(900))
        );
        assert_eq!(silence("the peer was heard long ago"), None);
    }
}
