//! The figures of a measurement: read from consoles, kept as JSON, shown as a table.

use super::trace::Section;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// One kind of exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    /// Its name, as the guest gives it.
    pub name: String,
    /// Ticks of a round trip, seen from inside the guest.
    pub ticks: u64,
    /// What the hypervisor did for one, where that was traced.
    pub work: Option<Section>,
    /// Ticks of the same round trip in KVM, where that was measured.
    pub kvm: Option<u64>,
}

/// All figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// The exits in the guest's order.
    pub exits: Vec<Exit>,
    /// Names and ticks of what only KVM was asked.
    pub(crate) kvm_only: Vec<(String, u64)>,
    /// Bytes of the image on the CD.
    pub image_file: u64,
    /// Bytes of the image in memory.
    pub image_memory: u64,
    /// Memory of the hypervisor with its structures, in KiB.
    pub hypervisor_kib: u64,
    /// Ticks from entry to the first guest instruction.
    pub boot_ticks: u64,
}

/// Reads `bench NAME ticks=N` lines in order.
pub(super) fn bench_lines(console: &str) -> Vec<(String, u64)> {
    console.lines().filter_map(bench_line).collect()
}

fn bench_line(line: &str) -> Option<(String, u64)> {
    let rest = line.trim().strip_prefix("bench ")?;
    let (name, rest) = rest.split_once(" ticks=")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((name.trim().to_owned(), digits.parse().ok()?))
}

/// The number between two texts on one line of a console.
///
/// # Errors
///
/// Where no line has both with a number between them.
pub(super) fn number_between(console: &str, before: &str, after: &str) -> Result<u64> {
    console
        .lines()
        .filter_map(|line| line.split_once(before))
        .filter_map(|(_, rest)| rest.split_once(after))
        .find_map(|(number, _)| number.trim().parse().ok())
        .with_context(|| format!("the hypervisor did not say \"{before}N{after}\""))
}

impl Figures {
    /// As JSON.
    pub(super) fn json(&self) -> Value {
        let exits: Vec<_> = self.exits.iter().map(exit_json).collect();
        let kvm_only: Vec<_> = self
            .kvm_only
            .iter()
            .map(|(name, ticks)| json!({ "name": name, "kvm_ticks": ticks }))
            .collect();
        json!({
            "unit": "ticks of the time-stamp counter in Bochs: instructions",
            "exits": exits,
            "kvm_only": kvm_only,
            "image": { "file_bytes": self.image_file, "memory_bytes": self.image_memory },
            "hypervisor_memory_kib": self.hypervisor_kib,
            "boot_ticks": self.boot_ticks,
        })
    }

    /// As a table for people.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{:<20}{:>7}{:>7}{:>7}{:>8}{:>9}{:>7}{:>7}{:>7}{:>7}{:>8}{:>6}\n",
            "exit",
            "ticks",
            "KVM",
            "instr",
            "vmread",
            "vmwrite",
            "rdmsr",
            "wrmsr",
            "xsave",
            "inv*",
            "atomic",
            "port"
        );
        for exit in &self.exits {
            let kvm = exit.kvm.map_or("-".into(), |ticks| ticks.to_string());
            let _ = write!(text, "{:<20}{:>7}{kvm:>7}", exit.name, exit.ticks);
            let _ = match &exit.work {
                Some(work) => writeln!(
                    text,
                    "{:>7}{:>8}{:>9}{:>7}{:>7}{:>7}{:>7}{:>8}{:>6}",
                    per_exit(work, work.instructions),
                    per_exit(work, work.vmread),
                    per_exit(work, work.vmwrite),
                    per_exit(work, work.rdmsr),
                    per_exit(work, work.wrmsr),
                    per_exit(work, work.xsave),
                    per_exit(work, work.invalidate),
                    per_exit(work, work.atomic),
                    per_exit(work, work.port),
                ),
                None => writeln!(text, "  (not traced)"),
            };
        }
        for (name, ticks) in &self.kvm_only {
            let _ = writeln!(text, "{name:<20}{:>7}{ticks:>7}", "-");
        }
        let _ = write!(
            text,
            "\nimage: {} bytes on the CD, {} in memory\nhypervisor memory: {} KiB\n\
             boot: {} ticks from entry to the first guest instruction\n",
            self.image_file, self.image_memory, self.hypervisor_kib, self.boot_ticks
        );
        text
    }
}

/// A count for one exit, with one decimal where it is no whole number.
fn per_exit(work: &Section, count: u64) -> String {
    let entries = work.entries.max(1);
    if count.is_multiple_of(entries) {
        (count / entries).to_string()
    } else {
        let tenths = count * 10 / entries;
        format!("{}.{}", tenths / 10, tenths % 10)
    }
}

fn exit_json(exit: &Exit) -> Value {
    let mut value = json!({ "name": exit.name, "ticks": exit.ticks });
    if let Some(work) = &exit.work {
        value["traced_exits"] = json!(work.entries);
        value["instructions"] = json!(work.instructions);
        value["vmread"] = json!(work.vmread);
        value["vmwrite"] = json!(work.vmwrite);
        value["rdmsr"] = json!(work.rdmsr);
        value["wrmsr"] = json!(work.wrmsr);
        value["xsave"] = json!(work.xsave);
        value["invalidate"] = json!(work.invalidate);
        value["atomic"] = json!(work.atomic);
        value["port"] = json!(work.port);
    }
    if let Some(kvm) = exit.kvm {
        value["kvm_ticks"] = json!(kvm);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_are_read() {
        let console = "[  0.1] INFO  memory: hypervisor uses 1234 KiB\n\
                       bench cpuid ticks=71\nbench port out ticks=44 loops=1000\nbench x\n\
                       [  0.2] INFO  boot: 5678 ticks from entry to the first guest instruction\n";
        assert_eq!(
            bench_lines(console),
            [("cpuid".to_owned(), 71), ("port out".to_owned(), 44)]
        );
        let number = number_between(console, "hypervisor uses ", " KiB");
        assert_eq!(number.unwrap(), 1234);
        assert_eq!(
            number_between(console, "boot: ", " ticks from entry").unwrap(),
            5678
        );
        assert!(number_between(console, "nothing ", " here").is_err());
    }

    #[test]
    fn the_table_and_the_json_hold_every_exit() {
        let work = Section {
            instructions: 101,
            entries: 2,
            vmread: 6,
            ..Section::default()
        };
        let figures = Figures {
            exits: vec![
                Exit {
                    name: "cpuid".into(),
                    ticks: 71,
                    work: Some(work),
                    kvm: Some(951),
                },
                Exit {
                    name: "port".into(),
                    ticks: 44,
                    work: None,
                    kvm: None,
                },
            ],
            ..Figures::default()
        };
        let table = figures.table();
        let cpuid = table
            .lines()
            .find(|line| line.starts_with("cpuid"))
            .unwrap();
        let columns: Vec<_> = cpuid.split_whitespace().collect();
        assert_eq!(columns[..5], ["cpuid", "71", "951", "50.5", "3"]);
        assert!(table.contains("(not traced)"));
        let json = figures.json();
        assert_eq!(json["exits"][0]["kvm_ticks"], 951);
        assert_eq!(json["exits"][1]["ticks"], 44);
    }
}
