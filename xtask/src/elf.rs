//! What the build must know of an ELF file: its segments, its code, its symbols.

use anyhow::{Context, Result, bail};
use elf::ElfBytes;
use elf::abi;
use elf::endian::AnyEndian;
use elf::file::Class;

/// A piece of executable code.
pub(crate) struct Code<'f> {
    /// The section's name.
    pub section: String,
    /// Its address.
    pub address: u64,
    /// Its bytes.
    pub bytes: &'f [u8],
}

/// A symbol's name and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    /// Its address.
    pub address: u64,
    /// Its name, demangled.
    pub name: String,
}

/// An ELF file that has been read.
pub(crate) struct Image<'f> {
    file: ElfBytes<'f, AnyEndian>,
    bytes: &'f [u8],
}

impl<'f> Image<'f> {
    /// Reads the headers.
    ///
    /// # Errors
    ///
    /// Where this is no ELF file.
    pub(crate) fn parse(bytes: &'f [u8]) -> Result<Self> {
        let file = ElfBytes::minimal_parse(bytes).context("this is not an ELF file")?;
        Ok(Self { file, bytes })
    }

    /// Fails where memory would be both writable and executable.
    ///
    /// # Errors
    ///
    /// The addresses of the segments that are both.
    pub(crate) fn check_permissions(&self) -> Result<()> {
        let both = abi::PF_W | abi::PF_X;
        let bad: Vec<_> = self
            .loads()?
            .filter(|segment| segment.p_flags & both == both)
            .map(|segment| format!("{:#x}", segment.p_vaddr))
            .collect();
        if !bad.is_empty() {
            bail!(
                "a segment is both writable and executable, at {}; check the linker script",
                bad.join(", ")
            );
        }
        Ok(())
    }

    /// All code.
    ///
    /// # Errors
    ///
    /// Where the section headers are broken or absent.
    pub(crate) fn code(&self) -> Result<Vec<Code<'f>>> {
        let (headers, names) = self
            .file
            .section_headers_with_strtab()
            .context("the section headers are broken")?;
        let (Some(headers), Some(names)) = (headers, names) else {
            bail!("the file has no section headers");
        };
        let mut code = Vec::new();
        for header in headers {
            let wanted = u64::from(abi::SHF_EXECINSTR) & header.sh_flags != 0;
            if !wanted || header.sh_type != abi::SHT_PROGBITS {
                continue;
            }
            let (bytes, _) = self
                .file
                .section_data(&header)
                .context("a section lies outside the file")?;
            let name = usize::try_from(header.sh_name)?;
            code.push(Code {
                section: names.get(name).unwrap_or("?").to_owned(),
                address: header.sh_addr,
                bytes,
            });
        }
        Ok(code)
    }

    /// All functions and labels by address.
    ///
    /// # Errors
    ///
    /// Where the symbol table is broken.
    pub(crate) fn symbols(&self) -> Result<Vec<Symbol>> {
        let table = self
            .file
            .symbol_table()
            .context("the symbol table is broken")?;
        let Some((table, names)) = table else {
            return Ok(Vec::new());
        };
        let mut symbols = Vec::new();
        for symbol in table {
            let code = matches!(symbol.st_symtype(), abi::STT_FUNC | abi::STT_NOTYPE);
            if code && symbol.st_shndx != abi::SHN_ABS && symbol.st_value != 0 {
                let name = names.get(usize::try_from(symbol.st_name)?).unwrap_or("?");
                symbols.push(Symbol {
                    address: symbol.st_value,
                    name: addr2line::demangle_auto(name.into(), None).into_owned(),
                });
            }
        }
        symbols.sort_by_key(|symbol| symbol.address);
        symbols.dedup_by_key(|symbol| symbol.address);
        Ok(symbols)
    }

    /// Bytes of memory that the file fills when it is loaded.
    ///
    /// # Errors
    ///
    /// Where the program headers are broken.
    pub(crate) fn load_size(&self) -> Result<u64> {
        Ok(self.loads()?.map(|segment| segment.p_memsz).sum())
    }

    /// The file without sections, symbols and debug information: what a loader needs.
    ///
    /// # Errors
    ///
    /// Where the program headers are broken.
    pub(crate) fn stripped(&self) -> Result<Vec<u8>> {
        let ehdr = &self.file.ehdr;
        let table = u64::from(ehdr.e_phentsize) * u64::from(ehdr.e_phnum) + ehdr.e_phoff;
        let ends = self
            .loads()?
            .map(|segment| segment.p_offset.saturating_add(segment.p_filesz));
        let end = usize::try_from(ends.fold(table, u64::max))?;
        let mut bytes = self
            .bytes
            .get(..end)
            .context("a segment lies outside the file")?
            .to_vec();
        // e_shoff; then e_shnum and e_shstrndx, the last four bytes of the header.
        let (offset, size, header) = match ehdr.class {
            Class::ELF64 => (40, 8, 64),
            Class::ELF32 => (32, 4, 52),
        };
        bytes[offset..offset + size].fill(0);
        bytes[header - 4..header].fill(0);
        Ok(bytes)
    }

    fn loads(&self) -> Result<impl Iterator<Item = elf::segment::ProgramHeader>> {
        let segments = self
            .file
            .segments()
            .context("the file has no program headers")?;
        Ok(segments
            .iter()
            .filter(|segment| segment.p_type == abi::PT_LOAD))
    }
}

/// The last symbol that lies at or below an address.
pub(crate) fn symbol_at(functions: &[Symbol], address: u64) -> &str {
    let after = functions.partition_point(|symbol| symbol.address <= address);
    match after.checked_sub(1).and_then(|at| functions.get(at)) {
        Some(symbol) => &symbol.name,
        None => "?",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A 64-bit ELF with one segment and trailing bytes that belong to no segment.
    pub(crate) fn crafted(flags: u32) -> Vec<u8> {
        let mut file = vec![0u8; 64 + 56];
        file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        file[16..20].copy_from_slice(&[2, 0, 62, 0]);
        file[20] = 1;
        file[32] = 64; // e_phoff
        file[40] = 0xff; // e_shoff, to be cleared
        file[52] = 64;
        file[54] = 56;
        file[56] = 1; // e_phnum
        file[58] = 64;
        let segment = &mut file[64..];
        segment[0] = 1;
        segment[4..8].copy_from_slice(&flags.to_le_bytes());
        segment[8] = 120; // p_offset
        segment[32] = 8; // p_filesz
        segment[40] = 16; // p_memsz
        file.extend_from_slice(b"codecodeSYMBOLS");
        file
    }

    #[test]
    fn stripping_keeps_segments_and_drops_the_rest() {
        let mut file = crafted(5);
        file[40] = 0;
        let image = Image::parse(&file).unwrap();
        assert_eq!(image.load_size().unwrap(), 16);
        let stripped = image.stripped().unwrap();
        assert!(stripped.ends_with(b"codecode"));
        assert_eq!(stripped.len(), 128);
        assert_eq!(&stripped[40..48], &[0; 8]);
    }

    #[test]
    fn writable_code_is_refused() {
        let check = |flags| {
            let mut file = crafted(flags);
            file[40] = 0;
            Image::parse(&file).unwrap().check_permissions().is_ok()
        };
        assert!(check(abi::PF_R | abi::PF_X));
        assert!(check(abi::PF_R | abi::PF_W));
        assert!(!check(abi::PF_R | abi::PF_W | abi::PF_X));
    }

    #[test]
    fn functions_are_found_by_address() {
        let functions = [(16, "a"), (32, "b")].map(|(address, name)| Symbol {
            address,
            name: name.into(),
        });
        assert_eq!(symbol_at(&functions, 15), "?");
        assert_eq!(symbol_at(&functions, 16), "a");
        assert_eq!(symbol_at(&functions, 31), "a");
        assert_eq!(symbol_at(&functions, 99), "b");
    }
}
