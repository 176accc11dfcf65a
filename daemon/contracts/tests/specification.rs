//! `daemon/SPECIFICATION.md`: its lines are numbered, and each names tests or scripts that exist.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_promise_names_what_holds_it() {
    let daemon = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    sources(daemon, &mut files);
    let texts: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let holds = |name: &str| match name.strip_prefix("scripts/") {
        Some(_) => daemon.parent().unwrap().join(name).is_file(),
        None if name.ends_with(".rs") => {
            let tests = |file: &PathBuf| file.ends_with(name) && file.iter().any(|part| part == "tests");
            files.iter().any(tests)
        }
        None => texts.iter().any(|text| text.contains(&format!("fn {name}("))),
    };

    let specification = fs::read_to_string(daemon.join("SPECIFICATION.md")).unwrap();
    let mut promises: Vec<String> = Vec::new();
    for line in specification.lines() {
        let number = line.split_once(". ").and_then(|(number, _)| number.parse::<usize>().ok());
        match number {
            Some(number) => {
                promises.push(line.to_owned());
                assert_eq!(number, promises.len(), "`{line}` is out of order");
            }
            None if line.starts_with("   ") => promises.last_mut().unwrap().push_str(line),
            None => {}
        }
    }
    assert!(promises.len() >= 28, "only {} promises were read", promises.len());
    for promise in promises {
        let named: Vec<&str> = promise.split('`').skip(1).step_by(2).filter(|name| is_test(name)).collect();
        assert!(!named.is_empty(), "no test holds: {promise}");
        for name in named {
            assert!(holds(name), "`{name}` is not there, but should hold: {promise}");
        }
    }
}

/// Whether a quoted word is meant as what holds a promise, rather than as a program's name.
fn is_test(name: &str) -> bool {
    name.starts_with("scripts/") || name.ends_with(".rs") || name.contains('_')
}
