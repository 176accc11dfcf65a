//! Each formula's backward against finite differences of its forward, in f64.

use moat_contracts::{Activation, Rope, RopeScaling};

use crate::kernels::{Attended, AttendedMut, Columns, Cpu, Heads, Kernels, Scores, Spans, Turn};
use crate::linear::{Linear, LinearGradient, LowRank, Weight};
use crate::random::Random;
use crate::rope;
use crate::workspace::Workspace;

fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.normal()).collect()
}

/// Compares `gradients`, which a backward made of the output's gradient `dy`, with central differences of
/// `Σ dy · forward(inputs)`.
fn check(inputs: &[Vec<f64>], dy: &[f64], gradients: &[Vec<f64>], forward: impl Fn(&[Vec<f64>]) -> Vec<f64>) {
    let sum = |inputs: &[Vec<f64>]| {
        let y = forward(inputs);
        assert_eq!(y.len(), dy.len());
        y.iter().zip(dy).map(|(y, dy)| y * dy).sum::<f64>()
    };
    let step = 1e-4;
    assert_eq!(inputs.len(), gradients.len());
    for (input, gradient) in gradients.iter().enumerate() {
        assert_eq!(gradient.len(), inputs[input].len());
        assert!(gradient.iter().any(|value| value.abs() > 1e-3), "input {input} has no gradient");
        for place in (0..gradient.len()).step_by(gradient.len().div_ceil(40)) {
            let at = |offset: f64| {
                let mut inputs = inputs.to_vec();
                inputs[input][place] += offset;
                sum(&inputs)
            };
            let slope = (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / (12.0 * step);
            let own = gradient[place];
            assert!(
                (own - slope).abs() < 1e-7 * (1.0 + slope.abs()),
                "input {input} at {place}: {own} against {slope}"
            );
        }
    }
}

#[test]
fn rms_norm() {
    let (rows, width) = (300, 6);
    let (x, weight, dy) = (random(rows * width, 1), random(width, 2), random(rows * width, 3));
    let forward = |inputs: &[Vec<f64>]| {
        let (mut y, mut scales) = (vec![0.0; rows * width], vec![0.0; rows]);
        Cpu.rms_norm(&inputs[0], &inputs[1], 1e-5, &mut y, &mut scales);
        (y, scales)
    };
    let inputs = [x, weight];
    let (mut dx, mut dweight) = (vec![0.0; rows * width], vec![0.0; width]);
    let (y, scales) = forward(&inputs);
    let mean = inputs[0][..width].iter().map(|x| x * x).sum::<f64>() / width as f64;
    assert!((y[0] - inputs[0][0] * inputs[1][0] / (mean + 1e-5).sqrt()).abs() < 1e-12);
    Cpu.rms_norm_backward(&inputs[0], &inputs[1], &scales, &dy, &mut dx, Some(&mut dweight));
    check(&inputs, &dy, &[dx, dweight], |inputs| forward(inputs).0);
}

#[test]
fn rotary_positions() {
    let spans = Spans { list: vec![(0, 5), (5, 40)] };
    let (heads, width, rows) = (3, 6, 45);
    let longrope = RopeScaling::LongRope { divisors: vec![1.5, 3.0], attention_factor: 1.25 };
    for (turned, scaling, length) in [(6, None, 1.0), (4, None, 1.0), (4, Some(longrope), 1.25)] {
        let rope = rope::table::<f64>(&Rope { theta: 10_000.0, scaling, width: turned }, 0, 40);
        let (x, dy) = (random(rows * heads * width, 1), random(rows * heads * width, 2));
        let mut dx = vec![0.0; x.len()];
        Cpu.to_rows(&dy, &spans, heads, width, Turn::Back(&rope), &mut dx);
        let forward = |inputs: &[Vec<f64>]| {
            let mut y = vec![0.0; rows * heads * width];
            Cpu.to_heads(&inputs[0], &spans, heads, width, Turn::Forth(&rope), &mut y);
            y
        };
        // Each segment starts at position 0, where nothing is turned; what lies behind the pairs never is.
        let y = forward(std::slice::from_ref(&x));
        let first = 5 * heads * width;
        for component in 0..width {
            let factor = if component < turned { length } else { 1.0 };
            assert_eq!(y[first + component], factor * x[first + component]);
        }
        let last = |values: &[f64], row: usize| values[row * width + turned..(row + 1) * width].to_vec();
        assert_eq!(last(&y, 5 * heads + 7), last(&x, (5 + 7) * heads));
        check(&[x], &dy, &[dx], forward);
    }
}

#[test]
fn gated_linear_units() {
    for activation in [Activation::Silu, Activation::GeluTanh] {
        let inputs = [random(50, 1), random(50, 2)];
        let dy = random(50, 3);
        let [mut gate, mut up] = inputs.clone();
        let mut a = dy.clone();
        Cpu.glu_backward(activation, &mut gate, &mut up, &mut a);
        let forward = |inputs: &[Vec<f64>]| {
            let mut y = vec![0.0; 50];
            Cpu.glu(activation, &inputs[0], &inputs[1], &mut y);
            y
        };
        assert_eq!(a, forward(&inputs));
        for ((a, x), up) in a.iter().zip(&inputs[0]).zip(&inputs[1]) {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            let activated = match activation {
                Activation::Silu => x / (1.0 + (-x).exp()),
                Activation::GeluTanh => 0.5 * x * (1.0 + inner.tanh()),
            };
            assert!((a - activated * up).abs() < 1e-14);
        }
        check(&inputs, &dy, &[gate, up], forward);
    }
}

#[test]
fn attention_with_grouped_keys_segments_windows_and_caps() {
    let scores = |cap, window| Scores { scale: 0.7, cap, window };
    for (query, key, list, scores) in [
        (4, 2, vec![(0, 3), (3, 9)], scores(None, usize::MAX)),
        (3, 1, vec![(0, 70), (70, 1)], scores(None, usize::MAX)),
        (2, 2, vec![(0, 10)], scores(Some(1.5), usize::MAX)),
        (2, 1, vec![(0, 70), (70, 9)], scores(None, 4)),
        (2, 1, vec![(0, 150)], scores(Some(0.9), 70)),
        (1, 1, vec![(0, 6)], scores(None, 1)),
    ] {
        let (heads, spans) = (Heads { query, key, width: 4 }, Spans { list });
        let rows: usize = spans.list.iter().map(|(_, length)| *length).sum();
        let inputs = [random(rows * query * 4, 1), random(rows * key * 4, 2), random(rows * key * 4, 3)];
        let dy = random(rows * query * 4, 4);
        let forward = |inputs: &[Vec<f64>]| {
            let (mut o, mut sums) = (vec![0.0; rows * query * 4], vec![0.0; rows * query]);
            Cpu.attention([&inputs[0], &inputs[1], &inputs[2]], &spans, heads, scores, &mut o, &mut sums);
            (o, sums)
        };
        let (o, sums) = forward(&inputs);
        // Row by row of the first segment's first head, by the formula.
        let row = |x: &[f64], row: usize| x[row * 4..(row + 1) * 4].to_vec();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for i in 0..spans.list[0].1 {
            let seen = (i + 1).saturating_sub(scores.window)..i + 1;
            let score = |j: usize| 0.7 * dot(&row(&inputs[0], i), &row(&inputs[1], j));
            let capped = |j: usize| scores.cap.map_or(score(j), |cap| cap * (score(j) / cap).tanh());
            let sum: f64 = seen.clone().map(|j| capped(j).exp()).sum();
            for component in 0..4 {
                let share = |j: usize| capped(j).exp() / sum * inputs[2][j * 4 + component];
                let expected: f64 = seen.clone().map(share).sum();
                assert!((o[i * 4 + component] - expected).abs() < 1e-12, "row {i}");
            }
        }
        if scores.window == 1 {
            // A row that sees itself alone has nothing to choose from.
            continue;
        }
        let [mut dq, mut dk, mut dv] = inputs.clone();
        let read = Attended { q: &inputs[0], k: &inputs[1], v: &inputs[2], o: &o, sums: &sums, d_o: &dy };
        let write = AttendedMut { dq: &mut dq, dk: &mut dk, dv: &mut dv };
        Cpu.attention_backward(read, &spans, heads, scores, write);
        check(&inputs, &dy, &[dq, dk, dv], |inputs| forward(inputs).0);
    }
}

#[test]
fn columns_are_cut_apart_and_joined() {
    let (rows, widths) = (70, [3, 2, 4]);
    let x = random(rows * 9, 1);
    let mut again = vec![0.0; x.len()];
    let mut first = 0;
    for count in widths {
        let mut part = vec![0.0; rows * count];
        let (whole, own) = (Columns { first, width: 9 }, Columns { first: 0, width: count });
        Cpu.copy_columns(&x, whole, count, &mut part, own);
        assert_eq!(part[69 * count], x[69 * 9 + first]);
        Cpu.copy_columns(&part, own, count, &mut again, whole);
        first += count;
    }
    assert_eq!(again, x);
}

#[test]
fn linear_with_bias() {
    let (rows, outputs, inputs) = (9, 5, 4);
    let values = [random(rows * inputs, 1), random(outputs * inputs, 2), random(outputs, 3)];
    let dy = random(rows * outputs, 4);
    let mut workspace = Workspace::new();
    fn of(values: &[Vec<f64>]) -> Linear<'_, f64> {
        Linear {
            weight: Weight::Whole(&values[1]),
            bias: Some(&values[2]),
            adapter: None,
            outputs: 5,
            inputs: 4,
        }
    }
    let [mut dx, mut dw, mut db] = values.clone().map(|values| vec![0.0; values.len()]);
    of(&values).input_gradient(&Cpu, &dy, &mut dx, false, &mut workspace);
    let gradient = LinearGradient::Whole(&mut dw, Some(&mut db));
    of(&values).weight_gradient(&Cpu, &values[0], &dy, gradient, &mut workspace);
    check(&values, &dy, &[dx, dw, db], |values| {
        let mut y = vec![0.0; rows * outputs];
        of(values).forward(&Cpu, &values[0], &mut y, false, &mut Workspace::new());
        y
    });
}

#[test]
fn linear_with_an_adapter() {
    // One row takes the thin products, many rows the merged weight.
    for rows in [1, 2, 9, 40] {
        let values = [random(rows * 6, 1), random(7 * 6, 2), random(2 * 6, 3), random(7 * 2, 4)];
        let dy = random(rows * 7, 5);
        let mut workspace = Workspace::new();
        fn of(values: &[Vec<f64>]) -> Linear<'_, f64> {
            let adapter = LowRank { a: &values[2], b: &values[3], rank: 2, scale: 1.5, magnitude: None };
            Linear {
                weight: Weight::Whole(&values[1]),
                bias: None,
                adapter: Some(adapter),
                outputs: 7,
                inputs: 6,
            }
        }
        let [mut dx, _, mut da, mut db] = values.clone().map(|values| vec![0.0; values.len()]);
        of(&values).input_gradient(&Cpu, &dy, &mut dx, false, &mut workspace);
        let gradient = LinearGradient::Adapter(&mut da, &mut db, None);
        of(&values).weight_gradient(&Cpu, &values[0], &dy, gradient, &mut workspace);
        let [x, weight, a, b] = values;
        check(&[x, a, b], &dy, &[dx, da, db], |inputs| {
            let values = [inputs[0].clone(), weight.clone(), inputs[1].clone(), inputs[2].clone()];
            let mut y = vec![0.0; rows * 7];
            of(&values).forward(&Cpu, &values[0], &mut y, false, &mut Workspace::new());
            y
        });
    }
}

/// The lengths are constants to the gradient: they are taken from where it is measured, by magnitudes that stand for them.
#[test]
fn linear_with_a_decomposed_adapter() {
    for rows in [1, 3, 40] {
        let values =
            [random(rows * 6, 1), random(7 * 6, 2), random(2 * 6, 3), random(7 * 2, 4), random(7, 6)];
        let dy = random(rows * 7, 5);
        let mut workspace = Workspace::new();
        let adapter =
            LowRank { a: &values[2], b: &values[3], rank: 2, scale: 1.5, magnitude: Some(&values[4]) };
        let (weight, bias) = (Weight::Whole(&values[1]), None);
        let linear = Linear { weight, bias, adapter: Some(adapter), outputs: 7, inputs: 6 };
        let [mut dx, _, mut da, mut db, mut dm] = values.clone().map(|values| vec![0.0; values.len()]);
        linear.input_gradient(&Cpu, &dy, &mut dx, false, &mut workspace);
        let gradient = LinearGradient::Adapter(&mut da, &mut db, Some(&mut dm));
        linear.weight_gradient(&Cpu, &values[0], &dy, gradient, &mut workspace);
        let [x, weight, a, b, m] = values;
        let sum = |a: &[f64], b: &[f64]| -> Vec<f64> {
            let of = |place: usize| {
                let (output, input) = (place / 6, place % 6);
                weight[place] + 1.5 * (b[2 * output] * a[input] + b[2 * output + 1] * a[6 + input])
            };
            (0..42).map(of).collect()
        };
        let lengths: Vec<f64> =
            sum(&a, &b).chunks(6).map(|row| row.iter().map(|v| v * v).sum::<f64>().sqrt()).collect();
        check(&[x, a, b, m], &dy, &[dx, da, db, dm], |inputs| {
            let [x, a, b, m] = inputs else { panic!() };
            let sum = sum(a, b);
            let row = |x: &[f64], output: usize| {
                let dot: f64 = x.iter().zip(&sum[6 * output..]).map(|(x, v)| x * v).sum();
                m[output] / lengths[output] * dot
            };
            x.chunks(6).flat_map(|x| (0..7).map(move |output| (x, output))).map(|(x, o)| row(x, o)).collect()
        });
    }
}

#[test]
fn cross_entropy() {
    let (rows, vocabulary) = (5, 9);
    let targets = [3, 0, 8, 3, 1];
    for cap in [None, Some(1.5)] {
        let logits = random(rows * vocabulary, 1);
        let (mut gradient, mut losses) = (logits.clone(), vec![0.0; rows]);
        Cpu.cross_entropy(&mut gradient, &targets, cap, Some(0.25), &mut losses);
        // Of logits that were capped before, it is the same.
        let mut capped = logits.clone();
        if let Some(cap) = cap {
            Cpu.soft_cap(&mut capped, cap);
            assert!(capped.iter().zip(&logits).all(|(y, z)| (y - cap * (z / cap).tanh()).abs() < 1e-12));
        }
        let mut same = vec![0.0; rows];
        Cpu.cross_entropy(&mut capped, &targets, None, None, &mut same);
        assert_eq!(losses, same);
        check(&[logits], &[0.25; 5], &[gradient], |inputs| {
            let (mut logits, mut losses) = (inputs[0].clone(), vec![0.0; rows]);
            Cpu.cross_entropy(&mut logits, &targets, cap, None, &mut losses);
            losses
        });
    }
}

#[test]
fn embedding() {
    let index = [3, 0, 3, 299, 3];
    let (table, dy) = (random(300 * 4, 1), random(5 * 4, 2));
    let mut gradient = vec![0.0; table.len()];
    Cpu.scatter_add(&dy, &index, 4, &mut gradient);
    let touched: Vec<usize> = (0..300).filter(|row| gradient[row * 4] != 0.0).collect();
    assert_eq!(touched, [0, 3, 299]);
    let forward = |inputs: &[Vec<f64>]| {
        let mut rows = vec![0.0; 20];
        Cpu.gather(&inputs[0], &index, 4, &mut rows);
        rows
    };
    check(&[table], &dy, &[gradient], forward);
}

#[test]
fn adamw_follows_its_formula() {
    let settings =
        crate::AdamW { learning_rate: 0.1, beta1: 0.9, beta2: 0.99, epsilon: 1e-3, weight_decay: 0.2 };
    let (mut theta, mut first, mut second) = (vec![1.5_f64], vec![0.0], vec![0.0]);
    let (mut expected, mut m, mut v) = (1.5, 0.0, 0.0);
    for step in 1..=5_i32 {
        let g = f64::from(step) - 2.5;
        Cpu.adamw(&mut theta, &[g], &mut first, &mut second, settings, step as u64);
        m = 0.9 * m + 0.1 * g;
        v = 0.99 * v + 0.01 * g * g;
        let (m_hat, v_hat): (f64, f64) = (m / (1.0 - 0.9_f64.powi(step)), v / (1.0 - 0.99_f64.powi(step)));
        expected -= 0.1 * 0.2 * expected;
        expected -= 0.1 * m_hat / (v_hat.sqrt() + 1e-3);
        assert!((theta[0] - expected).abs() < 1e-12, "{step}: {} against {expected}", theta[0]);
    }
}
