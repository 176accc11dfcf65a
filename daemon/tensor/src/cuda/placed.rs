//! How a model's weights lie in a device's memory.

use moat_contracts::{Architecture, Frozen};

use super::device::{Arg, Buffer, Device, Precision, Product, Shape, Side};
use super::trained::Trained;
use crate::model::{Index, LinearIndex};
use crate::{Model, TensorError};

/// Columns of a product that tensor cores take at a time: ranks are filled up to a multiple.
const RANKS: usize = 8;

/// The widest head that the attention's kernels take.
const WIDEST: usize = 256;

pub(super) struct Placed {
    pub(super) device: Device,
    pub(super) architecture: Architecture,
    pub(super) precision: Precision,
    pub(super) embedding: Buffer,
    /// None where it is the embedding.
    pub(super) head: Option<Buffer>,
    pub(super) norm: Buffer,
    pub(super) blocks: Vec<Block>,
    pub(super) trained: Option<Trained>,
    /// What an adapter's product is multiplied by.
    pub(super) scale: f32,
}

/// One block's weights; norms are f32, with their offset.
pub(super) struct Block {
    pub(super) input_norm: Buffer,
    pub(super) attention_norm: Option<Buffer>,
    pub(super) middle_norm: Buffer,
    pub(super) mlp_norm: Option<Buffer>,
    pub(super) head_norms: Option<[Buffer; 2]>,
    /// q, k and v.
    pub(super) queries: Group,
    pub(super) output: Group,
    /// The gate and what it gates.
    pub(super) gates: Group,
    pub(super) down: Group,
}

impl Block {
    fn groups(&self) -> [&Group; 4] {
        [&self.queries, &self.output, &self.gates, &self.down]
    }
}

/// Linears that read the same rows, with their adapters: `[[W, B], [A, 0]]`, with the linears' rows of W under each other and
/// columns of B, as rows of A, beside each other.
pub(super) struct Group {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Columns of B and rows of A.
    pub(super) ranks: usize,
    matrix: Buffer,
    /// f32.
    pub(super) bias: Option<Buffer>,
    parts: Vec<Part>,
}

/// One linear's adapter in its group.
struct Part {
    /// Its first row of W and B.
    first: usize,
    outputs: usize,
    rank: usize,
    /// Its first column of B and row of A.
    column: usize,
    /// Where A and B start among what is trained.
    a: usize,
    b: usize,
}

impl Placed {
    pub(super) fn new(device: &Device, model: &Model, precision: Precision) -> Result<Self, TensorError> {
        let architecture = model.weights.architecture().clone();
        if architecture.head_dim > WIDEST {
            let reason = format!(
                "its heads are {} wide, and 256 is the most: train it on the CPU",
                architecture.head_dim
            );
            return Err(TensorError::Device { doing: "take this base", reason });
        }
        let reason = match &model.adapter {
            Some(adapter) if adapter.is_decomposed() => Some("its adapter is decomposed"),
            _ if model.weights.frozen() != Frozen::F32 => {
                Some("its base is held in fewer bits than it was read in")
            }
            _ => None,
        };
        if let Some(reason) = reason {
            let reason = format!("{reason}: train it on the CPU");
            return Err(TensorError::Device { doing: "take this model", reason });
        }
        let index = Index::new(&architecture);
        let values = |place: usize| model.weights.parameters().list()[place].values.as_slice();
        let offset = architecture.norm_offset as f32;
        let norm = |place: usize| {
            device.upload_numbers(&values(place).iter().map(|value| value + offset).collect::<Vec<f32>>())
        };
        let mut laid = Layout { device, model, precision, places: Vec::new(), count: 0 };
        if let Some(adapter) = &model.adapter {
            laid.places = vec![0; adapter.parameters().list().len()];
        }
        let mut blocks = Vec::with_capacity(index.blocks.len());
        for block in &index.blocks {
            let heads = block.head_norms.map(|(q, k)| Ok::<_, TensorError>([norm(q)?, norm(k)?]));
            blocks.push(Block {
                input_norm: norm(block.input_norm)?,
                attention_norm: block.attention_norm.map(norm).transpose()?,
                middle_norm: norm(block.middle_norm)?,
                mlp_norm: block.mlp_norm.map(norm).transpose()?,
                head_norms: heads.transpose()?,
                queries: laid.group(block.queries())?,
                output: laid.group(std::slice::from_ref(block.output()))?,
                gates: laid.group(block.gates())?,
                down: laid.group(std::slice::from_ref(block.down()))?,
            });
        }
        let places = laid.places;
        let trained =
            model.adapter.as_ref().map(|adapter| Trained::new(device, adapter, places)).transpose()?;
        let table = |place: usize| device.upload(&precision.bytes(values(place)));
        let placed = Self {
            embedding: table(0)?,
            head: (!architecture.tied).then(|| table(index.head)).transpose()?,
            norm: norm(index.norm)?,
            blocks,
            trained,
            scale: model.adapter.as_ref().map_or(0.0, |adapter| adapter.scale() as f32),
            device: device.clone(),
            architecture,
            precision,
        };
        placed.refresh()?;
        Ok(placed)
    }

    /// Rounds what is trained to where products read it.
    pub(super) fn refresh(&self) -> Result<(), TensorError> {
        let Some(trained) = &self.trained else { return Ok(()) };
        for group in self.blocks.iter().flat_map(Block::groups) {
            for part in &group.parts {
                let a = (part.a, group.outputs + part.column, 0, part.rank, group.inputs);
                let b = (part.b, part.first, group.inputs + part.column, part.outputs, part.rank);
                for (from, row, column, rows, width) in [a, b] {
                    let args = [
                        Arg::Address(trained.theta.at(from, Precision::F32)),
                        Arg::Address(group.at(row, column, self.precision)),
                        Arg::Long(group.stride() as i64),
                        Arg::Int(width as i32),
                    ];
                    self.launch("place", columns(rows, width), &args)?;
                }
            }
        }
        Ok(())
    }

    /// A kernel of the precision that activations have.
    pub(super) fn launch(&self, kernel: &str, shape: Shape, args: &[Arg]) -> Result<(), TensorError> {
        self.device.launch(&format!("{kernel}_{}", self.precision.word()), shape, args)
    }
}

/// A grid of rows and of parts of their columns, of a number for each thread.
pub(super) fn columns(rows: usize, width: usize) -> Shape {
    Shape { grid: [rows, width.div_ceil(256), 1], threads: 256, shared: 0 }
}

/// Lays groups out, one after the other.
struct Layout<'a> {
    device: &'a Device,
    model: &'a Model,
    precision: Precision,
    /// Where each tensor of the adapter starts among what is trained.
    places: Vec<usize>,
    /// Numbers given places so far.
    count: usize,
}

impl Layout<'_> {
    fn group(&mut self, linears: &[LinearIndex]) -> Result<Group, TensorError> {
        let inputs = linears.first().map_or(0, |linear| linear.inputs);
        let outputs = linears.iter().map(|linear| linear.outputs).sum();
        let (mut parts, mut tensors, mut first, mut ranks) = (Vec::new(), Vec::new(), 0, 0);
        for linear in linears {
            let found = self.model.adapter.as_ref().and_then(|one| Some((one.rank(), one.first(linear)?)));
            if let Some((rank, tensor)) = found {
                // All A lie together, so that one product makes their gradients; then all B.
                self.places[tensor] = self.count + ranks * inputs;
                let (outputs, a) = (linear.outputs, self.places[tensor]);
                parts.push(Part { first, outputs, rank, column: ranks, a, b: 0 });
                tensors.push(tensor);
                ranks += rank;
            }
            first += linear.outputs;
        }
        self.count += ranks * inputs;
        for (part, tensor) in parts.iter_mut().zip(tensors) {
            self.places[tensor + 1] = self.count;
            part.b = self.count;
            self.count += part.outputs * part.rank;
        }
        let ranks = ranks.next_multiple_of(RANKS);
        let list = self.model.weights.parameters().list();
        let mut whole = vec![0.0; (outputs + ranks) * (inputs + ranks)];
        let mut rows = whole.chunks_mut(inputs + ranks);
        for linear in linears {
            for (weight, row) in list[linear.weight].values.chunks(inputs).zip(rows.by_ref()) {
                row[..inputs].copy_from_slice(weight);
            }
        }
        let matrix = self.device.upload(&self.precision.bytes(&whole))?;
        drop(whole);
        let mut bias = Vec::new();
        if linears.iter().any(|linear| linear.bias) {
            for linear in linears {
                match linear.bias {
                    true => bias.extend_from_slice(&list[linear.weight + 1].values),
                    false => bias.resize(bias.len() + linear.outputs, 0.0),
                }
            }
        }
        let bias = (!bias.is_empty()).then(|| self.device.upload_numbers(&bias)).transpose()?;
        Ok(Group { inputs, outputs, ranks, matrix, bias, parts })
    }
}

/// What a product's result goes into.
#[derive(Clone, Copy)]
pub(super) struct Into {
    pub(super) address: u64,
    pub(super) stride: usize,
    pub(super) precision: Precision,
    pub(super) add: bool,
}

impl Group {
    /// Numbers from one row of its matrix, or of what it reads, to the next.
    pub(super) const fn stride(&self) -> usize {
        self.inputs + self.ranks
    }

    /// Numbers from one row of what it makes, where its gradient is to lie too, to the next.
    pub(super) const fn out_stride(&self) -> usize {
        self.outputs + self.ranks
    }

    const fn at(&self, row: usize, column: usize, precision: Precision) -> u64 {
        self.matrix.at(row * self.stride() + column, precision)
    }

    /// `t = s x Aᵀ`, behind each row of x.
    pub(super) fn thin(&self, on: &Placed, x: &Buffer, rows: usize) -> Result<(), TensorError> {
        on.device.product(Product {
            left: Side::new(x.start(), self.stride()),
            right: Side::turned(self.at(self.outputs, 0, on.precision), self.stride()),
            precision: on.precision,
            out: x.at(self.inputs, on.precision),
            out_stride: self.stride(),
            out_precision: on.precision,
            rows,
            inner: self.inputs,
            columns: self.ranks,
            factor: on.scale,
            add: false,
        })
    }

    /// `y = [x, t] [W, B]ᵀ + b`, where t is behind each row of x.
    pub(super) fn forward(&self, on: &Placed, x: &Buffer, rows: usize, y: Into) -> Result<(), TensorError> {
        on.device.product(Product {
            left: Side::new(x.start(), self.stride()),
            right: Side::turned(self.matrix.start(), self.stride()),
            precision: on.precision,
            out: y.address,
            out_stride: y.stride,
            out_precision: y.precision,
            rows,
            inner: self.stride(),
            columns: self.outputs,
            factor: 1.0,
            add: y.add,
        })?;
        let Some(bias) = &self.bias else { return Ok(()) };
        let args = [
            Arg::Address(y.address),
            Arg::Long(y.stride as i64),
            Arg::Address(bias.start()),
            Arg::Int(self.outputs as i32),
        ];
        let kernel = format!("add_bias_{}", y.precision.word());
        on.device.launch(&kernel, columns(rows, self.outputs), &args)
    }

    /// `u = s dy B`, behind each row of dy.
    pub(super) fn thin_back(&self, on: &Placed, dy: &Buffer, rows: usize) -> Result<(), TensorError> {
        on.device.product(Product {
            left: Side::new(dy.start(), self.out_stride()),
            right: Side::new(self.at(0, self.inputs, on.precision), self.stride()),
            precision: on.precision,
            out: dy.at(self.outputs, on.precision),
            out_stride: self.out_stride(),
            out_precision: on.precision,
            rows,
            inner: self.outputs,
            columns: self.ranks,
            factor: on.scale,
            add: false,
        })
    }

    /// `dx = [dy, u] [[W], [A]]`, where u is behind each row of dy.
    pub(super) fn input_gradient(
        &self,
        on: &Placed,
        dy: &Buffer,
        rows: usize,
        dx: Into,
    ) -> Result<(), TensorError> {
        on.device.product(Product {
            left: Side::new(dy.start(), self.out_stride()),
            right: Side::new(self.matrix.start(), self.stride()),
            precision: on.precision,
            out: dx.address,
            out_stride: dx.stride,
            out_precision: dx.precision,
            rows,
            inner: self.out_stride(),
            columns: self.inputs,
            factor: 1.0,
            add: dx.add,
        })
    }

    /// `dA += uᵀ x` and `dB += dyᵀ t`, where t and u are behind the rows of x and dy.
    pub(super) fn learn(&self, on: &Placed, x: &Buffer, dy: &Buffer, rows: usize) -> Result<(), TensorError> {
        let (Some(trained), Some(part)) = (&on.trained, self.parts.first()) else { return Ok(()) };
        let into = |place: usize| trained.gradients.at(place, Precision::F32);
        let sum = |out: u64, left: u64, right: u64, rows_out: usize, columns: usize| {
            on.device.product(Product {
                left: Side::turned(left, self.out_stride()),
                right: Side::new(right, self.stride()),
                precision: on.precision,
                out,
                out_stride: columns,
                out_precision: Precision::F32,
                rows: rows_out,
                inner: rows,
                columns,
                factor: 1.0,
                add: true,
            })
        };
        let own = self.parts.iter().map(|part| part.rank).sum();
        sum(into(part.a), dy.at(self.outputs, on.precision), x.start(), own, self.inputs)?;
        for part in &self.parts {
            let left = dy.at(part.first, on.precision);
            let right = x.at(self.inputs + part.column, on.precision);
            sum(into(part.b), left, right, part.outputs, part.rank)?;
        }
        Ok(())
    }
}
