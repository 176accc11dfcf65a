//! Attempts to get around the roles and the two-person rule on a real daemon, root's command line included. They need
//! root, who alone can call as several users of the machine.

#![allow(clippy::unwrap_used, clippy::panic)]
mod site;

use std::fs;
use std::process::Command;

use moat_contracts::Sampling;
use moat_protocol::control::{Fault, LedgerPage, NewAccount, Reply, Request, RunState, Secret, Statement};
use site::people::{ADA, BEN, OPERATOR, Person, can_be_others, refused};
use site::{Random, Site, prose, tiny_recipe};

const CLEO: u32 = 60_003;
const STRANGER: u32 = 60_099;

/// A site with a finished run.
fn trained() -> (Site, String) {
    let mut site = Site::new();
    for index in 0..40 {
        site.write(&format!("{index}.txt"), &prose(&mut Random(index), 10));
    }
    site.start();
    site.import_base();
    site.scan();
    let run = site.run(&tiny_recipe(6));
    assert_eq!(run.state, RunState::Done);
    (site, run.name)
}

fn statements(site: &Site) -> Vec<Statement> {
    match site.call(Request::Statements) {
        Reply::Statements(all) => all,
        other => panic!("{other:?}"),
    }
}

fn ledger(site: &Site, act: &str) -> LedgerPage {
    let request = Request::Ledger { act: Some(act.to_owned()), before: None, most: 1000 };
    let Reply::Ledger(page) = site.call(request) else { panic!() };
    page
}

#[track_caller]
fn denied(reply: Reply, part: &str) {
    let (fault, message) = refused(reply);
    assert_eq!(fault, Fault::Denied, "{message}");
    assert!(message.contains(part), "{message}");
}

fn out(site: &Site, name: &str) -> String {
    site.path("exports").join(name).display().to_string()
}

#[test]
fn nobody_agrees_to_what_they_asked_for_by_any_way() {
    if !can_be_others() {
        return;
    }
    let (mut site, run) = trained();
    // Before the site is set up nothing that takes two people happens at all.
    let nobody =
        Person::new("nobody", None, "would not be guessed", "otpauth://totp/x?secret=GEZDGNBVGY3TQOJQ&");
    let request = Request::Export {
        run: run.clone(),
        folder: out(&site, "early"),
        recipient: None,
        proof: nobody.proof(),
    };
    assert!(refused(site.call(request)).1.contains("set-up"));

    let people = site.set_up(&[
        ("operator", "steward,engineer,admin,auditor", Some(OPERATOR)),
        ("ada", "steward,engineer,admin,approver", Some(ADA)),
        ("ben", "approver", Some(BEN)),
        ("cleo", "approver", Some(CLEO)),
        ("dora", "approver", None),
    ]);
    let [operator, ada, ben, cleo, dora] = <[Person; 5]>::try_from(people).unwrap_or_else(|_| panic!());

    // Root's command line asks for nothing that takes two people.
    let request = Request::Export {
        run: run.clone(),
        folder: out(&site, "root"),
        recipient: None,
        proof: operator.proof(),
    };
    let Reply::Statement(by_root) = site.call(request) else { panic!() };
    denied(site.approve(BEN, &ben, &by_root), "root on the command line is not a person");

    let asked = site.ask_export(&ada, &run, &out(&site, "own"));
    // The requester has the approver's role too, and is still one person.
    denied(site.approve(ADA, &ada, &asked), "one person");
    // Another account's password and code at the requester's own command line.
    denied(site.approve(ADA, &dora, &asked), "one person");
    // Root's command line with a real approver's password and code.
    denied(site.approve(OPERATOR, &cleo, &asked), "`export.approve` is for the role approver");
    // Somebody whom nobody knows, with a real approver's password and code.
    denied(site.approve(STRANGER, &cleo, &asked), "may not call");
    assert!(!site.path("exports/own").exists());

    // A wrong code, and a code that was used, count for nothing; whoever goes on trying has to wait.
    let proof = ben.proof();
    let again = Request::Approve { id: asked.id.clone(), proof: proof.clone() };
    let wrong = Request::Approve { id: asked.id.clone(), proof: ben.proof_with("000000") };
    assert!(refused(site.call_as(BEN, wrong.clone())).1.contains("wrong"));
    let Reply::Exported(done) = site.call_as(BEN, again.clone()) else { panic!() };
    assert_eq!((done.statement.requester.as_str(), done.statement.approver.as_deref()), ("ada", Some("ben")));
    assert!(site.path("exports/own/model/model.safetensors").exists());
    // What was done is done once.
    assert!(refused(site.call_as(BEN, again)).1.contains("is done"));
    fs::remove_dir_all(site.path("exports/own")).unwrap();
    assert!(refused(site.approve(CLEO, &cleo, &asked)).1.contains("is done"));
    let second = site.ask_export(&ada, &run, &out(&site, "second"));
    let used = Request::Approve { id: second.id.clone(), proof };
    assert!(refused(site.call_as(BEN, used)).1.contains("wrong"));
    for _ in 0..4 {
        let wrong = Request::Approve { id: second.id.clone(), proof: ben.proof_with("000000") };
        site.call_as(BEN, wrong);
    }
    assert!(refused(site.approve(BEN, &ben, &second)).1.contains("is closed for"));

    // What was taken back cannot be agreed to, and its room is given back.
    let Reply::Statement(_) = site.call_as(ADA, Request::Withdraw { id: second.id.clone() }) else {
        panic!()
    };
    assert!(refused(site.approve(CLEO, &cleo, &second)).1.contains("withdrawn"));
    let run_folder = fs::read_dir(site.path("state/runs").join(&run)).unwrap();
    let names = run_folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(
        names.filter(|name| name.starts_with("export-")).count(),
        1,
        "what root asked for still waits"
    );

    // The ledger tells who asked, who agreed, and what left.
    let entry = &ledger(&site, "statement.approve").entries;
    let entry = entry.iter().find(|entry| entry.phase == "done").unwrap();
    assert_eq!((entry.detail["requester"].as_str(), entry.detail["approver"].as_str()), ("ada", "ben"));
    assert_eq!((&entry.on["sha256"], &entry.detail["destination"]), (&asked.hash, &out(&site, "own")));
    assert!(ledger(&site, "statement.approve").entries.iter().any(|entry| entry.phase == "refused"));
    site.end();
}

#[test]
fn nobody_makes_themselves_a_second_person() {
    if !can_be_others() {
        return;
    }
    let (mut site, run) = trained();
    let [_operator, ada, ben] = site.set_up_three();
    let account = |name: &str, uid| NewAccount {
        name: name.to_owned(),
        uid,
        roles: Vec::new(),
        password: Secret("a password of somebody".to_owned()),
    };

    // The site is set up once.
    denied(site.call_as(STRANGER, Request::SetUp { accounts: Vec::new() }), "may not call");
    denied(site.call(Request::SetUp { accounts: vec![account("eve", None)] }), "the site is set up");

    // An admin makes an account of her own, which comes without a role, also where one is asked for.
    let with_role = NewAccount { roles: vec!["approver".to_owned()], ..account("puppet", Some(CLEO)) };
    assert!(refused(site.call_as(ADA, Request::AccountCreate { account: with_role })).1.contains("no role"));
    let created = site.call_as(ADA, Request::AccountCreate { account: account("puppet", Some(CLEO)) });
    let Reply::Made(made) = created else { panic!("{created:?}") };
    let puppet = Person::new("puppet", Some(CLEO), "a password of somebody", &made[0].uri.0);
    let asked = site.ask_export(&ada, &run, &out(&site, "own"));
    denied(site.approve(CLEO, &puppet, &asked), "`export.approve` is for the role approver");

    // Its role takes two as well, and once it has one it is still beholden to who made it.
    let roles = Request::AccountRoles {
        name: "puppet".to_owned(),
        roles: vec!["approver".to_owned()],
        proof: ada.proof(),
    };
    let Reply::Statement(role) = site.call_as(ADA, roles) else { panic!() };
    denied(site.approve(CLEO, &puppet, &role), "for the role approver");
    let Reply::Statement(done) = site.approve(BEN, &ben, &role) else { panic!() };
    assert_eq!(done.state, "done");
    denied(site.approve(CLEO, &puppet, &asked), "made able to approve by the requester");

    // An admin gives the approver new credentials and uses them herself.
    let reset =
        Request::AccountReset { name: "ben".to_owned(), password: Secret("known to ada alone".to_owned()) };
    let Reply::Made(made) = site.call_as(ADA, reset) else { panic!() };
    let stolen = Person::new("ben", Some(BEN), "known to ada alone", &made[0].uri.0);
    denied(site.approve(BEN, &stolen, &asked), "made able to approve by the requester");
    // The old ones are void.
    assert!(refused(site.approve(BEN, &ben, &asked)).1.contains("wrong"));

    // A disabled account does nothing more.
    let Reply::Accounts(_) = site.call_as(ADA, Request::AccountDisable { name: "puppet".to_owned() }) else {
        panic!()
    };
    denied(site.approve(CLEO, &puppet, &asked), "may not call");
    // An approver runs nothing and reads no texts; root without the role agrees to nothing.
    denied(
        site.call_as(BEN, Request::RunStart { recipe: Box::new(tiny_recipe(3)) }),
        "for the role engineer",
    );
    denied(site.call_as(BEN, Request::VaultRotate), "for the role admin");
    denied(site.call_as(STRANGER, Request::Status), "may not call");
    assert!(!site.path("exports/own").exists());
    site.end();
}

#[test]
fn what_waits_cannot_be_exchanged_and_the_file_of_the_catalog_holds_the_rule_too() {
    if !can_be_others() {
        return;
    }
    let (mut site, run) = trained();
    let [_operator, ada, ben] = site.set_up_three();
    let asked = site.ask_export(&ada, &run, &out(&site, "own"));

    // Root exchanges what waits for what an earlier state of the same run sealed.
    let staging = fs::read_dir(site.path("state/runs").join(&run)).unwrap();
    let staging = staging.map(|entry| entry.unwrap().path());
    let staging = staging.into_iter().find(|path| path.to_str().unwrap().contains("export-")).unwrap();
    let (sums, card) = (staging.join("SHA256SUMS.sealed"), staging.join("README.md.sealed"));
    let whole = fs::read(&sums).unwrap();
    fs::copy(&card, &sums).unwrap();
    assert!(matches!(refused(site.approve(BEN, &ben, &asked)).0, Fault::Internal | Fault::Denied));
    fs::write(&sums, whole).unwrap();

    // Root writes into the catalog with a tool of its own.
    let sqlite = |sql: &str| {
        let output = Command::new("sqlite3").arg(site.path("state/catalog.db")).arg(sql).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let one = format!("nonce = x'{}'", asked.id);
    for (sql, part) in [
        (format!("UPDATE statements SET state = 'agreed' WHERE {one}"), "a statement takes two people"),
        (
            format!("UPDATE statements SET state = 'agreed', approver = requester, approval = zeroblob(64) WHERE {one}"),
            "two people",
        ),
        (format!("UPDATE statements SET state = 'done' WHERE {one}"), "counts once"),
        (format!("UPDATE statements SET expires = expires + 9 WHERE {one}"), "counts once"),
        (format!("UPDATE statements SET text = '{{}}' WHERE {one}"), "counts once"),
        (format!("DELETE FROM statements WHERE {one}"), "a statement stays"),
        ("UPDATE accounts SET roles = 'approver' WHERE name = 'ada'".to_owned(), "by an agreed statement"),
        ("DELETE FROM accounts WHERE name = 'ben'".to_owned(), "an account stays"),
        ("DELETE FROM policies".to_owned(), "a policy stays"),
        ("UPDATE policies SET text = ''".to_owned(), "a policy stays"),
        (
            "INSERT INTO policies (hash, text, since) VALUES (zeroblob(32), '', 1)".to_owned(),
            "by an agreed statement",
        ),
        (
            "INSERT INTO accounts SELECT 'x', 'eve', 7, 'approver', 1, 1, '', '', '', 1, zeroblob(32), NULL, \
             credentials, NULL, 0, 0 FROM accounts WHERE name = 'ben'"
                .to_owned(),
            "a new account has no role",
        ),
    ] {
        let (done, said) = sqlite(&sql);
        assert!(!done && said.contains(part), "{sql}: {said}");
    }
    // And where root takes the triggers away first, a changed account opens no more.
    let drop = "DROP TRIGGER roles_take_two; UPDATE accounts SET roles = 'steward,engineer,admin,approver' WHERE \
                name = 'ada'";
    assert!(sqlite(drop).0);
    let (fault, message) = refused(site.call_as(BEN, Request::Status));
    assert!(fault == Fault::Internal && message.contains("damaged account"), "{message}");
    assert!(!site.path("exports/own").exists());
    site.kill();
}

#[test]
fn accounts_deleted_behind_moats_back_give_nobody_their_rights() {
    if !can_be_others() {
        return;
    }
    let mut site = Site::new();
    site.start();
    site.scan();
    site.set_up_three();
    let sql =
        "DROP TRIGGER accounts_stay; DROP TRIGGER policies_stay; DELETE FROM accounts; DELETE FROM policies";
    let deleted = Command::new("sqlite3").arg(site.path("state/catalog.db")).arg(sql).status().unwrap();
    assert!(deleted.success());
    denied(site.call(Request::Scan), "this user has no account");
    denied(site.call(Request::SetUp { accounts: Vec::new() }), "the site is set up");
    site.end();
    site.start();
    denied(site.call(Request::Scan), "this user has no account");
    denied(site.call(Request::SetUp { accounts: Vec::new() }), "the site is set up");
    site.end();
}

#[test]
fn a_policy_that_only_the_configuration_says_stops_the_work() {
    if !can_be_others() {
        return;
    }
    let (mut site, run) = trained();
    let [_operator, ada, ben] = site.set_up_three();
    let asked = site.ask_export(&ada, &run, &out(&site, "own"));
    site.end();
    // Root adds a way out and starts again.
    let settings = fs::read_to_string(site.path("moat.toml")).unwrap();
    let elsewhere = site.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let wider = settings.replace("exports = [", &format!("exports = [\"{}\", ", elsewhere.display()));
    assert_ne!(wider, settings);
    fs::write(site.path("moat.toml"), wider).unwrap();
    site.start();
    let held = "another policy than the one that was agreed to";
    denied(site.call(Request::Scan), held);
    denied(site.call(Request::RunStart { recipe: Box::new(tiny_recipe(3)) }), held);
    let sampling = Sampling { temperature: 0.0, top_p: 1.0, seed: 1, max_tokens: 4 };
    denied(site.call(Request::Ask { run: None, prompt: "The".to_owned(), chat: false, sampling }), held);
    let folder = elsewhere.join("own").display().to_string();
    let request = Request::Export { run: run.clone(), folder, recipient: None, proof: ada.proof() };
    denied(site.call_as(ADA, request), held);
    let Reply::Status(status) = site.call(Request::Status) else { panic!() };
    assert!(status.alarm.unwrap().contains(held) && status.waiting == 1);
    // Agreeing to what was asked for before does not get around it either.
    denied(site.approve(BEN, &ben, &asked), held);

    let Reply::Statement(policy) = site.call_as(ADA, Request::PolicyRequest { proof: ada.proof() }) else {
        panic!()
    };
    denied(site.approve(ADA, &ada, &policy), "approver");
    let Reply::Statement(done) = site.approve(BEN, &ben, &policy) else { panic!() };
    assert_eq!(done.state, "done");
    site.scan();
    // With the old configuration it is the other way around.
    site.end();
    fs::write(site.path("moat.toml"), settings).unwrap();
    site.start();
    denied(site.call(Request::Scan), held);
    assert_eq!(statements(&site).len(), 2);
    site.end();
}

#[test]
fn an_api_key_does_what_it_is_for_and_is_served_no_more_than_its_cap() {
    if !can_be_others() {
        return;
    }
    let mut site = Site::new();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = fs::read_to_string(site.path("moat.toml")).unwrap();
    let settings = settings.replace("[boundary]\n", "[boundary]\ncompletions_share = 0.5\n");
    fs::write(site.path("moat.toml"), format!("[admin]\nlisten = \"{address}\"\n\n{settings}")).unwrap();
    for index in 0..40 {
        site.write(&format!("{index}.txt"), &prose(&mut Random(index), 10));
    }
    site.start();
    site.import_base();
    site.scan();
    site.run(&tiny_recipe(3));
    site.set_up_three();

    // A key is for what a key can be for, and for nothing that its owner may not.
    let create = |scope: &[&str]| Request::ApiKeyCreate {
        name: "ide".to_owned(),
        scope: scope.iter().map(|act| (*act).to_owned()).collect(),
        days: 30,
    };
    assert!(refused(site.call_as(ADA, create(&["export.request"]))).1.contains("only for people"));
    assert!(refused(site.call_as(ADA, create(&["role.approve"]))).1.contains("only for people"));
    assert!(refused(site.call_as(ADA, create(&["ledger.write"]))).1.contains("no act"));
    denied(site.call_as(BEN, create(&["model.ask"])), "key.create");
    let Reply::ApiKey(key) = site.call_as(ADA, create(&["model.ask", "dataset.build"])) else { panic!() };

    let authority = site.path("state/tls/authority.pem");
    while !authority.exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let post = |key: Option<&str>, verb: &str, body: &str| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "60", "--noproxy", "*", "--cacert"]).arg(&authority);
        curl.args([
            "--retry",
            "5",
            "--retry-all-errors",
            "--write-out",
            "\n%{http_code}",
            "--data-binary",
            body,
        ]);
        if let Some(key) = key {
            curl.arg("--header").arg(format!("Authorization: Bearer {key}"));
        }
        let output = curl.arg(format!("https://{address}/api/v1/{verb}")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse::<u16>().unwrap(), body.to_owned())
    };
    let ask = r#"{"prompt":"The pump","chat":false,"sampling":{"temperature":0,"top_p":1,"seed":1,"max_tokens":8}}"#;
    assert_eq!(post(None, "ask", ask).0, 401);
    assert_eq!(post(Some("moat_wrong"), "ask", ask).0, 403);
    let last = if key.0.ends_with('0') { '1' } else { '0' };
    let other = format!("{}{last}", &key.0[..key.0.len() - 1]);
    assert_eq!(post(Some(&other), "ask", ask).0, 403);
    let (status, body) = post(Some(&key.0), "ask", ask);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"tuned\""), "{body}");
    assert_eq!(post(Some(&key.0), "ask", "{").0, 400);
    assert_eq!(post(Some(&key.0), "fly", "").0, 400);
    // Beyond its scope, and for people alone.
    let proof = r#""proof":{"name":"ada","password":"x","code":"1"}"#;
    let export = format!(r#"{{"run":"tiny","folder":"{}","recipient":null,{proof}}}"#, out(&site, "own"));
    for (verb, body) in
        [("ledger", r#"{"act":null,"before":null,"most":1}"#), ("export", &export), ("vault_seal", "")]
    {
        let (status, answer) = post(Some(&key.0), verb, body);
        assert!(status == 403 && answer.contains("scope"), "{verb}: {status} {answer}");
    }
    // Half of the tiny model's bytes a day, and not one more.
    let mut answers = 1;
    let said = loop {
        match post(Some(&key.0), "ask", ask) {
            (200, _) => answers += 1,
            (status, answer) => break (status, answer),
        }
        assert!(answers < 100);
    };
    assert!(said.0 == 403 && said.1.contains("boundary.completions_share"), "{said:?}");
    let Reply::ApiKeys(keys) = site.call_as(ADA, Request::ApiKeys) else { panic!() };
    assert!(keys[0].served <= keys[0].cap.unwrap() && keys[0].served > 0, "{keys:?}");

    let Reply::ApiKeys(_) = site.call_as(ADA, Request::ApiKeyRevoke { id: keys[0].id.clone() }) else {
        panic!()
    };
    let (status, answer) = post(Some(&key.0), "ask", ask);
    assert!(status == 403 && answer.contains("revoked"), "{status} {answer}");
    // Neither the key nor a password is in any file; what nobody knows fills no ledger.
    for _ in 0..80 {
        post(Some("moat_wrong"), "ask", ask);
    }
    let refusals = ledger(&site, "model.ask").entries;
    assert!(refusals.iter().filter(|entry| entry.phase == "refused").count() <= 70);
    let mut grep = Command::new("grep");
    grep.args(["-rlaF", "-e", &key.0, "-e", "would not be guessed"]).arg(site.path("state"));
    assert!(grep.output().unwrap().stdout.is_empty());
    site.end();
}
