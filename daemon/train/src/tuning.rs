use moat_contracts::{DecayGroup, Recipe};
use moat_tensor::{Parameter, Tuning};

/// What a tensor's steps differ in by the recipe: LoRA+'s rate for B, and whether its weights decay.
pub(crate) fn tuning(recipe: &Recipe, parameter: &Parameter) -> Tuning {
    let rate = if parameter.name.ends_with("lora_B.weight") { recipe.lora.b_rate } else { 1.0 };
    Tuning { rate, decays: recipe.optimizer.decayed.contains(&group(&parameter.name)) }
}

/// The group of a tensor by its name in Hugging Face's layout.
fn group(name: &str) -> DecayGroup {
    let last = name.rsplit('.').nth(1).unwrap_or(name);
    if name.ends_with("lora_magnitude_vector") {
        // A length for each output: what the weight of a norm is.
        DecayGroup::Norms
    } else if name.ends_with(".bias") {
        DecayGroup::Biases
    } else if last == "embed_tokens" || last == "lm_head" {
        DecayGroup::Embeddings
    } else if last.ends_with("norm") {
        DecayGroup::Norms
    } else {
        DecayGroup::Linears
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use moat_contracts::{Architecture, DecayGroup, Recipe};
    use moat_tensor::{Lora, Parameter};

    use super::{group, tuning};

    fn architecture(family: &str) -> Architecture {
        let config = serde_json::json!({
            "architectures": [family], "hidden_act": "silu", "hidden_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 32,
            "vocab_size": 264, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "tie_word_embeddings": false});
        Architecture::from_config(&config.to_string()).unwrap()
    }

    /// Shapes tell what the groups are, so that a name that is not understood shows.
    #[test]
    fn every_tensor_is_in_the_group_of_its_kind() {
        for family in ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"] {
            for tensor in architecture(family).tensors() {
                let matrix = tensor.shape.len() == 2;
                let table = tensor.shape[0] == 264;
                let expected = match (matrix, table, tensor.name.contains("bias")) {
                    (true, true, _) => DecayGroup::Embeddings,
                    (true, false, _) => DecayGroup::Linears,
                    (false, _, true) => DecayGroup::Biases,
                    (false, _, false) => DecayGroup::Norms,
                };
                assert_eq!(group(&tensor.name), expected, "{}", tensor.name);
                let parameter = Parameter { name: tensor.name, shape: tensor.shape, values: Vec::new() };
                // Where a recipe does not say, what decays is what always did.
                assert_eq!(tuning(&Recipe::default(), &parameter).decays, matrix);
            }
        }
    }

    #[test]
    fn only_b_learns_at_another_rate() {
        let mut recipe = Recipe::default();
        recipe.lora.b_rate = 16.0;
        let adapter = Lora::new(&architecture("LlamaForCausalLM"), 2, 4.0, 1);
        let mut rates: BTreeMap<String, usize> = BTreeMap::new();
        for parameter in adapter.parameters().list() {
            assert_eq!(group(&parameter.name), DecayGroup::Linears);
            let part = parameter.name.rsplit('.').nth(1).unwrap();
            *rates.entry(format!("{part} {}", tuning(&recipe, parameter).rate)).or_default() += 1;
        }
        let expected = [("lora_A 1".to_owned(), 14), ("lora_B 16".to_owned(), 14)];
        assert_eq!(rates, expected.into_iter().collect());
    }
}
