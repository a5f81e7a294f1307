//! Scenarios, and random operations against what must always hold.

use proptest::prelude::*;

use super::{
    Attempt, IDLE, Kernel, MAILBOX_DEPTH, MailboxId, Message, MutexId, Outcome, Refusal,
    SemaphoreId, State, TaskId, Work, timers::Action,
};

/// Spawns a task and lets it run if it is urgent enough.
fn spawn(kernel: &mut Kernel, name: &'static str, priority: u8) -> TaskId {
    let id = kernel.spawn(name, priority).unwrap();
    kernel.schedule();
    id
}

fn ticks(kernel: &mut Kernel, count: u32) {
    for _ in 0..count {
        kernel.tick();
        kernel.schedule();
    }
}

#[test]
fn the_most_urgent_runs_and_equals_in_order() {
    let mut kernel = Kernel::new();
    assert_eq!(kernel.schedule(), TaskId::IDLE);
    let low = spawn(&mut kernel, "low", 9);
    let first = spawn(&mut kernel, "first", 5);
    let second = spawn(&mut kernel, "second", 5);
    assert_eq!(kernel.running(), first);
    kernel.give_way();
    assert_eq!(kernel.schedule(), second);
    kernel.sleep(3);
    assert_eq!(kernel.schedule(), first);
    kernel.exit();
    assert_eq!(kernel.schedule(), low);
    ticks(&mut kernel, 2);
    assert_eq!(kernel.running(), low);
    ticks(&mut kernel, 1);
    assert_eq!(
        (kernel.running(), kernel.outcome().0),
        (second, Outcome::Granted)
    );
    assert_eq!(kernel.task(low).ticks(), 3);
}

#[test]
fn semaphores_count_and_time_out() {
    let mut kernel = Kernel::new();
    let semaphore = kernel.create_semaphore(2).unwrap();
    let task = spawn(&mut kernel, "task", 5);
    assert_eq!(kernel.take(semaphore, Some(0)), Attempt::Done(()));
    assert_eq!(kernel.take(semaphore, None), Attempt::Done(()));
    assert_eq!(kernel.take(semaphore, Some(0)), Attempt::TimedOut);
    assert_eq!(kernel.take(semaphore, Some(4)), Attempt::Blocked);
    assert_eq!(kernel.schedule(), TaskId::IDLE);
    ticks(&mut kernel, 4);
    assert_eq!(
        (kernel.running(), kernel.outcome().0),
        (task, Outcome::TimedOut)
    );
    assert_eq!(kernel.take(semaphore, None), Attempt::Blocked);
    kernel.schedule();
    kernel.signal(semaphore);
    assert_eq!(
        (kernel.schedule(), kernel.outcome().0),
        (task, Outcome::Granted)
    );
    assert_eq!(kernel.count(semaphore), 0);
}

#[test]
fn inheritance_goes_along_the_chain_and_ends() {
    let mut kernel = Kernel::new();
    let (a, b) = (
        kernel.create_mutex().unwrap(),
        kernel.create_mutex().unwrap(),
    );
    let low = spawn(&mut kernel, "low", 20);
    assert_eq!(kernel.lock(a, None), Ok(Attempt::Done(())));
    assert_eq!(kernel.lock(a, None), Err(Refusal::AlreadyOwner));
    let middle = spawn(&mut kernel, "middle", 10);
    assert_eq!(kernel.unlock(a), Err(Refusal::NotOwner));
    assert_eq!(kernel.lock(b, None), Ok(Attempt::Done(())));
    assert_eq!(kernel.lock(a, None), Ok(Attempt::Blocked));
    assert_eq!(kernel.schedule(), low);
    assert_eq!(kernel.task(low).priority(), 10);
    let high = spawn(&mut kernel, "high", 1);
    assert_eq!(kernel.lock(b, Some(5)), Ok(Attempt::Blocked));
    assert_eq!(kernel.schedule(), low);
    assert_eq!(
        (kernel.task(low).priority(), kernel.task(middle).priority()),
        (1, 1)
    );
    // The urgent one gives up: everyone is back at what the other waiters make of him.
    ticks(&mut kernel, 5);
    assert_eq!(
        (kernel.running(), kernel.outcome().0),
        (high, Outcome::TimedOut)
    );
    assert_eq!(
        (kernel.task(low).priority(), kernel.task(middle).priority()),
        (10, 10)
    );
    kernel.sleep(1);
    assert_eq!(kernel.schedule(), low);
    assert_eq!(kernel.unlock(a), Ok(()));
    assert_eq!(kernel.task(low).priority(), 20);
    assert_eq!((kernel.schedule(), kernel.owner(a)), (middle, Some(middle)));
    // A task that ends leaves nothing locked.
    kernel.exit();
    assert_eq!((kernel.owner(a), kernel.owner(b)), (None, None));
}

#[test]
fn mailboxes_keep_order_through_full_and_empty() {
    let mut kernel = Kernel::new();
    let mailbox = kernel.create_mailbox().unwrap();
    let receiver = spawn(&mut kernel, "receiver", 9);
    let sender = spawn(&mut kernel, "sender", 5);
    for word in 0..MAILBOX_DEPTH as u32 {
        assert_eq!(
            kernel.send(mailbox, Message([word; 4]), None),
            Attempt::Done(())
        );
    }
    assert_eq!(kernel.post(mailbox, Message([99; 4])), Err(Refusal::Full));
    assert_eq!(
        kernel.send(mailbox, Message([MAILBOX_DEPTH as u32; 4]), None),
        Attempt::Blocked
    );
    assert_eq!(kernel.schedule(), receiver);
    // Room for one: the sender's message goes in behind the others, and the sender goes on.
    assert_eq!(
        kernel.receive(mailbox, None),
        Attempt::Done(Message([0; 4]))
    );
    assert_eq!(
        (kernel.schedule(), kernel.queued(mailbox)),
        (sender, MAILBOX_DEPTH)
    );
    kernel.sleep(100);
    assert_eq!(kernel.schedule(), receiver);
    for word in 1..=MAILBOX_DEPTH as u32 {
        assert_eq!(
            kernel.receive(mailbox, None),
            Attempt::Done(Message([word; 4]))
        );
    }
    assert_eq!(kernel.queued(mailbox), 0);
}

#[test]
fn a_waiting_receiver_gets_the_message_itself() {
    let mut kernel = Kernel::new();
    let mailbox = kernel.create_mailbox().unwrap();
    let sender = spawn(&mut kernel, "sender", 9);
    let receiver = spawn(&mut kernel, "receiver", 5);
    assert_eq!(kernel.receive(mailbox, Some(50)), Attempt::Blocked);
    assert_eq!(kernel.schedule(), sender);
    assert_eq!(
        kernel.send(mailbox, Message([1, 2, 3, 4]), None),
        Attempt::Done(())
    );
    assert_eq!(kernel.schedule(), receiver);
    assert_eq!(kernel.outcome(), (Outcome::Granted, Message([1, 2, 3, 4])));
    assert_eq!(kernel.queued(mailbox), 0);
    assert_eq!(kernel.receive(mailbox, Some(0)), Attempt::TimedOut);
}

#[test]
fn timers_fire_once_or_again_and_again() {
    fn nothing(_: u32) {}
    let mut kernel = Kernel::new();
    let semaphore = kernel.create_semaphore(0).unwrap();
    let mailbox = kernel.create_mailbox().unwrap();
    let once = kernel.create_timer(Action::Signal(semaphore)).unwrap();
    let often = kernel
        .create_timer(Action::Post(mailbox, Message([7; 4])))
        .unwrap();
    let work = kernel
        .create_timer(Action::Defer(Work {
            run: nothing,
            argument: 5,
        }))
        .unwrap();
    kernel.start_timer(once, 70, None);
    kernel.start_timer(often, 10, Some(3));
    kernel.start_timer(work, 1, None);
    ticks(&mut kernel, 69);
    assert_eq!((kernel.count(semaphore), kernel.fired(often)), (0, 20));
    ticks(&mut kernel, 200);
    assert_eq!((kernel.count(semaphore), kernel.fired(once)), (1, 1));
    assert_eq!(kernel.queued(mailbox), MAILBOX_DEPTH);
    assert_eq!(kernel.next_work().map(|work| work.argument), Some(5));
    kernel.stop_timer(often);
    let fired = kernel.fired(often);
    ticks(&mut kernel, 100);
    assert_eq!(kernel.fired(often), fired);
}

#[derive(Clone, Debug)]
enum Step {
    Spawn(u8),
    Exit,
    Sleep(u32),
    GiveWay,
    Take(u8, Option<u32>),
    Signal(u8),
    Lock(u8, Option<u32>),
    Unlock(u8),
    Send(u8, Option<u32>),
    Receive(u8, Option<u32>),
    Tick,
}

fn step() -> impl Strategy<Value = Step> {
    let timeout = || prop::option::of(0_u32..6);
    prop_oneof![
        2 => (0_u8..31).prop_map(Step::Spawn),
        1 => Just(Step::Exit),
        1 => (0_u32..5).prop_map(Step::Sleep),
        1 => Just(Step::GiveWay),
        2 => (0_u8..3, timeout()).prop_map(|(id, timeout)| Step::Take(id, timeout)),
        2 => (0_u8..3).prop_map(Step::Signal),
        3 => (0_u8..3, timeout()).prop_map(|(id, timeout)| Step::Lock(id, timeout)),
        2 => (0_u8..3).prop_map(Step::Unlock),
        2 => (0_u8..3, timeout()).prop_map(|(id, timeout)| Step::Send(id, timeout)),
        2 => (0_u8..3, timeout()).prop_map(|(id, timeout)| Step::Receive(id, timeout)),
        3 => Just(Step::Tick),
    ]
}

fn check(kernel: &Kernel) {
    let most_urgent = kernel
        .tasks()
        .filter(|(_, task)| task.state() == State::Ready)
        .map(|(_, task)| task.priority());
    assert_eq!(
        most_urgent.min(),
        Some(kernel.task(kernel.running()).priority()),
        "the most urgent runs"
    );
    for (id, task) in kernel.tasks() {
        match task.state() {
            State::Semaphore(semaphore) => {
                assert_eq!(kernel.count(semaphore), 0, "nobody waits for what is there")
            }
            State::Mutex(mutex) => assert!(kernel.owner(mutex).is_some_and(|owner| owner != id)),
            State::Receive(mailbox) => {
                assert_eq!(kernel.queued(mailbox), 0, "nobody waits for what is there")
            }
            State::Send(mailbox) => assert_eq!(kernel.queued(mailbox), MAILBOX_DEPTH),
            _ => {}
        }
        let waiters = kernel.tasks().filter(|(_, other)| match other.state() {
            State::Mutex(mutex) => kernel.owner(mutex) == Some(id),
            _ => false,
        });
        let expected = waiters
            .map(|(_, other)| other.priority())
            .min()
            .map_or(task.base_priority(), |most| most.min(task.base_priority()));
        assert_eq!(
            task.priority(),
            expected,
            "a task inherits exactly what its waiters have"
        );
    }
    for index in 0..3 {
        if let Some(owner) = kernel.owner(MutexId(index)) {
            assert_ne!(
                kernel.task(owner).state(),
                State::Free,
                "the dead own nothing"
            );
        }
    }
}

proptest! {
    #[test]
    fn what_always_holds(steps in prop::collection::vec(step(), 0..300)) {
        let mut kernel = Kernel::new();
        let semaphores = [0_u32, 1, 3].map(|count| kernel.create_semaphore(count).unwrap());
        let mutexes = [(); 3].map(|()| kernel.create_mutex().unwrap());
        let mailboxes: [MailboxId; 3] = [(); 3].map(|()| kernel.create_mailbox().unwrap());
        for step in steps {
            let idle = kernel.running() == TaskId::IDLE;
            // A deadlock has no right priorities: leave out locks that would close a circle.
            let circle = |kernel: &Kernel, mutex: MutexId| {
                let mut at = kernel.owner(mutex);
                while let Some(owner) = at {
                    if owner == kernel.running() {
                        return true;
                    }
                    at = match kernel.task(owner).state() {
                        State::Mutex(next) => kernel.owner(next),
                        _ => None,
                    };
                }
                false
            };
            match step {
                Step::Spawn(priority) => drop(kernel.spawn("task", priority)),
                Step::Signal(id) => kernel.signal(semaphores[usize::from(id)]),
                Step::Tick => kernel.tick(),
                _ if idle => {}
                Step::Exit => kernel.exit(),
                Step::Sleep(time) => kernel.sleep(time),
                Step::GiveWay => kernel.give_way(),
                Step::Take(id, timeout) => {
                    let _ = kernel.take(semaphores[usize::from(id)], timeout);
                }
                Step::Lock(id, timeout) => {
                    if !circle(&kernel, mutexes[usize::from(id)]) {
                        let _ = kernel.lock(mutexes[usize::from(id)], timeout);
                    }
                }
                Step::Unlock(id) => drop(kernel.unlock(mutexes[usize::from(id)])),
                Step::Send(id, timeout) => {
                    let _ = kernel.send(mailboxes[usize::from(id)], Message([1; 4]), timeout);
                }
                Step::Receive(id, timeout) => {
                    let _ = kernel.receive(mailboxes[usize::from(id)], timeout);
                }
            }
            kernel.schedule();
            check(&kernel);
        }
        prop_assert!(kernel.task(TaskId::IDLE).priority() == IDLE);
    }

    /// What is given to a semaphore is taken or left, never lost or doubled.
    #[test]
    fn semaphores_conserve(steps in prop::collection::vec(any::<bool>(), 0..100)) {
        let mut kernel = Kernel::new();
        let semaphore: SemaphoreId = kernel.create_semaphore(0).unwrap();
        let task = spawn(&mut kernel, "taker", 3);
        let (mut given, mut taken) = (0_u32, 0_u32);
        for give in steps {
            if give {
                given += 1;
                let waits = kernel.task(task).state() == State::Semaphore(semaphore);
                kernel.signal(semaphore);
                kernel.schedule();
                taken += u32::from(waits);
            } else if kernel.running() == task && kernel.take(semaphore, None) == Attempt::Done(()) {
                taken += 1;
            }
            kernel.schedule();
            prop_assert_eq!(given - taken, kernel.count(semaphore));
        }
    }
}
