//! Vector registers survive: several processes, each with values of its own in every register, take
//! turns.

use crate::programs::{Outcome, number};
use std::arch::asm;
use std::io;
use std::process;

const PROCESSES: u64 = 4;
const ROUNDS_DEFAULT: u64 = 20;
/// Turns that a process gives away in a round, and empty loops in which it can lose one.
const YIELDS: u64 = 25;
const SPINS: u64 = 100_000;

/// What a round loads and finds again: 32 registers of 512 bits, and 8 masks.
#[repr(C, align(64))]
#[derive(Clone, PartialEq)]
struct Registers {
    vectors: [[u64; 8]; 32],
    masks: [u64; 8],
}

/// How much of them the processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// XMM0 to XMM15.
    Sse,
    /// YMM0 to YMM15.
    Avx,
    /// ZMM0 to ZMM31 and the mask registers.
    Avx512,
}

impl Extent {
    fn of_processor() -> Self {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            Self::Avx512
        } else if is_x86_feature_detected!("avx") {
            Self::Avx
        } else {
            Self::Sse
        }
    }

    /// Registers, 64-bit words of each, and masks.
    const fn size(self) -> (usize, usize, usize) {
        match self {
            Self::Sse => (16, 2, 0),
            Self::Avx => (16, 4, 0),
            Self::Avx512 => (32, 8, 8),
        }
    }
}

impl Registers {
    const ZERO: Self = Self {
        vectors: [[0; 8]; 32],
        masks: [0; 8],
    };

    /// Values that differ in every word, and for every process and round.
    fn pattern(extent: Extent, process: u64, round: u64) -> Self {
        let mut state = (process << 32 | round) + 1;
        let mut next = || {
            // Knuth's multiplier for 64 bits (The Art of Computer Programming, volume 2, 3.3.4).
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state
        };
        let mut pattern = Self::ZERO;
        let (count, words, masks) = extent.size();
        for vector in &mut pattern.vectors[..count] {
            vector[..words].fill_with(&mut next);
        }
        pattern.masks[..masks].fill_with(&mut next);
        pattern
    }
}

/// Defines a function that loads the registers, gives turns away, spins, and stores the registers. It is
/// assembly throughout, so that no compiled code touches them meanwhile.
macro_rules! trip {
    ($name:ident, $load:literal, $store:literal) => {
        fn $name(from: &Registers, to: &mut Registers) {
            // SAFETY: the loads and stores stay within `from` and `to`, whose layout is fixed, and use only
            // registers that the caller has found the processor to have; sched_yield (24) takes no
            // arguments and changes RAX, RCX and R11 only.
            unsafe {
                asm!(
                    $load,
                    "mov r9, {yields}",
                    "2:",
                    "mov eax, 24",
                    "syscall",
                    "dec r9",
                    "jnz 2b",
                    "mov r9, {spins}",
                    "3:",
                    "dec r9",
                    "jnz 3b",
                    $store,
                    yields = const YIELDS,
                    spins = const SPINS,
                    in("rsi") from,
                    in("rdi") to,
                    clobber_abi("sysv64"),
                    options(nostack),
                );
            }
        }
    };
}

trip!(
    trip_sse,
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        movdqa xmm\\n, [rsi + 64*\\n]
    .endr",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        movdqa [rdi + 64*\\n], xmm\\n
    .endr"
);
trip!(
    trip_avx,
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        vmovdqa ymm\\n, [rsi + 64*\\n]
    .endr",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        vmovdqa [rdi + 64*\\n], ymm\\n
    .endr
    vzeroupper"
);
trip!(
    trip_avx512,
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        vmovdqa64 zmm\\n, [rsi + 64*\\n]
    .endr
    .irp n, 0,1,2,3,4,5,6,7
        kmovq k\\n, [rsi + 2048 + 8*\\n]
    .endr",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        vmovdqa64 [rdi + 64*\\n], zmm\\n
    .endr
    .irp n, 0,1,2,3,4,5,6,7
        kmovq [rdi + 2048 + 8*\\n], k\\n
    .endr
    vzeroupper"
);

/// One process's part: whether every round found what it had loaded.
fn survive(extent: Extent, process: u64, rounds: u64) -> bool {
    (0..rounds).all(|round| {
        let pattern = Registers::pattern(extent, process, round);
        let mut found = Registers::ZERO;
        match extent {
            Extent::Sse => trip_sse(&pattern, &mut found),
            Extent::Avx => trip_avx(&pattern, &mut found),
            Extent::Avx512 => trip_avx512(&pattern, &mut found),
        }
        found == pattern
    })
}

/// `vectors [ROUNDS]`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let rounds = number(arguments, 0, ROUNDS_DEFAULT)?;
    let extent = Extent::of_processor();
    let mut children = Vec::new();
    for process in 0..PROCESSES {
        // SAFETY: this process has one thread, so the child finds everything whole.
        match unsafe { libc::fork() } {
            0 => process::exit(i32::from(!survive(extent, process, rounds))),
            -1 => return Err(io::Error::last_os_error().into()),
            child => children.push(child),
        }
    }
    let mut damaged = 0;
    for child in children {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
            return Err(io::Error::last_os_error().into());
        }
        damaged += u32::from(status != 0);
    }
    println!("vectors: {PROCESSES} processes, {rounds} rounds each, {extent:?} registers");
    if damaged > 0 {
        return Err(format!("{damaged} processes lost register values").into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Extent, Registers, survive};

    #[test]
    fn patterns_fill_what_the_processor_has_and_differ() {
        let one = Registers::pattern(Extent::Avx, 1, 0);
        assert!(one.vectors[15][3] != 0 && one.vectors[15][4] == 0);
        assert!(one.vectors[16] == [0; 8] && one.masks == [0; 8]);
        assert!(one != Registers::pattern(Extent::Avx, 1, 1));
        assert!(one != Registers::pattern(Extent::Avx, 2, 0));
        let most = Registers::pattern(Extent::Avx512, 0, 0);
        assert!(most.vectors[31][7] != 0 && most.masks[7] != 0);
    }

    #[test]
    fn registers_survive_here() {
        assert!(survive(Extent::of_processor(), 3, 2));
        assert!(survive(Extent::Sse, 3, 2));
    }
}
