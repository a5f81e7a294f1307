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
