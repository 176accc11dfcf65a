use moat_contracts::TextFault;
use moat_protocol::control::{
    FaultyDocument, Reply, SourceEntry, SourceFaults, SourceListing, SourceProblem, SourceTrial,
};

use super::{DAY, assert_shown, counts};

fn entry(name: &str, kind: &str) -> SourceEntry {
    SourceEntry {
        name: name.to_owned(),
        kind: kind.to_owned(),
        size: None,
        modified: None,
        passed_over: false,
        state: None,
        skip: None,
    }
}

#[test]
fn what_lies_in_a_source() {
    let file = SourceEntry {
        size: Some(2048),
        modified: Some(DAY),
        state: Some("present".to_owned()),
        ..entry("b\x1b[2J.md", "file")
    };
    let unread = SourceEntry { skip: Some("binary".to_owned()), size: Some(9), ..entry("c.png", "file") };
    let listing = SourceListing {
        source: "handbook".to_owned(),
        folder: String::new(),
        entries: vec![
            SourceEntry { passed_over: true, ..entry(".git", "folder") },
            entry("a", "folder"),
            file,
            unread,
        ],
        of: 9,
        more: Some("c.png".to_owned()),
    };
    assert_shown(
        &Reply::SourceListing(listing),
        "
name           kind        size  changed
.git/          folder                              passed over
a/             folder
b\\u{1b}[2J.md  file    2.00 KiB  2026-11-22 00:00  taken in
c.png          file         9 B                    not read: binary
9 names in all; `--after c.png` shows the next
",
    );
}

#[test]
fn a_trial_and_the_faults_of_a_source() {
    let trial = SourceTrial {
        source: "handbook".to_owned(),
        files: 1200,
        bytes: 3 << 20,
        folders: 7,
        skipped: counts([("unreadable", 1)]),
        closed: 1,
        passed_over: 0,
        problems: vec![
            SourceProblem { path: "a/secret.txt".to_owned(), what: "unreadable".to_owned() },
            SourceProblem { path: "closed".to_owned(), what: "closed".to_owned() },
        ],
        whole: false,
        commit: None,
        seconds: 20.04,
    };
    assert_shown(
        &Reply::SourceTrial(trial),
        "
source          handbook
found           some of it would not be read
files           1,200, 3.00 MiB in 7 folders
not read        1 unreadable
closed folders  1
took            20.0 s, cut off: there is more than was looked at
  unreadable  a/secret.txt
  closed  closed
",
    );
    let torn = FaultyDocument {
        path: "tickets.jsonl".to_owned(),
        size: 1024,
        skip: None,
        faults: vec![TextFault { line: 4, what: "no JSON".to_owned() }],
        places: 1,
    };
    let image = FaultyDocument {
        path: "a.png".to_owned(),
        skip: Some("binary".to_owned()),
        faults: Vec::new(),
        places: 0,
        ..torn.clone()
    };
    let found = SourceFaults { source: "handbook".to_owned(), documents: vec![torn, image], more: Some(12) };
    assert_shown(
        &Reply::SourceFaults(found),
        "
tickets.jsonl (1.00 KiB) read in part: 1 place could not be
  line 4: no JSON
a.png (1.00 KiB) not read: binary
there are more: `moat source faults handbook --after 12`
",
    );
}
