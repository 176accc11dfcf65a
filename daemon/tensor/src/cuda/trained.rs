//! What is trained on a device: one buffer for all of an adapter's tensors, and as many for gradients and moments.

use super::device::{Arg, Buffer, Device, Precision, Shape, StepArg};
use crate::{AdamW, Lora, Parameter, Parameters, TensorError, Tuning};

/// Threads of a kernel over single numbers.
const THREADS: usize = 256;
/// Numbers that a block of `squares` adds up: as many for each thread as `kernels/optimizer.cu` says.
const SQUARES: usize = 16 * THREADS;

pub(super) struct Trained {
    /// Names and shapes, without values.
    names: Parameters,
    /// Where each tensor's numbers start, in the order of the names.
    pub(super) places: Vec<usize>,
    /// All numbers.
    count: usize,
    pub(super) theta: Buffer,
    pub(super) gradients: Buffer,
    pub(super) first: Buffer,
    pub(super) second: Buffer,
    pub(super) steps: u64,
}

impl Trained {
    /// An adapter whose tensors start at these places.
    pub(super) fn new(device: &Device, adapter: &Lora, places: Vec<usize>) -> Result<Self, TensorError> {
        let parameters = adapter.parameters();
        let count = parameters.list().iter().map(|parameter| parameter.values.len()).sum();
        let zeros = || device.zeros(count, Precision::F32);
        let trained = Self {
            names: parameters.without_values(),
            places,
            count,
            theta: zeros()?,
            gradients: zeros()?,
            first: zeros()?,
            second: zeros()?,
            steps: 0,
        };
        trained.write(device, &trained.theta, parameters)?;
        Ok(trained)
    }

    fn numbers(&self, tensor: usize) -> usize {
        self.names.list()[tensor].shape.iter().product()
    }

    pub(super) fn write(&self, device: &Device, to: &Buffer, values: &Parameters) -> Result<(), TensorError> {
        self.check(values)?;
        for (place, parameter) in self.places.iter().zip(values.list()) {
            device.write(to, 4 * place, &Precision::F32.bytes(&parameter.values))?;
        }
        Ok(())
    }

    pub(super) fn read(
        &self,
        device: &Device,
        from: &Buffer,
        values: &mut Parameters,
    ) -> Result<(), TensorError> {
        self.check(values)?;
        for (place, parameter) in self.places.iter().zip(values.list_mut()) {
            parameter.values = device.numbers(from, *place, parameter.values.len())?;
        }
        Ok(())
    }

    /// Refuses tensors of another adapter, or without values.
    fn check(&self, values: &Parameters) -> Result<(), TensorError> {
        let whole = values.list().iter().enumerate().all(|(tensor, own)| {
            self.names.list().len() > tensor && own.values.len() == self.numbers(tensor)
        });
        if whole && self.names.fits(values) { Ok(()) } else { Err(TensorError::Mismatch) }
    }

    pub(super) fn gradients(&self, device: &Device) -> Result<Parameters, TensorError> {
        let mut values = self.names.clone();
        for (tensor, (place, parameter)) in self.places.iter().zip(values.list_mut()).enumerate() {
            parameter.values = device.numbers(&self.gradients, *place, self.numbers(tensor))?;
        }
        Ok(values)
    }

    pub(super) fn zero(&self, device: &Device) -> Result<(), TensorError> {
        device.clear(&self.gradients, 4 * self.count)
    }

    pub(super) fn scale(&self, device: &Device, factor: f32) -> Result<(), TensorError> {
        let args = [Arg::Address(self.gradients.start()), Arg::Long(self.count as i64), Arg::Float(factor)];
        device.launch("scale_f32", over(self.count, THREADS), &args)
    }

    pub(super) fn norm(&self, device: &Device) -> Result<f64, TensorError> {
        let shape = over(self.count, SQUARES);
        let blocks = shape.grid[0];
        let sums = device.take(2 * blocks, Precision::F32)?;
        let args =
            [Arg::Address(self.gradients.start()), Arg::Long(self.count as i64), Arg::Address(sums.start())];
        device.launch("squares_f32", shape, &args)?;
        let bytes = device.bytes(&sums, 0, 8 * blocks)?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).sum::<f64>().sqrt())
    }

    pub(super) fn adamw(
        &mut self,
        device: &Device,
        settings: AdamW,
        tuning: impl Fn(&Parameter) -> Tuning,
    ) -> Result<(), TensorError> {
        self.steps += 1;
        let steps = self.steps as f64;
        for (tensor, (place, parameter)) in self.places.iter().zip(self.names.list()).enumerate() {
            let Tuning { rate, decays } = tuning(parameter);
            let AdamW { learning_rate, beta1, beta2, epsilon, weight_decay } = settings;
            let learning_rate = rate * learning_rate;
            let decay = if decays { weight_decay } else { 0.0 };
            let step = StepArg {
                keep: (1.0 - learning_rate * decay) as f32,
                size: (learning_rate / (1.0 - beta1.powf(steps))) as f32,
                first: (1.0 - beta1) as f32,
                beta2: beta2 as f32,
                second: (1.0 - beta2) as f32,
                correction: (1.0 - beta2.powf(steps)).sqrt() as f32,
                epsilon: epsilon as f32,
            };
            let at = |buffer: &Buffer| Arg::Address(buffer.at(*place, Precision::F32));
            let count = self.numbers(tensor);
            let args = [
                at(&self.theta),
                at(&self.gradients),
                at(&self.first),
                at(&self.second),
                Arg::Long(count as i64),
                Arg::Step(step),
            ];
            device.launch("adamw_f32", over(count, THREADS), &args)?;
        }
        Ok(())
    }
}

/// Blocks of 256 threads that take so many numbers each.
fn over(count: usize, each: usize) -> Shape {
    Shape { grid: [count.div_ceil(each), 1, 1], threads: THREADS, shared: 0 }
}
