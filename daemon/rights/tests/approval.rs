//! The two-person rule against those who would get around it: each way in a test of its own kind, and what holds it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use moat_rights::{
    Account, Act, ApiKey, Approval, Credentials, Deed, KeyError, KeyRecord, Kind, LoginError, MAX_LIFE,
    PRESENCE_LIFE, Presence, Refusal, Role, Roles, Scope, Secret, Situation, Statement, StatementError,
    public_key,
};
use proptest::prelude::*;

const NOW: u64 = 1_700_000_000;
const ANNA: [u8; 32] = [1; 32];
const BEN: [u8; 32] = [2; 32];

fn account(id: &str, seed: &[u8; 32], uid: u32, roles: &[Role]) -> Account {
    Account {
        id: id.to_owned(),
        uid: Some(uid),
        roles: Roles::of(roles),
        key: public_key(seed).unwrap(),
        enabled: true,
        created_by: String::new(),
        credentials_by: id.to_owned(),
        roles_by: Vec::new(),
        roles_since: 0,
    }
}

fn secret(account: &Account) -> Secret {
    let mut bytes = [0; 20];
    bytes.copy_from_slice(&account.key[..20]);
    Secret::from_bytes(bytes)
}

fn password(account: &Account) -> String {
    format!("correct horse battery {}", account.key[0])
}

/// A password's hash at a cost that suits a test.
fn stored(account: &Account) -> String {
    let cheap = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
    let salt = SaltString::encode_b64(b"a test's own salt").unwrap();
    cheap.hash_password(password(account).as_bytes(), &salt).unwrap().to_string()
}

fn prove(
    account: &Account,
    password: &str,
    code: &str,
    at: u64,
    uid: Option<u32>,
) -> Result<Presence, LoginError> {
    let (stored, totp) = (stored(account), secret(account));
    let credentials = Credentials { password: &stored, totp: &totp, last_step: None };
    Presence::prove(Some((account, &credentials)), password, code, at, uid).map(|(presence, _)| presence)
}

fn present(account: &Account, at: u64, uid: Option<u32>) -> Presence {
    prove(account, &password(account), &secret(account).code(at / 30), at, uid).unwrap()
}

/// One attempt: everything that enters the decision, good until a test spoils it.
struct Attempt {
    deed: Deed,
    requester: Account,
    approver: Account,
    concerned: Option<Account>,
    presence: Presence,
    statement: Statement,
    request_seed: [u8; 32],
    approval_seed: [u8; 32],
    used: bool,
    now: u64,
}

impl Attempt {
    fn new(kind: Kind) -> Self {
        let requester = account("anna", &ANNA, 1000, &[Role::Steward, Role::Engineer, Role::Admin]);
        let approver = account("ben", &BEN, 1001, &[Role::Approver]);
        let deed = Deed {
            kind,
            subject: [3; 32],
            bytes: 4096,
            destination: if kind == Kind::Role { "carla".into() } else { "archive".into() },
            recipient: (kind == Kind::Export).then(|| "age1recipient".into()),
        };
        let statement = Statement::new(deed.clone(), &present(&requester, NOW, None), NOW, 3600).unwrap();
        Self {
            deed,
            concerned: (kind == Kind::Role).then(|| account("carla", &[4; 32], 1002, &[Role::Viewer])),
            presence: present(&approver, NOW + 60, None),
            requester,
            approver,
            statement,
            request_seed: ANNA,
            approval_seed: BEN,
            used: false,
            now: NOW + 61,
        }
    }

    fn export() -> Self {
        Self::new(Kind::Export)
    }

    fn sign(&self) -> Approval {
        Approval {
            statement: self.statement.to_text().unwrap(),
            request: self.statement.sign_request(&self.request_seed).unwrap(),
            approval: self.statement.sign_approval(&self.approval_seed).unwrap(),
        }
    }

    fn judge(&self, approval: &Approval) -> Result<(), Refusal> {
        let situation = Situation {
            deed: &self.deed,
            requester: &self.requester,
            approver: &self.approver,
            concerned: self.concerned.as_ref(),
            presence: &self.presence,
            used: self.used,
            now: self.now,
        };
        approval.check(&situation).map(|approved| {
            assert_eq!(approved.approver(), self.approver.id);
            assert_eq!(approved.nonce(), &self.statement.nonce);
            assert_eq!(approved.statement().deed, self.deed);
        })
    }

    /// Signs what is there now, and judges it.
    fn outcome(&self) -> Result<(), Refusal> {
        self.judge(&self.sign())
    }
}

/// An export that is refused for this reason once `spoil` has been at it.
fn refused(why: Refusal, spoil: impl FnOnce(&mut Attempt)) {
    let mut attempt = Attempt::export();
    spoil(&mut attempt);
    assert_eq!(attempt.outcome(), Err(why));
}

#[test]
fn two_people_who_agree_may() {
    for kind in [Kind::Export, Kind::Policy, Kind::Role, Kind::Source] {
        assert_eq!(Attempt::new(kind).outcome(), Ok(()), "{kind:?}");
    }
}

#[test]
fn nobody_agrees_to_their_own_request() {
    refused(Refusal::SamePerson, |attempt| {
        attempt.requester.roles = Roles::of(&Role::ALL);
        attempt.approver = attempt.requester.clone();
        attempt.approval_seed = ANNA;
        attempt.presence = present(&attempt.approver, NOW + 60, None);
    });
}

#[test]
fn a_second_account_of_the_same_user_is_the_same_person() {
    refused(Refusal::SamePerson, |attempt| attempt.approver.uid = attempt.requester.uid);
}

#[test]
fn a_second_account_with_the_same_signing_key_is_the_same_person() {
    refused(Refusal::SamePerson, |attempt| {
        attempt.approver = account("ben", &ANNA, 1001, &[Role::Approver]);
        attempt.approval_seed = ANNA;
        attempt.presence = present(&attempt.approver, NOW + 60, None);
    });
}

#[test]
fn one_command_line_is_one_person_whichever_accounts_are_used_at_it() {
    let at = |attempt: &mut Attempt, asked, agreed| {
        let presence = present(&attempt.requester, NOW, asked);
        attempt.statement = Statement::new(attempt.deed.clone(), &presence, NOW, 3600).unwrap();
        attempt.presence = present(&attempt.approver, NOW + 60, agreed);
    };
    refused(Refusal::SamePerson, |attempt| at(attempt, Some(1005), Some(1005)));
    refused(Refusal::SamePerson, |attempt| at(attempt, None, Some(1000)));
    refused(Refusal::SamePerson, |attempt| at(attempt, Some(1001), None));
    let mut fine = Attempt::export();
    at(&mut fine, Some(1000), Some(1001));
    assert_eq!(fine.outcome(), Ok(()));
}

#[test]
fn root_on_the_command_line_stands_in_for_nobody() {
    refused(Refusal::Root, |attempt| attempt.presence = present(&attempt.approver, NOW + 60, Some(0)));
    refused(Refusal::Root, |attempt| {
        let presence = present(&attempt.requester, NOW, Some(0));
        attempt.statement = Statement::new(attempt.deed.clone(), &presence, NOW, 3600).unwrap();
    });
    refused(Refusal::Root, |attempt| attempt.approver.uid = Some(0));
    refused(Refusal::Root, |attempt| attempt.requester.uid = Some(0));
}

#[test]
fn root_cannot_be_present_for_an_account_without_its_password_and_code() {
    let ben = account("ben", &BEN, 1001, &[Role::Approver]);
    let (right, code) = (password(&ben), secret(&ben).code(NOW / 30));
    assert!(
        prove(&ben, &right, &code, NOW, Some(0)).is_ok(),
        "typed in, it is known that it was at root's line"
    );
    let other = account("anna", &ANNA, 1000, &[]);
    for (password, code) in [
        ("", &*code),
        (&*right, ""),
        ("wrong password here", &*code),
        (&*right, "000000"),
        (&*password(&other), &*code),
        (&*right, &*secret(&other).code(NOW / 30)),
        (&*right, &*secret(&ben).code(NOW / 30 - 5)),
        (&*right.repeat(100), &*code),
    ] {
        assert_eq!(prove(&ben, password, code, NOW, Some(0)), Err(LoginError::Wrong));
    }
    let (stored, totp) = (stored(&ben), secret(&ben));
    let used = Credentials { password: &stored, totp: &totp, last_step: Some(NOW / 30) };
    let again = Presence::prove(Some((&ben, &used)), &right, &code, NOW, None);
    assert_eq!(again.unwrap_err(), LoginError::Wrong, "a code that somebody watched is of no use");
    let disabled = Account { enabled: false, ..ben };
    assert_eq!(prove(&disabled, &right, &code, NOW, None), Err(LoginError::Wrong));
    assert_eq!(Presence::prove(None, &right, &code, NOW, None).unwrap_err(), LoginError::Wrong);
}

#[test]
fn an_approver_who_is_not_there_agrees_to_nothing() {
    refused(Refusal::Absent, |attempt| attempt.now = NOW + 60 + PRESENCE_LIFE);
    refused(Refusal::Absent, |attempt| attempt.now = NOW + 59);
    refused(Refusal::Absent, |attempt| attempt.presence = present(&attempt.requester, NOW + 60, None));
    let anna = account("anna", &ANNA, 1000, &[Role::Engineer]);
    let long_ago = present(&anna, NOW - PRESENCE_LIFE, None);
    let asked = Statement::new(Attempt::export().deed, &long_ago, NOW, 3600);
    assert_eq!(asked, Err(StatementError::Absent));
}

#[test]
fn a_statement_counts_for_its_time_only() {
    refused(Refusal::Expired, |attempt| attempt.statement.expires = attempt.now);
    refused(Refusal::Expired, |attempt| attempt.statement.expires = 0);
    refused(Refusal::Times, |attempt| attempt.statement.expires = attempt.statement.created + MAX_LIFE + 1);
    refused(Refusal::Times, |attempt| attempt.statement.expires = u64::MAX);
    refused(Refusal::Times, |attempt| {
        attempt.statement.created = attempt.now + 3600;
        attempt.statement.expires = attempt.now + 7200;
    });
}

#[test]
fn a_statement_counts_once() {
    refused(Refusal::Replayed, |attempt| attempt.used = true);
    let (first, second) = (Attempt::export(), Attempt::export());
    assert_ne!(first.statement.nonce, second.statement.nonce, "asking again is another statement");
}

#[test]
fn agreeing_to_one_thing_is_agreeing_to_nothing_else() {
    refused(Refusal::Subject, |attempt| attempt.deed.subject[31] ^= 1);
    refused(Refusal::Size, |attempt| attempt.deed.bytes += 1);
    refused(Refusal::Destination, |attempt| attempt.deed.destination = "elsewhere".into());
    refused(Refusal::Recipient, |attempt| attempt.deed.recipient = Some("age1another".into()));
    refused(Refusal::Recipient, |attempt| attempt.deed.recipient = None);
    refused(Refusal::Kind, |attempt| attempt.deed.kind = Kind::Policy);
}

#[test]
fn a_statement_that_was_changed_after_it_was_signed_is_refused() {
    let (good, mut changed) = (Attempt::export(), Attempt::export());
    let signed = good.sign();
    changed.statement = good.statement.clone();
    // The change is made where the deed is changed along with it, so that only the signatures can tell.
    changed.statement.deed.destination = "elsewhere".into();
    changed.deed.destination = "elsewhere".into();
    let text = changed.statement.to_text().unwrap();
    assert_eq!(
        changed.judge(&Approval { statement: text, ..signed.clone() }),
        Err(Refusal::RequestSignature)
    );
    // The requester signs the changed one again; the approver did not.
    let both = Approval { approval: signed.approval, ..changed.sign() };
    assert_eq!(changed.judge(&both), Err(Refusal::ApprovalSignature));
    // A longer life for what was agreed to.
    let mut longer = Attempt::export();
    longer.statement = Statement { expires: good.statement.expires + 60, ..good.statement.clone() };
    let text = longer.statement.to_text().unwrap();
    assert_eq!(longer.judge(&Approval { statement: text, ..signed }), Err(Refusal::RequestSignature));
}

#[test]
fn one_statement_has_one_spelling() {
    let attempt = Attempt::export();
    let signed = attempt.sign();
    let text = &signed.statement;
    let spellings = [
        text.replace(":4096", ": 4096"),
        text.replace(":4096", ":4096.0"),
        text.replace(":4096", ":4.096e3"),
        text.replace("archive", "\\u0061rchive"),
        text.replace("\"kind\":\"export\"", "\"kind\":\"export\",\"kind\":\"export\""),
        text.replace("\"uid\":null,", ""),
        text.replace("{\"version\":1,", "{\"version\":1,\"note\":\"\","),
        text.replace("\"version\":1", "\"version\":2"),
        text.to_uppercase(),
        format!("{text}\n"),
        format!(" {text}"),
        String::new(),
    ];
    for spelling in spellings {
        assert_ne!(spelling, *text);
        let approval = Approval { statement: spelling.clone(), ..signed.clone() };
        assert_eq!(attempt.judge(&approval), Err(Refusal::Form), "{spelling}");
    }
}

#[test]
fn asking_and_agreeing_are_two_signatures_by_two_keys() {
    let attempt = Attempt::export();
    let signed = attempt.sign();
    let swapped = Approval { request: signed.approval, approval: signed.request, ..signed.clone() };
    assert_eq!(attempt.judge(&swapped), Err(Refusal::RequestSignature));
    // The approver's signature under a request is none under an approval, even with the approver's own key.
    let asked = Approval { approval: attempt.statement.sign_request(&BEN).unwrap(), ..signed.clone() };
    assert_eq!(attempt.judge(&asked), Err(Refusal::ApprovalSignature));
    refused(Refusal::ApprovalSignature, |attempt| attempt.approval_seed = ANNA);
    refused(Refusal::ApprovalSignature, |attempt| attempt.approval_seed = [9; 32]);
    refused(Refusal::RequestSignature, |attempt| attempt.request_seed = [9; 32]);
    for none in [Approval { request: [0; 64], ..signed.clone() }, Approval { approval: [0; 64], ..signed }] {
        assert!(attempt.judge(&none).is_err());
    }
}

#[test]
fn both_need_the_right_at_the_moment_of_the_act() {
    refused(Refusal::ApproverRole, |attempt| {
        attempt.approver.roles = Roles::of(&[Role::Admin, Role::Engineer])
    });
    refused(Refusal::ApproverRole, |attempt| attempt.approver.roles = Roles::NONE);
    refused(Refusal::RequesterRole, |attempt| {
        attempt.requester.roles = Roles::of(&[Role::Viewer, Role::Approver])
    });
    refused(Refusal::Disabled, |attempt| attempt.approver.enabled = false);
    refused(Refusal::Disabled, |attempt| attempt.requester.enabled = false);
    let mut policy = Attempt::new(Kind::Policy);
    policy.requester.roles = Roles::of(&[Role::Engineer]);
    assert_eq!(policy.outcome(), Err(Refusal::RequesterRole));
}

#[test]
fn an_approver_made_by_the_requester_is_no_second_person() {
    refused(Refusal::Beholden, |attempt| attempt.approver.roles_by = vec!["anna".into(), "carla".into()]);
    refused(Refusal::Beholden, |attempt| attempt.approver.roles_by = vec!["carla".into(), "anna".into()]);
    refused(Refusal::Beholden, |attempt| attempt.approver.created_by = "anna".into());
    // An administrator gives the approver a new password and code, and logs in with them.
    refused(Refusal::Beholden, |attempt| attempt.approver.credentials_by = "anna".into());
}

#[test]
fn an_approver_made_for_the_occasion_is_refused() {
    refused(Refusal::NewRole, |attempt| attempt.approver.roles_since = attempt.statement.created + 1);
}

#[test]
fn another_accounts_request_is_not_taken_for_ones_own() {
    refused(Refusal::Requester, |attempt| attempt.statement.requester = "carla".into());
    refused(Refusal::Requester, |attempt| attempt.statement.requester = "Anna".into());
    refused(Refusal::Requester, |attempt| attempt.statement.requester = "аnna".into());
}

#[test]
fn nobody_agrees_to_their_own_roles() {
    let own = |spoil: fn(&mut Attempt)| {
        let mut attempt = Attempt::new(Kind::Role);
        spoil(&mut attempt);
        attempt.outcome()
    };
    let to_ben = |attempt: &mut Attempt| {
        attempt.deed.destination = "ben".into();
        attempt.statement.deed.destination = "ben".into();
        attempt.concerned = Some(attempt.approver.clone());
    };
    assert_eq!(own(to_ben), Err(Refusal::OwnRoles));
    // Through a second account of the approver's.
    assert_eq!(own(|attempt| attempt.concerned.as_mut().unwrap().uid = Some(1001)), Err(Refusal::OwnRoles));
    assert_eq!(own(|attempt| attempt.concerned = None), Err(Refusal::Concerned));
    assert_eq!(
        own(|attempt| attempt.concerned.as_mut().unwrap().id = "dora".into()),
        Err(Refusal::Concerned)
    );
    refused(Refusal::Concerned, |attempt| attempt.concerned = Some(attempt.approver.clone()));
}

#[test]
fn an_api_key_neither_asks_nor_agrees() {
    let key = ApiKey::generate().unwrap();
    let all = Roles::of(&Role::ALL);
    for act in
        [Act::ExportRequest, Act::ExportApprove, Act::PolicyApprove, Act::RoleApprove, Act::ModelApprove]
    {
        let scope = Scope::of(&[act, Act::StatusRead]);
        let record =
            KeyRecord { hash: key.hash, owner: "ben".into(), scope, expires: NOW + 60, revoked: false };
        assert_eq!(record.allow(&key.text, act, NOW, Some(all)), Err(KeyError::Scope));
        assert_eq!(record.allow(&key.text, Act::StatusRead, NOW, Some(all)), Ok(()));
    }
}

#[test]
fn names_with_line_ends_are_refused() {
    let attempt = Attempt::export();
    let presence = present(&attempt.requester, NOW, None);
    for destination in ["", "a\nb", &"x".repeat(513)] {
        let deed = Deed { destination: destination.into(), ..attempt.deed.clone() };
        assert_eq!(Statement::new(deed, &presence, NOW, 60), Err(StatementError::Text));
    }
    let deed = Deed { recipient: Some("a\u{7f}".into()), ..attempt.deed.clone() };
    assert_eq!(Statement::new(deed, &presence, NOW, 60), Err(StatementError::Text));
}

proptest! {
    #[test]
    fn a_statement_reads_back(
        kind in prop::sample::select(vec![Kind::Export, Kind::Policy, Kind::Role, Kind::Source]),
        subject: [u8; 32], bytes: u64, destination in "[^\\p{Cc}]{1,40}", recipient in prop::option::of("[^\\p{Cc}]{1,40}"),
        requester in "[a-z]{1,8}", uid: Option<u32>, created: u64, expires: u64, nonce: [u8; 16],
    ) {
        let deed = Deed { kind, subject, bytes, destination, recipient };
        let statement = Statement { deed, requester, uid, created, expires, nonce };
        let text = statement.to_text().unwrap();
        prop_assert_eq!(Statement::parse(&text).unwrap(), statement);
    }

    #[test]
    fn any_changed_byte_of_an_approval_is_refused(at: prop::sample::Index, bit in 0u32..8) {
        let attempt = Attempt::export();
        let signed = attempt.sign();
        let mut text = signed.statement.clone().into_bytes();
        let place = at.index(text.len() + 128);
        let mut changed = signed.clone();
        match place.checked_sub(text.len()) {
            None => {
                text[place] ^= 1 << bit;
                let Ok(text) = String::from_utf8(text) else { return Ok(()) };
                changed.statement = text;
            }
            Some(place) if place < 64 => changed.request[place] ^= 1 << bit,
            Some(place) => changed.approval[place - 64] ^= 1 << bit,
        }
        prop_assert!(attempt.judge(&changed).is_err());
    }
}
