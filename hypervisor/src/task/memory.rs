//! Guest memory by linear address, as the processor reaches its tables: with supervisor rights, whatever
//! the privilege level.

use super::{Fault, Stop, vector};
use crate::memory::{GuestMemory, OutOfBounds};
use crate::translate::{Access, translate};
use core::ops::Range;
use vcpu::Paging;

const PAGE: u32 = 4096;

/// Guest memory under one paging configuration.
pub(crate) struct View<'a> {
    pub(crate) paging: Paging,
    pub(crate) memory: &'a GuestMemory,
}

impl View<'_> {
    pub(super) fn read(&self, linear: u32, into: &mut [u8]) -> Result<(), Stop> {
        let how = Access {
            write: false,
            user: false,
        };
        self.by_pages(linear, into.len() as u32, how, |memory, physical, part| {
            memory.read(physical, &mut into[part])
        })
    }

    pub(super) fn write(&self, linear: u32, from: &[u8]) -> Result<(), Stop> {
        self.write_as(linear, from, false)
    }

    /// Writes with the rights of user or supervisor mode. All of it can be written, or nothing is.
    pub(super) fn write_as(&self, linear: u32, from: &[u8], user: bool) -> Result<(), Stop> {
        let how = Access { write: true, user };
        self.check(linear, from.len() as u32, how)?;
        self.by_pages(linear, from.len() as u32, how, |memory, physical, part| {
            memory.write(physical, &from[part])
        })
    }

    /// Whether so many bytes can be written.
    pub(super) fn check_write(&self, linear: u32, length: u32) -> Result<(), Stop> {
        let how = Access {
            write: true,
            user: false,
        };
        self.check(linear, length, how)
    }

    fn check(&self, linear: u32, length: u32, how: Access) -> Result<(), Stop> {
        self.by_pages(linear, length, how, |memory, physical, part| {
            let length = part.len() as u64;
            if memory.contains(physical, length) {
                Ok(())
            } else {
                Err(OutOfBounds {
                    address: physical,
                    length,
                })
            }
        })
    }

    fn by_pages(
        &self,
        linear: u32,
        length: u32,
        how: Access,
        mut access: impl FnMut(&GuestMemory, u64, Range<usize>) -> Result<(), OutOfBounds>,
    ) -> Result<(), Stop> {
        let mut done = 0;
        while done < length {
            let at = linear.wrapping_add(done);
            let part = (PAGE - at % PAGE).min(length - done);
            let physical =
                translate(&self.paging, self.memory, u64::from(at), how).map_err(|fault| {
                    Stop::Fault(Fault {
                        vector: vector::PAGE,
                        code: fault.code,
                        linear: Some(at),
                    })
                })?;
            let range = done as usize..(done + part) as usize;
            access(self.memory, physical, range).map_err(|error| Stop::Outside(error.address))?;
            done += part;
        }
        Ok(())
    }
}
