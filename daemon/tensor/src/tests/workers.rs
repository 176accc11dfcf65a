//! A batch that several cores compute in parts.

use super::{Kind, model, tiny};
use crate::{Batch, Gradients, IGNORE, Preference, forward_backward, forward_backward_pairs, segment_losses};

/// Segments of several lengths, the parts of which are not alike.
fn many_segments() -> Batch {
    let mut batch = Batch { tokens: Vec::new(), targets: Vec::new(), segments: vec![0] };
    for length in [200, 240, 100, 17, 250, 255, 30, 256, 8, 240, 1, 90] {
        let tokens: Vec<u32> = (0..length).map(|at| (at * 7 + length) as u32 % 17).collect();
        let one = Batch::sequence(&tokens);
        batch.tokens.extend(one.tokens);
        batch.targets.extend(one.targets);
        batch.segments.push(batch.tokens.len());
    }
    batch
}

fn gradients(rank: Option<usize>, batch: &Batch, threads: usize) -> (f64, Gradients) {
    let model = model(tiny(Kind::Llama), rank, 5);
    let mut gradients = Gradients::new(&model);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let scale = 1.0 / batch.trained() as f32;
    let sum = pool.install(|| forward_backward(&model, batch, scale, false, &mut gradients)).unwrap();
    assert_eq!(sum.tokens, batch.trained());
    (sum.nats, gradients)
}

#[test]
fn parts_add_up_to_the_whole_with_the_same_bits_on_any_number_of_threads() {
    let batch = many_segments();
    for rank in [None, Some(2)] {
        let (nats, one) = gradients(rank, &batch, 1);
        for threads in [2, 3, 4, 7] {
            let (again, several) = gradients(rank, &batch, threads);
            assert_eq!(nats.to_bits(), again.to_bits());
            assert_eq!(one.named(), several.named(), "{threads} threads");
        }
        // Segment by segment, each too small to be divided.
        let mut alone = Gradients::new(&model(tiny(Kind::Llama), rank, 5));
        let mut sum = 0.0;
        for pair in batch.segments.windows(2) {
            let model = model(tiny(Kind::Llama), rank, 5);
            let segment = batch.slice(pair[0]..pair[1]);
            let scale = 1.0 / batch.trained() as f32;
            sum += forward_backward(&model, &segment, scale, false, &mut alone).unwrap().nats;
        }
        assert!((sum - nats).abs() < 1e-3 * nats);
        for (whole, parts) in alone.named().list().iter().zip(one.named().list()) {
            let largest = whole.values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            for (whole, part) in whole.values.iter().zip(&parts.values) {
                assert!((whole - part).abs() <= 1e-4 * largest, "{}", parts.name);
            }
        }
    }
}

#[test]
fn a_second_batch_finds_nothing_of_the_first() {
    let (model, batch) = (model(tiny(Kind::Llama), Some(2), 5), many_segments());
    let mut kept = Gradients::new(&model);
    let scale = 1.0 / batch.trained() as f32;
    let nothing = Batch { targets: vec![IGNORE; batch.tokens.len()], ..batch.clone() };
    forward_backward(&model, &batch, scale, false, &mut kept).unwrap();
    let before = kept.named().clone();
    forward_backward(&model, &nothing, scale, false, &mut kept).unwrap();
    assert_eq!(&before, kept.named());
}

#[test]
fn pairs_stay_together_and_give_the_same_bits_on_any_number_of_threads() {
    let (model, batch) = (model(tiny(Kind::Llama), Some(2), 5), many_segments());
    let preference = Preference { beta: 0.1, label_smoothing: 0.0 };
    let learn = |batch: &Batch, reference: &[f64], threads: usize, recompute: bool| {
        let mut gradients = Gradients::new(&model);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let sums = pool.install(|| {
            let measured = segment_losses(&model, batch, &mut gradients).unwrap();
            assert_eq!(gradients.norm(), 0.0);
            let sums =
                forward_backward_pairs(&model, batch, reference, preference, 1.0, recompute, &mut gradients)
                    .unwrap();
            // What a reference of the same weights gives: the loss at the start is ln 2 to the bit.
            assert_eq!(measured, sums);
            sums
        });
        (sums, gradients)
    };
    let reference: Vec<f64> = (0..12).map(|at| 500.0 + f64::from(at * at * 7 % 50)).collect();
    let (sums, one) = learn(&batch, &reference, 1, false);
    for (threads, recompute) in [(2, false), (3, true), (7, false)] {
        let (again, several) = learn(&batch, &reference, threads, recompute);
        assert_eq!((&sums, one.named()), (&again, several.named()), "{threads} threads");
    }
    let mut alone = Gradients::new(&model);
    for (pair, reference) in batch.segments.windows(3).step_by(2).zip(reference.chunks(2)) {
        let mut both = batch.slice(pair[0]..pair[1]);
        both.append(&batch, pair[1]..pair[2]);
        forward_backward_pairs(&model, &both, reference, preference, 1.0, false, &mut alone).unwrap();
    }
    for (whole, parts) in alone.named().list().iter().zip(one.named().list()) {
        let largest = whole.values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        for (whole, part) in whole.values.iter().zip(&parts.values) {
            assert!((whole - part).abs() <= 1e-4 * largest, "{}", parts.name);
        }
    }
    // One answer more is no pair.
    assert!(
        forward_backward_pairs(&model, &batch.slice(0..200), &[1.0], preference, 1.0, false, &mut alone)
            .is_err()
    );
}
