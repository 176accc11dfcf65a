//! Records of a real `moatd`: found by their words, shown beside their documents, decided about by people, and judged by
//! other rules. At the command line's socket and in the browser.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod site;

use std::fs;

use moat_contracts::{Dataset, Decision};
use moat_protocol::control::{
    Decided, Fault, Judgement, Mark, RecordFilter, RecordShown, RecordsFound, Reply, Request, ReviewQueue,
    Tryout, Why,
};
use serde_json::json;
use site::browser::Browser;
use site::people::{Person, refused};
use site::{Random, Site, prose, tiny_recipe};

const HOSTILE: &str = "<script>alert('moat')</script>";
const MAIL: &str = "jane.doe@corp-mail.com";

fn company(site: &Site) {
    for index in 0..12 {
        site.write(&format!("team/{index}.txt"), &prose(&mut Random(index), 10));
    }
    site.write("fluegel.txt", &format!("{}Der Flügel der Turbine.\n", prose(&mut Random(900), 10)));
    site.write(
        "secret.txt",
        &format!("{}Write to {MAIL} about it, {HOSTILE}\n", prose(&mut Random(901), 10)),
    );
    site.write(
        "short.txt",
        "The pump is well, and so is the valve of the old north station, which nobody saw.\n",
    );
    // A name of a file cannot hold a slash.
    site.write("<img src=x onerror=alert(1)>.txt", &format!("{}{HOSTILE}\n", prose(&mut Random(902), 10)));
    let ticket = |index| format!("{{\"note\": \"{}\"}}\n", prose(&mut Random(index), 6).replace('\n', " "));
    site.write("tickets.jsonl", &(910..920).map(ticket).collect::<String>());
    let settings = fs::read_to_string(site.path("moat.toml")).unwrap();
    // One word too few, by a hair.
    let rules = "\n[review]\nmargin = 0.2\nsample = 0.0\n";
    fs::write(site.path("moat.toml"), format!("{settings}{rules}")).unwrap();
}

fn search(site: &Site, words: &str, filter: RecordFilter, after: Option<u64>, most: usize) -> RecordsFound {
    match site.call(Request::RecordSearch { words: words.to_owned(), filter, most, after, patience: None }) {
        Reply::Records(found) => found,
        other => panic!("{other:?}"),
    }
}

fn paths(found: &RecordsFound) -> Vec<&str> {
    found.found.iter().map(|one| one.path.as_str()).collect()
}

fn record(site: &Site, id: &str) -> RecordShown {
    match site.call(Request::Record { id: id.to_owned() }) {
        Reply::Record(record) => *record,
        other => panic!("{other:?}"),
    }
}

fn queue(site: &Site) -> ReviewQueue {
    match site.call(Request::Reviews { after: None, most: 50 }) {
        Reply::Reviews(queue) => queue,
        other => panic!("{other:?}"),
    }
}

fn review(site: &Site, id: &str, judgement: Judgement) -> Decided {
    match site.call(Request::Review { id: id.to_owned(), judgement }) {
        Reply::Reviewed(decided) => decided,
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
        Reply::Why(mut whys) => whys.remove(0),
        other => panic!("{other:?}"),
    }
}

fn tried(site: &Site, changes: serde_json::Value, most: u64) -> Tryout {
    match site.call(Request::Tryout { changes, most, seed: 1 }) {
        Reply::Tryout(tried) => *tried,
        other => panic!("{other:?}"),
    }
}

fn of_verdict(word: &str) -> RecordFilter {
    RecordFilter { verdict: Some(word.to_owned()), ..RecordFilter::default() }
}

#[test]
fn records_are_found_by_their_words_and_shown_without_what_was_replaced() {
    let mut site = Site::new();
    company(&site);
    site.start();
    site.import_base();
    site.scan();
    let all = RecordFilter::default();
    let found = search(&site, "turbine FLUGEL", all.clone(), None, 9);
    assert_eq!((paths(&found), found.looked, found.of), (vec!["fluegel.txt"], 26, 26));
    let hits = found.found[0].snippet.iter().filter(|piece| piece.mark == Some(Mark::Hit));
    assert_eq!(hits.map(|piece| piece.text.as_str()).collect::<Vec<_>>(), ["Flügel", "Turbine"]);
    assert_eq!(search(&site, "\"turbine flügel\"", all.clone(), None, 9).found.len(), 0);
    // In parts, as far as one wants to read, everything comes once.
    let (mut after, mut everything) = (None, Vec::new());
    loop {
        let part = search(&site, "the", all.clone(), after, 4);
        everything.extend(part.found.iter().map(|one| one.record));
        after = part.after;
        if after.is_none() {
            break;
        }
    }
    let number = everything.len();
    everything.sort_unstable();
    everything.dedup();
    assert_eq!((everything.len(), number), (26, 26));
    assert_eq!(paths(&search(&site, "", of_verdict("redacted"), None, 9)), ["secret.txt"]);
    let dropped = search(&site, "pump", of_verdict("dropped"), None, 9);
    assert_eq!(paths(&dropped), ["short.txt"]);
    let rule = |rule: &str| RecordFilter { rule: Some(rule.to_owned()), ..RecordFilter::default() };
    assert_eq!(paths(&search(&site, "", rule("min_words"), None, 9)), ["short.txt"]);
    assert_eq!(paths(&search(&site, "", rule("EMAIL"), None, 9)), ["secret.txt"]);
    let odd = RecordFilter { kind: Some("poem".to_owned()), ..RecordFilter::default() };
    let request =
        Request::RecordSearch { words: "x".to_owned(), filter: odd, most: 1, after: None, patience: None };
    assert_eq!(refused(site.call(request)).0, Fault::Request);

    let found = search(&site, "corp", all.clone(), None, 9);
    assert!(found.found.is_empty(), "what was replaced is not found");
    let secret = search(&site, "about", of_verdict("redacted"), None, 9).found.remove(0);
    let dataset = build(&site);
    let shown = record(&site, &secret.record.to_string()[..16]);
    let own = &shown.document.as_ref().unwrap().around;
    assert_eq!((own.len(), shown.redactions["EMAIL"], shown.reached.len()), (1, 1, 1));
    assert_eq!(shown.reached[0].dataset, dataset.id);
    let replaced = own[0].text.iter().find(|piece| piece.mark.is_some()).unwrap();
    let mark = Mark::Replaced { label: "EMAIL".to_owned(), length: MAIL.len() as u64, line: 11 };
    assert_eq!((replaced.text.as_str(), replaced.mark.as_ref()), ("[EMAIL_1]", Some(&mark)));
    assert!(!format!("{shown:?}").contains(MAIL));
    let found = search(&site, "", all, None, 99);
    let ticket = found.found.iter().filter(|one| one.path == "tickets.jsonl").nth(5).unwrap();
    let middle = record(&site, &ticket.record.to_string());
    let around = middle.document.unwrap();
    assert_eq!(
        (around.texts, around.around.len(), around.around.iter().position(|text| text.here)),
        (10, 7, Some(3))
    );

    // The ledger tells that texts were read, and not what was looked for.
    let ledger =
        |act: &str| match site.call(Request::Ledger { act: Some(act.to_owned()), before: None, most: 99 }) {
            Reply::Ledger(page) => page.entries,
            other => panic!("{other:?}"),
        };
    let searches = ledger("record.search");
    let told = format!("{searches:?}");
    assert!(searches.iter().any(|entry| entry.phase == "done" && entry.detail["looked"] == "26"), "{told}");
    assert!(!told.to_lowercase().contains("gel") && !told.contains("turbine"), "{told}");
    let shows = ledger("record.show");
    assert!(
        shows.iter().any(|entry| entry.on.get("record") == Some(&secret.record.to_string())),
        "{shows:?}"
    );
    site.end();
}

#[test]
fn the_next_dataset_obeys_what_people_decided() {
    let mut site = Site::new();
    company(&site);
    site.start();
    site.import_base();
    site.scan();
    let first = build(&site);
    let waiting = queue(&site);
    let find = |path: &str| {
        waiting.waiting.iter().find(|one| one.path == path).unwrap_or_else(|| panic!("{waiting:?}"))
    };
    let (short, secret) = (find("short.txt"), find("secret.txt"));
    assert_eq!((short.why.as_str(), short.verdict.as_str()), ("borderline", "dropped"));
    assert_eq!(secret.why, "redacted");
    let (short, secret) = (short.record.to_string(), secret.record.to_string());
    let count = waiting.count;
    let holds =
        |dataset: &Dataset, id: &str| dataset.entries.iter().any(|entry| entry.record.to_string() == id);
    assert!(!holds(&first, &short) && holds(&first, &secret));

    let decided = review(&site, &short, Judgement::Keep);
    assert_eq!((decided.review.unwrap().decision, decided.records), (Decision::Keep, 1));
    review(&site, &secret[..20], Judgement::Drop);
    assert_eq!(queue(&site).count, count - 2);
    let second = build(&site);
    assert!(holds(&second, &short) && !holds(&second, &secret));
    assert_ne!(first.id, second.id);
    let told = why(&site, "secret.txt");
    assert_eq!(
        (told.records[0].verdict.as_str(), told.records[0].review.as_ref().unwrap().decision),
        ("dropped", Decision::Drop)
    );
    assert!(!told.records[0].review.as_ref().unwrap().who.is_empty());
    assert_eq!(why(&site, "short.txt").records[0].verdict, "kept");

    // A rescan and a restart change nothing; another text is undecided.
    let text = fs::read_to_string(site.path("documents/secret.txt")).unwrap();
    fs::remove_file(site.path("documents/secret.txt")).unwrap();
    site.scan();
    site.write("moved/secret.txt", &text);
    site.end();
    site.start();
    site.scan();
    assert_eq!(build(&site).id, second.id);
    site.write("moved/secret.txt", &format!("{text}The line is new.\n"));
    site.scan();
    let third = build(&site);
    assert_eq!((third.entries.len(), queue(&site).count), (second.entries.len() + 1, count - 1));
    let undone = review(&site, &short, Judgement::Undo);
    assert_eq!(undone.review, None);
    assert!(!holds(&build(&site), &short));
    assert_eq!(
        refused(site.call(Request::Review { id: short, judgement: Judgement::Undo })).0,
        Fault::Request
    );

    // What a detector drops nobody keeps, also where it was kept before the detector was asked to.
    let changed =
        queue(&site).waiting.iter().find(|one| one.path == "moved/secret.txt").unwrap().record.to_string();
    review(&site, &changed, Judgement::Keep);
    assert!(holds(&build(&site), &changed));
    site.end();
    let settings = fs::read_to_string(site.path("moat.toml")).unwrap();
    fs::write(site.path("moat.toml"), format!("{settings}\n[curation.detect.labels]\nEMAIL = \"drop\"\n"))
        .unwrap();
    site.start();
    site.scan();
    assert!(!holds(&build(&site), &changed));
    let (fault, message) = refused(site.call(Request::Review { id: changed, judgement: Judgement::Keep }));
    assert!(fault == Fault::Request && message.contains("no person overrules"), "{message}");
    site.end();
}

#[test]
fn other_rules_are_tried_and_nothing_changes() {
    let mut site = Site::new();
    company(&site);
    site.start();
    site.import_base();
    site.scan();
    let before = build(&site);
    let same = tried(&site, json!({}), 1000);
    assert_eq!((same.judged, same.of, same.in_force), (26, 26, same.tried));
    assert_eq!((same.kept, same.dropped, same.lost.records, same.gained.records), (25, 1, 0, 0));
    let loose = tried(&site, json!({"quality": {"prose": {"min_words": 5}}}), 1000);
    assert_eq!((loose.gained.records, loose.gained.rules["min_words"], loose.lost.records), (1, 1, 0));
    assert_eq!(loose.gained.examples[0].path, "short.txt");
    let strict = json!({"detect": {"labels": {"EMAIL": "drop"}}, "quality": {"prose": {"max_filler": 9}}});
    let strict = tried(&site, strict, 1000);
    assert_eq!((strict.lost.records, strict.lost.rules["EMAIL"]), (1, 1));
    assert_eq!(strict.lost.examples[0].path, "secret.txt");
    let some = tried(&site, json!({"quality": {"prose": {"min_words": 9000}}}), 7);
    assert_eq!((some.judged, some.of), (7, 26));
    assert_eq!(some, tried(&site, json!({"quality": {"prose": {"min_words": 9000}}}), 7), "the seed draws");
    for wrong in [
        json!({"quality": {"poem": {}}}),
        json!({"quality": {"prose": {"min_words": -1}}}),
        json!({"quality": {"prose": {"max_short_lines": 2.0}}}),
        json!({"duplicates": {"threshold": 0.5}}),
        json!([]),
    ] {
        let request = Request::Tryout { changes: wrong, most: 9, seed: 1 };
        assert_eq!(refused(site.call(request)).0, Fault::Request);
    }
    assert_eq!(build(&site).id, before.id);
    let Reply::DatasetFacts(facts) = site.call(Request::DatasetFacts { id: before.id.to_string() }) else {
        panic!()
    };
    for spread in [
        &facts.shape.lengths.values().collect::<Vec<_>>(),
        &facts.shape.kinds.values().collect(),
        &facts.shape.languages.values().collect(),
    ] {
        let records: u64 = spread.iter().map(|sides| sides.train.records + sides.held_out.records).sum();
        assert_eq!(records, before.entries.len() as u64);
    }
    assert!(facts.runs.is_empty() && facts.shape.kinds.contains_key("prose"), "{facts:?}");
    site.end();
}

fn steward(site: &Site) -> Vec<Person> {
    let own = rustix::process::geteuid().as_raw();
    site.set_up(&[
        ("ada", "steward,engineer,admin", None),
        ("ben", "approver", None),
        ("k", "auditor,admin,steward,engineer", Some(own)),
    ])
}

#[test]
fn a_steward_reviews_in_the_browser_and_hostile_documents_are_text() {
    let mut site = Site::new();
    company(&site);
    let address = site.open_port();
    site.start();
    site.import_base();
    site.scan();
    let hostile = search(&site, "alert moat", RecordFilter::default(), None, 9);
    assert_eq!(hostile.found.len(), 2);
    let dataset = build(&site);
    let people = steward(&site);
    let ada = Browser::trusting(&site, address);
    ada.sign_in(&people[0]);
    let clean = |text: &str| {
        let body = text.split_once("\r\n\r\n").unwrap().1;
        assert!(!body.contains("<script>alert") && !body.contains("<img src=x"), "{body}");
        // The page's own script, and nothing inline.
        assert_eq!(body.matches("<script").count(), 1, "{body}");
        assert!(!body.contains(MAIL) && !body.contains(" style=\""), "{body}");
    };
    assert!(ada.get("/records").text.contains("Every word"));
    let seen = ada.send("/records", &[("words", HOSTILE)]);
    assert!(
        seen.status == 200 && seen.text.contains("2 records") && seen.text.contains("&lt;script&gt;"),
        "{}",
        seen.text
    );
    assert!(seen.text.contains("&lt;img src=x onerror=alert(1)&gt;.txt"), "{}", seen.text);
    clean(&seen.text);
    assert_eq!(ada.send("/records", &[("words", "\"open")]).status, 422);
    for one in &hostile.found {
        let page = ada.get(&format!("/records/{}", one.record));
        assert!(page.status == 200 && page.text.contains("alert("), "{}", page.text);
        clean(&page.text);
    }
    let page = ada.get(&format!("/datasets/{}", dataset.id));
    assert!(
        page.text.contains("Records by kind") && page.text.contains("Records by their tokens"),
        "{}",
        page.text
    );
    clean(&page.text);
    ada.get("/data");
    let seen = ada.send("/data/why", &[("path", "<img src=x onerror=alert(1)>.txt")]);
    assert!(seen.text.contains("/records/"), "{}", seen.text);
    clean(&seen.text);

    // One after the other, until nothing waits.
    let (mut rounds, mut next) = (0, "/review".to_owned());
    let waiting = queue(&site).count;
    loop {
        let page = ada.get(&next);
        assert_eq!(page.status, 200, "{}", page.text);
        clean(&page.text);
        let Some(action) = page.text.split("action=\"").find(|part| part.contains("/drop\"")) else { break };
        assert!(page.text.contains("data-key=\"k\"") && page.text.contains("<kbd>d</kbd>"), "{}", page.text);
        let action = action.split('"').next().unwrap().to_owned();
        let done = ada.send(&action, &[]);
        next = done.leads_to().unwrap_or_else(|| panic!("{}", done.text)).to_owned();
        rounds += 1;
        assert!(rounds <= waiting);
    }
    assert_eq!((rounds, queue(&site).count), (waiting, 0));
    let last = ada.get("/review").text;
    assert!(last.contains("Nothing waits.") && last.contains("dropped by <strong>ada</strong>"), "{last}");
    assert_eq!(why(&site, "secret.txt").records[0].review.as_ref().unwrap().who, "ada");

    ada.get("/rules");
    let change = [("kind", "prose"), ("rule", "min_words"), ("value", "9000")];
    let seen = ada.send("/rules", &change);
    assert!(seen.status == 200 && seen.text.contains("Would be dropped"), "{}", seen.text);
    clean(&seen.text);
    let wrong = ada.send("/rules", &[("more", "[curation.quality.prose]\nmin_word = 1\n")]);
    assert!(wrong.status == 422 && wrong.text.contains("did you mean `min_words`?"), "{}", wrong.text);
    // An approver reads no texts.
    let ben = Browser::trusting(&site, address);
    ben.sign_in(&people[1]);
    for path in ["/records", "/review", "/rules", &format!("/records/{}", hostile.found[0].record)] {
        assert_eq!(ben.get(path).status, 403);
    }
    site.kill();
}
