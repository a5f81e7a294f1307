//! The kernel: fixed-priority preemptive scheduling of tasks that wait for each other and for time.
//!
//! It is a plain value. An operation changes the states of tasks; afterwards [`Kernel::schedule`] names the
//! task that must run. If that is another one, the machine-dependent part switches stacks, and that is all it
//! does. Operations called by the running task that have to wait return [`Attempt::Blocked`]; when the task
//! runs again, [`Kernel::outcome`] says why.

mod objects;
mod ready;
#[cfg(test)]
mod tests;
pub mod timers;
pub mod wheel;

use crate::ring::Ring;
use ready::ReadyQueue;
use wheel::Wheel;

/// Tasks there can be at one time, the idle task included.
pub const TASKS: usize = 24;
/// Priorities: 0 is the most urgent, 31 is idle's.
pub const PRIORITIES: usize = 32;
const SEMAPHORES: usize = 40;
const MUTEXES: usize = 16;
const MAILBOXES: usize = 16;
const TIMERS: usize = 16;
/// Messages a mailbox holds before its senders wait.
pub const MAILBOX_DEPTH: usize = 16;
const WORK_DEPTH: usize = 32;

/// A priority; smaller is more urgent.
pub type Priority = u8;
/// The idle task's priority.
pub const IDLE: Priority = 31;

macro_rules! ids {
    ($($(#[$note:meta])* $name:ident)*) => {$(
        $(#[$note])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub struct $name(u8);

        impl $name {
            const fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

ids! {
    /// Names a counting semaphore.
    SemaphoreId
    /// Names a mutex.
    MutexId
    /// Names a mailbox.
    MailboxId
    /// Names a timer.
    TimerId
}

/// Names a task.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TaskId(u8);

impl TaskId {
    /// The idle task.
    pub const IDLE: Self = Self(0);

    /// Its place in a table of [`TASKS`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Four words from task to task.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Message(pub [u32; 4]);

/// What an interrupt leaves to be done by a task.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// The function.
    pub run: fn(u32),
    /// Its argument.
    pub argument: u32,
}

/// Whether an operation is through, or its caller waits now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Attempt<T> {
    /// It is done.
    Done(T),
    /// Its time was up at once.
    TimedOut,
    /// The running task waits; see [`Kernel::outcome`].
    Blocked,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The task got what it waited for.
    Granted,
    /// Its time was up.
    TimedOut,
}

/// A call the kernel refuses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The mutex belongs to another task, or to none.
    NotOwner,
    /// The mutex belongs to the caller already.
    AlreadyOwner,
    /// There is no room for another message or piece of work.
    Full,
}

/// What a task is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// The place is free.
    Free,
    /// It runs, or would if nothing more urgent did.
    Ready,
    /// It waits for time to pass.
    Sleeping,
    /// It waits for a semaphore.
    Semaphore(SemaphoreId),
    /// It waits for a mutex.
    Mutex(MutexId),
    /// It waits for a message.
    Receive(MailboxId),
    /// It waits for room in a mailbox.
    Send(MailboxId),
}

/// A task, as the kernel sees it.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    name: &'static str,
    state: State,
    base: Priority,
    priority: Priority,
    /// Orders waiters of equal priority.
    since: u64,
    outcome: Outcome,
    /// What it sends, or has received.
    message: Message,
    ticks: u64,
    switches: u64,
}

impl Task {
    const FREE: Self = Self {
        name: "",
        state: State::Free,
        base: IDLE,
        priority: IDLE,
        since: 0,
        outcome: Outcome::Granted,
        message: Message([0; 4]),
        ticks: 0,
        switches: 0,
    };

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Its own priority.
    #[must_use]
    pub fn base_priority(&self) -> Priority {
        self.base
    }

    /// The priority it runs at now: its own, or that of a more urgent task that waits for it.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Ticks that found it running.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// How often it was switched to.
    #[must_use]
    pub fn switches(&self) -> u64 {
        self.switches
    }
}

#[derive(Clone, Debug)]
struct Mailbox {
    messages: Ring<Message, MAILBOX_DEPTH>,
}

/// The kernel's state.
#[derive(Clone, Debug)]
pub struct Kernel {
    now: u64,
    order: u64,
    running: TaskId,
    tasks: [Task; TASKS],
    ready: ReadyQueue,
    /// Alarms of the tasks, then of the timers.
    wheel: Wheel<{ TASKS + TIMERS }>,
    semaphores: [Option<u32>; SEMAPHORES],
    mutexes: [Option<Option<TaskId>>; MUTEXES],
    mailboxes: [Option<Mailbox>; MAILBOXES],
    timers: [Option<timers::Timer>; TIMERS],
    work: Ring<Work, WORK_DEPTH>,
    work_waits: SemaphoreId,
}

fn no_work(_: u32) {}

impl Kernel {
    /// A kernel whose only task is the idle task, and it runs.
    #[must_use]
    pub const fn new() -> Self {
        let mut tasks = [Task::FREE; TASKS];
        tasks[0] = Task {
            name: "idle",
            state: State::Ready,
            ..Task::FREE
        };
        let mut semaphores = [None; SEMAPHORES];
        semaphores[0] = Some(0);
        Self {
            now: 0,
            order: 0,
            running: TaskId::IDLE,
            tasks,
            ready: ReadyQueue::new(),
            wheel: Wheel::new(),
            semaphores,
            mutexes: [None; MUTEXES],
            mailboxes: [const { None }; MAILBOXES],
            timers: [None; TIMERS],
            work: Ring::new(Work {
                run: no_work,
                argument: 0,
            }),
            work_waits: SemaphoreId(0),
        }
    }

    /// Ticks since the start.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The running task.
    #[must_use]
    pub fn running(&self) -> TaskId {
        self.running
    }

    /// A task.
    #[must_use]
    pub fn task(&self, id: TaskId) -> &Task {
        &self.tasks[id.index()]
    }

    /// The tasks there are.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        (0_u8..)
            .map(TaskId)
            .zip(&self.tasks)
            .filter(|(_, task)| task.state != State::Free)
    }

    /// Makes a task that is ready to run. The idle task's priority is not to be had.
    pub fn spawn(&mut self, name: &'static str, priority: Priority) -> Option<TaskId> {
        let priority = priority.min(IDLE - 1);
        let place = self
            .tasks
            .iter()
            .position(|task| task.state == State::Free)?;
        let id = TaskId(u8::try_from(place).ok()?);
        self.tasks[place] = Task {
            name,
            state: State::Ready,
            base: priority,
            priority,
            ..Task::FREE
        };
        self.ready.push_back(id, priority);
        Some(id)
    }

    /// Ends the running task. What it has locked is unlocked.
    pub fn exit(&mut self) {
        let running = self.running;
        for index in 0..self.mutexes.len() {
            if self.mutexes[index] == Some(Some(running)) {
                self.pass_on(index);
            }
        }
        let task = &mut self.tasks[running.index()];
        self.ready.remove(running, task.priority);
        task.state = State::Free;
    }

    /// Chooses the most urgent ready task, and counts it as running.
    pub fn schedule(&mut self) -> TaskId {
        let next = self.ready.peek().unwrap_or(TaskId::IDLE);
        if next != self.running {
            self.running = next;
            self.tasks[next.index()].switches += 1;
        }
        next
    }

    /// Lets the other ready tasks of the running one's priority go first.
    pub fn give_way(&mut self) {
        if self.running != TaskId::IDLE {
            let priority = self.tasks[self.running.index()].priority;
            self.ready.remove(self.running, priority);
            self.ready.push_back(self.running, priority);
        }
    }

    /// Puts the running task to sleep for some ticks; for none, it gives way.
    pub fn sleep(&mut self, ticks: u32) {
        if ticks == 0 {
            self.give_way();
        } else {
            // With time left, the task always waits.
            let _: Attempt<()> = self.wait(State::Sleeping, Some(ticks));
        }
    }

    /// How the running task's last wait ended, and the message if it waited for one.
    #[must_use]
    pub fn outcome(&self) -> (Outcome, Message) {
        let task = self.task(self.running);
        (task.outcome, task.message)
    }

    /// Lets the running task wait. Idle never waits.
    fn wait<T>(&mut self, state: State, timeout: Option<u32>) -> Attempt<T> {
        if timeout == Some(0) || self.running == TaskId::IDLE {
            return Attempt::TimedOut;
        }
        let id = self.running;
        self.order += 1;
        let task = &mut self.tasks[id.index()];
        self.ready.remove(id, task.priority);
        task.state = state;
        task.since = self.order;
        if let Some(ticks) = timeout {
            self.wheel.arm(id.0, self.now + u64::from(ticks));
        }
        Attempt::Blocked
    }

    fn wake(&mut self, id: TaskId, outcome: Outcome) {
        self.wheel.cancel(id.0);
        let task = &mut self.tasks[id.index()];
        task.state = State::Ready;
        task.outcome = outcome;
        self.ready.push_back(id, task.priority);
    }

    /// The most urgent task in a state; among equals, the one that has waited longest.
    fn first_in(&self, state: State) -> Option<TaskId> {
        self.tasks()
            .filter(|(_, task)| task.state == state)
            .min_by_key(|(_, task)| (task.priority, task.since))
            .map(|(id, _)| id)
    }
}

impl Default for Kernel {
    fn default() -> Self {
        Self::new()
    }
}
