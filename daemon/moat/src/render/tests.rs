mod rights;
mod source;
mod sweeps;

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use moat_contracts::{
    Claim, Completion, Dataset, DatasetEntry, DatasetId, DatasetSource, Digest, EdgeReport, ForgettingReport,
    Interval, MemoryPart, MemoryPlan, MemoryUse, Preview, Proof, Reason, Recipe, RecordId, SourceEdge, Split,
    SplitCounts, Stretch, Survey, TextFault, TokenLogprob, TrainOutcome, ValidationOutcome,
};
use moat_protocol::control::{
    Base, Canary, Course, DatasetDiff, DatasetSummary, DiffEntry, Exported, Fault, Reached, Reply, Run,
    RunPreview, RunState, Seal, SourceStatus, Statement, Status, StepPoint, Twin, ValidationPoint, Why,
    WhyRecord,
};

use super::{View, reply};

/// 2026-11-22 00:00 UTC.
const DAY: i64 = 1_795_305_600;

/// A digest whose shortened form is the two digits, six times.
fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

fn counts<const N: usize>(pairs: [(&str, u64); N]) -> BTreeMap<String, u64> {
    pairs.into_iter().map(|(name, number)| (name.to_owned(), number)).collect()
}

fn shown(what: &Reply) -> String {
    reply(&View { colors: false, zone: TimeZone::UTC }, what)
}

/// Compares line by line, so that a difference is seen at once.
fn assert_shown(what: &Reply, expected: &str) {
    let found = shown(what);
    assert_eq!(found, expected.trim_start_matches('\n'), "\n{found}");
    for line in found.lines() {
        assert_eq!(line, line.trim_end(), "a line ends with spaces");
    }
}

fn source() -> SourceStatus {
    SourceStatus {
        kind: "folder".to_owned(),
        location: "/srv/handbook".to_owned(),
        scanned: Some(DAY + 3600),
        present: 1234,
        bytes: 3 << 20,
        skipped: counts([("binary", 2), ("too_large", 1)]),
        deleted: 1,
        verdicts: counts([("kept", 1200), ("redacted", 20), ("dropped", 14)]),
        dropped: counts([("min_words", 10), ("near_duplicate", 4)]),
        redactions: counts([("PHONE", 3), ("EMAIL", 25)]),
        ..SourceStatus::default()
    }
}

#[test]
fn a_status() {
    let failing = SourceStatus {
        kind: "git".to_owned(),
        location: "/srv/code".to_owned(),
        fault: Some("the branch \x1b[2J is gone".to_owned()),
        ..SourceStatus::default()
    };
    let status = Status {
        version: "0.1.0".to_owned(),
        uptime: 7500,
        rules: Some(digest(0xab)),
        sources: BTreeMap::from([("handbook".to_owned(), source()), ("code".to_owned(), failing)]),
        active_runs: vec!["demo-1".to_owned()],
        seal: Seal { made: true, generation: Some(3), guarded: Some(true), ..Seal::default() },
        ledger: 12,
        waiting: 1,
        alarm: Some("a way out of moatd was open".to_owned()),
        canary: Canary {
            ways: BTreeMap::from([("udp4".to_owned(), (3, 1))]),
            flown: Some(DAY),
            ..Canary::default()
        },
        protections: BTreeMap::from([("no core dumps".to_owned(), true), ("no network".to_owned(), false)]),
        ..Status::default()
    };
    assert_shown(
        &Reply::Status(Box::new(status)),
        r#"
moatd          0.1.0, up 2 h 5 min
ALARM          a way out of moatd was open
vault          open, root 3
canary         1 way out tried, 1 WAS OPEN, last 2026-11-22 00:00
ledger         12 entries
waiting        1 request for a second person: `moat statement list`
rules          abababababab
protected by   no core dumps
not protected  no network
active runs    demo-1

source    kind    documents      size   kept  redacted  dropped  skipped  deleted  scanned
code      git             0       0 B      0         0        0        0        0  never
handbook  folder      1,234  3.00 MiB  1,200        20       14        3        1  2026-11-22 01:00

code /srv/code
  the last scan failed: the branch \u{1b}[2J is gone

handbook /srv/handbook
  records dropped: 10 min_words, 4 near_duplicate
  places redacted: 25 EMAIL, 3 PHONE
  documents skipped: 2 binary, 1 too_large
"#,
    );
    assert_shown(
        &Reply::Status(Box::default()),
        "
moatd   , up 0 s
vault   no vault yet: `moat vault init` makes one
ledger  0 entries

no sources: add a [[source]] to moat.toml and restart moatd
",
    );
}

#[test]
fn whys() {
    let record = WhyRecord {
        record: digest(1),
        first_line: 1,
        kind: "markdown".to_owned(),
        language: Some("eng".to_owned()),
        verdict: "redacted".to_owned(),
        reasons: vec![Reason { rule: "EMAIL".to_owned(), measured: None, limit: None, line: Some(3) }],
        redactions: counts([("EMAIL", 2)]),
        twin: None,
        review: None,
    };
    let measured = |rule: &str, measured, limit| Reason {
        rule: rule.to_owned(),
        measured: Some(measured),
        limit: Some(limit),
        line: None,
    };
    let dropped = WhyRecord {
        record: digest(2),
        first_line: 40,
        language: None,
        verdict: "dropped".to_owned(),
        reasons: vec![measured("min_words", 7.0, 20.0), measured("max_short_lines", 0.913_14, 0.8)],
        redactions: BTreeMap::new(),
        ..record.clone()
    };
    let twin = WhyRecord {
        record: digest(3),
        first_line: 90,
        reasons: vec![Reason { limit: None, ..measured("near_duplicate", 0.93, 0.0) }],
        redactions: BTreeMap::new(),
        twin: Some(Twin { source: "wiki".to_owned(), path: "a b.md".to_owned(), similarity: 0.93 }),
        verdict: "dropped".to_owned(),
        ..record.clone()
    };
    let present = Why {
        source: "handbook".to_owned(),
        path: "guide/intro.md".to_owned(),
        removed: false,
        state: "present".to_owned(),
        skip: None,
        digest: Some(digest(9)),
        size: 4600,
        faults: vec![TextFault { line: 1_204, what: "a JSON object never ends".to_owned() }],
        records: vec![record, dropped, twin],
        reached: vec![
            Reached {
                dataset: DatasetId(digest(5)),
                split: "train".to_owned(),
                runs: vec!["demo-1".to_owned()],
            },
            Reached { dataset: DatasetId(digest(6)), split: "held_out".to_owned(), runs: Vec::new() },
        ],
    };
    let deleted = Why {
        state: "deleted".to_owned(),
        digest: None,
        faults: Vec::new(),
        records: Vec::new(),
        reached: vec![Reached {
            dataset: DatasetId(digest(5)),
            split: "train".to_owned(),
            runs: vec!["demo-1".to_owned(), "demo-2".to_owned()],
        }],
        ..present.clone()
    };
    let skipped = Why {
        state: "skipped".to_owned(),
        skip: Some("too_large".to_owned()),
        digest: None,
        faults: Vec::new(),
        records: Vec::new(),
        reached: Vec::new(),
        ..present.clone()
    };
    assert_shown(
        &Reply::Why(vec![present]),
        "
guide/intro.md in handbook (4.49 KiB, sha256 090909090909)
It is in its source and was read: 3 records.
  line 1,204: a JSON object never ends
  line 1: redacted (markdown, eng), record 010101010101
    2 places replaced by [EMAIL_…]
  line 40: dropped (markdown), record 020202020202
    rule min_words: measured 7, at least 20 is wanted
    rule max_short_lines: measured 0.9131, at most 0.8 is wanted
  line 90: dropped (markdown, eng), record 030303030303
    a near-duplicate survives in a b.md in wiki (similarity 0.93)
It is in dataset 050505050505 (trained on), used by demo-1.
It is in dataset 060606060606 (held back); no run used that yet.
",
    );
    assert_shown(&Reply::Why(vec![deleted, skipped]), "
guide/intro.md in handbook (4.49 KiB)
It was deleted from its source: it has no records, and the next dataset is without it.
It is in dataset 050505050505 (trained on), used by demo-1, demo-2: what these models learned from it stays in them.

guide/intro.md in handbook (4.49 KiB)
It is in its source but was not read: it is larger than its source's `max_bytes`.
No dataset holds it.
");
}

fn entry(byte: u8, split: Split) -> DatasetEntry {
    DatasetEntry {
        record: RecordId(digest(byte)),
        split,
        source: "handbook".to_owned(),
        tokens: 1200,
        bytes: 4000,
    }
}

#[test]
fn datasets() {
    let train = SplitCounts { records: 900, tokens: 540_000, bytes: 2 << 20 };
    let held_out = SplitCounts { records: 100, tokens: 60_000, bytes: 200 << 10 };
    let part = DatasetSource { train, held_out, ..Default::default() };
    let dataset = Dataset {
        id: DatasetId(digest(0x1a)),
        recipe: digest(2),
        rules: digest(3),
        tokenizer: digest(4),
        entries: vec![entry(1, Split::Train), entry(2, Split::HeldOut)],
        sources: BTreeMap::from([("handbook".to_owned(), part), ("wiki".to_owned(), part)]),
    };
    assert_shown(
        &Reply::Dataset(Box::new(dataset)),
        "
dataset    1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a
recipe     020202020202
rules      030303030303
tokenizer  040404040404
records    2

source    side       records     tokens      size
handbook  train          900    540,000  2.00 MiB
          held back      100     60,000   200 KiB
wiki      train          900    540,000  2.00 MiB
          held back      100     60,000   200 KiB
all       train        1,800  1,080,000  4.00 MiB
          held back      200    120,000   400 KiB
",
    );
    let summary = DatasetSummary {
        id: DatasetId(digest(0x1a)),
        built: DAY,
        train: 900,
        held_out: 100,
        tokens: 600_000,
    };
    assert_shown(
        &Reply::Datasets(vec![summary]),
        "
dataset       built             train  held back   tokens
1a1a1a1a1a1a  2026-11-22 00:00    900        100  600,000
",
    );
    assert_shown(&Reply::Datasets(Vec::new()), "no datasets: `moat dataset build RECIPE` makes one\n");
}

#[test]
fn a_difference() {
    let changed = |byte, split, paths: &[&str]| DiffEntry {
        entry: entry(byte, split),
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
    };
    let diff = DatasetDiff {
        a: DatasetId(digest(1)),
        b: DatasetId(digest(2)),
        same_recipe: true,
        same_rules: false,
        same_tokenizer: true,
        added: (0..22).map(|byte| changed(byte, Split::Train, &["a.md", "b.md"])).collect(),
        removed: vec![changed(0xff, Split::HeldOut, &[])],
        moved: Vec::new(),
    };
    let found = shown(&Reply::DatasetDiff(diff.clone()));
    let lines: Vec<_> = found.lines().collect();
    assert_eq!(lines.len(), 27, "{found}");
    let expected = [
        "010101010101 to 020202020202",
        "made differently: curation rules",
        "22 records added",
        "  + 000000000000  train, 1,200 tokens, handbook: a.md, b.md",
    ];
    assert_eq!(lines[..4], expected, "{found}");
    let expected = [
        "  … and 2 more; --json has all",
        "1 record removed",
        "  - ffffffffffff  held back, 1,200 tokens, handbook: no document that is still known",
        "0 records moved",
    ];
    assert_eq!(lines[23..], expected, "{found}");
    let same = DatasetDiff { b: diff.a, same_rules: true, added: Vec::new(), removed: Vec::new(), ..diff };
    assert_shown(
        &Reply::DatasetDiff(same),
        "
010101010101 to 010101010101
they are the same
",
    );
}

#[test]
fn bases_and_exports() {
    let base = Base {
        name: "moat-starter".to_owned(),
        hash: digest(7),
        family: "Qwen2ForCausalLM".to_owned(),
        parameters: 7_615_616,
        bytes: 15_300_000,
        chat: true,
    };
    assert_shown(
        &Reply::Base(base.clone()),
        "
base        moat-starter
family      Qwen2ForCausalLM
parameters  7.62 M
weights     14.6 MiB
chat        yes
sha256      0707070707070707070707070707070707070707070707070707070707070707
",
    );
    assert_shown(
        &Reply::Bases(vec![base]),
        "
base          family            parameters   weights  chat  sha256
moat-starter  Qwen2ForCausalLM      7.62 M  14.6 MiB  yes   070707070707
",
    );
    let files = BTreeMap::from([
        ("SHA256SUMS".to_owned(), digest(1)),
        ("adapter/adapter_model.safetensors".to_owned(), digest(2)),
    ]);
    let statement = Box::new(Statement { approver: Some("ben".to_owned()), ..rights::statement("done") });
    assert_shown(
        &Reply::Exported(Exported { statement, folder: "/srv/out".to_owned(), files }),
        "
/srv/out
asked for by ada, agreed to by ben
file                               sha256
SHA256SUMS                         010101010101
adapter/adapter_model.safetensors  020202020202

`moat verify /srv/out` checks it at any time
",
    );
}

fn report(edge: Option<[f64; 3]>) -> EdgeReport {
    let edge = edge.map(|[value, low, high]| Interval { value, low, high });
    let all = SourceEdge { records: 42, bytes: 100_000, base: 2.31, tuned: 2.0, edge };
    EdgeReport {
        dataset: DatasetId(digest(5)),
        confidence: 0.95,
        resamples: 2000,
        sources: BTreeMap::from([
            ("handbook".to_owned(), all.clone()),
            ("wiki".to_owned(), SourceEdge { records: 1, edge: None, ..all.clone() }),
        ]),
        preference: None,
        has_edge: edge.is_some_and(|edge| edge.low > 0.0),
        all,
        forgetting: ForgettingReport {
            text: "licences".to_owned(),
            bytes: 5000,
            base: 1.9,
            tuned: 1.95,
            lost: Interval { value: 0.05, low: -0.0001, high: 0.11 },
        },
    }
}

fn run() -> Run {
    Run {
        name: "demo-1".to_owned(),
        state: RunState::Done,
        message: None,
        recipe: Recipe { name: "demo".to_owned(), ..Recipe::default() },
        recipe_hash: digest(1),
        dataset: Some(DatasetId(digest(5))),
        base: Some(digest(7)),
        created: DAY,
        steps: 600,
        planned: Some(600),
        course: Course::default(),
        outcome: Some(TrainOutcome {
            steps: 600,
            tokens: 1_228_800,
            first_loss: 4.1234,
            last_loss: 3.01,
            weights: digest(8),
            peak_memory: 630 << 20,
            validation: None,
        }),
        edge: Some(report(Some([0.31, 0.28, 0.34]))),
        weights: Some("/var/lib/moat/runs/demo-1/adapter".to_owned()),
        sweep: None,
    }
}

#[test]
fn a_run_with_its_edge() {
    assert_shown(
        &Reply::Run(Box::new(run())),
        "
run       demo-1, done
recipe    demo (010101010101)
base      moat-starter (070707070707)
dataset   050505050505
created   2026-11-22 00:00
steps     600
training  1,228,800 tokens, loss 4.123 to 3.010 nats a token, peak memory 630 MiB
weights   /var/lib/moat/runs/demo-1/adapter

held-back bits per byte  records   base  tuned   edge  95% interval
handbook                      42  2.310  2.000  0.310  0.280 to 0.340
wiki                           1  2.310  2.000         too few records
all sources                   42  2.310  2.000  0.310  0.280 to 0.340
no forgetting to be seen: 1.900 to 1.950 bits per byte on licences, lost 0.050 (95% interval 0.000 to 0.110)
edge: 0.31 bits per byte better than its base (95% interval 0.28 to 0.34)
",
    );
}

fn survey() -> Survey {
    Survey {
        examples: 120,
        chats: 3,
        pairs: 0,
        rearranged: 0,
        tokens: 24_000,
        trained: 18_000,
        shortest: 12,
        median: 150,
        p95: 800,
        longest: 2000,
        cut: 4,
        rows: 50,
        steps: 13,
    }
}

fn memory() -> MemoryPlan {
    let part = |used, mib: u64| MemoryPart { used, bytes: mib << 20 };
    let parts = vec![
        part(MemoryUse::Process, 30),
        part(MemoryUse::Frozen, 100),
        part(MemoryUse::Moments, 0),
        part(MemoryUse::Activations, 900),
    ];
    MemoryPlan { parts, available: 1 << 30, recompute: true }
}

fn proofs() -> Vec<Proof> {
    vec![
        Proof::of(Claim::Masks, "120 examples", 0.0),
        Proof::of(Claim::Turns, "6 answers of 3 chats; \x1b[2J", 2.0),
        Proof::of(Claim::Packing, "5 sequences, 900 tokens", 3.2e-6),
    ]
}

#[test]
fn a_preview_marks_what_is_learnt() {
    let stretch = |text: &str, trained| Stretch { text: text.to_owned(), trained };
    let example =
        vec![stretch("<|user|>\nHi\x07\n", false), stretch("Hello.<|end|>", true), stretch("\n", false)];
    let counts = |records, tokens| SplitCounts { records, tokens, bytes: 0 };
    let sides =
        DatasetSource { train: counts(120, 24_000), validation: counts(9, 800), held_out: counts(14, 3000) };
    let preview = Preview {
        survey: survey(),
        validation_tokens: 800,
        proofs: proofs(),
        memory: memory(),
        record: RecordId(digest(9)),
        example,
        rejected: Vec::new(),
        left: 1200,
    };
    let found = RunPreview { dataset: DatasetId(digest(5)), sides, recipe: digest(1), preview };
    let reply = Reply::Preview(Box::new(found));
    assert_shown(
        &reply,
        "
dataset  050505050505
records  120 records to train on, 24,000 tokens; 9 records to choose by, 800 tokens; 14 records held back

examples  120, 3 of them chats, 4 longer than a row and cut
lengths   12 / 150 / 800 / 2,000 tokens (shortest / median / 95% / longest)
learnt    75.0% of 24,000 tokens
packed    50 rows, 13 steps
memory    1.01 GiB planned of 1.00 GiB at most, which does not fit, blocks computed again in the backward

memory             planned
process           30.0 MiB
frozen weights     100 MiB
activations kept   900 MiB
all               1.01 GiB

proof                                               found  at most  compared
no example is masked whole                  holds       0        0  120 examples
chats begin as prompts and end their turns  FAILS       2        0  6 answers of 3 chats; \\u{1b}[2J
packed equals unpacked                      holds  3.2e-6   1.0e-3  5 sequences, 900 tokens
chats begin as prompts and end their turns: correct the base's chat template or its eos_token_id, or leave chats out by selection.kinds

record 090909090909, as it is trained on: what is learnt stands in \u{27e6} \u{27e7}
<|user|>
Hi\\u{7}
\u{27e6}Hello.<|end|>\u{27e7}
and 1,200 more tokens
",
    );
    // In colours the marks are colours.
    let colored = super::reply(&View { colors: true, zone: TimeZone::UTC }, &reply);
    assert!(colored.contains("\x1b[2m<|user|>") && colored.contains("Hello.<|end|>"), "{colored}");
    assert!(!colored.contains('\u{27e6}') && !colored.contains("\x1b[2JHi"));
}

#[test]
fn a_run_shows_what_it_proved() {
    let course =
        Course { survey: Some(survey()), memory: Some(memory()), proofs: proofs(), ..Course::default() };
    let page = shown(&Reply::Run(Box::new(Run { course, ..run() })));
    for line in
        ["packed    50 rows, 13 steps", "no example is masked whole", "FAILS", "3.2e-6", "correct the base's"]
    {
        assert!(page.contains(line), "{line}: {page}");
    }
}

#[test]
fn a_run_that_trains_shows_its_course() {
    let step = |step: u64| StepPoint {
        step,
        loss: 4.0 - step as f64 / 100.0,
        gradient_norm: 1.0,
        learning_rate: 1e-3 / step as f64,
        tokens: 2048,
        tokens_per_second: 4012.4,
        memory: 630 << 20,
        seconds_left: (600 - step) as f64 / 2.0,
        cores: 1.5,
    };
    let look = |step: u64, loss: f64| ValidationPoint { step, loss, gain: true };
    let course = Course {
        steps: (1..=120).map(step).collect(),
        last: Some(step(120)),
        validations: vec![look(0, 4.5), look(100, 3.25)],
        ..Course::default()
    };
    let mut recipe = Recipe { name: "demo".to_owned(), ..Recipe::default() };
    recipe.train.start_from = "demo-0".to_owned();
    let (state, steps) = (RunState::Training, 120);
    let running = Run { state, recipe, steps, course, outcome: None, edge: None, weights: None, ..run() };
    assert_shown(
        &Reply::Run(Box::new(running)),
        "
run           demo-1, training
recipe        demo (010101010101)
base          moat-starter (070707070707)
started from  demo-0
dataset       050505050505
created       2026-11-22 00:00
steps         120 of 600, 4 min left

over the steps                                       first     last   lowest  highest
loss             ███▇▇▇▇▆▆▆▆▆▅▅▅▅▄▄▄▄▃▃▃▃▃▂▂▂▂▁▁▁    3.990    2.800    2.800    3.990
validation loss  █▁                                  4.500    3.250    3.250    4.500
gradient norm    ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁    1.000    1.000    1.000    1.000
learning rate    █▃▂▂▂▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁   1.0e-3   8.3e-6   8.3e-6   1.0e-3
tokens a second  ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁    4,012    4,012    4,012    4,012
memory           ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁  630 MiB  630 MiB  630 MiB  630 MiB
cores busy       ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁      1.5      1.5      1.5      1.5
",
    );
    let validation = |step, early| {
        let chosen = ValidationOutcome { first: 4.5, kept: 3.25, step, early };
        let outcome = TrainOutcome { validation: Some(chosen), ..run().outcome.unwrap() };
        let page = shown(&Reply::Run(Box::new(Run { outcome: Some(outcome), ..run() })));
        page.lines().find(|line| line.starts_with("validation")).unwrap().to_owned()
    };
    let expected = "validation  loss 4.500 to 3.250 nats a token on the validation side, with ";
    assert_eq!(validation(Some(1200), true), format!("{expected}the weights after step 1,200, ended early"));
    assert_eq!(validation(None, false), format!("{expected}the mean of its best weights"));
}

#[test]
fn runs_in_a_list() {
    let failed = Run {
        name: "demo-2".to_owned(),
        state: RunState::Failed,
        message: Some("the engine died: killed by signal 9".to_owned()),
        dataset: None,
        base: None,
        steps: 0,
        outcome: None,
        edge: None,
        weights: None,
        sweep: None,
        ..run()
    };
    let none = Run { edge: Some(report(Some([0.01, -0.02, 0.04]))), ..run() };
    assert_shown(
        &Reply::Runs(vec![run(), failed.clone(), none]),
        "
run     state   steps   loss   edge  dataset       created
demo-1  done      600  3.010  0.310  050505050505  2026-11-22 00:00
demo-2  failed      0                              2026-11-22 00:00
demo-1  done      600  3.010   none  050505050505  2026-11-22 00:00
",
    );
    assert_shown(
        &Reply::Run(Box::new(failed)),
        "
run      demo-2, failed
why      the engine died: killed by signal 9
recipe   demo (010101010101)
base     moat-starter
created  2026-11-22 00:00
steps    0 of 600
`moat run resume demo-2` goes on from its last checkpoint
",
    );
}

#[test]
fn no_edge_is_told_plainly() {
    let sentence = |edge| {
        let run = Run { edge: Some(report(edge)), ..run() };
        shown(&Reply::Run(Box::new(run))).lines().last().unwrap().to_owned()
    };
    let chance = "no edge: 0.0100 bits per byte better, which may be chance (95% interval -0.0200 to 0.0400)";
    assert_eq!(sentence(Some([0.01, -0.02, 0.04])), chance);
    let worse = "no edge: 0.31 bits per byte worse than its base (95% interval -0.34 to -0.28)";
    assert_eq!(sentence(Some([-0.31, -0.34, -0.28])), worse);
    let small = "edge: 0.0042 bits per byte better than its base (95% interval 0.0011 to 0.0071)";
    assert_eq!(sentence(Some([0.0042, 0.0011, 0.0071])), small);
    assert_eq!(sentence(None), "no edge: 42 held-back records are too few for an interval");
}

#[test]
fn answers_stand_below_each_other() {
    let completion = |model: &str, text: &str, stopped| Completion {
        model: model.to_owned(),
        text: text.to_owned(),
        tokens: vec![TokenLogprob { token: 1, logprob: -0.5 }; 12],
        stopped,
        tokens_per_second: 45.4,
    };
    let answer = vec![completion("base", "one\ntwo", false), completion("tuned", "three\x1b[2J\n", true)];
    assert_shown(
        &Reply::Answer(answer),
        r#"
base (12 tokens at 45 a second, cut at --max-tokens)
one
two

tuned (12 tokens at 45 a second)
three\u{1b}[2J
"#,
    );
}

#[test]
fn colours_come_only_where_they_are_wanted() {
    let colored = reply(&View { colors: true, zone: TimeZone::UTC }, &Reply::Run(Box::new(run())));
    assert!(colored.contains("\x1b[32mdone\x1b[0m") && !shown(&Reply::Run(Box::new(run()))).contains('\x1b'));
    let failed = Reply::Failed { fault: Fault::Request, message: "no such run".to_owned() };
    assert_eq!(shown(&failed), "no such run\n");
    assert_eq!(shown(&Reply::Done), "");
}
