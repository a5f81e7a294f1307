use super::*;
use crate::memory::{GuestMemory, fake};
use proptest::prelude::*;
use vcpu::Paging;

const SIZE: usize = 0x1_0000;
const GDT: Table = Table {
    base: 0x1000,
    limit: 0xff,
};
const OLD_TSS: u32 = 0x2000;
const NEW_TSS: u32 = 0x3000;
const CODE: u16 = 0x08;
const DATA: u16 = 0x10;
const OLD: u16 = 0x18;
const NEW: u16 = 0x20;
const NARROW: u16 = 0x28;
const ABSENT: u16 = 0x30;
const USER_CODE: u16 = 0x38;
const USER_DATA: u16 = 0x40;
const LDT: u16 = 0x48;

const UNPAGED: Paging = Paging {
    cr0: 1,
    cr3: 0,
    cr4: 0,
    efer: 0,
    physical_bits: 39,
};

const fn descriptor(base: u32, limit: u32, access: u32) -> u64 {
    let (base, limit, access) = (base as u64, limit as u64, access as u64);
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | (access & 0xf0ff) << 40
        | (limit & 0xf_0000) << 32
        | (base >> 24) << 56
}

fn put(memory: &GuestMemory, at: u32, bytes: &[u8]) {
    memory.write(u64::from(at), bytes).unwrap();
}

fn describe(memory: &GuestMemory, selector: u16, raw: u64) {
    put(
        memory,
        GDT.base + u32::from(selector & !7),
        &raw.to_le_bytes(),
    );
}

fn described(memory: &GuestMemory, selector: u16) -> u64 {
    memory
        .read_u64(u64::from(GDT.base + u32::from(selector & !7)))
        .unwrap()
}

fn word(memory: &GuestMemory, at: u32) -> u32 {
    memory.read_u32(u64::from(at)).unwrap()
}

/// What the new task's TSS holds.
fn new_task() -> Registers {
    Registers {
        eip: 0x1234,
        eflags: 0x202,
        gprs: [1, 2, 3, 4, 0x8000, 6, 7, 8],
        selectors: [DATA, CODE, DATA, DATA, 0, 0],
        local_table: 0,
        cr3: Some(0),
        trap: false,
    }
}

fn old_registers() -> Registers {
    Registers {
        eip: 0x5678,
        eflags: 0x4246,
        gprs: [11, 12, 13, 14, 15, 16, 17, 18],
        selectors: [DATA, CODE, DATA, DATA, DATA, DATA],
        ..Registers::default()
    }
}

fn old_task() -> Segment {
    Segment {
        selector: OLD,
        base: u64::from(OLD_TSS),
        limit: 103,
        access: 0x8b,
    }
}

fn store(memory: &GuestMemory, registers: &Registers) {
    let mut bytes = [0; 104];
    Format::Wide.save(registers, &mut bytes[32..94]);
    bytes[96..98].copy_from_slice(&registers.local_table.to_le_bytes());
    bytes[100] = registers.trap.into();
    put(memory, NEW_TSS, &bytes);
}

fn memory() -> GuestMemory {
    let memory = fake::memory(SIZE);
    memory.scrub(0..SIZE as u64);
    for (selector, raw) in [
        (CODE, descriptor(0, 0xf_ffff, 0xc09a)),
        (DATA, descriptor(0, 0xf_ffff, 0xc092)),
        (OLD, descriptor(OLD_TSS, 103, 0x8b)),
        (NEW, descriptor(NEW_TSS, 103, 0x89)),
        (NARROW, descriptor(NEW_TSS, 43, 0x81)),
        (ABSENT, descriptor(NEW_TSS, 103, 0x09)),
        (USER_CODE, descriptor(0, 0xf_ffff, 0xc0fb)),
        (USER_DATA, descriptor(0, 0xf_ffff, 0xc0f3)),
        (LDT, descriptor(0x4000, 0xf, 0x82)),
    ] {
        describe(&memory, selector, raw);
    }
    store(&memory, &new_task());
    memory
}

const fn switch(selector: u16, source: SwitchSource) -> Switch {
    Switch {
        selector,
        source,
        external: false,
    }
}

fn leaving(memory: &GuestMemory, switch: &Switch) -> Result<Incoming, Stop> {
    let view = View {
        paging: UNPAGED,
        memory,
    };
    leave(&view, GDT, &old_registers(), &old_task(), switch)
}

fn entering(memory: &GuestMemory, registers: Registers) -> (Segments, Result<(), Stop>) {
    let view = View {
        paging: UNPAGED,
        memory,
    };
    let incoming = Incoming {
        registers,
        task: old_task(),
        wide: true,
    };
    enter(&view, GDT, &incoming, &switch(NEW, SwitchSource::Call))
}

fn fault(vector: u8, code: u16) -> Stop {
    Stop::Fault(Fault::new(vector, u32::from(code)))
}

#[test]
fn a_call_saves_links_and_nests() {
    let memory = memory();
    let incoming = leaving(&memory, &switch(NEW, SwitchSource::Call)).unwrap();
    let nested = Registers {
        eflags: 0x202 | flag::NESTED,
        ..new_task()
    };
    assert_eq!(incoming.registers, nested);
    assert_eq!(incoming.task.access, 0x8b);
    assert_eq!((incoming.task.selector, incoming.task.limit), (NEW, 103));
    // EIP, EFLAGS with NT as it was, EAX, ESP, ES, GS; CR3 and LDTR are not saved.
    let saved = [
        (32, 0x5678),
        (36, 0x4246),
        (40, 11),
        (56, 15),
        (72, 0x10),
        (92, 0x10),
    ];
    for (at, value) in saved {
        assert_eq!(word(&memory, OLD_TSS + at), value, "{at}");
    }
    assert_eq!(word(&memory, OLD_TSS + 28), 0);
    assert_eq!(word(&memory, NEW_TSS) as u16, OLD);
    assert_eq!(described(&memory, OLD) >> 40 & 0xff, 0x8b);
    assert_eq!(described(&memory, NEW) >> 40 & 0xff, 0x8b);
}

#[test]
fn a_jump_frees_the_old_task() {
    let memory = memory();
    let incoming = leaving(&memory, &switch(NEW, SwitchSource::Jump)).unwrap();
    assert_eq!(incoming.registers, new_task());
    assert_eq!(word(&memory, NEW_TSS), 0);
    assert_eq!(described(&memory, OLD) >> 40 & 0xff, 0x89);
    assert_eq!(described(&memory, NEW) >> 40 & 0xff, 0x8b);
}

#[test]
fn a_return_ends_the_nesting() {
    let memory = memory();
    describe(&memory, NEW, descriptor(NEW_TSS, 103, 0x8b));
    leaving(&memory, &switch(NEW, SwitchSource::Return)).unwrap();
    assert_eq!(word(&memory, OLD_TSS + 36), 0x246);
    assert_eq!(described(&memory, OLD) >> 40 & 0xff, 0x89);
    assert_eq!(described(&memory, NEW) >> 40 & 0xff, 0x8b);
}

#[test]
fn a_task_that_returns_to_itself_finds_what_was_saved() {
    let memory = memory();
    let incoming = leaving(&memory, &switch(OLD, SwitchSource::Return)).unwrap();
    assert_eq!(incoming.registers.eip, old_registers().eip);
    assert_eq!(incoming.registers.gprs, old_registers().gprs);
    assert_eq!(incoming.registers.eflags, 0x246);
}

#[test]
fn narrow_tasks_have_half_registers() {
    let memory = memory();
    put(&memory, NEW_TSS, &[0xff; 104]);
    let incoming = leaving(&memory, &switch(NARROW, SwitchSource::Jump)).unwrap();
    assert!(!incoming.wide);
    let Registers {
        eip,
        eflags,
        gprs,
        selectors,
        local_table,
        cr3,
        trap,
    } = incoming.registers;
    assert_eq!((eip, eflags, gprs), (0xffff, 0xffff, [0xffff; 8]));
    assert_eq!(selectors, [0xffff, 0xffff, 0xffff, 0xffff, 0, 0]);
    assert_eq!((local_table, cr3, trap), (0xffff, None, false));
    // And are saved so.
    let old = Segment {
        limit: 43,
        access: 0x83,
        ..old_task()
    };
    let registers = Registers {
        gprs: [0xabcd_1234; 8],
        ..old_registers()
    };
    describe(&memory, NEW, descriptor(NEW_TSS, 103, 0x89));
    let view = View {
        paging: UNPAGED,
        memory: &memory,
    };
    let to = switch(NEW, SwitchSource::Call);
    leave(&view, GDT, &registers, &old, &to).unwrap();
    assert_eq!(word(&memory, OLD_TSS + 14), 0x4246_5678);
    assert_eq!(word(&memory, OLD_TSS + 18), 0x1234_1234);
    assert_eq!(word(&memory, OLD_TSS + 40), u32::from(DATA));
}

#[test]
fn a_bad_task_leaves_the_old_one_alone() {
    use SwitchSource::{Call, Event, Jump, Return};
    let short = |memory: &GuestMemory| {
        describe(memory, NEW, descriptor(NEW_TSS, 102, 0x89));
    };
    let none = |_: &GuestMemory| {};
    type Case = (&'static str, fn(&GuestMemory), Switch, Stop);
    let cases: [Case; 8] = [
        ("local", none, switch(NEW | 4, Call), fault(13, NEW | 4)),
        ("beyond", none, switch(0x100, Jump), fault(13, 0x100)),
        ("no tss", none, switch(DATA, Call), fault(13, DATA)),
        ("busy", none, switch(OLD, Event), fault(13, OLD)),
        ("not busy", none, switch(NEW, Return), fault(10, NEW)),
        ("absent", none, switch(ABSENT, Jump), fault(11, ABSENT)),
        ("short", short, switch(NEW, Call), fault(10, NEW)),
        (
            "external",
            short,
            Switch {
                external: true,
                ..switch(NEW, Event)
            },
            fault(10, NEW | 1),
        ),
    ];
    for (name, prepare, switch, expected) in cases {
        let memory = memory();
        prepare(&memory);
        assert_eq!(leaving(&memory, &switch), Err(expected), "{name}");
        assert_eq!(word(&memory, OLD_TSS + 32), 0, "{name}");
    }
}

#[test]
fn tables_outside_of_memory_are_named() {
    let memory = memory();
    describe(&memory, NEW, descriptor(0x00ff_f000, 103, 0x89));
    let result = leaving(&memory, &switch(NEW, SwitchSource::Jump));
    assert_eq!(result, Err(Stop::Outside(0x00ff_f000)));
    assert_eq!(word(&memory, OLD_TSS + 32), 0);
}

#[test]
fn a_page_that_is_not_there_faults_before_anything_changes() {
    let memory = memory();
    // One table, at 0x5000: all but the new TSS's page.
    put(&memory, 0x6000, &0x5003_u32.to_le_bytes());
    for page in (0_u32..16).filter(|page| *page != 3) {
        let entry = page << 12 | 3;
        put(&memory, 0x5000 + 4 * page, &entry.to_le_bytes());
    }
    let view = View {
        paging: Paging {
            cr0: 1 << 31 | 1,
            cr3: 0x6000,
            cr4: 0,
            efer: 0,
            physical_bits: 39,
        },
        memory: &memory,
    };
    let to = switch(NEW, SwitchSource::Call);
    let result = leave(&view, GDT, &old_registers(), &old_task(), &to);
    let expected = Fault {
        vector: 14,
        code: 0,
        linear: Some(NEW_TSS),
    };
    assert_eq!(result, Err(Stop::Fault(expected)));
    assert_eq!(word(&memory, OLD_TSS + 32), 0);
}

#[test]
fn segments_are_loaded_and_marked() {
    let memory = memory();
    let (segments, result) = entering(&memory, new_task());
    assert_eq!(result, Ok(()));
    let flat = |selector, access| Segment {
        selector,
        base: 0,
        limit: u32::MAX,
        access,
    };
    assert_eq!(segments.data[CS], flat(CODE, 0xc09b));
    assert_eq!(segments.data[SS], flat(DATA, 0xc093));
    assert_eq!(segments.data[4], null(0, 0));
    assert_eq!(segments.local_table, null(0, 0));
    assert_eq!(described(&memory, DATA) >> 40 & 0xff, 0x93);
}

#[test]
fn local_tables_and_privilege_are_checked() {
    let with = |selectors: [u16; 6], local_table| Registers {
        selectors,
        local_table,
        ..new_task()
    };
    let user = [
        USER_DATA | 3,
        USER_CODE | 3,
        USER_DATA | 3,
        USER_DATA | 3,
        0,
        0,
    ];
    let memory = memory();
    let (segments, result) = entering(&memory, with(user, 0));
    assert_eq!(result, Ok(()));
    assert_eq!(segments.data[SS].access, 0xc0f3);
    // The second entry of the local table is data.
    put(
        &memory,
        0x4008,
        &descriptor(0x100, 0xfff, 0x4092).to_le_bytes(),
    );
    let local = [DATA, CODE, 0x0c, 0x0c, 0, 0];
    let (segments, result) = entering(&memory, with(local, LDT));
    assert_eq!(result, Ok(()));
    assert_eq!(
        (segments.data[SS].base, segments.data[SS].limit),
        (0x100, 0xfff)
    );
    describe(&memory, 0x50, descriptor(0, 0xfff, 0x4012));
    describe(&memory, 0x58, descriptor(0, 0xfff, 0x401a));
    for (name, registers, expected) in [
        ("no table", with(local, 0), fault(10, 0x0c)),
        (
            "beyond the table",
            with([0, CODE, 0x14, 0, 0, 0], LDT),
            fault(10, 0x14),
        ),
        ("table in itself", with(local, 0x0c), fault(10, 0x0c)),
        ("no local table", with(local, DATA), fault(10, DATA)),
        ("null code", with([0, 0, DATA, 0, 0, 0], 0), fault(10, 0)),
        (
            "data as code",
            with([0, DATA, DATA, 0, 0, 0], 0),
            fault(10, DATA),
        ),
        (
            "code of another level",
            with([0, CODE | 3, DATA, 0, 0, 0], 0),
            fault(10, CODE),
        ),
        (
            "absent code",
            with([0, 0x58, DATA, 0, 0, 0], 0),
            fault(11, 0x58),
        ),
        ("null stack", with([0, CODE, 0, 0, 0, 0], 0), fault(10, 0)),
        (
            "code as stack",
            with([0, CODE, CODE, 0, 0, 0], 0),
            fault(10, CODE),
        ),
        (
            "stack of another level",
            with([0, CODE, USER_DATA | 3, 0, 0, 0], 0),
            fault(10, USER_DATA),
        ),
        (
            "absent stack",
            with([0, CODE, 0x50, 0, 0, 0], 0),
            fault(12, 0x50),
        ),
        (
            "absent data",
            with([0x50, CODE, DATA, 0, 0, 0], 0),
            fault(11, 0x50),
        ),
        (
            "tss as data",
            with([0, CODE, DATA, 0, 0, NEW], 0),
            fault(10, NEW),
        ),
        (
            "too much asked for",
            with([DATA | 3, CODE, DATA, 0, 0, 0], 0),
            fault(10, DATA),
        ),
    ] {
        let (segments, result) = entering(&memory, registers);
        assert_eq!(result, Err(expected), "{name}");
        // What entry demands of CS and SS holds all the same.
        assert_eq!(segments.data[CS].access & 0x98, 0x98, "{name}");
        let level = u32::from(registers.privilege_level());
        assert_eq!(segments.data[SS].access >> 5 & 3, level, "{name}");
    }
}

#[test]
fn virtual_8086_tasks_have_real_mode_segments() {
    let registers = Registers {
        eflags: 0x202 | flag::VIRTUAL_8086,
        selectors: [0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0xffff],
        ..new_task()
    };
    let (segments, result) = entering(&memory(), registers);
    assert_eq!(result, Ok(()));
    assert_eq!(segments.data[5].base, 0xf_fff0);
    assert!(segments.data.iter().all(|segment| segment.access == 0xf3));
}

#[test]
fn error_codes_are_pushed_within_the_stack() {
    let memory = memory();
    let stack = Segment {
        selector: DATA,
        base: 0x100,
        limit: 0x7fff,
        access: 0xc093,
    };
    let pushed = |stack: &Segment, esp, wide| {
        let view = View {
            paging: UNPAGED,
            memory: &memory,
        };
        let mut registers = new_task();
        registers.gprs[4] = esp;
        let incoming = Incoming {
            registers,
            task: old_task(),
            wide,
        };
        let how = switch(NEW, SwitchSource::Event);
        push(&view, &incoming, stack, 0x1234_5678, &how)
    };
    assert_eq!(pushed(&stack, 0x8000, true), Ok(0x7ffc));
    assert_eq!(pushed(&stack, 0x7ff0, false), Ok(0x7fee));
    assert_eq!(pushed(&stack, 0x8001, true), Err(fault(12, 0)));
    assert_eq!(pushed(&stack, 0, true), Err(fault(12, 0)));
    let small = Segment {
        limit: 0xffff,
        access: 0x93,
        base: 0,
        ..stack
    };
    assert_eq!(pushed(&small, 0x5555_0000, true), Ok(0x5555_fffc));
    let down = Segment {
        limit: 0xff,
        access: 0x97,
        ..small
    };
    assert_eq!(pushed(&down, 0x104, true), Ok(0x100));
    assert_eq!(pushed(&down, 0x102, true), Err(fault(12, 0)));
    assert_eq!(word(&memory, 0x80fc), 0x1234_5678);
    assert_eq!(word(&memory, 0x80ee) as u16, 0x5678);
}

#[test]
fn faults_add_up() {
    let page = Fault::new(14, 2);
    let protection = Fault::new(13, 8);
    let double = Some(Fault::new(8, 0));
    for (first, fault, expected) in [
        (None, protection, Some(protection)),
        (Some(6), protection, Some(protection)),
        (Some(13), page, Some(page)),
        (Some(13), protection, double),
        (Some(0), protection, double),
        (Some(14), protection, double),
        (Some(14), page, double),
        (Some(8), page, None),
        (Some(8), protection, None),
    ] {
        assert_eq!(fault.during(first), expected, "{first:?} {fault:?}");
    }
}

proptest! {
    /// Whatever a guest puts into its tables, a switch ends, and a fault of the first half changes nothing.
    #[test]
    fn any_tables_are_survived(
        table: [u64; 8],
        kinds: [u8; 8],
        tss: [[u8; 32]; 4],
        selector in 0_u16..0x48,
        kind in 0..4,
        external: bool,
        base in 0_u32..0x1_4000,
    ) {
        let memory = fake::memory(SIZE);
        for (index, (raw, kind)) in table.into_iter().zip(kinds).enumerate() {
            // Near enough to memory to be found there at times.
            let raw = raw & !(0xfffe << 24 | 0xff << 56 | 0xff << 40) | u64::from(kind) << 40;
            describe(&memory, 8 * index as u16, raw);
        }
        put(&memory, NEW_TSS, tss.as_flattened());
        describe(&memory, NEW, descriptor(base, 103, u32::from(kinds[0]) & 2 | 0x89));
        let source = match kind {
            0 => SwitchSource::Call,
            1 => SwitchSource::Return,
            2 => SwitchSource::Jump,
            _ => SwitchSource::Event,
        };
        let how = Switch { selector, source, external };
        let mut before = vec![0; SIZE];
        memory.read(0, &mut before).unwrap();
        let left = leaving(&memory, &how);
        let mut after = vec![0; SIZE];
        memory.read(0, &mut after).unwrap();
        match left {
            Err(_) => prop_assert_eq!(before, after),
            Ok(incoming) => {
                let view = View { paging: UNPAGED, memory: &memory };
                let (segments, result) = enter(&view, GDT, &incoming, &how);
                let level = u32::from(incoming.registers.privilege_level());
                prop_assert_eq!(segments.data[SS].access >> 5 & 3, level);
                prop_assert_eq!(segments.data[CS].access & 0x90, 0x90);
                if result.is_ok() {
                    let _ = push(&view, &incoming, &segments.data[SS], 0, &how);
                }
            }
        }
    }
}
