//! The tasks' stacks, and the switch from one to another.

use core::{arch::naked_asm, cell::UnsafeCell};

use rtos::kernel::{TASKS, TaskId};

/// Bytes of a task's stack.
pub(crate) const STACK_SIZE: usize = 16 * 1024;
const WORDS: usize = STACK_SIZE / 4;
/// What an unused word of a stack holds.
const PAINT: u32 = 0xa5a5_5a5a;

#[repr(C, align(16))]
struct Stack([u32; WORDS]);

struct Stacks {
    /// A stack per task. Idle's is unused: it runs on the stack that the boot gave.
    stacks: UnsafeCell<[Stack; TASKS]>,
    /// Where the stack of a task that does not run ends.
    pointers: UnsafeCell<[u32; TASKS]>,
}

// SAFETY: there is one processor; all functions here run with interrupts off, and each touches only the stack
// of a task that does not run (`unused` reads words that nobody writes any more, or that are painted).
unsafe impl Sync for Stacks {}

static STACKS: Stacks = Stacks {
    stacks: UnsafeCell::new([const { Stack([0; WORDS]) }; TASKS]),
    pointers: UnsafeCell::new([0; TASKS]),
};

fn word(task: TaskId, index: usize) -> *mut u32 {
    let stacks = STACKS.stacks.get().cast::<u32>();
    // SAFETY: `TaskId`s are below `TASKS`; the index is reduced, so the place lies within the task's stack.
    unsafe { stacks.add(task.index() * WORDS + index % WORDS) }
}

fn pointer(task: TaskId) -> *mut u32 {
    // SAFETY: `TaskId`s are below `TASKS`.
    unsafe { STACKS.pointers.get().cast::<u32>().add(task.index()) }
}

/// Prepares the stack of a new task: the first switch to it calls `start`. With interrupts off.
pub(crate) fn prepare(task: TaskId, start: extern "C" fn() -> !) {
    // What `switch` takes off: EDI, ESI, EBX, EBP and the return address. The word above stands for the return
    // address of `start`, which never returns, and keeps the stack aligned as a call does.
    let frame = [0, 0, 0, 0, start as *const () as u32, 0];
    let base = WORDS - 8;
    for index in 0..WORDS {
        let value = index
            .checked_sub(base)
            .and_then(|at| frame.get(at))
            .copied();
        // SAFETY: the place is within the stack (see `word`), and the task does not run.
        unsafe { word(task, index).write(value.unwrap_or(PAINT)) };
    }
    // SAFETY: the place is the task's own, and interrupts are off.
    unsafe { pointer(task).write(word(task, base) as u32) };
}

/// Bytes of a task's stack that were never used. With interrupts off.
pub(crate) fn unused(task: TaskId) -> usize {
    // SAFETY: within the stack. A running task's words may change, and then this only counts one word less.
    (0..WORDS)
        .take_while(|&index| unsafe { word(task, index).read_volatile() } == PAINT)
        .count()
        * 4
}

/// Whether a task's stack has come to its end.
pub(crate) fn overflown(task: TaskId) -> bool {
    // SAFETY: within the stack, as in `unused`.
    task != TaskId::IDLE && unsafe { word(task, 0).read_volatile() } != PAINT
}

/// Leaves one task for another, and returns when the first is switched to again.
///
/// # Safety
/// Interrupts are off, `from` runs, and `to` is another task that was prepared and has not ended.
pub(crate) unsafe fn change(from: TaskId, to: TaskId) {
    // SAFETY: the caller says that `to` was left by this function, or prepared as if.
    unsafe { switch(pointer(from), pointer(to).read()) }
}

/// Saves the registers that a call keeps on this stack, and takes them from another.
// SAFETY: keeps to the C calling convention as seen by each of the two tasks. The flags are not saved: both
// sides have interrupts off, and no others outlast a call.
#[unsafe(naked)]
unsafe extern "C" fn switch(save: *mut u32, load: u32) {
    naked_asm!(
        "mov eax, [esp + 4]",
        "mov edx, [esp + 8]",
        "push ebp",
        "push ebx",
        "push esi",
        "push edi",
        "mov [eax], esp",
        "mov esp, edx",
        "pop edi",
        "pop esi",
        "pop ebx",
        "pop ebp",
        "ret",
    )
}
