//! One function for every verb: request in, reply out.

mod accounts;
mod additions;
mod ask;
pub(crate) mod backup;
mod bases;
mod compare;
mod datasets;
mod export;
pub(crate) mod invitation;
mod keys;
mod ledger;
mod preview;
mod records;
mod reviews;
mod runs;
mod sample;
mod search;
pub(crate) mod sessions;
pub(crate) mod sources;
pub(crate) mod statements;
mod status;
mod sweeps;
mod tryout;
mod vault;
mod why;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use status::canary;

use moat_protocol::control::{Reply, Request, Update};
use tokio::io::AsyncWrite;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use crate::daemon::Daemon;
use crate::description::description;
use crate::failure::Failure;
use crate::intake::Intake;
use crate::people::{self, Caller, Person};
use crate::record;

/// Answers a request between two entries of the ledger: what is asked, before anything happens, and how it ended. This
/// is the one way in, from the command line and from the network.
pub(crate) async fn on_record(
    daemon: &Arc<Daemon>,
    intake: &Intake,
    caller: &Caller,
    request: Request,
    stream: &mut (impl AsyncWrite + Unpin),
) -> Result<Reply, Failure> {
    let mut person = people::person(daemon, caller)?;
    let allowed = person.may(&request);
    let act = record::act(&request, person.who.clone());
    let act = match person.from {
        Some(from) => act.map(|act| act.detail("address", from)),
        None => act,
    };
    if let Err(failure) = allowed {
        if let Some(act) = act {
            record::refused(daemon, &act)?;
        }
        return Err(failure);
    }
    let Some(act) = act else { return answer(daemon, intake, &person, request, stream).await };
    let intent = daemon.ledger.append(&act)?;
    let result = answer(daemon, intake, &person, request, stream).await;
    let act = match &result {
        Ok(reply) => record::told(act, reply),
        Err(_) => act,
    };
    record::ended(&daemon.ledger, &act, intent, &result);
    result
}

/// Whether a request reads or makes anything of customers' data, which rests while the policy is not the one agreed to.
fn is_work(request: &Request) -> bool {
    matches!(
        request,
        Request::Scan
            | Request::SourceList { .. }
            | Request::SourceTest { .. }
            | Request::SourceFolders { .. }
            | Request::SourceTry { .. }
            | Request::SourceAdd { .. }
            | Request::DatasetBuild { .. }
            | Request::RecordSearch { .. }
            | Request::Record { .. }
            | Request::Reviews { .. }
            | Request::Review { .. }
            | Request::Tryout { .. }
            | Request::BaseImport { .. }
            | Request::RunPreview { .. }
            | Request::RunPlan { .. }
            | Request::SweepStart { .. }
            | Request::SweepResume { .. }
            | Request::RunStart { .. }
            | Request::RunResume { .. }
            | Request::Export { .. }
            | Request::RunSample { .. }
            | Request::Ask { .. }
    )
}

/// Answers one request; updates go to the stream while it is being worked on.
async fn answer(
    daemon: &Arc<Daemon>,
    intake: &Intake,
    person: &Person,
    request: Request,
    stream: &mut (impl AsyncWrite + Unpin),
) -> Result<Reply, Failure> {
    let opens =
        matches!(request, Request::VaultInit { .. } | Request::VaultUnseal { .. } | Request::VaultSeal);
    let open = matches!(request, Request::Api | Request::Status | Request::Ledger { .. } | Request::Shutdown);
    if !opens && !open {
        daemon.safe().vault()?;
    }
    if let Some(refusal) = daemon.held_back().filter(|_| is_work(&request)) {
        return Err(Failure::denied(refusal));
    }
    match request {
        Request::Api => Ok(Reply::Api(Box::new(description()?))),
        Request::Status => Ok(status::status(daemon)),
        Request::Scan => {
            let curating = |update: &Update| matches!(update, Update::Curating { .. });
            while_telling(daemon, stream, curating, intake.scan()).await?;
            blocking(|| sources::count(daemon))?;
            Ok(status::status(daemon))
        }
        Request::Sources => sources::list(daemon),
        Request::SourceList { source, folder, after } => {
            sources::browse(daemon, &source, folder, after).await
        }
        Request::SourceTest { source } => sources::test(daemon, &source).await,
        Request::SourceFaults { source, after } => sources::faults(daemon, &source, after),
        Request::SourcePause { source } => sources::pause(daemon, intake, &source, true),
        Request::SourceResume { source } => sources::pause(daemon, intake, &source, false),
        Request::SourceFolders { folder, after } => additions::folders(daemon, folder, after).await,
        Request::SourceTry { definition } => {
            Ok(Reply::SourceTrial(additions::attempt_new(daemon, *definition).await?.1))
        }
        Request::SourceAdd { definition, proof } => additions::ask(daemon, person, *definition, &proof).await,
        Request::SourceRemove { source } => additions::remove(daemon, intake, &source).await,
        Request::Why { path } => why::why(daemon, &path),
        Request::DatasetBuild { recipe } => {
            let building = |update: &Update| matches!(update, Update::Building { .. });
            while_telling(daemon, stream, building, datasets::build(daemon, *recipe)).await
        }
        Request::Datasets => datasets::list(daemon),
        Request::Dataset { id } => datasets::show(daemon, &id),
        Request::DatasetDiff { a, b } => datasets::diff(daemon, &a, &b),
        Request::DatasetFacts { id } => datasets::facts(daemon, &id),
        Request::RecordSearch { words, filter, most, after, patience } => {
            let search = search::Search::new(&words, filter, most, after, patience)?;
            aside(daemon, stream, move |daemon, teller| search.run(daemon, teller)).await
        }
        Request::Record { id } => records::show(daemon, &id),
        Request::Reviews { after, most } => reviews::queue(daemon, after.as_deref(), most),
        Request::Review { id, judgement } => reviews::decide(daemon, person, &id, judgement),
        Request::Tryout { changes, most, seed } => {
            let tryout = tryout::Trial::new(daemon, &changes, most, seed)?;
            aside(daemon, stream, move |daemon, teller| tryout.run(daemon, teller)).await
        }
        Request::BaseImport { folder, name } => bases::import(daemon, folder, name).await,
        Request::Bases => bases::list(daemon),
        Request::RunStart { recipe } => runs::start(daemon, *recipe),
        Request::RunPreview { recipe } => {
            let building = |update: &Update| matches!(update, Update::Building { .. });
            while_telling(daemon, stream, building, preview::preview(daemon, *recipe)).await
        }
        Request::RunPlan { recipe } => {
            let building = |update: &Update| matches!(update, Update::Building { .. });
            while_telling(daemon, stream, building, preview::plan(daemon, *recipe)).await
        }
        Request::RunCompare { names } => blocking(|| compare::compare(daemon, &names)),
        Request::SweepStart { sweep } => sweeps::start(daemon, *sweep),
        Request::Sweeps => sweeps::list(daemon),
        Request::Sweep { name } => sweeps::show(daemon, &name),
        Request::SweepWatch { name } => sweeps::watch(daemon, &name, stream).await,
        Request::SweepStop { name } => sweeps::stop(daemon, &name).await,
        Request::SweepResume { name } => sweeps::resume(daemon, &name),
        Request::Runs => runs::list(daemon),
        Request::Run { name } => runs::show(daemon, &name),
        Request::RunSteps { name, after, most } => runs::steps(daemon, &name, after, most),
        Request::RunWatch { name } => runs::watch(daemon, &name, stream).await,
        Request::RunStop { name } => runs::stop(daemon, &name).await,
        Request::RunResume { name } => runs::resume(daemon, &name),
        Request::Export { run, folder, recipient, proof } => {
            statements::ask_export(daemon, person, &run, folder, recipient, &proof).await
        }
        Request::RunCard { name } => export::card(daemon, &name),
        Request::RunSample { name, number, tokens } => {
            sample::sample(daemon, person.key(), &name, number, tokens, stream).await
        }
        Request::Ask { run, prompt, chat, sampling } => {
            let question = ask::Question { prompt, chat, sampling };
            ask::ask(daemon, person.key(), run, question, stream).await
        }
        Request::VaultInit { with } => vault::init(daemon, intake, with).await,
        Request::VaultUnseal { with } => vault::unseal(daemon, intake, with).await,
        Request::VaultSeal => Ok(vault::seal(daemon)),
        Request::VaultSlotAdd { with } => vault::add_slot(daemon, with).await,
        Request::VaultSlotRemove { id } => vault::remove_slot(daemon, id).await,
        Request::VaultRotate => vault::rotate(daemon).await,
        Request::SetUp { accounts } if person.is_alone() => blocking(|| accounts::set_up(daemon, &accounts)),
        Request::SetUp { .. } => Err(Failure::request("the site is set up already")),
        Request::Invite => invitation::invite(daemon, person),
        Request::Enlist { code, account } => blocking(|| invitation::enlist(daemon, person, &code, &account)),
        Request::EnlistConfirm { name, code } => {
            blocking(|| invitation::confirm(daemon, person, &name, &code))
        }
        Request::Accounts => accounts::list(daemon),
        Request::AccountCreate { account } => blocking(|| accounts::create(daemon, person, &account)),
        Request::AccountRoles { name, roles, proof } => {
            statements::ask_roles(daemon, person, &name, &roles, &proof)
        }
        Request::AccountDisable { name } => accounts::disable(daemon, &name),
        Request::AccountReset { name, password } => {
            blocking(|| accounts::reset(daemon, person, &name, &password))
        }
        Request::PolicyRequest { proof } => statements::ask_policy(daemon, person, &proof),
        Request::Statements => statements::list(daemon),
        Request::Approve { id, proof } => {
            let reply = statements::approve(daemon, person, &id, &proof).await?;
            if daemon.held_back().is_some() {
                daemon.look_at_policy()?;
                daemon.runs.notify_waiters();
            }
            // A source may be new, or one that rested go on.
            intake.wake();
            Ok(reply)
        }
        Request::Withdraw { id } => statements::withdraw(daemon, person, &id),
        Request::ApiKeys => keys::list(daemon),
        Request::ApiKeyCreate { name, scope, days } => keys::create(daemon, person, name, &scope, days),
        Request::ApiKeyRevoke { id } => keys::revoke(daemon, &id),
        Request::Ledger { act, before, most } => ledger::page(daemon, act, before, most),
        Request::LedgerReceipt { index } => ledger::receipt(daemon, index),
        Request::Backup { folder } => backup::create(daemon, folder).await,
        Request::Shutdown => {
            daemon.end();
            Ok(Reply::Done)
        }
    }
}

/// A password costs a moment and memory, which must not hold up the other callers.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// Works on a request and meanwhile passes on the updates that concern it. A caller who hangs up is not waited for.
async fn while_telling<T>(
    daemon: &Daemon,
    stream: &mut (impl AsyncWrite + Unpin),
    concerns: impl Fn(&Update) -> bool,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut updates = daemon.updates.subscribe();
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            update = updates.recv() => match update {
                Ok(update) if concerns(&update) => {
                    moat_protocol::write(stream, &Reply::Update(update)).await.map_err(Failure::internal)?;
                }
                // Missed updates are followed by newer ones.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return work.await,
            },
        }
    }
}

/// How often work that reads texts tells how far it is.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// Tells whoever waits for work how far it is.
struct Teller {
    sender: watch::Sender<Option<Update>>,
    told: Instant,
}

impl Teller {
    /// Tells it, now and then.
    ///
    /// # Errors
    /// Where nobody waits for the work any more, which is then to end.
    fn tell(&mut self, update: impl FnOnce() -> Update) -> Result<(), Failure> {
        if self.sender.is_closed() {
            return Err(Failure::request("nobody waits for the answer any more"));
        }
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            self.sender.send_replace(Some(update()));
        }
        Ok(())
    }
}

/// Works on a thread of its own and passes on what that tells. A caller who hangs up, seen when there is something to
/// tell, is not worked for any more. Few such works go on at once: each opens many texts.
async fn aside(
    daemon: &Arc<Daemon>,
    stream: &mut (impl AsyncWrite + Unpin),
    work: impl FnOnce(&Daemon, &mut Teller) -> Result<Reply, Failure> + Send + 'static,
) -> Result<Reply, Failure> {
    let _seat = daemon.readers.acquire().await.map_err(Failure::internal)?;
    let (sender, mut told) = watch::channel(None);
    let own = daemon.clone();
    let mut working =
        tokio::task::spawn_blocking(move || work(&own, &mut Teller { sender, told: Instant::now() }));
    loop {
        tokio::select! {
            done = &mut working => return done.map_err(Failure::internal)?,
            changed = told.changed() => {
                let update = told.borrow_and_update().clone();
                match (changed, update) {
                    (Ok(()), Some(update)) => {
                        moat_protocol::write(stream, &Reply::Update(update)).await.map_err(Failure::internal)?;
                    }
                    (Ok(()), None) => {}
                    (Err(_), _) => return working.await.map_err(Failure::internal)?,
                }
            }
        }
    }
}
