//! COM1 in both directions.

use pc::{handover::Boot, print, println, serial};

use crate::probe::Verdict;

/// Gives each line back, until one says `quit`.
pub(crate) fn echo(_: &Boot) -> Verdict {
    println!("probe console: ready");
    let mut line = [0_u8; 80];
    loop {
        let mut length = 0;
        loop {
            match serial::receive() {
                None => core::hint::spin_loop(),
                Some(b'\r' | b'\n') => break,
                Some(byte) => {
                    if let Some(place) = line.get_mut(length) {
                        *place = byte;
                        length += 1;
                    }
                }
            }
        }
        match &line[..length] {
            b"" => {}
            b"quit" => return Ok(()),
            text => {
                print!("probe console: echo ");
                text.iter().copied().for_each(serial::send);
                println!();
            }
        }
    }
}
