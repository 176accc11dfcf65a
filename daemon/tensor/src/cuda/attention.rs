//! Launches of the attention's kernels.

use super::device::{Arg, AttentionArg, Buffer, Device, Precision, Shape};
use crate::TensorError;

/// Columns of a head that one block gives.
const OUTPUTS: usize = 128;

/// Warps, of 16 rows each, of a kernel's own tile, and rows of the other side that it takes at a time.
type Tile = (usize, usize);

/// Forward and backward tiles for heads of this width, as the last lines of `kernels/attention.cu` have them.
const fn tiles(precision: Precision, head: usize) -> [Tile; 2] {
    match (precision, head) {
        (Precision::F32, 64) => [(4, 32), (4, 32)],
        (Precision::F32, 128) => [(4, 32), (4, 16)],
        (Precision::F32, _) => [(4, 16), (2, 16)],
        (Precision::Bf16, 64) => [(4, 64), (4, 64)],
        (Precision::Bf16, 128) => [(4, 64), (4, 32)],
        (Precision::Bf16, _) => [(4, 32), (4, 16)],
    }
}

/// How the attention of one batch is divided into tiles.
pub(super) struct Attending {
    precision: Precision,
    /// The width that the kernels are made for.
    head: usize,
    tiles: [Tile; 2],
    forward: Work,
    queries: Work,
    keys: Work,
}

/// Tiles of one kernel: `(start and length of the segment, first row in it)` each.
struct Work {
    list: Buffer,
    count: usize,
}

impl Work {
    /// `last` begins with the ends of segments, which have the most to see where rows are queries.
    fn new(
        device: &Device,
        segments: &[(usize, usize)],
        rows: usize,
        last: bool,
    ) -> Result<Self, TensorError> {
        let tiles = segments.iter().flat_map(|(start, length)| {
            (0..*length).step_by(rows).map(move |first| [*start as i32, *length as i32, first as i32])
        });
        let mut tiles: Vec<[i32; 3]> = tiles.collect();
        tiles.sort_by_key(|[_, length, first]| if last { -first } else { first - length });
        let bytes: Vec<u8> = tiles.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
        Ok(Self { list: device.upload(&bytes)?, count: tiles.len() })
    }
}

impl Attending {
    /// Segments of a batch, `(start, length)` each, with heads of this width.
    pub(super) fn new(
        device: &Device,
        precision: Precision,
        width: usize,
        segments: &[(usize, usize)],
    ) -> Result<Self, TensorError> {
        let head = width.next_power_of_two().max(64);
        let tiles = tiles(precision, head);
        let work = |(warps, _): Tile, last| Work::new(device, segments, 16 * warps, last);
        Ok(Self {
            precision,
            head,
            tiles,
            forward: work(tiles[0], true)?,
            queries: work(tiles[1], true)?,
            keys: work(tiles[1], false)?,
        })
    }

    pub(super) fn forward(&self, device: &Device, arg: AttentionArg) -> Result<(), TensorError> {
        let (warps, columns) = self.tiles[0];
        let shared = (16 * warps + 2 * columns) * self.row();
        self.launch(device, ("attention", &self.forward), arg.heads, (warps, shared), arg)
    }

    pub(super) fn backward(&self, device: &Device, arg: AttentionArg) -> Result<(), TensorError> {
        let (warps, columns) = self.tiles[1];
        let shared = 2 * (16 * warps + columns) * self.row() + 2 * 4 * columns;
        self.launch(device, ("attention_queries", &self.queries), arg.heads, (warps, shared), arg)?;
        self.launch(device, ("attention_keys", &self.keys), arg.key_heads, (warps, shared), arg)
    }

    /// Bytes from one row of a tile to the next.
    const fn row(&self) -> usize {
        self.head * self.precision.size() + 16
    }

    fn launch(
        &self,
        device: &Device,
        (kernel, work): (&str, &Work),
        heads: i32,
        (warps, shared): (usize, usize),
        arg: AttentionArg,
    ) -> Result<(), TensorError> {
        let arg = AttentionArg { tiles: work.list.start(), ..arg };
        let grid = [work.count, heads as usize, self.head.div_ceil(OUTPUTS)];
        let shape = Shape { grid, threads: 32 * warps, shared };
        device.launch(
            &format!("{kernel}_{}_{}", self.precision.word(), self.head),
            shape,
            &[Arg::Attention(arg)],
        )
    }
}
