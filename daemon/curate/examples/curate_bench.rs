//! Measures the speed of curation's stages on one thread: `curate_bench FILE.jsonl`, one `{"text": ...}` a line.

#![allow(clippy::print_stdout)]

use std::error::Error;

use moat_contracts::{Digest, DocumentId, Kind, Rules, Text};
use moat_curate::{Compiled, Scratch, Words, curate};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: curate_bench FILE.jsonl")?;
    let mut texts = Vec::new();
    for line in std::fs::read_to_string(path)?.lines() {
        let value: serde_json::Value = serde_json::from_str(line)?;
        let body = value["text"].as_str().ok_or("a line without `text`")?.to_owned();
        let language = Some("eng".to_owned());
        texts.push(Text { ordinal: 0, first_line: 1, body, kind: Kind::Prose, language, charset: "UTF-8" });
    }
    let rules = Compiled::new(&Rules::default());
    let document = DocumentId(Digest::of(b"bench"));
    let mut words = Words::default();
    let mut scratch = Scratch::default();

    timed("words", &texts, |text| {
        words.read(&text.body);
        words.len()
    })?;
    let mut only = |stage: &'static str, keys: fn(&str) -> bool| {
        let mut rules = Rules::default();
        keep_only(&mut rules, keys)?;
        let rules = Compiled::new(&rules);
        timed(stage, &texts, |text| {
            words.read(&text.body);
            rules.checks.failures(text.kind, Some("eng"), &text.body, &words, &mut scratch).len()
        })
    };
    only("quality", |key| !is_repetition(key) && !is_line(key))?;
    only("repetition", is_repetition)?;
    only("line", is_line)?;
    timed("minhash", &texts, |text| {
        words.read(&text.body);
        rules.minhash.signature(&words).len()
    })?;
    timed("detect", &texts, |text| rules.detectors.find(text.kind, &text.body).len())?;
    timed("all", &texts, |text| curate(&rules, document, std::slice::from_ref(text)).len())
}

/// The rules of Gopher's repetition filter.
fn is_repetition(key: &str) -> bool {
    key.ends_with("_gram") || key.starts_with("max_duplicate")
}

/// The rules of FineWeb's line filter.
fn is_line(key: &str) -> bool {
    ["min_punctuated_lines", "max_short_lines", "max_newline_ratio"].contains(&key)
}

fn keep_only(rules: &mut Rules, keys: fn(&str) -> bool) -> Result<(), serde_json::Error> {
    let mut prose = serde_json::to_value(&rules.quality.prose)?;
    for (key, value) in prose.as_object_mut().into_iter().flatten() {
        if !keys(key) {
            *value = 0.into();
        }
    }
    rules.quality = serde_json::from_value(serde_json::json!({ "prose": prose }))?;
    Ok(())
}

/// Prints one JSON line with the rate by the processor time of this thread's process.
fn timed(stage: &str, texts: &[Text], mut work: impl FnMut(&Text) -> usize) -> Result<(), Box<dyn Error>> {
    let start = processor_seconds()?;
    let mut sum = 0;
    for text in texts {
        sum += std::hint::black_box(work(std::hint::black_box(text)));
    }
    let seconds = processor_seconds()? - start;
    std::hint::black_box(sum);
    let mb = texts.iter().map(|text| text.body.len()).sum::<usize>() as f64 / 1e6;
    println!("{}", serde_json::json!({ "stage": stage, "mb": mb, "mb_per_s": mb / seconds.max(1e-9) }));
    Ok(())
}

/// User and system time of this process, from the scheduler's own count in nanoseconds.
fn processor_seconds() -> Result<f64, Box<dyn Error>> {
    let line = std::fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds: f64 = line.split_whitespace().next().ok_or("empty schedstat")?.parse()?;
    Ok(nanoseconds / 1e9)
}
