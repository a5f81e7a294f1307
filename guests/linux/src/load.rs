//! Keeps processors, disk and console busy for a while.

use crate::disktest::Disk;
use crate::programs::{Outcome, number};
use std::io;
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

const SECONDS_DEFAULT: u64 = 10;
const DISK: &str = "/dev/vda";
const DISK_MIB: u64 = 2;
/// Bytes that each processor's thread goes through in turn: more than a second-level cache.
const MEMORY: usize = 4 << 20;
/// Between two lines on the console.
const LINE_EVERY: Duration = Duration::from_millis(10);

/// Reads and writes memory, and returns how often it went through all of it.
fn exercise_memory(end: Instant) -> u64 {
    let mut words = vec![1_u64; MEMORY / 8];
    let mut rounds = 0;
    while Instant::now() < end {
        let mut sum: u64 = rounds;
        for word in &mut words {
            sum = sum.rotate_left(5).wrapping_add(*word);
            *word = sum;
        }
        rounds += 1;
    }
    rounds
}

/// Writes and verifies the disk, and returns how many times.
fn exercise_disk(end: Instant) -> io::Result<u64> {
    let mut disk = Disk::open(DISK, DISK_MIB)?;
    let mut passes = 0;
    while Instant::now() < end {
        passes += 1;
        disk.write(passes)?;
        disk.verify(passes)?;
    }
    Ok(passes)
}

/// Says something again and again, and returns how often.
fn exercise_console(end: Instant) -> u64 {
    let mut lines = 0;
    while Instant::now() < end {
        lines += 1;
        println!(
            "load: line {lines} of a text that keeps the serial port busy, as a system's log would"
        );
        thread::sleep(LINE_EVERY);
    }
    lines
}

/// `load [SECONDS]`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let end = Instant::now() + Duration::from_secs(number(arguments, 0, SECONDS_DEFAULT)?);
    let processors = thread::available_parallelism()?.get();
    let has_disk = Path::new(DISK).exists();
    thread::scope(|scope| {
        let memory: Vec<_> = (0..processors)
            .map(|_| scope.spawn(move || exercise_memory(end)))
            .collect();
        let disk = has_disk.then(|| scope.spawn(move || exercise_disk(end)));
        let lines = exercise_console(end);
        let rounds: u64 = memory
            .into_iter()
            .map(|thread| thread.join().unwrap_or(0))
            .sum();
        let passes = match disk.map(ScopedJoinHandle::join) {
            None => "no disk".to_owned(),
            Some(Ok(passes)) => format!("{} passes over the disk", passes?),
            Some(Err(_)) => return Err("the disk's thread has panicked".into()),
        };
        println!("load: {rounds} rounds of {processors} processors, {passes}, {lines} lines");
        Ok(())
    })
}
