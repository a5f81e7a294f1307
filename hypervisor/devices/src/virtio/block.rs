//! The disk (5.2).
//!
//! Requests are done in their order, each in pieces: a budget may end in the middle of one.

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use super::chain::Chain;
use super::model::QUEUE_SIZE;
use super::{Budget, Disk, Fault, Progress};
use crate::pc::{DiskError, Effects, StateError};

/// Bytes of a sector.
pub const SECTOR: u32 = 512;

/// Bytes of a request's header: type, reserved, sector.
const HEADER: usize = 16;
/// Bytes of the answer to a request for the identity.
const IDENTITY: usize = 20;
/// What a request costs, in units of a budget, beside its data and descriptors.
const REQUEST_COST: u32 = 256;

bitflags! {
    /// Features (5.2.3).
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct Features: u64 {
        /// The configuration has the number of buffers a request may have.
        const SEG_MAX = 1 << 2;
        /// The disk cannot be written.
        const RO = 1 << 5;
        /// The configuration has the size of a block.
        const BLK_SIZE = 1 << 6;
        /// There are requests to flush.
        const FLUSH = 1 << 9;
    }
}

/// How a request ended (5.2.6).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Status {
    Ok = 0,
    Error = 1,
    Unsupported = 2,
}

/// What a request asks for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Flush,
    Identity,
}

impl Kind {
    const fn decode(kind: u32) -> Option<Self> {
        match kind {
            0 => Some(Self::Read),
            1 => Some(Self::Write),
            4 => Some(Self::Flush),
            8 => Some(Self::Identity),
            _ => None,
        }
    }
}

/// The saved state of a transfer in progress. How much of it is left is what the chain has left.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestStateV1 {
    /// Whether it writes to the disk.
    pub write: bool,
    /// The byte of the disk at which it goes on.
    pub offset: u64,
}

/// The saved state of a disk; what is on it is not part of this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockStateV1 {
    /// The transfer in progress.
    pub request: Option<RequestStateV1>,
}

/// A disk.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// Which of the board's disks it is.
    number: u8,
    disk: Disk,
    request: Option<RequestStateV1>,
}

impl Block {
    pub(super) const fn new(number: u8, disk: Disk) -> Self {
        Self {
            number,
            disk,
            request: None,
        }
    }

    pub(super) fn features(&self) -> u64 {
        let mut features = Features::all();
        if !self.disk.read_only {
            features.remove(Features::RO);
        }
        features.bits()
    }

    /// The configuration (5.2.4).
    pub(super) fn configuration(&self, offset: u16) -> u32 {
        // Header and status take a buffer each.
        const SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
        match offset {
            0x00 => self.disk.sectors as u32,
            0x04 => (self.disk.sectors >> 32) as u32,
            0x0C => SEGMENTS,
            0x14 => SECTOR,
            _ => 0,
        }
    }

    pub(super) fn reset(&mut self) {
        self.request = None;
    }

    /// Works on a request, from its start or from where it was left.
    pub(super) fn serve(
        &mut self,
        chain: &mut Chain,
        budget: &mut Budget,
        effects: &mut impl Effects,
    ) -> Result<Progress, Fault> {
        let request = match self.request {
            Some(request) => request,
            None => {
                budget.spend(REQUEST_COST);
                match self.begin(chain, effects)? {
                    Ok(request) => request,
                    Err(status) => return finish(chain, status, effects),
                }
            }
        };
        self.request = None;
        match self.transfer(request, chain, budget, effects) {
            Ok(None) => finish(chain, Status::Ok, effects),
            Ok(Some(rest)) => {
                self.request = Some(rest);
                Ok(Progress::More)
            }
            Err(DiskError::Disk) => finish(chain, Status::Error, effects),
            Err(DiskError::Memory(outside)) => Err(outside.into()),
        }
    }

    /// Reads the header. A request that ends at once is answered by its status.
    fn begin(
        &self,
        chain: &mut Chain,
        effects: &mut impl Effects,
    ) -> Result<Result<RequestStateV1, Status>, Fault> {
        let mut header = [0; HEADER];
        if chain.read(&mut header, effects)? < HEADER || chain.to_write() == 0 {
            return Err(Fault::Request);
        }
        let header = u128::from_le_bytes(header);
        let sector = (header >> 64) as u64;
        let Some(kind) = Kind::decode(header as u32) else {
            return Ok(Err(Status::Unsupported));
        };
        let (write, length) = match kind {
            Kind::Read => (false, chain.to_write() - 1),
            Kind::Write => (true, chain.to_read()),
            Kind::Flush => {
                let flushed = effects.flush_disk(self.number);
                return Ok(Err(flushed.map_or(Status::Error, |()| Status::Ok)));
            }
            Kind::Identity => {
                let identity = self.identity();
                let room = (chain.to_write() - 1).min(IDENTITY as u32) as usize;
                chain.write(identity.get(..room).unwrap_or(&identity), effects)?;
                return Ok(Err(Status::Ok));
            }
        };
        let possible = length.is_multiple_of(SECTOR)
            && !(write && self.disk.read_only)
            && sector
                .checked_add(u64::from(length / SECTOR))
                .is_some_and(|end| end <= self.disk.sectors);
        // A disk has less than 2^64 bytes.
        match sector.checked_mul(u64::from(SECTOR)) {
            Some(offset) if possible => Ok(Ok(RequestStateV1 { write, offset })),
            _ => Ok(Err(Status::Error)),
        }
    }

    /// Moves data until there is none left, or no budget; returns what is left to do.
    fn transfer(
        &self,
        mut request: RequestStateV1,
        chain: &mut Chain,
        budget: &mut Budget,
        effects: &mut impl Effects,
    ) -> Result<Option<RequestStateV1>, DiskError> {
        loop {
            let left = if request.write {
                chain.to_read()
            } else {
                // The last byte is the status's.
                chain.to_write().saturating_sub(1)
            };
            if left == 0 {
                return Ok(None);
            }
            let limit = left.min(budget.left());
            let piece = if request.write {
                chain.next_readable(limit)
            } else {
                chain.next_writable(limit)
            };
            // Something is left, so only the budget can be at its end.
            let Some(piece) = piece else {
                return Ok(Some(request));
            };
            budget.spend(piece.length);
            let (number, offset) = (self.number, request.offset);
            if request.write {
                effects.write_disk(number, offset, piece)?;
            } else {
                effects.read_disk(number, offset, piece)?;
            }
            request.offset = request.offset.saturating_add(u64::from(piece.length));
        }
    }

    /// What a request for the identity reads: "disk" and a number.
    fn identity(&self) -> [u8; IDENTITY] {
        let mut identity = [0; IDENTITY];
        let digits = [b'0' + self.number / 10 % 10, b'0' + self.number % 10];
        for (to, from) in identity.iter_mut().zip(b"disk".iter().chain(&digits)) {
            *to = *from;
        }
        identity
    }

    pub(super) fn save(&self) -> BlockStateV1 {
        BlockStateV1 {
            request: self.request,
        }
    }

    /// Takes on a saved state; a request is in progress while its chain is.
    pub(super) fn restore(&mut self, state: &BlockStateV1, busy: bool) -> Result<(), StateError> {
        let capacity = self.disk.sectors.saturating_mul(u64::from(SECTOR));
        let possible = |request: RequestStateV1| {
            request.offset <= capacity && !(request.write && self.disk.read_only)
        };
        if state.request.is_some() != busy || !state.request.is_none_or(possible) {
            return Err(StateError::Invalid("virtio: disk request"));
        }
        self.request = state.request;
        Ok(())
    }
}

fn finish(
    chain: &mut Chain,
    status: Status,
    effects: &mut impl Effects,
) -> Result<Progress, Fault> {
    chain.write_last(status as u8, effects)?;
    Ok(Progress::Done)
}
