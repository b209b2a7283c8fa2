//! Recognises disk images that are not raw. Their content is inside a container, and importing
//! the container as a disk would give a disk that nobody can use.

use std::fmt::Write;

/// How much of the beginning [`Format::of_head`] wants to see.
pub const HEAD_BYTES: usize = 4096;
/// How much of the end [`Format::of_tail`] wants to see.
pub const TAIL_BYTES: usize = 512;

/// A disk image format other than raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// QEMU's `qcow2` (and version 1 of it).
    Qcow,
    /// QEMU's older `qed`.
    Qed,
    /// VMware's `vmdk`.
    Vmdk,
    /// VirtualBox's `vdi`.
    Vdi,
    /// Hyper-V's `vhdx`.
    Vhdx,
    /// Virtual PC's `vhd` (`vpc` in QEMU's words).
    Vhd,
    /// Parallels' `hdd`.
    Parallels,
}

/// Where each kind of container has which bytes.
const HEADS: &[(usize, &[u8], Format)] = &[
    (0, b"QFI\xfb", Format::Qcow),
    (0, b"QED\0", Format::Qed),
    (0, b"KDMV", Format::Vmdk),
    (0, b"COWD", Format::Vmdk),
    (0, b"# Disk DescriptorFile", Format::Vmdk),
    (0x40, b"\x7f\x10\xda\xbe", Format::Vdi),
    (0, b"vhdxfile", Format::Vhdx),
    (0, b"conectix", Format::Vhd),
    (0, b"WithoutFreeSpace", Format::Parallels),
    (0, b"WithouFreSpacExt", Format::Parallels),
];

impl Format {
    /// The format of an image by its first bytes; `None` when it may be raw.
    pub fn of_head(head: &[u8]) -> Option<Self> {
        let matches = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
        HEADS.iter().find(|(at, magic, _)| matches(*at, magic)).map(|&(_, _, format)| format)
    }

    /// The format of an image by its last [`TAIL_BYTES`]: a fixed VHD is raw with a footer.
    pub fn of_tail(tail: &[u8]) -> Option<Self> {
        tail.starts_with(b"conectix").then_some(Self::Vhd)
    }

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qcow => "qcow2",
            Self::Qed => "qed",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Vhdx => "vhdx",
            Self::Vhd => "vhd",
            Self::Parallels => "parallels",
        }
    }

    /// Says what `file` is and which command makes it raw.
    pub fn advice(self, file: &str) -> String {
        let (name, input) = (self.name(), quoted(file));
        let output = quoted(&format!("{file}.raw"));
        let command = format!("qemu-img convert -O raw {input} {output}");
        format!("{file}: a {name} image, not a raw one; convert it first: {command}")
    }
}

/// `text` as one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/+,:@%=".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut word = String::from("'");
    if text.starts_with('-') {
        word.push_str("./");
    }
    for c in text.chars() {
        // Writing to a String cannot fail.
        let _ = if c == '\'' { word.write_str("'\\''") } else { word.write_char(c) };
    }
    word.push('\'');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_recognised() {
        for (at, magic, format) in HEADS {
            let mut head = vec![0; HEAD_BYTES];
            head[*at..at + magic.len()].copy_from_slice(magic);
            assert_eq!(Format::of_head(&head), Some(*format));
            assert_eq!(Format::of_head(&head[..at + magic.len()]), Some(*format), "a short file");
            assert_eq!(Format::of_head(&head[..at + magic.len() - 1]), None);
        }
        let mut tail = [0; TAIL_BYTES];
        assert_eq!(Format::of_tail(&tail), None);
        tail[..8].copy_from_slice(b"conectix");
        assert_eq!(Format::of_tail(&tail), Some(Format::Vhd));
    }

    #[test]
    fn what_may_be_raw_is() {
        let heads: [&[u8]; 5] = [b"", b"LUKS\xba\xbe\0\x02", b"XFSB", b"QFI", &[0; 512]];
        for head in heads {
            assert_eq!(Format::of_head(head), None, "{head:?}");
        }
    }

    #[test]
    fn the_advice_can_be_pasted() {
        let text = Format::Qcow.advice("disk.qcow2");
        assert!(text.ends_with("qemu-img convert -O raw disk.qcow2 disk.qcow2.raw"), "{text}");
        let text = Format::Qcow.advice("it's a disk");
        assert!(text.ends_with(r"raw 'it'\''s a disk' 'it'\''s a disk.raw'"), "{text}");
        assert!(Format::Qcow.advice("-x").ends_with("raw './-x' './-x.raw'"));
        let text = Format::Vhd.advice("d.raw");
        assert!(text.ends_with("raw d.raw d.raw.raw"), "in and out differ: {text}");
    }
}
