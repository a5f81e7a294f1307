//! Programs of the Linux guest, in one file as BusyBox has them: the name it is called by says which.
//!
//! Each prints lines that begin with its name, the last of them `NAME: ok` or `NAME: FAILED: reason`.
//! They are linked statically, as the guest has no libraries.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod bootmark;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod clockcheck;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod cpu;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod disktest;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod gateway;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod idlecheck;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod load;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod programs;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod region;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tlb;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod udpecho;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod vectors;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod writes;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    programs::main()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    eprintln!("these programs are for a 64-bit Linux on a PC");
}
