#[test]
fn debug_trace() {
    use super::world::{self, Move, Mutant, Run};
    use super::*;

    let mut run = Run::new(WITNESS, Mutant::None);
    run.trace = true;

    for (t, m) in [
        (2, Move::Lan(1, world::Lan::Keeps)),
        (4, Move::Command(0, super::super::Command::Switchover)),
        (0, Move::Lan(0, world::Lan::Loses)),
        (6, Move::Way(Some(1), world::Way::Loses)),
        (0, Move::Restart(0)),
        (0, Move::Crash(0)),
        (0, Move::Start(0)),
        (4, Move::Lan(0, world::Lan::Carries)),
        (3, Move::Lan(1, world::Lan::Carries)),
        (20, Move::Lan(1, world::Lan::Loses)),
    ] {
        for _ in 0..t {
            println!("{:?}", run.tick());
        }
        println!("{m:?}");
        run.make(m);
    }
}
