//! The forward, the hand-written backward and the optimiser of decoders of the kind of Llama, Mistral, Qwen, Gemma and
//! Phi-3, with the formats that their weights and adapters are kept in, plain or sealed. What sets a family apart are
//! fields of [`moat_contracts::Architecture`]; `block.rs` is the one formula of all of them.
//!
//! It is the one crate that names candle, which reads the stored types; from there on weights, activations and
//! gradients are plain `f32` buffers, because candle's activations are allocated and cleared at each operation and
//! its autograd computes gradients of frozen weights. Matrix products go to `gemm`; all else that touches every
//! element is a kernel with its backward beside it. Everything is generic over [`Float`], so that the
//! very code that trains in `f32` is checked against finite differences in `f64`. Results do not depend on how
//! threads are timed: work is divided over outputs, and sums are taken in a fixed order.
//!
//! It never tokenises, never chooses what to train on, never writes a log, and never opens a connection.

mod batch;
mod block;
#[cfg(any(feature = "cuda", feature = "cuda-on-cpu"))]
pub mod cuda;
mod decode;
mod error;
mod float;
mod folder;
mod footprint;
mod held;
mod kernels;
mod linear;
mod lora;
mod model;
mod optimizer;
mod parameters;
mod pass;
mod preference;
mod quantized;
mod random;
mod rope;
mod stored;
#[cfg(test)]
mod tests;
mod weights;
mod workers;
mod workspace;

pub use batch::{Batch, IGNORE};
pub use decode::{Cache, decode};
pub use error::TensorError;
pub use float::Float;
pub use folder::{FileWriter, Folder, Tuned};
pub use footprint::{Footprint, Outline};
#[cfg(feature = "watch")]
pub use kernels::{multiply, take_watched};
pub use lora::{Lora, LoraShape};
pub use model::Model;
pub use optimizer::{AdamW, Gradients, Moments, Tuning, adamw, adamw_tuned};
pub use parameters::{Parameter, Parameters};
pub use pass::{
    LossSum, forward_backward, forward_backward_pairs, logits, merged_logits, segment_losses, token_losses,
};
pub use preference::{PairLoss, Preference};
pub use stored::StoredType;
pub use weights::Weights;
