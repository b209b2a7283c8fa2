//! Generic netlink, as far as one family needs it: messages of attributes in this machine's byte
//! order, each with its length before it and padded to four bytes (netlink(7),
//! `include/uapi/linux/genetlink.h`).

use crate::sys;
use std::fs::File;
use std::io::{self, Read, Write};

const FAMILY: &str = "nbd";
const VERSION: u8 = 1;

const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

const MESSAGE_BYTES: usize = 16;
const COMMAND_BYTES: usize = 4;
const ERROR: u16 = 2;
const REQUEST_AND_ACK: u16 = 1 | 4;
const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;
/// More than any answer here has.
const ANSWER_BYTES: usize = 64 << 10;

/// A socket to the family.
pub(super) struct Netlink {
    socket: File,
    family: u16,
    sequence: u32,
}

impl Netlink {
    /// Looks the family up.
    ///
    /// # Errors
    /// `NotFound` when the kernel has none of that name.
    pub(super) fn open() -> io::Result<Self> {
        let socket = File::from(sys::generic_netlink()?);
        let mut netlink = Self { socket, family: CONTROL, sequence: 0 };
        let mut wanted = Attributes::default();
        wanted.text(FAMILY_NAME, FAMILY);
        let answer = netlink.call(GET_FAMILY, &wanted)?;
        let id = find(&answer, FAMILY_ID).and_then(|id| id.try_into().ok());
        netlink.family = u16::from_ne_bytes(id.ok_or(io::ErrorKind::InvalidData)?);
        Ok(netlink)
    }

    /// Sends a command; returns the attributes of the answer, if there is one before the
    /// acknowledgement.
    pub(super) fn call(&mut self, command: u8, wanted: &Attributes) -> io::Result<Vec<u8>> {
        self.sequence += 1;
        let len = MESSAGE_BYTES + COMMAND_BYTES + wanted.0.len();
        let mut message = Vec::with_capacity(len);
        message.extend(u32::try_from(len).map_err(io::Error::other)?.to_ne_bytes());
        message.extend(self.family.to_ne_bytes());
        message.extend(REQUEST_AND_ACK.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend([command, VERSION, 0, 0]);
        message.extend(&wanted.0);
        self.socket.write_all(&message)?;
        let mut answer = Vec::new();
        let mut buf = vec![0; ANSWER_BYTES];
        loop {
            let len = self.socket.read(&mut buf)?;
            let mut rest = buf.get(..len).unwrap_or_default();
            while let Some((kind, body)) = next_message(&mut rest) {
                if kind != ERROR {
                    answer = body.get(COMMAND_BYTES..).unwrap_or_default().to_vec();
                    continue;
                }
                let code = body.first_chunk().ok_or(io::ErrorKind::InvalidData)?;
                return match i32::from_ne_bytes(*code) {
                    0 => Ok(answer),
                    errno => Err(io::Error::from_raw_os_error(errno.saturating_neg())),
                };
            }
        }
    }
}

/// Takes a message off the front: its type, and what follows its header.
fn next_message<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let len = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
    let body = rest.get(MESSAGE_BYTES..len)?;
    *rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body))
}

/// Attributes, one after the other.
#[derive(Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    fn push(&mut self, kind: u16, value: &[u8]) {
        // Ours are far shorter than 64 KiB.
        self.0.extend((value.len() as u16 + 4).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub(super) fn u32(&mut self, kind: u16, value: u32) {
        self.push(kind, &value.to_ne_bytes());
    }

    pub(super) fn u64(&mut self, kind: u16, value: u64) {
        self.push(kind, &value.to_ne_bytes());
    }

    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.push(kind, &[value.as_bytes(), &[0]].concat());
    }

    pub(super) fn nested(&mut self, kind: u16, value: &Self) {
        self.push(kind | NESTED, &value.0);
    }
}

/// The value of an attribute.
fn find(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    loop {
        let len = u16::from_ne_bytes(*rest.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & KIND_MASK;
        let value = rest.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
}

/// The number in an attribute.
pub(super) fn find_u32(attributes: &[u8], wanted: u16) -> Option<u32> {
    Some(u32::from_ne_bytes(find(attributes, wanted)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_again_and_no_bytes_make_it_panic() {
        let mut inner = Attributes::default();
        inner.u64(9, 1);
        let mut all = Attributes::default();
        all.text(7, "nbd");
        all.nested(8, &inner);
        all.u32(1, 77);
        assert_eq!(find(&all.0, 7), Some(&b"nbd\0"[..]));
        assert_eq!(find(&all.0, 8), Some(&inner.0[..]));
        assert_eq!(
            (find_u32(&all.0, 1), find_u32(&all.0, 2), find_u32(&all.0, 8)),
            (Some(77), None, None)
        );
        for len in 0..all.0.len() {
            let _ = find_u32(&all.0[..len], 1);
            let _ = next_message(&mut &all.0[..len]);
        }
        let _ = find(&[0; 64], 1);
        let _ = find(&[0xff; 64], 1);
        assert_eq!(next_message(&mut &[0; 64][..]), None);
    }

    #[test]
    fn a_family_that_is_not_there_is_not_found() {
        // On a kernel with the module there is one.
        match Netlink::open() {
            Ok(netlink) => assert_ne!(netlink.family, CONTROL),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}"),
        }
    }
}
