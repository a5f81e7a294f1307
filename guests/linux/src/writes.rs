//! Writes to memory, from every processor and from a disk, and tells which pages of physical memory that were: for an
//! operator who tracks them.

use crate::programs::Outcome;
use crate::region::{PAGE, Pages};
use std::fmt::Write;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::thread;

/// Pages in all.
const COUNT: usize = 512;
/// Pages that a processor writes at once.
const RUN: usize = 16;
/// The first of those that the disk writes.
const FROM_DISK: usize = COUNT - RUN;

/// Maps the pages, and keeps them in memory.
fn map() -> io::Result<Pages> {
    let pages = Pages::map(COUNT)?;
    // SAFETY: this program's own pages, which do not change by that.
    match unsafe { libc::mlock(pages.address(), COUNT * PAGE) } {
        0 => Ok(pages),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets the calling thread run on this processor only.
fn move_to(processor: usize) -> io::Result<()> {
    // SAFETY: a set of processors is plain bits, and `CPU_SET` stays in it.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: as above.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: the set outlives the call.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Each processor in turn writes a run of pages, another one in each round. Returns the runs' starts.
fn write_from_each(pages: Pages, processors: usize, round: usize) -> io::Result<Vec<usize>> {
    let start = move |processor| (round * 8 + processor) * 2 * RUN % FROM_DISK;
    for processor in 0..processors {
        let writer = thread::spawn(move || {
            move_to(processor)?;
            for page in start(processor)..start(processor) + RUN {
                pages.part(page, 1).write_first(round as u64);
            }
            Ok::<_, io::Error>(())
        });
        writer
            .join()
            .map_err(|_| io::Error::other("a thread has panicked"))??;
    }
    Ok((0..processors).map(start).collect())
}

/// Has a disk write a run of pages, past the page cache. Returns its start.
fn write_from_disk(pages: Pages, disk: &File) -> io::Result<usize> {
    let (into, length) = (pages.part(FROM_DISK, RUN).address(), RUN * PAGE);
    // SAFETY: the pages are this program's, and hold nothing that the compiler knows of.
    match unsafe { libc::pread(disk.as_raw_fd(), into, length, 0) } {
        count if count == length as isize => Ok(FROM_DISK),
        0.. => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The number of a page's frame of physical memory (Linux, admin-guide/mm/pagemap.rst).
fn frame(map: &File, page: Pages) -> io::Result<u64> {
    const NUMBER: u64 = (1 << 55) - 1;
    const PRESENT: u64 = 1 << 63;
    let mut entry = [0; 8];
    map.read_exact_at(&mut entry, (page.address() as usize / PAGE * 8) as u64)?;
    let entry = u64::from_le_bytes(entry);
    if entry & PRESENT == 0 || entry & NUMBER == 0 {
        return Err(io::Error::other("the kernel does not tell where a page is"));
    }
    Ok(entry & NUMBER)
}

/// Numbers as ranges, each behind a space.
fn listed(numbers: impl Iterator<Item = u64>) -> String {
    let (mut text, mut range) = (String::new(), None);
    let mut put = |range: Option<(u64, u64)>| {
        if let Some((first, last)) = range {
            // Writing to a string cannot fail.
            let _ = write!(text, " {first:#x}-{last:#x}");
        }
    };
    for number in numbers {
        range = match range {
            Some((first, last)) if last + 1 == number => Some((first, number)),
            other => {
                put(other);
                Some((number, number))
            }
        };
    }
    put(range);
    text
}

/// `writes DEVICE`: a round for each line of input, until one says `quit`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let device = arguments.first().ok_or("which device?")?;
    let disk = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(device)?;
    let map_of_frames = File::open("/proc/self/pagemap")?;
    let pages = map()?;
    let processors = thread::available_parallelism()?.get();
    println!("writes: ready, {processors} processors");
    for (round, line) in io::stdin().lines().enumerate() {
        if line? == "quit" {
            break;
        }
        let mut runs = write_from_each(pages, processors, round)?;
        runs.push(write_from_disk(pages, &disk)?);
        let frames = runs
            .into_iter()
            .flat_map(|start| start..start + RUN)
            .map(|page| frame(&map_of_frames, pages.part(page, 1)))
            .collect::<io::Result<Vec<_>>>()?;
        println!("writes: pages{} written", listed(frames.into_iter()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{FROM_DISK, RUN, listed, map, write_from_each};

    #[test]
    fn ranges_are_listed() {
        let list = listed([5, 6, 7, 9, 0x20, 0x21].into_iter());
        assert_eq!(list, " 0x5-0x7 0x9-0x9 0x20-0x21");
        assert_eq!(listed(std::iter::empty()), "");
    }

    #[test]
    fn every_processor_has_its_run() {
        let pages = map().unwrap();
        for round in 0..40 {
            for start in write_from_each(pages, 1, round).unwrap() {
                assert!(start + RUN <= FROM_DISK);
                assert_eq!(pages.part(start, 1).read_first(), round as u64);
                assert_eq!(pages.part(start + RUN - 1, 1).read_first(), round as u64);
            }
        }
    }
}
