//! What tasks wait for: semaphores, mutexes with priority inheritance, mailboxes.

use super::{
    Attempt, Kernel, MAILBOX_DEPTH, Mailbox, MailboxId, Message, MutexId, Outcome, Refusal,
    SemaphoreId, State, TASKS, TaskId,
};
use crate::ring::Ring;

fn free_place<T>(table: &[Option<T>]) -> Option<(usize, u8)> {
    let place = table.iter().position(Option::is_none)?;
    Some((place, u8::try_from(place).ok()?))
}

impl Kernel {
    /// Makes a counting semaphore.
    pub fn create_semaphore(&mut self, count: u32) -> Option<SemaphoreId> {
        let (place, id) = free_place(&self.semaphores)?;
        self.semaphores[place] = Some(count);
        Some(SemaphoreId(id))
    }

    /// Takes one from a semaphore, or waits for it: for so many ticks, or forever.
    pub fn take(&mut self, id: SemaphoreId, timeout: Option<u32>) -> Attempt<()> {
        match &mut self.semaphores[id.index()] {
            Some(count) if *count > 0 => {
                *count -= 1;
                Attempt::Done(())
            }
            _ => self.wait(State::Semaphore(id), timeout),
        }
    }

    /// Gives one to a semaphore: to its first waiter if there is one. Interrupts may call it.
    pub fn signal(&mut self, id: SemaphoreId) {
        if let Some(task) = self.first_in(State::Semaphore(id)) {
            self.wake(task, Outcome::Granted);
        } else if let Some(count) = &mut self.semaphores[id.index()] {
            *count = count.saturating_add(1);
        }
    }

    /// What a semaphore has left.
    #[must_use]
    pub fn count(&self, id: SemaphoreId) -> u32 {
        self.semaphores[id.index()].unwrap_or(0)
    }

    /// Makes a mutex.
    pub fn create_mutex(&mut self) -> Option<MutexId> {
        let (place, id) = free_place(&self.mutexes)?;
        self.mutexes[place] = Some(None);
        Some(MutexId(id))
    }

    /// Locks a mutex, or waits for it. While a task waits, the owner runs at least at its priority.
    ///
    /// # Errors
    /// If the caller owns it.
    pub fn lock(&mut self, id: MutexId, timeout: Option<u32>) -> Result<Attempt<()>, Refusal> {
        match self.owner(id) {
            None => {
                self.mutexes[id.index()] = Some(Some(self.running));
                Ok(Attempt::Done(()))
            }
            Some(owner) if owner == self.running => Err(Refusal::AlreadyOwner),
            Some(owner) => {
                let attempt = self.wait(State::Mutex(id), timeout);
                self.inherit(owner);
                Ok(attempt)
            }
        }
    }

    /// Unlocks a mutex. The first waiter owns it at once.
    ///
    /// # Errors
    /// If the caller does not own it.
    pub fn unlock(&mut self, id: MutexId) -> Result<(), Refusal> {
        if self.owner(id) != Some(self.running) {
            return Err(Refusal::NotOwner);
        }
        self.pass_on(id.index());
        Ok(())
    }

    /// Who owns a mutex.
    #[must_use]
    pub fn owner(&self, id: MutexId) -> Option<TaskId> {
        self.mutexes[id.index()].flatten()
    }

    /// Gives a mutex from its owner to its first waiter, or to none.
    pub(super) fn pass_on(&mut self, index: usize) {
        let before = self.mutexes[index].flatten();
        let next = u8::try_from(index)
            .ok()
            .and_then(|id| self.first_in(State::Mutex(MutexId(id))));
        self.mutexes[index] = Some(next);
        if let Some(task) = next {
            self.wake(task, Outcome::Granted);
            self.inherit(task);
        }
        if let Some(task) = before {
            self.inherit(task);
        }
    }

    /// Sets a task's priority from its own and from its waiters', and so on along the chain of owners.
    pub(super) fn inherit(&mut self, task: TaskId) {
        let mut at = Some(task);
        // A chain is no longer than there are tasks; a deadlock's circle must not hold us.
        for _ in 0..TASKS {
            let Some(id) = at else { return };
            let inherited = self.tasks().filter_map(|(_, other)| match other.state {
                State::Mutex(mutex) if self.owner(mutex) == Some(id) => Some(other.priority),
                _ => None,
            });
            let current = self.task(id);
            let priority = inherited
                .min()
                .map_or(current.base, |most| most.min(current.base));
            let (state, old) = (current.state, current.priority);
            if priority == old {
                return;
            }
            self.tasks[id.index()].priority = priority;
            if state == State::Ready {
                self.ready.remove(id, old);
                if id == self.running {
                    self.ready.push_front(id, priority);
                } else {
                    self.ready.push_back(id, priority);
                }
            }
            at = match state {
                State::Mutex(mutex) => self.owner(mutex),
                _ => None,
            };
        }
    }

    /// Makes a mailbox.
    pub fn create_mailbox(&mut self) -> Option<MailboxId> {
        let (place, id) = free_place(&self.mailboxes)?;
        self.mailboxes[place] = Some(Mailbox {
            messages: Ring::new(Message([0; 4])),
        });
        Some(MailboxId(id))
    }

    /// Sends a message, or waits for room.
    pub fn send(&mut self, id: MailboxId, message: Message, timeout: Option<u32>) -> Attempt<()> {
        if self.post(id, message).is_ok() {
            return Attempt::Done(());
        }
        self.tasks[self.running.index()].message = message;
        self.wait(State::Send(id), timeout)
    }

    /// Sends a message if there is room. Interrupts may call it.
    ///
    /// # Errors
    /// If there is none.
    pub fn post(&mut self, id: MailboxId, message: Message) -> Result<(), Refusal> {
        if let Some(task) = self.first_in(State::Receive(id)) {
            self.tasks[task.index()].message = message;
            self.wake(task, Outcome::Granted);
            return Ok(());
        }
        let mailbox = self.mailboxes[id.index()].as_mut().ok_or(Refusal::Full)?;
        mailbox.messages.push(message).map_err(|_| Refusal::Full)
    }

    /// Takes the first message, or waits for one.
    pub fn receive(&mut self, id: MailboxId, timeout: Option<u32>) -> Attempt<Message> {
        let Some(message) = self.mailboxes[id.index()]
            .as_mut()
            .and_then(|mailbox| mailbox.messages.pop())
        else {
            return self.wait(State::Receive(id), timeout);
        };
        if let Some(sender) = self.first_in(State::Send(id)) {
            let waiting = self.task(sender).message;
            if let Some(mailbox) = &mut self.mailboxes[id.index()] {
                // There is room: a message has just left.
                let _ = mailbox.messages.push(waiting);
            }
            self.wake(sender, Outcome::Granted);
        }
        Attempt::Done(message)
    }

    /// Messages that lie in a mailbox, of [`MAILBOX_DEPTH`] at most.
    #[must_use]
    pub fn queued(&self, id: MailboxId) -> usize {
        self.mailboxes[id.index()]
            .as_ref()
            .map_or(0, |mailbox| mailbox.messages.len().min(MAILBOX_DEPTH))
    }
}
