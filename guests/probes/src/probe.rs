//! Choosing a probe, and what comes of it.

use pc::{handover::Boot, idt, power, println};

use crate::{
    apic, bench, console, control, cpuid, debug, endings, fpu, instructions, lengths, memory,
    modes, msrs, net, ports, spaces, storm, strings, tables, tasks, time, vectors, writes, writing,
};

/// Why a probe failed, and the number that shows it.
pub(crate) struct Failure {
    /// What is wrong.
    pub(crate) what: &'static str,
    /// The number that was found.
    pub(crate) found: u32,
}

/// What comes of a probe that survives.
pub(crate) type Verdict = Result<(), Failure>;

/// Fails with a reason unless a condition holds.
pub(crate) fn ensure(condition: bool, what: &'static str, found: u32) -> Verdict {
    if condition {
        Ok(())
    } else {
        Err(Failure { what, found })
    }
}

type Probe = fn(&Boot) -> Verdict;

const PROBES: &[(&str, Probe)] = &[
    ("triple-fault", endings::triple_fault),
    ("reset-kbd", endings::reset_by_keyboard_controller),
    ("reset-92", endings::reset_by_port_92),
    ("reset-cf9", endings::reset_by_cf9),
    ("spin", endings::spin),
    ("wild-read", memory::read),
    ("wild-write", memory::write),
    ("wild-fetch", memory::fetch),
    ("wild-stack", memory::stack),
    ("wild-string", memory::string),
    ("wild-tables", memory::tables),
    ("wild-task", memory::task),
    ("wild-idt", memory::interrupt_table),
    ("memory-map", memory::map),
    ("undefined", instructions::undefined),
    ("task-switch", tasks::switches),
    ("task-fault", tasks::faults),
    ("task-trap", tasks::trap),
    ("task-entry-fault", tasks::entry_faults),
    ("exceptions", debug::exceptions),
    ("single-step", debug::single_step),
    ("debug-registers", debug::debug_registers),
    ("debug-reserved", debug::reserved_bits),
    ("segment-limit", debug::segment_limit),
    ("prefixes", lengths::prefixes),
    ("wrap", lengths::wrap),
    ("msrs", msrs::all),
    ("memory-types", msrs::memory_types),
    ("canonical", msrs::canonical),
    ("string-pages", strings::pages),
    ("string-segments", strings::segments),
    ("page-tables", spaces::odd),
    ("page-reserved", spaces::reserved),
    ("page-pointers", spaces::pointers),
    ("real-mode", modes::real),
    ("16-bit", modes::protected_16),
    ("self-modifying", writing::code_changes),
    ("mmio-forms", apic::forms),
    ("nmi", apic::nmi),
    ("storm", storm::storm),
    ("vectors", vectors::vectors),
    ("absent-msr", instructions::absent_msr),
    ("refused", instructions::refused),
    ("vmx-instructions", instructions::vmx),
    ("svm-instructions", instructions::svm),
    ("vmx-pointers", instructions::vmx_pointers),
    ("cr", control::registers),
    ("cr0-paging-alone", control::paging_alone),
    ("cr0-cache-mode", control::cache_mode),
    ("cpuid", cpuid::leaves),
    ("ports", ports::all),
    ("timer", time::timer),
    ("hlt", time::halts),
    ("hang", endings::hang),
    ("fpu", fpu::state),
    ("console", console::echo),
    ("writes", writes::writes),
    ("net-work", net::work),
    ("net-observe", net::observe),
];

/// Runs the probes that the command line names, one after the other.
pub(crate) fn main(boot: Boot) -> ! {
    idt::load();
    tables::load();
    let mut words = boot.command_line().words().peekable();
    if words.peek() == Some(&"bench-exits") {
        bench::exits(words.nth(1) == Some("trace"));
        power::off();
    }
    // A word with a value is an option of the probes.
    for name in words.filter(|word| !word.contains('=')) {
        match PROBES.iter().find(|(known, _)| *known == name) {
            None => println!("probe {name}: FAILED there is no such probe"),
            Some((_, probe)) => match probe(&boot) {
                Ok(()) => println!("probe {name}: passed"),
                Err(Failure { what, found }) => println!("probe {name}: FAILED {what}: {found:#x}"),
            },
        }
    }
    power::off()
}
