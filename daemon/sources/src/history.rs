//! When the author of a path last changed it: what `git log -1 --format=%at -- PATH` answers, for all paths at once.

use std::collections::{BinaryHeap, HashMap, HashSet};

use gix::{ObjectId, Repository};

use crate::tree::{Blob, changed};

/// For each path (by its number) the author's time of the last commit that touched it.
///
/// The history is walked from the tip. A commit answers for the paths that differ from each of its parents; the others
/// go to the first parent that has them just so. At a commit that `known` answers for, the walk takes its answers and
/// goes no further. A parent that is not in the repository (a shallow clone) is as good as none.
pub(crate) fn authored(
    repository: &Repository,
    tip: ObjectId,
    numbers: &HashMap<Vec<u8>, u32>,
    known: Option<(ObjectId, &HashMap<u32, i64>)>,
) -> gix::Result<HashMap<u32, i64>> {
    let mut answers = HashMap::with_capacity(numbers.len());
    let mut asked: HashMap<ObjectId, HashSet<u32>> = HashMap::new();
    let mut queue = BinaryHeap::new();
    let all: HashSet<u32> = numbers.values().copied().collect();
    if !all.is_empty() {
        queue.push((i64::MAX, tip));
        asked.insert(tip, all);
    }
    while let Some((_, id)) = queue.pop() {
        let Some(mut paths) = asked.remove(&id) else { continue };
        if let Some((_, before)) = known.filter(|(known, _)| *known == id) {
            paths.retain(|path| match before.get(path) {
                Some(time) => {
                    answers.insert(*path, *time);
                    false
                }
                None => true,
            });
            if paths.is_empty() {
                continue;
            }
        }
        let commit = repository.find_commit(id)?;
        let tree = commit.tree_id()?.detach();
        for parent in commit.parent_ids() {
            let Some(parent) = repository.try_find_object(parent)? else { continue };
            let parent = parent.try_into_commit()?;
            let mut touched = HashSet::new();
            changed(repository, parent.tree_id()?.detach(), tree, &mut |path, _: Option<Blob>| {
                touched.extend(numbers.get(path).filter(|number| paths.contains(number)));
            })?;
            let passed: HashSet<u32> = paths.difference(&touched).copied().collect();
            if !passed.is_empty() {
                paths = touched;
                let time = parent.committer()?.seconds();
                queue.push((time, parent.id));
                asked.entry(parent.id).or_default().extend(passed);
            }
            if paths.is_empty() {
                break;
            }
        }
        if !paths.is_empty() {
            let time = commit.author()?.seconds();
            answers.extend(paths.into_iter().map(|path| (path, time)));
        }
    }
    Ok(answers)
}
