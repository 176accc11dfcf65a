//! Forward and backward on a device, in the order of `block.rs` and `pass.rs` on the processor. Rows stay rows: heads are
//! turned and attended to where they lie, q, k and v beside each other.

use super::attention::Attending;
use super::device::{Arg, AttentionArg, Buffer, Device, HeadsArg, Precision, Product, Shape, Side};
use super::placed::{Block, Group, Into, Placed, columns};
use crate::{Batch, IGNORE, LossSum, TensorError, rope};
use moat_contracts::{Activation, Architecture};

/// Rows whose logits are in memory at a time.
const LOGIT_ROWS: usize = 512;

/// Threads of kernels that take a row, a head each warp, or a row of logits.
const ROW_THREADS: usize = 256;
const HEAD_THREADS: usize = 128;
const LOSS_THREADS: usize = 512;

/// More keys than any segment has.
const BOUNDLESS: usize = 1 << 30;

/// Cosines and sines of positions, `[positions][pairs]`.
struct Turns {
    cos: Buffer,
    sin: Buffer,
    pairs: usize,
}

impl Turns {
    fn new(device: &Device, rope: &moat_contracts::Rope, longest: usize) -> Result<Self, TensorError> {
        let table = rope::table::<f32>(rope, 0, longest);
        let (cos, sin) = (device.upload_numbers(&table.cos)?, device.upload_numbers(&table.sin)?);
        Ok(Self { cos, sin, pairs: table.pairs })
    }
}

/// One batch on one device.
struct Pass<'a> {
    placed: &'a Placed,
    device: &'a Device,
    architecture: &'a Architecture,
    precision: Precision,
    rows: usize,
    tokens: Buffer,
    /// Of each row in its segment.
    positions: Buffer,
    turns: Turns,
    /// Where a block slides, if positions turn heads otherwise there.
    sliding: Option<Turns>,
    attending: Attending,
}

/// What a block's backward needs of its forward. What is cheap is made again: normed rows, gated products, scales of norms.
struct Kept {
    input: Buffer,
    inside: Option<Inside>,
}

struct Inside {
    /// q, k and v before the norm of their heads, where there is one.
    raw: Option<Buffer>,
    qkv: Buffer,
    /// With the thin product of the output's adapter behind each row.
    o: Buffer,
    sums: Buffer,
    /// What attention adds, before its norm.
    attended: Option<Buffer>,
    middle: Buffer,
    /// The gate and what it gates.
    both: Buffer,
    /// What the MLP adds, before its norm.
    gated: Option<Buffer>,
}

fn bytes(numbers: impl Iterator<Item = u32>) -> Vec<u8> {
    numbers.flat_map(u32::to_le_bytes).collect()
}

const fn rows_of(rows: usize) -> Shape {
    Shape { grid: [rows, 1, 1], threads: ROW_THREADS, shared: 0 }
}

/// A head for each warp of a block, and all heads of all rows.
const fn heads_of(rows: usize, heads: usize) -> Shape {
    Shape { grid: [rows, heads.div_ceil(HEAD_THREADS / 32), 1], threads: HEAD_THREADS, shared: 0 }
}

impl<'a> Pass<'a> {
    fn new(placed: &'a Placed, batch: &Batch) -> Result<Self, TensorError> {
        let (device, architecture, precision) = (&placed.device, &placed.architecture, placed.precision);
        let segments: Vec<(usize, usize)> =
            batch.segments.windows(2).map(|pair| (pair[0], pair[1] - pair[0])).collect();
        let longest = segments.iter().map(|(_, length)| *length).max().unwrap_or(0);
        let positions = segments.iter().flat_map(|(_, length)| 0..*length as u32);
        let sliding = architecture.sliding.as_ref().map(|sliding| &sliding.rope);
        let sliding = sliding.filter(|sliding| **sliding != architecture.rope);
        Ok(Self {
            placed,
            device,
            architecture,
            precision,
            rows: batch.tokens.len(),
            tokens: device.upload(&bytes(batch.tokens.iter().copied()))?,
            positions: device.upload(&bytes(positions))?,
            turns: Turns::new(device, &architecture.rope, longest)?,
            sliding: sliding.map(|rope| Turns::new(device, rope, longest)).transpose()?,
            attending: Attending::new(device, precision, architecture.head_dim, &segments)?,
        })
    }

    fn hidden(&self) -> usize {
        self.architecture.hidden
    }

    fn epsilon(&self) -> Arg {
        Arg::Float(self.architecture.norm_epsilon as f32)
    }

    /// Numbers of the kind that activations have, in rows of this stride.
    fn take(&self, stride: usize) -> Result<Buffer, TensorError> {
        self.device.take(self.rows * stride, self.precision)
    }

    /// f32 rows of the residual stream's width.
    fn stream(&self) -> Result<Buffer, TensorError> {
        self.device.take(self.rows * self.hidden(), Precision::F32)
    }

    fn to_stream(&self, stream: &Buffer, add: bool) -> Into {
        Into { address: stream.start(), stride: self.hidden(), precision: Precision::F32, add }
    }

    fn to_rows(&self, rows: &Buffer, stride: usize) -> Into {
        Into { address: rows.start(), stride, precision: self.precision, add: false }
    }

    /// The normed stream, as a group reads it, with its thin product.
    fn normed(&self, x: &Buffer, weight: &Buffer, group: &Group) -> Result<Buffer, TensorError> {
        let out = self.take(group.stride())?;
        self.norm(x, None, weight, &out, group.stride(), self.rows)?;
        group.thin(self.placed, &out, self.rows)?;
        Ok(out)
    }

    fn norm(
        &self,
        x: &Buffer,
        index: Option<u64>,
        weight: &Buffer,
        out: &Buffer,
        stride: usize,
        rows: usize,
    ) -> Result<(), TensorError> {
        let args = [
            Arg::Address(x.start()),
            Arg::Address(index.unwrap_or(0)),
            Arg::Address(weight.start()),
            Arg::Address(out.start()),
            Arg::Long(stride as i64),
            Arg::Int(self.hidden() as i32),
            self.epsilon(),
        ];
        self.placed.launch("norm", rows_of(rows), &args)
    }

    /// Adds to `d` what comes through a norm, of the rows that the index names.
    fn backward_norm(
        &self,
        x: &Buffer,
        index: Option<u64>,
        weight: &Buffer,
        dy: &Buffer,
        d: &Buffer,
        rows: usize,
    ) -> Result<(), TensorError> {
        let args = [
            Arg::Address(x.start()),
            Arg::Address(index.unwrap_or(0)),
            Arg::Address(weight.start()),
            Arg::Address(dy.start()),
            Arg::Address(d.start()),
            Arg::Int(self.hidden() as i32),
            self.epsilon(),
        ];
        self.device.launch("norm_backward_add_f32", rows_of(rows), &args)
    }

    /// `y = x + W rows`, or with a norm `y = x + N(W rows)` and what that norm's backward needs.
    fn added(
        &self,
        group: &Group,
        norm: Option<&Buffer>,
        x: &Buffer,
        rows: &Buffer,
    ) -> Result<(Buffer, Option<Buffer>), TensorError> {
        let Some(weight) = norm else {
            let y = self.device.copied(x, self.rows * self.hidden())?;
            group.forward(self.placed, rows, self.rows, self.to_stream(&y, true))?;
            return Ok((y, None));
        };
        let raw = self.stream()?;
        group.forward(self.placed, rows, self.rows, self.to_stream(&raw, false))?;
        let y = self.stream()?;
        let args = [
            Arg::Address(x.start()),
            Arg::Address(raw.start()),
            Arg::Address(weight.start()),
            Arg::Address(y.start()),
            Arg::Int(self.hidden() as i32),
            self.epsilon(),
        ];
        self.device.launch("add_norm_f32", rows_of(self.rows), &args)?;
        Ok((y, Some(raw)))
    }

    /// The gradient of `W rows`, rounded for the products, with its thin product.
    fn backward_added(
        &self,
        group: &Group,
        norm: Option<&Buffer>,
        raw: Option<&Buffer>,
        d: &Buffer,
    ) -> Result<Buffer, TensorError> {
        let (dy, stride) = (self.take(group.out_stride())?, Arg::Long(group.out_stride() as i64));
        let width = Arg::Int(self.hidden() as i32);
        match raw.zip(norm) {
            Some((raw, weight)) => {
                let [raw, weight, d, dy] = [raw, weight, d, &dy].map(|buffer| Arg::Address(buffer.start()));
                let args = [raw, weight, d, dy, stride, width, self.epsilon()];
                self.placed.launch("norm_backward", rows_of(self.rows), &args)?;
            }
            None => {
                let args = [Arg::Address(d.start()), Arg::Address(dy.start()), stride, width];
                self.placed.launch("cast", columns(self.rows, self.hidden()), &args)?;
            }
        }
        group.thin_back(self.placed, &dy, self.rows)?;
        Ok(dy)
    }

    /// How a block's heads are normed and turned.
    fn heads(&self, layer: usize, block: &Block) -> HeadsArg {
        let slides = self.architecture.sliding(layer).is_some();
        let turns = self.sliding.as_ref().filter(|_| slides).unwrap_or(&self.turns);
        let norm = |place: usize| block.head_norms.as_ref().map_or(0, |norms| norms[place].start());
        HeadsArg {
            cos: turns.cos.start(),
            sin: turns.sin.start(),
            positions: self.positions.start(),
            q_weight: norm(0),
            k_weight: norm(1),
            query: self.architecture.heads as i32,
            key: self.architecture.kv_heads as i32,
            width: self.architecture.head_dim as i32,
            pairs: turns.pairs as i32,
            epsilon: self.architecture.norm_epsilon as f32,
        }
    }

    /// Attention of a block, without what only its backward has.
    fn attention(
        &self,
        layer: usize,
        block: &Block,
        qkv: &Buffer,
        o: &Buffer,
        sums: &Buffer,
    ) -> AttentionArg {
        let Architecture { heads, kv_heads, head_dim, .. } = *self.architecture;
        let at = |head: usize| qkv.at(head * head_dim, self.precision);
        let window =
            self.architecture.sliding(layer).map_or(BOUNDLESS, |sliding| sliding.window.min(BOUNDLESS));
        AttentionArg {
            q: at(0),
            k: at(heads),
            v: at(heads + kv_heads),
            o: o.start(),
            sums: sums.start(),
            d_o: 0,
            deltas: 0,
            dq: 0,
            dk: 0,
            dv: 0,
            tiles: 0,
            qkv_stride: block.queries.out_stride() as i64,
            o_stride: block.output.stride() as i64,
            d_stride: 0,
            rows: self.rows as i32,
            heads: heads as i32,
            key_heads: kv_heads as i32,
            width: head_dim as i32,
            window: window as i32,
            scale: self.architecture.attention_scale as f32,
            cap: self.architecture.attention_cap.unwrap_or(0.0) as f32,
        }
    }

    /// Launches a kernel over the two halves of the MLP.
    fn glu(&self, kernel: &str, block: &Block, both: &Buffer, out: &Buffer) -> Result<(), TensorError> {
        let width = self.architecture.intermediate;
        let args = [
            Arg::Address(both.start()),
            Arg::Long(block.gates.out_stride() as i64),
            Arg::Address(out.start()),
            Arg::Long(block.down.stride() as i64),
            Arg::Int(width as i32),
            Arg::Int(i32::from(self.architecture.activation == Activation::GeluTanh)),
        ];
        self.placed.launch(kernel, columns(self.rows, width), &args)
    }

    fn embed(&self) -> Result<Buffer, TensorError> {
        let x = self.stream()?;
        let args = [
            Arg::Address(self.placed.embedding.start()),
            Arg::Address(self.tokens.start()),
            Arg::Address(x.start()),
            Arg::Int(self.hidden() as i32),
            Arg::Float(self.architecture.embedding_scale as f32),
        ];
        self.placed.launch("gather", rows_of(self.rows), &args)?;
        Ok(x)
    }

    /// The forward up to the last linear, keeping what the backward needs.
    fn inside(&self, layer: usize, input: &Buffer) -> Result<Inside, TensorError> {
        let block = &self.placed.blocks[layer];
        let normed = self.normed(input, &block.input_norm, &block.queries)?;
        let stride = block.queries.out_stride();
        let made = self.take(stride)?;
        block.queries.forward(self.placed, &normed, self.rows, self.to_rows(&made, stride))?;
        drop(normed);
        let heads = self.heads(layer, block);
        let (raw, qkv) = match block.head_norms {
            Some(_) => (Some(made), self.take(stride)?),
            None => (None, made),
        };
        let args = [
            Arg::Address(raw.as_ref().unwrap_or(&qkv).start()),
            Arg::Address(qkv.start()),
            Arg::Long(stride as i64),
            Arg::Heads(heads),
        ];
        let count = self.architecture.heads + 2 * self.architecture.kv_heads;
        self.placed.launch("turn", heads_of(self.rows, count), &args)?;

        let o = self.take(block.output.stride())?;
        let sums = self.device.take(self.rows * self.architecture.heads, Precision::F32)?;
        self.attending.forward(self.device, self.attention(layer, block, &qkv, &o, &sums))?;
        block.output.thin(self.placed, &o, self.rows)?;
        let (middle, attended) = self.added(&block.output, block.attention_norm.as_ref(), input, &o)?;

        let normed = self.normed(&middle, &block.middle_norm, &block.gates)?;
        let stride = block.gates.out_stride();
        let both = self.take(stride)?;
        block.gates.forward(self.placed, &normed, self.rows, self.to_rows(&both, stride))?;
        Ok(Inside { raw, qkv, o, sums, attended, middle, both, gated: None })
    }

    /// The block's output, and what the MLP adds before its norm.
    fn after_mlp(&self, layer: usize, inside: &Inside) -> Result<(Buffer, Option<Buffer>), TensorError> {
        let block = &self.placed.blocks[layer];
        let gated = self.take(block.down.stride())?;
        self.glu("glu", block, &inside.both, &gated)?;
        block.down.thin(self.placed, &gated, self.rows)?;
        self.added(&block.down, block.mlp_norm.as_ref(), &inside.middle, &gated)
    }

    fn forward(&self, layer: usize, input: &Buffer) -> Result<(Buffer, Inside), TensorError> {
        let mut inside = self.inside(layer, input)?;
        let (output, gated) = self.after_mlp(layer, &inside)?;
        inside.gated = gated;
        Ok((output, inside))
    }

    /// Turns `d` from the gradient of the block's output into that of its input, and adds to the adapter's gradients. The first
    /// block leaves it unfinished: nothing below is trained.
    fn backward(&self, layer: usize, kept: Kept, d: &Buffer) -> Result<(), TensorError> {
        let Kept { input, inside } = kept;
        let inside = match inside {
            Some(inside) => inside,
            None => {
                let mut inside = self.inside(layer, &input)?;
                if self.placed.blocks[layer].mlp_norm.is_some() {
                    inside.gated = self.after_mlp(layer, &inside)?.1;
                }
                inside
            }
        };
        self.backward_mlp(layer, &inside, d)?;
        self.backward_attention(layer, &input, &inside, d)
    }

    fn backward_mlp(&self, layer: usize, inside: &Inside, d: &Buffer) -> Result<(), TensorError> {
        let (placed, rows, block) = (self.placed, self.rows, &self.placed.blocks[layer]);
        let dy = self.backward_added(&block.down, block.mlp_norm.as_ref(), inside.gated.as_ref(), d)?;
        let gated = self.take(block.down.stride())?;
        block.down.input_gradient(placed, &dy, rows, self.to_rows(&gated, block.down.stride()))?;
        self.glu("glu_backward", block, &inside.both, &gated)?;
        block.down.thin(placed, &gated, rows)?;
        block.down.learn(placed, &gated, &dy, rows)?;
        drop((dy, gated));

        block.gates.thin_back(placed, &inside.both, rows)?;
        let normed = self.normed(&inside.middle, &block.middle_norm, &block.gates)?;
        block.gates.learn(placed, &normed, &inside.both, rows)?;
        drop(normed);
        let dn = self.stream()?;
        block.gates.input_gradient(placed, &inside.both, rows, self.to_stream(&dn, false))?;
        self.backward_norm(&inside.middle, None, &block.middle_norm, &dn, d, rows)
    }

    fn backward_attention(
        &self,
        layer: usize,
        input: &Buffer,
        inside: &Inside,
        d: &Buffer,
    ) -> Result<(), TensorError> {
        let (placed, rows, block) = (self.placed, self.rows, &self.placed.blocks[layer]);
        let Architecture { heads, kv_heads, head_dim, .. } = *self.architecture;
        let dy =
            self.backward_added(&block.output, block.attention_norm.as_ref(), inside.attended.as_ref(), d)?;
        block.output.learn(placed, &inside.o, &dy, rows)?;
        let d_o = self.take(block.output.inputs)?;
        block.output.input_gradient(placed, &dy, rows, self.to_rows(&d_o, block.output.inputs))?;
        drop(dy);

        let deltas = self.device.take(rows * heads, Precision::F32)?;
        let args = [
            Arg::Address(inside.o.start()),
            Arg::Long(block.output.stride() as i64),
            Arg::Address(d_o.start()),
            Arg::Long(block.output.inputs as i64),
            Arg::Address(deltas.start()),
            Arg::Int(heads as i32),
            Arg::Int(head_dim as i32),
        ];
        placed.launch("deltas", heads_of(rows, heads), &args)?;
        let d_qkv = self.take(block.queries.out_stride())?;
        let at = |head: usize| d_qkv.at(head * head_dim, self.precision);
        let forward = self.attention(layer, block, &inside.qkv, &inside.o, &inside.sums);
        let backward = AttentionArg {
            d_o: d_o.start(),
            d_stride: block.output.inputs as i64,
            deltas: deltas.start(),
            dq: at(0),
            dk: at(heads),
            dv: at(heads + kv_heads),
            ..forward
        };
        self.attending.backward(self.device, backward)?;
        drop((d_o, deltas));
        let args = [
            Arg::Address(d_qkv.start()),
            Arg::Address(inside.raw.as_ref().unwrap_or(&inside.qkv).start()),
            Arg::Long(block.queries.out_stride() as i64),
            Arg::Heads(self.heads(layer, block)),
        ];
        placed.launch("turn_back", heads_of(rows, heads + kv_heads), &args)?;

        block.queries.thin_back(placed, &d_qkv, rows)?;
        let normed = self.normed(input, &block.input_norm, &block.queries)?;
        block.queries.learn(placed, &normed, &d_qkv, rows)?;
        drop(normed);
        if layer == 0 {
            return Ok(());
        }
        let dn = self.stream()?;
        block.queries.input_gradient(placed, &d_qkv, rows, self.to_stream(&dn, false))?;
        self.backward_norm(input, None, &block.input_norm, &dn, d, rows)
    }

    /// The residual stream after all blocks, of which nothing is kept.
    fn infer(&self) -> Result<Buffer, TensorError> {
        let mut x = self.embed()?;
        for layer in 0..self.placed.blocks.len() {
            x = self.forward(layer, &x)?.0;
        }
        Ok(x)
    }

    fn head(&self) -> u64 {
        self.placed.head.as_ref().unwrap_or(&self.placed.embedding).start()
    }

    /// Logits, before their cap, of the rows of the stream that the index names.
    fn logits(&self, x: &Buffer, index: Option<u64>, rows: usize) -> Result<Buffer, TensorError> {
        let (hidden, vocabulary) = (self.hidden(), self.architecture.vocabulary);
        let normed = self.device.take(rows * hidden, self.precision)?;
        self.norm(x, index, &self.placed.norm, &normed, hidden, rows)?;
        let logits = self.device.take(rows * vocabulary, Precision::F32)?;
        self.device.product(Product {
            left: Side::new(normed.start(), hidden),
            right: Side::turned(self.head(), hidden),
            precision: self.precision,
            out: logits.start(),
            out_stride: vocabulary,
            out_precision: Precision::F32,
            rows,
            inner: hidden,
            columns: vocabulary,
            factor: 1.0,
            add: false,
        })?;
        Ok(logits)
    }

    /// Losses of these rows of the stream, chunk by chunk; with a scale also its gradient, `[rows, hidden]`.
    fn losses(
        &self,
        x: &Buffer,
        rows: &[u32],
        batch: &Batch,
        scale: Option<f32>,
    ) -> Result<(Vec<f32>, Option<Buffer>), TensorError> {
        let (hidden, vocabulary) = (self.hidden(), self.architecture.vocabulary);
        let d = scale.map(|_| self.device.zeros(self.rows * hidden, Precision::F32)).transpose()?;
        let index = self.device.upload(&bytes(rows.iter().copied()))?;
        let targets = rows.iter().map(|row| batch.targets[*row as usize]);
        let targets = self.device.upload(&bytes(targets))?;
        let losses = self.device.take(rows.len(), Precision::F32)?;
        for first in (0..rows.len()).step_by(LOGIT_ROWS) {
            let count = LOGIT_ROWS.min(rows.len() - first);
            let at = |buffer: &Buffer| buffer.at(first, Precision::F32);
            let logits = self.logits(x, Some(at(&index)), count)?;
            // In f32 the gradients take the logits' own place.
            let apart = match (self.precision, scale) {
                (Precision::Bf16, Some(_)) => Some(self.device.take(count * vocabulary, self.precision)?),
                _ => None,
            };
            let dz = apart.as_ref().unwrap_or(&logits);
            let args = [
                Arg::Address(logits.start()),
                Arg::Address(at(&targets)),
                Arg::Address(at(&losses)),
                Arg::Address(dz.start()),
                Arg::Int(vocabulary as i32),
                Arg::Float(self.architecture.logit_cap.unwrap_or(0.0) as f32),
                Arg::Float(scale.unwrap_or(0.0)),
                Arg::Int(i32::from(scale.is_some())),
            ];
            let shape = Shape { grid: [count, 1, 1], threads: LOSS_THREADS, shared: 0 };
            self.placed.launch("cross_entropy", shape, &args)?;
            let Some(d) = &d else { continue };
            let dn = self.device.take(count * hidden, Precision::F32)?;
            self.device.product(Product {
                left: Side::new(dz.start(), vocabulary),
                right: Side::new(self.head(), hidden),
                precision: self.precision,
                out: dn.start(),
                out_stride: hidden,
                out_precision: Precision::F32,
                rows: count,
                inner: vocabulary,
                columns: hidden,
                factor: 1.0,
                add: false,
            })?;
            self.backward_norm(x, Some(at(&index)), &self.placed.norm, &dn, d, count)?;
        }
        Ok((self.device.numbers(&losses, 0, rows.len())?, d))
    }
}

/// Rows that have a target.
fn trained(batch: &Batch) -> Vec<u32> {
    let rows = (0_u32..).zip(&batch.targets);
    rows.filter(|(_, target)| **target != IGNORE).map(|(row, _)| row).collect()
}

pub(super) fn learn(
    placed: &Placed,
    batch: &Batch,
    scale: f32,
    recompute: bool,
) -> Result<LossSum, TensorError> {
    let rows = trained(batch);
    if rows.is_empty() {
        return Ok(LossSum::default());
    }
    let pass = Pass::new(placed, batch)?;
    let mut x = pass.embed()?;
    let mut kept = Vec::with_capacity(placed.blocks.len());
    for layer in 0..placed.blocks.len() {
        let (output, inside) = pass.forward(layer, &x)?;
        let input = std::mem::replace(&mut x, output);
        kept.push(Kept { input, inside: (!recompute).then_some(inside) });
    }
    let (losses, d) = pass.losses(&x, &rows, batch, Some(scale))?;
    drop(x);
    let nats = losses.iter().map(|loss| f64::from(*loss)).sum();
    if let Some(d) = d {
        for (layer, kept) in kept.into_iter().enumerate().rev() {
            pass.backward(layer, kept, &d)?;
        }
    }
    Ok(LossSum { nats, tokens: rows.len() as u64 })
}

pub(super) fn token_losses(placed: &Placed, batch: &Batch) -> Result<Vec<f32>, TensorError> {
    let rows = trained(batch);
    let mut losses = vec![0.0; batch.tokens.len()];
    if !rows.is_empty() {
        let pass = Pass::new(placed, batch)?;
        let x = pass.infer()?;
        for (row, loss) in rows.iter().zip(pass.losses(&x, &rows, batch, None)?.0) {
            losses[*row as usize] = loss;
        }
    }
    Ok(losses)
}

pub(super) fn logits(placed: &Placed, batch: &Batch) -> Result<Vec<f32>, TensorError> {
    let pass = Pass::new(placed, batch)?;
    let x = pass.infer()?;
    let logits = pass.logits(&x, None, pass.rows)?;
    let mut logits = pass.device.numbers(&logits, 0, pass.rows * pass.architecture.vocabulary)?;
    if let Some(cap) = placed.architecture.logit_cap {
        let cap = cap as f32;
        logits.iter_mut().for_each(|logit| *logit = cap * (*logit / cap).tanh());
    }
    Ok(logits)
}
