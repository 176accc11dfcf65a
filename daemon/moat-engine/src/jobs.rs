use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

use moat_contracts::{AskJob, EvaluateJob, Example, ExportJob, Progress, TrainJob};
use moat_evaluate::Measured;
use moat_protocol::engine::{FromEngine, ToEngine};
use moat_train::{Corpus, Ended, ExchangeError, Intake, Streams, TrainError};

use crate::boundary::Boundary;
use crate::link::Link;

/// Examples between two reports of their reading.
const REPORT_EVERY: u64 = 1000;

/// Does the job, and returns what is to be said last. `peers` are the other engines of its run; `memory` is what the machine
/// allows.
pub(crate) fn run(
    link: &mut Link,
    job: ToEngine,
    peers: Vec<UnixStream>,
    boundary: &Boundary,
    (threads, memory): (usize, u64),
) -> FromEngine {
    preparing(link, format!("protection: {}", boundary.words()));
    let _canary = match moat_firewall::canary::watch(boundary.ways(), boundary.canary(), link.canary()) {
        Ok(watch) => watch,
        Err(error) => return failed(format!("the canary cannot be started: {error}")),
    };
    let asked = match &job {
        ToEngine::Train(job) | ToEngine::Preview(job) => job.threads,
        ToEngine::Evaluate(job) => job.threads,
        _ => 0,
    };
    let threads = if asked == 0 { threads } else { asked };
    if let Err(error) = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() {
        return failed(format!("worker threads cannot be started: {error}"));
    }
    match job {
        ToEngine::Train(job) => train(link, &with_memory(job, memory), peers),
        ToEngine::Preview(job) => preview(link, &with_memory(job, memory)),
        ToEngine::Evaluate(job) => evaluate(link, &job),
        ToEngine::Export(job) => export(&job),
        ToEngine::Ask(job) => ask(link, &job),
        ToEngine::Stop => FromEngine::Stopped,
        ToEngine::Example(_) | ToEngine::End => {
            failed("a job was expected first: moatd and moat-engine are of different releases")
        }
    }
}

/// A job within what the machine allows as well.
fn with_memory(mut job: TrainJob, allowed: u64) -> TrainJob {
    job.memory = match (job.memory, allowed) {
        (asked, 0) => asked,
        (0, allowed) => allowed,
        (asked, allowed) => asked.min(allowed),
    };
    job
}

/// The examples that follow a job as tokens; or else its last word.
fn corpus(link: &mut Link, job: &TrainJob) -> Result<Corpus, Box<FromEngine>> {
    let mut intake = Intake::for_recipe(job.base.as_ref(), &job.recipe).map_err(failed)?;
    match examples(link, |example| intake.add(example)) {
        Ok(true) => {}
        Ok(false) => return Err(Box::new(FromEngine::Stopped)),
        Err(error) => return Err(Box::new(failed(error))),
    }
    let corpus = intake.finish().map_err(failed)?;
    preparing(link, format!("packing {} tokens of {} examples", corpus.size(), corpus.examples()));
    Ok(corpus)
}

fn preview(link: &mut Link, job: &TrainJob) -> FromEngine {
    let previewed = match corpus(link, job) {
        Ok(corpus) => moat_train::preview(job, &corpus),
        Err(last) => return *last,
    };
    match previewed {
        Ok(preview) => FromEngine::Previewed(Box::new(preview)),
        Err(error) => failed(error),
    }
}

fn train(link: &mut Link, job: &TrainJob, peers: Vec<UnixStream>) -> FromEngine {
    // Dropped with the job's end, which the others see by it.
    let mut exchange = match Streams::new(job.rank, job.processes, peers) {
        Ok(exchange) => exchange,
        Err(error) => return failed(error),
    };
    let corpus = match corpus(link, job) {
        Ok(corpus) => corpus,
        Err(last) => return *last,
    };
    let stop = link.stop();
    let tell = &mut |progress| link.send(&FromEngine::Progress(progress));
    match moat_train::train_together(job, &corpus, &mut exchange, &stop, tell) {
        Ok(Ended::Trained(outcome)) => FromEngine::Trained(outcome),
        Ok(Ended::Stopped) => FromEngine::Stopped,
        Err(TrainError::Exchange(ExchangeError::Ended { rank, .. })) => FromEngine::Left { rank },
        Err(error) => failed(error),
    }
}

fn evaluate(link: &mut Link, job: &EvaluateJob) -> FromEngine {
    let mut held_out = Vec::new();
    let complete = examples(link, |example| {
        held_out.push(example);
        Ok(())
    });
    match complete {
        Ok(true) => {}
        Ok(false) => return FromEngine::Stopped,
        Err(error) => return failed(error),
    }
    preparing(link, format!("loading base and tuned model for {} records", held_out.len()));
    let stop = link.stop();
    let measured = moat_evaluate::examine(job, &held_out, &mut |loss, done, of| {
        link.send(&FromEngine::Progress(Progress::Examined { loss, done, of }));
        if stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match measured {
        Ok(Some(Measured { held_out, forgetting })) => FromEngine::Evaluated { held_out, forgetting },
        Ok(None) => FromEngine::Stopped,
        Err(error) => failed(error),
    }
}

fn export(job: &ExportJob) -> FromEngine {
    match moat_train::merge(job) {
        Ok(()) => FromEngine::Exported,
        Err(error) => failed(error),
    }
}

/// A stop ends the answers where they are.
fn ask(link: &mut Link, job: &AskJob) -> FromEngine {
    let stop = link.stop();
    let answered = moat_serve::answer(job, &mut |model, text| {
        link.send(&FromEngine::Piece { model: model.to_owned(), text: text.to_owned() });
        if stop.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match answered {
        Ok(_) if stop.load(Ordering::SeqCst) => FromEngine::Stopped,
        Ok(completions) => FromEngine::Answered(completions),
        Err(error) => failed(error),
    }
}

/// Hands every example over as it arrives; false if a stop came before they were complete.
fn examples(
    link: &mut Link,
    mut take: impl FnMut(Example) -> Result<(), TrainError>,
) -> Result<bool, String> {
    let mut taken = 0;
    loop {
        match link.receive() {
            ToEngine::Example(example) => take(example).map_err(|error| error.to_string())?,
            ToEngine::End => return Ok(true),
            ToEngine::Stop => return Ok(false),
            _ => return Err("a second job came: one engine does one".to_owned()),
        }
        taken += 1;
        if taken % REPORT_EVERY == 0 {
            preparing(link, format!("{taken} examples read"));
        }
    }
}

fn preparing(link: &mut Link, doing: String) {
    link.send(&FromEngine::Progress(Progress::Preparing { doing }));
}

fn failed(reason: impl ToString) -> FromEngine {
    FromEngine::Failed { reason: reason.to_string() }
}
