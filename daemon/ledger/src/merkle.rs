//! The tree of RFC 6962, section 2: hashes, the compact frontier, proofs and their verification (RFC 9162, 2.1.3, 2.1.4).

use ring::digest::{Context, SHA256, digest};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

fn finish(context: Context) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// `SHA-256(0x00 || data)`.
#[must_use]
pub fn leaf_hash(data: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(data);
    finish(context)
}

/// `SHA-256(0x01 || left || right)`.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[1]);
    context.update(left);
    context.update(right);
    finish(context)
}

/// The root of a tree without leaves: `SHA-256("")`.
#[must_use]
pub fn empty_root() -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, b"").as_ref());
    hash
}

/// How many hashes of complete subtrees a log of `leaves` entries has: the sum of `leaves / 2^k`.
pub(crate) fn stored_before(leaves: u64) -> u64 {
    2 * leaves - u64::from(leaves.count_ones())
}

/// Where the hash of the `nth` complete subtree of `2^level` leaves stands, when each is stored as it is completed.
pub(crate) fn stored_at(level: u32, nth: u64) -> u64 {
    stored_before(((nth + 1) << level) - 1) + u64::from(level)
}

/// The roots of the complete subtrees that make up a log, largest first: all that appending needs to know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// How many leaves the tree has.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf; hands each subtree that it completes to `emit`, the leaf first, in the order of [`stored_at`].
    pub(crate) fn push<E>(
        &mut self,
        leaf: Hash,
        mut emit: impl FnMut(Hash) -> Result<(), E>,
    ) -> Result<(), E> {
        emit(leaf)?;
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            // One peak stands for each bit set in the size, so there is one to take.
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
            emit(hash)?;
        }
        self.peaks.push(hash);
        self.size += 1;
        Ok(())
    }

    /// The root of the whole tree.
    pub(crate) fn root(&self) -> Hash {
        let folded = self.peaks.iter().rev().copied().reduce(|right, left| node_hash(&left, &right));
        folded.unwrap_or_else(empty_root)
    }
}

/// The largest power of two below `leaves`, which is at least 2.
fn split(leaves: u64) -> u64 {
    1 << (63 - (leaves - 1).leading_zeros())
}

/// The root over leaves `from..to`, with `read(level, nth)` for the complete subtrees within.
pub(crate) fn range_root<E>(
    from: u64,
    to: u64,
    read: &mut impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Hash, E> {
    let leaves = to - from;
    if leaves == 0 {
        return Ok(empty_root());
    }
    if leaves.is_power_of_two() {
        let level = leaves.trailing_zeros();
        return read(level, from >> level);
    }
    let middle = from + split(leaves);
    let left = range_root(from, middle, read)?;
    Ok(node_hash(&left, &range_root(middle, to, read)?))
}

/// The path from leaf `index` to the root of the tree of `size` leaves (RFC 6962, 2.1.1), nearest first.
pub(crate) fn inclusion<E>(
    index: u64,
    size: u64,
    read: &mut impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let (mut from, mut to, mut path) = (0, size, Vec::new());
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            path.push(range_root(middle, to, read)?);
            to = middle;
        } else {
            path.push(range_root(from, middle, read)?);
            from = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// What shows that the tree of `old` leaves is a beginning of that of `new` (RFC 6962, 2.1.2). `0 < old <= new`.
pub(crate) fn consistency<E>(
    old: u64,
    new: u64,
    read: &mut impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let (mut from, mut to, mut path) = (0, new, Vec::new());
    while to != old {
        let middle = from + split(to - from);
        if old <= middle {
            path.push(range_root(middle, to, read)?);
            to = middle;
        } else {
            path.push(range_root(from, middle, read)?);
            from = middle;
        }
    }
    // The old tree itself is known to whoever asks; a subtree within it is not.
    if from != 0 {
        path.push(range_root(from, to, read)?);
    }
    path.reverse();
    Ok(path)
}

/// Whether `path` leads from the entry with hash `leaf` at `index` to `root`, the root of `size` entries.
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for beside in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(beside, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, beside);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `path` shows that the log of `old` entries with `old_root` is the beginning of that of `new` with `new_root`.
#[must_use]
pub fn verify_consistency(old: u64, old_root: &Hash, new: u64, new_root: &Hash, path: &[Hash]) -> bool {
    if old == new {
        return path.is_empty() && old_root == new_root;
    }
    if old == 0 || old > new {
        return old == 0 && path.is_empty() && *old_root == empty_root();
    }
    // A complete old tree is itself a subtree of the new one, so the proof leaves its root out.
    let (mut path, own) = (path.iter(), old.is_power_of_two().then_some(old_root));
    let Some(first) = own.or_else(|| path.next()) else { return false };
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut before, mut after) = (*first, *first);
    for beside in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            before = node_hash(beside, &before);
            after = node_hash(beside, &after);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            after = node_hash(&after, beside);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && before == *old_root && after == *new_root
}
