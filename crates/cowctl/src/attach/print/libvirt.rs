//! A disk for the description of a machine in libvirt.

use super::{Disk, RECONNECT_SECONDS};
use crate::attach::place::Place;

/// The element `disk`.
pub fn disk(disk: &Disk) -> String {
    let host = match &disk.place {
        Place::Unix(path) => format!("transport='unix' socket='{}'", escape(path)),
        Place::Tcp(host, port) => format!("name='{}' port='{}'", escape(host), escape(port)),
    };
    let (how, read_only) = if disk.read_only {
        ("", "\n  <readonly/>")
    } else {
        // What the machine discards, or fills with zeros, takes no space.
        (" discard='unmap' detect_zeroes='unmap'", "")
    };
    format!(
        "<disk type='network' device='disk'>\n\
         \x20 <driver name='qemu' type='raw' cache='none'{how}/>\n\
         \x20 <source protocol='nbd' name='{name}'>\n\
         \x20   <host {host}/>\n\
         \x20   <reconnect delay='{RECONNECT_SECONDS}'/>\n\
         \x20 </source>\n\
         \x20 <blockio logical_block_size='512' physical_block_size='4096'/>\n\
         \x20 <target dev='vda' bus='virtio'/>{read_only}\n\
         </disk>",
        name = escape(disk.name),
    )
}

/// A value between single quotes.
fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('\'', "&apos;").replace('"', "&quot;")
}
