//! The tracking of what guests write: what it finds is exactly what was written.

use super::Case;
use super::boards::{self, command};
use super::lab::{Lab, Session};
use super::linux;
use super::rtos;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;

/// The first page above the probe and all that it uses by itself.
const POOL: u64 = 0x400;
/// So many pages the probe may write below: its stack, and what it prints with.
const OWN_PAGES: usize = 16;

/// The probe's page tables.
const TABLES: [u64; 2] = [0x900, 0x901];

/// So many pages Linux may write while nobody wants anything of it.
const IDLE_PAGES: usize = 200;

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "dirty-log",
            "every page that a guest, its processor or the hypervisor writes is found, and no other",
            240,
            |lab| probe(lab, &Processor::default()),
        )
        .on_both(),
        Case::new(
            "dirty-protect",
            "the same by write protection",
            240,
            |lab| probe(lab, &Processor { protect: true, ..Processor::default() }),
        )
        .on_both(),
        Case::new(
            "dirty-sandy-bridge",
            "the same on a processor that keeps no log of written pages",
            240,
            |lab| probe(lab, &SANDY_BRIDGE),
        )
        .on_bochs(),
        Case::new(
            "dirty-linux",
            "what Linux writes from two processors and from a disk is found, and an idle Linux writes little",
            900,
            |lab| linux(lab, false),
        )
        .on_both(),
        Case::new(
            "dirty-linux-protect",
            "the same by write protection, and Linux works as before",
            900,
            |lab| linux(lab, true),
        ),
    ]
}

/// What the pages are found with.
#[derive(Default)]
struct Processor {
    /// Bochs's model.
    model: Option<&'static str>,
    /// By write protection, which is asked for where the processor keeps a log.
    protect: bool,
    /// The emulator lets the processor mark entries of page tables in protected pages.
    marks_freely: bool,
}

/// Without accessed and dirty bits for EPT, Bochs writes those of the guest's own tables past EPT's permissions. A
/// processor exits there (SDM volume 3, section 29.3.3.2).
const SANDY_BRIDGE: Processor = Processor {
    model: Some(rtos::SANDY_BRIDGE),
    protect: false,
    marks_freely: true,
};

/// Page numbers that are named as numbers and ranges of such.
fn pages(text: &str) -> Result<BTreeSet<u64>> {
    let number = |word: &str| {
        let digits = word.strip_prefix("0x").context("not hexadecimal")?;
        u64::from_str_radix(digits, 16).context("not a number")
    };
    let mut pages = BTreeSet::new();
    for word in text.split_whitespace() {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let range = number(first)?..=number(last)?;
        pages.extend(range);
    }
    Ok(pages)
}

/// Asks the shell for the pages that a guest wrote since the last time.
fn written(session: &mut Session, guest: &str) -> Result<BTreeSet<u64>> {
    session.send(&format!("dirty {guest} list\r"))?;
    let count = session.expect(" pages written, by ")?;
    let list = session.expect_line(&format!("{guest}: pages"))?;
    let pages = pages(&list).with_context(|| format!("the list of pages {list:?}"))?;
    let count = count
        .rsplit(' ')
        .find(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()));
    ensure!(
        count == Some(pages.len().to_string().as_str()) || list.contains("more"),
        "{count:?} pages, but {} are listed",
        pages.len()
    );
    Ok(pages)
}

/// Begins to track a guest; returns the method.
fn begin(session: &mut Session, guest: &str, protect: bool) -> Result<String> {
    let more = if protect { " protect" } else { "" };
    session.send(&format!("dirty {guest}{more}\r"))?;
    let said = session.expect_unless(" from now on", "cannot be tracked")?;
    let (_, method) = said.rsplit_once("is tracked by ").context("no method")?;
    Ok(method.replace(" from now on", ""))
}

fn probe(lab: &Lab, processor: &Processor) -> Result<()> {
    let mut session = lab.boot_with(
        "[board]\nname = \"dirty\"\ncpus = 1\n\n\
         [[guest]]\nname = \"probe\"\nimage = \"@probes\"\nmemory = \"16M\"\ncpu = 0\n\
         command_line = \"writes\"\n",
        |setup| setup.cpu_model = processor.model.map(str::to_owned),
    )?;
    session.expect("probe writes: ready")?;
    boards::shell(&mut session)?;
    command(&mut session, "dirty probe off")?;
    session.expect("probe: is not tracked")?;
    let method = begin(&mut session, "probe", processor.protect)?;
    let expected = if processor.protect || processor.model.is_some() || lab.has_svm() {
        "write protection"
    } else {
        "the processor's log"
    };
    ensure!(method == expected, "pages are tracked by {method}");
    for way in ["stores", "tables", "input", "nothing", "stores"] {
        session.send("\x0f1x")?;
        session.expect(&format!("probe writes: {way}:"))?;
        let said = session.expect(" written\n")?;
        let mut wrote = pages(said.trim_end_matches(" written\n"))?;
        if processor.marks_freely {
            wrote.retain(|page| !TABLES.contains(page));
        }
        boards::shell(&mut session)?;
        let found = written(&mut session, "probe")?;
        let own = found.range(..POOL).count();
        let above: BTreeSet<_> = found.range(POOL..).copied().collect();
        ensure!(
            above == wrote,
            "{way}: the guest wrote {wrote:#x?}, found were {above:#x?}"
        );
        ensure!(
            own <= OWN_PAGES,
            "{way}: {own} pages beside those: {found:#x?}"
        );
    }
    session.send("dirty probe off\r")?;
    session.expect("probe: is tracked no more")?;
    session.send("\x0f1x")?;
    session.expect_unless("probe writes: passed", "FAILED")?;
    session.expect("probe: powered off")?;
    boards::shell(&mut session)?;
    session.send("poweroff\r")?;
    session.wait_power_off()
}

/// Rounds of Linux's program, each of which writes the same pages again or other ones.
const ROUNDS: u32 = 4;

fn linux(lab: &Lab, protect: bool) -> Result<()> {
    let mut session = lab.boot(&linux::board(2, "[0, 1]", 1, "run=selftest;halt"))?;
    linux::userland(&mut session)?;
    boards::shell(&mut session)?;
    begin(&mut session, "linux", protect)?;
    session.send("\x0f1writes /dev/vda\n")?;
    session.expect_unless("writes: ready, 2 processors", "FAILED")?;
    for _ in 0..ROUNDS {
        session.send("\x0f1go\n")?;
        session.expect_unless("writes: pages", "FAILED")?;
        let said = session.expect(" written\n")?;
        let wrote = pages(said.trim_end_matches(" written\n"))?;
        boards::shell(&mut session)?;
        let found = written(&mut session, "linux")?;
        let missed: BTreeSet<_> = wrote.difference(&found).collect();
        ensure!(
            missed.is_empty(),
            "Linux wrote {wrote:#x?}, missed were {missed:#x?}"
        );
    }
    // Nobody types, and nothing is to be done.
    let idle = written(&mut session, "linux")?.len();
    ensure!(idle <= IDLE_PAGES, "an idle Linux wrote {idle} pages");
    session.send("\x0f1quit\n")?;
    session.expect_unless("writes: ok", "FAILED")?;
    linux::ask(
        &mut session,
        "(tlb 4; load 4; disktest /dev/vda 1; echo all do''ne) &",
        "#",
    )?;
    boards::shell(&mut session)?;
    for _ in 0..2 * ROUNDS {
        command(&mut session, "dirty linux")?;
        session.expect(" pages written, by ")?;
    }
    command(&mut session, "dirty linux off")?;
    session.expect("linux: is tracked no more")?;
    session.send("\x0f1\n")?;
    session.expect_unless("all done", "FAILED")?;
    linux::power_off(&mut session)
}

#[cfg(test)]
mod tests {
    use super::pages;

    #[test]
    fn lists_are_read() {
        let read = pages(" 0x1 0x5-0x7\r\n").unwrap();
        assert!(read.into_iter().eq([1, 5, 6, 7]));
        assert!(pages("5").is_err() && pages("0x5-").is_err());
    }
}
