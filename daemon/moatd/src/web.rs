//! What the admin UI asks of the daemon: the one way in of every request, with a browser's caller.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::BoxFuture;
use moat_admin::{Answer, Call, Health, Refusal, SignedIn, Standing};
use moat_protocol::control::{Key, Proof, Reply, Request, Seal, Update};
use moat_rights::Act;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tracing::warn;

use crate::daemon::Daemon;
use crate::failure::Failure;
use crate::intake::Intake;
use crate::people::{self, Caller};
use crate::{answer, api};

/// Bytes of updates that wait for whoever watches.
const WAITING: usize = 64 << 10;

/// The daemon as the admin port sees it.
pub(crate) struct Web {
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) intake: Intake,
}

fn refusal(failure: Failure) -> Refusal {
    Refusal { fault: failure.fault, message: failure.message }
}

fn browser(from: IpAddr, person: &SignedIn) -> Caller {
    Caller::Browser { account: person.account.clone(), credentials: person.credentials, from }
}

impl moat_admin::Daemon for Web {
    fn health(&self) -> Health {
        let daemon = &self.daemon;
        let seal = daemon.safe().state();
        let refusal = daemon.safe().vault().err().map(|failure| failure.message);
        let canary = answer::canary(daemon);
        Health {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: daemon.started.elapsed().as_secs(),
            sealed: seal.sealed,
            wanted: daemon.alarm().or(refusal),
            protections: daemon
                .protections
                .iter()
                .map(|(name, had)| {
                    (
                        name.clone(),
                        if *had { Ok(()) } else { Err("this machine does not grant it".to_owned()) },
                    )
                })
                .collect(),
            canary: canary.ways.into_iter().map(|(way, (tried, open))| (way, tried, open)).collect(),
            tried: canary.flown,
            seal,
            set_up: daemon.set_up.load(Ordering::SeqCst),
        }
    }

    fn seals(&self) -> u64 {
        self.daemon.seals.load(Ordering::SeqCst)
    }

    fn is_ending(&self) -> bool {
        self.daemon.is_ending()
    }

    fn description(&self) -> Answer {
        api::described()
    }

    fn call(&self, call: Call) -> BoxFuture<'static, Answer> {
        Box::pin(api::call(self.daemon.clone(), self.intake.clone(), call))
    }

    fn unseal(&self, from: IpAddr, with: Key) -> BoxFuture<'static, Result<Seal, Refusal>> {
        let (daemon, intake) = (self.daemon.clone(), self.intake.clone());
        Box::pin(async move {
            let request = Request::VaultUnseal { with };
            let mut nobody = tokio::io::sink();
            match answer::on_record(&daemon, &intake, &Caller::Holder { from }, request, &mut nobody).await {
                Ok(Reply::Seal(seal)) => Ok(seal),
                Ok(_) => Err(refusal(Failure::internal("unsealing was answered with something else"))),
                Err(failure) => Err(refusal(failure)),
            }
        })
    }

    fn invited(&self, from: IpAddr, request: Request) -> BoxFuture<'static, Result<Reply, Refusal>> {
        let (daemon, intake) = (self.daemon.clone(), self.intake.clone());
        Box::pin(async move {
            let mut nobody = tokio::io::sink();
            let caller = Caller::Guest { from };
            answer::on_record(&daemon, &intake, &caller, request, &mut nobody).await.map_err(refusal)
        })
    }

    fn sign_in(&self, from: IpAddr, proof: Proof) -> BoxFuture<'static, Result<SignedIn, Refusal>> {
        let daemon = self.daemon.clone();
        Box::pin(async move {
            let judged =
                tokio::task::spawn_blocking(move || answer::sessions::sign_in(&daemon, from, &proof));
            let row = judged.await.map_err(Failure::internal).and_then(|judged| judged).map_err(refusal)?;
            Ok(SignedIn { account: row.id, name: row.name, credentials: row.key })
        })
    }

    fn sign_out(&self, from: IpAddr, person: &SignedIn) {
        if let Err(failure) = answer::sessions::sign_out(&self.daemon, from, &person.name) {
            warn!("that a browser was signed out is not in the ledger: {}", failure.message);
        }
    }

    fn refused(&self, from: IpAddr, person: &SignedIn, act: Act) {
        if let Err(failure) = answer::sessions::refused(&self.daemon, from, &person.name, act) {
            warn!("that a browser was refused is not in the ledger: {}", failure.message);
        }
    }

    fn standing(&self, person: &SignedIn) -> Result<Standing, Refusal> {
        // Where it is asked from changes nothing.
        let caller = browser(IpAddr::from([0, 0, 0, 0]), person);
        let person = people::person(&self.daemon, &caller).map_err(refusal)?;
        person.roles().map(|roles| Standing { roles }).map_err(refusal)
    }

    fn ask(
        &self,
        from: IpAddr,
        person: &SignedIn,
        request: Request,
        updates: Option<mpsc::Sender<Update>>,
    ) -> BoxFuture<'static, Result<Reply, Refusal>> {
        let (daemon, intake, caller) = (self.daemon.clone(), self.intake.clone(), browser(from, person));
        Box::pin(async move {
            let reply = match updates {
                None => answer::on_record(&daemon, &intake, &caller, request, &mut tokio::io::sink()).await,
                Some(updates) => {
                    // The same frames as on the control socket, through a pipe in memory.
                    let (mut ours, theirs) = tokio::io::duplex(WAITING);
                    let told = tokio::spawn(pass_on(theirs, updates));
                    let reply = answer::on_record(&daemon, &intake, &caller, request, &mut ours).await;
                    drop(ours);
                    told.await.map_err(Failure::internal).map_err(refusal)?;
                    reply
                }
            };
            reply.map_err(refusal)
        })
    }
}

/// Passes updates on until the work ends or nobody listens any more, which ends the work at its next update.
async fn pass_on(mut frames: DuplexStream, updates: mpsc::Sender<Update>) {
    loop {
        match moat_protocol::read::<Reply>(&mut frames).await {
            Ok(Some(Reply::Update(update))) => {
                if updates.send(update).await.is_err() {
                    return;
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(error) => return warn!("updates for a browser were cut off: {error}"),
        }
    }
}
