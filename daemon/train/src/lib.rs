//! Training: examples become tokens, tokens become packed rows, rows become an adapter or a model.
//!
//! [`Intake`] tokenises examples as they arrive and keeps only tokens; [`Plan`] cuts, packs and orders them, the
//! same on every machine; [`preview`] and [`plan_memory`] tell what a run would see and take; [`train`] has the run
//! prove itself, runs the optimiser over the plan, looks at the validation side where there is one, writes
//! checkpoints from which it goes on with the same bits, and leaves `adapter/` or `model/`; [`merge`] adds an
//! adapter to its base. [`train_together`] is one of several processes that train a run, behind [`Exchange`]. What cannot be trained as its owner means it is refused with the reason before the first
//! step. It never opens a connection, never writes a log, keeps no text beyond the group that is being tokenised,
//! and puts none into an error.

mod checkpoint;
mod corpus;
mod error;
mod exchange;
mod files;
#[cfg(any(feature = "cuda", feature = "cuda-on-cpu"))]
mod gpu;
mod infill;
mod memory;
mod output;
mod pairs;
mod plan;
mod proofs;
mod random;
mod ranks;
mod run;
mod schedule;
mod step;
mod survey;
mod tuning;
mod usage;
mod validation;

pub use corpus::{Corpus, Intake};
pub use error::TrainError;
pub use exchange::{Alone, Exchange, ExchangeError, Streams};
pub use memory::{plan_memory, settle_allocator};
pub use output::{initialise, merge};
pub use plan::Plan;
pub use run::{Ended, train, train_together};
pub use schedule::learning_rate;
pub use step::{Learner, Stepped, take_pair_step, take_step};
pub use survey::preview;
pub use usage::{peak_memory, watch_memory};
