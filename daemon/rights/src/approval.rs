//! The two-person rule: the one place that says yes to an export, a change of policy or of roles, or a
//! new source.

use crate::account::{Account, same_person};
use crate::acts::may;
use crate::presence::Presence;
use crate::statement::{Deed, Statement, is_approved, is_requested};

/// For how many seconds at most a statement counts: a week.
pub const MAX_LIFE: u64 = 7 * 24 * 3600;
/// How many seconds two clocks may differ.
const SKEW: u64 = 60;
/// The user id of root, which is not a person.
const ROOT: u32 = 0;

/// A statement with both signatures, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The statement's canonical text.
    pub statement: String,
    /// The requester's signature.
    pub request: [u8; 64],
    /// The approver's signature.
    pub approval: [u8; 64],
}

/// What is the case at the moment of the act, as the caller itself computed and looked it up.
pub struct Situation<'a> {
    /// What is really about to be done: hash and size of the real bytes, the real destination and recipient.
    pub deed: &'a Deed,
    /// The account that the statement names as requester, as it is now.
    pub requester: &'a Account,
    /// The account that signed as approver, as it is now.
    pub approver: &'a Account,
    /// The account whose roles change, where they do.
    pub concerned: Option<&'a Account>,
    /// The evidence that the approver's owner was there.
    pub presence: &'a Presence,
    /// Whether a statement with this nonce took effect before.
    pub used: bool,
    /// Seconds since 1970.
    pub now: u64,
}

/// Why an act that takes two people does not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The statement's text is not canonical.
    #[error("the statement is not in its canonical form: it was changed")]
    Form,
    /// The statement is about another kind of act.
    #[error("the statement is for another kind of act")]
    Kind,
    /// The statement is about something else.
    #[error("the statement is for another subject than the one at hand")]
    Subject,
    /// The statement names another size.
    #[error("the statement names another size than that of the subject at hand")]
    Size,
    /// The statement names another destination.
    #[error("the statement names another destination")]
    Destination,
    /// The statement names another recipient, or none.
    #[error("the statement names another recipient's key")]
    Recipient,
    /// Its time is over.
    #[error("the statement has expired: ask again")]
    Expired,
    /// It would count for too long, or begins in the future.
    #[error(
        "the statement's times are not plausible: it counts for at most a week, from when it was asked for"
    )]
    Times,
    /// It took effect before.
    #[error("the statement was used before: ask again")]
    Replayed,
    /// It names another requester than the account that was looked up.
    #[error("the statement names another requester")]
    Requester,
    /// The requester's signature does not fit.
    #[error("the requester's signature does not fit the statement")]
    RequestSignature,
    /// The approver's signature does not fit.
    #[error("the approver's signature does not fit the statement")]
    ApprovalSignature,
    /// An account of the two is disabled.
    #[error("the account of the requester or of the approver is disabled")]
    Disabled,
    /// The requester has not the right to ask.
    #[error("the requester may not ask for this")]
    RequesterRole,
    /// The approver has not the right to agree.
    #[error("the approver may not agree to this")]
    ApproverRole,
    /// Both are one person.
    #[error("requester and approver are one person: somebody else has to agree")]
    SamePerson,
    /// Root's command line stands in for a person.
    #[error("root on the command line is not a person: ask and agree from an account of one's own")]
    Root,
    /// The approver owes account, credentials or role to the requester.
    #[error("the approver was made able to approve by the requester: somebody else has to agree")]
    Beholden,
    /// The approver got the role after the request was made.
    #[error("the approver's role is newer than the request: ask again")]
    NewRole,
    /// The approver would agree to their own roles.
    #[error("nobody agrees to a change of their own roles")]
    OwnRoles,
    /// The account whose roles change was not given, or is not the one that the statement names.
    #[error("the statement does not name the account whose roles change")]
    Concerned,
    /// The approver did not show password and code just now.
    #[error("the approver has to show password and code again")]
    Absent,
}

/// Two people agreed, just now, to exactly this. Only [`Approval::check`] makes one, and an act takes it by value.
#[derive(Debug, PartialEq, Eq)]
pub struct Approved {
    statement: Statement,
    approver: String,
}

impl Approved {
    /// The statement.
    #[must_use]
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The id of the account that agreed.
    #[must_use]
    pub fn approver(&self) -> &str {
        &self.approver
    }

    /// What is to be kept as used, in the same transaction as the act.
    #[must_use]
    pub fn nonce(&self) -> &[u8; 16] {
        &self.statement.nonce
    }
}

impl Approval {
    /// Judges everything: what was said, by whom, whether both are still who and what they were, and that it is now.
    ///
    /// # Errors
    /// [`Refusal`]: the first reason why not.
    pub fn check(&self, situation: &Situation<'_>) -> Result<Approved, Refusal> {
        let statement = Statement::parse(&self.statement).map_err(|_| Refusal::Form)?;
        let refuse_if = |refused: bool, why: Refusal| if refused { Err(why) } else { Ok(()) };
        said(&statement, situation.deed)?;
        let now = situation.now;
        refuse_if(now >= statement.expires, Refusal::Expired)?;
        let late = statement.created > now.saturating_add(SKEW);
        let long = statement.expires.checked_sub(statement.created).is_none_or(|life| life > MAX_LIFE);
        refuse_if(late || long, Refusal::Times)?;
        refuse_if(situation.used, Refusal::Replayed)?;
        people(&statement, situation)?;
        let Situation { requester, approver, .. } = situation;
        let requested = is_requested(&self.statement, &requester.key, &self.request);
        refuse_if(!requested, Refusal::RequestSignature)?;
        let approved = is_approved(&self.statement, &approver.key, &self.approval);
        refuse_if(!approved, Refusal::ApprovalSignature)?;
        let here = situation.presence;
        refuse_if(here.account() != approver.id || !here.is_fresh(now), Refusal::Absent)?;
        Ok(Approved { statement, approver: approver.id.clone() })
    }
}

/// The statement says what is about to be done, in every point.
fn said(statement: &Statement, deed: &Deed) -> Result<(), Refusal> {
    let said = &statement.deed;
    let points = [
        (said.kind == deed.kind, Refusal::Kind),
        (said.subject == deed.subject, Refusal::Subject),
        (said.bytes == deed.bytes, Refusal::Size),
        (said.destination == deed.destination, Refusal::Destination),
        (said.recipient == deed.recipient, Refusal::Recipient),
    ];
    points.into_iter().find(|(same, _)| !same).map_or(Ok(()), |(_, why)| Err(why))
}

/// Two different people, each with the right, neither standing in for the other.
fn people(statement: &Statement, situation: &Situation<'_>) -> Result<(), Refusal> {
    let Situation { requester, approver, concerned, presence, .. } = situation;
    let kind = statement.deed.kind;
    // The users of the machine at whose command lines the two acted.
    let (asked_at, agreed_at) = (statement.uid, presence.uid());
    let crossed = agreed_at.is_some() && (agreed_at == asked_at || agreed_at == requester.uid)
        || asked_at.is_some() && asked_at == approver.uid;
    let concerns_other = match kind {
        crate::Kind::Role => concerned.is_none_or(|concerned| concerned.id != statement.deed.destination),
        _ => concerned.is_some(),
    };
    let points = [
        (statement.requester != requester.id, Refusal::Requester),
        (!requester.enabled || !approver.enabled, Refusal::Disabled),
        (!may(requester.roles, kind.request()), Refusal::RequesterRole),
        (!may(approver.roles, kind.approve()), Refusal::ApproverRole),
        ([asked_at, agreed_at, requester.uid, approver.uid].contains(&Some(ROOT)), Refusal::Root),
        (same_person(requester, approver) || crossed, Refusal::SamePerson),
        (approver.owes(&requester.id), Refusal::Beholden),
        (approver.roles_since > statement.created, Refusal::NewRole),
        (concerns_other, Refusal::Concerned),
        (concerned.is_some_and(|concerned| same_person(concerned, approver)), Refusal::OwnRoles),
    ];
    points.into_iter().find(|(refused, _)| *refused).map_or(Ok(()), |(_, why)| Err(why))
}
