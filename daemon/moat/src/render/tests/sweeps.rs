use moat_contracts::{EdgeDifference, Interval};
use moat_protocol::control::{
    Against, Comparison, Course, JoinedSteps, KeyDifference, Reply, Run, RunState, StepPoint, SweepReport,
    SweepRun, SweepState,
};

use super::{DAY, assert_shown, run, shown};

fn point(rank: u64, state: RunState, validation: Option<f64>) -> SweepRun {
    SweepRun {
        run: format!("demo-{rank}"),
        state,
        message: (state == RunState::Failed).then(|| "it does not fit \x1b[2J".to_owned()),
        values: vec![rank.to_string()],
        validation,
        loss: validation.map(|loss| loss - 0.5),
        edge: validation.map(|_| Interval { value: 0.1, low: 0.05, high: 0.15 }),
        steps: 60,
        planned: Some(if state == RunState::Done { 60 } else { 600 }),
        peak_memory: None,
    }
}

fn sweep() -> SweepReport {
    SweepReport {
        name: "demo-sweep-1".to_owned(),
        state: SweepState::Running,
        created: DAY,
        base: "moat-starter".to_owned(),
        keys: vec!["lora.rank".to_owned()],
        validated: true,
        of: 3,
        done: 1,
        failed: 1,
        best: Some("demo-8".to_owned()),
        runs: vec![
            point(8, RunState::Done, Some(3.25)),
            point(16, RunState::Failed, None),
            point(32, RunState::Training, Some(3.5)),
        ],
    }
}

#[test]
fn a_sweep_says_what_it_is_chosen_by() {
    assert_shown(
        &Reply::Sweep(Box::new(sweep())),
        "
sweep    demo-sweep-1, running
base     moat-starter
runs     1 of 3 done, 1 failed
created  2026-11-22 00:00

run      state     lora.rank  validation loss    loss    edge  interval              steps
demo-8   done              8           3.2500  2.7500  0.1000  0.0500 to 0.1500         60
demo-16  failed           16                                                     60 of 600
demo-32  training         32    3.5000 so far  3.0000  0.1000  0.0500 to 0.1500  60 of 600
demo-16: it does not fit \\u{1b}[2J

lowest validation loss of 1 done run: demo-8; its edge was not chosen by
",
    );
    let blind = SweepReport { validated: false, best: None, ..sweep() };
    assert!(shown(&Reply::Sweep(Box::new(blind))).contains("no validation side, so nothing to choose by"));
    assert!(shown(&Reply::Sweeps(vec![sweep()])).contains("demo-sweep-1  running  1 of 3"));
    assert!(shown(&Reply::Sweeps(Vec::new())).contains("moat sweep start"));
}

#[test]
fn runs_stand_side_by_side_with_how_sure_it_is_that_they_differ() {
    let difference = |value: f64| EdgeDifference {
        records: 40,
        confidence: 0.975,
        edge: Interval { value, low: value - 0.02, high: value + 0.02 },
        saved: Interval { value: -value, low: -value - 0.02, high: -value + 0.02 },
    };
    let against = |name: &str, difference, same_base| Against {
        run: name.to_owned(),
        same_base,
        same_dataset: same_base,
        difference,
        why: Some("its edge is not measured".to_owned()),
    };
    let found = Comparison {
        runs: ["demo-1", "demo-2", "demo-3", "demo-4"]
            .map(|name| Run { name: name.to_owned(), ..run() })
            .to_vec(),
        recipe: vec![KeyDifference {
            key: "lora.rank".to_owned(),
            values: ["8", "16", "16", ""].map(ToOwned::to_owned).to_vec(),
        }],
        against: vec![
            against("demo-2", Some(difference(0.1)), true),
            against("demo-3", Some(difference(-0.01)), false),
            against("demo-4", None, true),
        ],
    };
    let page = shown(&Reply::Comparison(Box::new(found)));
    for line in [
        "demo-2 against demo-1: an edge of 0.1000 bits per byte more (97.5% interval 0.0800 to 0.1200; 40 held-back records)",
        "demo-3 against demo-1: an edge of 0.0100 bits per byte less, which may be chance",
        "40 held-back records that both have); on another base, its tuned model takes 0.0100 bits per byte fewer",
        "demo-4 against demo-1: not compared, its edge is not measured",
        "lora.rank  8       16      16",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
}

#[test]
fn a_long_runs_curve_keeps_the_extremes_of_single_steps() {
    let step = |step: u64, loss: f64| StepPoint {
        step,
        loss,
        gradient_norm: 1.0,
        learning_rate: 1e-4,
        tokens: 10,
        tokens_per_second: 5.0,
        memory: 1 << 20,
        seconds_left: 0.0,
        cores: 1.0,
    };
    let two = JoinedSteps::from(step(1, 4.0)).join(&step(2, 2.0).into());
    assert_eq!((two.steps, two.mean.step, two.mean.loss, two.low.loss, two.high.loss), (2, 2, 3.0, 2.0, 4.0));
    let three = two.join(&step(3, 9.0).into());
    assert_eq!((three.mean.loss, three.low.loss, three.high.loss), (5.0, 2.0, 9.0));
    let course =
        Course { joined: vec![two, step(3, 2.5).into()], last: Some(step(3, 2.5)), ..Course::default() };
    let page = shown(&Reply::Run(Box::new(Run { course, ..run() })));
    let row = page.lines().find(|line| line.starts_with("loss")).unwrap();
    assert!(row.contains("2.000") && row.contains("4.000"), "{row}");
    let steps = shown(&Reply::Steps(vec![step(3, 2.5)]));
    assert!(steps.contains("   3  2.5000"), "{steps}");
}
