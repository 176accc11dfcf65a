//! The engines that train one run together: the first one writes and tells, the others compute with it and are heard only
//! where they fail.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use moat_contracts::{Dataset, Split, TrainJob};
use moat_protocol::engine::{FromEngine, ToEngine};
use tokio::task::JoinHandle;

use crate::daemon::Daemon;
use crate::engine::{Engine, EngineError, Work};
use crate::examples;
use crate::failure::Failure;

/// The engines besides the first. Dropping it ends them.
pub(crate) struct Team {
    others: Vec<JoinHandle<Result<FromEngine, Failure>>>,
}

impl Team {
    /// Starts the others of a job's processes, and connects them with the first, which has the job already.
    pub(crate) async fn start(
        daemon: &Arc<Daemon>,
        first: &mut Engine,
        job: &ToEngine,
        dataset: &Dataset,
        sides: &'static [Split],
    ) -> Result<Self, Failure> {
        let mut team = Self { others: Vec::new() };
        let ToEngine::Train(job) = job else { return Ok(team) };
        let mut ends = Vec::new();
        for rank in 1..job.processes {
            let (end, other) = UnixStream::pair().map_err(Failure::internal)?;
            ends.push(end);
            let job = TrainJob { rank, ..job.clone() };
            team.others.push(tokio::spawn(assist(Arc::clone(daemon), job, other, dataset.clone(), sides)));
        }
        if !ends.is_empty() {
            first.share(ends).await?;
        }
        Ok(team)
    }

    /// Why the first engine was left by one of the others: what that one said, or how it ended.
    pub(crate) async fn reason(&mut self, rank: usize) -> Failure {
        let Some(other) = rank.checked_sub(1).and_then(|place| self.others.get_mut(place)) else {
            return EngineError::Unexpected.into();
        };
        match other.await {
            Ok(Err(failure)) => Failure::internal(format!("process {rank} of the run: {}", failure.message)),
            Ok(Ok(_)) => EngineError::Unexpected.into(),
            Err(error) => Failure::internal(error),
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.others.iter().for_each(JoinHandle::abort);
    }
}

/// One of the others, from its start to its last word.
async fn assist(
    daemon: Arc<Daemon>,
    job: TrainJob,
    first: UnixStream,
    dataset: Dataset,
    sides: &'static [Split],
) -> Result<FromEngine, Failure> {
    let mut engine = Engine::start(&daemon.settings, Work::Train).await?;
    engine.job(&ToEngine::Train(job)).await?;
    engine.share(vec![first]).await?;
    let (_sender, feeding) = examples::feed(&daemon.state, dataset, sides, engine.feeder()?);
    let last = engine.result().await;
    feeding.abort();
    Ok(last?)
}
