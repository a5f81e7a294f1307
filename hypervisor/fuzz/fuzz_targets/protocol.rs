//! Arbitrary datagrams as questions and answers: each is refused, or means what is written the same way again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{Answer, Question};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(question) = Question::decode(bytes) {
        assert_eq!(&*question.encode(), bytes);
        assert!(Answer::decode(bytes).is_err());
    }
    if let Ok(answer) = Answer::decode(bytes) {
        assert_eq!(&*answer.encode(), bytes);
    }
});
