//! The API's description against what a real `moatd` takes and answers, by Python's `jsonschema`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod site;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use moat_contracts::Sampling;
use moat_protocol::control::{Reply, Request};
use moat_rights::{Act, TABLE};
use serde_json::{Value, json};

use site::browser::Browser;
use site::{Random, Site, prose, tiny_recipe};

/// Judges values by the schemas that the description gives them: pairs of a reference and a value.
const JUDGE: &str = r##"
import json, sys
from jsonschema import Draft202012Validator as Validator
whole, pairs = json.load(sys.stdin)
for reference, value in pairs:
    Validator.check_schema(whole["components"]["schemas"])
    schema = {"$ref": reference, "components": whole["components"], "paths": whole["paths"]}
    for fault in Validator(schema).iter_errors(value):
        sys.exit(f"{reference} at {list(fault.absolute_path)}: {fault.message[:300]}")
"##;

fn judge(description: &Value, pairs: &[(String, Value)]) {
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-W", "ignore", "-c", JUDGE]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut python = python.spawn().unwrap();
    let text = serde_json::to_vec(&(description, pairs)).unwrap();
    python.stdin.take().unwrap().write_all(&text).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn described(site: &Site) -> Value {
    match site.call(Request::Api) {
        Reply::Api(description) => *description,
        other => panic!("{other:?}"),
    }
}

/// The verbs, as the parser of requests names them.
fn verbs() -> BTreeSet<String> {
    let error = serde_json::from_value::<Request>(json!({ "verb": "?" })).unwrap_err().to_string();
    let list = error.split("expected one of ").nth(1).unwrap();
    list.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// Where the description keeps what a verb takes.
fn body(verb: &str) -> String {
    format!("#/paths/~1api~1v1~1{verb}/post/requestBody/content/application~1json/schema")
}

#[test]
fn every_verb_is_described_and_every_reply_is_as_described() {
    let mut site = Site::new();
    for index in 0..40 {
        site.write(&format!("team/{index}.txt"), &prose(&mut Random(index), 10));
    }
    site.write("short.txt", "No.\n");
    site.write("image.png", "\u{89}PNG\0\0\0");
    site.start();
    let description = described(&site);
    let paths = description["paths"].as_object().unwrap();
    let posts: BTreeSet<_> = paths
        .iter()
        .filter(|(_, methods)| methods["post"].is_object())
        .map(|(path, _)| path.clone())
        .collect();
    let expected: BTreeSet<_> = verbs().iter().map(|verb| format!("/api/v1/{verb}")).collect();
    assert_eq!(posts, expected);

    site.import_base();
    site.scan();
    let recipe = Box::new(tiny_recipe(6));
    let run = site.run(&recipe);
    let (name, dataset) = (run.name, run.dataset.unwrap().to_string());
    let sampling = Sampling { temperature: 0.0, top_p: 1.0, seed: 1, max_tokens: 4 };
    let backup = site.path("backup").display().to_string();
    let asked = [
        Request::Api,
        Request::Status,
        Request::Scan,
        Request::Why { path: "short.txt".to_owned() },
        Request::Why { path: "team/1.txt".to_owned() },
        Request::DatasetBuild { recipe: recipe.clone() },
        Request::Datasets,
        Request::Dataset { id: dataset.clone() },
        Request::DatasetDiff { a: dataset.clone(), b: dataset },
        Request::Bases,
        Request::RunPreview { recipe },
        Request::Runs,
        Request::Run { name: name.clone() },
        Request::RunWatch { name: name.clone() },
        Request::Ask { run: Some(name), prompt: "The pump".to_owned(), chat: false, sampling },
        Request::Accounts,
        Request::Statements,
        Request::ApiKeys,
        Request::Ledger { act: None, before: None, most: 1000 },
        Request::LedgerReceipt { index: 0 },
        Request::VaultRotate,
        Request::Backup { folder: backup },
    ];
    let mut pairs = Vec::new();
    for request in asked {
        let said = serde_json::to_value(&request).unwrap();
        let verb = said["verb"].as_str().unwrap().to_owned();
        if let Some(value) = said.get("value") {
            pairs.push((body(&verb), value.clone()));
        }
        let reply = site.call(request);
        // This site's configuration has no place for backups, so that one is refused.
        let reply = serde_json::to_value(&reply).unwrap();
        let word = reply["reply"].as_str().unwrap();
        let pointer =
            format!("/paths/~1api~1v1~1{verb}/post/responses/200/content/application~1json/schema/oneOf");
        let allowed = description.pointer(&pointer).unwrap().as_array().unwrap();
        let reference = format!("#/components/schemas/reply.{word}");
        let fits = word == "failed" || allowed.iter().any(|schema| schema["$ref"] == reference.as_str());
        assert!(fits, "{verb} was answered with {word}");
        assert!(word != "failed" || verb == "backup", "{verb}: {reply}");
        pairs.push((reference, reply));
    }
    // What is given as an example is what is taken.
    for verb in verbs() {
        let content = &description["paths"][format!("/api/v1/{verb}")]["post"]["requestBody"]["content"];
        if let Some(example) = content["application/json"].get("example") {
            pairs.push((body(&verb), example.clone()));
        }
    }
    judge(&description, &pairs);
    site.end();
}

#[test]
fn the_scopes_that_are_described_are_those_that_count() {
    let mut site = Site::new();
    let address = site.open_port();
    site.start();
    let own = rustix::process::geteuid().as_raw();
    // Root's command line counts for nobody among those who ask and agree.
    let asks = ("cyd", "steward,engineer,admin", None);
    site.set_up(&[("ada", "steward,engineer,admin,auditor", Some(own)), ("ben", "approver", None), asks]);
    let browser = Browser::trusting(&site, address);
    let seen = browser.get("/api/v1/openapi.json");
    assert!(seen.status == 200 && seen.text.contains("content-type: application/json"), "{}", seen.text);
    let description: Value = serde_json::from_str(seen.text.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(description, described(&site));

    let key = |act: Act| {
        let scope = vec![act.word().to_owned()];
        match site.call(Request::ApiKeyCreate { name: act.word().to_owned(), scope, days: 1 }) {
            Reply::ApiKey(key) => key.0.clone(),
            other => panic!("{other:?}"),
        }
    };
    let keys: Vec<_> =
        TABLE.iter().filter(|row| !row.in_person).map(|row| (row.word, key(row.act))).collect();
    for verb in verbs() {
        let operation = &description["paths"][format!("/api/v1/{verb}")]["post"];
        let body = match operation["requestBody"]["content"]["application/json"].get("example") {
            Some(example) => example.to_string(),
            None => "{}".to_owned(),
        };
        let scopes: Vec<_> =
            operation["security"].as_array().unwrap().iter().map(|one| &one["key"]).collect();
        let by_scope = !["keeper", "invitation"].contains(&operation["x-moat-right"].as_str().unwrap());
        for (word, key) in &keys {
            // What takes two of them takes more than a key for one.
            let named = scopes.iter().any(|scope| **scope == json!([word]));
            // Sealing would end the rest.
            if named && verb == "vault_seal" {
                continue;
            }
            let (status, answer) = browser.call(key, &verb, &body);
            let problem: Value = serde_json::from_str(&answer).unwrap();
            if named {
                let refused = status == 403 && answer.contains("scope");
                assert!(status != 400 && !refused, "{verb} with {word}: {status} {answer}");
            } else {
                assert!(status == 403 && problem["title"] == "Forbidden", "{verb} with {word}: {answer}");
                let told = problem["detail"].as_str().unwrap().contains("scope");
                assert!(told || !by_scope, "{verb} with {word}: {answer}");
            }
        }
    }
    // A field that no verb has is said, not passed over.
    let (_, key) = &keys[0];
    assert_eq!(browser.call(key, "run", r#"{"name":"x","nmae":"y"}"#).0, 400);
    site.kill();
}
