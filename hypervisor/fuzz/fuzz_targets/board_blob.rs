//! Board descriptions with an arbitrary payload behind a header that is right, so that the parser
//! behind the checksum is reached: refused, or a board that obeys every limit.
#![no_main]

use config::blob::{MAGIC, VERSION, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let mut blob = MAGIC.to_vec();
    blob.extend_from_slice(&VERSION.to_le_bytes());
    blob.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&blob);
    crc.update(payload);
    blob.extend_from_slice(&crc.finalize().to_le_bytes());
    blob.extend_from_slice(payload);
    if let Ok(board) = decode(&blob) {
        assert!(board.validate().is_ok());
    }
});
