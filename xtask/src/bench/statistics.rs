//! What the hypervisor's shell tells of a guest's exits.

use serde_json::{Value, json};

/// Exits of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exits {
    /// The kind.
    pub name: String,
    /// How many came.
    pub count: u64,
    /// Ticks of the hypervisor for all of them.
    pub ticks: u64,
    /// Ticks for the longest.
    pub worst: u64,
}

/// One virtual processor since its start, in ticks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Vcpu {
    /// In the guest.
    pub guest: u64,
    /// In the hypervisor, for its exits.
    pub root: u64,
    /// From a HLT to the wake-up.
    pub halted: u64,
    /// Interrupts that it was given.
    pub interrupts: u64,
    /// Accesses to MSRs that it does not have.
    pub unknown_msrs: u64,
    /// The kinds that came.
    pub exits: Vec<Exits>,
}

impl Vcpu {
    /// The hypervisor's part of the ticks in which the processor did not idle.
    pub(super) fn root_share(&self) -> f64 {
        self.root as f64 / (self.guest + self.root).max(1) as f64
    }

    /// As JSON.
    pub(super) fn json(&self) -> Value {
        let exits: Vec<_> = self
            .exits
            .iter()
            .map(|exits| {
                json!({
                    "name": exits.name, "count": exits.count,
                    "ticks": exits.ticks, "worst": exits.worst,
                })
            })
            .collect();
        json!({
            "guest_ticks": self.guest,
            "root_ticks": self.root,
            "halted_ticks": self.halted,
            "interrupts": self.interrupts,
            "unknown_msrs": self.unknown_msrs,
            "exits": exits,
        })
    }
}

/// Reads the last answer to `stat` that a console log holds: the guest's processors in order.
pub(super) fn read(console: &str, guest: &str) -> Vec<Vcpu> {
    let mut vcpus: Vec<Vcpu> = Vec::new();
    // Whether the lines of exits that follow are of the last processor.
    let mut within = false;
    for line in console.lines() {
        if let Some((number, vcpu)) = head(line, guest) {
            vcpus.truncate(number);
            vcpus.push(vcpu);
            within = true;
        } else if within
            && let Some(exits) = exits(line)
            && let Some(vcpu) = vcpus.last_mut()
        {
            vcpu.exits.push(exits);
        } else {
            within = false;
        }
    }
    vcpus
}

/// `... NAME vcpu N: guest N ticks, root N ticks, halted N ticks, N interrupts, N unknown MSRs`.
fn head(line: &str, guest: &str) -> Option<(usize, Vcpu)> {
    let (_, rest) = line.split_once(&format!("{guest} vcpu "))?;
    let (number, rest) = rest.split_once(": ")?;
    let mut fields = rest.split(", ");
    let mut number_in = |before: &str, after: &str| {
        let field = fields.next()?.trim();
        let digits = field.strip_prefix(before)?.strip_suffix(after)?;
        digits.trim().parse::<u64>().ok()
    };
    let vcpu = Vcpu {
        guest: number_in("guest", "ticks")?,
        root: number_in("root", "ticks")?,
        halted: number_in("halted", "ticks")?,
        interrupts: number_in("", "interrupts")?,
        unknown_msrs: number_in("", "unknown MSRs")?,
        exits: Vec::new(),
    };
    Some((number.parse().ok()?, vcpu))
}

/// `  NAME N exits N ticks worst N`.
fn exits(line: &str) -> Option<Exits> {
    let words: Vec<_> = line.strip_prefix("  ")?.split_whitespace().collect();
    let [name, count, "exits", ticks, "ticks", "worst", worst] = words[..] else {
        return None;
    };
    Some(Exits {
        name: name.to_owned(),
        count: count.parse().ok()?,
        ticks: ticks.parse().ok()?,
        worst: worst.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "understudy> stat linux\n\
        [    1.0] INFO  linux vcpu 0: guest 123456789 ticks, root 1234567 ticks, halted 4567 ticks, \
        123 interrupts, 4 unknown MSRs\n  cpuid 12 exits 1776 ticks worst 148\n\
        \x20 hlt 1 exits 300 ticks worst 300\n\
        linux vcpu 1: guest 5 ticks, root 6 ticks, halted 7 ticks, 8 interrupts, 9 unknown MSRs\n\
        understudy> \n  rdmsr 1 exits 2 ticks worst 2\n";

    #[test]
    fn answers_are_read() {
        let vcpus = read(ANSWER, "linux");
        assert_eq!(vcpus.len(), 2);
        assert_eq!(vcpus[0].guest, 123_456_789);
        assert_eq!(vcpus[0].unknown_msrs, 4);
        let names: Vec<_> = vcpus[0].exits.iter().map(|exits| &exits.name).collect();
        assert_eq!(names, ["cpuid", "hlt"]);
        assert_eq!(vcpus[0].exits[0].worst, 148);
        assert_eq!((vcpus[1].halted, vcpus[1].exits.len()), (7, 0));
        assert!(read(ANSWER, "rtos").is_empty());
    }

    #[test]
    fn the_last_answer_counts() {
        let twice = format!(
            "{ANSWER}{}",
            ANSWER.replace("123 interrupts", "124 interrupts")
        );
        let vcpus = read(&twice, "linux");
        assert_eq!((vcpus.len(), vcpus[0].interrupts), (2, 124));
    }

    #[test]
    fn the_share_leaves_idle_time_out() {
        let vcpu = Vcpu {
            guest: 95,
            root: 5,
            halted: 1000,
            ..Vcpu::default()
        };
        assert!((vcpu.root_share() - 0.05).abs() < 1e-9);
    }
}
