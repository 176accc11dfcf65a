//! What training takes of memory, buffer by buffer, as `pass.rs` and `block.rs` take and give them: shapes, no numbers. A
//! change of what a pass takes is a change here as well; `train/tests/memory.rs` measures the two against each other.

use moat_contracts::{Architecture, Frozen, Method, Precision, TrainRecipe};

use crate::LoraShape;
use crate::TensorError;
use crate::held;
use crate::lora::carried;
use crate::model::{Index, LinearIndex};
use crate::pass::LOGIT_ROWS;
use crate::workers;
use crate::workspace::choose;

/// Numbers that one worker holds at its peak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Kept of the forward for the backward.
    pub activations: u64,
    /// Logits of the rows that are in memory at a time.
    pub logits: u64,
    /// Everything else that is computed in.
    pub workspace: u64,
}

/// The shape of what is trained, for [`Footprint`]s.
#[derive(Debug)]
pub struct Outline<'a> {
    architecture: &'a Architecture,
    /// Whether an adapter's rows have lengths of their own.
    decomposed: bool,
    /// Rank of the adapter, and which linears carry it; none where all weights are trained.
    adapter: Option<(usize, Vec<bool>)>,
    index: Index,
    trainable: u64,
    /// How the linears of the blocks are held.
    frozen: Frozen,
    /// Whether rows are multiplied with them in 8 bits.
    rounds: bool,
}

impl<'a> Outline<'a> {
    /// Of a model that is trained whole, or of an adapter on it.
    ///
    /// # Errors
    /// [`TensorError::Target`] for a target that the architecture does not have.
    pub fn new(
        architecture: &'a Architecture,
        train: &TrainRecipe,
        shape: LoraShape<'_>,
    ) -> Result<Self, TensorError> {
        let index = Index::new(architecture);
        let rounds = train.precision == Precision::Int8 && !shape.decomposed;
        let adapter = match train.method {
            Method::Full => None,
            Method::Lora => Some((shape.rank, carried(architecture, shape.targets)?)),
        };
        let trainable = match &adapter {
            None => architecture.parameters(),
            Some((rank, carried)) => {
                let linears = index.blocks.iter().flat_map(|block| &block.linears);
                let carrying = linears.filter(|linear| carried[linear.slot]);
                let lengths = |linear: &LinearIndex| if shape.decomposed { linear.outputs } else { 0 };
                let numbers =
                    |linear: &LinearIndex| rank * (linear.inputs + linear.outputs) + lengths(linear);
                carrying.map(|linear| numbers(linear) as u64).sum()
            }
        };
        Ok(Self {
            architecture,
            decomposed: shape.decomposed,
            adapter,
            index,
            trainable,
            frozen: train.frozen,
            rounds,
        })
    }

    /// Numbers that are trained.
    pub fn trainable(&self) -> u64 {
        self.trainable
    }

    /// Bytes of all weights of the base, as they are held.
    pub fn weights(&self) -> u64 {
        let linears = self.index.blocks.iter().flat_map(|block| &block.linears);
        let (numbers, bytes) = linears.fold((0, 0), |(numbers, bytes), linear| {
            let held = held::bytes(self.frozen, linear.outputs, linear.inputs);
            (numbers + (linear.inputs * linear.outputs) as u64, bytes + held)
        });
        4 * (self.architecture.parameters() - numbers) + bytes
    }

    /// Rows of the parts that a batch of segments of these lengths is computed in; one part where it is computed whole.
    pub fn parts(&self, lengths: &[usize]) -> Vec<usize> {
        workers::divided(lengths, self.trainable).map_or_else(
            || vec![lengths.iter().sum()],
            |parts| parts.into_iter().map(|(rows, _)| rows).collect(),
        )
    }

    /// Of a forward and backward over so many rows in segments of at most `longest`, on so many threads.
    pub fn of_learning(&self, rows: usize, longest: usize, recompute: bool, threads: usize) -> Footprint {
        let mut trace = Trace { outline: self, rows, shelf: Shelf::default(), transient: 0 };
        // The second pass finds what the first one left.
        for _ in 0..2 {
            trace.learn(recompute);
        }
        let layers = self.index.blocks.len();
        let whole = self.kept() * rows;
        let kept =
            if recompute { (layers - 1) * rows * self.architecture.hidden + whole } else { layers * whole };
        self.footprint(&trace.shelf, kept, rows, longest, 2 * threads)
    }

    /// Of measuring the losses of so many rows.
    pub fn of_measuring(&self, rows: usize, longest: usize, threads: usize) -> Footprint {
        let mut trace = Trace { outline: self, rows, shelf: Shelf::default(), transient: 0 };
        trace.measure();
        self.footprint(&trace.shelf, 0, rows, longest, threads)
    }

    fn footprint(&self, shelf: &Shelf, kept: usize, rows: usize, longest: usize, scores: usize) -> Footprint {
        let logits = rows.min(LOGIT_ROWS) * self.architecture.vocabulary;
        // Scores of 64 query rows with the keys that they see, and cosines and sines of every position.
        // Rows in 8 bits, with a panel of a weight: a quarter of the widest rows and of 64 of its columns.
        let widest = self.index.blocks.iter().flat_map(|block| &block.linears);
        let widest = widest.map(|linear| linear.inputs.max(linear.outputs)).max().unwrap_or(0);
        let rounded = if self.rounds { (rows + 64) * widest / 4 } else { 0 };
        let scratch = scores * 64 * longest + 2 * longest * self.architecture.head_dim + rounded;
        let all = shelf.peak;
        Footprint {
            activations: kept as u64,
            logits: logits as u64,
            workspace: (all.saturating_sub(kept + logits) + scratch) as u64,
        }
    }

    /// Numbers that a block keeps for its backward, a row.
    fn kept(&self) -> usize {
        let Architecture { hidden, heads, kv_heads, head_dim, intermediate, .. } = *self.architecture;
        let (query, key) = (heads * head_dim, kv_heads * head_dim);
        let normed = if self.architecture.qk_norm { query + key + heads + kv_heads } else { 0 };
        let outputs = if self.architecture.output_norms { 2 * hidden + 2 } else { 0 };
        2 * (hidden + query + key + intermediate + 1) + heads + normed + outputs
    }
}

/// Buffers as [`crate::workspace::Workspace`] keeps them, by their capacities.
#[derive(Debug, Default)]
struct Shelf {
    free: Vec<usize>,
    held: usize,
    peak: usize,
}

impl Shelf {
    fn take(&mut self, length: usize) -> usize {
        let (best, outgrown) = choose(self.free.iter().copied(), length, 2);
        if let Some(best) = best {
            return self.free.swap_remove(best);
        }
        if let Some(outgrown) = outgrown {
            self.held -= self.free.swap_remove(outgrown);
        }
        self.held += length;
        self.peak = self.peak.max(self.held);
        length
    }

    fn give<const N: usize>(&mut self, buffers: [usize; N]) {
        self.free.extend(buffers);
    }
}

/// A pass, as far as it takes and gives buffers.
struct Trace<'a> {
    outline: &'a Outline<'a>,
    rows: usize,
    shelf: Shelf,
    transient: usize,
}

/// What a block keeps: its input, and the rest.
type Kept = (usize, Vec<usize>);

impl Trace<'_> {
    fn take(&mut self, width: usize) -> usize {
        self.shelf.take(self.rows * width)
    }

    fn norm(&mut self, width: usize, rows_of: usize) -> [usize; 2] {
        let normed = self.shelf.take(self.rows * width);
        [normed, self.shelf.take(self.rows * rows_of)]
    }

    /// The forward of a linear, or its input's gradient.
    fn linear(&mut self, linear: &LinearIndex) {
        let Some((rank, carried)) = &self.outline.adapter else { return };
        let (numbers, carried) = (linear.inputs * linear.outputs, carried[linear.slot]);
        let many = self.rows * (linear.inputs + linear.outputs) >= numbers;
        let Outline { rounds, decomposed, frozen, .. } = *self.outline;
        let merges = carried && !rounds && (many || decomposed);
        if merges || (frozen != Frozen::F32 && !rounds) {
            let made = self.shelf.take(numbers);
            self.shelf.give([made]);
        }
        if carried && !merges {
            let thin = self.shelf.take(self.rows * rank);
            self.shelf.give([thin]);
        }
    }

    /// A linear's own gradient.
    fn learn_linear(&mut self, linear: &LinearIndex) {
        let Some((rank, carried)) = &self.outline.adapter else { return };
        if carried[linear.slot] {
            let scaled = self.outline.decomposed.then(|| {
                let sum = self.shelf.take(linear.inputs * linear.outputs);
                let scaled = self.take(linear.outputs);
                let shares = self.shelf.take(linear.outputs);
                self.shelf.give([sum, shares]);
                scaled
            });
            let thin = self.shelf.take(self.rows * rank);
            self.shelf.give([thin]);
            self.shelf.free.extend(scaled);
        }
    }

    fn parts(&mut self, linears: &[LinearIndex], widths: &[usize]) -> Vec<usize> {
        if linears.len() == widths.len() {
            let made = linears.iter().map(|linear| {
                let made = self.take(linear.outputs);
                self.linear(linear);
                made
            });
            return made.collect();
        }
        let whole = self.take(linears[0].outputs);
        self.linear(&linears[0]);
        self.transient = whole;
        widths.iter().map(|width| self.take(*width)).collect()
    }

    fn backward_parts(&mut self, linears: &[LinearIndex], widths: &[usize], inputs: bool) {
        let joined = (linears.len() != widths.len()).then(|| self.take(widths.iter().sum()));
        for linear in linears {
            self.learn_linear(linear);
            if inputs {
                self.linear(linear);
            }
        }
        if let Some(joined) = joined {
            self.shelf.give([joined]);
        }
    }

    /// `y = x + W rows`, and what its norm keeps.
    fn added(&mut self, linear: &LinearIndex) -> (usize, Vec<usize>) {
        let hidden = self.outline.architecture.hidden;
        let first = self.take(hidden);
        self.linear(linear);
        if !self.outline.architecture.output_norms {
            return (first, Vec::new());
        }
        let [y, scales] = self.norm(hidden, 1);
        (y, vec![first, scales])
    }

    /// The forward of a block up to its last linear.
    fn inside(&mut self, layer: usize, input: usize) -> Kept {
        let architecture = self.outline.architecture;
        let block = self.outline.index.blocks[layer].clone();
        let widths = self.widths();
        let heads = [architecture.heads, architecture.kv_heads];
        let [normed, scales] = self.norm(architecture.hidden, 1);
        let mut kept = vec![scales];
        let fused = block.queries().len() == 1;
        if fused {
            self.transient = self.take(widths.iter().sum());
            self.linear(&block.queries()[0]);
        }
        for (place, width) in widths.into_iter().enumerate() {
            let rows = self.take(width);
            if !fused {
                self.linear(&block.queries()[place]);
            }
            let out = self.take(width);
            kept.push(out);
            if architecture.qk_norm && place < 2 {
                let [normed, scales] = self.norm(width, heads[place]);
                self.shelf.give([normed]);
                kept.extend([rows, scales]);
            } else {
                self.shelf.give([rows]);
            }
        }
        if fused {
            self.shelf.give([self.transient]);
        }
        self.shelf.give([normed]);
        kept.extend([self.take(widths[0]), self.take(architecture.heads)]);
        let rows = self.take(widths[0]);
        let (middle, raw) = self.added(block.output());
        self.shelf.give([rows]);
        kept.push(middle);
        kept.extend(raw);
        let [normed, scales] = self.norm(architecture.hidden, 1);
        let gates = self.parts(block.gates(), &[architecture.intermediate; 2]);
        if block.gates().len() == 1 {
            self.shelf.give([self.transient]);
        }
        self.shelf.give([normed]);
        kept.push(scales);
        kept.extend(gates);
        (input, kept)
    }

    /// The whole forward of a block: its output, and what it keeps.
    fn forward(&mut self, layer: usize, input: usize) -> (usize, Kept) {
        let (input, mut kept) = self.inside(layer, input);
        let down = self.outline.index.blocks[layer].down().clone();
        let gated = self.take(self.outline.architecture.intermediate);
        let (output, raw) = self.added(&down);
        self.shelf.give([gated]);
        kept.extend(raw);
        (output, (input, kept))
    }

    fn backward(&mut self, layer: usize, (input, kept): Kept) {
        let architecture = self.outline.architecture;
        let (hidden, intermediate) = (architecture.hidden, architecture.intermediate);
        let block = self.outline.index.blocks[layer].clone();
        let inner = architecture.output_norms.then(|| self.take(hidden));
        let gated = self.take(intermediate);
        self.linear(block.down());
        self.learn_linear(block.down());
        self.shelf.give([gated]);
        self.shelf.free.extend(inner);
        let [normed, scales] = self.norm(hidden, 1);
        let dn = self.take(hidden);
        self.backward_parts(block.gates(), &[intermediate; 2], true);
        self.shelf.give([normed, scales, dn]);

        let widths = self.widths();
        let inner = architecture.output_norms.then(|| self.take(hidden));
        let rows = self.take(widths[0]);
        self.learn_linear(block.output());
        self.linear(block.output());
        let d_o = self.take(widths[0]);
        self.shelf.give([rows]);
        self.shelf.free.extend(inner);
        let mut heads = widths.map(|width| self.take(width));
        self.shelf.give([d_o]);
        for (place, head) in heads.iter_mut().enumerate() {
            let rows = self.take(widths[place]);
            self.shelf.give([*head]);
            *head = rows;
            if architecture.qk_norm && place < 2 {
                let before = self.take(widths[place]);
                self.shelf.give([rows]);
                *head = before;
            }
        }
        let [normed, scales] = self.norm(hidden, 1);
        let dn = self.take(hidden);
        let bottom = layer == 0 && self.outline.adapter.is_some();
        self.backward_parts(block.queries(), &widths, !bottom);
        self.shelf.give(heads);
        self.shelf.give([normed, scales, dn]);
        self.shelf.free.extend(kept);
        self.shelf.give([input]);
    }

    /// Logits of a chunk of rows, with their gradients where they are learnt.
    fn head(&mut self, learns: bool) {
        let Architecture { hidden, vocabulary, .. } = *self.outline.architecture;
        let mut left = self.rows;
        while left > 0 {
            let rows = left.min(LOGIT_ROWS);
            left -= rows;
            let own = self.shelf.take(rows * hidden);
            let (normed, scales) = (self.shelf.take(rows * hidden), self.shelf.take(rows));
            let logits = self.shelf.take(self.rows.min(LOGIT_ROWS) * vocabulary);
            self.shelf.give([normed, scales]);
            if learns {
                let again = (self.shelf.take(rows * hidden), self.shelf.take(rows));
                let (dn, d_own) = (self.shelf.take(rows * hidden), self.shelf.take(rows * hidden));
                self.shelf.give([again.0, again.1, dn, d_own]);
            }
            self.shelf.give([own, logits]);
        }
    }

    fn learn(&mut self, recompute: bool) {
        let layers = self.outline.index.blocks.len();
        let mut x = self.take(self.outline.architecture.hidden);
        let mut saved = Vec::with_capacity(layers);
        for layer in 0..layers {
            let (output, (input, mut kept)) = self.forward(layer, x);
            if recompute {
                self.shelf.free.append(&mut kept);
            }
            saved.push((input, kept));
            x = output;
        }
        let d = self.take(self.outline.architecture.hidden);
        self.head(true);
        self.shelf.give([d]);
        for (layer, (input, mut kept)) in saved.into_iter().enumerate().rev() {
            if recompute {
                (_, kept) = self.inside(layer, input);
                if self.outline.architecture.output_norms {
                    let down = self.outline.index.blocks[layer].down().clone();
                    let gated = self.take(self.outline.architecture.intermediate);
                    let (output, raw) = self.added(&down);
                    self.shelf.give([gated, output]);
                    kept.extend(raw);
                }
            }
            self.backward(layer, (input, kept));
        }
        self.shelf.give([x]);
    }

    fn measure(&mut self) {
        let mut x = self.take(self.outline.architecture.hidden);
        for layer in 0..self.outline.index.blocks.len() {
            let (output, (input, kept)) = self.forward(layer, x);
            self.shelf.free.extend(kept);
            self.shelf.give([input]);
            x = output;
        }
        self.head(false);
        self.shelf.give([x]);
    }

    /// Widths of q, k and v.
    fn widths(&self) -> [usize; 3] {
        let Architecture { heads, kv_heads, head_dim, .. } = *self.outline.architecture;
        [heads * head_dim, kv_heads * head_dim, kv_heads * head_dim]
    }
}
