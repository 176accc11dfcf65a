use moat_contracts::Architecture;

use crate::TensorError;

/// The target of a position that is not trained or measured.
pub const IGNORE: u32 = u32::MAX;

/// Token sequences laid end to end, as one long row.
///
/// Attention is causal within a segment and never crosses into another, and positions start at 0 in each: a batch
/// of several rows is just more segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// All tokens, `[rows]`.
    pub tokens: Vec<u32>,
    /// What follows each token, `[rows]`; [`IGNORE`] where nothing is to be predicted.
    pub targets: Vec<u32>,
    /// Where segments start, then the end: `[0, …, rows]`, rising.
    pub segments: Vec<usize>,
}

impl Batch {
    /// One sequence in which every token but the first is a target.
    pub fn sequence(tokens: &[u32]) -> Self {
        let mut targets: Vec<u32> = tokens.iter().skip(1).copied().collect();
        targets.resize(tokens.len(), IGNORE);
        Self { tokens: tokens.to_vec(), targets, segments: vec![0, tokens.len()] }
    }

    /// One segment by itself.
    pub(crate) fn slice(&self, rows: std::ops::Range<usize>) -> Self {
        let mut slice = Self { tokens: Vec::new(), targets: Vec::new(), segments: vec![0] };
        slice.append(self, rows);
        slice
    }

    /// One segment of another batch as the last of this one.
    pub(crate) fn append(&mut self, of: &Self, rows: std::ops::Range<usize>) {
        self.tokens.extend_from_slice(&of.tokens[rows.clone()]);
        self.targets.extend_from_slice(&of.targets[rows]);
        self.segments.push(self.tokens.len());
    }

    /// Positions that have a target.
    pub fn trained(&self) -> u64 {
        self.targets.iter().filter(|target| **target != IGNORE).count() as u64
    }

    /// Checks that the parts fit each other and the model.
    ///
    /// # Errors
    /// [`TensorError::Batch`], [`TensorError::Token`] or [`TensorError::Position`].
    pub fn check(&self, architecture: &Architecture) -> Result<(), TensorError> {
        let rows = self.tokens.len();
        if self.targets.len() != rows {
            return Err(TensorError::Batch(format!("{rows} tokens but {} targets", self.targets.len())));
        }
        if rows == 0 || self.segments.first() != Some(&0) || self.segments.last() != Some(&rows) {
            return Err(TensorError::Batch(format!(
                "segments must start at 0 and end at the {rows} tokens, of which there must be some"
            )));
        }
        for pair in self.segments.windows(2) {
            if pair[0] >= pair[1] {
                return Err(TensorError::Batch(format!("segment at {} has no token", pair[0])));
            }
            if pair[1] - pair[0] > architecture.max_position {
                return Err(TensorError::Position {
                    length: pair[1] - pair[0],
                    limit: architecture.max_position,
                });
            }
        }
        let vocabulary = architecture.vocabulary;
        let targets = self.targets.iter().filter(|target| **target != IGNORE);
        match self.tokens.iter().chain(targets).find(|token| **token as usize >= vocabulary) {
            Some(token) => Err(TensorError::Token { token: *token, vocabulary }),
            None => Ok(()),
        }
    }
}
