//! Kernel calls: what tasks and interrupts ask of the kernel, and the switch that may follow.

use core::sync::atomic::{AtomicBool, Ordering};

use pc::cpu;
use rtos::{
    kernel::{
        Attempt, Kernel, MailboxId, Message, MutexId, Outcome, Priority, Refusal, SemaphoreId,
        State, TASKS, Task, TaskId, TimerId, Work, timers::Action,
    },
    latency::PIT_HZ,
};

use crate::machine::{pit, shared::Shared, stacks};

static KERNEL: Shared<Kernel> = Shared::new(Kernel::new());
/// What each task runs, and its argument.
static BODIES: Shared<[Option<(fn(u32), u32)>; TASKS]> = Shared::new([None; TASKS]);
static IN_INTERRUPT: AtomicBool = AtomicBool::new(false);

/// Switches to the task that must run. With interrupts off.
fn dispatch() {
    if IN_INTERRUPT.load(Ordering::Relaxed) {
        return; // The end of the interrupt does it.
    }
    let (from, to) = KERNEL.with(|kernel| (kernel.running(), kernel.schedule()));
    if from != to {
        assert!(
            !stacks::overflown(from),
            "the stack of task {} has overflown",
            from.index()
        );
        // SAFETY: interrupts are off in all callers; `from` was running; the kernel only schedules tasks that
        // `spawn` has prepared, and the idle task, which is left before it is ever switched to.
        unsafe { stacks::change(from, to) };
    }
}

/// A call that does not wait.
fn call<T>(operation: impl FnOnce(&mut Kernel) -> T) -> T {
    cpu::without_interrupts(|| {
        let result = KERNEL.with(operation);
        dispatch();
        result
    })
}

/// A call that may wait. `None` if time was up.
fn wait<T>(
    operation: impl FnOnce(&mut Kernel) -> Attempt<T>,
    granted: impl FnOnce(Message) -> T,
) -> Option<T> {
    cpu::without_interrupts(|| match KERNEL.with(operation) {
        Attempt::Done(value) => {
            dispatch();
            Some(value)
        }
        Attempt::TimedOut => None,
        Attempt::Blocked => {
            dispatch();
            let (outcome, message) = KERNEL.with(|kernel| kernel.outcome());
            (outcome == Outcome::Granted).then(|| granted(message))
        }
    })
}

/// Runs an interrupt's handler: calls of the kernel within it do not switch.
pub(crate) fn interrupt(handler: fn()) {
    IN_INTERRUPT.store(true, Ordering::Relaxed);
    handler();
    IN_INTERRUPT.store(false, Ordering::Relaxed);
}

/// Switches if an interrupt has made a more urgent task ready. With interrupts off.
pub(crate) fn after_interrupt() {
    dispatch();
}

/// The clock interrupt.
pub(crate) fn tick() {
    call(Kernel::tick);
}

/// Makes a task. It runs at once if it is more urgent than the caller.
///
/// The executive has no way on without its tasks: with none left it stops.
pub(crate) fn spawn(
    name: &'static str,
    priority: Priority,
    body: fn(u32),
    argument: u32,
) -> TaskId {
    cpu::without_interrupts(|| {
        let task = KERNEL.with(|kernel| kernel.spawn(name, priority));
        let Some(task) = task else {
            panic!("no room for task {name}")
        };
        BODIES.with(|bodies| bodies[task.index()] = Some((body, argument)));
        stacks::prepare(task, start);
        dispatch();
        task
    })
}

/// Where every task starts.
extern "C" fn start() -> ! {
    let task = KERNEL.with(|kernel| kernel.running());
    cpu::enable_interrupts();
    if let Some((body, argument)) = BODIES.with(|bodies| bodies[task.index()]) {
        body(argument);
    }
    call(Kernel::exit);
    unreachable!("a task that has ended does not run")
}

/// What the idle task does, for ever.
pub(crate) fn idle() -> ! {
    cpu::disable_interrupts();
    dispatch();
    loop {
        cpu::wait_for_interrupt();
    }
}

/// Ticks since the start.
pub(crate) fn now() -> u64 {
    KERNEL.with(|kernel| kernel.now())
}

/// Milliseconds since the start. A tick is a little shorter than one.
pub(crate) fn milliseconds() -> u64 {
    now() * u64::from(pit::DIVISOR) * 1000 / PIT_HZ
}

/// Sleeps for some ticks; for none, gives way to the ready tasks of the same priority.
pub(crate) fn sleep(ticks: u32) {
    call(|kernel| kernel.sleep(ticks));
}

/// The running task.
pub(crate) fn running() -> TaskId {
    KERNEL.with(|kernel| kernel.running())
}

/// A task as it is now.
pub(crate) fn task(id: TaskId) -> Task {
    KERNEL.with(|kernel| *kernel.task(id))
}

/// The task in a place of the table, if there is one.
pub(crate) fn task_at(place: usize) -> Option<(TaskId, Task)> {
    let found = |kernel: &mut Kernel| {
        let mut tasks = kernel.tasks();
        tasks
            .find(|(id, _)| id.index() == place)
            .map(|(id, task)| (id, *task))
    };
    KERNEL.with(found)
}

/// Whether a task has ended.
pub(crate) fn ended(id: TaskId) -> bool {
    task(id).state() == State::Free
}

/// What was made at the start, or in a test, and finds no room, is a defect of this program.
fn made<T>(object: Option<T>) -> T {
    match object {
        Some(object) => object,
        None => panic!("no room for another kernel object"),
    }
}

/// Makes a semaphore.
pub(crate) fn semaphore(count: u32) -> SemaphoreId {
    made(KERNEL.with(|kernel| kernel.create_semaphore(count)))
}

/// Takes one from a semaphore, within so many ticks if there is a limit.
pub(crate) fn take(id: SemaphoreId, timeout: Option<u32>) -> bool {
    wait(|kernel| kernel.take(id, timeout), |_| ()).is_some()
}

/// Gives one to a semaphore.
pub(crate) fn signal(id: SemaphoreId) {
    call(|kernel| kernel.signal(id));
}

/// What a semaphore has left.
pub(crate) fn count(id: SemaphoreId) -> u32 {
    KERNEL.with(|kernel| kernel.count(id))
}

/// Makes a mutex.
pub(crate) fn mutex() -> MutexId {
    made(KERNEL.with(Kernel::create_mutex))
}

/// Runs `body` with a mutex locked.
pub(crate) fn locked<T>(id: MutexId, body: impl FnOnce() -> T) -> T {
    let attempt = |kernel: &mut Kernel| match kernel.lock(id, None) {
        Ok(attempt) => attempt,
        Err(refusal) => panic!("lock: {refusal:?}"),
    };
    // Without a limit there is no time-out.
    let _ = wait(attempt, |_| ());
    let result = body();
    if let Err(refusal) = call(|kernel| kernel.unlock(id)) {
        panic!("unlock: {refusal:?}");
    }
    result
}

/// Makes a mailbox.
pub(crate) fn mailbox() -> MailboxId {
    made(KERNEL.with(Kernel::create_mailbox))
}

/// Sends a message, and waits while there is no room.
pub(crate) fn send(id: MailboxId, message: Message, timeout: Option<u32>) -> bool {
    wait(|kernel| kernel.send(id, message, timeout), |_| ()).is_some()
}

/// Receives a message, within so many ticks if there is a limit.
pub(crate) fn receive(id: MailboxId, timeout: Option<u32>) -> Option<Message> {
    wait(|kernel| kernel.receive(id, timeout), |message| message)
}

/// Makes a timer.
pub(crate) fn timer(action: Action) -> TimerId {
    made(KERNEL.with(|kernel| kernel.create_timer(action)))
}

/// Starts a timer.
pub(crate) fn start_timer(id: TimerId, delay: u32, period: Option<u32>) {
    KERNEL.with(|kernel| kernel.start_timer(id, delay, period));
}

/// How often a timer has fired; the timer is gone afterwards.
pub(crate) fn finish_timer(id: TimerId) -> u64 {
    KERNEL.with(|kernel| {
        let fired = kernel.fired(id);
        kernel.delete_timer(id);
        fired
    })
}

/// Leaves work to the work task.
pub(crate) fn defer(work: Work) -> Result<(), Refusal> {
    call(|kernel| kernel.defer(work))
}

/// The work task: does what interrupts have left.
pub(crate) fn work(_: u32) {
    loop {
        // Without a limit there is no time-out.
        let _ = wait(Kernel::await_work, |_| ());
        if let Some(work) = KERNEL.with(Kernel::next_work) {
            (work.run)(work.argument);
        }
    }
}
