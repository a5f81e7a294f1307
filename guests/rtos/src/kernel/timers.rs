//! What happens by time: timeouts, timers, and work that interrupts leave to a task.

use super::{
    Attempt, Kernel, MailboxId, Message, Outcome, Refusal, SemaphoreId, State, TASKS, TaskId,
    TimerId, Work,
};

/// What a timer does when it is due.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// Signals a semaphore.
    Signal(SemaphoreId),
    /// Posts a message; it is lost if the mailbox is full.
    Post(MailboxId, Message),
    /// Leaves work to the work task; it is lost if there is too much.
    Defer(Work),
}

/// A timer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timer {
    action: Action,
    /// Ticks between two firings; none for a timer that fires once.
    period: Option<u32>,
    fired: u64,
}

impl Kernel {
    /// Makes a timer; it does not run yet.
    pub fn create_timer(&mut self, action: Action) -> Option<TimerId> {
        let place = self.timers.iter().position(Option::is_none)?;
        self.timers[place] = Some(Timer {
            action,
            period: None,
            fired: 0,
        });
        Some(TimerId(u8::try_from(place).ok()?))
    }

    /// Starts a timer: due after `delay` ticks (at least one), and then at every `period` if there is one.
    pub fn start_timer(&mut self, id: TimerId, delay: u32, period: Option<u32>) {
        if let Some(timer) = &mut self.timers[id.index()] {
            timer.period = period.map(|ticks| ticks.max(1));
            self.wheel
                .arm(alarm(id), self.now + u64::from(delay.max(1)));
        }
    }

    /// Stops a timer.
    pub fn stop_timer(&mut self, id: TimerId) {
        self.wheel.cancel(alarm(id));
    }

    /// Stops a timer and frees its place.
    pub fn delete_timer(&mut self, id: TimerId) {
        self.stop_timer(id);
        self.timers[id.index()] = None;
    }

    /// How often a timer has fired.
    #[must_use]
    pub fn fired(&self, id: TimerId) -> u64 {
        self.timers[id.index()].map_or(0, |timer| timer.fired)
    }

    /// One tick of the clock: what is due happens.
    pub fn tick(&mut self) {
        self.now += 1;
        self.tasks[self.running.index()].ticks += 1;
        while let Some(alarm) = self.wheel.expire(self.now) {
            match usize::from(alarm).checked_sub(TASKS) {
                None => self.time_is_up(TaskId(alarm)),
                Some(place) => self.fire(place, alarm),
            }
        }
    }

    fn time_is_up(&mut self, id: TaskId) {
        match self.task(id).state {
            State::Sleeping => self.wake(id, Outcome::Granted),
            State::Mutex(mutex) => {
                self.wake(id, Outcome::TimedOut);
                if let Some(owner) = self.owner(mutex) {
                    self.inherit(owner);
                }
            }
            _ => self.wake(id, Outcome::TimedOut),
        }
    }

    fn fire(&mut self, place: usize, alarm: u8) {
        let Some(timer) = &mut self.timers[place] else {
            return;
        };
        timer.fired += 1;
        if let Some(period) = timer.period {
            self.wheel.arm(alarm, self.now + u64::from(period));
        }
        match timer.action {
            Action::Signal(semaphore) => self.signal(semaphore),
            // What finds no room is lost, as `Action` says.
            Action::Post(mailbox, message) => drop(self.post(mailbox, message)),
            Action::Defer(work) => drop(self.defer(work)),
        }
    }

    /// Leaves work to the work task. Interrupts may call it.
    ///
    /// # Errors
    /// If too much waits already.
    pub fn defer(&mut self, work: Work) -> Result<(), Refusal> {
        self.work.push(work).map_err(|_| Refusal::Full)?;
        self.signal(self.work_waits);
        Ok(())
    }

    /// Waits until there is work.
    pub fn await_work(&mut self) -> Attempt<()> {
        self.take(self.work_waits, None)
    }

    /// Takes the oldest piece of work.
    pub fn next_work(&mut self) -> Option<Work> {
        self.work.pop()
    }
}

fn alarm(id: TimerId) -> u8 {
    TASKS as u8 + id.0
}
