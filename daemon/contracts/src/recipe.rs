use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Digest, Kind};

/// Everything that decides a result, but the curation rules, which the dataset names by their hash.
///
/// Field by field it is the TOML file; a missing key takes the value of [`Default`]. Keys that came after the first
/// release are not written where they hold their default, so that the hashes of older recipes stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// Names the recipe for people.
    pub name: String,
    /// The base's name, as `moat base list` shows it.
    pub base: String,
    /// Decides initial weights, order and splits.
    pub seed: u64,
    /// Which records.
    pub selection: SelectionRecipe,
    /// Which of them are held back.
    pub split: SplitRecipe,
    /// How to train.
    pub train: TrainRecipe,
    /// What the loss on the validation side decides.
    #[serde(skip_serializing_if = "is_default")]
    pub validation: ValidationRecipe,
    /// The loss on pairs, for `objective = "dpo"`.
    #[serde(skip_serializing_if = "is_default")]
    pub dpo: DpoRecipe,
    /// The adapter's shape, for `method = "lora"`.
    pub lora: LoraRecipe,
    /// The optimiser.
    pub optimizer: OptimizerRecipe,
    /// How to measure.
    pub evaluate: EvaluateRecipe,
}

/// Which records go into the dataset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SelectionRecipe {
    /// Source names; empty takes all.
    pub sources: Vec<String>,
    /// Kinds; empty takes all.
    pub kinds: Vec<Kind>,
    /// Languages as records name them; empty takes all.
    pub languages: Vec<String>,
}

/// Which records are held back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SplitRecipe {
    /// Share of near-duplicate groups held back, above 0 and below 1.
    pub held_out: f64,
    /// `YYYY-MM-DD`: instead, train on documents authored before this day (UTC) and hold back what came after.
    pub train_before: Option<String>,
    /// Share of the training side's near-duplicate groups that is kept for [`Recipe::validation`]; 0 for none.
    #[serde(skip_serializing_if = "is_default")]
    pub validation: f64,
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// A low-rank adapter on every linear of every block; the base is frozen.
    Lora,
    /// All weights.
    Full,
}

/// What the loss is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The next token of texts, and of chats that of the assistant's answers. It takes every kind but preferences.
    #[default]
    Text,
    /// Which of two answers is the better one, directly from preferences and from nothing else (DPO: Rafailov et al.,
    /// arXiv 2305.18290). The reference is the weights that the run starts with.
    Dpo,
}

/// Which of a chat's answers are learnt; a message that says `"train": false` never is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LearntTurns {
    /// Every one.
    #[default]
    All,
    /// The last one; the others are context.
    Last,
}

/// The loss on pairs of answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DpoRecipe {
    /// How strongly the reference holds: the higher, the less far the weights go from it.
    pub beta: f64,
    /// Share of the pairs that are taken to be labelled the wrong way round (conservative DPO: Mitchell 2023).
    pub label_smoothing: f64,
}

/// Whether blocks are computed again in the backward. Written `false`, `true` or `"auto"`, as recipes that knew only the
/// first two wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompute {
    /// No: everything that the backward needs is kept.
    #[default]
    No,
    /// Yes: less memory, about a third slower, the same bits.
    Yes,
    /// Where the memory plan does not fit without.
    Auto,
}

impl JsonSchema for Recompute {
    fn schema_name() -> Cow<'static, str> {
        "Recompute".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "enum": [false, true, "auto"],
            "description": "Whether blocks are computed again in the backward; \"auto\" where the memory plan does not fit without."
        })
    }
}

impl Serialize for Recompute {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::No => serializer.serialize_bool(false),
            Self::Yes => serializer.serialize_bool(true),
            Self::Auto => serializer.serialize_str("auto"),
        }
    }
}

impl<'de> Deserialize<'de> for Recompute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Recompute;

            fn expecting(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
                form.write_str("true, false or \"auto\"")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Recompute, E> {
                Ok(if value { Recompute::Yes } else { Recompute::No })
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Recompute, E> {
                match value {
                    "auto" => Ok(Recompute::Auto),
                    _ => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// How the linears of a frozen base are held in memory while an adapter is trained on them; they are computed in 32-bit
/// floats, opened where they are multiplied. Norms, biases, embedding and head stay 32-bit floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Frozen {
    /// As 32-bit floats: exact.
    #[default]
    F32,
    /// As bfloat16: exact where the base is stored so.
    Bf16,
    /// In 8 bits, 64 by 64 numbers to a scale.
    Int8,
    /// In 4 bits, the levels and blocks of QLoRA (Dettmers et al., arXiv 2305.14314).
    Nf4,
}

impl Frozen {
    /// All, from the widest.
    pub const ALL: [Self; 4] = [Self::F32, Self::Bf16, Self::Int8, Self::Nf4];

    /// The word that stands in a recipe.
    pub const fn word(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Nf4 => "nf4",
        }
    }
}

/// What the products of rows with frozen weights are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 8-bit integers, for [`Frozen::Int8`]: rows are rounded as well, 64 numbers to a scale. The adapter's own products stay
    /// in 32-bit floats, and so do the edge and a merge.
    Int8,
}

/// How to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainRecipe {
    /// What is trained.
    pub method: Method,
    /// Tokens of one packed row.
    pub sequence_length: usize,
    /// Packed rows of one micro-batch.
    pub micro_batch: usize,
    /// Micro-batches of one optimiser step; the loss is the mean over all the step's trained tokens.
    pub accumulate: usize,
    /// Passes over the training side; ignored where `max_steps` is reached before.
    pub epochs: f64,
    /// Optimiser steps at most; 0 for no bound.
    pub max_steps: u64,
    /// Optimiser steps between checkpoints.
    pub checkpoint_every: u64,
    /// Keep only each block's input and recompute its inside in the backward.
    pub recompute: Recompute,
    /// How the base's linears are held, for [`Method::Lora`].
    #[serde(skip_serializing_if = "is_default")]
    pub frozen: Frozen,
    /// What products with the frozen linears are computed in.
    #[serde(skip_serializing_if = "is_default")]
    pub precision: Precision,
    /// An earlier run on the same base whose weights this one starts with; empty for fresh ones.
    #[serde(skip_serializing_if = "is_default")]
    pub start_from: String,
    /// What the loss is about.
    #[serde(skip_serializing_if = "is_default")]
    pub objective: Objective,
    /// Which of a chat's answers are learnt.
    #[serde(skip_serializing_if = "is_default")]
    pub turns: LearntTurns,
    /// Share of the code that is rearranged, so that the middle is learnt from what stands before and after it (FIM:
    /// Bavarian et al., arXiv 2207.14255).
    #[serde(skip_serializing_if = "is_default")]
    pub fim: f64,
}

/// What the loss on the validation side decides. It is never the side that the edge is measured on: choosing by that one
/// would flatter the edge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ValidationRecipe {
    /// Optimiser steps between measurements; there is one before the first step and one after the last as well.
    pub every: u64,
    /// Trained tokens of the sample that is measured each time, about; the seed draws it.
    pub tokens: u64,
    /// Measurements in a row without gain after which training ends; 0 for never.
    pub patience: u64,
    /// Nats a token by which a loss must lie below the best one to be a gain.
    pub min_gain: f64,
    /// What the run ends with.
    pub keep: Keep,
    /// Best checkpoints that are kept for [`Keep::Best`]: of several, their mean is a candidate as well.
    pub keep_best: usize,
}

/// What a run ends with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The weights after the last step.
    #[default]
    Last,
    /// Those with the lowest validation loss.
    Best,
}

/// The adapter's shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoraRecipe {
    /// Rank.
    pub rank: usize,
    /// The adapter's product is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Scale by `alpha / sqrt(rank)` instead (rsLoRA: Kalajdzievski, arXiv 2312.03732).
    #[serde(skip_serializing_if = "is_default")]
    pub rank_stabilized: bool,
    /// Learn the lengths of the rows of base and adapter apart from their directions (DoRA: Liu et al., arXiv 2402.09353).
    #[serde(skip_serializing_if = "is_default")]
    pub decomposed: bool,
    /// B's learning rate as a multiple of A's (LoRA+: Hayou, Ghosh and Yu, arXiv 2402.12354).
    #[serde(skip_serializing_if = "is_one")]
    pub b_rate: f64,
    /// Last parts of the names of the linears that carry an adapter, such as `q_proj`; empty takes all.
    #[serde(skip_serializing_if = "is_default")]
    pub targets: Vec<String>,
}

/// How the learning rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls by the same amount at each step.
    Linear,
    /// It falls over half a cosine.
    #[default]
    Cosine,
    /// Warm-up, stable, decay: it stays and falls at the end (Hu et al., MiniCPM, arXiv 2404.06395, section 4).
    Wsd,
}

/// How the last part of [`Schedule::Wsd`] falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecayShape {
    /// By the same amount at each step.
    #[default]
    Linear,
    /// Over half a cosine.
    Cosine,
    /// As one minus the root of the way (Haegele et al., arXiv 2405.18392).
    OneMinusSqrt,
}

/// A sort of tensor that weight decay may apply to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecayGroup {
    /// Weights of linears; of an adapter, A and B.
    Linears,
    /// The embedding and the head.
    Embeddings,
    /// Weights of norms.
    Norms,
    /// Biases.
    Biases,
}

/// AdamW and its learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerRecipe {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Share of the steps over which it rises from 0.
    pub warmup: f64,
    /// Share of the peak that the schedule ends at.
    pub final_share: f64,
    /// How the rate goes on after the warm-up.
    #[serde(skip_serializing_if = "is_default")]
    pub schedule: Schedule,
    /// Share of the steps over which [`Schedule::Wsd`] decays.
    #[serde(skip_serializing_if = "is_tenth")]
    pub decay: f64,
    /// How it decays then.
    #[serde(skip_serializing_if = "is_default")]
    pub decay_shape: DecayShape,
    /// First moment's decay.
    pub beta1: f64,
    /// Second moment's decay.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Decoupled weight decay, on the tensors of [`OptimizerRecipe::decayed`].
    pub weight_decay: f64,
    /// What weight decay applies to.
    #[serde(skip_serializing_if = "is_matrices")]
    pub decayed: Vec<DecayGroup>,
    /// Gradient norm to clip to; 0 for no clipping.
    pub clip: f64,
    /// How the moments are held.
    #[serde(skip_serializing_if = "is_default")]
    pub state: OptimizerState,
}

/// How AdamW's moments are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OptimizerState {
    /// As 32-bit floats.
    #[default]
    #[serde(rename = "f32")]
    Exact,
    /// In 8 bits, block by block (Dettmers et al., arXiv 2110.02861).
    #[serde(rename = "8bit")]
    EightBit,
}

/// How to measure the edge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateRecipe {
    /// Bootstrap resamples.
    pub resamples: u32,
    /// Confidence of the intervals, above 0 and below 1.
    pub confidence: f64,
}

/// What weight decay applies to where a recipe does not say.
const MATRICES: [DecayGroup; 2] = [DecayGroup::Linears, DecayGroup::Embeddings];

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_one(value: &f64) -> bool {
    *value == 1.0
}

fn is_tenth(value: &f64) -> bool {
    *value == 0.1
}

fn is_matrices(groups: &[DecayGroup]) -> bool {
    groups == MATRICES
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            name: "unnamed".to_owned(),
            base: "moat-starter".to_owned(),
            seed: 1,
            selection: SelectionRecipe::default(),
            split: SplitRecipe::default(),
            train: TrainRecipe::default(),
            validation: ValidationRecipe::default(),
            dpo: DpoRecipe::default(),
            lora: LoraRecipe::default(),
            optimizer: OptimizerRecipe::default(),
            evaluate: EvaluateRecipe::default(),
        }
    }
}

impl Default for SplitRecipe {
    fn default() -> Self {
        Self { held_out: 0.1, train_before: None, validation: 0.0 }
    }
}

impl Default for TrainRecipe {
    fn default() -> Self {
        Self {
            method: Method::Lora,
            sequence_length: 512,
            micro_batch: 4,
            accumulate: 1,
            epochs: 1.0,
            max_steps: 0,
            checkpoint_every: 50,
            recompute: Recompute::No,
            frozen: Frozen::F32,
            precision: Precision::F32,
            start_from: String::new(),
            objective: Objective::Text,
            turns: LearntTurns::All,
            fim: 0.0,
        }
    }
}

impl Default for ValidationRecipe {
    fn default() -> Self {
        Self { every: 50, tokens: 1 << 16, patience: 0, min_gain: 0.0, keep: Keep::Last, keep_best: 1 }
    }
}

impl Default for DpoRecipe {
    fn default() -> Self {
        Self { beta: 0.1, label_smoothing: 0.0 }
    }
}

impl Default for LoraRecipe {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            rank_stabilized: false,
            decomposed: false,
            b_rate: 1.0,
            targets: Vec::new(),
        }
    }
}

impl Default for OptimizerRecipe {
    fn default() -> Self {
        Self {
            learning_rate: 2e-4,
            warmup: 0.03,
            final_share: 0.1,
            schedule: Schedule::Cosine,
            decay: 0.1,
            decay_shape: DecayShape::Linear,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
            decayed: MATRICES.to_vec(),
            clip: 1.0,
            state: OptimizerState::Exact,
        }
    }
}

impl Default for EvaluateRecipe {
    fn default() -> Self {
        Self { resamples: 2000, confidence: 0.95 }
    }
}

/// A value that the recipe's types admit but its meaning does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipeFault {
    /// The key's path, such as `optimizer.clip`.
    pub key: &'static str,
    /// What is wrong and what to do, a lowercase sentence.
    pub message: String,
}

impl Recipe {
    /// Hash of the whole recipe: SHA-256 of its JSON with keys in declaration order.
    pub fn hash(&self) -> Digest {
        Digest::of(&json(self))
    }

    /// Hash of the parts that decide a dataset: seed, selection, split, and the objective where it takes preferences. Two
    /// recipes that differ only in how they train share their dataset.
    pub fn data_hash(&self) -> Digest {
        match self.train.objective {
            Objective::Text => Digest::of(&json(&(self.seed, &self.selection, &self.split))),
            objective => Digest::of(&json(&(self.seed, &self.selection, &self.split, objective))),
        }
    }

    /// Whether the objective can learn from records of this kind.
    pub fn takes(&self, kind: Kind) -> bool {
        match self.train.objective {
            Objective::Text => kind != Kind::Preference,
            Objective::Dpo => kind == Kind::Preference,
        }
    }

    /// Every fault at once; empty for a sound recipe.
    pub fn faults(&self) -> Vec<RecipeFault> {
        let mut faults = Vec::new();
        let mut hold = |sound: bool, key: &'static str, message: &str| {
            if !sound {
                faults.push(RecipeFault { key, message: message.to_owned() });
            }
        };
        let share = |value: f64| value > 0.0 && value < 1.0;
        hold(!self.name.is_empty(), "name", "must not be empty");
        hold(!self.base.is_empty(), "base", "must name an imported base; `moat base list` shows them");
        hold(share(self.split.held_out), "split.held_out", "must be above 0 and below 1");
        let day = self.split.train_before.as_deref().is_none_or(|day| day_start(day).is_some());
        hold(day, "split.train_before", "must be a day written YYYY-MM-DD");
        hold(
            (8..=1 << 20).contains(&self.train.sequence_length),
            "train.sequence_length",
            "must be from 8 to 1048576",
        );
        hold(self.train.micro_batch > 0, "train.micro_batch", "must be at least 1");
        hold(self.train.accumulate > 0, "train.accumulate", "must be at least 1");
        hold(
            self.train.epochs > 0.0 && self.train.epochs <= 1000.0,
            "train.epochs",
            "must be above 0 and at most 1000",
        );
        hold(self.train.checkpoint_every > 0, "train.checkpoint_every", "must be at least 1");
        let trained = self.train.method == Method::Lora || self.train.frozen == Frozen::F32;
        hold(
            trained,
            "train.frozen",
            "must be \"f32\" with train.method = \"full\": what is rounded cannot be trained, only stand below an adapter; \
             set train.method = \"lora\"",
        );
        let rounds = self.train.precision == Precision::Int8;
        hold(
            !rounds || self.train.frozen == Frozen::Int8,
            "train.precision",
            "must be \"f32\" unless the base is held in 8 bits: set train.frozen = \"int8\"",
        );
        hold(
            !rounds || !self.lora.decomposed,
            "train.precision",
            "must be \"f32\" with lora.decomposed, which multiplies by what is not held in 8 bits",
        );
        let kinds = &self.selection.kinds;
        hold(
            kinds.is_empty() || kinds.iter().any(|kind| self.takes(*kind)),
            "selection.kinds",
            match self.train.objective {
                Objective::Text => "holds preferences alone, which train.objective = \"dpo\" learns from",
                Objective::Dpo => {
                    "leaves preferences out, and train.objective = \"dpo\" learns from nothing else"
                }
            },
        );
        let pairs = self.train.objective == Objective::Dpo;
        hold((0.0..=1.0).contains(&self.train.fim), "train.fim", "must be from 0 to 1");
        hold(!pairs || self.train.fim == 0.0, "train.fim", "must be 0 with train.objective = \"dpo\"");
        let last = self.train.turns == LearntTurns::Last;
        hold(
            !pairs || !last,
            "train.turns",
            "must be \"all\" with train.objective = \"dpo\": answers are whole",
        );
        let beta = self.dpo.beta > 0.0 && self.dpo.beta <= 100.0;
        hold(beta, "dpo.beta", "must be above 0 and at most 100");
        let smoothing = (0.0..0.5).contains(&self.dpo.label_smoothing);
        hold(
            smoothing,
            "dpo.label_smoothing",
            "must be at least 0 and below 0.5: from there on the rejected wins",
        );
        let validates = self.split.validation > 0.0;
        hold(
            (0.0..1.0).contains(&self.split.validation),
            "split.validation",
            "must be at least 0 and below 1",
        );
        let validation = &self.validation;
        let side = "needs a validation side: set split.validation above 0";
        hold(validation.every > 0, "validation.every", "must be at least 1");
        hold(validation.tokens > 0, "validation.tokens", "must be at least 1");
        hold(validates || validation.patience == 0, "validation.patience", side);
        let gain = (0.0..100.0).contains(&validation.min_gain);
        hold(gain, "validation.min_gain", "must be at least 0 and below 100");
        hold(validates || validation.keep == Keep::Last, "validation.keep", side);
        hold((1..=32).contains(&validation.keep_best), "validation.keep_best", "must be from 1 to 32");
        hold((1..=4096).contains(&self.lora.rank), "lora.rank", "must be from 1 to 4096");
        hold(self.lora.alpha > 0.0, "lora.alpha", "must be above 0");
        let ratio = self.lora.b_rate > 0.0 && self.lora.b_rate <= 1000.0;
        hold(ratio, "lora.b_rate", "must be above 0 and at most 1000");
        let part = |name: &String| {
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        };
        let named = self.lora.targets.iter().all(part);
        hold(named, "lora.targets", "must hold the last part of linears' names, such as \"q_proj\"");
        let optimizer = &self.optimizer;
        hold(
            optimizer.learning_rate > 0.0 && optimizer.learning_rate < 1.0,
            "optimizer.learning_rate",
            "must be above 0 and below 1",
        );
        hold((0.0..1.0).contains(&optimizer.warmup), "optimizer.warmup", "must be at least 0 and below 1");
        hold((0.0..=1.0).contains(&optimizer.final_share), "optimizer.final_share", "must be from 0 to 1");
        let decay = optimizer.decay > 0.0 && optimizer.decay <= 1.0;
        hold(decay, "optimizer.decay", "must be above 0 and at most 1");
        let fits = optimizer.schedule != Schedule::Wsd || optimizer.warmup + optimizer.decay <= 1.0;
        hold(
            fits,
            "optimizer.decay",
            "must leave room for optimizer.warmup: together they must be at most 1",
        );
        hold((0.0..1.0).contains(&optimizer.beta1), "optimizer.beta1", "must be at least 0 and below 1");
        hold((0.0..1.0).contains(&optimizer.beta2), "optimizer.beta2", "must be at least 0 and below 1");
        hold(optimizer.epsilon > 0.0, "optimizer.epsilon", "must be above 0");
        hold(
            (0.0..1.0).contains(&optimizer.weight_decay),
            "optimizer.weight_decay",
            "must be at least 0 and below 1",
        );
        hold(optimizer.clip >= 0.0, "optimizer.clip", "must be at least 0");
        hold(self.evaluate.resamples >= 100, "evaluate.resamples", "must be at least 100");
        hold(share(self.evaluate.confidence), "evaluate.confidence", "must be above 0 and below 1");
        faults
    }
}

impl SplitRecipe {
    /// Seconds since 1970 at which the held-back time begins, if a time split is asked for.
    pub fn train_before_seconds(&self) -> Option<i64> {
        self.train_before.as_deref().and_then(day_start)
    }
}

/// Seconds since 1970-01-01 UTC at the start of a day written YYYY-MM-DD (proleptic Gregorian calendar).
fn day_start(day: &str) -> Option<i64> {
    let bytes = day.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        let digits = &day.get(range)?;
        digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse::<i64>().ok()).flatten()
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month_index = usize::try_from(month - 1).ok()?;
    if !(1..=*lengths.get(month_index)?).contains(&day) {
        return None;
    }
    // Days from civil, with the year starting in March so that the leap day comes last.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some((era * 146_097 + day_of_era - 719_468) * 86_400)
}

/// JSON of a value whose serialisation cannot fail: no maps with other keys than text, no foreign types.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Frozen, Keep, LearntTurns, Method, Objective, Precision, Recipe, Recompute, day_start};
    use crate::{Digest, Kind};

    #[test]
    fn days_start_where_the_calendar_says() {
        assert_eq!(day_start("1970-01-01"), Some(0));
        assert_eq!(day_start("2000-02-29"), Some(951_782_400));
        assert_eq!(day_start("2026-11-22"), Some(1_795_305_600));
        for wrong in ["2023-02-29", "2026-13-01", "2026-1-01", "2026-01-00", "yesterday", "2026-01-+1"] {
            assert_eq!(day_start(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_default_recipe_is_sound_and_faults_come_all_at_once() {
        assert_eq!(Recipe::default().faults(), []);
        let mut recipe = Recipe::default();
        recipe.split.held_out = 1.0;
        recipe.lora.rank = 0;
        recipe.optimizer.clip = f64::NAN;
        let keys: Vec<_> = recipe.faults().iter().map(|fault| fault.key).collect();
        assert_eq!(keys, ["split.held_out", "lora.rank", "optimizer.clip"]);
    }

    /// Checkpoints, datasets and lineages of recipes from before the newer keys name these.
    #[test]
    fn recipes_of_the_first_release_keep_their_text_and_hashes() {
        let text = r#"{"name":"unnamed","base":"moat-starter","seed":1,"selection":{"sources":[],"kinds":[],"languages":[]},"split":{"held_out":0.1,"train_before":null},"train":{"method":"lora","sequence_length":512,"micro_batch":4,"accumulate":1,"epochs":1.0,"max_steps":0,"checkpoint_every":50,"recompute":false},"lora":{"rank":16,"alpha":32.0},"optimizer":{"learning_rate":0.0002,"warmup":0.03,"final_share":0.1,"beta1":0.9,"beta2":0.999,"epsilon":1e-8,"weight_decay":0.01,"clip":1.0},"evaluate":{"resamples":2000,"confidence":0.95}}"#;
        assert_eq!(serde_json::to_string(&Recipe::default()).unwrap(), text);
        assert_eq!(serde_json::from_str::<Recipe>(text).unwrap(), Recipe::default());
        assert_eq!(Recipe::default().hash(), Digest::of(text.as_bytes()));
        let data = r#"[1,{"sources":[],"kinds":[],"languages":[]},{"held_out":0.1,"train_before":null}]"#;
        assert_eq!(Recipe::default().data_hash(), Digest::of(data.as_bytes()));
    }

    #[test]
    fn recomputing_is_written_as_before_or_left_to_the_plan() {
        for (written, meant) in
            [("false", Recompute::No), ("true", Recompute::Yes), ("\"auto\"", Recompute::Auto)]
        {
            assert_eq!(serde_json::to_string(&meant).unwrap(), written);
            assert_eq!(serde_json::from_str::<Recompute>(written).unwrap(), meant);
        }
        for wrong in ["1", "\"yes\"", "null"] {
            assert!(serde_json::from_str::<Recompute>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_frozen_base_stands_below_an_adapter() {
        let mut recipe = Recipe::default();
        recipe.train.frozen = Frozen::Nf4;
        assert_eq!(recipe.faults(), []);
        assert_ne!(recipe.hash(), Recipe::default().hash());
        recipe.train.precision = Precision::Int8;
        recipe.lora.decomposed = true;
        let keys = |recipe: &Recipe| recipe.faults().iter().map(|fault| fault.key).collect::<Vec<_>>();
        assert_eq!(keys(&recipe), ["train.precision", "train.precision"]);
        recipe.lora.decomposed = false;
        recipe.train.frozen = Frozen::Int8;
        assert_eq!(keys(&recipe), [""; 0]);
        recipe.train.method = Method::Full;
        assert_eq!(keys(&recipe), ["train.frozen"]);
        for frozen in Frozen::ALL {
            assert_eq!(serde_json::to_value(frozen).unwrap(), frozen.word());
        }
    }

    #[test]
    fn what_goes_by_the_validation_side_needs_one() {
        let mut recipe = Recipe::default();
        recipe.validation.keep = Keep::Best;
        recipe.validation.patience = 2;
        let keys: Vec<_> = recipe.faults().iter().map(|fault| fault.key).collect();
        assert_eq!(keys, ["validation.patience", "validation.keep"]);
        recipe.split.validation = 0.1;
        assert_eq!(recipe.faults(), []);
        assert_ne!(recipe.data_hash(), Recipe::default().data_hash());
    }

    #[test]
    fn an_objective_takes_its_own_kinds_and_names_its_own_dataset() {
        let text = Recipe::default();
        let mut pairs = text.clone();
        pairs.train.objective = Objective::Dpo;
        for kind in Kind::ALL {
            assert_ne!(text.takes(kind), pairs.takes(kind), "{}", kind.word());
        }
        assert_ne!(text.data_hash(), pairs.data_hash());
        assert_eq!(pairs.faults(), []);
        pairs.selection.kinds = vec![Kind::Chat];
        pairs.train.fim = 0.5;
        pairs.train.turns = LearntTurns::Last;
        pairs.dpo.beta = 0.0;
        pairs.dpo.label_smoothing = 0.5;
        let keys: Vec<_> = pairs.faults().iter().map(|fault| fault.key).collect();
        let expected = ["selection.kinds", "train.fim", "train.turns", "dpo.beta", "dpo.label_smoothing"];
        assert_eq!(keys, expected);
        let mut only = text;
        only.selection.kinds = vec![Kind::Preference];
        assert_eq!(only.faults()[0].key, "selection.kinds");
        only.train.fim = f64::NAN;
        assert_eq!(only.faults()[1].key, "train.fim");
    }

    #[test]
    fn only_what_decides_the_data_changes_the_data_hash() {
        let recipe = Recipe::default();
        let mut other = recipe.clone();
        other.optimizer.learning_rate = 1e-3;
        assert_ne!(recipe.hash(), other.hash());
        assert_eq!(recipe.data_hash(), other.data_hash());
        other.split.held_out = 0.2;
        assert_ne!(recipe.data_hash(), other.data_hash());
    }
}
