//! How processes that train one run together add up what each of them computed. Whatever sums numbers over processes can
//! stand behind [`Exchange`]: [`Streams`] do it in one box; NCCL's all-reduce or MPI's would between GPUs or machines.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::ops::AddAssign;
use std::os::unix::net::UnixStream;

/// Numbers that are converted at a time.
const SPAN: usize = 16 * 1024;

/// The processes of one run, as one of them sees them. Each of them calls the same methods in the same order with as many
/// numbers; a call returns when all have made it.
///
/// Every rank must end with the same bits: each takes the same step by itself, and nothing would make them meet again.
pub trait Exchange: Debug {
    /// This process's number, from 0. The first one writes what a run leaves, and tells.
    fn rank(&self) -> usize;

    /// Processes in all, at least 1.
    fn ranks(&self) -> usize;

    /// Replaces each number by its sum over the ranks.
    ///
    /// # Errors
    /// [`ExchangeError`]; the numbers are then of no use, and neither is the exchange.
    fn sum(&mut self, numbers: &mut [f32]) -> Result<(), ExchangeError>;

    /// The same in double precision, for the few numbers that decide something.
    ///
    /// # Errors
    /// As [`Exchange::sum`].
    fn sum_double(&mut self, numbers: &mut [f64]) -> Result<(), ExchangeError>;
}

/// Why ranks cannot go on together.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Another process is gone.
    #[error(
        "rank {rank} of the run ended before it was done ({source}): the run goes on from its last checkpoint"
    )]
    Ended {
        /// Its number.
        rank: usize,
        /// How that was seen.
        source: io::Error,
    },
    /// Another process is at another place of the run.
    #[error(
        "rank {rank} exchanges something else than the others: start all processes of a run from the same release"
    )]
    Differs {
        /// Its number.
        rank: usize,
    },
    /// A rank is not connected with those that it exchanges with.
    #[error(
        "rank {rank} of {ranks} was given {streams} connections: the first needs one with each of the others, these one with it"
    )]
    Streams {
        /// Its number.
        rank: usize,
        /// Processes in all.
        ranks: usize,
        /// What it was given.
        streams: usize,
    },
}

/// A run in one process: nothing is exchanged.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Exchange for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn ranks(&self) -> usize {
        1
    }

    fn sum(&mut self, _: &mut [f32]) -> Result<(), ExchangeError> {
        Ok(())
    }

    fn sum_double(&mut self, _: &mut [f64]) -> Result<(), ExchangeError> {
        Ok(())
    }
}

/// Processes in one box, each of them connected with the first: that one adds in the order of the ranks, and hands the sum
/// back.
///
/// A call is one message each way: the number of bytes as 8 bytes, a number's width in the highest of them, and the numbers;
/// all little-endian.
#[derive(Debug)]
pub struct Streams {
    rank: usize,
    ranks: usize,
    streams: Vec<UnixStream>,
    buffer: Vec<u8>,
}

impl Streams {
    /// Takes the first rank's connections with ranks 1, 2 and so on, or another's with the first.
    ///
    /// # Errors
    /// [`ExchangeError::Streams`] where there are more or fewer.
    pub fn new(rank: usize, ranks: usize, streams: Vec<UnixStream>) -> Result<Self, ExchangeError> {
        let wanted = if rank == 0 { ranks.saturating_sub(1) } else { 1 };
        if rank >= ranks || streams.len() != wanted {
            return Err(ExchangeError::Streams { rank, ranks, streams: streams.len() });
        }
        Ok(Self { rank, ranks, streams, buffer: Vec::new() })
    }

    /// The rank at the other end of a connection.
    fn peer(&self, stream: usize) -> usize {
        if self.rank == 0 { stream + 1 } else { 0 }
    }

    fn reduce<N: Number<W>, const W: usize>(&mut self, numbers: &mut [N]) -> Result<(), ExchangeError> {
        // Whoever is not the first says what it has before it hears, so that nobody waits for somebody who waits.
        if self.rank > 0 {
            self.send(0, numbers)?;
            return self.receive(0, numbers, |own, sum| *own = sum);
        }
        (0..self.streams.len()).try_for_each(|from| self.receive(from, numbers, |sum, part| *sum += part))?;
        (0..self.streams.len()).try_for_each(|to| self.send(to, numbers))
    }

    fn send<N: Number<W>, const W: usize>(&mut self, to: usize, numbers: &[N]) -> Result<(), ExchangeError> {
        let rank = self.peer(to);
        let Self { streams, buffer, .. } = self;
        buffer.clear();
        buffer.extend(header::<W>(numbers.len()));
        let mut write = || {
            for part in numbers.chunks(SPAN) {
                buffer.extend(part.iter().flat_map(|number| number.bytes()));
                streams[to].write_all(buffer)?;
                buffer.clear();
            }
            streams[to].write_all(buffer)
        };
        write().map_err(|source| ExchangeError::Ended { rank, source })
    }

    fn receive<N: Number<W>, const W: usize>(
        &mut self,
        from: usize,
        numbers: &mut [N],
        mut each: impl FnMut(&mut N, N),
    ) -> Result<(), ExchangeError> {
        let rank = self.peer(from);
        let ended = |source| ExchangeError::Ended { rank, source };
        let Self { streams, buffer, .. } = self;
        let mut head = [0; 8];
        streams[from].read_exact(&mut head).map_err(ended)?;
        if head != header::<W>(numbers.len()) {
            return Err(ExchangeError::Differs { rank });
        }
        for part in numbers.chunks_mut(SPAN) {
            buffer.resize(part.len() * W, 0);
            streams[from].read_exact(buffer).map_err(ended)?;
            for (number, bytes) in part.iter_mut().zip(buffer.as_chunks::<W>().0) {
                each(number, N::of(*bytes));
            }
        }
        Ok(())
    }
}

/// What a message begins with.
fn header<const W: usize>(numbers: usize) -> [u8; 8] {
    ((W as u64) << 56 | (numbers * W) as u64).to_le_bytes()
}

/// What is added up, as bytes.
trait Number<const W: usize>: Copy + AddAssign {
    fn bytes(self) -> [u8; W];
    fn of(bytes: [u8; W]) -> Self;
}

impl Number<4> for f32 {
    fn bytes(self) -> [u8; 4] {
        self.to_le_bytes()
    }

    fn of(bytes: [u8; 4]) -> Self {
        Self::from_le_bytes(bytes)
    }
}

impl Number<8> for f64 {
    fn bytes(self) -> [u8; 8] {
        self.to_le_bytes()
    }

    fn of(bytes: [u8; 8]) -> Self {
        Self::from_le_bytes(bytes)
    }
}

impl Exchange for Streams {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn sum(&mut self, numbers: &mut [f32]) -> Result<(), ExchangeError> {
        self.reduce(numbers)
    }

    fn sum_double(&mut self, numbers: &mut [f64]) -> Result<(), ExchangeError> {
        self.reduce(numbers)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;

    use super::{Exchange, ExchangeError, SPAN, Streams};

    /// Connected ranks.
    fn connected(ranks: usize) -> Vec<Streams> {
        let (first, others): (Vec<_>, Vec<_>) = (1..ranks).map(|_| UnixStream::pair().unwrap()).unzip();
        let other = |(at, stream)| Streams::new(at + 1, ranks, vec![stream]).unwrap();
        let mut all: Vec<Streams> = others.into_iter().enumerate().map(other).collect();
        all.insert(0, Streams::new(0, ranks, first).unwrap());
        all
    }

    /// What each rank makes of its numbers.
    fn each<T: Send>(ranks: Vec<Streams>, work: impl Fn(&mut Streams) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let work = &work;
            let started: Vec<_> =
                ranks.into_iter().map(|mut rank| scope.spawn(move || work(&mut rank))).collect();
            started.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_rank_has_the_same_bits_of_the_sum_in_the_order_of_ranks(
            ranks in 1_usize..5,
            count in prop_oneof![Just(0_usize), 1_usize..40, Just(SPAN), Just(3 * SPAN + 1)],
            seed in 1_u32..1000,
        ) {
            let number = |rank: usize, at: usize| (seed as f32 * (at + 1) as f32).sin() * 10_f32.powi(rank as i32);
            let sum = |at: usize| (0..ranks).map(|rank| number(rank, at)).reduce(|sum, one| sum + one).unwrap();
            let found = each(connected(ranks), |streams| {
                let mut single: Vec<f32> = (0..count).map(|at| number(streams.rank(), at)).collect();
                let mut double: Vec<f64> = (0..count).map(|at| f64::from(number(streams.rank(), at))).collect();
                streams.sum(&mut single).unwrap();
                streams.sum_double(&mut double).unwrap();
                (single, double)
            });
            let expected: Vec<u32> = (0..count).map(|at| sum(at).to_bits()).collect();
            for (single, double) in &found {
                prop_assert_eq!(&single.iter().map(|one| one.to_bits()).collect::<Vec<_>>(), &expected);
                prop_assert_eq!(double, &found[0].1);
            }
        }
    }

    #[test]
    fn who_ended_or_differs_is_named() {
        let found = each(connected(3), |streams| match streams.rank() {
            2 => Ok(()),
            _ => streams.sum(&mut [1.0, 2.0]),
        });
        assert!(matches!(&found[0], Err(ExchangeError::Ended { rank: 2, .. })), "{found:?}");
        assert!(matches!(&found[1], Err(ExchangeError::Ended { rank: 0, .. })), "{found:?}");
        for double in [false, true] {
            let found = each(connected(2), |streams| match (streams.rank(), double) {
                (0, _) => streams.sum(&mut [1.0, 2.0]),
                (_, false) => streams.sum(&mut [1.0]),
                (_, true) => streams.sum_double(&mut [1.0]),
            });
            assert!(matches!(&found[0], Err(ExchangeError::Differs { rank: 1 })), "{found:?}");
            assert!(matches!(&found[1], Err(ExchangeError::Ended { rank: 0, .. })), "{found:?}");
        }
        let (one, _) = UnixStream::pair().unwrap();
        assert!(matches!(Streams::new(0, 3, vec![one]), Err(ExchangeError::Streams { streams: 1, .. })));
    }
}
