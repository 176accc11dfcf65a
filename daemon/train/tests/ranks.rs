//! Runs in several processes: they train what one does, end with the same bytes every time, and end together. Each process is
//! this program again, connected with the other by its standard input.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]
mod common;

use std::fs;
use std::io::{BufRead, BufReader, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Place, examples, opened, preferences, recipe, run, steps};
use moat_contracts::{
    Architecture, Digest, Keep, Method, Objective, Progress, Recipe, RunPart, Split, TrainJob, TrainOutcome,
};
use moat_train::{
    Corpus, Ended, Exchange, ExchangeError, Intake, Streams, TrainError, plan_memory, train_together,
};
use serde::{Deserialize, Serialize};

const CASE: &str = "MOAT_RANK_CASE";

/// What one process is to do.
#[derive(Clone, Serialize, Deserialize)]
struct Case {
    job: TrainJob,
    /// Steps after which it is asked to stop.
    stop: Option<u64>,
    hold: Option<Hold>,
}

/// After which step a process makes one file, and waits for another.
#[derive(Clone, Serialize, Deserialize)]
struct Hold {
    step: u64,
    held: PathBuf,
    go: PathBuf,
}

/// What one process said.
#[derive(Debug)]
struct Said {
    /// How it ended, or why not.
    ended: Result<Option<TrainOutcome>, String>,
    reports: Vec<Progress>,
}

/// What the child process does: it trains as one rank, and prints what it reports and how it ended.
#[test]
fn a_rank() {
    let Some(case) = std::env::var_os(CASE) else { return };
    let Case { job, stop: after, hold } = serde_json::from_str(case.to_str().unwrap()).unwrap();
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    let corpus = corpus(Path::new(&job.base), &job.recipe);
    let stream = UnixStream::from(stdin().as_fd().try_clone_to_owned().unwrap());
    let mut exchange = Streams::new(job.rank, job.processes, vec![stream]).unwrap();
    let stop = AtomicBool::new(after == Some(0));
    let ended = train_together(&job, &corpus, &mut exchange, &stop, &mut |report| {
        println!("report {}", serde_json::to_string(&report).unwrap());
        if let Progress::Step { step, .. } = report {
            stop.fetch_or(after.is_some_and(|after| step >= after), Ordering::Relaxed);
            if let Some(hold) = hold.as_ref().filter(|hold| hold.step == step) {
                fs::write(&hold.held, b"").unwrap();
                while !hold.go.exists() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    });
    let outcome = match ended {
        Ok(Ended::Trained(outcome)) => Some(outcome),
        Ok(Ended::Stopped) => None,
        Err(error) => return println!("failed since {error}"),
    };
    println!("ended as {}", serde_json::to_string(&outcome).unwrap());
}

/// The corpus of a recipe: texts or preferences, some of them to validate on.
fn corpus(base: &Path, recipe: &Recipe) -> Corpus {
    let pairs = recipe.train.objective == Objective::Dpo;
    let mut all = if pairs { preferences() } else { examples() };
    if recipe.split.validation > 0.0 {
        all.iter_mut().step_by(4).for_each(|example| example.split = Split::Validation);
    }
    let mut intake = Intake::for_recipe(base, recipe).unwrap();
    all.into_iter().for_each(|example| intake.add(example).unwrap());
    intake.finish().unwrap()
}

/// Starts both processes of a job.
fn start(job: &TrainJob, stop: [Option<u64>; 2], hold: Option<Hold>) -> [Child; 2] {
    let (first, second) = UnixStream::pair().unwrap();
    let start = |rank: usize, stream: UnixStream| {
        let job = TrainJob { rank, processes: 2, ..job.clone() };
        let case = Case { job, stop: stop[rank], hold: hold.clone().filter(|_| rank == 0) };
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_rank", "--nocapture"])
            .env(CASE, serde_json::to_string(&case).unwrap())
            .stdin(Stdio::from(OwnedFd::from(stream)))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    [start(0, first), start(1, second)]
}

/// What a process says until its end.
fn listen(child: &mut Child) -> Said {
    let (mut reports, mut ended) = (Vec::new(), Err("it said nothing".to_owned()));
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // The harness's own words may stand before on the line.
        let after = |word: &str| line.split_once(word).map(|(_, said)| said);
        if let Some(report) = after("report ") {
            reports.push(serde_json::from_str(report).unwrap());
        } else if let Some(outcome) = after("ended as ") {
            let outcome: Option<TrainOutcome> = serde_json::from_str(outcome).unwrap();
            ended = Ok(outcome.map(|outcome| TrainOutcome { peak_memory: 0, ..outcome }));
        } else if let Some(reason) = after("failed since ") {
            ended = Err(reason.to_owned());
        }
    }
    child.wait().unwrap();
    Said { ended, reports }
}

/// Both processes of a job to their ends.
fn both(job: &TrainJob, stop: [Option<u64>; 2]) -> [Said; 2] {
    start(job, stop, None).map(|mut child| listen(&mut child))
}

fn trained(said: [Said; 2]) -> (TrainOutcome, Vec<Progress>) {
    let [first, second] = said;
    let outcome = first.ended.unwrap().unwrap();
    assert_eq!(second.ended.unwrap().unwrap(), outcome);
    assert!(second.reports.is_empty(), "the first tells");
    (outcome, first.reports)
}

fn weights(job: &TrainJob) -> Vec<u8> {
    match job.recipe.train.method {
        Method::Lora => opened(job, RunPart::Adapter, "adapter_model.safetensors"),
        Method::Full => opened(job, RunPart::Model, "model.safetensors"),
    }
}

/// The numbers of a safetensors file of 32-bit floats.
fn numbers(file: &[u8]) -> Vec<f64> {
    let (length, rest) = file.split_first_chunk::<8>().unwrap();
    let data = &rest[u64::from_le_bytes(*length) as usize..];
    data.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
}

/// How far apart two files of weights are, as a share of how far they are from where they began.
fn apart(one: &[u8], other: &[u8], start: &[u8]) -> f64 {
    let distance = |a: &[u8], b: &[u8]| {
        let squares = numbers(a).into_iter().zip(numbers(b)).map(|(a, b)| (a - b).powi(2));
        squares.sum::<f64>().sqrt()
    };
    distance(one, other) / distance(one, start)
}

/// Adapters on texts with a validation side that chooses, full weights on texts, and adapters on preferences.
fn recipes() -> [(&'static str, Recipe); 3] {
    let mut lora = recipe(Method::Lora);
    lora.split.validation = 0.3;
    (lora.validation.every, lora.validation.keep, lora.validation.keep_best) = (2, Keep::Best, 2);
    let mut full = recipe(Method::Full);
    full.optimizer.learning_rate = 1e-3;
    let mut pairs = recipe(Method::Lora);
    pairs.train.objective = Objective::Dpo;
    (pairs.train.sequence_length, pairs.train.micro_batch) = (64, 1);
    pairs.split.validation = 0.3;
    pairs.validation.every = 2;
    [("lora", lora), ("full", full), ("pairs", pairs)]
}

#[test]
fn two_processes_train_what_one_does_with_the_doubled_batch() {
    for (name, recipe) in recipes() {
        assert_eq!(recipe.faults(), []);
        let place = Place::new();
        let corpus = corpus(&place.path("base"), &recipe);
        let two = place.job("two", &recipe);
        let (outcome, reports) = trained(both(&two, [None; 2]));
        assert_eq!(outcome.weights, Digest::of(&weights(&two)));
        assert!(outcome.last_loss < outcome.first_loss && outcome.steps >= 4, "{outcome:?}");

        // The same two micro-batches one after the other, and both as one.
        let mut doubled = recipe.clone();
        (doubled.train.micro_batch, doubled.train.accumulate) = (2 * recipe.train.micro_batch, 1);
        for (run_name, recipe) in [("one", &recipe), ("doubled", &doubled)] {
            let one = place.job(run_name, recipe);
            let (ended, own) = run(&one, &corpus, None);
            let Ended::Trained(own_outcome) = ended.unwrap() else { panic!() };
            assert_eq!((own_outcome.steps, own_outcome.tokens), (outcome.steps, outcome.tokens));
            let mut start = recipe.clone();
            (start.optimizer.learning_rate, start.train.max_steps) = (1e-6, 1);
            let start = place.job(&format!("{run_name}-start"), &start);
            run(&start, &corpus, None).0.unwrap();
            let apart = apart(&weights(&one), &weights(&two), &weights(&start));
            println!("{name}, {run_name}: the weights are {apart:.1e} apart");
            assert!(apart < 1e-5, "{name}, {run_name}: {apart:e}");
            for (own, (_, loss, ..)) in steps(&own).into_iter().zip(steps(&reports)) {
                let (own, loss) = (f64::from_bits(own.1), f64::from_bits(loss));
                assert!((own - loss).abs() < 1e-4 * own, "{name}, {run_name}: {own} and {loss}");
            }
            match (own_outcome.validation, outcome.validation) {
                (Some(own), Some(found)) => {
                    assert!((own.kept - found.kept).abs() < 1e-4 * own.kept, "{own:?} and {found:?}");
                }
                (own, found) => assert_eq!(own, found),
            }
        }
    }
}

#[test]
fn two_processes_that_are_stopped_end_with_the_same_bytes() {
    for (name, recipe) in recipes() {
        let place = Place::new();
        let whole = place.job("whole", &recipe);
        let (outcome, reports) = trained(both(&whole, [None; 2]));
        // Whichever is asked, at the start or later, both end after the same step.
        for (cut, stop) in [[Some(2), None], [Some(3), None], [None, Some(0)]].into_iter().enumerate() {
            let job = place.sealed(&format!("cut{cut}"), &recipe);
            for said in both(&job, stop) {
                assert_eq!(said.ended, Ok(None), "{name} {stop:?}");
            }
            let (again, told) = trained(both(&job, [None; 2]));
            assert_eq!(again, outcome, "{name} {stop:?}");
            assert_eq!(steps(&told), steps(&reports), "{name} {stop:?}");
            assert_eq!(weights(&job), weights(&whole), "{name} {stop:?}");
        }
    }
}

#[test]
fn a_killed_process_ends_the_other_and_the_run_goes_on_from_its_checkpoint() {
    let (_, recipe) = recipes().into_iter().next().unwrap();
    let place = Place::new();
    let whole = place.job("whole", &recipe);
    let (outcome, reports) = trained(both(&whole, [None; 2]));
    for killed in [0, 1] {
        let job = place.job(&format!("killed{killed}"), &recipe);
        let [held, go] = ["held", "go"].map(|name| place.path(&format!("{name}{killed}")));
        let mut children = start(&job, [None; 2], Some(Hold { step: 4, held: held.clone(), go: go.clone() }));
        while !held.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        children[killed].kill().unwrap();
        children[killed].wait().unwrap();
        fs::write(&go, b"").unwrap();
        let said = listen(&mut children[1 - killed]);
        let reason = said.ended.unwrap_err();
        assert!(
            reason.starts_with(&format!("rank {killed} of the run ended before it was done")),
            "{reason}"
        );
        let checkpoints = fs::read_dir(place.path(&job.run).join("checkpoint")).unwrap();
        assert!(checkpoints.into_iter().any(|entry| entry.unwrap().file_name() == "3"));

        let (again, told) = trained(both(&job, [None; 2]));
        assert_eq!((again, steps(&told)), (outcome.clone(), steps(&reports)));
        assert_eq!(weights(&job), weights(&whole));
    }
}

/// What is exchanged, but for one bit that another rank hears of one gradient.
#[derive(Debug)]
struct Faulty {
    streams: Streams,
    sums: usize,
}

impl Exchange for Faulty {
    fn rank(&self) -> usize {
        self.streams.rank()
    }

    fn ranks(&self) -> usize {
        self.streams.ranks()
    }

    fn sum(&mut self, numbers: &mut [f32]) -> Result<(), ExchangeError> {
        self.streams.sum(numbers)?;
        self.sums += 1;
        if self.sums == 10 && self.rank() == 2 {
            numbers[0] = f32::from_bits(numbers[0].to_bits() ^ 0x0040_0000);
        }
        Ok(())
    }

    fn sum_double(&mut self, numbers: &mut [f64]) -> Result<(), ExchangeError> {
        self.streams.sum_double(numbers)
    }
}

/// Three ranks in this process, each with what `wrap` makes of its connections.
fn three<E: Exchange + Send>(
    job: &TrainJob,
    corpora: [&Corpus; 3],
    wrap: fn(Streams) -> E,
) -> [Result<Ended, TrainError>; 3] {
    let pairs = [UnixStream::pair().unwrap(), UnixStream::pair().unwrap()];
    let [(first, second), (one, other)] = pairs;
    let streams = [vec![first, one], vec![second], vec![other]];
    let ended = std::thread::scope(|scope| {
        let started: Vec<_> = streams
            .into_iter()
            .enumerate()
            .map(|(rank, streams)| {
                scope.spawn(move || {
                    let mut exchange = wrap(Streams::new(rank, 3, streams).unwrap());
                    train_together(job, corpora[rank], &mut exchange, &AtomicBool::new(false), &mut |_| ())
                })
            })
            .collect();
        started.into_iter().map(|rank| rank.join().unwrap()).collect::<Vec<_>>()
    });
    ended.try_into().unwrap()
}

#[test]
fn ranks_that_do_not_train_the_same_are_refused_before_anything_is_written() {
    let place = Place::new();
    let mut recipe = recipe(Method::Lora);
    recipe.train.accumulate = 3;
    let all = corpus(&place.path("base"), &recipe);
    let less = place.corpus(Method::Lora, &examples()[1..]).unwrap();
    let whole = |streams| streams;
    let faulty = |streams| Faulty { streams, sums: 0 };

    let job = place.job("whole", &recipe);
    let [first, second, third] = three(&job, [&all; 3], whole).map(|ended| match ended.unwrap() {
        Ended::Trained(outcome) => outcome.weights,
        Ended::Stopped => panic!("the run was stopped"),
    });
    assert!(first == second && second == third);

    let job = place.job("faulty", &recipe);
    for ended in three(&job, [&all; 3], faulty) {
        assert!(matches!(ended, Err(TrainError::Apart { rank: 2, step: 3 })), "{ended:?}");
    }
    assert!(!place.path("faulty/checkpoint").exists());

    let job = place.job("less", &recipe);
    for ended in three(&job, [&all, &less, &all], whole) {
        assert!(matches!(ended, Err(TrainError::Apart { rank: 1, step: 0 })), "{ended:?}");
    }
}

#[test]
fn more_processes_than_micro_batches_are_refused_and_all_count_for_the_memory() {
    let place = Place::new();
    let recipe = recipe(Method::Lora);
    let corpus = corpus(&place.path("base"), &recipe);
    let job = place.job("few", &recipe);
    for ended in three(&job, [&corpus; 3], |streams| streams) {
        let said = ended.unwrap_err().to_string();
        assert!(
            said.contains("2 micro-batches for 3 processes") && said.contains("training.processes"),
            "{said}"
        );
    }
    let config = fs::read_to_string(place.path("base/config.json")).unwrap();
    let architecture = Architecture::from_config(&config).unwrap();
    let plan = |processes| plan_memory(&architecture, &corpus, &recipe, (processes, 1), 1 << 40).unwrap();
    assert_eq!(plan(2).total(), 2 * plan(1).total());
    let half = plan_memory(&architecture, &corpus, &recipe, (2, 1), plan(1).total()).unwrap_err();
    assert!(half.to_string().contains("lower training.processes"), "{half}");
}
