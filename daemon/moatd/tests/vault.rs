//! A real `moatd` with its vault: sealed until people open it, everything on record, nothing plain on disk.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod site;

use std::fs;
use std::path::Path;

use moat_ledger::{PublicKey, verify, verify_receipt};
use moat_protocol::control::{Fault, Key, LedgerPage, NewSlot, Reply, Request, RunState, Seal, Secret};

use site::{Random, Site, prose, tiny_recipe};

fn passphrase(text: &str) -> Secret {
    Secret(text.to_owned())
}

fn seal(site: &Site) -> Seal {
    let Reply::Status(status) = site.call(Request::Status) else { panic!() };
    status.seal
}

fn refused(reply: &Reply, with: Fault) {
    assert!(matches!(reply, Reply::Failed { fault, .. } if *fault == with), "{reply:?}");
}

fn ledger(site: &Site, act: &str) -> LedgerPage {
    let request = Request::Ledger { act: Some(act.to_owned()), before: None, most: 1000 };
    let Reply::Ledger(page) = site.call(request) else { panic!() };
    page
}

#[test]
fn a_daemon_without_a_key_is_sealed_until_people_open_it() {
    let mut site = Site::without_credential();
    for index in 0..6 {
        site.write(&format!("{index}.txt"), &prose(&mut Random(index), 10));
    }
    site.start();
    assert_eq!((seal(&site).made, seal(&site).sealed), (false, true));
    refused(&site.call(Request::Scan), Fault::Sealed);
    refused(&site.call(Request::Runs), Fault::Sealed);
    refused(
        &site.call(Request::VaultInit { with: NewSlot::Passphrase(passphrase("short")) }),
        Fault::Request,
    );
    let init = Request::VaultInit { with: NewSlot::Passphrase(passphrase("correct horse battery")) };
    assert_eq!(site.call(init.clone()), Reply::Shares(Vec::new()));
    refused(&site.call(init), Fault::Request);
    site.scan();
    let Reply::Status(status) = site.call(Request::Status) else { panic!() };
    assert_eq!(status.sources["documents"].present, 6);

    // Sealed on request: at once, and for everything.
    let Reply::Seal(sealed) = site.call(Request::VaultSeal) else { panic!() };
    assert!(sealed.sealed);
    refused(&site.call(Request::Why { path: "1.txt".to_owned() }), Fault::Sealed);
    let open = |text: &str| site.call(Request::VaultUnseal { with: Key::Passphrase(passphrase(text)) });
    refused(&open("correct horse battery staple"), Fault::Request);
    assert!(seal(&site).sealed);
    assert!(matches!(open("correct horse battery"), Reply::Seal(Seal { sealed: false, .. })));
    refused(&open("correct horse battery"), Fault::Request);

    // Shares: two of three people, and no fewer.
    let shares = Request::VaultSlotAdd { with: NewSlot::Shares { needed: 2, of: 3 } };
    let Reply::Shares(shares) = site.call(shares) else { panic!() };
    assert_eq!((shares.len(), seal(&site).slots.len()), (3, 2));
    assert!(matches!(site.call(Request::VaultSlotRemove { id: seal(&site).slots[0].id }), Reply::Seal(_)));
    site.end();
    site.start();
    refused(&site.call(Request::Scan), Fault::Sealed);
    let give = |share: &Secret| site.call(Request::VaultUnseal { with: Key::Share(share.clone()) });
    let (rest, last) = shares[0].0.split_at(shares[0].0.len() - 1);
    let damaged = format!("{rest}{}", if last == "7" { "8" } else { "7" });
    refused(&give(&Secret(damaged)), Fault::Request);
    let Reply::Seal(one) = give(&shares[2]) else { panic!() };
    assert_eq!((one.sealed, one.shares_given), (true, 1));
    refused(&give(&shares[2]), Fault::Request);
    assert!(matches!(give(&shares[0]), Reply::Seal(Seal { sealed: false, .. })));
    let Reply::Why(why) = site.call(Request::Why { path: "1.txt".to_owned() }) else { panic!() };
    assert_eq!(why[0].records.len(), 1);
    site.end();
}

#[test]
fn a_run_that_is_sealed_goes_on_when_the_vault_is_opened_again() {
    let mut site = Site::new();
    for index in 0..40 {
        site.write(&format!("{index}.txt"), &prose(&mut Random(index), 10));
    }
    site.start();
    site.import_base();
    site.scan();
    let add = Request::VaultSlotAdd { with: NewSlot::Passphrase(passphrase("another way to get in")) };
    assert!(matches!(site.call(add), Reply::Shares(_)));
    let name = site.start_run(&tiny_recipe(4000));
    while !site.path("state/runs").join(&name).join("checkpoint").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(matches!(site.call(Request::VaultSeal), Reply::Seal(_)));
    while site.kill_engine() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let open = Request::VaultUnseal { with: Key::Passphrase(passphrase("another way to get in")) };
    assert!(matches!(site.call(open), Reply::Seal(Seal { sealed: false, .. })));
    let Reply::Run(run) = site.call(Request::Run { name: name.clone() }) else { panic!() };
    assert_eq!(run.state, RunState::Training, "{:?}", run.message);
    assert!(matches!(site.call(Request::RunStop { name }), Reply::Run(_)));
    site.end();
}

#[test]
fn every_act_is_in_a_ledger_that_an_auditor_verifies_alone() {
    let mut site = Site::new();
    for index in 0..40 {
        site.write(&format!("{index}.txt"), &prose(&mut Random(index), 10));
    }
    site.start();
    site.import_base();
    site.scan();
    let run = site.run(&tiny_recipe(20));
    assert!(matches!(site.call(Request::VaultRotate), Reply::Seal(Seal { generation: Some(2), .. })));
    assert_eq!(site.run(&tiny_recipe(20)).outcome.unwrap().weights, run.outcome.as_ref().unwrap().weights);

    let trained = ledger(&site, "run.train");
    assert_eq!(trained.entries.len(), 4);
    let done = &trained.entries[0];
    assert_eq!(done.detail["weights"], run.outcome.unwrap().weights.to_string());
    assert_eq!(done.on["dataset"], run.dataset.unwrap().to_string());
    for act in ["base.import", "source.take-in", "source.scan", "run.start", "vault.rotate", "vault.unseal"] {
        assert!(!ledger(&site, act).entries.is_empty(), "{act}");
    }
    let own = rustix::process::geteuid().as_raw();
    assert!(ledger(&site, "base.import").entries.iter().all(|entry| entry.uid == Some(own)));
    let key = PublicKey::from_text(&trained.key.unwrap()).unwrap();
    let Reply::Receipt(receipt) = site.call(Request::LedgerReceipt { index: done.index }) else { panic!() };
    assert_eq!(verify_receipt(&receipt, &key).unwrap().0.act, "run.train");
    site.end();

    let folder = site.path("state/ledger");
    let report = verify(&folder, &key, None).unwrap();
    assert!(report.is_sound() && report.covered == report.entries, "{report:?}");
    let mut entries: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.retain(|path| path.is_file() && fs::metadata(path).unwrap().len() > 1000);
    let largest = entries.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(largest, bytes).unwrap();
    assert!(!verify(&folder, &key, None).unwrap().is_sound());
}

#[test]
fn a_hole_that_the_canary_finds_seals_the_vault() {
    let mut site = Site::new();
    let hole = site.path("hole.sock");
    let policy = include_str!("../../../config/sandbox.toml");
    let policy = policy.replace("\"accept4\", \"bind\",", "\"accept4\", \"bind\", \"connect\",");
    let policy = policy.replacen("sockets = [", &format!("sockets = [\"{}\",", hole.display()), 1);
    fs::write(site.path("sandbox.toml"), policy).unwrap();
    let settings = fs::read_to_string(site.path("moat.toml")).unwrap();
    let sandbox = site.path("sandbox.toml").display().to_string();
    let boundary = format!("[boundary]\ncanary_seconds = 1\nsandbox = \"{sandbox}\"\n");
    fs::write(site.path("moat.toml"), settings.replace("[boundary]\n", &boundary)).unwrap();
    site.write("a.txt", &prose(&mut Random(1), 10));
    site.start();
    site.scan();
    let status = |site: &Site| match site.call(Request::Status) {
        Reply::Status(status) => status,
        other => panic!("{other:?}"),
    };
    while status(&site).canary.flown.is_none() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let closed = status(&site);
    assert!(!closed.seal.sealed && closed.alarm.is_none(), "{closed:?}");
    assert!(closed.canary.ways.len() > 20 && closed.canary.ways.values().all(|(_, open)| *open == 0));

    let _listening = std::os::unix::net::UnixListener::bind(&hole).unwrap();
    while !status(&site).seal.sealed {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let alarm = status(&site).alarm.unwrap();
    assert!(alarm.contains("hole.sock"), "{alarm}");
    refused(&site.call(Request::Scan), Fault::Sealed);
    while ledger(&site, "canary.open").entries.is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let entries = ledger(&site, "canary.open").entries;
    assert!(entries[0].detail["way"].contains("hole.sock") && entries[0].on["process"] == "moatd");
    site.end();
}

#[test]
fn the_admin_port_tells_how_the_box_stands_and_nothing_else() {
    let mut site = Site::without_credential();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = fs::read_to_string(site.path("moat.toml")).unwrap();
    fs::write(site.path("moat.toml"), format!("[admin]\nlisten = \"{address}\"\n\n{settings}")).unwrap();
    site.write("Termination of Mr Smith.txt", &prose(&mut Random(1), 10));
    site.start();
    let curl = |arguments: &[&str], path: &str| {
        let mut curl = std::process::Command::new("curl");
        curl.args(["--silent", "--noproxy", "*", "--write-out", " %{http_code}"]).args(arguments);
        let output = curl.arg(format!("https://localhost:{}{path}", address.port())).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let sealed = curl(&["--insecure"], "/");
    assert!(
        sealed.contains("Sealed") && sealed.contains("moat vault init") && sealed.ends_with(" 200"),
        "{sealed}"
    );
    let init = Request::VaultInit { with: NewSlot::Passphrase(passphrase("correct horse battery")) };
    assert_eq!(site.call(init), Reply::Shares(Vec::new()));
    site.scan();
    let authority = site.path("state/tls/authority.pem");
    while !authority.exists() || curl(&["--cacert", authority.to_str().unwrap()], "/").ends_with(" 000") {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let open = curl(&["--cacert", authority.to_str().unwrap()], "/");
    assert!(open.contains("In order") && !open.contains("Smith"), "{open}");
    assert!(curl(&["--cacert", authority.to_str().unwrap()], "/api/v1/health").ends_with(" 200"));
    site.end();
    // The same authority vouches for the next certificate, and its key never lay there in the open.
    let before = fs::read(&authority).unwrap();
    site.start();
    let open = Request::VaultUnseal { with: Key::Passphrase(passphrase("correct horse battery")) };
    assert!(matches!(site.call(open), Reply::Seal(_)));
    while curl(&["--cacert", authority.to_str().unwrap()], "/").ends_with(" 000") {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(fs::read(&authority).unwrap(), before);
    each_file(&site.path("state/tls"), &mut |path| {
        let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        assert!(!text.contains("PRIVATE KEY"), "{}", path.display());
    });
    site.end();
}

/// A string that stands nowhere by chance.
fn mark(number: u64) -> String {
    format!("mark{:016x}", Random(77 + number).next())
}

/// Makes a folder a repository with one commit.
fn commit(folder: &Path, message: &str) {
    for arguments in [&["init", "--quiet"][..], &["add", "."], &["commit", "--quiet", "--message", message]] {
        let identity =
            ["-c", "user.name=Ada", "-c", "user.email=ada@site.example", "-c", "commit.gpgsign=false"];
        let mut command = std::process::Command::new("git");
        assert!(command.args(identity).args(arguments).current_dir(folder).status().unwrap().success());
    }
}

#[test]
fn nothing_that_the_company_wrote_stands_in_any_file() {
    let mut site = Site::new();
    let mut marks = Vec::new();
    let mut take = || {
        marks.push(mark(marks.len() as u64));
        marks[marks.len() - 1].clone()
    };
    for index in 0..100 {
        let mut text = || format!("{}The mark is {}.\n", prose(&mut Random(index), 9), take());
        let table: String =
            (0..30).map(|row| format!("{row},{}\n", text().replace(['\n', ','], " "))).collect();
        let json = |text: String| serde_json::json!({ "text": text }).to_string();
        site.write(&format!("plain/{index}.txt"), &text());
        site.write(&format!("notes/{index}.md"), &format!("# Title {index}\n\n{}", text()));
        site.write(&format!("web/{index}.html"), &format!("<html><body><p>{}</p></body></html>", text()));
        site.write(&format!("lines/{index}.jsonl"), &format!("{}\n{{torn\n{}\n", json(text()), json(text())));
        site.write(
            &format!("code/{index}.py"),
            &format!("def run():\n    \"\"\"{}\"\"\"\n    return 1\n", text()),
        );
        site.write(&format!("short/{index}.txt"), &format!("Dropped: {}.\n", take()));
        site.write(&format!("named/{}/{}.txt", take(), take()), &prose(&mut Random(5000 + index), 9));
        site.write(&format!("table/{index}.csv"), &format!("number,text\n{table}"));
        site.write(&format!("binary/{index}.bin"), &format!("\0\u{1}{}\0", take()));
    }
    for index in 0..60 {
        let text = format!("{}The branch calls it {}.\n", prose(&mut Random(7000 + index), 9), take());
        site.write(&format!("../tree/{}/{index}.txt", take()), &text);
    }
    commit(&site.path("tree"), &take());
    let settings = fs::read_to_string(site.path("moat.toml")).unwrap();
    let tree = site.path("tree").display().to_string();
    let source = format!("\n[[source]]\nname = \"tree\"\nkind = \"git\"\npath = \"{tree}\"\n");
    fs::write(site.path("moat.toml"), settings + &source).unwrap();
    assert!(marks.len() > 1000);
    site.start();
    site.import_base();
    site.scan();
    let Reply::Status(status) = site.call(Request::Status) else { panic!() };
    assert_eq!((status.sources["tree"].present, &status.sources["tree"].fault), (60, &None));
    let mut recipe = tiny_recipe(12);
    recipe.train.checkpoint_every = 3;
    let run = site.run(&recipe);
    marks.push("prompt-that-nobody-may-see".to_owned());
    let sampling = moat_contracts::Sampling { temperature: 0.0, top_p: 1.0, seed: 1, max_tokens: 4 };
    let prompt = marks[marks.len() - 1].clone();
    let ask = Request::Ask { run: Some(run.name), prompt, chat: false, sampling };
    assert!(matches!(site.call(ask), Reply::Answer(_)));
    // One document goes, one changes, one is asked for: their traces must not stay either.
    fs::remove_file(site.path("documents/plain/7.txt")).unwrap();
    site.write("plain/8.txt", &prose(&mut Random(9000), 9));
    site.scan();
    assert!(matches!(site.call(Request::Why { path: "plain/9.txt".to_owned() }), Reply::Why(_)));
    assert!(matches!(site.call(Request::VaultRotate), Reply::Seal(_)));
    // Nor in files that have no name any more, or never had one.
    let nameless = site.nameless();
    // Killed rather than ended, so that the write-ahead log stays.
    site.kill();

    let (mut files, mut bytes) = (0, 0);
    let mut check = |path: &Path| {
        let content = fs::read(path).unwrap();
        (files, bytes) = (files + 1, bytes + content.len());
        let found = memchr_any(&content);
        assert!(found.is_none(), "{} holds {}", path.display(), found.unwrap());
        let name = path.display().to_string();
        assert!(!marks.iter().any(|mark| name.contains(mark.as_str())), "{name}");
    };
    each_file(&site.path("state"), &mut check);
    each_file(&site.path("tmp"), &mut check);
    check(&site.path("log"));
    for (name, content) in nameless {
        let found = memchr_any(&content);
        assert!(found.is_none(), "{name} holds {}", found.unwrap());
    }
    assert!(files > 10 && bytes > 1 << 20, "{files} files, {bytes} bytes");

    fn memchr_any(content: &[u8]) -> Option<String> {
        let begins = content.windows(4).enumerate().filter(|(_, part)| *part == b"mark");
        let all = begins
            .map(|(at, _)| String::from_utf8_lossy(&content[at..content.len().min(at + 20)]).into_owned());
        let known: std::collections::BTreeSet<String> = (0..2000).map(mark).collect();
        let prompt = "prompt-that-nobody-may-see";
        let asked = content.windows(prompt.len()).any(|part| part == prompt.as_bytes());
        all.filter(|found| known.contains(found)).chain(asked.then(|| prompt.to_owned())).next()
    }
}

/// Calls back with every file below a folder.
fn each_file(folder: &Path, each: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { each_file(&path, each) } else { each(&path) }
    }
}
