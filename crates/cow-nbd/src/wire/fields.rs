//! Taking big-endian fields off the front of a slice.

use super::{MetaQuery, QUERIES_MAX, STRING_MAX_BYTES, WireError};

/// What has not been parsed yet. Every method takes its field off the front, or fails.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) =
            self.0.split_at_checked(len).ok_or(WireError::Malformed { what: "too short" })?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) =
            self.0.split_first_chunk().ok_or(WireError::Malformed { what: "too short" })?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn string(&mut self, len: usize) -> Result<String, WireError> {
        if len > STRING_MAX_BYTES {
            return Err(WireError::TooBig { what: "string" });
        }
        let text = std::str::from_utf8(self.bytes(len)?)
            .map_err(|_| WireError::Malformed { what: "string is not UTF-8" })?;
        if text.contains('\0') {
            return Err(WireError::Malformed { what: "NUL in a string" });
        }
        Ok(text.to_owned())
    }

    pub(super) fn counted_string(&mut self) -> Result<String, WireError> {
        let len = self.u32()?;
        self.string(len as usize)
    }

    pub(super) fn info(&mut self) -> Result<(String, Vec<u16>), WireError> {
        let name = self.counted_string()?;
        let count = self.u16()?;
        let mut requests = Vec::new();
        for _ in 0..count {
            requests.push(self.u16()?);
        }
        Ok((name, requests))
    }

    pub(super) fn queries(&mut self) -> Result<(String, Vec<MetaQuery>), WireError> {
        let name = self.counted_string()?;
        let count = self.u32()?;
        if count > QUERIES_MAX {
            return Err(WireError::TooBig { what: "number of queries" });
        }
        let mut queries = Vec::new();
        for _ in 0..count {
            let text = self.counted_string()?;
            let (namespace, leaf) = text
                .split_once(':')
                .ok_or(WireError::Malformed { what: "query without a namespace" })?;
            queries.push(MetaQuery { namespace: namespace.to_owned(), leaf: leaf.to_owned() });
        }
        Ok((name, queries))
    }
}
