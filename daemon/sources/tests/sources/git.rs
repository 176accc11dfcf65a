//! The git source on repositories that the real git makes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use moat_catalog::Catalog;
use moat_contracts::{Digest, DocumentState, Skip};
use moat_sources::{Change, Git, ScanReport, SourceError};
use tempfile::TempDir;

use crate::common::{apply, brief, present, rules, vault};

const SOURCE: &str = "code";

struct Repository {
    data: TempDir,
    _state: TempDir,
    catalog: Catalog,
    git: Git,
}

/// Runs git with nobody's configuration, at a given second.
fn git(at: &Path, time: i64, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(at)
        .args(["-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always"])
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs([("GIT_AUTHOR_NAME", "Ann"), ("GIT_AUTHOR_EMAIL", "ann@example.org")])
        .envs([("GIT_COMMITTER_NAME", "Ann"), ("GIT_COMMITTER_EMAIL", "ann@example.org")])
        .env("GIT_AUTHOR_DATE", format!("@{time} +0100"))
        .env("GIT_COMMITTER_DATE", format!("@{} +0100", time + 5))
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Repository {
    fn new() -> Self {
        let (data, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        git(data.path(), 0, &["init", "-q"]);
        let git = Git {
            name: SOURCE.to_owned(),
            repository: data.path().to_owned(),
            branch: None,
            max_bytes: 1 << 20,
            policy: "internal".to_owned(),
        };
        let catalog = Catalog::open(&state.path().join("catalog.db"), &vault(state.path())).unwrap();
        Self { data, _state: state, catalog, git }
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.data.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn run(&self, time: i64, arguments: &[&str]) -> String {
        git(self.data.path(), time, arguments)
    }

    fn commit(&self, time: i64) {
        self.run(time, &["add", "-A"]);
        self.run(time, &["commit", "-q", "--allow-empty", "-m", "change"]);
    }

    fn scan(&self) -> (ScanReport, Vec<Change>) {
        self.scan_as(&self.git).unwrap()
    }

    fn scan_as(&self, git: &Git) -> Result<(ScanReport, Vec<Change>), SourceError> {
        let mut changes = Vec::new();
        let report = git.scan(&self.catalog, rules(), &mut |change| {
            apply(&self.catalog, rules(), &change);
            changes.push(change);
            Ok(())
        })?;
        if let Some((key, value)) = &report.checkpoint {
            let batch = self.catalog.write().unwrap();
            batch.put_meta(key, value).unwrap();
            batch.commit().unwrap();
        }
        Ok((report, changes))
    }

    /// The author's times that the catalog has.
    fn authored(&self) -> BTreeMap<String, i64> {
        let mut times = BTreeMap::new();
        self.catalog
            .each_document(SOURCE, |known| {
                times.insert(known.document.path, known.document.authored.unwrap());
                Ok(())
            })
            .unwrap();
        times
    }

    /// The author's times that git itself tells, path by path.
    fn authored_by_git(&self) -> BTreeMap<String, i64> {
        let paths = self.run(0, &["ls-tree", "-r", "-z", "--name-only", "HEAD"]);
        let time = |path: &str| self.run(0, &["log", "-1", "--format=%at", "HEAD", "--", path]);
        let paths = paths.split('\0').filter(|path| !path.is_empty());
        paths.map(|path| (path.to_owned(), time(path).trim().parse().unwrap())).collect()
    }
}

#[test]
fn the_tip_is_taken_with_author_times_and_then_nothing_is_read() {
    let repository = Repository::new();
    repository.write("README.md", "about");
    repository.write("src/main.rs", "fn main() {}");
    repository.commit(1000);
    repository.write("src/main.rs", "fn main() { run() }");
    repository.commit(2000);
    repository.write("untracked.txt", "not committed");
    let (report, changes) = repository.scan();
    assert_eq!(brief(&changes), ["arrived README.md", "arrived src/main.rs"]);
    assert_eq!(repository.authored().into_values().collect::<Vec<_>>(), [1000, 2000]);
    assert_eq!((report.read, report.met), (2, 2));
    let (report, changes) = repository.scan();
    assert_eq!((report, changes.len()), (ScanReport::default(), 0));
    repository.write("src/main.rs", "fn main() { stop() }");
    fs::remove_file(repository.data.path().join("untracked.txt")).unwrap();
    repository.run(0, &["rm", "-q", "README.md"]);
    repository.commit(3000);
    let (report, changes) = repository.scan();
    assert_eq!(brief(&changes), ["arrived src/main.rs", "gone README.md"]);
    assert_eq!(report.read, 1);
}

#[test]
fn identity_follows_the_path_and_then_the_blob() {
    let repository = Repository::new();
    for name in ["a.txt", "b.txt", "c.txt"] {
        repository.write(name, name);
    }
    repository.commit(1000);
    repository.scan();
    let id = |path: &str| repository.catalog.document_at(SOURCE, path).unwrap().unwrap().document.id;
    let (a, b) = (id("a.txt"), id("b.txt"));
    repository.run(0, &["mv", "a.txt", "moved.txt"]);
    repository.write("b.txt", "rewritten");
    repository.run(0, &["mv", "c.txt", "c.md"]);
    repository.commit(2000);
    let (report, changes) = repository.scan();
    assert_eq!(brief(&changes), ["arrived b.txt", "arrived c.md", "restamped moved.txt"]);
    assert_eq!((id("moved.txt"), id("b.txt"), report.read), (a, b, 2));
    assert_eq!(present(&repository.catalog, SOURCE).len(), 3);
}

#[test]
fn what_is_no_text_is_skipped_and_counted() {
    let mut repository = Repository::new();
    let other = Repository::new();
    other.write("x.txt", "x");
    other.commit(500);
    repository.write("a.txt", "alpha");
    repository.write("image.png", b"\x89PNG\0\0");
    repository.write("large.txt", "x".repeat(100));
    repository.write(
        "model.bin",
        format!("version {}/spec/v1\noid sha256:0\nsize 9\n", "https://git-lfs.github.com"),
    );
    symlink("/etc/passwd", repository.data.path().join("link")).unwrap();
    repository.run(900, &["submodule", "--quiet", "add", other.data.path().to_str().unwrap(), "sub"]);
    repository.git.max_bytes = 90;
    repository.commit(1000);
    let (report, changes) = repository.scan();
    assert_eq!(
        brief(&changes),
        [
            "arrived .gitmodules",
            "arrived a.txt",
            "skipped image.png binary",
            "skipped large.txt too_large",
            "skipped link link",
            "skipped model.bin binary",
            "skipped sub special",
        ]
    );
    assert_eq!(report.skipped.values().sum::<u64>(), 5);
    assert_eq!(report.skipped[&Skip::Binary], 2);
    // Only what became allowed is read.
    repository.git.max_bytes = 100;
    let (report, changes) = repository.scan();
    assert_eq!((brief(&changes), report.read), (vec!["arrived large.txt".to_owned()], 1));
}

#[test]
fn branches_bare_repositories_and_linked_work_trees() {
    let repository = Repository::new();
    repository.write("a.txt", "main");
    repository.commit(1000);
    repository.run(0, &["checkout", "-q", "-b", "topic"]);
    repository.write("b.txt", "topic");
    repository.commit(2000);
    repository.run(0, &["checkout", "-q", "main"]);
    assert_eq!(brief(&repository.scan().1), ["arrived a.txt"]);
    let topic = Git { branch: Some("topic".to_owned()), ..repository.git.clone() };
    assert_eq!(brief(&repository.scan_as(&topic).unwrap().1), ["arrived b.txt"]);
    let wrong = Git { branch: Some("absent".to_owned()), ..repository.git.clone() };
    let error = repository.scan_as(&wrong).unwrap_err();
    assert!(error.to_string().contains("no branch `absent`"), "{error}");

    let place = tempfile::tempdir().unwrap();
    let (bare, linked) = (place.path().join("bare.git"), place.path().join("linked"));
    repository.run(0, &["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    repository.run(0, &["worktree", "add", "-q", linked.to_str().unwrap(), "topic"]);
    for (name, path, documents) in [("bare", &bare, 1), ("linked", &linked, 2)] {
        let git = Git { name: name.to_owned(), repository: path.clone(), ..repository.git.clone() };
        assert_eq!(repository.scan_as(&git).unwrap().1.len(), documents, "{name}");
    }
    // Whoever owns it: only objects are read.
    for path in [&bare, &bare.join("HEAD"), &bare.join("config")] {
        if std::os::unix::fs::chown(path, Some(65534), Some(65534)).is_err() {
            return;
        }
    }
    let foreign = Git { name: "foreign".to_owned(), repository: bare, ..repository.git.clone() };
    assert_eq!(repository.scan_as(&foreign).unwrap().1.len(), 1);
}

#[test]
fn what_is_no_repository_or_has_no_commit_is_refused() {
    let repository = Repository::new();
    let error = repository.scan_as(&repository.git).unwrap_err();
    assert!(error.to_string().contains("no commit yet"), "{error}");
    repository.write("a.txt", "alpha");
    repository.commit(1000);
    repository.scan();
    fs::rename(repository.data.path().join(".git"), repository.data.path().join("aside")).unwrap();
    let error = repository.scan_as(&repository.git).unwrap_err();
    assert!(matches!(error, SourceError::Repository { .. }), "{error}");
    assert_eq!(present(&repository.catalog, SOURCE).len(), 1);
}

#[test]
fn nothing_that_a_repository_names_is_run() {
    let repository = Repository::new();
    let witness = repository.data.path().join("ran");
    let program = repository.data.path().join("program");
    fs::write(&program, format!("#!/bin/sh\ntouch {}\ncat\n", witness.display())).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = program.to_str().unwrap();
    repository.write(".gitattributes", "*.txt filter=evil diff=evil\n");
    repository.write("a.txt", "alpha");
    repository.commit(1000);
    for key in [
        "filter.evil.smudge",
        "filter.evil.process",
        "diff.evil.textconv",
        "core.fsmonitor",
        "core.sshCommand",
    ] {
        repository.run(0, &["config", key, program]);
    }
    repository.run(0, &["config", "include.path", "/dev/full"]);
    assert_eq!(brief(&repository.scan().1), ["arrived .gitattributes", "arrived a.txt", "arrived program"]);
    assert!(!witness.exists());
}

#[test]
fn a_shallow_clone_answers_with_its_oldest_commit() {
    let repository = Repository::new();
    for time in [1000, 2000, 3000] {
        repository.write("a.txt", time.to_string());
        repository.write("b.txt", "same");
        repository.commit(time);
    }
    let place = tempfile::tempdir().unwrap();
    let url = format!("file://{}", repository.data.path().display());
    repository.run(0, &["clone", "-q", "--depth", "2", &url, place.path().to_str().unwrap()]);
    let git = Git { repository: place.path().to_owned(), ..repository.git.clone() };
    repository.scan_as(&git).unwrap();
    assert_eq!(repository.authored().into_values().collect::<Vec<_>>(), [3000, 2000]);
}

#[test]
fn times_agree_with_git_over_branches_and_merges() {
    // A small generator is enough to make histories that differ; the seed is the case.
    for seed in 1..=4_u64 {
        let repository = Repository::new();
        let mut state = seed;
        let mut next = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for step in 0..25 {
            let time = 1000 * (i64::from(step) + 1);
            match next(6) {
                0 if step > 2 => {
                    repository.run(time, &["checkout", "-q", "-B", &format!("side{}", next(3)), "HEAD"]);
                }
                1 if step > 2 => {
                    let branches = repository.run(time, &["branch", "--format=%(refname:short)"]);
                    let names: Vec<&str> = branches.lines().collect();
                    let name = names[next(names.len() as u64) as usize];
                    repository.run(time, &["merge", "-q", "-X", "ours", "--no-ff", "-m", "merge", name]);
                }
                2 if step > 2 => {
                    repository.run(time, &["checkout", "-q", "main"]);
                }
                3 if step > 2 => {
                    drop(fs::remove_file(repository.data.path().join(format!("{}.txt", next(4)))))
                }
                _ => {}
            }
            repository.write(&format!("{}.txt", next(4)), next(3).to_string());
            repository.write(&format!("dir{}/{}.txt", next(2), next(3)), next(5).to_string());
            repository.commit(time);
            if next(4) == 0 {
                repository.scan();
                assert_eq!(repository.authored(), repository.authored_by_git(), "seed {seed}, step {step}");
            }
        }
        repository.scan();
        assert_eq!(repository.authored(), repository.authored_by_git(), "seed {seed}");
        let blobs = present(&repository.catalog, SOURCE);
        let tracked = repository.run(0, &["ls-tree", "-r", "--name-only", "HEAD"]);
        assert_eq!(blobs.keys().map(String::as_str).collect::<Vec<_>>(), tracked.lines().collect::<Vec<_>>());
        for (path, digest) in blobs {
            let text = repository.run(0, &["show", &format!("HEAD:{path}")]);
            assert_eq!(digest, Digest::of(text.as_bytes()), "{path}");
        }
        repository
            .catalog
            .each_document(SOURCE, |known| {
                assert_eq!(known.state, DocumentState::Present);
                Ok(())
            })
            .unwrap();
    }
}
