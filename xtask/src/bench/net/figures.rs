//! What frames cost: read from consoles, kept as JSON, shown as a table.

use super::exchange::RoundTrips;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// What frames of one length cost that go one way, in total.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frames {
    /// The way.
    pub way: String,
    /// Bytes of a frame.
    pub length: u32,
    /// How many went.
    pub count: u32,
    /// Ticks that the machine was busy with them.
    pub ticks: i64,
    /// VM exits.
    pub exits: i64,
    /// Interrupts that guests were given.
    pub interrupts: i64,
    /// Interrupts of the card.
    pub card_interrupts: i64,
}

/// All figures of a measurement, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// Of our network.
    pub frames: Vec<Frames>,
    /// Ticks in a thousand that our machine is busy with nothing.
    pub quiet: f64,
    /// Of the peer's, if it was measured.
    pub peer: Option<Vec<Frames>>,
    /// Of the legacy system's exchange.
    pub exchange: Vec<RoundTrips>,
}

impl Frames {
    /// Reads a line `net WAY length=BYTES frames=N ticks=N exits=N interrupts=N card_interrupts=N`.
    pub(super) fn read(line: &str) -> Option<Self> {
        let (way, rest) = line.trim().strip_prefix("net ")?.split_once(" length=")?;
        let mut words = rest.split(' ');
        let length = words.next()?.parse().ok()?;
        let count = words.next()?.strip_prefix("frames=")?.parse().ok()?;
        let mut total = |name: &str| words.next()?.strip_prefix(name)?.parse().ok();
        Some(Self {
            way: way.to_owned(),
            length,
            count,
            ticks: total("ticks=")?,
            exits: total("exits=")?,
            interrupts: total("interrupts=")?,
            card_interrupts: total("card_interrupts=")?,
        })
    }

    /// Per frame, to two decimals.
    fn per_frame(&self, total: i64) -> f64 {
        let hundredths = total as f64 * 100.0 / f64::from(self.count.max(1));
        hundredths.round() / 100.0
    }

    fn json(&self) -> Value {
        json!({
            "way": self.way,
            "length": self.length,
            "frames": self.count,
            "ticks_per_frame": self.per_frame(self.ticks),
            "exits_per_frame": self.per_frame(self.exits),
            "interrupts_per_frame": self.per_frame(self.interrupts),
            "card_interrupts_per_frame": self.per_frame(self.card_interrupts),
        })
    }
}

impl Figures {
    /// As JSON.
    pub(super) fn json(&self) -> Value {
        let rows = |frames: &[Frames]| frames.iter().map(Frames::json).collect::<Vec<_>>();
        json!({
            "unit": "ticks of the time-stamp counter in Bochs that are not idle: instructions of the one processor",
            "frames": rows(&self.frames),
            "quiet_ticks_in_1000": self.quiet,
            "kvm": self.peer.as_deref().map(rows),
            "exchange": self.exchange.iter().map(RoundTrips::json).collect::<Vec<_>>(),
        })
    }

    /// As a table for people.
    pub(super) fn table(&self) -> String {
        let mut parts = Vec::new();
        if !self.frames.is_empty() {
            parts.push(self.frames_table());
        }
        if !self.exchange.is_empty() {
            parts.push(RoundTrips::table(&self.exchange));
        }
        parts.join("\n")
    }

    fn frames_table(&self) -> String {
        let mut text = format!(
            "{:<18}{:>6}{:>9}{:>8}{:>12}{:>13}{:>9}{:>7}\n",
            "per frame", "bytes", "ticks", "exits", "interrupts", "of the card", "KVM", "ratio"
        );
        for frames in &self.frames {
            let ticks = frames.per_frame(frames.ticks);
            let peer = self.peer.iter().flatten();
            let peer = peer
                .filter(|peer| (&peer.way, peer.length) == (&frames.way, frames.length))
                .map(|peer| peer.per_frame(peer.ticks))
                .next();
            let (kvm, ratio) = match peer {
                Some(peer) => (format!("{peer:.0}"), format!("{:.2}", ticks / peer)),
                None => ("-".to_owned(), "-".to_owned()),
            };
            let _ = writeln!(
                text,
                "{:<18}{:>6}{ticks:>9.0}{:>8.2}{:>12.2}{:>13.2}{kvm:>9}{ratio:>7}",
                frames.way,
                frames.length,
                frames.per_frame(frames.exits),
                frames.per_frame(frames.interrupts),
                frames.per_frame(frames.card_interrupts),
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "net to-wire each length=64 frames=512 ticks=1024000 exits=513 interrupts=8 card_interrupts=-3";

    #[test]
    fn lines_are_read() {
        let frames = Frames::read(LINE).unwrap();
        assert_eq!((frames.way.as_str(), frames.length), ("to-wire each", 64));
        assert_eq!((frames.count, frames.ticks), (512, 1_024_000));
        assert_eq!(
            (frames.exits, frames.interrupts, frames.card_interrupts),
            (513, 8, -3)
        );
        for (part, other) in [("net ", ""), (" exits=513", ""), ("=64", "=x")] {
            assert_eq!(Frames::read(&LINE.replacen(part, other, 1)), None, "{part}");
        }
    }

    #[test]
    fn the_table_and_the_json_tell_what_one_frame_costs() {
        let peer = LINE.replace("1024000", "4096000");
        let figures = Figures {
            frames: vec![Frames::read(LINE).unwrap()],
            quiet: 1.5,
            peer: Some(vec![Frames::read(&peer).unwrap()]),
            exchange: Vec::new(),
        };
        let row = |figures: &Figures| {
            let table = figures.table();
            let row = table.lines().last().unwrap().split_whitespace();
            row.map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        let own = "to-wire each 64 2000 1.00 0.02 -0.01";
        assert_eq!(row(&figures), format!("{own} 8000 0.25"));
        let json = figures.json();
        assert_eq!(json["frames"][0]["ticks_per_frame"], 2000.0);
        assert_eq!(json["frames"][0]["interrupts_per_frame"], 0.02);
        assert_eq!(json["kvm"][0]["ticks_per_frame"], 8000.0);
        let alone = Figures {
            peer: None,
            ..figures
        };
        assert_eq!(row(&alone), format!("{own} - -"));
    }
}
