use std::net::IpAddr;

use futures_util::future::BoxFuture;
use moat_protocol::control::{Fault, Key, Proof, Reply, Request, Seal, Update};
use moat_rights::{Act, Roles, may};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::mpsc;
use warp::http::StatusCode;

/// What anyone who reaches the port may know: how the box stands, nothing of what it holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Health {
    /// Version of `moatd`.
    pub version: String,
    /// Seconds since it started.
    pub uptime: u64,
    /// True while no key is there that opens the vault.
    pub sealed: bool,
    /// What a person is to do now, if anything: unseal, or look at an alarm.
    pub wanted: Option<String>,
    /// What the process gave up: name, and why not where it could not.
    pub protections: Vec<(String, Result<(), String>)>,
    /// Ways out that the canary tried: name, tries, and how many of them succeeded.
    pub canary: Vec<(String, u64, u64)>,
    /// Seconds since 1970 of the canary's last round.
    pub tried: Option<i64>,
    /// How the vault stands, for whoever opens it.
    #[serde(skip)]
    pub seal: Seal,
    /// Whether people have accounts.
    #[serde(skip)]
    pub set_up: bool,
}

impl Health {
    /// True where nothing waits for a person and no way out is open.
    pub fn is_well(&self) -> bool {
        !self.sealed && self.wanted.is_none() && self.open_ways() == 0
    }

    /// Ways out that were open when the canary tried them.
    pub(crate) fn open_ways(&self) -> usize {
        self.canary.iter().filter(|(_, _, open)| *open > 0).count()
    }
}

/// One call of the API.
#[derive(Debug)]
pub struct Call {
    /// The verb: what stands after `/api/v1/`.
    pub verb: String,
    /// The API key that the caller shows.
    pub key: Option<String>,
    /// What goes with the verb, as JSON; empty for nothing.
    pub body: Vec<u8>,
}

/// The answer to a [`Call`].
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// JSON: the reply, or a problem (RFC 9457) where the status says so.
    pub body: Vec<u8>,
}

impl Answer {
    /// A problem for a status: what happened, and what to do.
    pub fn problem(status: u16, detail: &str) -> Self {
        let title = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let problem = serde_json::json!({ "title": title, "status": status, "detail": detail });
        Self { status, body: problem.to_string().into_bytes() }
    }
}

/// Why something was not done: whose fault, and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Decides the status.
    pub fault: Fault,
    /// What happened, where, and what to do.
    pub message: String,
}

impl Refusal {
    /// What was asked for cannot be done as it was asked.
    pub(crate) fn request(message: &str) -> Self {
        Self { fault: Fault::Request, message: message.to_owned() }
    }

    /// The HTTP status of a fault.
    pub const fn status(&self) -> u16 {
        match self.fault {
            Fault::Request => 422,
            Fault::Denied => 403,
            Fault::Internal | Fault::Failed => 500,
            Fault::Sealed => 503,
        }
    }
}

/// An account whose owner showed password and code. It stands for the account as it was then: one that was disabled or
/// given new credentials since is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// The account's id.
    pub account: String,
    /// Its name.
    pub name: String,
    /// The public half of its signing key, which changes with its credentials.
    pub credentials: [u8; 32],
}

/// What an account may do at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its roles.
    pub roles: Roles,
}

impl Standing {
    /// Whether one of its roles allows an act.
    pub fn may(&self, act: Act) -> bool {
        may(self.roles, act)
    }
}

/// What stands behind the port. Whatever is asked of it is judged and recorded there; that this crate asked the same
/// question before drawing a page takes nothing from that.
pub trait Daemon: Send + Sync + 'static {
    /// How the box stands.
    fn health(&self) -> Health;

    /// How often the vault was sealed since the start: a session does not outlive one of these.
    fn seals(&self) -> u64;

    /// Whether the daemon ends, so that nothing is to be waited for.
    fn is_ending(&self) -> bool;

    /// What the API's calls are, as OpenAPI.
    fn description(&self) -> Answer;

    /// Answers a call of the API.
    fn call(&self, call: Call) -> BoxFuture<'static, Answer>;

    /// Takes a passphrase or one share from whoever holds it, at an address.
    fn unseal(&self, from: IpAddr, with: Key) -> BoxFuture<'static, Result<Seal, Refusal>>;

    /// Answers a request of somebody who shows an invitation, before there are accounts; anything else is refused.
    fn invited(&self, from: IpAddr, request: Request) -> BoxFuture<'static, Result<Reply, Refusal>>;

    /// Judges an account's password and code.
    fn sign_in(&self, from: IpAddr, proof: Proof) -> BoxFuture<'static, Result<SignedIn, Refusal>>;

    /// Writes down that somebody signed out.
    fn sign_out(&self, from: IpAddr, person: &SignedIn);

    /// Writes down that an account was not let do something.
    fn refused(&self, from: IpAddr, person: &SignedIn, act: Act);

    /// What an account may do now.
    ///
    /// # Errors
    /// [`Refusal`] where it is not there any more, or nothing can be known.
    fn standing(&self, person: &SignedIn) -> Result<Standing, Refusal>;

    /// Answers a request as the command line would be answered, by the rights of an account; tells meanwhile what goes on.
    fn ask(
        &self,
        from: IpAddr,
        person: &SignedIn,
        request: Request,
        updates: Option<mpsc::Sender<Update>>,
    ) -> BoxFuture<'static, Result<Reply, Refusal>>;
}
