//! Tests of the multiboot loader.
