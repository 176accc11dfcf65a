use std::path::PathBuf;
use std::sync::Arc;

use moat_catalog::{Batch, Catalog, JoinedRow, RunRow, StepRow, ValidationRow};
use moat_contracts::{
    Dataset, DocumentLoss, EdgeReport, EvaluateJob, MemoryPlan, Method, Progress, Proof, Recipe, RunKey,
    Split, Survey, TrainJob, TrainOutcome,
};
use moat_ledger::{Act, Phase, Who};
use moat_models::ImportedBase;
use moat_protocol::control::{Course, JoinedSteps, Run, RunState, StepPoint, Update, ValidationPoint};
use moat_protocol::engine::{FromEngine, ToEngine};
use tracing::{info, warn};

use crate::daemon::{Daemon, now};
use crate::engine::{Engine, EngineError, Work};
use crate::examples;
use crate::failure::Failure;
use crate::lineage;
use crate::record;
use crate::team::Team;

/// How a stage of a run ended, where it did not fail.
enum Ended<T> {
    Done(T),
    /// Asked to stop, by a person or by the daemon's own end.
    Stopped,
}

/// Runs what is queued, one run at a time, in the order of asking, until the daemon ends. A run that a kill cut off
/// goes on where its last checkpoint left it.
pub(crate) async fn run_all(daemon: Arc<Daemon>) {
    while !daemon.is_ending() {
        let rung = daemon.runs.notified();
        if daemon.rests() {
            rung.await;
            continue;
        }
        match next(&daemon) {
            Ok(Some(run)) => work(&daemon, run).await,
            Ok(None) => rung.await,
            Err(failure) => {
                warn!("runs cannot be read: {}", failure.message);
                tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            }
        }
    }
}

/// The run to work on: one that was cut off, or else the first that waits; those of sweeps let the others go before. One
/// that waited waits no more, so that whoever stops it meanwhile knows that it is in hand.
fn next(daemon: &Daemon) -> Result<Option<RunRow>, Failure> {
    let catalog = daemon.state.catalog()?;
    loop {
        let swept = catalog.swept()?;
        let waits = |run: &RunRow| state(run) == RunState::Queued;
        let active = catalog.runs()?.into_iter().filter(|run| is_active(state(run)));
        let first = active.min_by_key(|run| (waits(run), swept.contains(&run.name), run.number));
        let Some(mut run) = first else { return Ok(None) };
        if !waits(&run) {
            return Ok(Some(run));
        }
        let batch = catalog.write()?;
        if batch.run(&run.name)?.is_some_and(|now| waits(&now)) {
            let begun = if run.dataset.is_some() { RunState::Training } else { RunState::Building };
            begun.word().clone_into(&mut run.state);
            batch.put_run(&run)?;
            batch.commit()?;
            return Ok(Some(run));
        }
    }
}

/// Stops those of some runs that wait, in one step; true where any did.
pub(crate) fn stop_waiting(daemon: &Daemon, names: &[String]) -> Result<bool, Failure> {
    let catalog = daemon.state.catalog()?;
    let batch = catalog.write()?;
    let mut stopped = Vec::new();
    for name in names {
        if let Some(mut run) = batch.run(name)?.filter(|run| state(run) == RunState::Queued) {
            RunState::Stopped.word().clone_into(&mut run.state);
            run.message = Some(stopped_on_request(name));
            batch.put_run(&run)?;
            stopped.push(run.name);
        }
    }
    batch.commit()?;
    let any = !stopped.is_empty();
    for run in stopped {
        info!("run {run} is stopped");
        daemon.update(Update::RunState { run, state: RunState::Stopped });
    }
    Ok(any)
}

fn stopped_on_request(run: &str) -> String {
    format!("stopped on request: `moat run resume {run}` goes on")
}

/// True while a run waits or goes on.
pub(crate) fn is_active(state: RunState) -> bool {
    !matches!(state, RunState::Done | RunState::Stopped | RunState::Failed)
}

/// Takes a recipe's run into the queue.
pub(crate) fn queue(daemon: &Daemon, recipe: Recipe) -> Result<RunRow, Failure> {
    check(&recipe)?;
    base(daemon, &recipe)?;
    let catalog = daemon.state.catalog()?;
    lineage::start(&catalog, &recipe)?;
    let batch = catalog.write()?;
    let run = put_new(&batch, recipe)?;
    batch.commit()?;
    daemon.runs.notify_waiters();
    Ok(run)
}

/// Writes a new run that waits, with the key of its folder.
pub(crate) fn put_new(batch: &Batch<'_>, recipe: Recipe) -> Result<RunRow, Failure> {
    let number = batch.last_run()? + 1;
    let run = RunRow {
        name: format!("{}-{number}", recipe.name),
        number,
        state: RunState::Queued.word().to_owned(),
        message: None,
        recipe,
        dataset: None,
        base: None,
        created: now(),
        outcome: None,
        edge: None,
        planned: None,
    };
    batch.put_run(&run)?;
    batch.new_run_key(&run.name)?;
    Ok(run)
}

/// Puts a stopped or failed run into the queue again.
pub(crate) fn requeue(daemon: &Daemon, mut run: RunRow) -> Result<RunRow, Failure> {
    if !matches!(state(&run), RunState::Stopped | RunState::Failed) {
        return Err(Failure::request(format!(
            "run {} is {}: only a stopped or failed run goes on",
            run.name, run.state
        )));
    }
    daemon.take_stop(&run.name);
    save(daemon, &mut run, RunState::Queued, None)?;
    daemon.runs.notify_waiters();
    Ok(run)
}

/// Refuses a recipe whose values make no sense, with every fault.
pub(crate) fn check(recipe: &Recipe) -> Result<(), Failure> {
    let faults: Vec<_> =
        recipe.faults().into_iter().map(|fault| format!("{} {}", fault.key, fault.message)).collect();
    let named = recipe.name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
    match (faults.is_empty(), named && !recipe.name.starts_with('.')) {
        (true, true) => Ok(()),
        (true, false) => {
            Err(Failure::request("the recipe's name may hold letters, digits, `-`, `_` and `.` only"))
        }
        (false, _) => Err(Failure::request(format!("the recipe is faulty: {}", faults.join("; ")))),
    }
}

/// The base that a recipe names.
pub(crate) fn base(daemon: &Daemon, recipe: &Recipe) -> Result<ImportedBase, Failure> {
    let found = moat_models::find(&daemon.state.bases(), &recipe.base).map_err(Failure::internal)?;
    found.ok_or_else(|| {
        Failure::request(format!(
            "base `{}` is not imported: `moat base import DIR --name {0}` takes it in, `moat base list` shows the others",
            recipe.base
        ))
    })
}

/// Where a run stands.
pub(crate) fn state(run: &RunRow) -> RunState {
    let all = [RunState::Queued, RunState::Building, RunState::Training, RunState::Evaluating];
    let ended = [RunState::Done, RunState::Stopped];
    all.into_iter().chain(ended).find(|state| state.word() == run.state).unwrap_or(RunState::Failed)
}

/// Folder of a run's adapter, or of its model.
pub(crate) fn weights(daemon: &Daemon, run: &RunRow) -> PathBuf {
    daemon.state.run(&run.name).join(match run.recipe.train.method {
        Method::Lora => "adapter",
        Method::Full => "model",
    })
}

/// The key under which a run's files are sealed.
pub(crate) fn key(daemon: &Daemon, run: &RunRow) -> Result<RunKey, Failure> {
    let key = daemon.state.catalog()?.run_key(&run.name)?;
    let key = key.ok_or_else(|| Failure::request(format!("the weights of run {} were erased", run.name)))?;
    Ok(RunKey::from_bytes(key.expose()))
}

/// A run as `moat` shows it.
pub(crate) fn shown(daemon: &Daemon, run: RunRow) -> Result<Run, Failure> {
    shown_by(daemon, &daemon.state.catalog()?, run)
}

/// As [`shown`], by a catalog that is open already.
pub(crate) fn shown_by(daemon: &Daemon, catalog: &Catalog, run: RunRow) -> Result<Run, Failure> {
    let damaged =
        |what: &str| Failure::internal(format!("the {what} of run {} is damaged in the catalog", run.name));
    let parse_outcome =
        |json: &String| serde_json::from_str::<TrainOutcome>(json).map_err(|_| damaged("outcome"));
    let outcome = run.outcome.as_ref().map(parse_outcome).transpose()?;
    let edge = edge(&run)?;
    let steps = catalog.last_step(&run.name)?.unwrap_or(0);
    Ok(Run {
        sweep: catalog.sweep_of(&run.name)?,
        state: state(&run),
        weights: outcome.is_some().then(|| weights(daemon, &run).display().to_string()),
        steps,
        planned: run.planned,
        course: Course::default(),
        recipe_hash: run.recipe.hash(),
        name: run.name,
        message: run.message,
        recipe: run.recipe,
        dataset: run.dataset,
        base: run.base,
        created: run.created,
        outcome,
        edge,
    })
}

/// Steps up to which a run's course tells each.
const WHOLE: u64 = 1000;

/// Points at most that tell of the steps of a longer run.
const JOINED: u64 = 500;

/// A step as `moat` shows it.
pub(crate) fn step(row: StepRow) -> StepPoint {
    let StepRow { step, loss, gradient_norm, learning_rate, tokens, .. } = row;
    let StepRow { tokens_per_second, memory, seconds_left, cores, .. } = row;
    StepPoint {
        step,
        loss,
        gradient_norm,
        learning_rate,
        tokens,
        tokens_per_second,
        memory,
        seconds_left,
        cores,
    }
}

/// What was measured while a run trained, for [`Run::course`].
pub(crate) fn course(daemon: &Daemon, run: &str) -> Result<Course, Failure> {
    let catalog = daemon.state.catalog()?;
    let done = catalog.last_step(run)?.unwrap_or(0);
    let (mut steps, mut joined) = (Vec::new(), Vec::new());
    if done <= WHOLE {
        steps = catalog.steps(run)?.into_iter().map(step).collect();
    } else {
        let join = |row: JoinedRow| {
            let JoinedRow { steps, mean, low, high } = row;
            JoinedSteps { steps, mean: step(mean), low: step(low), high: step(high) }
        };
        joined = catalog.joined_steps(run, done.div_ceil(JOINED))?.into_iter().map(join).collect();
    }
    let last = catalog.steps_after(run, done.saturating_sub(1), 1)?.pop().map(step);
    let validation = |ValidationRow { step, loss, gain }| ValidationPoint { step, loss, gain };
    let (survey, memory) = catalog.survey(run)?.unzip();
    Ok(Course {
        survey,
        memory,
        proofs: catalog.proofs(run)?,
        steps,
        joined,
        last,
        validations: catalog.validations(run)?.into_iter().map(validation).collect(),
    })
}

/// What a run's edge was measured to be.
pub(crate) fn edge(run: &RunRow) -> Result<Option<EdgeReport>, Failure> {
    let damaged = |_| Failure::internal(format!("the edge of run {} is damaged in the catalog", run.name));
    run.edge.as_ref().map(|json| serde_json::from_str(json).map_err(damaged)).transpose()
}

fn save(daemon: &Daemon, run: &mut RunRow, state: RunState, message: Option<String>) -> Result<(), Failure> {
    run.state = state.word().to_owned();
    run.message = message;
    let catalog = daemon.state.catalog()?;
    let batch = catalog.write()?;
    batch.put_run(run)?;
    batch.commit()?;
    info!("run {} is {}", run.name, run.state);
    daemon.update(Update::RunState { run: run.name.clone(), state });
    Ok(())
}

async fn work(daemon: &Arc<Daemon>, mut run: RunRow) {
    let (state, message) = match stages(daemon, &mut run).await {
        Ok(Ended::Done(())) => (RunState::Done, None),
        // Left as it stands, so that it goes on when the daemon starts again.
        Ok(Ended::Stopped) if daemon.is_ending() => return,
        // As it stands too: it goes on when the vault is opened again.
        Err(_) if daemon.safe().is_sealed() => return,
        Ok(Ended::Stopped) => (RunState::Stopped, Some(stopped_on_request(&run.name))),
        Err(failure) => {
            warn!("run {} failed: {}", run.name, failure.message);
            (RunState::Failed, Some(failure.message))
        }
    };
    if let Err(failure) = save(daemon, &mut run, state, message) {
        warn!("the end of run {} cannot be written: {}", run.name, failure.message);
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    }
}

async fn stages(daemon: &Arc<Daemon>, run: &mut RunRow) -> Result<Ended<()>, Failure> {
    let base = base(daemon, &run.recipe)?;
    if run.base.is_some_and(|known| known != base.hash) {
        return Err(Failure::request(format!(
            "base `{}` is not the one that this run began with",
            base.name
        )));
    }
    run.base = Some(base.hash);
    let dataset = dataset(daemon, run, &base).await?;
    run.dataset = Some(dataset.id);
    // Said before hours are spent, not after.
    let unseen = lineage::unseen(&daemon.state.catalog()?, run, dataset.clone())?;
    if run.outcome.is_none() {
        save(daemon, run, RunState::Training, None)?;
        let act = on_run("run.train", run, dataset.id);
        let intent = daemon.ledger.append(&act)?;
        let apart = lineage::apart(&daemon.state.catalog()?, run, dataset.clone())?;
        let result = train(daemon, run, &base, apart).await;
        let told = match &result {
            Ok(Ended::Done(outcome)) => act.detail("weights", outcome.weights),
            _ => act,
        };
        record::ended(&daemon.ledger, &told, intent, &result);
        match result? {
            Ended::Done(outcome) => {
                run.outcome = Some(serde_json::to_string(&outcome).map_err(Failure::internal)?)
            }
            Ended::Stopped => return Ok(Ended::Stopped),
        }
    }
    save(daemon, run, RunState::Evaluating, None)?;
    discard_checkpoints(daemon, run);
    let act = on_run("run.evaluate", run, dataset.id);
    let intent = daemon.ledger.append(&act)?;
    let result = evaluate(daemon, run, &base, unseen).await;
    record::ended(&daemon.ledger, &act, intent, &result);
    match result? {
        Ended::Done((held_out, forgetting)) => {
            let recipe = &run.recipe;
            let report = moat_edge::report(dataset.id, &held_out, &forgetting, &recipe.evaluate, recipe.seed);
            let report = report.map_err(Failure::internal)?;
            let catalog = daemon.state.catalog()?;
            let batch = catalog.write()?;
            batch.put_losses(&run.name, &held_out)?;
            batch.commit()?;
            run.edge = Some(serde_json::to_string(&report).map_err(Failure::internal)?);
            Ok(Ended::Done(()))
        }
        Ended::Stopped => Ok(Ended::Stopped),
    }
}

/// What the daemon does with a run, for the ledger.
fn on_run(act: &str, run: &RunRow, dataset: moat_contracts::DatasetId) -> Act {
    let act = Act::new(Who::daemon(), act, Phase::Intent).on("run", &run.name).on("dataset", dataset);
    let start = Some(run.recipe.train.start_from.as_str()).filter(|start| !start.is_empty());
    let act = start.into_iter().fold(act, |act, start| act.on("start", start));
    act.on("recipe", run.recipe.hash()).on("base", run.base.map_or_else(String::new, |base| base.to_string()))
}

/// Removes the checkpoints of a run whose training is done and written down.
fn discard_checkpoints(daemon: &Daemon, run: &RunRow) {
    let folder = daemon.state.run(&run.name).join("checkpoint");
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            warn!("{} is no longer needed and cannot be removed: {error}", folder.display());
        }
        _ => {}
    }
}

/// The run's dataset: the one that it began with, or a new one from the records of now.
async fn dataset(daemon: &Arc<Daemon>, run: &mut RunRow, base: &ImportedBase) -> Result<Dataset, Failure> {
    if let Some(id) = run.dataset {
        let found = daemon.state.catalog()?.dataset(id)?;
        return found
            .ok_or_else(|| Failure::internal(format!("dataset {id} of run {} is missing", run.name)));
    }
    save(daemon, run, RunState::Building, None)?;
    // The runs of a sweep learn the same, whatever the sources become meanwhile.
    if let Some((id, began)) = daemon.state.catalog()?.sweep_began_with(&run.name)? {
        if began != Some(base.hash) {
            let reason = format!("base `{}` is not the one that this run's sweep began with", base.name);
            return Err(Failure::request(reason));
        }
        let found = daemon.state.catalog()?.dataset(id)?;
        let missing = || Failure::internal(format!("dataset {id} of run {}'s sweep is missing", run.name));
        return found.ok_or_else(missing);
    }
    build(daemon, run.recipe.clone(), base).await
}

/// Builds and keeps a dataset.
pub(crate) async fn build(
    daemon: &Arc<Daemon>,
    recipe: Recipe,
    base: &ImportedBase,
) -> Result<Dataset, Failure> {
    let (daemon, folder) = (daemon.clone(), daemon.state.base(&base.name));
    let built = tokio::task::spawn_blocking(move || {
        let catalog = daemon.state.catalog()?;
        let mut progress = |records, of| daemon.update(Update::Building { records, of });
        let built = moat_datasets::build(&catalog, &recipe, daemon.rules_hash, &folder, &mut progress);
        let moat_datasets::Built { dataset, left_out } = built.map_err(Failure::request)?;
        if left_out != moat_datasets::LeftOut::default() {
            info!(
                "dataset {}: left out are {} records without a time, {} with a near-duplicate before the day, and {} \
                 chats that the base cannot learn",
                dataset.id, left_out.untimed, left_out.near, left_out.unlearnable
            );
        }
        let batch = catalog.write()?;
        batch.put_dataset(&dataset, now())?;
        batch.commit()?;
        Ok(dataset)
    });
    built.await.map_err(Failure::internal)?
}

/// Worker threads of each of a training run's processes; 0 for every core.
pub(crate) fn threads(daemon: &Daemon) -> usize {
    let training = &daemon.settings.training;
    if training.processes == 1 {
        return training.threads;
    }
    let all = match training.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    (all / training.processes).max(1)
}

/// Bytes of memory that an engine may take; 0 for what it finds.
pub(crate) fn memory(daemon: &Daemon) -> u64 {
    daemon.settings.training.memory_mib << 20
}

async fn train(
    daemon: &Arc<Daemon>,
    run: &RunRow,
    base: &ImportedBase,
    dataset: Dataset,
) -> Result<Ended<TrainOutcome>, Failure> {
    let output = daemon.state.run(&run.name);
    // What the engine keeps in it must be found after a power cut too.
    let made = std::fs::create_dir_all(&output)
        .and_then(|()| std::fs::File::open(daemon.state.runs()).and_then(|runs| runs.sync_all()));
    made.map_err(|error| {
        Failure::internal(format!("the run's folder {} cannot be made: {error}", output.display()))
    })?;
    let job = ToEngine::Train(TrainJob {
        run: run.name.clone(),
        key: Some(key(daemon, run)?),
        base: daemon.state.base(&base.name).display().to_string(),
        output: output.display().to_string(),
        recipe: run.recipe.clone(),
        start: lineage::take(daemon, run)?,
        threads: threads(daemon),
        memory: memory(daemon),
        processes: daemon.settings.training.processes,
        rank: 0,
    });
    let mut told = Told::default();
    let sides = &[Split::Train, Split::Validation];
    let result = converse(daemon, run, &job, dataset, sides, |progress| told.hear(daemon, run, progress));
    let result = result.await;
    told.keep(daemon, run)?;
    match result? {
        FromEngine::Trained(outcome) => Ok(Ended::Done(outcome)),
        FromEngine::Stopped => Ok(Ended::Stopped),
        _ => Err(EngineError::Unexpected.into()),
    }
}

/// What an engine told and the catalog does not hold yet.
#[derive(Default)]
struct Told {
    planned: Option<u64>,
    steps: Vec<StepRow>,
    validations: Vec<ValidationRow>,
    survey: Option<(Survey, MemoryPlan)>,
    proofs: Vec<Proof>,
}

impl Told {
    fn hear(&mut self, daemon: &Daemon, run: &RunRow, progress: &Progress) -> Result<(), Failure> {
        match *progress {
            Progress::Surveyed { survey, ref memory } => self.survey = Some((survey, memory.clone())),
            Progress::Proven { ref proofs } => self.proofs.extend_from_slice(proofs),
            Progress::Training { steps, .. } => self.planned = Some(steps),
            Progress::Step {
                step,
                loss,
                gradient_norm,
                learning_rate,
                tokens,
                tokens_per_second,
                memory,
                seconds_left,
                cores,
                ..
            } => {
                self.steps.push(StepRow {
                    step,
                    loss,
                    gradient_norm,
                    learning_rate,
                    tokens,
                    tokens_per_second,
                    memory,
                    seconds_left,
                    cores,
                });
                if self.steps.len() < 16 {
                    return Ok(());
                }
            }
            Progress::Validated { step, loss, gain, .. } => {
                self.validations.push(ValidationRow { step, loss, gain });
                return Ok(());
            }
            Progress::Checkpoint { .. } => {}
            _ => return Ok(()),
        }
        self.keep(daemon, run)
    }

    /// Writes it.
    fn keep(&mut self, daemon: &Daemon, run: &RunRow) -> Result<(), Failure> {
        let catalog = daemon.state.catalog()?;
        let batch = catalog.write()?;
        if let Some(planned) = self.planned {
            batch.put_planned(&run.name, planned)?;
        }
        if let Some((survey, memory)) = &self.survey {
            batch.put_survey(&run.name, survey, memory)?;
        }
        batch.put_proofs(&run.name, &self.proofs)?;
        batch.put_steps(&run.name, &self.steps)?;
        batch.put_validations(&run.name, &self.validations)?;
        batch.commit()?;
        *self = Self::default();
        Ok(())
    }
}

async fn evaluate(
    daemon: &Arc<Daemon>,
    run: &RunRow,
    base: &ImportedBase,
    dataset: Dataset,
) -> Result<Ended<(Vec<DocumentLoss>, Vec<DocumentLoss>)>, Failure> {
    let job = ToEngine::Evaluate(EvaluateJob {
        run: run.name.clone(),
        key: Some(key(daemon, run)?),
        base: daemon.state.base(&base.name).display().to_string(),
        tuned: weights(daemon, run).display().to_string(),
        sequence_length: run.recipe.train.sequence_length,
        threads: daemon.settings.training.threads,
    });
    match converse(daemon, run, &job, dataset, &[Split::HeldOut], |_| Ok(())).await? {
        FromEngine::Evaluated { held_out, forgetting } => Ok(Ended::Done((held_out, forgetting))),
        FromEngine::Stopped => Ok(Ended::Stopped),
        _ => Err(EngineError::Unexpected.into()),
    }
}

/// One job of a run with its examples, to the engine's last word. Passes on progress, and a request to stop.
async fn converse(
    daemon: &Arc<Daemon>,
    run: &RunRow,
    job: &ToEngine,
    dataset: Dataset,
    sides: &'static [Split],
    mut each: impl FnMut(&Progress) -> Result<(), Failure>,
) -> Result<FromEngine, Failure> {
    let mut engine = Engine::start(&daemon.settings, Work::Train).await?;
    engine.job(job).await?;
    let mut team = Team::start(daemon, &mut engine, job, &dataset, sides).await?;
    let (sender, mut feeding) = examples::feed(&daemon.state, dataset, sides, engine.feeder()?);
    let (mut fed, mut stopping) = (false, false);
    loop {
        if daemon.safe().is_sealed() {
            // Dropping the engine ends it, and with it the plain text that it held.
            return Err(Failure::sealed("the vault was sealed"));
        }
        if !stopping && (daemon.is_ending() || daemon.take_stop(&run.name)) {
            stopping = true;
            // Where the engine is gone, its side tells.
            drop(sender.send(ToEngine::Stop).await);
        }
        tokio::select! {
            message = engine.next() => match message? {
                FromEngine::Progress(progress) => {
                    each(&progress)?;
                    daemon.update(Update::Run { run: run.name.clone(), progress });
                }
                FromEngine::Left { rank } => return Err(team.reason(rank).await),
                last => return Ok(last),
            },
            result = &mut feeding, if !fed => {
                fed = true;
                result.map_err(Failure::internal)??;
            }
            () = daemon.runs.notified() => {}
        }
    }
}
