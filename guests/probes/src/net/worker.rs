//! A guest that sends and receives frames as it is told.

use pc::handover::Boot;

use super::{COMMAND, Came, Command, Work, card::Card, ethernet};
use crate::{bench, probe::Verdict};

/// Works until the guest is stopped. It does not look into frames that are no commands.
pub(crate) fn work(_: &Boot) -> Verdict {
    bench::start_apic();
    let mut card = Card::start()?;
    let mac = card.mac;
    let mut came = Came::default();
    loop {
        let command = card.take(|frame| {
            if frame.length == COMMAND {
                let bytes: [u8; 20] = frame.read();
                return Command::read(&bytes).map(|command| (command, bytes[11]));
            }
            came.frames += 1;
            came.bytes += frame.length as u32;
            None
        });
        match command {
            None => card.wait(),
            Some(None) => {}
            Some(Some((command, by))) => match command.work {
                Work::Report => {
                    card.fill(&came.frame(by, mac));
                    card.send(1, COMMAND as u32, false);
                    came = Came::default();
                }
                Work::Each | Work::Batch => {
                    card.fill(&ethernet(command.to, mac));
                    let each = command.work == Work::Each;
                    card.send(command.frames, command.length.into(), each);
                }
            },
        }
    }
}
