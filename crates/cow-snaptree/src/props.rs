//! User properties and hold tags of a node: at most 4 KiB in all.
//!
//! ```text
//! payload of the blob: n u16, n x (key string, value string), m u16, m x tag string
//! string: length u16, bytes
//! ```

use crate::error::{TreeError, corrupt, invalid};
use crate::space::{BUDGET, RESERVE};
use cow_format::entry::{MAX_NAME, MAX_PROPS};
use cow_format::record::PropChange;
use cow_format::wire::{Malformed, Reader, Writer};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

/// Which snapshots of a volume are kept.
pub const KEEP: &str = "keep";
/// The group that a volume belongs to.
pub const GROUP: &str = "group";
/// Properties that [`cow_format::entry::NodeEntry::policy`] stands for.
const POLICIES: [&str; 4] = [KEEP, GROUP, BUDGET, RESERVE];

/// Whether a property is one of those that the flag stands for.
pub(crate) fn is_policy(key: &str) -> bool {
    POLICIES.contains(&key)
}

/// Whether there is one.
pub(crate) fn has_policy(props: &Props) -> bool {
    POLICIES.iter().any(|key| props.map.contains_key(*key))
}

/// Properties and holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Props {
    /// Key to value.
    pub map: BTreeMap<String, String>,
    /// Tags of holds: while there is one the node cannot be deleted.
    pub holds: BTreeSet<String>,
}

/// Those of a node: copies share them, and where there are none they need no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept(Option<Arc<Props>>);

static NONE: Props = Props { map: BTreeMap::new(), holds: BTreeSet::new() };

impl From<Props> for Kept {
    fn from(props: Props) -> Self {
        Self((!props.is_empty()).then(|| Arc::new(props)))
    }
}

impl Deref for Kept {
    type Target = Props;

    fn deref(&self) -> &Props {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

/// A change to properties that are not loaded yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    Set(Vec<PropChange>),
    Hold { set: bool, tag: String },
}

impl Props {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty() && self.holds.is_empty()
    }

    /// Bytes of the payload.
    pub fn encoded_len(&self) -> usize {
        let props: usize = self.map.iter().map(|(k, v)| 4 + k.len() + v.len()).sum();
        let holds: usize = self.holds.iter().map(|tag| 2 + tag.len()).sum();
        4 + props + holds
    }

    /// The payload of its blob; no bytes at all when empty.
    pub fn encode(&self) -> Vec<u8> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut w = Writer::default();
        w.u16(self.map.len() as u16);
        for (key, value) in &self.map {
            w.string(key);
            w.string(value);
        }
        w.u16(self.holds.len() as u16);
        self.holds.iter().for_each(|tag| w.string(tag));
        w.bytes
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// When it is malformed or over 4 KiB.
    pub fn decode(payload: &[u8]) -> Result<Self, TreeError> {
        if payload.is_empty() {
            return Ok(Self::default());
        }
        if payload.len() > MAX_PROPS {
            return corrupt("properties over 4 KiB");
        }
        parse(payload).or_else(|Malformed| corrupt("properties: malformed"))
    }

    pub(crate) fn from_changes(changes: &[PropChange]) -> Self {
        let mut props = Self::default();
        props.change(changes);
        props
    }

    pub(crate) fn change(&mut self, changes: &[PropChange]) {
        for (key, value) in changes {
            match value {
                Some(value) => self.map.insert(key.clone(), value.clone()),
                None => self.map.remove(key),
            };
        }
    }

    pub(crate) fn edit(&mut self, edit: &Edit) {
        match edit {
            Edit::Set(changes) => self.change(changes),
            Edit::Hold { set: true, tag } => drop(self.holds.insert(tag.clone())),
            Edit::Hold { set: false, tag } => drop(self.holds.remove(tag)),
        }
    }

    /// Whether it may be stored.
    pub(crate) fn check_size(&self) -> Result<(), TreeError> {
        if self.encoded_len() > MAX_PROPS {
            return Err(TreeError::Limit(format!("properties and hold tags: {MAX_PROPS} bytes")));
        }
        Ok(())
    }
}

fn parse(payload: &[u8]) -> Result<Props, Malformed> {
    let (mut r, mut props) = (Reader::new(payload), Props::default());
    for _ in 0..r.u16()? {
        props.map.insert(r.string()?, r.string()?);
    }
    for _ in 0..r.u16()? {
        props.holds.insert(r.string()?);
    }
    if r.is_done() { Ok(props) } else { Err(Malformed) }
}

/// Checks keys and values that a user chose.
pub(crate) fn check_changes(changes: &[PropChange]) -> Result<(), TreeError> {
    if changes.len() > MAX_PROPS {
        return Err(TreeError::Limit(format!("{MAX_PROPS} properties in one change")));
    }
    for (key, value) in changes {
        if !(1..=MAX_NAME).contains(&key.len()) || key.chars().any(char::is_control) {
            return invalid(format!("property: key {key:?} is not 1 to 128 printable bytes"));
        }
        if value.as_ref().is_some_and(|value| value.len() > MAX_PROPS) {
            return Err(TreeError::Limit(format!("property {key}: {MAX_PROPS} bytes")));
        }
    }
    Ok(())
}

/// Checks a hold tag that a user chose.
pub(crate) fn check_tag(tag: &str) -> Result<(), TreeError> {
    if !(1..=MAX_NAME).contains(&tag.len()) || !tag.bytes().all(|b| b.is_ascii_graphic()) {
        return invalid(format!("tag: {tag:?} is not 1 to 128 printable bytes without spaces"));
    }
    Ok(())
}
