use std::collections::{BTreeMap, BTreeSet, HashMap};

use moat_catalog::{Batch, CatalogError, ClusterId, Group, RowId};
use moat_contracts::{DocumentId, Record, RecordId, Verdict};

use crate::{Compiled, similarity};

/// Why the clusters could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum CurateError {
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// Where the catalog keeps the rules that the clusters were made under.
const RULES: &str = "duplicates_rules";

/// Changes of documents inside one catalog batch, with their effect on clusters.
///
/// Records with equal text form a group. Two groups are linked where their signatures share a band and agree in at
/// least the threshold's share of hashes; clusters are the connected components. The first record of a cluster by
/// source, path and ordinal survives, all others name it as their twin. All of this depends on the records present and
/// on nothing else: not on the order in which they came, nor on what was there before.
///
/// Several documents may be changed before [`Change::settle`]: what a cluster loses is then looked at once. A batch
/// must not be committed in between.
#[must_use = "clusters are right only after `settle`"]
pub struct Change<'a> {
    batch: &'a Batch<'a>,
    rules: &'a Compiled,
    /// Rows that do not name a twin yet.
    fresh: Vec<(RowId, RecordId)>,
    /// Texts whose first record may be another now.
    stale: BTreeSet<RecordId>,
    /// Clusters that lost a group and may have fallen apart.
    broken: BTreeSet<ClusterId>,
    /// Clusters whose survivor is to be chosen anew.
    contested: BTreeSet<ClusterId>,
    /// Clusters of which some rows may name a wrong twin.
    touched: BTreeSet<ClusterId>,
}

/// Stores one document's records and settles: [`Change`] with one document in it.
///
/// # Errors
/// [`CurateError`] where the catalog fails; the batch must be dropped then.
pub fn store(
    batch: &Batch<'_>,
    rules: &Compiled,
    document: DocumentId,
    records: &[Record],
) -> Result<Vec<RowId>, CurateError> {
    let mut change = Change::begin(batch, rules)?;
    let rows = change.store(document, records)?;
    change.settle()?;
    Ok(rows)
}

/// Removes one document's records and settles.
///
/// # Errors
/// [`CurateError`] where the catalog fails; the batch must be dropped then.
pub fn remove(batch: &Batch<'_>, rules: &Compiled, document: DocumentId) -> Result<(), CurateError> {
    store(batch, rules, document, &[]).map(drop)
}

impl<'a> Change<'a> {
    /// Begins; where the rules for duplicates are others than the clusters were made under, makes all clusters anew.
    ///
    /// # Errors
    /// [`CurateError`] where the catalog fails.
    pub fn begin(batch: &'a Batch<'a>, rules: &'a Compiled) -> Result<Self, CurateError> {
        let mut change = Self {
            batch,
            rules,
            fresh: Vec::new(),
            stale: BTreeSet::new(),
            broken: BTreeSet::new(),
            contested: BTreeSet::new(),
            touched: BTreeSet::new(),
        };
        let duplicates = &rules.rules().duplicates;
        let now = format!(
            "1 {} {} {} {}",
            duplicates.threshold, duplicates.shingle, duplicates.bands, duplicates.rows
        );
        if batch.meta(RULES)?.as_deref() != Some(&now) {
            change.rebuild()?;
            batch.put_meta(RULES, &now)?;
        }
        Ok(change)
    }

    /// Replaces all records of a document; gives the new ones' numbers, in the order given.
    ///
    /// # Errors
    /// [`CurateError`] where the catalog fails.
    pub fn store(&mut self, document: DocumentId, records: &[Record]) -> Result<Vec<RowId>, CurateError> {
        let old = self.leave(document)?;
        let rows = self.batch.put_records(document, records)?;
        for (row, record) in rows.iter().zip(records) {
            if record.verdict != Verdict::Dropped {
                self.join(*row, record.id, &record.signature)?;
            }
        }
        for id in old {
            if !self.batch.takes_part(id)?
                && let Some(group) = self.batch.group(id)?
            {
                self.drop_group(&group)?;
            }
        }
        Ok(rows)
    }

    /// Removes all records of a document: it was deleted, or is no longer read.
    ///
    /// # Errors
    /// [`CurateError`] where the catalog fails.
    pub fn remove(&mut self, document: DocumentId) -> Result<(), CurateError> {
        self.store(document, &[]).map(drop)
    }

    /// Notes that a document has another source or path than when its records were stored.
    ///
    /// # Errors
    /// [`CurateError`] where the catalog fails.
    pub fn renamed(&mut self, document: DocumentId) -> Result<(), CurateError> {
        self.stale.extend(self.batch.rows_taking_part(document)?.into_iter().map(|(_, id)| id));
        Ok(())
    }

    /// Makes every record name the twin that survives in its place.
    ///
    /// # Errors
    /// [`CurateError`] where the catalog fails.
    pub fn settle(mut self) -> Result<(), CurateError> {
        for id in std::mem::take(&mut self.stale) {
            let first = self.batch.first_with_id(id)?;
            if let (Some(group), Some(first)) = (self.batch.group(id)?, first) {
                self.batch.set_first(group.group, first)?;
                self.contested.insert(group.cluster);
            }
        }
        for cluster in std::mem::take(&mut self.broken) {
            self.split(cluster)?;
        }
        for cluster in std::mem::take(&mut self.contested) {
            if let Some(first) = self.batch.first_of_cluster(cluster)? {
                self.batch.set_survivor(cluster, first)?;
                self.touched.insert(cluster);
            }
        }
        for cluster in std::mem::take(&mut self.touched) {
            self.show(cluster)?;
        }
        for (row, id) in std::mem::take(&mut self.fresh) {
            if let Some(group) = self.batch.group(id)? {
                self.batch.set_twin(row, group.shown.filter(|(survivor, _)| *survivor != row))?;
            }
        }
        Ok(())
    }

    /// Notes what a document's present records leave behind; gives their texts.
    fn leave(&mut self, document: DocumentId) -> Result<BTreeSet<RecordId>, CurateError> {
        let mut left = BTreeSet::new();
        for (row, id) in self.batch.rows_taking_part(document)? {
            if let Some(group) = self.batch.group(id)? {
                if group.first == row {
                    self.stale.insert(id);
                }
                left.insert(id);
            }
        }
        Ok(left)
    }

    fn join(&mut self, row: RowId, id: RecordId, signature: &[u32]) -> Result<(), CurateError> {
        self.fresh.push((row, id));
        let cluster = match self.batch.group(id)? {
            Some(group) if group.signature == signature => {
                if !self.stale.contains(&id) && self.is_before(row, group.first)? {
                    self.batch.set_first(group.group, row)?;
                }
                group.cluster
            }
            Some(group) => {
                // Made under other rules.
                self.drop_group(&group)?;
                self.stale.insert(id);
                self.enter(row, id, signature)?
            }
            None => self.enter(row, id, signature)?,
        };
        self.touched.insert(cluster);
        if let Some(present) = self.batch.cluster(cluster)?
            && self.is_before(row, present.survivor)?
        {
            // Where the survivor is gone or about to move, `settle` chooses among all.
            self.batch.set_survivor(cluster, row)?;
        }
        Ok(())
    }

    /// Makes a group for a text that was not there, and joins the clusters that it links.
    fn enter(&mut self, row: RowId, id: RecordId, signature: &[u32]) -> Result<ClusterId, CurateError> {
        let bands = self.rules.minhash.bands(signature);
        let cluster = match self.linked(signature, &bands)?.as_slice() {
            [] => self.batch.new_cluster(row)?,
            linked => self.merge(linked)?,
        };
        self.batch.put_group(id, cluster, row, signature, &bands)?;
        Ok(cluster)
    }

    /// The clusters in which a group is similar enough. One such group of a cluster is enough, so a cluster of any
    /// size whose members all look alike costs one comparison.
    fn linked(&self, signature: &[u32], bands: &[u64]) -> Result<Vec<ClusterId>, CurateError> {
        let mut linked = BTreeSet::new();
        let mut compared = BTreeSet::new();
        for band in bands {
            let mut after = None;
            while let Some((cluster, group)) = self.batch.next_in_band(*band, after)? {
                if !linked.contains(&cluster)
                    && compared.insert(group)
                    && self.is_near(signature, &self.batch.group_signature(group)?)
                {
                    linked.insert(cluster);
                }
                let done = linked.contains(&cluster);
                after = Some((cluster, (!done).then_some(group)));
            }
        }
        Ok(linked.into_iter().collect())
    }

    fn is_near(&self, a: &[u32], b: &[u32]) -> bool {
        similarity(a, b) >= self.rules.rules().duplicates.threshold
    }

    /// Joins clusters into the largest of them.
    fn merge(&mut self, clusters: &[ClusterId]) -> Result<ClusterId, CurateError> {
        let mut sized = Vec::new();
        for &cluster in clusters {
            if let Some(present) = self.batch.cluster(cluster)? {
                sized.push((present.size, cluster, present.survivor));
            }
        }
        sized.sort_unstable();
        let Some((_, into, mut survivor)) = sized.pop() else { return Ok(clusters[0]) };
        for (_, cluster, other) in sized {
            for group in self.batch.groups_in(cluster)? {
                self.batch.move_group(&group, into, &self.rules.minhash.bands(&group.signature))?;
            }
            if self.is_before(other, survivor)? {
                survivor = other;
                self.batch.set_survivor(into, survivor)?;
            }
            for marks in [&mut self.broken, &mut self.contested] {
                if marks.remove(&cluster) {
                    marks.insert(into);
                }
            }
        }
        Ok(into)
    }

    fn drop_group(&mut self, group: &Group) -> Result<(), CurateError> {
        self.batch.delete_group(group, &self.rules.minhash.bands(&group.signature))?;
        self.broken.insert(group.cluster);
        self.contested.insert(group.cluster);
        Ok(())
    }

    /// Parts a cluster into what is still connected.
    fn split(&mut self, cluster: ClusterId) -> Result<(), CurateError> {
        let groups = self.batch.groups_in(cluster)?;
        if groups.len() < 2 {
            return Ok(());
        }
        let mut sets = Sets::new(groups.len());
        let mut buckets: HashMap<u64, Vec<usize>> = HashMap::new();
        for (index, group) in groups.iter().enumerate() {
            for band in self.rules.minhash.bands(&group.signature) {
                let bucket = buckets.entry(band).or_default();
                for &other in bucket.iter() {
                    if sets.root(other) != sets.root(index)
                        && self.is_near(&group.signature, &groups[other].signature)
                    {
                        sets.join(other, index);
                    }
                }
                bucket.push(index);
            }
        }
        let mut clusters = BTreeMap::from([(sets.root(0), cluster)]);
        for (index, group) in groups.iter().enumerate() {
            let root = sets.root(index);
            let to = match clusters.get(&root) {
                Some(to) => *to,
                None => {
                    let new = self.batch.new_cluster(group.first)?;
                    clusters.insert(root, new);
                    new
                }
            };
            if to != cluster {
                self.batch.move_group(group, to, &self.rules.minhash.bands(&group.signature))?;
                self.contested.insert(to);
            }
        }
        Ok(())
    }

    /// Tells a cluster's records who survives, those that do not know it yet.
    fn show(&self, cluster: ClusterId) -> Result<(), CurateError> {
        let Some(present) = self.batch.cluster(cluster)? else { return Ok(()) };
        let changed = self.batch.groups_not_showing(cluster, present.survivor)?;
        if changed.is_empty() {
            return Ok(());
        }
        let survivor = self.batch.row(present.survivor)?;
        for group in changed {
            let near = if group.id == survivor.id {
                1.0
            } else {
                // Only equal texts are shown as wholly similar.
                let hashes = survivor.signature.len().max(1) as f64;
                similarity(&group.signature, &survivor.signature).min(1.0 - 0.5 / hashes)
            };
            self.batch.show_survivor(&group, survivor.row, near)?;
        }
        Ok(())
    }

    /// Whether a record comes before another that may be gone by now.
    fn is_before(&self, row: RowId, other: RowId) -> Result<bool, CurateError> {
        let (place, other) = (self.batch.place(row)?, self.batch.place(other)?);
        Ok(matches!((place, other), (Some(place), Some(other)) if place < other))
    }

    fn rebuild(&mut self) -> Result<(), CurateError> {
        self.batch.forget_twins()?;
        let mut after = None;
        loop {
            let rows = self.batch.next_taking_part(after)?;
            let Some((last, ..)) = rows.last() else { return Ok(()) };
            after = Some(*last);
            for (row, id, signature) in &rows {
                self.join(*row, *id, signature)?;
            }
        }
    }
}

/// Disjoint sets with path halving.
struct Sets {
    parents: Vec<usize>,
}

impl Sets {
    fn new(size: usize) -> Self {
        Self { parents: (0..size).collect() }
    }

    fn root(&mut self, mut of: usize) -> usize {
        while self.parents[of] != of {
            self.parents[of] = self.parents[self.parents[of]];
            of = self.parents[of];
        }
        of
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[b] = a;
    }
}
