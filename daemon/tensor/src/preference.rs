//! The loss of two answers to one prompt (DPO: Rafailov et al., arXiv 2305.18290, equation 7; with smoothed labels, Mitchell's
//! conservative DPO): with `z = β ((ln p_c − ln r_c) − (ln p_r − ln r_r))` of the chosen and the rejected answer under the
//! model `p` and the reference `r`,
//!
//! `loss = −(1 − ε) ln σ(z) − ε ln σ(−z)`, `dloss/dz = σ(z) − (1 − ε)`.
//!
//! The gradient is `dloss/dz β (∇ln p_c − ∇ln p_r)`: that of the summed cross-entropy of each answer, by a factor of its own.

/// How pairs of answers are learnt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preference {
    /// β: how strongly the reference holds.
    pub beta: f64,
    /// ε: share of labels that are taken to be wrong.
    pub label_smoothing: f64,
}

/// One pair under model and reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairLoss {
    /// Its loss, nats.
    pub loss: f64,
    /// Reward of the chosen answer less that of the rejected one: `z`.
    pub margin: f64,
}

impl Preference {
    /// The loss of a pair, from the summed negative log-likelihoods of both answers, the chosen one first, nats.
    pub fn loss(&self, model: [f64; 2], reference: [f64; 2]) -> PairLoss {
        let margin = self.margin(model, reference);
        let smoothing = self.label_smoothing;
        PairLoss { loss: (1.0 - smoothing) * softplus(-margin) + smoothing * softplus(margin), margin }
    }

    fn margin(&self, model: [f64; 2], reference: [f64; 2]) -> f64 {
        self.beta * ((reference[0] - model[0]) - (reference[1] - model[1]))
    }

    /// What the gradients of both negative log-likelihoods are multiplied by.
    pub(crate) fn slopes(&self, model: [f64; 2], reference: [f64; 2]) -> [f64; 2] {
        let sigma = 1.0 / (1.0 + (-self.margin(model, reference)).exp());
        let slope = self.beta * ((1.0 - self.label_smoothing) - sigma);
        [slope, -slope]
    }
}

/// `ln(1 + e^x)`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}
