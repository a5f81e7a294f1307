//! What a board says of its part in the pair: the line that `mirror` prints in its shell.

use mirror::{Dropped, Path, Side, Term};
use std::fmt;
use std::str::FromStr;

/// How the line begins.
pub(crate) const MARK: &str = "mirror: side ";

/// What a board is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It serves nothing and has no image that it could serve from.
    Waiting,
    /// It serves, and has a backup or would like one.
    Primary,
    /// It keeps an understudy.
    Backup,
    /// It serves alone, by right.
    Solo,
    /// Its image is not the newest.
    Outdated,
    /// It served, and its lease is over.
    Held,
    /// It hands over to its peer.
    HandingOver,
}

impl Role {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Waiting, "waiting"),
        (Self::Primary, "primary"),
        (Self::Backup, "backup"),
        (Self::Solo, "solo"),
        (Self::Outdated, "outdated"),
        (Self::Held, "held"),
        (Self::HandingOver, "handing over"),
    ];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = Self::ALL.iter();
        let name = all.find(|(role, _)| role == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::ALL.iter();
        let found = all.find(|(_, name)| *name == text);
        found.map(|(role, _)| *role).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(_, name)| *name).collect();
            format!("\"{text}\" is no role; known are {}", names.join(", "))
        })
    }
}

/// Why a board drops frames of the mirror's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason(usize);

impl FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Dropped::NAMES.iter().position(|name| *name == text);
        let wrong = || {
            let names = Dropped::NAMES.join(", ");
            format!("\"{text}\" is no reason; known are {names}")
        };
        found.map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Dropped::NAMES.get(self.0).unwrap_or(&""))
    }
}

/// How many frames were dropped for a reason, where `causes` is what stands behind [`drops_mark`].
///
/// # Errors
///
/// Where it tells nothing of that kind.
pub(crate) fn drops(causes: &str, reason: Reason) -> Result<u64, String> {
    let name = format!(" {reason}");
    let mut each = causes.trim_end().split(", ");
    match each.find_map(|cause| cause.strip_suffix(&name)) {
        Some(count) => count
            .parse()
            .map_err(|_| format!("\"{count}\" is no number of dropped frames")),
        None => Ok(0),
    }
}

/// How the line begins that tells what came by a path and was dropped.
pub(crate) fn drops_mark(path: Path) -> String {
    format!("  {path}: dropped: ")
}

/// A board's own words about its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// Which board says it.
    pub(crate) side: Side,
    /// What it is.
    pub(crate) role: Role,
    /// In which term.
    pub(crate) term: Term,
    /// Whether its death would cost nothing.
    pub(crate) protected: bool,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protection = if self.protected {
            "protected"
        } else {
            "unprotected"
        };
        write!(
            f,
            "board {}: {}, term {}, {protection}",
            self.side, self.role, self.term
        )
    }
}

impl FromStr for Status {
    type Err = String;

    /// Reads `mirror: side a, primary, term 3, protected, epoch 120`. What follows the protection is for people.
    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || format!("\"{line}\" is no state of a board of a pair");
        let rest = line.trim_end().strip_prefix(MARK).ok_or_else(wrong)?;
        let mut fields = rest.split(", ");
        let mut next = || fields.next().ok_or_else(wrong);
        let side = next()?.parse().map_err(|_| wrong())?;
        let role = next()?.parse()?;
        let term = next()?.strip_prefix("term ").ok_or_else(wrong)?;
        let term = Term(term.parse().map_err(|_| wrong())?);
        let protection = next()?;
        // "unprotected" may be followed by why.
        let protected = match protection.split([' ', ':']).next() {
            Some("protected") => true,
            Some("unprotected") => false,
            _ => return Err(wrong()),
        };
        Ok(Self {
            side,
            role,
            term,
            protected,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let status: Status = "mirror: side a, primary, term 3, protected, epoch 120\n"
            .parse()
            .unwrap();
        let expected = Status {
            side: Side::A,
            role: Role::Primary,
            term: Term(3),
            protected: true,
        };
        assert_eq!(status, expected);
        let status: Status = "mirror: side b, handing over, term 0, unprotected: the link is lost"
            .parse()
            .unwrap();
        assert_eq!(
            (status.side, status.role, status.protected),
            (Side::B, Role::HandingOver, false)
        );
        for (role, name) in Role::ALL {
            assert_eq!(name.parse(), Ok(role));
            assert_eq!(role.to_string(), name);
        }
    }

    #[test]
    fn dropped_frames_are_read() {
        for (causes, reason, count) in [
            ("3 tag, 20 replay\r\n", "tag", Some(3)),
            ("3 tag, 20 replay\r\n", "replay", Some(20)),
            ("3 tag, 20 replay\r\n", "own", Some(0)),
            ("none\n", "replay", Some(0)),
            ("many replay\n", "replay", None),
        ] {
            let reason: Reason = reason.parse().unwrap();
            assert_eq!(drops(causes, reason).ok(), count, "{causes}, {reason}");
        }
    }

    #[test]
    fn what_is_dropped_is_said_as_it_is_read() {
        let mut counts = mirror::Drops::default();
        let tag: Reason = "tag".parse().unwrap();
        assert_eq!(drops(&counts.to_string(), tag), Ok(0));
        counts.count(Dropped::Own);
        for _ in 0..12 {
            counts.count(Dropped::Tag);
        }
        assert_eq!(counts.to_string(), "1 own, 12 tag");
        assert_eq!(drops(&counts.to_string(), tag), Ok(12));
    }

    #[test]
    fn what_is_no_status_is_refused() {
        for line in [
            "",
            "mirror: side c, primary, term 3, protected",
            "mirror: side a, king, term 3, protected",
            "mirror: side a, primary, term x, protected",
            "mirror: side a, primary, 3, protected",
            "mirror: side a, primary, term 3",
            "mirror: side a, primary, term 3, perhaps",
            "side a, primary, term 3, protected",
        ] {
            assert!(line.parse::<Status>().is_err(), "{line}");
        }
    }
}
