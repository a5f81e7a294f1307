//! Multiboot kernels (Multiboot Specification 0.6.96): ELF32 images and images with address fields.
//!
//! The image is untrusted: each offset, size and address is checked, and a bad image gets an error
//! that names the cause.
//!
//! Guest memory after loading: the boot information lies in low memory at [`INFO`], below the
//! reserved top kilobyte; the kernel where its image says; the modules behind the kernel, page-aligned.

use super::{
    AVAILABLE, HOLE, LOW_MEMORY_END, Loaded, MIB, Module, PAGE, RESERVED, write_bios_data_area,
};
use crate::memory::GuestMemory;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;
use elf::ElfBytes;
use elf::abi::{EM_386, ET_EXEC, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::Class;
use vcpu::StartState;

/// What a kernel finds in EAX (section 3.2).
const BOOT_MAGIC: u32 = 0x2bad_b002;
/// Section 3.1.1.
const HEADER_MAGIC: u32 = 0x1bad_b002;
const HEADER_SEARCH: usize = 8192;

/// Header flags that a loader must understand or refuse: bits 0 to 15.
const REQUIRED_KNOWN: u32 = PAGE_ALIGN | MEMORY_INFO | VIDEO_MODE;
const REQUIRED_MASK: u32 = 0xffff;
const PAGE_ALIGN: u32 = 1 << 0;
const MEMORY_INFO: u32 = 1 << 1;
const VIDEO_MODE: u32 = 1 << 2;
const ADDRESS_FIELDS: u32 = 1 << 16;

/// Flags of the boot information (section 3.3).
const INFO_MEMORY: u32 = 1 << 0;
const INFO_COMMAND_LINE: u32 = 1 << 2;
const INFO_MODULES: u32 = 1 << 3;
const INFO_MEMORY_MAP: u32 = 1 << 6;
const INFO_LOADER_NAME: u32 = 1 << 9;

const LOADER_NAME: &[u8] = b"Understudy\0";

/// Where the boot information lies.
const INFO: u64 = 0x9_0000;

/// Why an image cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// No multiboot header in the first 8 KiB.
    NoHeader,
    /// The header asks for features that this loader does not have.
    UnknownFlags(u32),
    /// The address fields contradict each other or the image.
    BadAddressFields,
    /// The image is not an ELF file that can be parsed.
    BadElf,
    /// The image is an ELF file for another machine or of another kind than a 32-bit x86 executable.
    NotI386Executable,
    /// A segment's file part lies outside the image.
    SegmentOutsideImage,
    /// Nothing to load.
    NoSegments,
    /// The entry point is in no segment.
    EntryOutsideSegments(u32),
    /// The image does not fit into the guest's memory.
    DoesNotFit {
        /// First byte needed.
        start: u64,
        /// Behind the last byte needed.
        end: u64,
    },
    /// The image lies where the boot information must be.
    OverlapsBootInformation {
        /// First byte of the segment.
        start: u64,
        /// Behind its last byte.
        end: u64,
    },
    /// Command lines and module list are too long for low memory.
    BootInformationTooLarge,
    /// The modules do not fit behind the kernel.
    ModulesDoNotFit,
    /// The guest has less than 2 MiB of memory.
    TooLittleMemory,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeader => write!(f, "the image has no multiboot header in its first 8 KiB"),
            Self::UnknownFlags(flags) => {
                write!(
                    f,
                    "the multiboot header demands unknown features (flags {flags:#x})"
                )
            }
            Self::BadAddressFields => {
                write!(
                    f,
                    "the multiboot header's address fields contradict the image"
                )
            }
            Self::BadElf => write!(f, "the image is not a readable ELF file"),
            Self::NotI386Executable => write!(f, "the image is not a 32-bit x86 ELF executable"),
            Self::SegmentOutsideImage => {
                write!(
                    f,
                    "a segment lies outside the image file (is it truncated?)"
                )
            }
            Self::NoSegments => write!(f, "the image has nothing to load"),
            Self::EntryOutsideSegments(entry) => {
                write!(f, "the entry point {entry:#x} is in no segment")
            }
            Self::DoesNotFit { start, end } => {
                write!(
                    f,
                    "the image needs memory {start:#x} to {end:#x}, which the guest does not have"
                )
            }
            Self::OverlapsBootInformation { start, end } => write!(
                f,
                "the image occupies {start:#x} to {end:#x}, where the boot information must be"
            ),
            Self::BootInformationTooLarge => write!(f, "the command lines are too long"),
            Self::ModulesDoNotFit => write!(f, "the modules do not fit into the guest's memory"),
            Self::TooLittleMemory => write!(f, "the guest has less than 2 MiB of memory"),
        }
    }
}

impl core::error::Error for LoadError {}

/// A piece of the image and where it goes.
struct Segment<'a> {
    bytes: &'a [u8],
    start: u64,
    /// Bytes in memory; what the file does not fill is zero.
    size: u64,
}

impl Segment<'_> {
    fn end(&self) -> u64 {
        self.start + self.size
    }
}

struct Plan<'a> {
    segments: Vec<Segment<'a>>,
    eip: u32,
}

/// Finds room for `image` and its modules in `memory`, which must be scrubbed, and writes what the
/// kernel is told there.
///
/// # Errors
///
/// [`LoadError`]; the guest's memory is then in no defined state.
pub fn load<'a>(
    image: &'a [u8],
    command_line: &str,
    modules: &[Module<'a, '_>],
    memory: &GuestMemory,
) -> Result<Loaded<'a>, LoadError> {
    if memory.size() < 2 * MIB {
        return Err(LoadError::TooLittleMemory);
    }
    let plan = plan(image)?;
    let mut end = MIB;
    let mut copies = VecDeque::with_capacity(plan.segments.len() + modules.len());
    for segment in &plan.segments {
        check_place(segment, memory)?;
        copies.push_back((segment.start, segment.bytes));
        end = end.max(segment.end());
    }
    let mut loaded = Vec::with_capacity(modules.len());
    for module in modules {
        let start = end.next_multiple_of(PAGE);
        if !memory.contains(start, module.bytes.len() as u64) {
            return Err(LoadError::ModulesDoNotFit);
        }
        copies.push_back((start, module.bytes));
        end = start + module.bytes.len() as u64;
        // In bounds of a guest's memory, which is below 4 GiB.
        loaded.push((start as u32, end as u32, module.command_line));
    }
    write_bios_data_area(memory).map_err(|_| LoadError::TooLittleMemory)?;
    write_information(command_line, &loaded, memory)?;
    let start = StartState::Protected32 {
        eip: plan.eip,
        eax: BOOT_MAGIC,
        ebx: INFO as u32,
    };
    Ok(Loaded::new(start, copies))
}

fn plan(image: &[u8]) -> Result<Plan<'_>, LoadError> {
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(
            image.get(at..at.checked_add(4)?)?.try_into().ok()?,
        ))
    };
    let search = image.len().min(HEADER_SEARCH);
    let header = (0..search)
        .step_by(4)
        .find(|at| {
            let (Some(magic), Some(flags), Some(checksum)) =
                (word(*at), word(at + 4), word(at + 8))
            else {
                return false;
            };
            magic == HEADER_MAGIC && magic.wrapping_add(flags).wrapping_add(checksum) == 0
        })
        .ok_or(LoadError::NoHeader)?;
    let flags = word(header + 4).ok_or(LoadError::NoHeader)?;
    let unknown = flags & REQUIRED_MASK & !REQUIRED_KNOWN;
    if unknown != 0 {
        return Err(LoadError::UnknownFlags(unknown));
    }
    if flags & ADDRESS_FIELDS == 0 {
        return plan_elf(image);
    }
    let field = |index: usize| word(header + 12 + 4 * index).ok_or(LoadError::BadAddressFields);
    plan_flat(
        image,
        header,
        [field(0)?, field(1)?, field(2)?, field(3)?, field(4)?],
    )
}

/// Images with address fields (section 3.1.3).
fn plan_flat(image: &[u8], header: usize, fields: [u32; 5]) -> Result<Plan<'_>, LoadError> {
    let [header_address, load, load_end, bss_end, entry] = fields;
    let before = header_address
        .checked_sub(load)
        .ok_or(LoadError::BadAddressFields)?;
    let offset = header
        .checked_sub(before as usize)
        .ok_or(LoadError::BadAddressFields)?;
    let file = image.get(offset..).ok_or(LoadError::BadAddressFields)?;
    let length = match load_end {
        0 => file.len(),
        end => end.checked_sub(load).ok_or(LoadError::BadAddressFields)? as usize,
    };
    let bytes = file.get(..length).ok_or(LoadError::SegmentOutsideImage)?;
    let size = match bss_end {
        0 => length as u64,
        end => u64::from(end.checked_sub(load).ok_or(LoadError::BadAddressFields)?),
    };
    if size < length as u64 {
        return Err(LoadError::BadAddressFields);
    }
    if size == 0 {
        return Err(LoadError::NoSegments);
    }
    let segment = Segment {
        bytes,
        start: u64::from(load),
        size,
    };
    if !(segment.start..segment.end()).contains(&u64::from(entry)) {
        return Err(LoadError::EntryOutsideSegments(entry));
    }
    Ok(Plan {
        segments: alloc::vec![segment],
        eip: entry,
    })
}

fn plan_elf(image: &[u8]) -> Result<Plan<'_>, LoadError> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(image).map_err(|_| LoadError::BadElf)?;
    if file.ehdr.class != Class::ELF32
        || file.ehdr.e_machine != EM_386
        || file.ehdr.e_type != ET_EXEC
    {
        return Err(LoadError::NotI386Executable);
    }
    let headers = file.segments().ok_or(LoadError::NoSegments)?;
    // An ELF32 file's fields are 32 bits wide, so sums of two of them fit into 64.
    let entry = file.ehdr.e_entry;
    let mut eip = None;
    let mut segments = Vec::new();
    for header in headers
        .iter()
        .filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0)
    {
        let bytes = file
            .segment_data(&header)
            .map_err(|_| LoadError::SegmentOutsideImage)?;
        if header.p_filesz > header.p_memsz {
            return Err(LoadError::BadElf);
        }
        // The entry is a virtual address; paging is off, so it is translated like its segment.
        let within = header.p_vaddr..header.p_vaddr + header.p_memsz;
        if within.contains(&entry) {
            eip = Some(header.p_paddr + (entry - header.p_vaddr));
        }
        segments.push(Segment {
            bytes,
            start: header.p_paddr,
            size: header.p_memsz,
        });
    }
    if segments.is_empty() {
        return Err(LoadError::NoSegments);
    }
    let outside = LoadError::EntryOutsideSegments(entry as u32);
    let eip = eip
        .or_else(|| {
            let physical = |s: &Segment<'_>| (s.start..s.end()).contains(&entry);
            segments.iter().any(physical).then_some(entry)
        })
        .ok_or(outside)?;
    Ok(Plan {
        segments,
        eip: u32::try_from(eip).map_err(|_| outside)?,
    })
}

/// Checks that a segment fits. What its file part does not fill is zero: the memory was scrubbed.
fn check_place(segment: &Segment<'_>, memory: &GuestMemory) -> Result<(), LoadError> {
    let (start, end) = (segment.start, segment.end());
    if end > memory.size() || (start < MIB && end > HOLE) {
        return Err(LoadError::DoesNotFit { start, end });
    }
    if start < LOW_MEMORY_END && end > INFO {
        return Err(LoadError::OverlapsBootInformation { start, end });
    }
    Ok(())
}

/// Lays out the boot information from [`INFO`] upward.
fn write_information(
    command_line: &str,
    modules: &[(u32, u32, &str)],
    memory: &GuestMemory,
) -> Result<(), LoadError> {
    /// The structure up to the boot loader's name.
    const INFO_SIZE: u64 = 68;
    let mut writer = Writer {
        at: INFO + INFO_SIZE,
        memory,
    };

    let command_line = writer.text(command_line)?;
    let loader_name = writer.bytes(LOADER_NAME)?;
    let mut list = Vec::with_capacity(modules.len() * 16);
    for (start, end, text) in modules {
        let text = writer.text(text)?;
        for word in [*start, *end, text, 0] {
            list.extend_from_slice(&word.to_le_bytes());
        }
    }
    let modules_address = writer.bytes(&list)?;

    let top = writer.memory.size();
    let mut map = Vec::new();
    for (start, end, kind) in memory_map(top) {
        /// Size of an entry without the size field itself.
        const ENTRY: u32 = 20;
        map.extend_from_slice(&ENTRY.to_le_bytes());
        map.extend_from_slice(&start.to_le_bytes());
        map.extend_from_slice(&(end - start).to_le_bytes());
        map.extend_from_slice(&kind.to_le_bytes());
    }
    let map_address = writer.bytes(&map)?;

    let mut info = [0u32; INFO_SIZE as usize / 4];
    let flags = INFO_MEMORY | INFO_COMMAND_LINE | INFO_MEMORY_MAP | INFO_LOADER_NAME;
    info[0] = if modules.is_empty() {
        flags
    } else {
        flags | INFO_MODULES
    };
    info[1] = (LOW_MEMORY_END / 1024) as u32;
    info[2] = ((top - MIB) / 1024) as u32;
    info[4] = command_line;
    info[5] = modules.len() as u32;
    info[6] = modules_address;
    info[11] = map.len() as u32;
    info[12] = map_address;
    info[16] = loader_name;
    writer.at = INFO;
    for word in info {
        writer.raw(&word.to_le_bytes())?;
    }
    Ok(())
}

/// The memory map: start, end and type (1 is available, 2 is reserved).
fn memory_map(top: u64) -> [(u64, u64, u32); 4] {
    const FIRMWARE: u64 = 0xf_0000;
    [
        (0, LOW_MEMORY_END, AVAILABLE),
        (LOW_MEMORY_END, HOLE, RESERVED),
        (FIRMWARE, MIB, RESERVED),
        (MIB, top, AVAILABLE),
    ]
}

struct Writer<'a> {
    at: u64,
    memory: &'a GuestMemory,
}

impl Writer<'_> {
    fn raw(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        let end = self.at + bytes.len() as u64;
        if end > LOW_MEMORY_END {
            return Err(LoadError::BootInformationTooLarge);
        }
        self.memory
            .write(self.at, bytes)
            .map_err(|_| LoadError::BootInformationTooLarge)?;
        self.at = end;
        Ok(())
    }

    /// Writes `bytes` at the next multiple of 4; returns the address.
    fn bytes(&mut self, bytes: &[u8]) -> Result<u32, LoadError> {
        self.at = self.at.next_multiple_of(4);
        let address = self.at as u32;
        self.raw(bytes)?;
        Ok(address)
    }

    fn text(&mut self, text: &str) -> Result<u32, LoadError> {
        let address = self.bytes(text.as_bytes())?;
        self.raw(&[0])?;
        Ok(address)
    }
}

#[cfg(test)]
mod tests;
