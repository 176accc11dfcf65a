use crate::block::{Pass, buffers};
use crate::kernels::{Cached, Kernels};
use crate::workspace::Workspace;
use crate::{Float, Model, TensorError};

/// Keys and values of the tokens that one answer has seen so far.
#[derive(Debug)]
pub struct Cache<F: Float = f32> {
    layers: Vec<Layer<F>>,
    length: usize,
    capacity: usize,
    workspace: Workspace<F>,
}

/// `[key head][capacity][width]` each.
#[derive(Debug)]
struct Layer<F> {
    k: Vec<F>,
    v: Vec<F>,
}

impl<F: Float> Cache<F> {
    /// Empty, with room for `tokens` before it has to grow.
    pub fn new(model: &Model<F>, tokens: usize) -> Self {
        let architecture = &model.weights.architecture;
        let size = architecture.kv_heads * tokens * architecture.head_dim;
        let layer = |_| Layer { k: vec![F::ZERO; size], v: vec![F::ZERO; size] };
        Self {
            layers: (0..architecture.layers).map(layer).collect(),
            length: 0,
            capacity: tokens,
            workspace: Workspace::new(),
        }
    }

    /// Tokens seen.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has seen none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Forgets all but the first `tokens`, to go on from there with others.
    pub fn truncate(&mut self, tokens: usize) {
        self.length = self.length.min(tokens);
    }

    /// Makes room for `more` tokens, at least doubling so that an answer of n tokens copies O(n) in all.
    fn reserve(&mut self, more: usize, kv_heads: usize, width: usize) {
        let needed = self.length + more;
        if needed <= self.capacity {
            return;
        }
        let capacity = needed.max(2 * self.capacity);
        for buffer in self.layers.iter_mut().flat_map(|layer| [&mut layer.k, &mut layer.v]) {
            let mut grown = vec![F::ZERO; kv_heads * capacity * width];
            for head in 0..kv_heads {
                let old = &buffer[head * self.capacity * width..][..self.length * width];
                grown[head * capacity * width..][..old.len()].copy_from_slice(old);
            }
            *buffer = grown;
        }
        self.capacity = capacity;
    }
}

/// Takes `tokens` after those that the cache has seen, and returns the logits `[vocabulary]` after the last.
///
/// # Errors
/// [`TensorError::Token`], [`TensorError::Position`], [`TensorError::Batch`] if there is no token, or
/// [`TensorError::Mismatch`] if the cache was made for another model.
pub fn decode<F: Float>(
    model: &Model<F>,
    cache: &mut Cache<F>,
    tokens: &[u32],
) -> Result<Vec<F>, TensorError> {
    let architecture = &model.weights.architecture;
    let (rows, length) = (tokens.len(), cache.length + tokens.len());
    let (kv_heads, width, vocabulary) =
        (architecture.kv_heads, architecture.head_dim, architecture.vocabulary);
    if rows == 0 {
        return Err(TensorError::Batch("no token to decode from".to_owned()));
    }
    if length > architecture.max_position {
        return Err(TensorError::Position { length, limit: architecture.max_position });
    }
    if let Some(token) = tokens.iter().find(|token| **token as usize >= vocabulary) {
        return Err(TensorError::Token { token: *token, vocabulary });
    }
    let size = kv_heads * cache.capacity * width;
    if cache.layers.len() != architecture.layers || cache.layers.iter().any(|layer| layer.k.len() != size) {
        return Err(TensorError::Mismatch);
    }
    cache.reserve(rows, kv_heads, width);
    let Cache { layers, length: seen, capacity, workspace } = cache;
    let pass = Pass::new(model, vec![(0, rows)], *seen);
    let mut x = pass.embed(tokens, workspace);
    for (layer, kept) in layers.iter_mut().enumerate() {
        let [q, k, v] = pass.queries(layer, &x, workspace).heads(workspace);
        for (new, kept) in [(&k, &mut kept.k), (&v, &mut kept.v)] {
            for (head, new) in new.chunks(rows * width).enumerate() {
                kept[(head * *capacity + *seen) * width..][..new.len()].copy_from_slice(new);
            }
        }
        let mut o = workspace.take(q.len());
        let view = Cached { k: &kept.k, v: &kept.v, capacity: *capacity, length };
        pass.kernels.attention_cached(&q, view, pass.heads, pass.scores(layer), &mut o);
        let (middle, attended) = pass.after_attention(layer, &x, &o, workspace);
        let [scales, gate, up] = pass.gates(layer, &middle, workspace);
        let (output, gated) = pass.after_mlp(layer, &middle, &gate, &up, workspace);
        workspace.give([q, k, v, o, middle, scales, gate, up, std::mem::replace(&mut x, output)]);
        workspace.give(buffers(attended.into_iter().chain(gated)));
    }
    *seen = length;
    let logits = pass.logits(&x[(rows - 1) * architecture.hidden..], workspace);
    workspace.give([x]);
    Ok(logits)
}
