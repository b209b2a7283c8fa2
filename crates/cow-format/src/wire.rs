//! Little-endian fields in a run of bytes: the reader that never panics on a short or foreign
//! input, and its writer.

/// The input ended inside a field, or a field has a value that it cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads fields off the front of a slice.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether everything was read.
    pub fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// When fewer are left.
    #[inline]
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    #[inline]
    fn uint(&mut self, len: usize) -> Result<u64, Malformed> {
        let bytes = self.bytes(len)?;
        Ok(bytes.iter().rev().fold(0, |acc, &byte| acc << 8 | u64::from(byte)))
    }

    /// # Errors
    /// When the input ends.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.uint(1)? as u8)
    }

    /// # Errors
    /// When the input ends.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(self.uint(2)? as u16)
    }

    /// # Errors
    /// When the input ends.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(self.uint(4)? as u32)
    }

    /// Six bytes: a physical or logical block address.
    ///
    /// # Errors
    /// When the input ends.
    #[inline]
    pub fn u48(&mut self) -> Result<u64, Malformed> {
        self.uint(6)
    }

    /// # Errors
    /// When the input ends.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.uint(8)
    }

    /// A string with a `u16` length in front.
    ///
    /// # Errors
    /// When the input ends or is not UTF-8.
    pub fn string(&mut self) -> Result<String, Malformed> {
        let len = self.u16()? as usize;
        String::from_utf8(self.bytes(len)?.to_vec()).map_err(|_| Malformed)
    }
}

/// Appends fields to a vector.
#[derive(Default)]
pub struct Writer {
    /// What was written.
    pub bytes: Vec<u8>,
}

impl Writer {
    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Six bytes; the value must fit.
    pub fn u48(&mut self, value: u64) {
        assert!(value < 1 << 48, "address over 48 bits");
        self.bytes.extend_from_slice(&value.to_le_bytes()[..6]);
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A string of at most 65,535 bytes with its length in front.
    pub fn string(&mut self, value: &str) {
        assert!(value.len() <= usize::from(u16::MAX), "string over 64 KiB");
        self.u16(value.len() as u16);
        self.bytes.extend_from_slice(value.as_bytes());
    }
}
