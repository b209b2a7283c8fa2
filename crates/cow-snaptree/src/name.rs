//! Names: what they may be, and the index from name to node.

use crate::error::{TreeError, invalid};
use cow_format::VolumeId;
use cow_format::entry::MAX_NAME;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names that begin so belong to the engine.
pub(crate) const UNDO_PREFIX: &str = "undo.";

/// Whether `name` is one that a volume or snapshot can have: 1 to 128 bytes of `[A-Za-z0-9_.-]`,
/// not beginning with `.` or `-`.
pub fn valid_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Checks a name that a user chose; `field` is only for the error.
pub(crate) fn check_user_name(field: &str, name: &str) -> Result<(), TreeError> {
    if !valid_name(name) {
        return invalid(format!(
            "{field}: {name:?} is not 1 to 128 of [A-Za-z0-9_.-], not starting with . or -"
        ));
    }
    if name.starts_with(UNDO_PREFIX) {
        return invalid(format!("{field}: names that begin with {UNDO_PREFIX} are reserved"));
    }
    Ok(())
}

/// Shards of a shelf, shelves of a rack, and racks: a change copies the references of one rack and
/// one shelf, and one shard.
const SHARDS: usize = 16;

type Shard = BTreeMap<Arc<str>, u64>;
type Shelf = Vec<Arc<Shard>>;
type Rack = Vec<Arc<Shelf>>;

/// Names of volumes (scope 0 → volume id) and of snapshots (scope volume id → node id). Shards
/// behind `Arc`, so that a clone is cheap and the first change after it copies one shard only.
#[derive(Clone, Debug)]
pub(crate) struct NameIndex {
    racks: Vec<Arc<Rack>>,
}

impl Default for NameIndex {
    fn default() -> Self {
        let shelf = Arc::new(vec![Arc::default(); SHARDS]);
        let rack = Arc::new(vec![shelf; SHARDS]);
        Self { racks: vec![rack; SHARDS] }
    }
}

impl NameIndex {
    pub(crate) fn get(&self, scope: VolumeId, name: &str) -> Option<u64> {
        let key = key(scope, name);
        let (rack, shelf, shard) = place(&key);
        self.racks[rack][shelf][shard].get(key.as_str()).copied()
    }

    /// False, and no change, if the name is taken.
    pub(crate) fn insert(&mut self, scope: VolumeId, name: &str, value: u64) -> bool {
        let key = key(scope, name);
        match self.shard_mut(&key).entry(key.into()) {
            std::collections::btree_map::Entry::Occupied(_) => false,
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(value);
                true
            }
        }
    }

    pub(crate) fn remove(&mut self, scope: VolumeId, name: &str) {
        let key = key(scope, name);
        self.shard_mut(&key).remove(key.as_str());
    }

    fn shard_mut(&mut self, key: &str) -> &mut Shard {
        let (rack, shelf, shard) = place(key);
        let shelf = &mut Arc::make_mut(&mut self.racks[rack])[shelf];
        Arc::make_mut(&mut Arc::make_mut(shelf)[shard])
    }
}

fn key(scope: VolumeId, name: &str) -> String {
    format!("{:x}@{name}", scope.0)
}

/// FNV-1a: any spread will do, but it must be the same in every run.
fn place(key: &str) -> (usize, usize, usize) {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let part = |bits: u32| (hash >> bits) as usize % SHARDS;
    (part(40), part(36), part(32))
}
