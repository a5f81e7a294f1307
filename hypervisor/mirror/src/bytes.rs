//! Little-endian fields of the bodies that the roles exchange.

/// Takes fields off the front of a body.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.take().map(u128::from_le_bytes)
    }
}

/// Puts fields one after the other into a body of `N` bytes.
pub(crate) struct Body<const N: usize> {
    bytes: [u8; N],
    used: usize,
}

impl<const N: usize> Body<N> {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; N],
            used: 0,
        }
    }

    /// Adds a field. What has no place is left out: the tests of each body see to its size.
    pub(crate) fn put(mut self, field: &[u8]) -> Self {
        let end = self.used + field.len();
        if let Some(place) = self.bytes.get_mut(self.used..end) {
            place.copy_from_slice(field);
            self.used = end;
        }
        self
    }

    pub(crate) const fn bytes(self) -> [u8; N] {
        self.bytes
    }
}
