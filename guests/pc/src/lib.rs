//! Stub.
#![cfg_attr(target_arch = "x86", no_std)]
