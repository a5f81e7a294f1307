//! The saved state of a whole machine beside its memory, as bytes.

use super::local::{Local, LocalStateV1};
use super::mailbox::MailboxStateV1;
use super::{Machine, StartFailure};
use alloc::vec::Vec;
use devices::lapic::LocalApicConfig;
use devices::{Pc, PcStateV1};
use serde::{Deserialize, Serialize};
use vcpu::VcpuStateV1;

/// What a vCPU was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ActivityV1 {
    WaitForStartUp,
    Running,
    Halted,
    Dead,
}

/// The saved state of a vCPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VirtualCpuStateV1 {
    pub(super) activity: ActivityV1,
    /// There unless it waits for its start.
    pub(super) processor: Option<VcpuStateV1>,
    pub(super) local: LocalStateV1,
    pub(super) mailbox: MailboxStateV1,
}

impl VirtualCpuStateV1 {
    /// The state of a vCPU that waits for its start-up IPI, as all but the first do at first.
    pub(super) fn waiting(apic: Option<LocalApicConfig>) -> Self {
        Self {
            activity: ActivityV1::WaitForStartUp,
            processor: None,
            local: Local::new(apic).save(),
            mailbox: MailboxStateV1::default(),
        }
    }
}

/// The saved state of a machine. Times in it are guest times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MachineStateV1 {
    devices: PcStateV1,
    vcpus: Vec<VirtualCpuStateV1>,
}

/// Collects the state of a machine whose vCPUs have left theirs, all being parked; `None` where one is missing.
pub(super) fn collect(machine: &Machine) -> Option<MachineStateV1> {
    let vcpus = machine.vcpus.iter().map(|port| {
        let mut state = port.saved.lock().take()?;
        // What came after its owner had looked for the last time.
        state.mailbox = port.mailbox.save();
        Some(state)
    });
    Some(MachineStateV1 {
        vcpus: vcpus.collect::<Option<_>>()?,
        devices: machine.devices.lock().save(),
    })
}

/// The same as bytes.
///
/// # Errors
///
/// [`StartFailure`] where a vCPU's state is missing or cannot be written as bytes.
pub(super) fn save(machine: &Machine) -> Result<Vec<u8>, StartFailure> {
    let state =
        collect(machine).ok_or_else(|| StartFailure("a virtual processor left no state".into()))?;
    Ok(postcard::to_allocvec(&state)?)
}

/// Reads a saved state: devices and vCPUs.
///
/// # Errors
///
/// [`StartFailure`] for bytes that are not a state of this machine, or of one that this board cannot go on with.
pub(super) fn read(
    machine: &Machine,
    bytes: &[u8],
) -> Result<(Pc, Vec<VirtualCpuStateV1>), StartFailure> {
    let state: MachineStateV1 = postcard::from_bytes(bytes)?;
    if state.vcpus.len() != machine.vcpus.len() {
        return Err(StartFailure(alloc::format!(
            "the saved state has {} virtual processors, the guest {}",
            state.vcpus.len(),
            machine.vcpus.len()
        )));
    }
    let devices = Pc::restore(machine.pc_config(0), state.devices)?;
    Ok((devices, state.vcpus))
}

/// Puts a saved state into the machine, all of whose vCPUs are parked: their owners take theirs when the run begins.
/// The devices are returned, to begin the run with.
///
/// # Errors
///
/// As [`read`].
pub(super) fn restore(machine: &Machine, bytes: &[u8]) -> Result<Pc, StartFailure> {
    let (devices, vcpus) = read(machine, bytes)?;
    for (port, vcpu) in machine.vcpus.iter().zip(vcpus) {
        *port.saved.lock() = Some(vcpu);
    }
    Ok(devices)
}
