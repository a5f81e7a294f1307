//! The witness's machine.

use crate::blade::key;
use crate::scenario::Mutation;
use mirror::witness::{ASK_BYTES, Ask, Ledger, Pair};
use mirror::{Epoch, Kind, OVERHEAD, Opener, Path, Sealer, Sender, Term};

/// A witness whose disk is a line of text.
pub(crate) struct Witness {
    disk: String,
    sealer: Sealer,
    opener: Opener,
    grants_all: bool,
    pub(crate) reachable: bool,
}

impl Witness {
    pub(crate) fn new(mutation: Option<Mutation>) -> Self {
        let ledger = Ledger::new(Pair(key().id()));
        Self {
            disk: ledger.to_string(),
            sealer: Sealer::outside_sessions(&key(), Sender::Witness, Path::Lan),
            opener: Opener::outside_sessions(&key(), Path::Lan),
            grants_all: mutation == Some(Mutation::GrantsTwice),
            reachable: true,
        }
    }

    /// Starts anew with what is on its disk.
    pub(crate) fn restart(&mut self) {
        self.sealer = Sealer::outside_sessions(&key(), Sender::Witness, Path::Lan);
    }

    /// Answers a datagram, if it is a question.
    pub(crate) fn answer(&mut self, datagram: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let Ok(frame) = self.opener.open(datagram) else {
            return Ok(None);
        };
        let body: Option<&[u8; ASK_BYTES]> = frame.body.try_into().ok();
        let Some(ask) = body
            .filter(|_| frame.kind == Kind::Ask)
            .and_then(Ask::decode)
        else {
            return Err("a board asks the witness what is no question".into());
        };
        let ledger: Ledger = self
            .disk
            .parse()
            .map_err(|error| format!("the witness's ledger cannot be read: {error}"))?;
        let Some((mut answer, next)) = ledger.decide(&ask) else {
            return Ok(None);
        };
        self.disk = next.to_string();
        answer.granted |= self.grants_all;
        let body = answer.encode();
        let mut out = vec![0; OVERHEAD + body.len()];
        let length = self
            .sealer
            .seal(Term::default(), Epoch::default(), &mut out, |to| {
                to.get_mut(..body.len())?.copy_from_slice(&body);
                Some((Kind::Answer, body.len()))
            });
        Ok(length.map(|length| {
            out.truncate(length);
            out
        }))
    }
}
