use crate::Float;

/// Buffers that are given back and taken again, because fresh pages cost as much as the work done in them.
#[derive(Debug)]
pub(crate) struct Workspace<F> {
    free: Vec<Vec<F>>,
    /// Rows of the largest pass so far, and by how many times it was larger than the present one.
    rows: usize,
    larger: usize,
}

impl<F: Float> Workspace<F> {
    pub(crate) fn new() -> Self {
        Self { free: Vec::new(), rows: 0, larger: 1 }
    }

    /// Begins a pass over so many rows: a smaller one than before computes in the larger one's buffers.
    pub(crate) fn begin(&mut self, rows: usize) {
        self.rows = self.rows.max(rows);
        self.larger = self.rows.div_ceil(rows.max(1));
    }

    /// A buffer of this length holding anything.
    pub(crate) fn take(&mut self, length: usize) -> Vec<F> {
        self.take_within(length, length)
    }

    /// The same, with room for so many numbers as others like it need.
    pub(crate) fn take_within(&mut self, length: usize, room: usize) -> Vec<F> {
        let (best, outgrown) = choose(self.free.iter().map(Vec::capacity), room, 2 * self.larger);
        if let Some(index) = best {
            let mut buffer = self.free.swap_remove(index);
            buffer.resize(length, F::ZERO);
            return buffer;
        }
        if let Some(index) = outgrown {
            self.free.swap_remove(index);
        }
        if length == room {
            return vec![F::ZERO; length];
        }
        let mut buffer = Vec::with_capacity(room);
        buffer.resize(length, F::ZERO);
        buffer
    }

    /// The same, holding zeros.
    pub(crate) fn zeros(&mut self, length: usize) -> Vec<F> {
        let mut buffer = self.take(length);
        buffer.fill(F::ZERO);
        buffer
    }

    /// The same, holding a copy.
    pub(crate) fn copy(&mut self, values: &[F]) -> Vec<F> {
        let mut buffer = self.take(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    /// Gives buffers back.
    pub(crate) fn give(&mut self, buffers: impl IntoIterator<Item = Vec<F>>) {
        self.free.extend(buffers);
    }
}

/// Which of the free buffers, by their capacities, is taken for so many numbers: the smallest that is at most so many times as
/// large. And where none fits, which one goes: one that is somewhat too small makes room for its successor, so that the
/// number of buffers stays.
pub(crate) fn choose(
    free: impl Iterator<Item = usize> + Clone,
    length: usize,
    times: usize,
) -> (Option<usize>, Option<usize>) {
    let fits = free.clone().enumerate().filter(|(_, capacity)| (length..=times * length).contains(capacity));
    let best = fits.min_by_key(|(_, capacity)| *capacity).map(|(index, _)| index);
    let mut small = free.enumerate().filter(|(_, capacity)| (length / 2..length).contains(capacity));
    (best, small.next().map(|(index, _)| index))
}
