//! What QEMU's translator does not do as a processor does: probes that must fail there, whoever runs them.
//!
//! These are left out of the other tests on it. A test of their own runs them without a hypervisor, where each must fail
//! as the table says: so nothing of ours hides behind the translator, and we learn when it is mended.

use super::Case;
use super::lab::Lab;
use anyhow::{Context, Result};
use config::toml::BuiltImage;

/// A probe that TCG fails.
struct Lack {
    /// The probe.
    probe: &'static str,
    /// What TCG does not do.
    lacks: &'static str,
    /// How the probe's last line begins, without a hypervisor as with one.
    says: &'static str,
}

/// All of them, in the order in which they can run in one boot.
const LACKS: [Lack; 11] = [
    Lack {
        probe: "vmx-pointers",
        lacks: "raise #UD for 0F C7 /6 and /7 with an operand in memory, whatever the prefix",
        says: "probe vmx-pointers: FAILED no exception, eax: 0x8000",
    },
    Lack {
        probe: "segment-limit",
        lacks: "check the limits of segments in memory accesses",
        says: "probe segment-limit: FAILED no exception, eax: ",
    },
    Lack {
        probe: "debug-reserved",
        lacks: "keep the reserved bits 12, 14 and 15 of DR7 clear",
        says: "probe debug-reserved: FAILED dr7 became: 0xd400",
    },
    Lack {
        probe: "memory-types",
        lacks: "refuse memory types that are none in PAT",
        says: "probe memory-types: FAILED no exception, eax: 0x2",
    },
    Lack {
        probe: "canonical",
        lacks: "refuse addresses that are not canonical in SYSENTER_EIP and LSTAR",
        says: "probe canonical: FAILED no exception, eax: 0x0",
    },
    Lack {
        probe: "page-reserved",
        lacks: "tell in the error code that the entry with a reserved bit was present",
        says: "probe page-reserved: FAILED another error code: 0x8",
    },
    Lack {
        probe: "page-pointers",
        lacks: "check page-directory pointers when paging goes on",
        says: "probe page-pointers: FAILED no exception, eax: ",
    },
    Lack {
        probe: "cr0-paging-alone",
        lacks: "refuse paging without protected mode",
        says: "probe cr0-paging-alone: FAILED taken: 0x80000010",
    },
    Lack {
        probe: "cr0-cache-mode",
        lacks: "refuse CR0.NW without CR0.CD",
        says: "probe cr0-cache-mode: FAILED taken: 0x20000011",
    },
    Lack {
        probe: "task-trap",
        lacks: "raise #DB on entry to a task whose segment has the T bit set",
        says: "probe task-trap: FAILED trapped at: 0x0",
    },
    // It does not come back from this one.
    Lack {
        probe: "task-entry-fault",
        lacks: "restart the task that is entered whole after a fault of its segments",
        says: "probe: FAILED unexpected exception, vector 13 error 0x0 ",
    },
];

/// Whether TCG cannot pass this probe.
pub(super) fn is_lacking(probe: &str) -> bool {
    LACKS.iter().any(|lack| lack.probe == probe)
}

/// The test.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "probe-natively",
            "without a hypervisor too, QEMU's translator fails the probes that are left out on it",
            60,
            natively,
        )
        .on_qemu(),
    ]
}

fn natively(lab: &Lab) -> Result<()> {
    // The processors that KVM uses lack none of this, and no other test leaves a probe out on them.
    if !lab.is_tcg() {
        return Ok(());
    }
    let probes = LACKS.map(|lack| lack.probe).join(" ");
    let mut session = lab.boot_natively(BuiltImage::Probes, &probes)?;
    for Lack { probe, lacks, says } in &LACKS {
        let said = session.expect_unless(says, ": passed");
        said.with_context(|| format!("{probe} does not fail as it did: does TCG now {lacks}?"))?;
    }
    Ok(())
}
