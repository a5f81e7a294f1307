//! What a machine says, and in which order. Who may serve is the subject of the [model](super::model).

use core::time::Duration;

use super::*;
use crate::Path;
use crate::witness::{Ask, Pair, Want};

const DEAD: u64 = 1_000_000;
const BEAT: u64 = DEAD / 10;

fn machine(side: Side, arbiter: Arbiter) -> RoleMachine {
    let dead = Duration::from_nanos(DEAD);
    let config = Config::usual(side, Boot(1), Pair(1), arbiter, dead);
    config.check().expect("usual times go together");
    RoleMachine::new(config, Instant(0))
}

fn actions(machine: &mut RoleMachine) -> Vec<Action> {
    core::iter::from_fn(|| machine.poll_action()).collect()
}

fn at(machine: &mut RoleMachine, time: u64, event: Event) -> Vec<Action> {
    machine.handle(event, Instant(time));
    actions(machine)
}

/// The backup, at a time, which has heard at once what was made last.
fn backup(machine: &RoleMachine, time: u64) -> Heartbeat {
    Heartbeat {
        term: machine.term(),
        role: Role::Backup,
        made: Instant(time),
        echo: machine.sent.expect("it says that it lives").made,
        asked: Term(0),
        bond: None,
        release: false,
        hand_over: false,
        claiming: false,
        uplink: true,
        link: true,
    }
}

fn hears(machine: &mut RoleMachine, time: u64, heartbeat: Heartbeat) -> Vec<Action> {
    let path = Path::Link;
    at(machine, time, Event::Heartbeat { heartbeat, path })
}

fn heartbeats(actions: &[Action]) -> Vec<Heartbeat> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Heartbeat(heartbeat) => Some(*heartbeat),
            _ => None,
        })
        .collect()
}

const HOLD: Arbiter = Arbiter::Rule(OnSilence::Hold);

/// A primary at time 3, bound, and what it did last.
fn bound() -> (RoleMachine, Vec<Action>) {
    let mut machine = machine(Side::A, HOLD);
    at(&mut machine, 1, Event::Link(true));
    at(&mut machine, 1, Event::Session { peer: Boot(2) });
    let waiting = Heartbeat {
        role: Role::Waiting,
        ..backup(&machine, 1)
    };
    hears(&mut machine, 1, waiting);
    assert_eq!(machine.role(), Role::Solo);
    let peer = backup(&machine, 2);
    assert!(hears(&mut machine, 2, peer).contains(&Action::Resync(Bond(1))));
    let actions = at(&mut machine, 3, Event::Bonded(Bond(1)));
    assert_eq!(machine.role(), Role::Primary);
    (machine, actions)
}

#[test]
fn it_says_that_it_lives_at_each_deadline_and_no_oftener() {
    let mut machine = machine(Side::B, HOLD);
    assert_eq!(heartbeats(&actions(&mut machine)).len(), 1);
    let mut time = Instant(0);
    for _ in 0..100 {
        let next = machine.next_deadline();
        assert!(next > time && next <= time + Duration::from_nanos(BEAT));
        time = next;
        at(&mut machine, time.0, Event::Tick);
    }
    let sent = machine.sent.expect("some");
    assert!(time.since(sent.made) < Duration::from_nanos(BEAT));
    assert!(at(&mut machine, sent.made.0 + BEAT - 1, Event::Tick).is_empty());
    let next = heartbeats(&at(&mut machine, sent.made.0 + BEAT, Event::Tick));
    assert_eq!(
        next,
        [Heartbeat {
            made: Instant(sent.made.0 + BEAT),
            ..sent
        }]
    );
}

#[test]
fn a_start_is_said_before_anything_leaves() {
    let mut machine = machine(Side::A, HOLD);
    at(&mut machine, 1, Event::Session { peer: Boot(2) });
    let waiting = Heartbeat {
        role: Role::Waiting,
        ..backup(&machine, 1)
    };
    let done = hears(&mut machine, 1, waiting);
    let serve = Action::Serve {
        term: Term(1),
        source: Source::Cold,
    };
    let place = |wanted: &dyn Fn(&Action) -> bool| done.iter().position(wanted);
    let heartbeat = place(&|action| matches!(action, Action::Heartbeat(_)));
    let gate = place(&|action| *action == Action::Gate(Gate::Open));
    let serves = place(&|action| *action == serve);
    assert!(heartbeat.is_some() && heartbeat < gate && gate < serves);
}

#[test]
fn a_bond_holds_before_it_is_said() {
    let (machine, done) = bound();
    let gate = done
        .iter()
        .position(|action| *action == Action::Gate(machine.gate()));
    let said = done
        .iter()
        .position(|action| matches!(action, Action::Heartbeat(beat) if beat.bond == Some(Bond(1))));
    assert!(gate.is_some() && gate < said);
    let Gate::Until(end) = machine.gate() else {
        panic!("a primary's gate has an end");
    };
    // From what the backup has echoed, not from now.
    let echo = machine.peer().expect("a peer").echo;
    assert!(echo < Instant(3));
    assert_eq!(end, echo + machine.config.lease);
}

#[test]
fn a_lease_ends_by_itself() {
    let (mut machine, _) = bound();
    let Gate::Until(end) = machine.gate() else {
        panic!("a primary's gate has an end");
    };
    assert_eq!(machine.next_deadline(), Instant(3 + BEAT));
    // The machine did not run: the gate is closed before anything is done.
    let peer = Heartbeat {
        bond: Some(Bond(1)),
        ..backup(&machine, 4)
    };
    let done = hears(
        &mut machine,
        end.0,
        Heartbeat {
            echo: Instant(1),
            ..peer
        },
    );
    assert!(done.contains(&Action::Gate(Gate::Closed)));
    assert!(done.contains(&Action::Suspend));
    assert_eq!(machine.role(), Role::Held);
    // An echo of something newer opens it again.
    let echo = machine.sent.expect("some").made;
    let done = hears(
        &mut machine,
        end.0 + 9,
        Heartbeat {
            made: Instant(5),
            echo,
            ..peer
        },
    );
    let serve = Action::Serve {
        term: Term(1),
        source: Source::Own,
    };
    assert!(done.contains(&serve));
    assert_eq!(machine.gate(), Gate::Until(echo + machine.config.lease));
}

#[test]
fn what_comes_late_says_nothing() {
    let (mut machine, _) = bound();
    let peer = backup(&machine, 10);
    hears(
        &mut machine,
        20,
        Heartbeat {
            bond: Some(Bond(1)),
            ..peer
        },
    );
    assert_eq!(machine.protection(), Protection::Protected);
    for made in [9, 10] {
        let late = Heartbeat {
            made: Instant(made),
            term: Term(9),
            role: Role::Solo,
            ..peer
        };
        assert_eq!(hears(&mut machine, 21, late), []);
    }
    // Another session of the same life begins nothing anew.
    assert_eq!(at(&mut machine, 22, Event::Session { peer: Boot(2) }), []);
    let later = Heartbeat {
        made: Instant(11),
        term: Term(9),
        role: Role::Solo,
        ..peer
    };
    assert!(hears(&mut machine, 23, later).contains(&Action::Stop));
    assert_eq!((machine.role(), machine.term()), (Role::Outdated, Term(9)));
}

#[test]
fn any_frame_of_a_later_term_stops_the_guests() {
    let (mut machine, _) = bound();
    let peer = backup(&machine, 10);
    hears(
        &mut machine,
        20,
        Heartbeat {
            bond: Some(Bond(1)),
            ..peer
        },
    );
    let path = Path::Lan;
    let done = at(
        &mut machine,
        21,
        Event::Frame {
            term: Term(2),
            path,
        },
    );
    assert!(done.contains(&Action::Stop) && done.contains(&Action::Abandon(Bond(1))));
    assert_eq!(machine.gate(), Gate::Closed);
}

#[test]
fn two_that_serve_in_one_term_both_stop_for_an_operator() {
    let (mut machine, _) = bound();
    let solo = |made| Heartbeat {
        role: Role::Solo,
        made: Instant(made),
        ..backup(&machine, 0)
    };
    let (first, second) = (solo(10), solo(11));
    let done = hears(&mut machine, 20, first);
    let conflict = Tell::Conflict {
        own: Term(1),
        peer: Term(1),
    };
    assert!(done.contains(&Action::Tell(conflict)) && done.contains(&Action::Suspend));
    // It is told once.
    assert!(!hears(&mut machine, 21, second).contains(&Action::Tell(conflict)));
    // So is that an operator must decide.
    let needed = Action::Tell(Tell::OperatorNeeded(Cause::LeaseOver));
    assert!(done.contains(&needed));
    for beat in 1..40 {
        assert!(!at(&mut machine, 21 + beat * BEAT, Event::Tick).contains(&needed));
    }
    assert_eq!(machine.role(), Role::Held);
    at(&mut machine, 50 * BEAT, Event::Command(Command::Force));
    assert_eq!((machine.role(), machine.term()), (Role::Solo, Term(2)));
}

#[test]
fn a_path_that_falls_silent_is_told_once() {
    let (mut machine, _) = bound();
    let lost = |actions: &[Action]| {
        let tell = |path| Action::Tell(Tell::Path { path, heard: false });
        [Path::Link, Path::Lan].map(|path| actions.iter().filter(|a| **a == tell(path)).count())
    };
    let mut told = [0; 2];
    for beat in 1..40 {
        let peer = Heartbeat {
            bond: Some(Bond(1)),
            ..backup(&machine, 10 * beat)
        };
        let event = Event::Heartbeat {
            heartbeat: peer,
            path: Path::Lan,
        };
        let [link, lan] = lost(&at(&mut machine, beat * BEAT, event));
        told = [told[0] + link, told[1] + lan];
    }
    assert_eq!(told, [1, 0], "the link, and the guests go on");
    assert_eq!(machine.role(), Role::Primary);
}

#[test]
fn commands_that_would_do_harm_are_refused() {
    let refused = |machine: &mut RoleMachine, command| {
        at(machine, 5, Event::Command(command))
            .into_iter()
            .find_map(|action| match action {
                Action::Tell(Tell::CommandRefused { why, .. }) => Some(why),
                _ => None,
            })
    };
    let (mut primary, _) = bound();
    assert_eq!(
        refused(&mut primary, Command::Switchover),
        Some(Why::Arming)
    );
    assert_eq!(refused(&mut primary, Command::Force), Some(Why::Serving));
    let mut other = machine(Side::B, HOLD);
    assert_eq!(
        refused(&mut other, Command::Switchover),
        Some(Why::NotServing)
    );
    assert_eq!(refused(&mut other, Command::Detach), Some(Why::NotServing));
    let serving = Heartbeat {
        role: Role::Solo,
        term: Term(3),
        ..backup(&other, 4)
    };
    hears(&mut other, 5, serving);
    assert_eq!(refused(&mut other, Command::Force), Some(Why::PeerServes));
}

#[test]
fn the_witness_is_asked_again_until_it_answers() {
    let mut machine = machine(Side::A, Arbiter::Witness);
    at(&mut machine, 1, Event::Session { peer: Boot(2) });
    let waiting = Heartbeat {
        role: Role::Waiting,
        ..backup(&machine, 1)
    };
    let first = hears(&mut machine, 1, waiting);
    let asks = |actions: &[Action]| -> Vec<Ask> {
        let ask = |action: &Action| match action {
            Action::Ask(ask) => Some(*ask),
            _ => None,
        };
        actions.iter().filter_map(ask).collect()
    };
    let [ask] = asks(&first)[..] else {
        panic!("one question");
    };
    assert_eq!(
        (ask.want, ask.term, ask.basis),
        (Want::Claim, Term(1), Term(0))
    );
    let retry = 1 + DEAD / 5;
    assert_eq!(asks(&at(&mut machine, retry - 1, Event::Tick)), []);
    assert_eq!(asks(&at(&mut machine, retry, Event::Tick)), [ask]);
    // Others' answers are not for it.
    let ledger = crate::witness::Ledger::new(Pair(1));
    let (answer, ledger) = ledger.decide(&ask).expect("the pair's");
    for other in [
        crate::witness::Answer {
            boot: Boot(9),
            ..answer
        },
        crate::witness::Answer {
            side: Side::B,
            ..answer
        },
        crate::witness::Answer {
            pair: Pair(9),
            ..answer
        },
        crate::witness::Answer {
            term: Term(9),
            ..answer
        },
        crate::witness::Answer {
            want: Want::Serving,
            ..answer
        },
    ] {
        at(&mut machine, retry, Event::Answer(other));
        assert_eq!(machine.role(), Role::Waiting);
    }
    let [serving] = asks(&at(&mut machine, retry, Event::Answer(answer)))[..] else {
        panic!("it has its term recorded");
    };
    assert_eq!((machine.role(), serving.want), (Role::Solo, Want::Serving));
    let (answer, _) = ledger.decide(&serving).expect("the pair's");
    assert!(answer.granted);
    at(&mut machine, retry, Event::Answer(answer));
    let later = (1..30).flat_map(|beat| at(&mut machine, retry + beat * BEAT, Event::Tick));
    assert_eq!(asks(&later.collect::<Vec<_>>()), []);
}

#[test]
fn a_backup_that_did_not_run_does_not_take_that_for_silence() {
    let mut machine = machine(Side::B, Arbiter::Rule(OnSilence::Backup));
    at(&mut machine, 1, Event::Session { peer: Boot(2) });
    let primary = Heartbeat {
        role: Role::Solo,
        term: Term(1),
        ..backup(&machine, 2)
    };
    hears(&mut machine, 2, primary);
    at(&mut machine, 3, Event::ResyncBegun(Bond(4)));
    at(&mut machine, 4, Event::Complete(Bond(4)));
    let bound = Heartbeat {
        role: Role::Primary,
        bond: Some(Bond(4)),
        made: Instant(3),
        ..primary
    };
    hears(&mut machine, 5, bound);
    assert_eq!(machine.protection(), Protection::Protected);
    let done = at(&mut machine, 5 + 3 * DEAD, Event::Tick);
    let stalled = Tell::Stalled(Duration::from_nanos(3 * DEAD));
    assert!(done.contains(&Action::Tell(stalled)));
    assert_eq!(machine.role(), Role::Backup);
    // From now on it does.
    for beat in 1..=10 {
        assert_eq!(machine.role(), Role::Backup);
        at(&mut machine, 5 + 3 * DEAD + beat * BEAT, Event::Tick);
    }
    assert_eq!((machine.role(), machine.term()), (Role::Solo, Term(2)));
}

#[test]
fn a_clock_does_not_go_back() {
    let (mut machine, _) = bound();
    at(&mut machine, 5 * BEAT, Event::Tick);
    let sent = machine.sent.expect("some").made;
    at(&mut machine, 1, Event::Link(false));
    let after = machine.sent.expect("some");
    assert!(after.release && after.made > sent);
}

#[test]
fn a_peer_that_does_not_hear_the_link_gives_the_understudy_up() {
    let (mut machine, _) = bound();
    let deaf = Heartbeat {
        link: false,
        bond: machine.bond,
        ..backup(&machine, 5 * BEAT)
    };
    hears(&mut machine, 5 * BEAT, deaf);
    assert!(machine.sent.expect("some").release);
    assert_eq!(machine.protection(), Protection::Unprotected(Why::NoLink));
}
