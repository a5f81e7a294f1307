//! Anonymous memory that is mapped and unmapped by hand, page by page.

use std::io;
use std::ptr;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

/// Pages of this process's own, from a page's start.
#[derive(Clone, Copy)]
pub(crate) struct Pages {
    start: *mut libc::c_void,
    length: usize,
}

// SAFETY: only an address; what is done with it is the methods' care.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

fn check(result: i32) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

impl Pages {
    /// Maps fresh pages, zeroed, that can be read and written.
    ///
    /// # Errors
    ///
    /// Where Linux has no memory.
    pub(crate) fn map(count: usize) -> io::Result<Self> {
        let length = count * PAGE;
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: the kernel chooses a free place.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start, length })
    }

    /// The memory, as the kernel takes it. Nothing that the compiler knows of lies there.
    pub(crate) const fn address(self) -> *mut libc::c_void {
        self.start
    }

    /// Some of these pages. They must be among them.
    pub(crate) const fn part(self, first: usize, count: usize) -> Self {
        Self {
            start: self.start.wrapping_byte_add(first * PAGE),
            length: count * PAGE,
        }
    }

    /// Writes the first word.
    pub(crate) fn write_first(self, value: u64) {
        // SAFETY: the pages are mapped by `map`, and whole words of them are accessed only here and in
        // `read_first`.
        unsafe { self.start.cast::<u64>().write_volatile(value) };
    }

    /// Reads the first word. The pages must be mapped, or about to be replaced by `move_to`: the kernel
    /// lets an access wait until that is done.
    pub(crate) fn read_first(self) -> u64 {
        // SAFETY: as above.
        unsafe { self.start.cast::<u64>().read_volatile() }
    }

    /// Moves these pages to where `place` is, in the place of what is mapped there.
    ///
    /// # Errors
    ///
    /// Where Linux refuses.
    pub(crate) fn move_to(self, place: Self) -> io::Result<()> {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: nothing that the compiler knows of lies in either.
        let moved =
            unsafe { libc::mremap(self.start, self.length, self.length, flags, place.start) };
        if moved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Lets the pages be written, or only read.
    ///
    /// # Errors
    ///
    /// Where Linux refuses.
    pub(crate) fn set_writable(self, writable: bool) -> io::Result<()> {
        let access = if writable {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            libc::PROT_READ
        };
        // SAFETY: nothing that the compiler knows of lies there.
        check(unsafe { libc::mprotect(self.start, self.length, access) })
    }

    /// Unmaps the pages. Their place stays reserved, so that nobody else's mapping comes there before
    /// [`Pages::map_again`].
    ///
    /// # Errors
    ///
    /// Where Linux refuses.
    pub(crate) fn unmap(self) -> io::Result<()> {
        self.map_over(libc::PROT_NONE)
    }

    /// Maps fresh pages in the place of unmapped ones.
    ///
    /// # Errors
    ///
    /// Where Linux has no memory.
    pub(crate) fn map_again(self) -> io::Result<()> {
        self.map_over(libc::PROT_READ | libc::PROT_WRITE)
    }

    /// Replaces the pages by fresh ones that can be accessed so.
    fn map_over(self, access: libc::c_int) -> io::Result<()> {
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the place is these pages' own, and nothing that the compiler knows of lies there.
        let start = unsafe { libc::mmap(self.start, self.length, access, kind, -1, 0) };
        if start == self.start {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}
