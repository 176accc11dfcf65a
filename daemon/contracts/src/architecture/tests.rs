use serde_json::{Value, json};

use super::{Activation, Architecture, ArchitectureError, Family, Rope, RopeScaling};

fn config(name: &str, own: &Value) -> Value {
    let mut config = json!({
        "architectures": [name], "hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 128, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 8192});
    for (key, value) in own.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    config
}

fn read(name: &str, own: &Value) -> Architecture {
    Architecture::from_config(&config(name, own).to_string()).unwrap()
}

fn refused(name: &str, own: &Value) -> String {
    let error = Architecture::from_config(&config(name, own).to_string()).unwrap_err();
    let named = matches!(error, ArchitectureError::Unsupported { .. } | ArchitectureError::Family { .. });
    assert!(named || matches!(error, ArchitectureError::Key(_)), "{error:?}");
    error.to_string()
}

#[test]
fn both_layouts_of_rope_are_read() {
    let parameters = json!({ "rope_parameters": { "rope_type": "default", "rope_theta": 1e6 } });
    let new = read("Qwen2ForCausalLM", &parameters);
    assert_eq!(new.rope, Rope { theta: 1e6, scaling: None, width: 16 });
    assert_eq!((new.qkv_bias, new.output_bias), (true, false));
    let old =
        json!({ "rope_theta": 500.0, "rope_scaling": { "type": "linear", "factor": 4.0 }, "head_dim": 32 });
    let scaling = Some(RopeScaling::Linear { factor: 4.0 });
    assert_eq!(read("LlamaForCausalLM", &old).rope, Rope { theta: 500.0, scaling, width: 32 });
}

#[test]
fn parameters_are_those_of_the_formula() {
    let tied = json!({ "tie_word_embeddings": true });
    let block = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96 + 2 * 64;
    assert_eq!(read("Qwen2ForCausalLM", &tied).parameters(), 128 * 64 + 6 * (block + 64 + 32 * 2) + 64);
    assert_eq!(read("MistralForCausalLM", &tied).parameters(), 128 * 64 + 6 * block + 64);
    // One fused linear holds as many as those it is made of, and the head is not tied by itself.
    assert_eq!(read("Phi3ForCausalLM", &Value::Null).parameters(), 2 * 128 * 64 + 6 * block + 64);
    let narrow = json!({ "head_dim": 16 });
    assert_eq!(read("Gemma2ForCausalLM", &narrow).parameters(), 128 * 64 + 6 * (block + 2 * 64) + 64);
    let normed = block + 2 * 64 + 2 * 16;
    assert_eq!(read("Gemma3ForCausalLM", &narrow).parameters(), 128 * 64 + 6 * normed + 64);
}

fn windows(architecture: &Architecture) -> Vec<usize> {
    let window = |layer| architecture.sliding(layer).map_or(0, |sliding| sliding.window);
    (0..architecture.layers).map(window).collect()
}

#[test]
fn windows_are_where_each_family_has_them() {
    assert_eq!(windows(&read("LlamaForCausalLM", &json!({ "sliding_window": 9 }))), [0; 6]);
    assert_eq!(windows(&read("MistralForCausalLM", &json!({ "sliding_window": 9 }))), [9; 6]);
    assert_eq!(windows(&read("MistralForCausalLM", &json!({ "sliding_window": null }))), [0; 6]);
    assert_eq!(windows(&read("MistralForCausalLM", &Value::Null)), [4096; 6]);
    assert_eq!(windows(&read("Phi3ForCausalLM", &Value::Null)), [0; 6]);
    assert_eq!(windows(&read("Phi3ForCausalLM", &json!({ "sliding_window": 2047 }))), [2047; 6]);
    let mut qwen = json!({ "sliding_window": 9, "max_window_layers": 4, "use_sliding_window": false });
    assert_eq!(windows(&read("Qwen2ForCausalLM", &qwen)), [0; 6]);
    qwen["use_sliding_window"] = true.into();
    assert_eq!(windows(&read("Qwen2ForCausalLM", &qwen)), [0, 0, 0, 0, 9, 9]);
    qwen["max_window_layers"] = 0.into();
    assert_eq!(windows(&read("Qwen3ForCausalLM", &qwen)), [9; 6]);
    let nine = json!({ "sliding_window": 9 });
    assert_eq!(windows(&read("Gemma2ForCausalLM", &nine)), [9, 0, 9, 0, 9, 0]);
    assert_eq!(windows(&read("Gemma3ForCausalLM", &nine)), [9, 9, 9, 9, 9, 0]);
    let mut listed = vec!["full_attention"; 6];
    listed[2] = "sliding_attention";
    let listed = json!({ "sliding_window": 9, "sliding_window_pattern": 2, "layer_types": listed });
    assert_eq!(windows(&read("Gemma3ForCausalLM", &listed)), [0, 0, 9, 0, 0, 0]);
}

#[test]
fn gemma_is_read_with_the_defaults_that_its_files_leave_out() {
    let gemma2 = read("Gemma2ForCausalLM", &json!({ "query_pre_attn_scalar": 144 }));
    assert_eq!((gemma2.family, gemma2.head_dim, gemma2.tied), (Family::Gemma2, 256, true));
    assert_eq!((gemma2.norm_offset, gemma2.embedding_scale), (1.0, 8.0));
    assert_eq!((gemma2.attention_cap, gemma2.logit_cap), (Some(50.0), Some(30.0)));
    assert_eq!((gemma2.activation, gemma2.qk_norm), (Activation::GeluTanh, false));
    assert!((gemma2.attention_scale - 1.0 / 12.0).abs() < 1e-15);
    let without = json!({ "attn_logit_softcapping": null });
    assert_eq!(read("Gemma2ForCausalLM", &without).attention_cap, None);

    let old = json!({ "rope_scaling": { "factor": 8.0, "rope_type": "linear" } });
    let new = json!({ "rope_parameters": {
        "full_attention": { "rope_type": "linear", "factor": 8.0, "rope_theta": 1e6 },
        "sliding_attention": { "rope_type": "default", "rope_theta": 1e4 } } });
    for own in [old, new] {
        let gemma3 = read("Gemma3ForCausalLM", &own);
        let scaling = Some(RopeScaling::Linear { factor: 8.0 });
        assert_eq!(gemma3.rope, Rope { theta: 1e6, scaling, width: 256 });
        assert_eq!(gemma3.sliding(0).unwrap().rope, Rope { theta: 1e4, scaling: None, width: 256 });
        assert_eq!((gemma3.attention_cap, gemma3.logit_cap, gemma3.qk_norm), (None, None, true));
    }
}

#[test]
fn phi3_turns_a_part_of_a_head_and_keeps_to_its_first_length() {
    let own = json!({
        "partial_rotary_factor": 0.75, "original_max_position_embeddings": 4096,
        "max_position_embeddings": 131_072, "rope_scaling": {
            "type": "su", "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5], "long_factor": vec![9.0; 6] } });
    let phi3 = read("Phi3ForCausalLM", &own);
    assert_eq!((phi3.max_position, phi3.rope.width), (4096, 12));
    let Some(RopeScaling::LongRope { divisors, attention_factor }) = phi3.rope.scaling else { panic!() };
    assert_eq!(divisors[5], 1.5);
    // √(1 + ln 32 / ln 4096), where 32 is what the context grew by.
    assert!((attention_factor - (1.0_f64 + 5.0 / 12.0).sqrt()).abs() < 1e-12);
    let names: Vec<_> = read("Phi3ForCausalLM", &Value::Null).linears().iter().map(|l| l.name).collect();
    assert_eq!(names, ["self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"]);
}

#[test]
fn what_would_change_the_forward_is_refused_by_its_key() {
    for (name, key, value) in [
        ("LlamaForCausalLM", "hidden_act", json!("relu")),
        ("LlamaForCausalLM", "mlp_bias", true.into()),
        ("LlamaForCausalLM", "num_key_value_heads", 3.into()),
        ("LlamaForCausalLM", "head_dim", 5.into()),
        ("LlamaForCausalLM", "partial_rotary_factor", 0.5.into()),
        ("LlamaForCausalLM", "quantization_config", json!({ "quant_method": "gptq" })),
        ("Qwen2ForCausalLM", "layer_types", json!(["linear_attention", 1, 2, 3, 4, 5])),
        ("Qwen2ForCausalLM", "layer_types", json!(["full_attention"])),
        ("Gemma2ForCausalLM", "hidden_activation", json!("gelu")),
        ("Gemma2ForCausalLM", "query_pre_attn_scalar", json!(-1)),
        ("Gemma3ForCausalLM", "use_bidirectional_attention", true.into()),
        ("Gemma3ForCausalLM", "attn_logit_softcapping", 50.0.into()),
        ("Phi3ForCausalLM", "partial_rotary_factor", 0.2.into()),
    ] {
        let error = refused(name, &json!({ key: value }));
        assert!(error.contains(key), "{error}");
    }
    let yarn = json!({ "rope_parameters": { "rope_type": "yarn", "rope_theta": 1e4 } });
    assert!(refused("Qwen2ForCausalLM", &yarn).contains("rope_type = yarn"));
    let longrope = json!({ "rope_scaling": { "rope_type": "longrope", "short_factor": vec![1.0; 8] } });
    assert!(refused("LlamaForCausalLM", &longrope).contains("rope_type = longrope"));
    assert!(refused("Phi3ForCausalLM", &longrope).contains("original_max_position_embeddings"));
    let mut mixed = vec!["sliding_attention"; 6];
    mixed[1] = "full_attention";
    let error = refused("MistralForCausalLM", &json!({ "layer_types": mixed }));
    assert!(error.contains("layer_types = full_attention"), "{error}");
    let unwindowed = json!({ "layer_types": vec!["sliding_attention"; 6], "use_sliding_window": false });
    assert!(refused("Qwen3ForCausalLM", &unwindowed).contains("sliding_window"));
}

#[test]
fn another_family_is_refused_with_what_is_missing() {
    for (name, own, missing) in [
        ("MambaForCausalLM", json!({ "state_size": 16 }), "recurrent state"),
        ("MixtralForCausalLM", json!({ "num_local_experts": 8 }), "experts"),
        ("Qwen3MoeForCausalLM", json!({ "num_experts": 128 }), "experts"),
        ("Gemma3ForConditionalGeneration", json!({ "vision_config": {}, "text_config": {} }), "vision part"),
        ("T5ForConditionalGeneration", json!({ "num_decoder_layers": 6 }), "encoder"),
        ("FalconForCausalLM", Value::Null, "how its blocks compute"),
    ] {
        let error = refused(name, &own);
        assert!(error.contains(name) && error.contains(missing), "{error}");
        assert!(error.ends_with("Gemma2ForCausalLM, Gemma3ForCausalLM, Phi3ForCausalLM"), "{error}");
    }
    assert!(Architecture::from_config("[]").unwrap_err().to_string().contains("no JSON object"));
}
