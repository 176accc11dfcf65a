use rayon::prelude::*;

/// Values of a signature that make one band. Bands of 3 cut curation's 112 values into 37, and two signatures that
/// differ in fewer values than there are bands share one whole: every pair of an estimate of 0.68 or more is found
/// for certain, one of 0.5 with 99.3 %. (28 bands of 4 would be certain only from 0.76 on.)
const BAND: usize = 3;

/// Estimated similarity at which two records may not be on different sides.
const SIMILAR: f64 = 0.5;

/// The group of each record: the index of the group's first record. Records are near-duplicates where their MinHash
/// signatures agree in half of the values or more (the estimate of the Jaccard similarity of their shingles, Broder
/// 1997); a group is what such pairs connect. A record without signature is alone.
pub(crate) fn groups(signatures: &[Vec<u32>]) -> Vec<usize> {
    let mut group: Vec<usize> = (0..signatures.len()).collect();
    let bands = signatures.iter().map(Vec::len).max().unwrap_or(0) / BAND;
    for band in 0..bands {
        let at = band * BAND..(band + 1) * BAND;
        let with = signatures.iter().enumerate();
        let mut rows: Vec<(&[u32], usize)> =
            with.filter_map(|(index, signature)| Some((signature.get(at.clone())?, index))).collect();
        rows.par_sort_unstable();
        let roots: Vec<usize> = (0..group.len()).map(|index| root(&group, index)).collect();
        group.clone_from(&roots);
        let runs: Vec<&[(&[u32], usize)]> =
            rows.chunk_by(|left, right| left.0 == right.0).filter(|run| run.len() > 1).collect();
        let pairs: Vec<(usize, usize)> =
            runs.par_iter().flat_map_iter(|run| similar_pairs(run, signatures, &roots)).collect();
        for (left, right) in pairs {
            let (left, right) = (root(&group, left), root(&group, right));
            // The smaller index is always the root, so that the result does not depend on the order of pairs.
            group[left.max(right)] = left.min(right);
        }
    }
    (0..group.len()).map(|index| root(&group, index)).collect()
}

/// Pairs of one run that are similar and not yet in one group.
fn similar_pairs(
    run: &[(&[u32], usize)],
    signatures: &[Vec<u32>],
    roots: &[usize],
) -> impl Iterator<Item = (usize, usize)> {
    run.iter().enumerate().flat_map(move |(place, (_, left))| {
        let others = run[place + 1..].iter().map(|(_, right)| *right);
        let apart = others.filter(move |right| roots[*left] != roots[*right]);
        apart
            .filter(move |right| similarity(&signatures[*left], &signatures[*right]) >= SIMILAR)
            .map(move |right| (*left, right))
    })
}

/// The share of values that agree.
pub(crate) fn similarity(left: &[u32], right: &[u32]) -> f64 {
    if left.is_empty() || left.len() != right.len() {
        return 0.0;
    }
    let same: u32 = left.iter().zip(right).map(|(left, right)| u32::from(left == right)).sum();
    f64::from(same) / left.len() as f64
}

fn root(group: &[usize], mut index: usize) -> usize {
    while group[index] != index {
        index = group[index];
    }
    index
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{SIMILAR, groups, similarity};

    /// Signatures in which a few originals come back with some values changed, as near-duplicates do.
    fn signatures() -> impl Strategy<Value = Vec<Vec<u32>>> {
        let original = prop::collection::vec(0u32..50, 112);
        let change = (0usize..4, prop::collection::vec((0usize..112, 0u32..50), 0..60));
        (prop::collection::vec(original, 4), prop::collection::vec(change, 1..40)).prop_map(
            |(originals, changes)| {
                let changed = changes.into_iter().map(|(which, changes)| {
                    let mut signature = originals[which].clone();
                    changes.into_iter().for_each(|(place, value)| signature[place] = value);
                    signature
                });
                changed.collect()
            },
        )
    }

    proptest! {
        #[test]
        fn near_duplicates_are_in_one_group(signatures in signatures()) {
            let group = groups(&signatures);
            for left in 0..signatures.len() {
                for right in 0..left {
                    if similarity(&signatures[left], &signatures[right]) >= 0.68 {
                        prop_assert_eq!(group[left], group[right]);
                    }
                }
            }
        }

        #[test]
        fn groups_are_what_similar_pairs_connect(signatures in signatures()) {
            let group = groups(&signatures);
            for index in 0..signatures.len() {
                prop_assert!(group[index] <= index && group[group[index]] == group[index]);
                let reason = (0..signatures.len()).any(|other| {
                    other != index && group[other] == group[index]
                        && similarity(&signatures[index], &signatures[other]) >= SIMILAR
                });
                let alone = (0..signatures.len()).all(|other| other == index || group[other] != group[index]);
                prop_assert!(reason || alone);
            }
        }
    }

    #[test]
    fn records_without_signature_are_alone() {
        assert_eq!(groups(&[vec![], vec![1; 112], vec![], vec![1; 112]]), [0, 1, 2, 1]);
        assert_eq!(groups(&[]), Vec::<usize>::new());
    }
}
