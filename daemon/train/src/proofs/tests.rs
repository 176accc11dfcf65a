//! Each proof on what is right, and on something that was broken for it.

use moat_contracts::{Architecture, Claim, Proof, Recipe};
use moat_tensor::{Batch, Gradients, IGNORE, Lora, Model, Preference, Weights};

use super::{
    accumulation, base_losses, changed, fingerprints, first_loss, indifference, joined, merge_of, packing,
    reached, silent, stir,
};

fn model() -> Model {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 32, "vocab_size": 64,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false});
    let architecture = Architecture::from_config(&config.to_string()).unwrap();
    let mut weights = Weights::random(architecture.clone(), 5);
    // Large enough that what one token attends to shows.
    for tensor in weights.parameters_mut().list_mut().iter_mut().filter(|tensor| tensor.shape.len() == 2) {
        tensor.values.iter_mut().for_each(|value| *value *= 12.0);
    }
    Model { weights, adapter: Some(Lora::new(&architecture, 4, 8.0, 1)) }
}

fn stirred() -> Model {
    let mut model = model();
    stir(model.adapter.as_mut().unwrap(), 1);
    model
}

fn pieces() -> Vec<Batch> {
    let tokens =
        |from: u32, length: u32| (0..length).map(|at| (from * 7 + at * at * 5) % 64).collect::<Vec<_>>();
    [(1, 20), (2, 9), (3, 14)].map(|(from, length)| Batch::sequence(&tokens(from, length))).to_vec()
}

fn assert_judged(proof: &Proof, claim: Claim, held: bool) {
    assert_eq!((proof.claim, proof.held), (claim, held), "{proof:?}");
    // What is broken stands far from the bound, and what is right as well.
    let far = if held { proof.figure <= proof.bound / 5.0 } else { proof.figure >= 5.0 * proof.bound };
    assert!(far, "{proof:?}");
}

#[test]
fn a_step_that_reaches_what_it_must_is_told_from_one_that_does_not() {
    let (mut model, recipe, batch) = (stirred(), Recipe::default(), joined(&pieces()));
    let before = (model.weights.parameters().clone(), model.trainable().clone());
    let mut gradients = Gradients::new(&model);
    let proof = reached(&mut model, &batch, None, &recipe, false, &mut gradients).unwrap();
    assert_judged(&proof, Claim::Gradients, true);
    assert_eq!((model.weights.parameters(), model.trainable()), (&before.0, &before.1));
    assert_eq!(gradients.norm(), 0.0);
    // Where B is zero, nothing reaches A.
    let mut fresh = self::model();
    let proof = reached(&mut fresh, &batch, None, &recipe, false, &mut gradients).unwrap();
    assert_judged(&proof, Claim::Gradients, false);
    assert!(proof.compared.contains("lora_A"), "{}", proof.compared);
    // A rate that moves nothing.
    let mut still = recipe;
    still.optimizer.learning_rate = 1e-30;
    let proof = reached(&mut model, &batch, None, &still, false, &mut gradients).unwrap();
    assert_judged(&proof, Claim::Gradients, false);
}

#[test]
fn one_silent_tensor_and_one_changed_bit_are_found() {
    let mut model = stirred();
    let mut gradients = model.trainable().clone();
    assert_eq!(silent(&gradients, true), [""; 0]);
    gradients.list_mut()[3].values.fill(0.0);
    assert_eq!(silent(&gradients, true), [gradients.list()[3].name.clone()]);
    let before = fingerprints(&model.weights);
    assert_eq!(changed(&model.weights, &before), [""; 0]);
    let tensor = &mut model.weights.parameters_mut().list_mut()[4];
    let name = tensor.name.clone();
    tensor.values[7] = f32::from_bits(tensor.values[7].to_bits() ^ 1);
    assert_eq!(changed(&model.weights, &before), [name]);
}

#[test]
fn a_first_loss_that_is_not_the_evaluators_is_found() {
    let (mut model, batch) = (model(), joined(&pieces()));
    let mut gradients = Gradients::new(&model);
    assert_judged(&first_loss(&mut model, &batch, false, &mut gradients).unwrap(), Claim::FirstLoss, true);
    assert!(model.adapter.is_some());
    // An A that is no number: B is zero, and yet the adapter is no longer as good as none.
    let a = &mut model.adapter.as_mut().unwrap().parameters_mut().list_mut()[0];
    a.values[0] = f32::NAN;
    assert_judged(&first_loss(&mut model, &batch, false, &mut gradients).unwrap(), Claim::FirstLoss, false);
}

#[test]
fn sequences_that_see_each_other_are_found() {
    let (model, pieces) = (stirred(), pieces());
    let whole = joined(&pieces);
    assert_judged(&packing(&model, &whole, &pieces).unwrap(), Claim::Packing, true);
    let seen = Batch { segments: vec![0, whole.tokens.len()], ..whole.clone() };
    assert_judged(&packing(&model, &seen, &pieces).unwrap(), Claim::Packing, false);
    assert_judged(&packing(&model, &whole, &pieces[1..]).unwrap(), Claim::Packing, false);
}

#[test]
fn gradients_that_do_not_add_up_are_found() {
    let (model, pieces) = (stirred(), pieces());
    let mut gradients = Gradients::new(&model);
    let whole = joined(&pieces);
    for recompute in [false, true] {
        let proof = accumulation(&model, &whole, &pieces, None, recompute, &mut gradients).unwrap();
        assert_judged(&proof, Claim::Accumulation, true);
    }
    let proof = accumulation(&model, &whole, &pieces[..2], None, false, &mut gradients).unwrap();
    assert_judged(&proof, Claim::Accumulation, false);
    let mut masked = pieces;
    masked[0].targets[..10].fill(IGNORE);
    let proof = accumulation(&model, &whole, &masked, None, false, &mut gradients).unwrap();
    assert_judged(&proof, Claim::Accumulation, false);
}

#[test]
fn a_merge_with_a_flipped_sign_is_found_and_the_weights_stay() {
    let (mut model, sample) = (stirred(), joined(&pieces()));
    let before = model.weights.parameters().clone();
    let adapter = model.adapter.clone().unwrap();
    let proof = merge_of(&mut model, &adapter, Claim::Merge, &sample).unwrap();
    assert_judged(&proof, Claim::Merge, true);
    let mut flipped = adapter.clone();
    let b = flipped
        .parameters_mut()
        .list_mut()
        .iter_mut()
        .filter(|tensor| tensor.name.ends_with("lora_B.weight"));
    b.flat_map(|tensor| &mut tensor.values).for_each(|value| *value = -*value);
    assert_judged(&merge_of(&mut model, &flipped, Claim::Merge, &sample).unwrap(), Claim::Merge, false);
    // One linear that is left out.
    let mut lacking = adapter;
    lacking.parameters_mut().list_mut()[1].values.fill(0.0);
    assert_judged(&merge_of(&mut model, &lacking, Claim::Merge, &sample).unwrap(), Claim::Merge, false);
    assert_eq!(*model.weights.parameters(), before);
    assert!(model.adapter.is_some());
}

#[test]
fn a_reference_of_other_weights_and_pairs_that_do_not_add_up_are_found() {
    let preference = Preference { beta: 0.1, label_smoothing: 0.0 };
    let tokens =
        |from: u32, length: u32| (0..length).map(|at| (from * 7 + at * at * 5) % 64).collect::<Vec<_>>();
    let pair =
        |from: u32| joined(&[Batch::sequence(&tokens(from, 20)), Batch::sequence(&tokens(from + 1, 11))]);
    let pairs = [pair(1), pair(5), pair(9)];
    let whole = joined(&pairs);
    assert_eq!(whole.segments, [0, 20, 31, 51, 62, 82, 93]);
    let mut model = model();
    let mut gradients = Gradients::new(&model);
    let reference = base_losses(&mut model, &whole, &mut gradients).unwrap();
    let proof = indifference(&model, &whole, preference, &reference, false, &mut gradients).unwrap();
    assert_eq!((proof.held, proof.figure), (true, 0.0), "{proof:?}");
    let mut stirred = stirred();
    let proof = indifference(&stirred, &whole, preference, &reference, false, &mut gradients).unwrap();
    assert_judged(&proof, Claim::Reference, false);

    let sums: Vec<_> =
        pairs.iter().map(|pair| base_losses(&mut model, pair, &mut gradients).unwrap()).collect();
    let aim = Some((preference, sums.as_slice()));
    let proof = accumulation(&stirred, &whole, &pairs, aim, false, &mut gradients).unwrap();
    assert_judged(&proof, Claim::Accumulation, true);
    let swapped: Vec<Vec<f64>> = sums.iter().map(|sums| vec![sums[1], sums[0]]).collect();
    let once = [sums[0].clone(), swapped[1].clone(), swapped[2].clone()];
    let odd = accumulation(&stirred, &whole, &pairs[..2], Some((preference, &once)), false, &mut gradients)
        .unwrap();
    assert_judged(&odd, Claim::Accumulation, false);
    let (recipe, aim) = (Recipe::default(), Some((preference, reference.as_slice())));
    let proof = reached(&mut stirred, &whole, aim, &recipe, false, &mut gradients).unwrap();
    assert_judged(&proof, Claim::Gradients, true);
}
