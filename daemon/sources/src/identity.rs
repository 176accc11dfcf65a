//! Which document a file is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use moat_contracts::{Digest, DocumentId};

/// Whether another file already answers to a known document in this scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// No file does yet.
    No,
    /// One does.
    Yes,
    /// One may: a file that is still being written.
    Perhaps,
}

/// What stands between one known document and the file that may be it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The document was last seen at the file's path.
    pub(crate) same_path: bool,
    /// The document was last seen with the file's device and inode.
    pub(crate) same_inode: bool,
    /// What it was last seen with is still at its old path. Always so where `same_path` and `same_inode` are.
    pub(crate) at_home: bool,
    /// The file begins as the document did; an inode alone says nothing, since systems use them again.
    pub(crate) same_start: bool,
    /// Another file's claim.
    pub(crate) taken: Taken,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The document of the claim with this index.
    Known(usize),
    /// None that is known.
    New,
    /// To be asked again when every other file has been seen: the document of this path may have moved.
    Later,
    /// To be asked again in a later scan: a file that is still being written may be the document of this path.
    Unsettled,
}

/// Decides which document a file is.
///
/// 1. Same path and inode: the document itself, however much it was rewritten.
/// 2. Same inode and same start, its old path given up: renamed, or rotated away. The id follows.
/// 3. Same path, other inode: replaced by rename, as editors do, once no other file turned out to be the document
///    (`all_seen`).
/// 4. Otherwise new: a hard link, an inode used again, a file in the place of one that was rotated away.
pub(crate) fn identify(claims: &[Claim], all_seen: bool) -> Identity {
    let find = |fits: fn(&Claim) -> bool| claims.iter().position(fits);
    if let Some(itself) = find(|claim| claim.same_path && claim.same_inode && claim.taken != Taken::Yes) {
        return Identity::Known(itself);
    }
    let moved = |claim: &Claim| claim.same_inode && claim.same_start && !claim.at_home;
    if let Some(moved) = claims.iter().position(|claim| moved(claim) && claim.taken != Taken::Yes) {
        return Identity::Known(moved);
    }
    match find(|claim| claim.same_path && claim.taken != Taken::Yes) {
        None => Identity::New,
        Some(_) if !all_seen => Identity::Later,
        Some(replaced) if claims[replaced].taken == Taken::No => Identity::Known(replaced),
        Some(_) => Identity::Unsettled,
    }
}

/// Makes an id that no document of any source has: over the clock, the process and a counter besides what it is
/// made for.
pub(crate) fn mint(source: &str, path: &str, device: u64, inode: u64) -> DocumentId {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    // A clock before 1970 leaves the counter and the rest to tell documents apart.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    DocumentId(Digest::of_parts(&[
        b"moat document 1\0",
        &(source.len() as u64).to_le_bytes(),
        source.as_bytes(),
        &(path.len() as u64).to_le_bytes(),
        path.as_bytes(),
        &device.to_le_bytes(),
        &inode.to_le_bytes(),
        &now.to_le_bytes(),
        &std::process::id().to_le_bytes(),
        &count.to_le_bytes(),
    ]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Claim, Identity, Taken, identify, mint};

    const ITSELF: Claim =
        Claim { same_path: true, same_inode: true, at_home: true, same_start: true, taken: Taken::No };
    const RENAMED: Claim =
        Claim { same_path: false, same_inode: true, at_home: false, same_start: true, taken: Taken::No };
    const REPLACED: Claim =
        Claim { same_path: true, same_inode: false, at_home: false, same_start: false, taken: Taken::No };

    #[test]
    fn every_case_of_the_table() {
        let taken = |claim: Claim| Claim { taken: Taken::Yes, ..claim };
        let perhaps = |claim: Claim| Claim { taken: Taken::Perhaps, ..claim };
        let cases: [(&str, &[Claim], Identity, Identity); 12] = [
            ("nothing known", &[], Identity::New, Identity::New),
            ("unmoved", &[ITSELF], Identity::Known(0), Identity::Known(0)),
            (
                "rewritten in place",
                &[Claim { same_start: false, ..ITSELF }],
                Identity::Known(0),
                Identity::Known(0),
            ),
            ("renamed", &[RENAMED], Identity::Known(0), Identity::Known(0)),
            ("hard link", &[Claim { at_home: true, ..RENAMED }], Identity::New, Identity::New),
            ("inode used again", &[Claim { same_start: false, ..RENAMED }], Identity::New, Identity::New),
            ("second link to what was renamed", &[taken(RENAMED)], Identity::New, Identity::New),
            ("replaced by rename", &[REPLACED], Identity::Later, Identity::Known(0)),
            ("new file after rotation", &[taken(REPLACED)], Identity::New, Identity::New),
            (
                "new file while the rotated one is written",
                &[perhaps(REPLACED)],
                Identity::Later,
                Identity::Unsettled,
            ),
            ("renamed over another", &[REPLACED, RENAMED], Identity::Known(1), Identity::Known(1)),
            (
                "replaced by a file with an inode used again",
                &[REPLACED, Claim { same_start: false, ..RENAMED }],
                Identity::Later,
                Identity::Known(0),
            ),
        ];
        for (name, claims, early, late) in cases {
            assert_eq!(identify(claims, false), early, "{name}, early");
            assert_eq!(identify(claims, true), late, "{name}, late");
        }
    }

    fn claim() -> impl Strategy<Value = Claim> {
        let taken = prop_oneof![Just(Taken::No), Just(Taken::Yes), Just(Taken::Perhaps)];
        (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), taken).prop_map(
            |(same_path, same_inode, at_home, same_start, taken)| Claim {
                same_path,
                same_inode,
                at_home,
                same_start,
                taken,
            },
        )
    }

    proptest! {
        #[test]
        fn no_document_is_given_twice_or_to_a_stranger(
            claims in proptest::collection::vec(claim(), 0..5),
            all_seen in any::<bool>(),
        ) {
            match identify(&claims, all_seen) {
                Identity::Known(index) => {
                    let claim = claims[index];
                    prop_assert!(claim.taken != Taken::Yes);
                    prop_assert!(claim.same_path || claim.same_inode && claim.same_start && !claim.at_home);
                }
                Identity::Later => prop_assert!(!all_seen),
                Identity::Unsettled => prop_assert!(all_seen),
                Identity::New => prop_assert!(
                    claims.iter().all(|claim| claim.taken == Taken::Yes || !claim.same_path)
                ),
            }
        }
    }

    #[test]
    fn two_documents_never_share_an_id() {
        assert_ne!(mint("s", "a", 1, 2), mint("s", "a", 1, 2));
    }
}
