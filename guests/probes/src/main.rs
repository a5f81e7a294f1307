//! Small guests that probe or attack the hypervisor. The first word of the command line chooses one.
#![cfg_attr(target_arch = "x86", no_std, no_main)]

#[cfg(target_arch = "x86")]
pc::entry!(main);

#[cfg(target_arch = "x86")]
fn main(boot: pc::handover::Boot) -> ! {
    match boot.command_line().words().next().unwrap_or("none") {
        "triple-fault" => {
            pc::println!("probe triple-fault: about to triple-fault");
            pc::serial::drain();
            pc::power::triple_fault()
        }
        name => {
            pc::println!("probe {name}: FAILED unknown probe");
            pc::power::off()
        }
    }
}

#[cfg(not(target_arch = "x86"))]
fn main() {
    eprintln!("this program is a multiboot image: build it for i586-unknown-linux-gnu and boot it");
}
