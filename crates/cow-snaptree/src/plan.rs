//! Planning: everything is checked here, so that a record, once journalled, can be applied. The
//! records of a plan form one group; the tree changes only when they are applied.

use crate::error::{TreeError, invalid};
use crate::name::check_user_name;
use crate::node::Node;
use crate::policy::{check_policies, check_pool_policies};
use crate::props::{Props, check_changes, check_tag};
use crate::seals::check_roots;
use crate::table::{MAX_NODES, ROLLBACK_SLOTS};
use crate::tree::{POOL_NODE, Tree};
use cow_format::entry::{Consistency, NodeKind};
use cow_format::mapnode::{MAX_LEVEL, span_blocks};
use cow_format::record::{PropChange, Record, SnapMember};
use cow_format::{BLOCK_SIZE, Gen, NodeId, VolumeId};
use std::collections::BTreeSet;

/// Payload bytes of one record, about: a record never spans frames of 64 KiB.
pub(crate) const RECORD_BYTES: usize = 32 << 10;

/// Most volumes that one group snapshots or rolls back. With properties of 4 KiB for each the group
/// still fits the 8 MiB that the journal takes.
pub const MAX_TARGETS: usize = 1024;

/// Refuses a group of no volume, or of too many.
///
/// # Errors
/// `Invalid`, `Limit`.
pub fn check_targets(count: usize) -> Result<(), TreeError> {
    match count {
        0 => invalid("targets: none"),
        1..=MAX_TARGETS => Ok(()),
        _ => Err(TreeError::Limit(format!("targets: {count}, at most {MAX_TARGETS} at once"))),
    }
}

/// How snapshots are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapOptions {
    /// `User` or `Auto`.
    pub kind: NodeKind,
    /// How the guest was prepared.
    pub consistency: Consistency,
    /// How long it had been frozen, in milliseconds; 0 if it was not.
    pub freeze_ms: u32,
    /// When they expire, nanoseconds since 1970; 0 for never.
    pub expiry_ns: u64,
    /// Properties of each.
    pub props: Vec<(String, String)>,
    /// Volumes whose properties cannot be read: no limit of theirs is known.
    pub unlimited: BTreeSet<VolumeId>,
    /// The properties of the pool cannot be read: no limit of a group is known.
    pub ungrouped: bool,
}

impl Default for SnapOptions {
    fn default() -> Self {
        Self {
            kind: NodeKind::User,
            consistency: Consistency::Crash,
            freeze_ms: 0,
            expiry_ns: 0,
            props: Vec::new(),
            unlimited: BTreeSet::new(),
            ungrouped: false,
        }
    }
}

/// A volume to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// Its name.
    pub name: String,
    /// Its size in bytes; kept to the byte.
    pub size_bytes: u64,
    /// Its properties.
    pub props: Vec<(String, String)>,
}

/// Changes of the properties of `VOL`, `VOL@SNAP` or (empty name) the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PropEdit {
    /// Whose.
    pub name: String,
    /// `None` removes.
    pub changes: Vec<PropChange>,
}

/// Whether a volume can have this size: kept to the byte, at least one, at most 4 PiB.
pub(crate) fn valid_size(bytes: u64) -> bool {
    bytes > 0 && bytes <= span_blocks(MAX_LEVEL) * BLOCK_SIZE as u64
}

impl Tree {
    /// New volumes, all or none.
    ///
    /// # Errors
    /// `Invalid` (a name twice too), `Exists`, `Limit`, `NoSlots`.
    pub fn plan_create_volumes(
        &self,
        volumes: &[NewVolume],
        time_ns: u64,
    ) -> Result<Vec<Record>, TreeError> {
        let (first_gen, first_id) = self.plan_new_volumes(volumes.len())?;
        let (mut seen, mut records) = (BTreeSet::new(), Vec::with_capacity(volumes.len()));
        for (at, new) in (0..).zip(volumes) {
            check_size(new.size_bytes)?;
            self.check_volume_name(&new.name)?;
            check_policies(new.props.iter().map(|(key, value)| (key, Some(value))))?;
            if !seen.insert(&new.name) {
                return invalid(format!("volumes: {} twice", new.name));
            }
            records.push(Record::VolCreate {
                label_gen: Gen(first_gen.0 + at),
                volume: VolumeId(first_id.0 + u64::from(at)),
                node: self.next_node(at.into()),
                size_bytes: new.size_bytes,
                time_ns,
                name: new.name.clone(),
                props: plan_props(&new.props)?,
            });
        }
        Ok(records)
    }

    /// A new volume that begins as snapshot `source` = (volume, snapshot).
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `Exists`, `Limit`, `NoSlots`.
    pub fn plan_clone(
        &self,
        source: (&str, &str),
        name: &str,
        props: &[(String, String)],
        time_ns: u64,
    ) -> Result<Vec<Record>, TreeError> {
        let (_, parent) = self.find_snapshot(source)?;
        self.check_volume_name(name)?;
        check_policies(props.iter().map(|(key, value)| (key, Some(value))))?;
        let (label_gen, volume) = self.plan_new_volumes(1)?;
        let node = self.next_node(0);
        let (name, props) = (name.to_owned(), plan_props(props)?);
        Ok(vec![Record::Clone { label_gen, volume, node, parent, time_ns, name, props }])
    }

    /// Snapshots `(volume, name)` at one instant. More than fit one record become several, of
    /// one group.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` (a volume twice too), `Exists`, `Limit` (more than [`MAX_TARGETS`]; the
    /// volume's own for snapshots of kind user), `NoSlots`, `NotLoaded`.
    pub fn plan_snapshot(
        &self,
        targets: &[(&str, &str)],
        options: &SnapOptions,
        time_ns: u64,
    ) -> Result<Vec<Record>, TreeError> {
        if !matches!(options.kind, NodeKind::User | NodeKind::Auto) {
            return invalid("kind: a snapshot is user or auto");
        }
        check_targets(targets.len())?;
        let props = plan_props(&options.props)?;
        let group = if targets.len() > 1 { self.counters.last_group.saturating_add(1) } else { 0 };
        let (mut seen, mut groups) = (BTreeSet::new(), vec![Vec::new()]);
        let mut bytes = 0;
        for (at, &(volume, name)) in targets.iter().enumerate() {
            let id = self.find_volume(volume)?;
            check_user_name("snapshot", name)?;
            if !seen.insert(id) {
                return invalid(format!("targets: volume {volume} twice"));
            }
            if self.snapshot_by_name(id, name).is_some() {
                return Err(TreeError::Exists(format!("{volume}@{name}")));
            }
            if options.kind == NodeKind::User && !options.unlimited.contains(&id) {
                self.check_snapshot_limit(id)?;
            }
            let new_head = self.next_node(at as u64);
            push_member(
                &mut groups,
                &mut bytes,
                SnapMember { volume: id, new_head, name: name.to_owned() },
                name.len() + 18,
            );
        }
        if options.kind == NodeKind::User && !options.ungrouped {
            self.check_group_limits(&seen, &options.unlimited)?;
        }
        self.check_room(targets.len(), ROLLBACK_SLOTS)?;
        let first_gen = self.next_gens(groups.len())?;
        let record = |(at, members)| Record::SnapCreate {
            label_gen: Gen(first_gen.0 + at as u32),
            time_ns,
            group,
            kind: options.kind,
            consistency: options.consistency,
            freeze_ms: options.freeze_ms,
            expiry_ns: options.expiry_ns,
            members,
            props: props.clone(),
        };
        Ok(groups.into_iter().enumerate().map(record).collect())
    }

    /// Another name: of a volume, or of `VOL@SNAP` (`to` without its volume). An undo snapshot
    /// becomes an ordinary one that does not expire.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `Exists`, `Limit`, `NotLoaded`.
    pub fn plan_rename(&self, name: &str, to: &str) -> Result<Vec<Record>, TreeError> {
        let node = self.resolve(name)?;
        check_user_name("name", to)?;
        let new_name = match name.split_once('@') {
            None => to.to_owned(),
            Some((volume, _)) => format!("{volume}@{to}"),
        };
        let taken = match name.contains('@') {
            true => self.resolve(&new_name).is_ok(),
            false => self.volume_by_name(to).is_some(),
        };
        if taken {
            return Err(TreeError::Exists(new_name));
        }
        if let Some(undo) = self.node(node).filter(|node| node.entry.kind == NodeKind::Undo) {
            let volume = undo.entry.volume;
            self.check_snapshot_limit(volume)?;
            self.check_group_limits(&BTreeSet::from([volume]), &BTreeSet::new())?;
        }
        Ok(vec![Record::Rename { node, name: to.to_owned() }])
    }

    /// Another size of a volume. What a smaller size cuts off the caller clears in the same
    /// group.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for an impossible size, or a smaller one without `shrink`.
    pub fn plan_resize(
        &self,
        volume: &str,
        size_bytes: u64,
        shrink: bool,
    ) -> Result<Vec<Record>, TreeError> {
        let id = self.find_volume(volume)?;
        check_size(size_bytes)?;
        let head = self.head(id).and_then(|head| self.node(head));
        if !shrink && head.is_some_and(|head| size_bytes < head.entry.size_bytes) {
            return invalid(format!("size: would cut off the end of volume {volume}"));
        }
        Ok(vec![Record::VolResize { volume: id, size_bytes }])
    }

    /// Changes of properties of `VOL`, `VOL@SNAP` or, with an empty name, the pool.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `Limit` (4 KiB with the tags of holds), `NotLoaded`, `NoSlots`.
    pub fn plan_set_props(
        &self,
        name: &str,
        changes: &[PropChange],
    ) -> Result<Vec<Record>, TreeError> {
        check_changes(changes)?;
        let is_snapshot = name.contains('@');
        for (key, value) in changes.iter().filter(|_| !is_snapshot) {
            check_roots(key, value.as_ref())?;
        }
        let (node, id) = match name {
            "" => (NodeId(0), POOL_NODE),
            _ => self.resolve(name).map(|id| (id, id))?,
        };
        let mut props = match self.node(id) {
            Some(node) => node.props.as_deref().cloned().ok_or(TreeError::NotLoaded(id))?,
            None => {
                self.check_room(1, ROLLBACK_SLOTS)?;
                Props::default()
            }
        };
        if id == POOL_NODE {
            check_pool_policies(changes)?;
        }
        if self.node(id).is_some_and(Node::is_head) {
            check_policies(changes.iter().map(|(key, value)| (key, value.as_ref())))?;
        }
        props.change(changes);
        props.check_size()?;
        Ok(vec![Record::SetProps { node, props: changes.to_vec() }])
    }

    /// Changes of properties that are to stand before other records of the same group.
    ///
    /// # Errors
    /// Those of [`Tree::plan_set_props`]; `Invalid` for a name twice.
    pub fn plan_edits(&self, edits: &[PropEdit]) -> Result<Vec<Record>, TreeError> {
        let (mut seen, mut records) = (BTreeSet::new(), Vec::with_capacity(edits.len()));
        for edit in edits {
            if !seen.insert(&edit.name) {
                return invalid(format!("properties: {} twice", edit.name));
            }
            records.extend(self.plan_set_props(&edit.name, &edit.changes)?);
        }
        Ok(records)
    }

    /// Sets or releases a hold on `VOL` or `VOL@SNAP`.
    ///
    /// # Errors
    /// `NotFound` (the tag too), `Exists`, `Invalid`, `Limit`, `NotLoaded`.
    pub fn plan_hold(&self, name: &str, tag: &str, set: bool) -> Result<Vec<Record>, TreeError> {
        let id = self.resolve(name)?;
        check_tag(tag)?;
        let props = self.node(id).and_then(|node| node.props.as_deref());
        let mut props = props.cloned().ok_or(TreeError::NotLoaded(id))?;
        let what = || format!("hold {tag} on {name}");
        if set && !props.holds.insert(tag.to_owned()) {
            return Err(TreeError::Exists(what()));
        }
        if !set && !props.holds.remove(tag) {
            return Err(TreeError::NotFound(what()));
        }
        props.check_size()?;
        Ok(vec![Record::Hold { node: id, set, tag: tag.to_owned() }])
    }

    pub(crate) fn find_volume(&self, name: &str) -> Result<VolumeId, TreeError> {
        self.volume_by_name(name).ok_or_else(|| TreeError::NotFound(name.to_owned()))
    }

    pub(crate) fn find_snapshot(
        &self,
        (volume, name): (&str, &str),
    ) -> Result<(VolumeId, NodeId), TreeError> {
        let id = self.find_volume(volume)?;
        let node = self.snapshot_by_name(id, name);
        node.map(|node| (id, node)).ok_or_else(|| TreeError::NotFound(format!("{volume}@{name}")))
    }

    fn check_volume_name(&self, name: &str) -> Result<(), TreeError> {
        check_user_name("volume", name)?;
        match self.volume_by_name(name) {
            Some(_) => Err(TreeError::Exists(name.to_owned())),
            None => Ok(()),
        }
    }

    /// The first generation and volume id of `count` new volumes.
    fn plan_new_volumes(&self, count: usize) -> Result<(Gen, VolumeId), TreeError> {
        if count == 0 {
            return invalid("volumes: none");
        }
        let first = VolumeId(self.counters.last_volume.0.saturating_add(1));
        let is_full = self.volumes.len() + count > self.limits.volumes;
        if is_full || first.0 + count as u64 > u64::from(u32::MAX) {
            return Err(TreeError::Limit(format!("{} volumes", self.volumes.len())));
        }
        self.check_room(count, ROLLBACK_SLOTS)?;
        Ok((self.next_gens(count)?, first))
    }

    /// Whether `count` more nodes fit a table in which `reserve` slots stay free.
    pub(crate) fn check_room(&self, count: usize, reserve: u32) -> Result<(), TreeError> {
        let want = self.nodes.len() + count + reserve as usize;
        if want > MAX_NODES as usize {
            return Err(TreeError::Limit(format!("{MAX_NODES} nodes")));
        }
        if (POOL_NODE.0 - self.counters.last_node.0) as usize <= count {
            return Err(TreeError::Limit("node ids".to_owned()));
        }
        if want > self.total_slots as usize {
            return Err(TreeError::NoSlots);
        }
        Ok(())
    }

    /// The first of `count` generations that come next.
    pub(crate) fn next_gens(&self, count: usize) -> Result<Gen, TreeError> {
        let last = self.counters.last_gen.0;
        if u64::from(last) + count as u64 >= u64::from(Gen::CREATE_LIMIT) {
            return Err(TreeError::Limit("generations: no more nodes can be made".to_owned()));
        }
        Ok(Gen(last + 1))
    }

    pub(crate) fn next_node(&self, after: u64) -> NodeId {
        NodeId(self.counters.last_node.0.saturating_add(1 + after))
    }

    /// Refuses if the node is held, naming the tags.
    pub(crate) fn check_not_held(&self, node: &Node) -> Result<(), TreeError> {
        if node.entry.holds == 0 {
            return Ok(());
        }
        let id = node.entry.id;
        let props = node.props.as_deref().ok_or(TreeError::NotLoaded(id))?;
        let tags: Vec<&str> = props.holds.iter().map(String::as_str).collect();
        let name = self.full_name(id).unwrap_or_default();
        Err(TreeError::Busy(format!("{name} is held by {}", tags.join(", "))))
    }
}

/// Adds a member to the last record that has room for it.
pub(crate) fn push_member<T>(groups: &mut Vec<Vec<T>>, bytes: &mut usize, member: T, len: usize) {
    *bytes += len;
    match groups.last_mut() {
        Some(last) if *bytes <= RECORD_BYTES || last.is_empty() => last.push(member),
        _ => {
            *bytes = len;
            groups.push(vec![member]);
        }
    }
}

fn check_size(bytes: u64) -> Result<(), TreeError> {
    if valid_size(bytes) {
        return Ok(());
    }
    invalid(format!("size: {bytes} is not between 1 byte and 4 PiB"))
}

/// Properties as a record states them.
fn plan_props(props: &[(String, String)]) -> Result<Vec<PropChange>, TreeError> {
    let changes: Vec<PropChange> =
        props.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
    check_changes(&changes)?;
    Props::from_changes(&changes).check_size()?;
    Ok(changes)
}
