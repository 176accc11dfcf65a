use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DatasetId, RecordId};

/// One held-back record under base and tuned model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DocumentLoss {
    /// The record.
    pub record: RecordId,
    /// The configured name of its source.
    pub source: String,
    /// Bytes of UTF-8 whose tokens were predicted.
    pub bytes: u64,
    /// Summed negative log-likelihood under the base, nats.
    pub base_nats: f64,
    /// The same under base + adapter, nats.
    pub tuned_nats: f64,
    /// Of a preference, whose chosen answer the figures above are about: both of its answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<AnswerLosses>,
}

/// The two answers of a preference, whole and with the tokens that end them: summed negative log-likelihood, nats, under
/// the base and under the tuned model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AnswerLosses {
    /// Of the chosen answer.
    pub chosen: [f64; 2],
    /// Of the rejected answer.
    pub rejected: [f64; 2],
}

impl AnswerLosses {
    /// By how much more tuning made the chosen answer likelier than the rejected one, nats.
    pub fn margin(&self) -> f64 {
        (self.chosen[0] - self.chosen[1]) - (self.rejected[0] - self.rejected[1])
    }
}

/// How often a tuned model prefers the answers that people chose, on held-back preferences.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PreferenceReport {
    /// Preferences that were measured.
    pub pairs: u64,
    /// Share of them in which tuning made the chosen answer likelier by more than the rejected one. A half is chance.
    pub accuracy: f64,
    /// Its interval; none where too few pairs for one.
    pub interval: Option<Interval>,
    /// By how much more, on average, nats.
    pub margin: f64,
}

/// A figure with its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interval {
    /// The figure over all records.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The edge on one source, or on all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SourceEdge {
    /// Held-back records.
    pub records: u64,
    /// Bytes of UTF-8.
    pub bytes: u64,
    /// Bits per byte under the base.
    pub base: f64,
    /// Bits per byte under base + adapter.
    pub tuned: f64,
    /// Bits per byte saved, base minus tuned: above 0 is better. `None` where too few records for an interval.
    pub edge: Option<Interval>,
}

/// What tuning did to text unlike the company's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ForgettingReport {
    /// The text set's name.
    pub text: String,
    /// Bytes of UTF-8.
    pub bytes: u64,
    /// Bits per byte under the base.
    pub base: f64,
    /// Bits per byte under base + adapter.
    pub tuned: f64,
    /// Bits per byte lost, tuned minus base: above 0 is forgetting.
    pub lost: Interval,
}

/// How much better than its base a tuned model is on held-back data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EdgeReport {
    /// The dataset whose held-out side was examined.
    pub dataset: DatasetId,
    /// Confidence of every interval, such as 0.95.
    pub confidence: f64,
    /// Bootstrap resamples.
    pub resamples: u32,
    /// Over all sources.
    pub all: SourceEdge,
    /// By source name.
    pub sources: BTreeMap<String, SourceEdge>,
    /// On text unlike the company's.
    pub forgetting: ForgettingReport,
    /// Of a run on preferences: what it was trained for, since bits per byte are of its chosen answers alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<PreferenceReport>,
    /// True only where the whole interval of `all.edge` lies above 0; of a run on preferences, where that of
    /// `preference.accuracy` lies above a half.
    pub has_edge: bool,
}

/// How much better or worse one tuned model is than another, on the records that both were measured on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EdgeDifference {
    /// Records that both were measured on.
    pub records: u64,
    /// Confidence of both intervals.
    pub confidence: f64,
    /// The later one's edge less the earlier one's, bits per byte: above 0 the later one is better.
    pub edge: Interval,
    /// Bits per byte that the later tuned model saves against the earlier one. The same as `edge` on the same base.
    pub saved: Interval,
}

impl EdgeDifference {
    /// True where the edges differ by more than chance: the interval leaves 0 out.
    pub fn is_sure(&self) -> bool {
        self.edge.low > 0.0 || self.edge.high < 0.0
    }
}
