//! The first program of a boot that is measured: tells the time-stamp counter, and waits to be put
//! away.

use crate::cpu;
use crate::programs::Outcome;
use std::thread;

/// Never returns: the first program must not end.
pub(crate) fn run(_: &[String]) -> Outcome {
    let tsc = cpu::tsc();
    println!("bootmark: tsc {tsc}");
    loop {
        thread::park();
    }
}
