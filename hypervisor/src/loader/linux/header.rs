//! The setup header of a bzImage ("The Real-Mode Kernel Header" in boot.rst).

use super::{LoadError, MIB};

/// Bytes of a sector of the real-mode part.
const SECTOR: usize = 512;
/// The unit of `syssize`, in bytes.
const PARAGRAPH: u64 = 16;
/// Sectors of the real-mode part where the header says 0.
const SECTORS_DEFAULT: usize = 4;
const BOOT_FLAG: u16 = 0xaa55;
const MAGIC: [u8; 4] = *b"HdrS";
/// Protocol 2.12 brought `xloadflags`, and with it the word that there is a 64-bit entry point.
const VERSION_MIN: u16 = 0x020c;
/// `loadflags`, bit 0: the protected-mode part belongs to 1 MiB and above.
const LOADED_HIGH: u8 = 1 << 0;
/// `xloadflags`, bit 0: a 64-bit entry point is at 0x200.
const KERNEL_64: u16 = 1 << 0;
/// Where the 64-bit entry point is in the protected-mode part.
const ENTRY_64: u64 = 0x200;
/// Where a kernel that cannot be moved wants its protected-mode part.
const FIXED_LOAD: u64 = MIB;
/// The largest alignment that is believed: a page of the largest size.
const ALIGNMENT_MAX: u32 = 1 << 30;

/// Offsets in the image, and in the boot parameters too.
pub(super) mod field {
    pub(in super::super) const SETUP_SECTS: usize = 0x1f1;
    pub(in super::super) const SYSSIZE: usize = 0x1f4;
    pub(in super::super) const VID_MODE: usize = 0x1fa;
    pub(in super::super) const BOOT_FLAG: usize = 0x1fe;
    pub(in super::super) const JUMP: usize = 0x200;
    pub(in super::super) const HEADER: usize = 0x202;
    pub(in super::super) const VERSION: usize = 0x206;
    pub(in super::super) const TYPE_OF_LOADER: usize = 0x210;
    pub(in super::super) const LOADFLAGS: usize = 0x211;
    pub(in super::super) const SETUP_MOVE_SIZE: usize = 0x212;
    pub(in super::super) const CODE32_START: usize = 0x214;
    pub(in super::super) const RAMDISK_IMAGE: usize = 0x218;
    pub(in super::super) const RAMDISK_SIZE: usize = 0x21c;
    pub(in super::super) const CMD_LINE_PTR: usize = 0x228;
    pub(in super::super) const INITRD_ADDR_MAX: usize = 0x22c;
    pub(in super::super) const KERNEL_ALIGNMENT: usize = 0x230;
    pub(in super::super) const RELOCATABLE_KERNEL: usize = 0x234;
    pub(in super::super) const XLOADFLAGS: usize = 0x236;
    pub(in super::super) const CMDLINE_SIZE: usize = 0x238;
    pub(in super::super) const HARDWARE_SUBARCH: usize = 0x23c;
    pub(in super::super) const SETUP_DATA: usize = 0x250;
    pub(in super::super) const PREF_ADDRESS: usize = 0x258;
    pub(in super::super) const INIT_SIZE: usize = 0x260;
    /// Behind the last field of protocol 2.12.
    pub(in super::super) const END_MIN: usize = 0x268;
    /// What follows the header in the boot parameters.
    pub(in super::super) const END_MAX: usize = 0x290;
}

/// A checked setup header with the kernel behind it.
#[derive(Debug)]
pub(super) struct Kernel<'a> {
    /// The header's bytes from [`field::SETUP_SECTS`] on, as they go into the boot parameters.
    pub(super) header: &'a [u8],
    /// The protected-mode part, which is all that is loaded.
    pub(super) code: &'a [u8],
    /// The last byte that the initial RAM disk may occupy.
    pub(super) initrd_addr_max: u32,
    /// The longest command line, without its end.
    pub(super) cmdline_size: u32,
    /// The alignment of a load address, where the kernel can be moved.
    alignment: Option<u64>,
    pref_address: u64,
    init_size: u64,
}

/// Where a kernel goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// Where its first byte is loaded.
    pub(super) load: u64,
    /// Where it is entered.
    pub(super) entry: u64,
    /// Behind the last byte that it uses before it reads the memory map.
    pub(super) end: u64,
}

impl<'a> Kernel<'a> {
    /// Checks every field of the header that the loader uses.
    pub(super) fn parse(image: &'a [u8]) -> Result<Self, LoadError> {
        if u16_at(image, field::BOOT_FLAG) != Ok(BOOT_FLAG)
            || bytes_at(image, field::HEADER) != Ok(MAGIC)
        {
            return Err(LoadError::NotABzImage);
        }
        let version = u16_at(image, field::VERSION)?;
        if version < VERSION_MIN {
            return Err(LoadError::OldProtocol(version));
        }
        let [_, jump] = bytes_at(image, field::JUMP)?;
        let end = field::HEADER + usize::from(jump);
        if !(field::END_MIN..=field::END_MAX).contains(&end) {
            return Err(LoadError::BadHeaderLength(end));
        }
        let header = image
            .get(field::SETUP_SECTS..end)
            .ok_or(LoadError::Truncated)?;
        let [loadflags] = bytes_at(image, field::LOADFLAGS)?;
        if loadflags & LOADED_HIGH == 0 {
            return Err(LoadError::NotLoadedHigh);
        }
        if u16_at(image, field::XLOADFLAGS)? & KERNEL_64 == 0 {
            return Err(LoadError::No64BitEntry);
        }
        let [relocatable] = bytes_at(image, field::RELOCATABLE_KERNEL)?;
        let alignment = if relocatable == 0 {
            None
        } else {
            let alignment = u32_at(image, field::KERNEL_ALIGNMENT)?;
            if !alignment.is_power_of_two() || alignment > ALIGNMENT_MAX {
                return Err(LoadError::BadAlignment(alignment));
            }
            Some(u64::from(alignment))
        };
        Ok(Self {
            header,
            code: code(image)?,
            initrd_addr_max: u32_at(image, field::INITRD_ADDR_MAX)?,
            cmdline_size: u32_at(image, field::CMDLINE_SIZE)?,
            alignment,
            pref_address: u64::from_le_bytes(bytes_at(image, field::PREF_ADDRESS)?),
            init_size: u64::from(u32_at(image, field::INIT_SIZE)?),
        })
    }

    /// Finds the kernel's place in memory that ends at `top`: where it prefers to be, or as low as
    /// it can be.
    pub(super) fn place(&self, top: u64) -> Result<Placement, LoadError> {
        let size = self.code.len() as u64;
        let Some(alignment) = self.alignment else {
            // It is loaded at the fixed address, and moves itself to the preferred one.
            let run_end = end(self.pref_address.max(FIXED_LOAD), self.init_size);
            return placement(FIXED_LOAD, end(FIXED_LOAD, size).max(run_end), top);
        };
        let needed = size.max(self.init_size);
        let lowest = FIXED_LOAD.next_multiple_of(alignment);
        let preferred = self.pref_address;
        if preferred >= lowest && preferred.is_multiple_of(alignment) {
            let there = placement(preferred, end(preferred, needed), top);
            if there.is_ok() {
                return there;
            }
        }
        placement(lowest, end(lowest, needed), top)
    }
}

fn end(start: u64, size: u64) -> u64 {
    start.saturating_add(size)
}

fn placement(load: u64, end: u64, top: u64) -> Result<Placement, LoadError> {
    if end > top {
        return Err(LoadError::DoesNotFit { start: load, end });
    }
    Ok(Placement {
        load,
        entry: load + ENTRY_64,
        end,
    })
}

/// The protected-mode part: what follows the boot sector and the setup sectors. Whatever follows it
/// in turn is a signature, which is for firmware.
fn code(image: &[u8]) -> Result<&[u8], LoadError> {
    let [sectors] = bytes_at(image, field::SETUP_SECTS)?;
    let sectors = match sectors {
        0 => SECTORS_DEFAULT,
        given => usize::from(given),
    };
    let start = (1 + sectors) * SECTOR;
    let rest = image.get(start..).ok_or(LoadError::Truncated)?;
    let size = u64::from(u32_at(image, field::SYSSIZE)?) * PARAGRAPH;
    // Some files end within the last paragraph.
    if size >= rest.len() as u64 + PARAGRAPH {
        return Err(LoadError::Truncated);
    }
    let code = rest.get(..size as usize).unwrap_or(rest);
    if code.len() as u64 <= ENTRY_64 {
        return Err(LoadError::NoCode);
    }
    Ok(code)
}

fn bytes_at<const N: usize>(image: &[u8], at: usize) -> Result<[u8; N], LoadError> {
    image
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .ok_or(LoadError::Truncated)
}

fn u16_at(image: &[u8], at: usize) -> Result<u16, LoadError> {
    bytes_at(image, at).map(u16::from_le_bytes)
}

fn u32_at(image: &[u8], at: usize) -> Result<u32, LoadError> {
    bytes_at(image, at).map(u32::from_le_bytes)
}
