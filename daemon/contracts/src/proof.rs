use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::RecordId;

/// What a run shows of itself before it may train, and of its weights before it hands them over; in the order in which it is
/// told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// No example is masked whole; the figure counts those that are.
    Masks,
    /// The chat template writes a prompt as the trained text begins, and every answer's end is trained; the figure counts
    /// chats at fault.
    Turns,
    /// One step reaches every trainable tensor and no other; the figure counts tensors at fault.
    Gradients,
    /// The first loss is the evaluator's of the same weights; the figure is their relative difference.
    FirstLoss,
    /// Products in fewer bits than 32 leave the gradient what it is; the figure is the norm of the difference, relative.
    Precision,
    /// Of preferences: before the first step nothing is preferred, since the reference is the weights that the run starts
    /// with; the figure is the loss less ln 2.
    Reference,
    /// Sequences in one packed row have the losses that each has alone; the figure is the largest difference, nats.
    Packing,
    /// Accumulated gradients are those of one big batch; the figure is the norm of their difference, relative.
    Accumulation,
    /// Base and adapter merged give the logits of both apart, before the first step with an adapter that changes
    /// something; the figure is the largest difference relative to what the adapter changes.
    Merge,
    /// The same of the adapter that was trained.
    MergeTrained,
}

impl Claim {
    /// All, in their order.
    pub const ALL: [Self; 10] = [
        Self::Masks,
        Self::Turns,
        Self::Gradients,
        Self::FirstLoss,
        Self::Precision,
        Self::Reference,
        Self::Packing,
        Self::Accumulation,
        Self::Merge,
        Self::MergeTrained,
    ];

    /// The word that stands in JSON and in the catalog.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Masks => "masks",
            Self::Turns => "turns",
            Self::Gradients => "gradients",
            Self::FirstLoss => "first_loss",
            Self::Precision => "precision",
            Self::Reference => "reference",
            Self::Packing => "packing",
            Self::Accumulation => "accumulation",
            Self::Merge => "merge",
            Self::MergeTrained => "merge_trained",
        }
    }

    /// What is claimed, as a person reads it.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Masks => "no example is masked whole",
            Self::Turns => "chats begin as prompts and end their turns",
            Self::Gradients => "every trainable tensor learns, no other",
            Self::FirstLoss => "first loss is the evaluator's",
            Self::Precision => "rounded products keep the gradient",
            Self::Reference => "at the start no answer is preferred",
            Self::Packing => "packed equals unpacked",
            Self::Accumulation => "accumulated equals one big batch",
            Self::Merge => "merged equals base and adapter",
            Self::MergeTrained => "merged equals base and trained adapter",
        }
    }

    /// The largest figure with which the claim holds.
    pub const fn bound(self) -> f64 {
        match self {
            Self::Masks | Self::Turns | Self::Gradients => 0.0,
            // 32-bit sums in another order differ by some 1e-6; what these are there to find differs by 1e-1 and more.
            Self::FirstLoss => 1e-4,
            // Rounding is noise of some 1e-2 in each product; a direction that is another one differs by 1.
            Self::Precision => 2e-1,
            // The same weights on the same parts: the same bits, but for a product with a B of zeros.
            Self::Reference => 1e-6,
            Self::Packing | Self::Accumulation => 1e-3,
            Self::Merge | Self::MergeTrained => 1e-2,
        }
    }

    /// What to do where it does not hold.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Masks => "take the named record out by selection, or correct its roles",
            Self::Turns => {
                "correct the base's chat template or its eos_token_id, or leave chats out by selection.kinds"
            }
            Self::Gradients => {
                "check lora.targets, and that the base's weights are whole; else report it as a fault of Moat"
            }
            Self::FirstLoss | Self::Reference | Self::Packing | Self::Accumulation => {
                "check that the base's weights are whole; else report it as a fault of Moat, and do not train with this version"
            }
            Self::Precision => "set train.precision = \"f32\": this base's activations do not bear 8 bits",
            Self::Merge | Self::MergeTrained => {
                "do not export a merged model; report it as a fault of Moat with the base's config.json"
            }
        }
    }
}

/// One claim, and what was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Proof {
    /// What is claimed.
    pub claim: Claim,
    /// What was compared, and on how much; no customers' text.
    pub compared: String,
    /// What was found, as [`Claim`] says.
    pub figure: f64,
    /// The largest figure with which it holds.
    pub bound: f64,
    /// Whether it holds.
    pub held: bool,
    /// What to do; empty where it holds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Proof {
    /// Judges a figure by the claim's bound; one that is no number does not hold.
    pub fn of(claim: Claim, compared: impl Into<String>, figure: f64) -> Self {
        let (compared, bound) = (compared.into(), claim.bound());
        let held = figure <= bound;
        let remedy = if held { String::new() } else { claim.remedy().to_owned() };
        // JSON has no other numbers.
        let figure = if figure.is_finite() { figure } else { f64::MAX };
        Self { claim, compared, figure, bound, held, remedy }
    }
}

/// What a side of a dataset comes to as tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Survey {
    /// Examples.
    pub examples: u64,
    /// Chats among them.
    pub chats: u64,
    /// Preferences among them, each of two answers with their prompt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pairs: u64,
    /// Stretches of code among them whose middle comes last, to be learnt from both its sides.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rearranged: u64,
    /// Tokens of all examples.
    pub tokens: u64,
    /// Tokens that are learnt in one pass.
    pub trained: u64,
    /// Tokens of the shortest example.
    pub shortest: u64,
    /// Tokens of the median example.
    pub median: u64,
    /// Tokens that 95 of 100 examples have at most.
    pub p95: u64,
    /// Tokens of the longest example.
    pub longest: u64,
    /// Examples that are longer than a row and are cut into several; preferences of which an answer is, and are left out.
    pub cut: u64,
    /// Packed rows of one pass.
    pub rows: u64,
    /// Optimiser steps.
    pub steps: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Survey {
    /// Share of the tokens that is learnt.
    #[allow(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn trained_share(&self) -> f64 {
        if self.tokens == 0 { 0.0 } else { self.trained as f64 / self.tokens as f64 }
    }
}

/// What memory is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemoryUse {
    /// The program itself, its libraries' buffers and the tokenizer.
    Process,
    /// The tokens of all examples.
    Corpus,
    /// Weights that stay as they are.
    Frozen,
    /// Weights that are trained.
    Trained,
    /// Their gradients, with each worker's own copy.
    Gradients,
    /// AdamW's moments.
    Moments,
    /// What blocks keep of their forward for the backward.
    Activations,
    /// Buffers that each worker computes in.
    Workspace,
    /// Logits of the rows that are in memory at a time.
    Logits,
}

impl MemoryUse {
    /// As a person reads it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Corpus => "tokens",
            Self::Frozen => "frozen weights",
            Self::Trained => "trained weights",
            Self::Gradients => "gradients",
            Self::Moments => "moments",
            Self::Activations => "activations kept",
            Self::Workspace => "workspace",
            Self::Logits => "logits",
        }
    }
}

/// One part of a [`MemoryPlan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryPart {
    /// What for.
    #[serde(rename = "use")]
    pub used: MemoryUse,
    /// Bytes.
    pub bytes: u64,
}

/// What a run takes of memory at its peak, by part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryPlan {
    /// The parts, in the order of [`MemoryUse`].
    pub parts: Vec<MemoryPart>,
    /// Bytes that the engine may take; 0 where nothing limits it.
    pub available: u64,
    /// Whether blocks keep their input alone and are computed again in the backward.
    pub recompute: bool,
}

impl MemoryPlan {
    /// Bytes of all parts.
    pub fn total(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Whether it fits.
    pub fn fits(&self) -> bool {
        self.available == 0 || self.total() <= self.available
    }
}

/// Neighbouring tokens of an example that are learnt, or are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stretch {
    /// Their text, special tokens written out.
    pub text: String,
    /// Whether they are learnt.
    pub trained: bool,
}

/// What a recipe would train on and take, without training. It holds customers' text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Preview {
    /// The training side as tokens.
    pub survey: Survey,
    /// Tokens of the validation side.
    pub validation_tokens: u64,
    /// The claims that the data alone decides.
    pub proofs: Vec<Proof>,
    /// What training takes of memory.
    pub memory: MemoryPlan,
    /// The record of the example that is shown: the first chat, or else the first text or preference.
    pub record: RecordId,
    /// The example, from its beginning; of a preference the prompt with the chosen answer.
    pub example: Vec<Stretch>,
    /// Of a preference, the prompt with the rejected answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Stretch>,
    /// Tokens of it that are not shown.
    pub left: u64,
}

#[cfg(test)]
mod tests {
    use super::{Claim, Proof};

    #[test]
    fn a_claim_holds_up_to_its_bound_and_never_with_what_is_no_number() {
        for claim in Claim::ALL {
            let bound = claim.bound();
            assert!(Proof::of(claim, "", bound).held && Proof::of(claim, "", bound).remedy.is_empty());
            for figure in [bound * 1.01 + 1e-9, f64::NAN, f64::INFINITY] {
                let proof = Proof::of(claim, "", figure);
                assert!(!proof.held && !proof.remedy.is_empty() && proof.figure.is_finite());
                let json = serde_json::to_string(&proof).unwrap();
                assert!(json.contains(claim.word()));
                assert_eq!(serde_json::from_str::<Proof>(&json).unwrap(), proof);
            }
        }
        assert!(Claim::ALL.is_sorted());
    }
}
