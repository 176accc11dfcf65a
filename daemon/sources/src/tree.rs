//! Trees of a git repository: every entry of one, and the paths in which two differ.

use gix::objs::tree::{EntryKind, EntryMode};
use gix::{ObjectId, Repository};

use crate::path::join;

/// Folders below each other that are entered; deeper ones are passed over. No checkout could hold them.
const DEPTH: usize = 512;

/// What a path holds in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) id: ObjectId,
    pub(crate) kind: EntryKind,
}

/// One entry of a tree.
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) mode: EntryMode,
    pub(crate) id: ObjectId,
}

impl Entry {
    fn blob(&self) -> Blob {
        Blob { id: self.id, kind: self.mode.kind() }
    }
}

/// The entries of a tree, by name.
pub(crate) fn entries(repository: &Repository, tree: ObjectId) -> gix::Result<Vec<Entry>> {
    if tree == ObjectId::empty_tree(tree.kind()) {
        return Ok(Vec::new());
    }
    let tree = repository.find_tree(tree)?;
    let mut entries = Vec::new();
    for entry in tree.iter() {
        let entry = entry?;
        entries.push(Entry { name: entry.filename().to_vec(), mode: entry.mode(), id: entry.object_id() });
    }
    // Git sorts folders as if their names ended in a slash; two trees are compared by bare names.
    entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

/// Every path of a tree that holds something else than a folder.
pub(crate) fn files(
    repository: &Repository,
    tree: ObjectId,
    each: &mut impl FnMut(&[u8], Blob),
) -> gix::Result<()> {
    let empty = ObjectId::empty_tree(tree.kind());
    changed(repository, empty, tree, &mut |path, blob: Option<Blob>| {
        if let Some(blob) = blob {
            each(path, blob);
        }
    })
}

/// Every path that holds something else in `new` than in `old`, with what it holds in `new`.
pub(crate) fn changed(
    repository: &Repository,
    old: ObjectId,
    new: ObjectId,
    each: &mut impl FnMut(&[u8], Option<Blob>),
) -> gix::Result<()> {
    let mut pairs = vec![(Vec::new(), 0, Some(old), Some(new))];
    while let Some((path, depth, old, new)) = pairs.pop() {
        if old == new || depth > DEPTH {
            continue;
        }
        let read = |tree: Option<ObjectId>| tree.map_or(Ok(Vec::new()), |tree| entries(repository, tree));
        let (old, new) = (read(old)?, read(new)?);
        let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
        loop {
            let (before, after) = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(_), None) => (old.next(), None),
                (None, Some(_)) => (None, new.next()),
                (Some(before), Some(after)) => match before.name.cmp(&after.name) {
                    std::cmp::Ordering::Less => (old.next(), None),
                    std::cmp::Ordering::Greater => (None, new.next()),
                    std::cmp::Ordering::Equal => (old.next(), new.next()),
                },
            };
            let Some(name) = after.as_ref().or(before.as_ref()).map(|entry| &entry.name) else { break };
            let path = join(&path, name);
            let folder = |entry: &Option<Entry>| {
                entry.as_ref().filter(|entry| entry.mode.is_tree()).map(|entry| entry.id)
            };
            let file =
                |entry: &Option<Entry>| entry.as_ref().filter(|entry| !entry.mode.is_tree()).map(Entry::blob);
            if file(&before) != file(&after) {
                each(&path, file(&after));
            }
            let (before, after) = (folder(&before), folder(&after));
            if before.is_some() || after.is_some() {
                pairs.push((path, depth + 1, before, after));
            }
        }
    }
    Ok(())
}
