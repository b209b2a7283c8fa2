//! The map of one volume or snapshot: its map nodes, and its data as extents.

use crate::context::Cx;
use crate::report::OpenError;
use crate::value::Value;
use cow_format::mapnode::{FANOUT, FANOUT_BITS, MapNode, NodePlace, Slot};
use cow_format::{FamilyId, Phys};
use cow_snaptree::Tree;

/// Map nodes and extents that are listed.
const MOST: usize = 1 << 18;

struct Shown<'c, 'a> {
    cx: &'c mut Cx<'a>,
    family: FamilyId,
    nodes: Vec<Value>,
    extents: Vec<Extent>,
    truncated: bool,
}

/// Blocks that follow each other in the volume and on the device.
struct Extent {
    lba: u64,
    phys: Phys,
    birth: u32,
    blocks: u64,
    lost: bool,
}

pub(super) fn map(cx: &mut Cx<'_>, tree: &Tree, name: &str) -> Result<Value, OpenError> {
    let missing = |_| OpenError::NotFound(name.to_owned());
    let id = tree.resolve(name).map_err(missing)?;
    let Some(node) = tree.node(id) else { return Err(OpenError::NotFound(name.to_owned())) };
    let (entry, root) = (&node.entry, node.entry.root);
    let (nodes, extents) = (Vec::new(), Vec::new());
    let mut shown = Shown { cx, family: entry.family, nodes, extents, truncated: false };
    let slot = Slot { phys: root.phys, birth: root.birth, crc: root.crc };
    shown.walk(root.level, 0, slot);
    let extents: Vec<Value> = shown.extents.iter().map(Extent::value).collect();
    Ok(Value::Object(vec![
        ("name", name.into()),
        ("node", id.0.into()),
        ("size_bytes", entry.size_bytes.into()),
        ("level", u32::from(root.level).into()),
        ("nodes", shown.nodes.into()),
        ("extents", extents.into()),
        ("truncated", shown.truncated.into()),
    ]))
}

impl Shown<'_, '_> {
    fn walk(&mut self, level: u8, index: u64, slot: Slot) {
        if !slot.is_mapped() || self.truncated {
            return;
        }
        self.truncated = self.nodes.len() + self.extents.len() >= MOST;
        let place = NodePlace {
            pool_tag: self.cx.tag,
            family: self.family,
            level,
            index,
            phys: slot.phys,
            birth: slot.birth,
            crc: slot.crc,
        };
        let read = self.cx.read(slot.phys, 1);
        let node = read.and_then(|buf| MapNode::decode(&buf, &place).map_err(|e| e.to_string()));
        let mut fields = vec![
            ("level", u32::from(level).into()),
            ("index", index.into()),
            ("block", slot.phys.0.into()),
            ("birth", slot.birth.0.into()),
            ("crc", slot.crc.into()),
        ];
        match &node {
            Ok(node) => {
                let mapped = node.slots().iter().filter(|slot| slot.is_mapped()).count() as u64;
                fields.extend([("cp_seq", node.cp_seq.into()), ("mapped", mapped.into())]);
            }
            Err(error) => fields.push(("error", error.as_str().into())),
        }
        self.nodes.push(Value::Object(fields));
        let Ok(node) = node else { return };
        for (at, &slot) in (0..FANOUT as u64).zip(node.slots()) {
            let child = (index << FANOUT_BITS) + at;
            if level > 0 {
                self.walk(level - 1, child, slot);
            } else if !slot.is_hole() {
                self.add(child, slot);
            }
        }
    }

    fn add(&mut self, lba: u64, slot: Slot) {
        let (lost, birth) = (slot.is_lost(), slot.birth.0);
        if let Some(last) = self.extents.last_mut()
            && last.lba + last.blocks == lba
            && (last.lost, last.birth) == (lost, birth)
            && (lost || last.phys.0 + last.blocks == slot.phys.0)
        {
            last.blocks += 1;
            return;
        }
        self.extents.push(Extent { lba, phys: slot.phys, birth, blocks: 1, lost });
    }
}

impl Extent {
    fn value(&self) -> Value {
        let mut fields = vec![
            ("lba", self.lba.into()),
            ("block", self.phys.0.into()),
            ("blocks", self.blocks.into()),
            ("birth", self.birth.into()),
        ];
        if self.lost {
            fields.push(("lost", true.into()));
        }
        Value::Object(fields)
    }
}
