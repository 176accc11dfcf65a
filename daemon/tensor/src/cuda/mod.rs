//! The same blocks on a GPU: weights and activations in bfloat16 or f32, sums, norms, softmax, the residual stream and what
//! is trained in f32. `kernels` holds the kernels, one text for NVIDIA's compiler and for the emulation that proves them on a
//! processor; `device` what a device can do; `placed` how weights lie there; `pass` the forward and backward, in the order of
//! `block.rs`.
//!
//! Four linears make a block here, whatever a family has: those that read the same rows lie under each other. Each lies
//! with its adapter in one matrix, `[[W, B], [A, 0]]`, so that `y = [x, s x Aᵀ] [W, B]ᵀ` and `dx = [dy, s dy B] [[W], [A]]` are
//! one product each beside a thin one.
//!
//! Sums have one order: a run on the same GPU with the same driver and cuBLAS gives the same bits.

mod attention;
mod device;
#[cfg(feature = "cuda")]
mod driver;
#[cfg(feature = "cuda-on-cpu")]
mod emulated;
mod pass;
mod placed;
mod trained;

pub use device::{Device, Precision};

use crate::{AdamW, Batch, Lora, LossSum, Model, Moments, Parameter, Parameters, TensorError, Tuning};
use placed::Placed;

/// A model on a device: its base frozen, its adapter with gradients and AdamW's moments.
pub struct OnDevice(Placed);

impl OnDevice {
    /// Places a model; its moments are zeros. A base without an adapter can be measured, not trained.
    ///
    /// # Errors
    /// [`TensorError::Device`] where it does not fit, or its heads are wider than 256.
    pub fn new(device: &Device, model: &Model, precision: Precision) -> Result<Self, TensorError> {
        Placed::new(device, model, precision).map(Self)
    }

    /// As [`crate::forward_backward`], adding to the gradients on the device.
    ///
    /// # Errors
    /// What [`Batch::check`] finds, [`TensorError::Mismatch`] where there is no adapter, and [`TensorError::Device`].
    pub fn forward_backward(
        &mut self,
        batch: &Batch,
        scale: f32,
        recompute: bool,
    ) -> Result<LossSum, TensorError> {
        batch.check(&self.0.architecture)?;
        if self.0.trained.is_none() {
            return Err(TensorError::Mismatch);
        }
        pass::learn(&self.0, batch, scale, recompute)
    }

    /// As [`crate::token_losses`].
    ///
    /// # Errors
    /// What [`Batch::check`] finds, and [`TensorError::Device`].
    pub fn token_losses(&self, batch: &Batch) -> Result<Vec<f32>, TensorError> {
        batch.check(&self.0.architecture)?;
        pass::token_losses(&self.0, batch)
    }

    /// As [`crate::logits`].
    ///
    /// # Errors
    /// What [`Batch::check`] finds, and [`TensorError::Device`].
    pub fn logits(&self, batch: &Batch) -> Result<Vec<f32>, TensorError> {
        batch.check(&self.0.architecture)?;
        pass::logits(&self.0, batch)
    }

    /// Gradients back to zeros.
    ///
    /// # Errors
    /// [`TensorError::Device`].
    pub fn zero(&mut self) -> Result<(), TensorError> {
        self.0.trained.as_ref().map_or(Ok(()), |trained| trained.zero(&self.0.device))
    }

    /// Euclidean norm over all gradients, summed in f64.
    ///
    /// # Errors
    /// [`TensorError::Device`].
    pub fn norm(&self) -> Result<f64, TensorError> {
        self.0.trained.as_ref().map_or(Ok(0.0), |trained| trained.norm(&self.0.device))
    }

    /// Multiplies all gradients.
    ///
    /// # Errors
    /// [`TensorError::Device`].
    pub fn scale(&mut self, factor: f64) -> Result<(), TensorError> {
        self.0.trained.as_ref().map_or(Ok(()), |trained| trained.scale(&self.0.device, factor as f32))
    }

    /// As [`crate::adamw_tuned`]; the products read what it made from then on.
    ///
    /// # Errors
    /// [`TensorError::Device`].
    pub fn adamw(
        &mut self,
        settings: AdamW,
        tuning: impl Fn(&Parameter) -> Tuning,
    ) -> Result<(), TensorError> {
        let Some(trained) = &mut self.0.trained else { return Ok(()) };
        trained.adamw(&self.0.device, settings, tuning)?;
        self.0.refresh()
    }

    /// Gradients under the adapter's names.
    ///
    /// # Errors
    /// [`TensorError::Device`].
    pub fn gradients(&self) -> Result<Parameters, TensorError> {
        let none = || Ok(Parameters::new(Vec::new()));
        self.0.trained.as_ref().map_or_else(none, |trained| trained.gradients(&self.0.device))
    }

    /// Takes gradients in place of its own, as after those of other devices were added.
    ///
    /// # Errors
    /// [`TensorError::Mismatch`], [`TensorError::Device`].
    pub fn write_gradients(&mut self, gradients: &Parameters) -> Result<(), TensorError> {
        let trained = self.0.trained.as_ref().ok_or(TensorError::Mismatch)?;
        trained.write(&self.0.device, &trained.gradients, gradients)
    }

    /// Copies the adapter, as it is now, into the one that it was placed from.
    ///
    /// # Errors
    /// [`TensorError::Mismatch`], [`TensorError::Device`].
    pub fn read_adapter(&self, adapter: &mut Lora) -> Result<(), TensorError> {
        let trained = self.0.trained.as_ref().ok_or(TensorError::Mismatch)?;
        trained.read(&self.0.device, &trained.theta, adapter.parameters_mut())
    }

    /// Takes another adapter of the same shape, as after a checkpoint was restored.
    ///
    /// # Errors
    /// [`TensorError::Mismatch`], [`TensorError::Device`].
    pub fn write_adapter(&mut self, adapter: &Lora) -> Result<(), TensorError> {
        let trained = self.0.trained.as_ref().ok_or(TensorError::Mismatch)?;
        trained.write(&self.0.device, &trained.theta, adapter.parameters())?;
        self.0.refresh()
    }

    /// Copies AdamW's moments and count of steps, to be kept in a checkpoint.
    ///
    /// # Errors
    /// [`TensorError::Mismatch`] also for moments in 8 bits; [`TensorError::Device`].
    pub fn read_moments(&self, moments: &mut Moments) -> Result<(), TensorError> {
        let trained = self.0.trained.as_ref().ok_or(TensorError::Mismatch)?;
        trained.read(&self.0.device, &trained.first, &mut moments.first)?;
        trained.read(&self.0.device, &trained.second, &mut moments.second)?;
        moments.steps = trained.steps;
        Ok(())
    }

    /// Takes moments and count of steps of a checkpoint.
    ///
    /// # Errors
    /// [`TensorError::Mismatch`] also for moments in 8 bits; [`TensorError::Device`].
    pub fn write_moments(&mut self, moments: &Moments) -> Result<(), TensorError> {
        let trained = self.0.trained.as_mut().ok_or(TensorError::Mismatch)?;
        trained.write(&self.0.device, &trained.first, &moments.first)?;
        trained.write(&self.0.device, &trained.second, &moments.second)?;
        trained.steps = moments.steps;
        Ok(())
    }
}
