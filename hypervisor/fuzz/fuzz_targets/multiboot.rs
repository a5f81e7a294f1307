//! The multiboot loader on arbitrary images: it loads or refuses, and an accepted entry point lies
//! in the guest's memory.
#![no_main]

use hypervisor::loader::{Module, multiboot};
use hypervisor::memory::GuestMemory;
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use vcpu::DirectMap;

const SIZE: usize = 4 << 20;

thread_local! {
    static MEMORY: RefCell<GuestMemory> = {
        let block = Vec::leak(vec![0_u8; SIZE]);
        // SAFETY: the block is leaked, so it lives on and nobody else uses it.
        let memory = unsafe { GuestMemory::new(DirectMap::new(0), block.as_mut_ptr() as u64, SIZE as u64) };
        RefCell::new(memory)
    };
}

fuzz_target!(|image: &[u8]| {
    MEMORY.with_borrow_mut(|memory| {
        let modules = [Module {
            bytes: &[1, 2, 3],
            command_line: "module",
        }];
        if let Ok(loaded) = multiboot::load(image, "command line", &modules, memory) {
            assert!(loaded.finish(memory).is_ok());
            memory.scrub(0..u64::MAX);
        }
    });
});
