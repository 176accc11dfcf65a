//! The way from an empty box to answers, as browsers walk it: the first accounts, sources, samples and the playground.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod site;

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use moat_contracts::Sampling;
use moat_protocol::control::{Fault, LedgerPage, Reply, Request, SourceStatus, Update};

use site::browser::Browser;
use site::people::{ADA, Person, refused};
use site::{Random, Site, prose, tiny_recipe};

fn own() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn ledger(site: &Site, act: &str) -> LedgerPage {
    match site.call(Request::Ledger { act: Some(act.to_owned()), before: None, most: 1000 }) {
        Reply::Ledger(page) => page,
        other => panic!("{other:?}"),
    }
}

fn source(site: &Site) -> SourceStatus {
    match site.call(Request::Sources) {
        Reply::Sources(mut all) => all.remove("documents").unwrap(),
        other => panic!("{other:?}"),
    }
}

fn uri(text: &str) -> String {
    let begin = text.split("otpauth://").nth(1).unwrap().split('<').next().unwrap();
    format!("otpauth://{begin}").replace("&amp;", "&")
}

#[test]
fn two_invited_people_make_the_first_accounts_in_their_browsers() {
    let mut site = Site::new();
    let address = site.open_port();
    site.start();
    let (one, other) = (Browser::trusting(&site, address), Browser::trusting(&site, address));
    assert!(one.get("/").text.contains("moat account invite"));
    let fields = |code: &'static str, name: &'static str| {
        [("invitation", code), ("name", name), ("password", "quite her own"), ("again", "quite her own")]
    };
    one.get("/set-up");
    let uninvited = one.send("/set-up", &[&fields("AAAAA", "ada")[..], &[("admin", "yes")]].concat());
    assert!(uninvited.status == 422 && uninvited.text.contains("does not count"), "{}", uninvited.text);

    let Reply::Invitation(made) = site.call(Request::Invite) else { panic!() };
    let code: &'static str = Box::leak(made.code.0.to_lowercase().replace('-', " ").into_boxed_str());
    // No role, two passwords, a name that cannot be.
    assert_eq!(one.send("/set-up", &fields(code, "ada")).status, 422);
    let mut differ = fields(code, "ada");
    differ[3].1 = "another one";
    assert_eq!(one.send("/set-up", &[&differ[..], &[("admin", "yes")]].concat()).status, 422);
    assert_eq!(one.send("/set-up", &[&fields(code, "A<b>")[..], &[("admin", "yes")]].concat()).status, 422);
    // Root's command line counts for nobody, so whoever reads the ledger here is another user then.
    let reader = if own() == 0 { ADA } else { own() };
    let uid = reader.to_string();
    let first = [("steward", "yes"), ("engineer", "yes"), ("admin", "yes"), ("auditor", "yes")];
    let shown = one.send("/set-up", &[&fields(code, "ada")[..], &first, &[("uid", &uid)]].concat());
    assert!(shown.status == 200 && shown.text.contains("<svg class=\"qr\""), "{}", shown.text);
    let ada = Person::new("ada", Some(reader), "quite her own", &uri(&shown.text));
    let wrong = one.send("/set-up/confirm", &[("name", "ada"), ("code", "000000")]);
    assert!(wrong.status == 422 && wrong.text.contains("Not yet"), "{}", wrong.text);
    let stranger = other.get("/set-up").status;
    assert_eq!(
        (stranger, other.send("/set-up/confirm", &[("name", "eve"), ("code", "000000")]).status),
        (200, 422)
    );
    let ready = one.send("/set-up/confirm", &[("name", "ada"), ("code", &ada.proof().code.0)]);
    assert!(ready.text.contains("Nothing is made yet"), "{}", ready.text);
    assert!(matches!(site.call(Request::Accounts), Reply::Accounts(none) if none.is_empty()));

    other.get("/set-up");
    let shown = other.send("/set-up", &[&fields(code, "ben")[..], &[("approver", "yes")]].concat());
    let ben = Person::new("ben", None, "quite her own", &uri(&shown.text));
    let ready = other.send("/set-up/confirm", &[("name", "ben"), ("code", &ben.proof().code.0)]);
    assert!(ready.text.contains("The accounts are made"), "{}", ready.text);
    one.sign_in(&ada);
    other.sign_in(&ben);
    let front = one.get("/").text;
    assert!(front.contains("The way to the first edge") && front.contains("moat base import"), "{front}");

    // An invitation counts once, and whoever keeps the box has no other.
    let late = Browser::trusting(&site, address);
    late.get("/sign-in");
    let late = late.send("/set-up", &[&fields(code, "eve")[..], &[("admin", "yes")]].concat());
    assert_eq!(late.status, 422);
    assert_eq!(refused(site.call(Request::Invite)).0, Fault::Denied);
    let request = Request::Ledger { act: Some("site.".to_owned()), before: None, most: 1000 };
    let reply = if own() == 0 { site.call_as(ADA, request) } else { site.call(request) };
    let Reply::Ledger(told) = reply else { panic!("{reply:?}") };
    let done = |act: &str| told.entries.iter().any(|entry| entry.act == act && entry.phase == "done");
    for act in ["site.invite", "site.enlist", "site.confirm", "site.set-up"] {
        assert!(done(act), "{act}: {told:?}");
    }
    let told = format!("{told:?}{}", site.log());
    for hidden in [code, &made.code.0, "quite her own", &uri(&shown.text)[40..60]] {
        assert!(!told.contains(hidden), "{told}");
    }
    site.kill();
    site.start();
    assert_eq!(refused(site.call(Request::Invite)).0, Fault::Denied);
    site.kill();
}

#[test]
fn a_source_is_looked_into_tested_and_paused_and_hostile_names_are_text() {
    const HOSTILE: &str = "<img src=x onerror=alert(1)>&\".txt";
    let mut site = Site::new();
    for index in 0..3 {
        site.write(&format!("team/{index}.txt"), &prose(&mut Random(index), 10));
    }
    site.write(HOSTILE, &format!("<script>alert(2)</script> {}", prose(&mut Random(9), 10)));
    site.write("<b>picture.png", "\u{89}PNG\0\0\0");
    symlink("/etc", site.path("documents/etc")).unwrap();
    let address = site.open_port();
    site.start();
    let people = site.set_up(&[
        ("ada", "steward,engineer,admin", None),
        ("ben", "approver", None),
        ("k", "auditor,admin,steward", Some(own())),
    ]);
    site.scan();
    assert_eq!((source(&site).present, source(&site).lag), (4, 0));
    let ada = Browser::trusting(&site, address);
    ada.sign_in(&people[0]);
    let page = ada.get("/sources/documents");
    assert!(page.status == 200 && page.text.contains("Lag") && page.text.contains("Browse"), "{}", page.text);
    let seen = ada.send("/sources/documents/browse", &[]);
    assert!(seen.text.contains("&lt;img src=x onerror") && seen.text.contains("taken in"), "{}", seen.text);
    assert!(!seen.text.contains("<img src=x") && !seen.text.contains("<b>picture"));
    assert!(seen.text.contains("never opened") || seen.text.contains("not read"), "the link: {}", seen.text);
    assert!(ada.send("/sources/documents/browse", &[("folder", "team")]).text.contains("2.txt"));
    for out in ["..", "team/../..", "etc", "%2e%2e", "/etc/../.."] {
        assert_eq!(ada.send("/sources/documents/browse", &[("folder", out)]).status, 422, "{out}");
    }
    let tested = ada.send("/sources/documents/test", &[]);
    assert!(
        tested.text.contains("some of it would not be read") && tested.text.contains("etc"),
        "{}",
        tested.text
    );
    let faults = ada.send("/sources/documents/faults", &[]);
    assert!(
        faults.text.contains("&lt;b&gt;picture.png") && faults.text.contains("holds no text"),
        "{}",
        faults.text
    );
    let why = ada.send("/data/why", &[("path", HOSTILE)]);
    assert!(why.status == 200 && !why.text.contains("<img src=x"), "{}", why.text);

    // What the configuration names ends where it is named; where it names no folder for more, the page says how to.
    assert!(page.text.contains("[[source]]") && !page.text.contains("/sources/documents/remove"));
    assert_eq!(ada.send("/sources/documents/remove", &[("typed", "documents")]).status, 422);
    let closed = ada.get("/new-source");
    assert!(closed.status == 200 && closed.text.contains("moat policy request"), "{}", closed.text);
    assert!(
        closed.text.contains("sources = [") && !closed.text.contains("/new-source/try"),
        "{}",
        closed.text
    );

    assert_eq!(ada.send("/sources/documents/pause", &[]).status, 303);
    assert_eq!(ada.send("/sources/documents/pause", &[]).status, 422);
    assert!(ada.get("/").text.contains("paused"));
    site.write("team/late.txt", &prose(&mut Random(77), 10));
    site.scan();
    assert_eq!(source(&site).present, 4);
    site.kill();
    site.start();
    site.scan();
    let paused = source(&site);
    assert!(paused.paused.is_some() && paused.present == 4, "{paused:?}");
    let resumed = site.call(Request::SourceResume { source: "documents".to_owned() });
    assert!(matches!(resumed, Reply::Sources(ref one) if one["documents"].paused.is_none()), "{resumed:?}");
    site.scan();
    assert_eq!(source(&site).present, 5);
    let other = Request::SourceList { source: "<none>".to_owned(), folder: String::new(), after: None };
    assert_eq!(refused(site.call(other)).0, Fault::Request);

    let told = ledger(&site, "source.");
    for act in ["source.list", "source.test", "source.faults", "source.pause", "source.resume"] {
        assert!(
            told.entries.iter().any(|entry| entry.act == act && entry.phase == "done"),
            "{act}: {told:?}"
        );
    }
    let told = format!("{told:?}{}", site.log());
    for hidden in ["picture", "onerror", "team", "<none>", "late.txt"] {
        assert!(!told.contains(hidden), "{hidden} in {told}");
    }
    site.kill();
}

#[test]
fn answers_come_as_they_are_made_and_a_sample_shows_what_was_held_back() {
    let mut site = Site::new();
    for index in 0..40 {
        site.write(&format!("team/{index}.txt"), &prose(&mut Random(index), 10));
    }
    let address = site.open_port();
    site.start();
    site.import_base();
    site.scan();
    let run = site.run(&tiny_recipe(20));

    let sampling = Sampling { temperature: 0.0, top_p: 1.0, seed: 1, max_tokens: 24 };
    let ask = Request::Ask { run: None, prompt: "The zebrafish".to_owned(), chat: false, sampling };
    let mut pieces: BTreeMap<String, String> = BTreeMap::new();
    let reply = site.call_and_watch(&ask, |update| {
        if let Update::Answering { model, text } = update {
            pieces.entry(model).or_default().push_str(&text);
        }
    });
    let Reply::Answer(answers) = reply else { panic!("{reply:?}") };
    assert_eq!(answers.len(), 2);
    let said = answers.into_iter().filter(|answer| !answer.text.is_empty());
    let whole: BTreeMap<_, _> = said.map(|answer| (answer.model, answer.text)).collect();
    assert!(!whole.is_empty() && pieces == whole, "{pieces:?} {whole:?}");

    let people = site.set_up(&[
        ("ada", "steward,engineer,admin", None),
        ("ben", "approver", None),
        ("k", "auditor,admin,engineer", Some(own())),
    ]);
    let ada = Browser::trusting(&site, address);
    ada.sign_in(&people[0]);
    let page = ada.get("/playground/tiny-1");
    assert!(page.text.contains("data-stream=\"/playground/stream\""), "{}", page.text);
    let prompt = [("prompt", "The zebrafish <b>"), ("run", "tiny-1"), ("max_tokens", "16")];
    let streamed = ada.send("/playground/stream", &prompt).text;
    assert!(streamed.contains("text/event-stream") && streamed.contains("event: part"), "{streamed}");
    assert!(streamed.contains(" tokens/s, ") && streamed.contains("What made them"), "{streamed}");
    assert!(streamed.trim_end().ends_with("event: done\ndata:") && !streamed.contains("<b>"), "{streamed}");
    let whole = ada.send("/playground", &prompt).text;
    assert!(whole.contains(" tokens/s, ") && whole.contains("zebrafish &lt;b&gt;"), "{whole}");
    let failed = ada.send("/playground/stream", &[("prompt", "x"), ("run", "gone")]).text;
    assert!(failed.contains("It was not answered"), "{failed}");

    let model = ada.get("/models/tiny-1").text;
    assert!(model.contains("Samples side by side") && model.contains("Model card"), "{model}");
    let sample = ada.send("/models/tiny-1/sample", &[("number", "2")]);
    assert!(sample.status == 200 && sample.text.contains("Held-back record 2 of"), "{}", sample.text);
    assert_eq!(ada.send("/models/tiny-1/sample", &[("number", "100000")]).status, 422);
    let taken = ada.send("/playground/take", &[("prompt", "The night shift"), ("run", "tiny-1")]).text;
    assert!(taken.contains("The night shift</textarea>"), "{taken}");
    let card = ada.get("/models/tiny-1/card").text;
    assert!(card.contains("## The edge") && card.contains("## Limits"), "{card}");
    let file = ada.get("/models/tiny-1/card.md").text;
    assert!(file.contains("attachment; filename=\"tiny-1.md\""), "{file}");
    // Whoever may not read records is shown none.
    let sample = Request::RunSample { name: run.name, number: None, tokens: None };
    assert_eq!(refused(site.call(sample)).0, Fault::Denied);

    let told = ledger(&site, "run.sample");
    assert!(
        told.entries.iter().any(|entry| entry.phase == "done" && format!("{entry:?}").contains("record")),
        "{told:?}"
    );
    let told = format!("{:?}{}", ledger(&site, ""), site.log());
    for hidden in ["zebrafish", "night shift"] {
        assert!(!told.contains(hidden), "{hidden} in {told}");
    }
    site.kill();
}
