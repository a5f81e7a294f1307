//! What CPUID tells a guest.

use pc::{cpu, handover::Boot, println};

use crate::probe::{Verdict, ensure};

const LEAVES: &[(u32, u32)] = &[
    (0, 0),
    (1, 0),
    (2, 0),
    (4, 0),
    (6, 0),
    (7, 0),
    (0xa, 0),
    (0xb, 0),
    (0xd, 0),
    (0xd, 1),
    (0x15, 0),
    (0x16, 0),
    (0x4000_0000, 0),
    (0x4000_0001, 0),
    (0x8000_0000, 0),
    (0x8000_0001, 0),
    (0x8000_0007, 0),
    (0x8000_0008, 0),
    (0x8000_000a, 0),
];

/// The hypervisor's leaves: signature and timing, and those of the second signature.
const HYPERVISOR: [u32; 4] = [0x4000_0000, 0x4000_0010, 0x4000_0100, 0x4000_0101];

/// Asks for leaves that are not there. None tells anything, whatever the sub-leaf.
fn scan() -> Verdict {
    let mut absent = 0_u32;
    for base in [
        0,
        0x2000_0000,
        0x4000_0000,
        0x8000_0000,
        0x8086_0000,
        0xc000_0000,
    ] {
        let shown = match base {
            0 | 0x8000_0000 => base..cpu::cpuid(base, 0)[0] + 1,
            _ => base..base,
        };
        for leaf in base..base + 0x200 {
            if shown.contains(&leaf) || HYPERVISOR.contains(&leaf) {
                continue;
            }
            for sub_leaf in [0, 1, 7, 0x3f, u32::MAX] {
                let told = cpu::cpuid(leaf, sub_leaf) != [0; 4];
                ensure(!told, "a leaf that is not there tells something", leaf)?;
            }
            absent += 1;
        }
    }
    for (leaf, sub_leaf) in [
        (7, 1),
        (7, u32::MAX),
        (0xd, 0x3f),
        (0xd, u32::MAX),
        (0xb, 9),
    ] {
        let [a, b, ..] = cpu::cpuid(leaf, sub_leaf);
        ensure(
            a | b == 0,
            "a sub-leaf that is not there tells something",
            leaf,
        )?;
    }
    println!("probe cpuid: {absent} leaves that are not there");
    Ok(())
}

/// Prints the leaves and checks what must hold between them.
pub(crate) fn leaves(_: &Boot) -> Verdict {
    let highest = |base: u32| cpu::cpuid(base, 0)[0];
    let mut digest = 0x811c_9dc5_u32;
    for &(leaf, subleaf) in LEAVES {
        let base = leaf & 0xf000_0000;
        if leaf > base && leaf > highest(base) {
            continue;
        }
        let values = cpu::cpuid(leaf, subleaf);
        let [a, b, c, d] = values;
        println!(
            "probe cpuid: {leaf:08x}.{subleaf} eax {a:08x} ebx {b:08x} ecx {c:08x} edx {d:08x}"
        );
        for byte in values.iter().flat_map(|value| value.to_le_bytes()) {
            digest = (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }
    println!("probe cpuid: digest {digest:08x}");
    scan()?;
    let [_, _, c, _] = cpu::cpuid(1, 0);
    ensure(c & 1 << 5 == 0, "vmx is shown, leaf 1 ecx", c)?;
    if highest(0x8000_0000) >= 0x8000_0001 {
        let [_, _, extended, _] = cpu::cpuid(0x8000_0001, 0);
        ensure(
            extended & 1 << 2 == 0,
            "svm is shown, leaf 80000001 ecx",
            extended,
        )?;
    }
    let virtual_highest = highest(0x4000_0000);
    let announced = c & 1 << 31 != 0;
    let present = (0x4000_0000..0x4001_0000).contains(&virtual_highest);
    ensure(
        announced == present,
        "the hypervisor bit does not fit leaf 40000000, eax",
        virtual_highest,
    )
}
