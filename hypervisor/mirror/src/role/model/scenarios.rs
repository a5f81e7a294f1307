#[test]
fn debug_steady() {
    use super::world::*;
    let mut run = Run::new(super::HOLD, Mutant::None);
    for _ in 0..60 {
        run.tick().unwrap();
        println!(
            "{:?} {:?} {:?} {:?}",
            run.role(0),
            run.role(1),
            run.serves(0),
            run.serves(1)
        );
    }
    println!("{:#?}", run.seen());
    run.tick().unwrap();
    println!("{:#?}", run.seen());
}
