//! Hardware task switches: by CALL, JMP, INT, exceptions and interrupts, and the faults on the way.

use core::{
    arch::{asm, global_asm},
    cell::UnsafeCell,
    sync::atomic::{AtomicU32, Ordering},
};

use pc::{
    cpu,
    handover::Boot,
    idt::{self, TrapFrame},
    println,
};

use crate::{
    code::{self, Fault, Registers, expect, survives},
    paging,
    probe::{Verdict, ensure},
    tables::{self, CODE, DATA, FREE, descriptor},
    time,
};

/// The program's own task.
const MAIN: u16 = FREE;
/// A task that writes down what it sees, and returns.
const WORKER: u16 = FREE + 0x08;
/// A task that takes an error code off its stack, mends a task-state segment, and returns.
const MENDER: u16 = FREE + 0x10;
/// A worker of the 80286's kind.
const NARROW: u16 = FREE + 0x18;
/// Code for that one: it starts at the worker.
const NARROW_CODE: u16 = FREE + 0x20;
/// What a test describes as it likes.
const BAD: u16 = FREE + 0x28;
const LDT: u16 = FREE + 0x30;
/// Beyond the table.
const BEYOND: u16 = tables::END;

const AVAILABLE: u8 = 0x89;
const BUSY: u8 = 0x8b;
const GATE: u8 = 0x81;
const TIMER: u8 = 0x20;

const NESTED: u32 = 1 << 14;
const SWITCHED: u32 = 1 << 3;

/// Places in a task-state segment, in words.
mod place {
    pub(super) const CR3: usize = 7;
    pub(super) const EIP: usize = 8;
    pub(super) const FLAGS: usize = 9;
    pub(super) const EAX: usize = 10;
    pub(super) const ESP: usize = 14;
    pub(super) const ES: usize = 18;
    pub(super) const CS: usize = 19;
    pub(super) const SS: usize = 20;
    pub(super) const DS: usize = 21;
    pub(super) const GS: usize = 23;
    pub(super) const LDT: usize = 24;
    pub(super) const TRAP: usize = 25;
}

/// Places in what a task wrote down.
mod seen {
    pub(super) const RUNS: usize = 0;
    pub(super) const EAX: usize = 1;
    pub(super) const FLAGS: usize = 2;
    pub(super) const CR0: usize = 3;
    pub(super) const TASK: usize = 4;
    pub(super) const DS: usize = 5;
    pub(super) const ESP: usize = 6;
    pub(super) const ERROR: usize = 7;
    pub(super) const BUSY: usize = 8;
    pub(super) const PATCHED: usize = 9;
    pub(super) const PATCH: usize = 10;
    pub(super) const VIEW: usize = 11;
}

#[repr(C, align(128))]
struct Tss(UnsafeCell<[u32; 26]>);

// SAFETY: there is one processor; the tasks that use them run one at a time.
unsafe impl Sync for Tss {}

impl Tss {
    const fn new() -> Self {
        Self(UnsafeCell::new([0; 26]))
    }

    fn address(&self) -> u32 {
        self.0.get() as u32
    }

    fn word(&self, place: usize) -> *mut u32 {
        // SAFETY: the places are below 26.
        unsafe { self.0.get().cast::<u32>().add(place) }
    }

    fn get(&self, place: usize) -> u32 {
        // SAFETY: its task does not run now.
        unsafe { self.word(place).read_volatile() }
    }

    fn set(&self, place: usize, value: u32) {
        // SAFETY: as in `get`.
        unsafe { self.word(place).write_volatile(value) }
    }

    /// Makes a task that begins at `entry`, with flat segments and its own stack.
    fn prepare(&self, entry: u32, stack: &Stack) {
        for place in 0..26 {
            self.set(place, 0);
        }
        self.set(place::CR3, paging::root());
        self.set(place::EIP, entry);
        self.set(place::FLAGS, 2);
        self.set(place::EAX, 0x1234_5678);
        self.set(place::ESP, stack.end());
        self.set(place::CS, CODE.into());
        for place in [place::ES, place::SS, place::DS, place::GS - 1, place::GS] {
            self.set(place, DATA.into());
        }
    }
}

#[repr(C, align(16))]
struct Stack(UnsafeCell<[u8; 4096]>);

// SAFETY: as for `Tss`.
unsafe impl Sync for Stack {}

impl Stack {
    fn end(&self) -> u32 {
        self.0.get() as u32 + 4096
    }
}

static MAIN_TSS: Tss = Tss::new();
static WORKER_TSS: Tss = Tss::new();
static MENDER_TSS: Tss = Tss::new();
static NARROW_TSS: Tss = Tss::new();
static WORKER_STACK: Stack = Stack(UnsafeCell::new([0; 4096]));
static MENDER_STACK: Stack = Stack(UnsafeCell::new([0; 4096]));
static SEEN: [AtomicU32; 12] = [const { AtomicU32::new(0) }; 12];

fn seen(place: usize) -> u32 {
    SEEN[place].load(Ordering::Relaxed)
}

fn forget() {
    for word in &SEEN {
        word.store(0, Ordering::Relaxed);
    }
}

// The tasks. Each goes on behind its IRETD at its next turn.
global_asm!(
    r#"
    .section .text.tasks, "ax"
    .globl task_worker, task_worker_after, task_mender, task_jumper, task_viewer, task_ticker
task_worker:
    mov [{seen} + 4], eax
    pushfd
    pop eax
    mov [{seen} + 8], eax
    mov eax, cr0
    mov [{seen} + 12], eax
    xor eax, eax
    str ax
    mov [{seen} + 16], eax
    mov eax, ds
    mov [{seen} + 20], eax
    mov [{seen} + 24], esp
    mov eax, [{seen} + 36]
    movzx eax, byte ptr [eax + 5]
    mov [{seen} + 32], eax
    in al, 0x21
    xor eax, eax
    xor ecx, ecx
    cpuid
    mov eax, 0xfeedface
    inc dword ptr [{seen}]
    iretd
task_worker_after:
    jmp task_worker

task_mender:
    pop dword ptr [{seen} + 28]
    mov eax, [{seen} + 36]
    mov ecx, [{seen} + 40]
    add [eax], ecx
    inc dword ptr [{seen}]
    iretd
    jmp task_mender

task_jumper:
    inc dword ptr [{seen}]
    .byte 0xea
    .long 0
    .word {main}
    jmp task_jumper

task_viewer:
    mov eax, [0x80000000]
    mov [{seen} + 44], eax
    inc dword ptr [{seen}]
    iretd
    jmp task_viewer

task_ticker:
    mov al, 0x20
    out 0x20, al
    inc dword ptr [{seen}]
    iretd
    jmp task_ticker
    "#,
    seen = sym SEEN,
    main = const MAIN,
);

unsafe extern "C" {
    static task_worker: u8;
    static task_worker_after: u8;
    static task_mender: u8;
    static task_jumper: u8;
    static task_viewer: u8;
    static task_ticker: u8;
}

/// Describes the tasks anew, and makes this program one.
fn prepare() {
    forget();
    let describe = |selector, tss: &Tss, limit, kind| {
        tables::set(selector, descriptor(tss.address(), limit, kind));
    };
    MAIN_TSS.prepare(0, &WORKER_STACK);
    WORKER_TSS.prepare(&raw const task_worker as u32, &WORKER_STACK);
    MENDER_TSS.prepare(&raw const task_mender as u32, &MENDER_STACK);
    for (selector, tss) in [
        (MAIN, &MAIN_TSS),
        (WORKER, &WORKER_TSS),
        (MENDER, &MENDER_TSS),
    ] {
        describe(selector, tss, 103, AVAILABLE.into());
    }
    SEEN[seen::PATCHED].store(tables::place(WORKER), Ordering::Relaxed);
    // SAFETY: the descriptor is a free task-state segment's, where the next switch saves this program.
    unsafe { asm!("ltr {:x}", in(reg) MAIN, options(nostack, preserves_flags)) }
}

/// What this program carries across a switch.
const REGISTERS: Registers = Registers {
    eax: 0xaaaa_0001,
    ecx: 0xcccc_0002,
    edx: 0xdddd_0003,
    ebx: 0xbbbb_0004,
    esi: 0x5151_0005,
    edi: 0xd1d1_0006,
};

fn execute(code: &[u8]) -> Result<Registers, Fault> {
    // SAFETY: the callers switch to tasks that come back, or to none.
    unsafe { code::run(code, REGISTERS) }
}

/// A far call or jump to a task.
fn far(opcode: u8, selector: u16) -> [u8; 7] {
    let [low, high] = selector.to_le_bytes();
    [opcode, 0, 0, 0, 0, low, high]
}

const CALL: u8 = 0x9a;
const JUMP: u8 = 0xea;

/// Runs a closure with a task gate as the gate of a vector.
fn with_gate<T>(vector: u8, selector: u16, body: impl FnOnce() -> T) -> T {
    const TASK_GATE_FOR_ALL: u64 = 0xe5 << 40;
    let gate = TASK_GATE_FOR_ALL | u64::from(selector) << 16;
    // SAFETY: the gate leads to a task that comes back.
    let before = unsafe { idt::replace_gate(vector, gate) };
    let result = body();
    // SAFETY: as it was.
    unsafe { idt::replace_gate(vector, before) };
    result
}

/// A task has run, and this program is as it was before.
fn came_back(result: Result<Registers, Fault>, what: &'static str) -> Verdict {
    println!("probe task: {what}");
    let found = survives(result)?;
    for (name, found, sent) in [
        ("eax came back as", found.eax, REGISTERS.eax),
        ("ecx came back as", found.ecx, REGISTERS.ecx),
        ("edx came back as", found.edx, REGISTERS.edx),
        ("ebx came back as", found.ebx, REGISTERS.ebx),
        ("esi came back as", found.esi, REGISTERS.esi),
        ("edi came back as", found.edi, REGISTERS.edi),
    ] {
        ensure(found == sent, name, found)?;
    }
    ensure(seen(seen::RUNS) == 1, "runs of the task", seen(seen::RUNS))?;
    let mut task = 0_u16;
    // SAFETY: STR writes its register only.
    unsafe { asm!("str {:x}", inout(reg) task, options(nomem, nostack, preserves_flags)) }
    ensure(task == MAIN, "the task register is", task.into())?;
    ensure(
        tables::kind(MAIN) == BUSY,
        "its descriptor is",
        tables::kind(MAIN).into(),
    )?;
    ensure(cpu::cr0() & SWITCHED != 0, "cr0 lacks TS", cpu::cr0())?;
    // SAFETY: CLTS changes CR0.TS only, and this program leaves the FPU alone.
    unsafe { asm!("clts", options(nomem, nostack, preserves_flags)) }
    Ok(())
}

/// What the worker saw as a nested task of this one.
fn worked_nested() -> Verdict {
    ensure(
        seen(seen::EAX) == 0x1234_5678,
        "the task began with eax",
        seen(seen::EAX),
    )?;
    ensure(
        seen(seen::FLAGS) == NESTED | 2,
        "its flags were",
        seen(seen::FLAGS),
    )?;
    ensure(
        seen(seen::CR0) & SWITCHED != 0,
        "its cr0 was",
        seen(seen::CR0),
    )?;
    ensure(
        seen(seen::TASK) == WORKER.into(),
        "its task register was",
        seen(seen::TASK),
    )?;
    ensure(seen(seen::DS) == DATA.into(), "its ds was", seen(seen::DS))?;
    ensure(
        seen(seen::ESP) == WORKER_STACK.end(),
        "its esp was",
        seen(seen::ESP),
    )?;
    ensure(
        seen(seen::BUSY) == BUSY.into(),
        "its descriptor was",
        seen(seen::BUSY),
    )?;
    ensure(
        WORKER_TSS.get(0) == MAIN.into(),
        "its link is",
        WORKER_TSS.get(0),
    )?;
    let after = &raw const task_worker_after as u32;
    ensure(
        WORKER_TSS.get(place::EIP) == after,
        "it stopped at",
        WORKER_TSS.get(place::EIP),
    )?;
    let flags = WORKER_TSS.get(place::FLAGS);
    ensure(flags & NESTED == 0, "its saved flags are", flags)?;
    let eax = WORKER_TSS.get(place::EAX);
    ensure(eax == 0xfeed_face, "its saved eax is", eax)?;
    let kind = tables::kind(WORKER);
    ensure(kind == AVAILABLE, "its descriptor is", kind.into())
}

/// This program's saved state: behind the instruction that began the switch.
fn saved_behind(length: u32) -> Verdict {
    let eip = MAIN_TSS.get(place::EIP);
    ensure(eip == code::place() + length, "saved eip", eip)?;
    let eax = MAIN_TSS.get(place::EAX);
    ensure(eax == REGISTERS.eax, "saved eax", eax)?;
    let cs = MAIN_TSS.get(place::CS);
    ensure(cs == CODE.into(), "saved cs", cs)?;
    let flags = MAIN_TSS.get(place::FLAGS);
    ensure(flags & NESTED == 0, "saved flags", flags)
}

/// All ways to switch.
pub(crate) fn switches(_: &Boot) -> Verdict {
    for (what, code) in [
        ("call", &far(CALL, WORKER)[..]),
        ("int through a task gate", &[0xcd, GATE]),
        ("int3 through a task gate", &[0xcc]),
    ] {
        prepare();
        let result = with_gate(GATE, WORKER, || with_gate(3, WORKER, || execute(code)));
        came_back(result, what)?;
        worked_nested()?;
        saved_behind(code.len() as u32)?;
    }
    // The task goes on where it stopped.
    forget();
    SEEN[seen::PATCHED].store(tables::place(WORKER), Ordering::Relaxed);
    came_back(execute(&far(CALL, WORKER)), "a second call")?;
    ensure(
        seen(seen::EAX) == 0xfeed_face,
        "the task went on with eax",
        seen(seen::EAX),
    )?;

    prepare();
    WORKER_TSS.set(place::EIP, &raw const task_jumper as u32);
    came_back(execute(&far(JUMP, WORKER)), "jump, and jump back")?;
    ensure(
        WORKER_TSS.get(0) == 0,
        "a jump linked back to",
        WORKER_TSS.get(0),
    )?;
    let kind = tables::kind(WORKER);
    ensure(kind == AVAILABLE, "the descriptor is", kind.into())?;
    saved_behind(7)?;

    narrow()?;
    timer()?;
    virtual_8086()?;
    spaces()
}

/// A task of the 80286's kind.
fn narrow() -> Verdict {
    prepare();
    let words: [u16; 22] = [
        0,
        0,
        0,
        0,
        0,
        0,
        0, // link, stacks
        0,
        2, // ip, flags
        0x5678,
        0,
        0,
        0,
        0x7000,
        0,
        0,
        0, // general registers
        DATA,
        NARROW_CODE,
        DATA,
        DATA,
        0,
    ];
    for (place, pair) in words.chunks(2).enumerate() {
        NARROW_TSS.set(place, u32::from(pair[0]) | u32::from(pair[1]) << 16);
    }
    tables::set(NARROW, descriptor(NARROW_TSS.address(), 43, 0x81));
    let code = descriptor(&raw const task_worker as u32, 0xf_ffff, 0xc09a);
    tables::set(NARROW_CODE, code);
    SEEN[seen::PATCHED].store(tables::place(NARROW), Ordering::Relaxed);
    came_back(execute(&far(CALL, NARROW)), "call of a 16-bit task")?;
    let eax = seen(seen::EAX);
    ensure(eax & 0xffff == 0x5678, "the task began with eax", eax)?;
    ensure(
        seen(seen::TASK) == NARROW.into(),
        "its task register was",
        seen(seen::TASK),
    )?;
    ensure(
        seen(seen::BUSY) == 0x83,
        "its descriptor was",
        seen(seen::BUSY),
    )?;
    ensure(
        seen(seen::ESP) & 0xffff == 0x7000,
        "its esp was",
        seen(seen::ESP),
    )?;
    // IP and AX.
    let (ip, ax) = (NARROW_TSS.get(3) >> 16, NARROW_TSS.get(4) >> 16);
    let length = &raw const task_worker_after as u32 - &raw const task_worker as u32;
    ensure(ip == length, "it stopped at", ip)?;
    ensure(ax == 0xface, "its saved ax is", ax)?;
    ensure(
        tables::kind(NARROW) == 0x81,
        "its descriptor is",
        tables::kind(NARROW).into(),
    )
}

/// A task that asks for a debug exception.
pub(crate) fn trap(_: &Boot) -> Verdict {
    static TRAPPED: AtomicU32 = AtomicU32::new(0);
    const DR6_TASK: u32 = 1 << 15;
    prepare();
    WORKER_TSS.set(place::TRAP, 1);
    // The handler runs in the worker.
    let trapped = |frame: &mut TrapFrame| TRAPPED.store(frame.eip, Ordering::Relaxed);
    // SAFETY: as in `execute`.
    let result = unsafe { code::run_handling(1, trapped, &far(CALL, WORKER), REGISTERS) };
    came_back(result, "call of a task that traps")?;
    let eip = TRAPPED.load(Ordering::Relaxed);
    ensure(eip == &raw const task_worker as u32, "trapped at", eip)?;
    let dr6: u32;
    // SAFETY: DR6 only reports.
    unsafe {
        asm!("mov {value}, dr6", "mov dr6, {zero}", value = out(reg) dr6, zero = in(reg) 0,
             options(nomem, nostack, preserves_flags));
    }
    ensure(dr6 & DR6_TASK != 0, "dr6", dr6)
}

/// The clock interrupt as a task.
fn timer() -> Verdict {
    prepare();
    WORKER_TSS.set(place::EIP, &raw const task_ticker as u32);
    let result = with_gate(TIMER, WORKER, || {
        time::start(11_932);
        // STI; HLT; CLI.
        let result = execute(&[0xfb, 0xf4, 0xfa]);
        time::stop();
        result
    });
    came_back(result, "an interrupt through a task gate")?;
    let eip = MAIN_TSS.get(place::EIP);
    ensure(eip == code::place() + 2, "saved eip", eip)
}

/// An interrupt that the write of a word to a device raises at once, as a task.
pub(crate) fn interrupted_by(vector: u8, device: u32, word: u32) -> Verdict {
    prepare();
    // MOV DWORD [device], word; NOP.
    let mut code = [0xc7, 0x05, 0, 0, 0, 0, 0, 0, 0, 0, 0x90];
    code[2..6].copy_from_slice(&device.to_le_bytes());
    code[6..10].copy_from_slice(&word.to_le_bytes());
    let result = with_gate(vector, WORKER, || execute(&code));
    came_back(result, "an interrupt through a task gate")?;
    worked_nested()?;
    saved_behind(10)
}

/// Virtual-8086 code, which ends by an INT through a task gate.
fn virtual_8086() -> Verdict {
    const ENTRY: u32 = 0x8000;
    const SEGMENT: u32 = 0x900;
    const VM_IOPL: u32 = 1 << 17 | 3 << 12;
    // XOR EAX, EAX; CPUID; MOV [0], EAX; PUSHFD; POP EAX; MOV [4], EAX; INT.
    const CODE: [u8; 19] = [
        0x66, 0x31, 0xc0, 0x0f, 0xa2, 0x66, 0xa3, 0, 0, 0x66, 0x9c, 0x66, 0x58, 0x66, 0xa3, 4, 0,
        0xcd, GATE,
    ];
    prepare();
    for (offset, byte) in (0..).zip(CODE) {
        // SAFETY: conventional memory that nothing uses.
        unsafe { ((ENTRY + offset) as *mut u8).write_volatile(byte) }
    }
    for place in place::ES..=place::GS {
        WORKER_TSS.set(place, SEGMENT);
    }
    WORKER_TSS.set(place::CS, ENTRY >> 4);
    WORKER_TSS.set(place::EIP, 0);
    WORKER_TSS.set(place::ESP, 0x100);
    WORKER_TSS.set(place::FLAGS, VM_IOPL | 2);
    let result = with_gate(GATE, MAIN, || execute(&far(JUMP, WORKER)));
    // This task is nested in the other now, which nobody returns to.
    // SAFETY: clears NT.
    unsafe {
        asm!("pushfd", "and dword ptr [esp], {}", "popfd", const (!NESTED).cast_signed());
    }
    SEEN[seen::RUNS].store(1, Ordering::Relaxed);
    came_back(result, "virtual-8086 code")?;
    let leaf = paging::peek(SEGMENT << 4);
    ensure(leaf == cpu::cpuid(0, 0)[0], "its cpuid said", leaf)?;
    let flags = paging::peek((SEGMENT << 4) + 4);
    ensure(flags & 0x3000 == 0x3000, "its flags were", flags)?;
    ensure(
        MAIN_TSS.get(0) == WORKER.into(),
        "linked back to",
        MAIN_TSS.get(0),
    )?;
    let (eip, cs) = (WORKER_TSS.get(place::EIP), WORKER_TSS.get(place::CS));
    ensure(eip == CODE.len() as u32, "it stopped at", eip)?;
    ensure(cs == ENTRY >> 4, "with cs", cs)?;
    let flags = WORKER_TSS.get(place::FLAGS);
    ensure(flags & VM_IOPL == VM_IOPL, "its saved flags are", flags)
}

/// Tasks in address spaces of their own, and a task-state segment that is not there.
fn spaces() -> Verdict {
    const VIEW: u32 = 0x8000_0000;
    const LARGE: u32 = 0x83;
    let (own, other, table) = (paging::page(0), paging::page(1), paging::page(2));
    for (directory, target) in [(own, 0x0080_0000), (other, 0x00c0_0000)] {
        paging::fill_directory(directory);
        paging::poke(directory + (VIEW >> 22) * 4, target | LARGE);
        paging::poke(target, target | 1);
    }
    let absent = paging::page(100);
    paging::split(own, table, absent & !0x3f_ffff);
    paging::poke(paging::entry(table, absent), 0);
    prepare();
    MAIN_TSS.set(place::CR3, own);
    WORKER_TSS.set(place::CR3, other);
    WORKER_TSS.set(place::EIP, &raw const task_viewer as u32);
    paging::on(own);
    let called = execute(&far(CALL, WORKER));
    let (root, view) = (paging::root(), paging::peek(VIEW));
    tables::set(BAD, descriptor(absent, 103, AVAILABLE.into()));
    let refused = execute(&far(CALL, BAD));
    let at = cpu::cr2();
    paging::off();
    came_back(called, "call into another address space")?;
    ensure(
        seen(seen::VIEW) == 0x00c0_0001,
        "the task saw",
        seen(seen::VIEW),
    )?;
    ensure(root == own, "cr3 came back as", root)?;
    ensure(view == 0x0080_0001, "this task sees", view)?;
    println!("probe task: call of a task-state segment that is not there");
    match refused {
        Err(Fault {
            vector: 14, at: 0, ..
        }) => {}
        other => {
            return expect(
                other,
                Fault {
                    vector: 14,
                    error: 0,
                    at: 0,
                },
            );
        }
    }
    ensure(at & !0xfff == absent, "page fault for", at)
}

/// Faults of this task on the way.
pub(crate) fn faults(_: &Boot) -> Verdict {
    let fault = |vector, selector: u16| Fault {
        vector,
        error: selector.into(),
        at: 0,
    };
    prepare();
    tables::set(BAD, descriptor(WORKER_TSS.address(), 103, 0x09));
    tables::set(LDT, descriptor(WORKER_TSS.address(), 102, AVAILABLE.into()));
    for (what, code, expected) in [
        ("call of the busy task", far(CALL, MAIN), fault(13, MAIN)),
        ("jump to the busy task", far(JUMP, MAIN), fault(13, MAIN)),
        ("call of an absent task", far(CALL, BAD), fault(11, BAD)),
        ("call of a short task", far(CALL, LDT), fault(10, LDT)),
        (
            "call beyond the table",
            far(CALL, BEYOND),
            fault(13, BEYOND),
        ),
    ] {
        println!("probe task: {what}");
        expect(execute(&code), expected)?;
        ensure(MAIN_TSS.get(place::EIP) == 0, "this task was saved", 0)?;
        ensure(cpu::cr0() & SWITCHED == 0, "cr0", cpu::cr0())?;
    }

    // Exceptions through a task gate. The handler moves this task behind the culprit.
    prepare();
    patch(&MAIN_TSS, place::EIP, 2);
    // SAFETY: loading a selector beyond the table faults.
    let load_es = || unsafe {
        code::run(
            &[0x8e, 0xc1],
            Registers {
                ecx: BEYOND.into(),
                ..REGISTERS
            },
        )
    };
    let result = with_gate(13, MENDER, load_es).map(|registers| Registers {
        ecx: REGISTERS.ecx,
        ..registers
    });
    came_back(result, "a fault with an error code through a task gate")?;
    ensure(
        seen(seen::ERROR) == BEYOND.into(),
        "error code",
        seen(seen::ERROR),
    )?;
    let esp = MENDER_TSS.get(place::ESP);
    ensure(esp == MENDER_STACK.end(), "the handler's esp", esp)
}

/// Makes the next run of the mender add to a word of a task-state segment.
fn patch(tss: &Tss, place: usize, by: u32) {
    SEEN[seen::PATCHED].store(tss.word(place) as u32, Ordering::Relaxed);
    SEEN[seen::PATCH].store(by, Ordering::Relaxed);
}

/// Faults of the task that is entered come before its first instruction, in it. Their handler mends its segments, and
/// it goes on.
pub(crate) fn entry_faults(_: &Boot) -> Verdict {
    for (what, vector, register, found, right, kind) in [
        ("a null stack", 10, place::SS, 0, DATA, 0),
        (
            "a stack that is not there",
            12,
            place::SS,
            BAD,
            DATA,
            0x4012,
        ),
        (
            "a stack that cannot be written",
            10,
            place::SS,
            BAD,
            DATA,
            0x4090,
        ),
        ("code that is not there", 11, place::CS, BAD, CODE, 0xc01a),
        ("data as code", 10, place::CS, DATA, CODE, 0),
        ("data beyond the table", 10, place::DS, BEYOND, DATA, 0),
        ("data that is not there", 11, place::ES, BAD, DATA, 0x4012),
        ("a local table that is none", 10, place::LDT, DATA, 0, 0),
        ("a local table that is not there", 10, place::LDT, LDT, 0, 0),
    ] {
        prepare();
        tables::set(BAD, descriptor(0, 0xf_ffff, kind));
        tables::set(LDT, descriptor(0, 0xff, 0x02));
        WORKER_TSS.set(register, found.into());
        patch(
            &WORKER_TSS,
            register,
            u32::from(right).wrapping_sub(found.into()),
        );
        let result = with_gate(vector, MENDER, || execute(&far(CALL, WORKER)));
        let runs = SEEN[seen::RUNS].swap(1, Ordering::Relaxed);
        came_back(result, what)?;
        ensure(runs == 2, "runs of worker and handler", runs)?;
        ensure(
            seen(seen::ERROR) == found.into(),
            "error code",
            seen(seen::ERROR),
        )?;
        ensure(
            seen(seen::EAX) == 0x1234_5678,
            "the task began with eax",
            seen(seen::EAX),
        )?;
        let linked = MENDER_TSS.get(0);
        ensure(linked == WORKER.into(), "the handler was linked to", linked)?;
    }
    Ok(())
}
