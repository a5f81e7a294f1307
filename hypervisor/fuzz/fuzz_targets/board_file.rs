//! Board files of arbitrary text: refused with errors, or valid and unchanged by the blob.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok((board, _)) = config::toml::parse(text, "fuzz.toml", None) {
        assert!(board.validate().is_ok());
        assert_eq!(
            config::blob::decode(&config::blob::encode(&board)).as_ref(),
            Ok(&board)
        );
    }
});
