//! A legacy uniprocessor real-time system with a telephone exchange on it.
#![cfg_attr(target_arch = "x86", no_std, no_main)]

#[cfg(target_arch = "x86")]
pc::entry!(main);

#[cfg(target_arch = "x86")]
fn main(boot: pc::handover::Boot) -> ! {
    pc::idt::load();
    pc::println!("LX-200 real-time executive");
    for range in boot.memory_map().filter(pc::multiboot::MemoryRange::is_ram) {
        pc::println!("memory {:#x} to {:#x}", range.base, range.end());
    }
    pc::print!("rtos> ");
    if boot
        .command_line()
        .option("run")
        .is_some_and(|run| run.contains("halt"))
    {
        pc::power::off();
    }
    loop {
        if let Some(byte) = pc::serial::receive() {
            pc::serial::send(byte);
        }
    }
}

#[cfg(not(target_arch = "x86"))]
fn main() {
    eprintln!("this program is a multiboot image: build it for i586-unknown-linux-gnu and boot it");
}
