use moat_protocol::control::{Account, ApiKey, MadeAccount, Reply, Secret, Statement};

use super::{assert_shown, shown};

pub(super) fn statement(state: &str) -> Statement {
    Statement {
        id: "3f2a".repeat(8),
        kind: "export".to_owned(),
        what: "export run demo-1".to_owned(),
        hash: "ab".repeat(32),
        bytes: 9_000_000,
        destination: "/srv/out".to_owned(),
        recipient: None,
        requester: "ada".to_owned(),
        approver: None,
        created: 1_790_000_000,
        expires: 1_790_259_200,
        state: state.to_owned(),
        message: None,
        text: "{}".to_owned(),
        source: None,
    }
}

#[test]
fn what_takes_two_people_is_shown_whole_to_whom_it_is_asked() {
    assert_shown(
        &Reply::Statement(Box::new(statement("waiting"))),
        "
statement  3f2a3f2a3f2a3f2a3f2a3f2a3f2a3f2a
what       export run demo-1
to         /srv/out
sha256     abababababababababababababababababababababababababababababababab
size       8.58 MiB
asked by   ada, 2026-09-21 14:13
state      waiting

Somebody else agrees with `moat statement approve 3f2a3f2a`, until 2026-09-24 14:13.
",
    );
    assert_shown(
        &Reply::Statements(vec![
            statement("waiting"),
            Statement { approver: Some("ben".to_owned()), ..statement("done") },
        ]),
        "
statement  what               to            size  asked by  agreed by  asked             state
3f2a3f2a   export run demo-1  /srv/out  8.58 MiB  ada                  2026-09-21 14:13  waiting
3f2a3f2a   export run demo-1  /srv/out  8.58 MiB  ada       ben        2026-09-21 14:13  done
",
    );
    assert_shown(&Reply::Statements(Vec::new()), "\nnothing took two people yet\n");
}

#[test]
fn accounts_and_keys_are_tables_and_secrets_are_shown_once() {
    let account = Account {
        name: "ada".to_owned(),
        id: "00".to_owned(),
        uid: Some(1000),
        roles: vec!["steward".to_owned(), "engineer".to_owned()],
        enabled: true,
        created: 1_790_000_000,
        roles_since: 1_790_000_000,
    };
    let ben =
        Account { name: "ben".to_owned(), uid: None, roles: Vec::new(), enabled: false, ..account.clone() };
    assert_shown(
        &Reply::Accounts(vec![account, ben]),
        "
account  user  roles              since
ada      1000  steward, engineer  2026-09-21 14:13
ben            none               2026-09-21 14:13  disabled
",
    );
    let key = ApiKey {
        id: "3f2a3f2a".to_owned(),
        name: "ide".to_owned(),
        owner: "ada".to_owned(),
        scope: vec!["model.ask".to_owned()],
        created: 1_790_000_000,
        expires: 1_797_776_000,
        revoked: None,
        served: 2048,
        cap: Some(104_858),
    };
    assert_shown(
        &Reply::ApiKeys(vec![key]),
        "
key       name  of   for               served today  counts
3f2a3f2a  ide   ada  model.ask  2.00 KiB of 102 KiB  until 2026-12-20 14:13
",
    );
    let made = MadeAccount { name: "ada".to_owned(), uri: Secret("otpauth://totp/x".to_owned()) };
    assert!(shown(&Reply::Made(vec![made])).starts_with("ada\notpauth://totp/x\n"));
    assert!(shown(&Reply::ApiKey(Secret("moat_x".to_owned()))).starts_with("moat_x\nIt is shown this once."));
}
