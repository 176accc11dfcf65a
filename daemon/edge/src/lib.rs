//! The edge: from the losses of single records to bits per byte with their confidence intervals.
//!
//! Pure arithmetic, apart from the crate that computes the losses because `moatd` reports edges and links no tensors.
//! It never sees a text, a token or a weight, and the same losses and seed give the same report on every machine.

mod bootstrap;

use std::collections::{BTreeMap, BTreeSet};

use moat_contracts::{
    AnswerLosses, DatasetId, DocumentLoss, EdgeDifference, EdgeReport, EvaluateRecipe, ForgettingReport,
    PreferenceReport, RecordId, SourceEdge,
};

use crate::bootstrap::{Saving, interval};

/// Records below which no interval is given: a bootstrap of fewer claims more than they can tell.
pub const MIN_RECORDS: usize = 10;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// Nothing was measured.
    #[error("no {0} was measured in any byte: an edge needs held-back records and the forgetting text")]
    Nothing(&'static str),
    /// A loss that is no number.
    #[error("the loss of record {0} is not finite: the tuned model is damaged, or its training diverged")]
    NotFinite(RecordId),
}

/// The edge of a tuned model: its base's bits per byte less its own, on the held-back records.
///
/// Bits per byte are summed nats over ln 2 and over summed bytes, so that a long record weighs as much as its bytes.
/// The intervals are percentile intervals of a paired bootstrap (Efron 1979; Koehn 2004): records are drawn with
/// replacement, both models' losses of a record always together. Records of which no byte was predicted count for
/// nothing.
///
/// Of preferences the bits per byte are those of the chosen answers, which is not what such a run is trained for: its edge is
/// that tuning raised the chosen answer above the rejected one more often than chance.
///
/// # Errors
/// [`EdgeError`] where there is nothing to report, or a loss is no number.
pub fn report(
    dataset: DatasetId,
    held_out: &[DocumentLoss],
    forgetting: &[DocumentLoss],
    recipe: &EvaluateRecipe,
    seed: u64,
) -> Result<EdgeReport, EdgeError> {
    let odd = |loss: &&DocumentLoss| !loss.base_nats.is_finite() || !loss.tuned_nats.is_finite();
    if let Some(loss) = held_out.iter().chain(forgetting).find(odd) {
        return Err(EdgeError::NotFinite(loss.record));
    }
    let measured: Vec<&DocumentLoss> = held_out.iter().filter(|loss| loss.bytes > 0).collect();
    let passages: Vec<&DocumentLoss> = forgetting.iter().filter(|loss| loss.bytes > 0).collect();
    if measured.is_empty() {
        return Err(EdgeError::Nothing("held-back record"));
    }
    let Some(first) = passages.first() else {
        return Err(EdgeError::Nothing("passage of the forgetting text"));
    };
    let all = edge_of(&measured, recipe, seed);
    let names: BTreeSet<&str> = measured.iter().map(|loss| loss.source.as_str()).collect();
    let mut sources = BTreeMap::new();
    for name in names {
        let of_source: Vec<&DocumentLoss> =
            measured.iter().copied().filter(|loss| loss.source == name).collect();
        sources.insert(name.to_owned(), edge_of(&of_source, recipe, seed));
    }
    let lost: Vec<Saving> = passages.iter().map(|loss| Saving::of(loss).reversed()).collect();
    let sums = Sums::of(&passages);
    let forgetting = ForgettingReport {
        text: first.source.clone(),
        bytes: sums.bytes,
        base: sums.base,
        tuned: sums.tuned,
        lost: interval(&lost, recipe.resamples, recipe.confidence, seed),
    };
    let answers: Vec<AnswerLosses> = held_out.iter().filter_map(|loss| loss.answers).collect();
    let preference = (!answers.is_empty()).then(|| preference_of(&answers, recipe, seed));
    let has_edge = match preference {
        Some(preference) => preference.interval.is_some_and(|interval| interval.low > 0.5),
        None => all.edge.is_some_and(|edge| edge.low > 0.0),
    };
    let (confidence, resamples) = (recipe.confidence, recipe.resamples);
    Ok(EdgeReport { dataset, confidence, resamples, all, sources, forgetting, preference, has_edge })
}

fn preference_of(answers: &[AnswerLosses], recipe: &EvaluateRecipe, seed: u64) -> PreferenceReport {
    let pairs = answers.len() as f64;
    let right = |answers: &AnswerLosses| f64::from(u8::from(answers.margin() > 0.0));
    let accuracy = answers.iter().map(right).sum::<f64>() / pairs;
    let margin = answers.iter().map(AnswerLosses::margin).sum::<f64>() / pairs;
    let interval = (answers.len() >= MIN_RECORDS).then(|| {
        let shares: Vec<Saving> = answers.iter().map(|answers| Saving::share(right(answers))).collect();
        interval(&shares, recipe.resamples, recipe.confidence, seed)
    });
    PreferenceReport { pairs: answers.len() as u64, accuracy, interval, margin }
}

/// How much better the later of two tuned models is, on the records that both were measured on; none where these are fewer
/// than [`MIN_RECORDS`]. The intervals are those of a paired bootstrap, as in [`report`].
pub fn difference(
    earlier: &[DocumentLoss],
    later: &[DocumentLoss],
    recipe: &EvaluateRecipe,
    seed: u64,
) -> Option<EdgeDifference> {
    let of: BTreeMap<RecordId, &DocumentLoss> = later.iter().map(|loss| (loss.record, loss)).collect();
    let both: Vec<[&DocumentLoss; 2]> = earlier
        .iter()
        .filter_map(|loss| Some([loss, of.get(&loss.record).copied()?]))
        .filter(|pair| pair.iter().all(|loss| loss.bytes > 0))
        .collect();
    if both.len() < MIN_RECORDS {
        return None;
    }
    let EvaluateRecipe { resamples, confidence } = *recipe;
    let between = |part: fn(&DocumentLoss) -> Saving| {
        let parts: Vec<[Saving; 2]> = both.iter().map(|pair| pair.map(part)).collect();
        bootstrap::difference(&parts, resamples, confidence, seed)
    };
    let spent = |loss: &DocumentLoss| Saving {
        bits: -loss.tuned_nats / std::f64::consts::LN_2,
        bytes: loss.bytes as f64,
    };
    Some(EdgeDifference {
        records: both.len() as u64,
        confidence,
        edge: between(Saving::of),
        saved: between(spent),
    })
}

/// Bits per byte of both models.
struct Sums {
    bytes: u64,
    base: f64,
    tuned: f64,
}

impl Sums {
    fn of(losses: &[&DocumentLoss]) -> Self {
        let bytes: u64 = losses.iter().map(|loss| loss.bytes).sum();
        let per_byte = |nats: f64| nats / std::f64::consts::LN_2 / bytes as f64;
        let base = per_byte(losses.iter().map(|loss| loss.base_nats).sum());
        let tuned = per_byte(losses.iter().map(|loss| loss.tuned_nats).sum());
        Self { bytes, base, tuned }
    }
}

fn edge_of(losses: &[&DocumentLoss], recipe: &EvaluateRecipe, seed: u64) -> SourceEdge {
    let Sums { bytes, base, tuned } = Sums::of(losses);
    let edge = (losses.len() >= MIN_RECORDS).then(|| {
        let savings: Vec<Saving> = losses.iter().map(|loss| Saving::of(loss)).collect();
        interval(&savings, recipe.resamples, recipe.confidence, seed)
    });
    SourceEdge { records: losses.len() as u64, bytes, base, tuned, edge }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use moat_contracts::{AnswerLosses, DatasetId, Digest, DocumentLoss, EvaluateRecipe, RecordId};

    use super::{EdgeError, difference, report};

    fn loss(source: &str, bytes: u64, base_bits: f64, tuned_bits: f64) -> DocumentLoss {
        DocumentLoss {
            record: RecordId(Digest::of(b"r")),
            source: source.to_owned(),
            bytes,
            base_nats: base_bits * LN_2,
            tuned_nats: tuned_bits * LN_2,
            answers: None,
        }
    }

    fn dataset() -> DatasetId {
        DatasetId(Digest::of(b"d"))
    }

    fn near(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-12
    }

    #[test]
    fn bits_per_byte_are_those_worked_out_by_hand() {
        // 100 bytes at 200 → 150 bits and 300 bytes at 400 → 350 bits: 600/400 = 1.5 → 500/400 = 1.25.
        let held = [loss("a", 100, 200.0, 150.0), loss("b", 300, 400.0, 350.0), loss("b", 0, 9.0, 9.0)];
        let passages = [loss("general", 50, 100.0, 110.0)];
        let report = report(dataset(), &held, &passages, &EvaluateRecipe::default(), 1).unwrap();
        assert!(near(report.all.base, 1.5) && near(report.all.tuned, 1.25));
        assert_eq!((report.all.records, report.all.bytes, report.all.edge), (2, 400, None));
        let a = &report.sources["a"];
        assert!(near(a.base, 2.0) && near(a.tuned, 1.5) && a.edge.is_none());
        assert_eq!(report.sources["b"].records, 1);
        let forgetting = report.forgetting;
        assert_eq!((forgetting.text.as_str(), forgetting.bytes), ("general", 50));
        assert!(
            near(forgetting.base, 2.0) && near(forgetting.tuned, 2.2) && near(forgetting.lost.value, 0.2)
        );
        assert!(near(forgetting.lost.low, 0.2) && near(forgetting.lost.high, 0.2));
        assert!(!report.has_edge);
    }

    #[test]
    fn an_interval_is_that_of_the_binomial_distribution() {
        // Ten records of one byte, five of which save one bit: a resample's edge is Binomial(10, 1/2) / 10, of which
        // P(≤ 1) = 0.011, P(≤ 2) = 0.055: the middle 95 % lie from 0.2 to 0.8, the middle 80 % from 0.3 to 0.7.
        let held: Vec<_> = (0..10).map(|n| loss("s", 1, 2.0, if n < 5 { 1.0 } else { 2.0 })).collect();
        let passages = [loss("general", 1, 1.0, 1.0)];
        for (confidence, low, high) in [(0.95, 0.2, 0.8), (0.8, 0.3, 0.7)] {
            let recipe = EvaluateRecipe { resamples: 20_000, confidence };
            let report = report(dataset(), &held, &passages, &recipe, 3).unwrap();
            let edge = report.all.edge.unwrap();
            assert!(near(edge.value, 0.5) && near(edge.low, low) && near(edge.high, high), "{edge:?}");
            assert!(report.has_edge);
            assert_eq!(report.sources["s"].edge, Some(edge));
        }
    }

    #[test]
    fn an_edge_is_claimed_only_where_the_whole_interval_is_above_zero() {
        let passages = [loss("general", 1, 1.0, 1.0)];
        let recipe = EvaluateRecipe::default();
        let one_in_ten: Vec<_> = (0..10).map(|n| loss("s", 1, 2.0, if n < 1 { 1.0 } else { 2.0 })).collect();
        let some = report(dataset(), &one_in_ten, &passages, &recipe, 3).unwrap();
        assert!(some.all.edge.unwrap().value > 0.0 && !some.has_edge);
        let worse: Vec<_> = (0..30).map(|_| loss("s", 1, 1.0, 2.0)).collect();
        let report = report(dataset(), &worse, &passages, &recipe, 3).unwrap();
        assert!(near(report.all.edge.unwrap().high, -1.0) && !report.has_edge);
    }

    /// Ten records of one byte, told apart by their ids.
    fn ten(tuned: impl Fn(u8) -> f64) -> Vec<DocumentLoss> {
        let one = |n: u8| DocumentLoss { record: RecordId(Digest::of(&[n])), ..loss("s", 1, 2.0, tuned(n)) };
        (0..10).map(one).collect()
    }

    #[test]
    fn a_difference_is_that_of_pairs_and_not_of_the_records_hardness() {
        let recipe = EvaluateRecipe { resamples: 20_000, confidence: 0.95 };
        // Both scatter by bits from record to record, the later one is a tenth better on each.
        let earlier = ten(f64::from);
        let later = ten(|n| f64::from(n) - 0.1);
        let found = difference(&earlier, &later, &recipe, 3).unwrap();
        for interval in [found.edge, found.saved] {
            assert!(near(interval.value, 0.1) && near(interval.low, 0.1) && near(interval.high, 0.1));
        }
        assert!(found.is_sure() && found.records == 10);
        let back = difference(&later, &earlier, &recipe, 3).unwrap();
        assert!(near(back.edge.value, -0.1) && back.is_sure());
        // Better by one bit on five of ten: a resample's difference is Binomial(10, 1/2) / 10, from 0.2 to 0.8.
        let half = ten(|n| f64::from(n) - f64::from(n % 2));
        let found = difference(&earlier, &half, &recipe, 3).unwrap();
        assert!(near(found.edge.low, 0.2) && near(found.edge.high, 0.8));
        // Half of them better and half worse is no difference.
        let both = ten(|n| f64::from(n) + if n % 2 == 0 { 1.0 } else { -1.0 });
        assert!(!difference(&earlier, &both, &recipe, 3).unwrap().is_sure());
    }

    #[test]
    fn only_records_that_both_were_measured_on_count() {
        let recipe = EvaluateRecipe::default();
        let (mut earlier, later) = (ten(|_| 1.0), ten(|_| 0.5));
        earlier.push(DocumentLoss { record: RecordId(Digest::of(b"other")), ..loss("s", 1000, 9.0, 1.0) });
        let found = difference(&earlier, &later, &recipe, 1).unwrap();
        assert_eq!((found.records, found.edge.value), (10, 0.5));
        assert_eq!(difference(&earlier[1..], &later, &recipe, 1), None);
        // A better base takes the edge, and not what the tuned model is worth.
        let better: Vec<_> =
            later.iter().map(|loss| DocumentLoss { base_nats: 0.5 * LN_2, ..loss.clone() }).collect();
        let found = difference(&earlier, &better, &recipe, 1).unwrap();
        assert!(near(found.edge.value, -1.0) && near(found.saved.value, 0.5));
    }

    #[test]
    fn preferences_are_judged_by_how_often_the_chosen_answer_gains() {
        let passages = [loss("general", 1, 1.0, 1.0)];
        let recipe = EvaluateRecipe { resamples: 20_000, confidence: 0.95 };
        let of = |right: usize| {
            let pair = |n: usize| {
                // The chosen answer becomes less likely, the rejected one by more where tuning is right.
                let rejected = if n < right { 6.0 } else { 4.0 };
                let answers = AnswerLosses { chosen: [3.0, 4.0], rejected: [4.0, rejected] };
                DocumentLoss { answers: Some(answers), ..loss("s", 1, 1.0, 2.0) }
            };
            report(dataset(), &(0..10).map(pair).collect::<Vec<_>>(), &passages, &recipe, 3).unwrap()
        };
        let even = of(5);
        let figures = even.preference.unwrap();
        assert!(near(figures.accuracy, 0.5) && near(figures.margin, 0.0) && figures.pairs == 10);
        let interval = figures.interval.unwrap();
        assert!(near(interval.low, 0.2) && near(interval.high, 0.8) && !even.has_edge, "{interval:?}");
        // Better at what it was trained for, though its chosen answers cost more bits.
        let good = of(10);
        assert!(good.has_edge && good.all.edge.unwrap().high < 0.0);
    }

    #[test]
    fn what_cannot_be_reported_is_refused() {
        let recipe = EvaluateRecipe::default();
        let good = [loss("s", 1, 1.0, 1.0)];
        for (held, passages) in [(&[][..], &good[..]), (&good[..], &[][..])] {
            let error = report(dataset(), held, passages, &recipe, 1).unwrap_err();
            assert!(matches!(error, EdgeError::Nothing(_)));
        }
        let odd = [loss("s", 1, f64::NAN, 1.0)];
        assert!(matches!(report(dataset(), &odd, &good, &recipe, 1), Err(EdgeError::NotFinite(_))));
    }
}
