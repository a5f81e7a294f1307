//! What a run is to be: its seed, who decides, what goes wrong when, and what is wrong in the product's surroundings.

use crate::chance::Chance;
use mirror::{Arbiter, Command, OnSilence, Path, Side};
use std::time::Duration;

/// T_dead.
pub(crate) const DEAD: Duration = Duration::from_millis(100);
/// How long a board that starts waits for its peer.
pub(crate) const START_PATIENCE: Duration = Duration::from_millis(800);

/// A group of the boards' guests.
pub(crate) struct GroupPlan {
    pub(crate) number: u8,
    /// From one checkpoint to the next.
    pub(crate) epoch: Duration,
    pub(crate) urgent: bool,
    /// Their numbers, and the pages of their areas.
    pub(crate) guests: &'static [(u8, &'static [u32])],
}

/// The guests: one with deadlines, and two that have their checkpoints in common.
pub(crate) const GROUPS: [GroupPlan; 2] = [
    GroupPlan {
        number: 1,
        epoch: Duration::from_millis(8),
        urgent: true,
        guests: &[(1, &[5, 2])],
    },
    GroupPlan {
        number: 2,
        epoch: Duration::from_millis(25),
        urgent: false,
        guests: &[(2, &[7, 2]), (3, &[4, 2])],
    },
];

/// A mistake that the judge must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Outputs leave before their epoch is acknowledged.
    EarlyRelease,
    /// Arriving pages are written into the image that a takeover resumes.
    Unstaged,
    /// Checkpoints leave out what only the hypervisor wrote.
    OmittedMarks,
    /// A board that has the guests does not hear of a later term.
    IgnoredTerm,
    /// A lease is never over.
    NoLease,
    /// The witness grants everything.
    GrantsTwice,
    /// What comes for guests that are handed over is lost.
    LostInputs,
}

/// What goes wrong, and right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A board loses its power.
    Kill(Side),
    /// A board dies, and can still say so.
    Die(Side),
    /// A board that is off starts.
    Start(Side),
    /// A board stands still, while its clock goes on.
    Freeze(Side),
    /// It goes on.
    Thaw(Side),
    /// The wire from this board to the other on this path: cut, or whole.
    Cut(Path, Side, bool),
    /// The link's cards see each other.
    Carrier(bool),
    /// The link carries heartbeats and other short frames only, or all again.
    Short(bool),
    /// A path between the boards is bad in this way, of 0 to 3, or good again.
    Bad(Path, Option<u8>),
    /// A board's uplink.
    Uplink(Side, bool),
    /// The witness can be reached.
    Witness(bool),
    /// The witness's machine starts anew.
    WitnessRestarts,
    /// An operator wants something of a board.
    Command(Side, Command),
    /// If a board has said for long enough that its guests are protected, it loses its power, and they must live on.
    KillProtected,
    /// An operator lets a board go on although the other may still serve. From here on there may be two pasts, as long as something is cut.
    ForceWrongly(Side),
}

/// A run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Decides all that chance decides.
    pub seed: u64,
    /// Who decides who serves.
    pub arbiter: Arbiter,
    /// What is wrong on purpose.
    pub mutation: Option<Mutation>,
    /// What goes wrong when.
    pub faults: Vec<(Duration, Fault)>,
    /// How long it goes on; then everything is made right.
    pub length: Duration,
    /// Clients have patience, and once the guests are protected nobody may have to ask again.
    pub lossless: bool,
    /// On the LAN, each frame only goes where its taker was heard last, not to both boards.
    pub switched: bool,
}

/// All who may decide.
pub const ARBITERS: [Arbiter; 4] = [
    Arbiter::Witness,
    Arbiter::Rule(OnSilence::Backup),
    Arbiter::Rule(OnSilence::Hold),
    Arbiter::Rule(OnSilence::AssumeDead),
];

impl Scenario {
    /// A run in which nothing goes wrong.
    #[must_use]
    pub const fn calm(seed: u64, arbiter: Arbiter, length: Duration) -> Self {
        Self {
            seed,
            arbiter,
            mutation: None,
            faults: Vec::new(),
            length,
            lossless: false,
            switched: false,
        }
    }

    /// A run in which much goes wrong that `arbiter` is made for.
    #[must_use]
    pub fn wild(seed: u64, arbiter: Arbiter, length: Duration) -> Self {
        let mut scenario = Self::calm(seed, arbiter, length);
        let mut chance = Chance::new(seed ^ 0xfa17);
        // That the paths never fail together is what this rule relies on.
        let apart = arbiter == Arbiter::Rule(OnSilence::AssumeDead);
        let mut at = chance.time(ms(50), ms(1600));
        while at < length {
            scenario.add(at, apart, &mut chance);
            at += chance.time(ms(10), ms(1300));
        }
        scenario.faults.sort_by_key(|(at, _)| *at);
        scenario
    }

    /// The same with something wrong on purpose.
    #[must_use]
    pub fn with(mut self, mutation: Mutation) -> Self {
        self.mutation = Some(mutation);
        self
    }

    fn add(&mut self, at: Duration, apart: bool, chance: &mut Chance) {
        let side = chance.pick(&[Side::A, Side::B]);
        let path = if apart {
            Path::Link
        } else {
            chance.pick(&[Path::Link, Path::Lan])
        };
        let until = at + chance.time(ms(1), ms(1500));
        let mut both = |fault, end| {
            self.faults.push((at, fault));
            self.faults.push((until, end));
        };
        match chance.below(if apart { 13 } else { 18 }) {
            0 => both(Fault::Kill(side), Fault::Start(side)),
            1 => both(Fault::Die(side), Fault::Start(side)),
            2 => both(Fault::Cut(path, side, true), Fault::Cut(path, side, false)),
            3 => both(Fault::Carrier(false), Fault::Carrier(true)),
            4 | 5 => {
                let way = chance.below(4) as u8;
                both(Fault::Bad(path, Some(way)), Fault::Bad(path, None));
            }
            6 => {
                let short = at + chance.time(ms(1), DEAD / 3);
                self.faults.push((at, Fault::Freeze(side)));
                self.faults.push((short, Fault::Thaw(side)));
            }
            7 => self.faults.push((at, Fault::KillProtected)),
            8 => both(Fault::Witness(false), Fault::Witness(true)),
            9 => self.faults.push((at, Fault::WitnessRestarts)),
            10 => {
                for side in [Side::A, Side::B] {
                    let command = Fault::Command(side, Command::Switchover);
                    self.faults.push((at, command));
                }
            }
            11 => both(
                Fault::Command(side, Command::Detach),
                Fault::Command(side, Command::Attach),
            ),
            12 => {
                // A switchover that something may come between.
                for side in [Side::A, Side::B] {
                    let command = Fault::Command(side, Command::Switchover);
                    self.faults.push((at, command));
                }
                let soon = at + chance.time(Duration::from_micros(50), ms(5));
                let fault = match chance.below(4) {
                    0 if !apart => (Fault::Freeze(side), Fault::Thaw(side)),
                    1 => (Fault::Carrier(false), Fault::Carrier(true)),
                    2 => (Fault::Kill(side), Fault::Start(side)),
                    _ => (Fault::Cut(path, side, true), Fault::Cut(path, side, false)),
                };
                self.faults.push((soon, fault.0));
                self.faults.push((soon.max(until), fault.1));
            }
            13 => both(Fault::Freeze(side), Fault::Thaw(side)),
            14 => both(Fault::Uplink(side, false), Fault::Uplink(side, true)),
            15 | 16 => {
                for path in [Path::Link, Path::Lan] {
                    both(Fault::Cut(path, side, true), Fault::Cut(path, side, false));
                    if chance.permille(700) {
                        let other = side.peer();
                        both(
                            Fault::Cut(path, other, true),
                            Fault::Cut(path, other, false),
                        );
                    }
                }
            }
            _ => {
                for side in [Side::A, Side::B] {
                    both(Fault::Cut(path, side, true), Fault::Cut(path, side, false));
                }
            }
        }
    }
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
