//! Links the freestanding image by its own script; a host build links as usual.

use std::{env, path::Path};

fn main() {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let script = Path::new(&folder).join("../pc/guest.ld");
    println!("cargo:rerun-if-changed={}", script.display());
    if arch == "x86" {
        println!("cargo:rustc-link-arg-bins=-T{}", script.display());
    }
}
