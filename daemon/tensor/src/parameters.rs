use crate::Float;

/// A named tensor, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter<F: Float = f32> {
    /// The name that safetensors files give it.
    pub name: String,
    /// Its shape, `[out, in]` for a linear.
    pub shape: Vec<usize>,
    /// Its values, as many as the shape's product.
    pub values: Vec<F>,
}

/// Named tensors in a fixed order: a model's weights, an adapter, gradients or moments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters<F: Float = f32> {
    list: Vec<Parameter<F>>,
}

impl<F: Float> Parameters<F> {
    /// Takes tensors in the order given.
    pub fn new(list: Vec<Parameter<F>>) -> Self {
        Self { list }
    }

    /// The tensors in their order.
    pub fn list(&self) -> &[Parameter<F>] {
        &self.list
    }

    /// The tensors in their order, to change.
    pub fn list_mut(&mut self) -> &mut [Parameter<F>] {
        &mut self.list
    }

    /// The values of one by name.
    pub fn get(&self, name: &str) -> Option<&[F]> {
        self.list.iter().find(|parameter| parameter.name == name).map(|parameter| parameter.values.as_slice())
    }

    /// Numbers in all.
    pub fn count(&self) -> u64 {
        self.list.iter().map(|parameter| parameter.values.len() as u64).sum()
    }

    /// Whether names and shapes are the same.
    pub(crate) fn fits<G: Float>(&self, other: &Parameters<G>) -> bool {
        let same =
            |(own, other): (&Parameter<F>, &Parameter<G>)| own.name == other.name && own.shape == other.shape;
        self.list.len() == other.list.len() && self.list.iter().zip(&other.list).all(same)
    }

    /// The same tensors holding zeros.
    pub fn zeros_like(&self) -> Self {
        let zero = |parameter: &Parameter<F>| Parameter {
            name: parameter.name.clone(),
            shape: parameter.shape.clone(),
            values: vec![F::ZERO; parameter.values.len()],
        };
        Self { list: self.list.iter().map(zero).collect() }
    }

    /// Zeros in place of all values.
    pub(crate) fn clear(&mut self) {
        for parameter in &mut self.list {
            parameter.values.fill(F::ZERO);
        }
    }

    /// The same names and shapes, to be given values.
    pub(crate) fn without_values(&self) -> Self {
        let bare = |parameter: &Parameter<F>| Parameter {
            name: parameter.name.clone(),
            shape: parameter.shape.clone(),
            values: Vec::new(),
        };
        Self { list: self.list.iter().map(bare).collect() }
    }

    /// The same tensors as other numbers.
    pub fn cast<G: Float>(&self) -> Parameters<G> {
        let cast = |parameter: &Parameter<F>| Parameter {
            name: parameter.name.clone(),
            shape: parameter.shape.clone(),
            values: parameter.values.iter().map(|value| G::from_f64(value.to_f64())).collect(),
        };
        Parameters { list: self.list.iter().map(cast).collect() }
    }
}
