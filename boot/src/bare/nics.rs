//! The board's network cards.

use super::BootError;
use super::paging::AddressSpace;
use alloc::vec::Vec;
use drivers::nic::{Candidate, Found};
use drivers::pci;
use hypervisor::memory::PhysicalMemory;
use log::{info, warn};

/// Finds the cards that there is a driver for, and maps their registers.
pub(super) fn find(
    tables: &mut AddressSpace,
    memory: &mut PhysicalMemory,
    tsc_hz: u64,
) -> Result<Vec<Found>, BootError> {
    // SAFETY: nothing else on the board uses these ports; guests have ports of their own.
    let configuration = unsafe { pci::configuration() };
    let mut found = Vec::new();
    for function in pci::enumerate(configuration) {
        let Some(candidate) = Candidate::recognise(&function) else {
            continue;
        };
        let (model, address) = (candidate.model(), candidate.address());
        let registers = tables.map_device(candidate.registers(), memory)?;
        // SAFETY: mapped just now for good, at the addresses that the firmware gave the card.
        match unsafe { candidate.attach(registers, tsc_hz) } {
            Ok(nic) => {
                let [a, b, c, d, e, f] = nic.mac();
                info!(
                    "network: {model} at {address}, {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"
                );
                found.push(nic);
            }
            Err(error) => warn!("network: {model} at {address} cannot be used: {error}"),
        }
    }
    Ok(found)
}
