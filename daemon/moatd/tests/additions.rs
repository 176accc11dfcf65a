//! Sources that people add and remove while a real `moatd` runs, and attempts to get around the folders and the two people
//! that this takes. They need root, who alone can call as several users of the machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod site;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use moat_contracts::Dataset;
use moat_protocol::Hello;
use moat_protocol::control::{
    Fault, LedgerPage, Reply, Request, SourceDefinition, SourceStatus, Statement, Why,
};
use site::browser::Browser;
use site::people::{ADA, BEN, Person, can_be_others, refused};
use site::{Random, Site, prose, tiny_recipe};

/// Documents of the source that is added.
const PAGES: u64 = 6;

/// A site in whose folder `more` people may add sources, `more/book` among them.
fn open_site() -> Site {
    let site = Site::new();
    for index in 0..30 {
        site.write(&format!("{index}.txt"), &prose(&mut Random(index), 10));
    }
    fs::create_dir_all(site.path("more/book")).unwrap();
    for index in 0..PAGES {
        let text = prose(&mut Random(100 + index), 10);
        fs::write(site.path(&format!("more/book/page-{index}.txt")), text).unwrap();
    }
    change(&site, "[boundary]\n", &format!("[boundary]\nsources = [\"{}\"]\n", site.path("more").display()));
    site
}

/// Changes the configuration.
fn change(site: &Site, from: &str, to: &str) {
    let text = fs::read_to_string(site.path("moat.toml")).unwrap();
    assert!(text.contains(from));
    fs::write(site.path("moat.toml"), text.replacen(from, to, 1)).unwrap();
}

fn sources(site: &Site) -> BTreeMap<String, SourceStatus> {
    match site.call(Request::Sources) {
        Reply::Sources(all) => all,
        other => panic!("{other:?}"),
    }
}

fn build(site: &Site) -> Dataset {
    match site.call(Request::DatasetBuild { recipe: Box::new(tiny_recipe(1)) }) {
        Reply::Dataset(dataset) => *dataset,
        other => panic!("{other:?}"),
    }
}

fn why(site: &Site, path: &str) -> Why {
    match site.call(Request::Why { path: path.to_owned() }) {
        Reply::Why(mut whys) if whys.len() == 1 => whys.remove(0),
        other => panic!("{other:?}"),
    }
}

fn ledger(site: &Site, act: &str) -> LedgerPage {
    let request = Request::Ledger { act: Some(act.to_owned()), before: None, most: 1000 };
    match site.call(request) {
        Reply::Ledger(page) => page,
        other => panic!("{other:?}"),
    }
}

fn asked(reply: Reply) -> Statement {
    match reply {
        Reply::Statement(statement) => *statement,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn says(reply: Reply, fault: Fault, part: &str) {
    let (found, message) = refused(reply);
    assert!(found == fault && message.contains(part), "{found:?}: {message}");
}

fn remove(site: &Site, uid: u32, source: &str) -> Reply {
    site.call_as(uid, Request::SourceRemove { source: source.to_owned() })
}

#[test]
fn a_source_that_two_people_add_is_read_at_once_and_its_removal_leaves_nothing_for_the_next_dataset() {
    if !can_be_others() {
        return;
    }
    let mut site = open_site();
    site.start();
    site.import_base();
    site.scan();
    let [_operator, ada, ben] = site.set_up_three();
    let before = build(&site);

    let book = site.new_source("book", "more/book");
    let Reply::SourceFolders(listing) =
        site.call_as(ADA, Request::SourceFolders { folder: String::new(), after: None })
    else {
        panic!()
    };
    assert_eq!(listing.boundary, [site.path("more").display().to_string()]);
    let Reply::SourceTrial(trial) = site.call_as(ADA, Request::SourceTry { definition: book.clone() }) else {
        panic!()
    };
    assert_eq!((trial.files, trial.is_sound()), (PAGES, true));
    let waiting = asked(site.ask_source(&ada, &book));
    let what = waiting.source.as_ref().unwrap();
    assert_eq!((waiting.state.as_str(), &what.definition, what.trial.files), ("waiting", &*book, PAGES));
    assert!(!sources(&site).contains_key("book"), "nothing is read before somebody agrees");
    let done = asked(site.approve(BEN, &ben, &waiting));
    assert_eq!(done.state, "done");

    // It is read without a restart and without being asked to, also what comes later.
    let read = site.until_source("book", |source| source.present == PAGES && source.scanned.is_some());
    let added = read.added.unwrap();
    assert_eq!((added.asked_by.as_str(), added.agreed_by.as_str()), ("ada", "ben"));
    assert_eq!(added.statement, waiting.id);
    fs::write(site.path("more/book/late.txt"), prose(&mut Random(200), 10)).unwrap();
    site.until_source("book", |source| source.present == PAGES + 1);
    let with = build(&site);
    assert!(with.entries.len() > before.entries.len());
    let page = site.path("more/book/page-0.txt").display().to_string();
    let told = why(&site, &page);
    assert_eq!((told.source.as_str(), told.state.as_str(), told.removed), ("book", "present", false));

    site.end();
    site.start();
    site.scan();
    assert_eq!(sources(&site)["book"].present, PAGES + 1);
    assert_eq!(build(&site).id, with.id);

    says(remove(&site, BEN, "book"), Fault::Denied, "source.change");
    says(remove(&site, ADA, "documents"), Fault::Request, "named by the configuration");
    says(remove(&site, ADA, "boo"), Fault::Request, "no source");
    let Reply::SourceRemoved(gone) = remove(&site, ADA, "book") else { panic!() };
    assert_eq!((gone.source.as_str(), gone.documents), ("book", PAGES + 1));
    assert_eq!(sources(&site).keys().collect::<Vec<_>>(), ["documents"]);
    assert_eq!(build(&site).id, before.id, "the next dataset is as if it had never been there");
    let told = why(&site, "page-0.txt");
    assert_eq!((told.state.as_str(), told.removed, told.records.len()), ("deleted", true, 0));
    assert!(told.reached.iter().any(|reached| reached.dataset == with.id), "what it reached stays known");
    assert_eq!(fs::read_dir(site.path("more/book")).unwrap().count() as u64, PAGES + 1, "files stay");
    site.kill();
    site.start();
    site.scan();
    assert_eq!(sources(&site).keys().collect::<Vec<_>>(), ["documents"]);

    // Its name is free, for two people.
    let again = asked(site.ask_source(&ada, &book));
    assert_ne!(again.id, waiting.id);
    asked(site.approve(BEN, &ben, &again));
    site.until_source("book", |source| source.present == PAGES + 1);
    assert_eq!(build(&site).id, with.id);

    for act in ["source.folders", "source.try", "source.add", "source.remove"] {
        let done = ledger(&site, act).entries.iter().any(|entry| entry.phase == "done");
        assert!(done, "{act}");
    }
    let removal = ledger(&site, "source.remove").entries;
    let removal = removal.iter().find(|entry| entry.phase == "done").unwrap();
    assert_eq!((removal.on["source"].as_str(), removal.detail["documents"].as_str()), ("book", "7"));
    site.end();
}

#[test]
fn a_removal_that_is_cut_off_goes_on() {
    if !can_be_others() {
        return;
    }
    const MORE: u64 = 1500;
    let mut site = open_site();
    for index in 0..MORE {
        fs::write(site.path(&format!("more/book/{index}.txt")), prose(&mut Random(1000 + index), 3)).unwrap();
    }
    site.start();
    let [_operator, ada, ben] = site.set_up_three();
    site.add_source(&ada, &ben, &site.new_source("book", "more/book"));
    site.until_source("book", |source| source.present == PAGES + MORE);
    // Asked for, and not waited for.
    let mut stream = UnixStream::connect(site.path("run/control.sock")).unwrap();
    moat_protocol::write_blocking(&mut stream, &Hello::of("moat")).unwrap();
    moat_protocol::read_blocking::<Hello>(&mut stream).unwrap().unwrap().expect("moatd").unwrap();
    moat_protocol::write_blocking(&mut stream, &Request::SourceRemove { source: "book".to_owned() }).unwrap();
    while sources(&site).get("book").is_some_and(|book| !book.removing) {}
    site.kill();
    site.start();
    while sources(&site).contains_key("book") {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(why(&site, "page-0.txt").state, "deleted");
    site.end();
}

#[test]
fn one_person_brings_no_source_and_none_lies_outside_the_folders_for_them() {
    if !can_be_others() {
        return;
    }
    let mut site = open_site();
    let exports = format!("exports = [\"{}\", ", site.path("more/exports").display());
    fs::create_dir(site.path("more/exports")).unwrap();
    change(&site, "exports = [", &exports);
    site.start();
    let people = site.set_up(&[
        ("operator", "steward,engineer,admin,auditor", Some(0)),
        ("ada", "steward,admin,approver", Some(ADA)),
        ("ben", "approver", Some(BEN)),
    ]);
    let [operator, ada, ben] = <[Person; 3]>::try_from(people).unwrap_or_else(|_| panic!());
    let book = site.new_source("book", "more/book");

    // One person is one person, by whichever account and at whichever command line.
    let waiting = asked(site.ask_source(&ada, &book));
    says(site.approve(ADA, &ada, &waiting), Fault::Denied, "one person");
    says(site.approve(ADA, &ben, &waiting), Fault::Denied, "one person");
    let request = Request::SourceAdd { definition: book.clone(), proof: ben.proof() };
    says(site.call_as(BEN, request), Fault::Denied, "source.change");
    let request = Request::SourceAdd { definition: book.clone(), proof: operator.proof() };
    let by_root = asked(site.call(request));
    says(site.approve(BEN, &ben, &by_root), Fault::Denied, "root on the command line is not a person");
    let request = Request::SourceTry { definition: book.clone() };
    says(site.call_as(BEN, request), Fault::Denied, "source.change");

    // What lies elsewhere is not even looked at.
    symlink(site.path("documents"), site.path("more/out")).unwrap();
    symlink(site.path("state"), site.path("more/state")).unwrap();
    symlink("/nowhere", site.path("more/nowhere")).unwrap();
    fs::create_dir(site.path("more/work")).unwrap();
    let git = |arguments: &[&str]| {
        let done = Command::new("git").args(arguments).current_dir(site.path("documents")).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    git(&["init", "--quiet"]);
    symlink(site.path("documents/.git"), site.path("more/work/.git")).unwrap();
    let attempt = |definition: &SourceDefinition| {
        let tried = site.call_as(ADA, Request::SourceTry { definition: Box::new(definition.clone()) });
        let (fault, message) = refused(tried);
        // Asked for it is refused as well, before anybody looks at the code.
        let (definition, proof) = (Box::new(definition.clone()), ada.proof_with("000000"));
        let asked = site.call_as(ADA, Request::SourceAdd { definition, proof });
        assert_eq!((fault, &message), (Fault::Request, &refused(asked).1));
        message
    };
    let at = |path: &str| SourceDefinition { path: path.to_owned(), ..(*book).clone() };
    let inner = |path: &str| at(&site.path(path).display().to_string());
    for elsewhere in [
        inner("documents"),
        inner("state"),
        inner("more/out"),
        inner("more/out/1.txt"),
        inner("more/state"),
        inner("more/../documents"),
        inner("more/book/../../state/runs"),
        inner("moreover"),
        at("/"),
        at("/etc"),
        at("/nowhere"),
        SourceDefinition { kind: "git".to_owned(), ..inner("more/work") },
    ] {
        let message = attempt(&elsewhere);
        assert!(message.contains("lies in no folder of boundary.sources"), "{message}");
    }
    for (wrong, part) in [
        (inner("more/exports"), "Moat's own folder"),
        (inner("more"), "Moat's own folder"),
        (inner("more/nothing"), "cannot be opened"),
        (at("more/book"), "must be absolute"),
        (at(""), "must be absolute"),
        (SourceDefinition { name: "documents".to_owned(), ..(*book).clone() }, "is there already"),
        (SourceDefinition { name: "a b".to_owned(), ..(*book).clone() }, "not sound: name"),
        (SourceDefinition { kind: "tape".to_owned(), ..(*book).clone() }, "`folder` or `git`"),
        (SourceDefinition { branch: "main".to_owned(), ..(*book).clone() }, "branch"),
        (SourceDefinition { rescan_seconds: 0, ..(*book).clone() }, "rescan_seconds"),
    ] {
        let message = attempt(&wrong);
        assert!(message.contains(part), "{message}");
    }
    for folder in ["/", "/etc", "state", "more/out", "more/../state", "more/exports"] {
        let folder = site.path(folder).display().to_string();
        let (fault, _) = refused(site.call_as(ADA, Request::SourceFolders { folder, after: None }));
        assert_eq!(fault, Fault::Request);
    }
    assert_eq!(sources(&site).keys().collect::<Vec<_>>(), ["documents"]);
    site.end();
}

#[test]
fn what_is_agreed_to_is_what_is_read() {
    if !can_be_others() {
        return;
    }
    let mut site = open_site();
    let other = site.path("more/other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("foreign.txt"), prose(&mut Random(300), 10)).unwrap();
    site.start();
    site.scan();
    let [_operator, ada, ben] = site.set_up_three();
    let book = site.new_source("book", "more/book");
    let (there, aside) = (site.path("more/book"), site.path("aside"));

    // Between the request and the agreement the folder becomes a link: out, and then to its neighbour.
    let waiting = asked(site.ask_source(&ada, &book));
    fs::rename(&there, &aside).unwrap();
    symlink(site.path("documents"), &there).unwrap();
    says(site.approve(BEN, &ben, &waiting), Fault::Request, "lies in no folder");
    fs::remove_file(&there).unwrap();
    symlink(&other, &there).unwrap();
    let (fault, message) = refused(site.approve(BEN, &ben, &waiting));
    assert_eq!(fault, Fault::Denied, "{message}");
    fs::remove_file(&there).unwrap();
    fs::rename(&aside, &there).unwrap();

    // Root changes what waits, with a tool of its own: the schema refuses it, and so does the signature.
    let sqlite = |sql: &str| {
        let output = Command::new("sqlite3").arg(site.path("state/catalog.db")).arg(sql).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let changed = format!(
        "UPDATE statements SET about = replace(about, '{0}/book', '{0}/other') WHERE nonce = x'{1}'",
        site.path("more").display(),
        waiting.id
    );
    let forged = format!(
        "INSERT INTO sources (name, statement, since, removing, definition) VALUES ('book', x'{}', 1, 0, x'00')",
        waiting.id
    );
    for (sql, part) in [
        (&changed, "counts once"),
        (&forged, "by an agreed statement"),
        (&changed.replace("about", "text"), "counts once"),
    ] {
        let (done, said) = sqlite(sql);
        assert!(!done && said.contains(part), "{sql}: {said}");
    }
    let triggers = "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'statements'";
    let output = Command::new("sqlite3").arg(site.path("state/catalog.db")).arg(triggers).output().unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    let drop: String = names.lines().map(|name| format!("DROP TRIGGER {name};")).collect();
    assert!(sqlite(&format!("{drop}{changed}")).0);
    let (fault, message) = refused(site.approve(BEN, &ben, &waiting));
    assert!(fault != Fault::Request, "{message}");
    assert!(!sources(&site).contains_key("book"));
    assert!(sqlite(&changed.replace("/other", "/x").replace("/book", "/other").replace("/x", "/book")).0);

    // Two ask for the same name: the second one comes too late.
    let second = asked(site.ask_source(&ada, &site.new_source("book", "more/other")));
    asked(site.approve(BEN, &ben, &waiting));
    site.until_source("book", |source| source.present == PAGES);
    says(site.approve(BEN, &ben, &second), Fault::Request, "is there already");
    let same = SourceDefinition { name: "again".to_owned(), ..(*book).clone() };
    let (definition, proof) = (Box::new(same), ada.proof_with("000000"));
    says(site.call_as(ADA, Request::SourceAdd { definition, proof }), Fault::Request, "already");

    // What takes the folder's place later is not read, and does not read as if all of it were deleted.
    fs::rename(&there, &aside).unwrap();
    symlink(&other, &there).unwrap();
    assert!(refused(site.call(Request::Scan)).1.contains("leads elsewhere"));
    let stands = &sources(&site)["book"];
    assert!(
        stands.present == PAGES && stands.fault.as_ref().unwrap().contains("leads elsewhere"),
        "{stands:?}"
    );
    let list = Request::SourceList { source: "book".to_owned(), folder: String::new(), after: None };
    says(site.call_as(ADA, list), Fault::Request, "leads elsewhere");
    says(
        site.call_as(ADA, Request::SourceTest { source: "book".to_owned() }),
        Fault::Request,
        "leads elsewhere",
    );
    fs::remove_file(&there).unwrap();
    fs::rename(&aside, &there).unwrap();
    site.scan();
    assert_eq!(sources(&site)["book"].fault, None);
    site.end();
}

#[test]
fn a_name_that_the_configuration_takes_as_well_is_refused_at_the_start() {
    if !can_be_others() {
        return;
    }
    let mut site = open_site();
    site.start();
    let [_operator, ada, ben] = site.set_up_three();
    site.add_source(&ada, &ben, &site.new_source("book", "more/book"));
    site.until_source("book", |source| source.present == PAGES);
    site.end();
    let whole = fs::read_to_string(site.path("moat.toml")).unwrap();
    let named = |name: &str| {
        format!("{whole}\n[[source]]\nname = \"{name}\"\npath = \"{}\"\n", site.path("more/book").display())
    };
    let (both, other) = (named("book"), named("other"));
    fs::write(site.path("moat.toml"), both).unwrap();
    assert_eq!(site.ends_at_its_start().code(), Some(2));
    assert!(site.log().contains("source `book` is named twice"), "{}", site.log());
    // Under another name both are there; what the configuration says is another policy then.
    fs::write(site.path("moat.toml"), other).unwrap();
    site.start();
    assert_eq!(sources(&site).keys().collect::<Vec<_>>(), ["book", "documents", "other"]);
    site.end();
}

#[test]
fn a_source_is_chosen_tried_asked_for_agreed_to_and_removed_in_the_browser() {
    let mut site = open_site();
    let hostile = site.path("more/<i>book");
    fs::rename(site.path("more/book"), &hostile).unwrap();
    let address = site.open_port();
    site.start();
    let own = rustix::process::geteuid().as_raw();
    let people = site.set_up(&[
        ("ada", "steward,admin", None),
        ("ben", "approver", None),
        ("vic", "viewer", None),
        ("k", "auditor,admin,steward", Some(own)),
    ]);
    let [ada, ben, vic] = [0, 1, 2].map(|number| {
        let browser = Browser::trusting(&site, address);
        browser.sign_in(&people[number]);
        browser
    });
    assert!(ada.get("/sources").text.contains("href=\"/new-source\""));
    assert!(!vic.get("/sources").text.contains("/new-source") && vic.get("/new-source").status == 403);
    let page = ada.get("/new-source");
    let more = site.path("more").display().to_string();
    assert!(
        page.status == 200 && page.text.contains(&more) && page.text.contains("16777216"),
        "{}",
        page.text
    );

    // Through the folders to one, with what was typed.
    let typed =
        [("policy", "internal"), ("max_bytes", "1000000"), ("settle", "0"), ("rescan", "60"), ("name", "")];
    let send = |path: &str, fields: &[(&str, &str)]| ada.send(path, &[&typed[..], fields].concat());
    let seen = send("/new-source/folders", &[("at", ""), ("folder", &more)]);
    assert!(
        seen.status == 200 && seen.text.contains("&lt;i&gt;book") && !seen.text.contains("<i>"),
        "{}",
        seen.text
    );
    assert!(seen.text.contains("value=\"1000000\""), "{}", seen.text);
    let path = hostile.display().to_string();
    let seen = send("/new-source/folders", &[("at", &more), ("take_folder", &path)]);
    assert!(seen.status == 200 && seen.text.contains("name=\"name\" value=\"ibook\""), "{}", seen.text);
    for out in ["/etc", "/", "state"] {
        assert_eq!(send("/new-source/folders", &[("at", &more), ("folder", out)]).status, 422, "{out}");
    }
    let book = [("name", "book"), ("kind", "folder"), ("path", path.as_str()), ("at", more.as_str())];
    let send =
        |path: &str, fields: &[(&str, &str)]| ada.send(path, &[&book[..], &typed[..4], fields].concat());
    let wrong = ada.send(
        "/new-source/try",
        &[&[("path", "/etc"), ("kind", "folder"), ("name", "x")], &typed[..4]].concat(),
    );
    assert!(wrong.status == 422 && wrong.text.contains("boundary.sources"), "{}", wrong.text);
    assert!(wrong.text.contains("value=\"/etc\""), "what was typed stays: {}", wrong.text);
    let seen = send("/new-source/try", &[]);
    assert!(seen.status == 200 && seen.text.contains("all of it can be read"), "{}", seen.text);
    let code = send("/new-source", &[("password", &people[0].password), ("code", "000000")]);
    assert!(
        code.status == 422 && code.text.contains("Not asked for") && code.text.contains("ask-code"),
        "{}",
        code.text
    );
    let proof = people[0].proof();
    let seen = send("/new-source", &[("password", &proof.password.0), ("code", &proof.code.0)]);
    let statement = seen.leads_to().unwrap_or_else(|| panic!("{}", seen.text)).to_owned();
    assert!(seen.status == 303 && statement.starts_with("/approvals/"));
    let own = ada.get(&statement).text;
    assert!(own.contains("Take it back") && !own.contains("Agree to it"), "{own}");

    // The second person sees the whole of it.
    assert!(vic.get(&statement).status == 200);
    let page = ben.get(&statement).text;
    for part in ["add source book", "&lt;i&gt;book", "1.00\u{202f}MB", "all of it can be read", "Agree to it"]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("<i>"), "{page}");
    let proof = people[1].proof();
    let agreed =
        ben.send(&format!("{statement}/agree"), &[("password", &proof.password.0), ("code", &proof.code.0)]);
    assert_eq!((agreed.status, agreed.leads_to()), (303, Some(statement.as_str())));
    assert!(ben.get(&statement).text.contains("the source is being read"));
    site.until_source("book", |source| source.present == PAGES);
    let page = ada.get("/sources/book").text;
    assert!(page.contains("ada and ben") && page.contains("Remove this source"), "{page}");
    assert!(page.contains("6 documents and 6 records"), "{page}");
    assert!(!vic.get("/sources/book").text.contains("Remove this source"));

    assert_eq!(ada.send("/sources/book/remove", &[("typed", "boo")]).status, 422);
    ada.get("/sources/book");
    let gone = ada.send("/sources/book/remove", &[("typed", "book")]);
    assert_eq!((gone.status, gone.leads_to()), (303, Some("/sources")));
    let page = ada.get("/sources").text;
    assert!(page.contains("Source book is") && !page.contains("/sources/book\""), "{page}");
    assert_eq!(ada.get("/sources/book").status, 404);
    // No folder stands in an address: none is in the log or among what was asked of the port.
    assert!(!site.log().contains("<i>book"), "{}", site.log());
    site.kill();
}
