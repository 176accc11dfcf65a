//! What goes on meanwhile, on standard error: a bar on a terminal, a line every few seconds elsewhere, JSON lines with
//! --json.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use moat_contracts::{PairFigures, Progress as Report};
use moat_protocol::control::Update;

use crate::exit::{Exit, Failure};
use crate::output::notice;
use crate::render::View;
use crate::render::preview;
use crate::render::text::{bytes, clean, count, counted, duration, fixed, parameters};

/// The unit that is told in KiB, MiB and so on.
const BYTE: &str = "byte";

/// Notes have no colours: they stand among others on standard error.
const PLAIN: View = View { colors: false, zone: jiff::tz::TimeZone::UTC };

/// The time between two plain lines.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// Time that must have passed before a rate means something.
const SETTLED: Duration = Duration::from_secs(1);

enum Mode {
    Bar(Option<ProgressBar>),
    Lines,
    Json,
}

/// What an update means to a reader.
#[derive(Debug, PartialEq)]
enum Seen {
    /// Something happened once.
    Note(String),
    /// Some of something is done.
    Part(Part),
    Nothing,
}

#[derive(Debug, PartialEq)]
struct Part {
    /// What goes on; a new one begins a new bar.
    phase: String,
    /// What is counted.
    unit: &'static str,
    done: u64,
    of: Option<u64>,
    /// What else there is to say.
    words: String,
}

/// Since when a phase goes on, and how far it was then.
struct Pace {
    phase: String,
    began: Instant,
    first: u64,
    told: Option<Instant>,
}

/// Shows updates as they come.
pub(crate) struct Progress {
    mode: Mode,
    pace: Option<Pace>,
    /// The run that was last heard of.
    pub(crate) run: Option<String>,
}

impl Progress {
    pub(crate) fn new(json: bool) -> Self {
        let mode = if json {
            Mode::Json
        } else if std::io::stderr().is_terminal() {
            Mode::Bar(None)
        } else {
            Mode::Lines
        };
        Self { mode, pace: None, run: None }
    }

    /// Shows one update.
    pub(crate) fn update(&mut self, update: &Update) -> Result<(), Failure> {
        if let Update::RunState { run, .. } | Update::Run { run, .. } = update {
            self.run = Some(run.clone());
        }
        if matches!(self.mode, Mode::Json) {
            let line = serde_json::to_string(update).map_err(|error| {
                Failure::new(Exit::Internal, format!("an update cannot be written: {error}"))
            })?;
            notice(&format!("{line}\n"));
            return Ok(());
        }
        match seen(update) {
            Seen::Nothing => {}
            Seen::Note(text) => self.note(&text),
            Seen::Part(part) => self.part(&part),
        }
        Ok(())
    }

    /// Shows how many bytes of how many are done of something that needs no moatd.
    pub(crate) fn bytes(&mut self, phase: &str, done: u64, of: u64) {
        let part = Part { phase: phase.to_owned(), unit: BYTE, done, of: Some(of), words: String::new() };
        self.part(&part);
    }

    /// Takes the bar away, so that what follows stands on a clean line.
    pub(crate) fn end(&mut self) {
        if let Mode::Bar(bar) = &mut self.mode
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
        }
    }

    fn note(&mut self, text: &str) {
        match &self.mode {
            Mode::Bar(Some(bar)) => bar.suspend(|| notice(&format!("{text}\n"))),
            _ => notice(&format!("{text}\n")),
        }
    }

    fn part(&mut self, part: &Part) {
        let fresh = self.pace.as_ref().is_none_or(|pace| pace.phase != part.phase);
        if fresh {
            self.end();
            let pace =
                Pace { phase: part.phase.clone(), began: Instant::now(), first: part.done, told: None };
            self.pace = Some(pace);
        }
        let Some(pace) = &mut self.pace else { return };
        let facts = facts(part, pace.began.elapsed(), pace.first);
        match &mut self.mode {
            Mode::Bar(bar) => {
                let bar = bar.get_or_insert_with(|| new_bar(part));
                if let Some(of) = part.of {
                    bar.set_length(of);
                }
                bar.set_position(part.done);
                bar.set_message(facts);
            }
            Mode::Lines | Mode::Json => {
                let due = pace.told.is_none_or(|told| told.elapsed() >= BETWEEN_LINES);
                if due || part.of == Some(part.done) {
                    pace.told = Some(Instant::now());
                    notice(&match self.mode {
                        Mode::Json => json(part),
                        _ => format!("{}: {}\n", part.phase, line(part, &facts)),
                    });
                }
            }
        }
    }
}

fn new_bar(part: &Part) -> ProgressBar {
    let template = match part.of {
        Some(_) if part.unit == BYTE => "{prefix} [{bar:24}] {msg}",
        Some(_) => "{prefix} [{bar:24}] {human_pos}/{human_len} {msg}",
        None => "{prefix} {spinner} {human_pos} {msg}",
    };
    // The templates are constants; should one not parse, the default bar shows the same numbers.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(part.of.unwrap_or(0));
    bar.set_style(style.progress_chars("=> "));
    bar.set_prefix(part.phase.clone());
    bar
}

/// A part in the form of moatd's updates.
fn json(part: &Part) -> String {
    let value = serde_json::json!({ "doing": part.phase, "bytes": part.done, "of": part.of });
    format!("{}\n", serde_json::json!({ "update": "part", "value": value }))
}

/// `step 12 of 600, loss 3.210, …`
fn line(part: &Part, facts: &str) -> String {
    if part.unit == BYTE {
        return facts.to_owned();
    }
    let of = part.of.map(|of| format!(" of {}", count(of))).unwrap_or_default();
    let comma = if facts.is_empty() { "" } else { ", " };
    format!("{} {}{of}{comma}{facts}", part.unit, count(part.done))
}

/// Words, rate and time left.
fn facts(part: &Part, elapsed: Duration, first: u64) -> String {
    let mut facts = Vec::new();
    if part.unit == BYTE {
        let of = part.of.map(|of| format!(" of {}", bytes(of))).unwrap_or_default();
        facts.push(format!("{}{of}", bytes(part.done)));
    }
    if !part.words.is_empty() {
        facts.push(part.words.clone());
    }
    let done = part.done.saturating_sub(first);
    if done > 0 && elapsed >= SETTLED {
        #[allow(clippy::cast_precision_loss)]
        let rate = done as f64 / elapsed.as_secs_f64();
        if part.unit == BYTE {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            facts.push(format!("{}/s", bytes(rate as u64)));
        } else if part.unit != "step" {
            // A training step says its own rate, in tokens.
            facts.push(format!("{} {}s/s", fixed(rate, usize::from(rate < 10.0)), part.unit));
        }
        if let Some(left) = part.of.and_then(|of| of.checked_sub(part.done)).filter(|left| *left > 0) {
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let seconds = (left as f64 / rate).ceil() as u64;
            facts.push(format!("{} left", duration(seconds)));
        }
    }
    facts.join(", ")
}

fn seen(update: &Update) -> Seen {
    match update {
        Update::Curating { documents, bytes: read, of } => {
            part("curating".to_owned(), "document", *documents, *of, bytes(*read))
        }
        Update::Building { records, of } => {
            part("building the dataset".to_owned(), "record", *records, Some(*of), String::new())
        }
        Update::Looking { records, of, found } => {
            part("looking".to_owned(), "record", *records, Some(*of), format!("{} found", count(*found)))
        }
        // The whole answer follows.
        Update::Answering { .. } => Seen::Nothing,
        Update::RunState { run, state } => Seen::Note(format!("{}: {}", clean(run), state.word())),
        Update::Sweep(sweep) => {
            let best = sweep.runs.first().filter(|run| sweep.best.as_deref() == Some(&run.run));
            let best =
                best.and_then(|run| Some(format!("best validation loss {}", fixed(run.validation?, 4))));
            let ended = sweep.done + sweep.failed;
            part(clean(&sweep.name), "run", ended, Some(sweep.of), best.unwrap_or_default())
        }
        Update::Run { run, progress } => of_run(&clean(run), progress),
    }
}

fn part(phase: String, unit: &'static str, done: u64, of: Option<u64>, words: String) -> Seen {
    Seen::Part(Part { phase, unit, done, of, words })
}

fn of_run(run: &str, report: &Report) -> Seen {
    match report {
        Report::Preparing { doing } => Seen::Note(format!("{run}: {}", clean(doing))),
        Report::Training { from, steps, trainable, parameters: all } => {
            let resumed = match from {
                0 => String::new(),
                from => format!(", going on after step {}", count(*from)),
            };
            let (trainable, all) = (parameters(*trainable), parameters(*all));
            let steps = count(*steps);
            Seen::Note(format!("{run}: {steps} steps on {trainable} of {all} parameters{resumed}"))
        }
        Report::Surveyed { survey, memory } => {
            let facts = preview::facts(&PLAIN, survey, memory);
            Seen::Note(format!("{run}: trains on\n{}", facts.trim_end()))
        }
        Report::Proven { proofs } => {
            let table = preview::proofs(&PLAIN, proofs);
            Seen::Note(format!("{run}: proofs\n{}", table.trim_end()))
        }
        Report::Step { step, steps, loss, tokens_per_second, pairs, .. } => {
            let preferred = preferred(*pairs);
            let speed = fixed(*tokens_per_second, 0);
            let words = format!("loss {}{preferred}, {speed} tokens/s", fixed(*loss, 3));
            part(format!("{run} training"), "step", *step, Some(*steps), words)
        }
        Report::Validated { step, loss, pairs, .. } => {
            let (loss, preferred) = (fixed(*loss, 3), preferred(*pairs));
            Seen::Note(format!("{run}: validation loss {loss}{preferred} after {}", counted(*step, "step")))
        }
        // Checkpoints come often and matter only after a fall; --json has them.
        Report::Checkpoint { .. } => Seen::Nothing,
        Report::Examined { done, of, .. } => {
            part(format!("{run} evaluating"), "record", *done, Some(*of), String::new())
        }
    }
}

/// How pairs were told apart, where they were.
fn preferred(pairs: Option<PairFigures>) -> String {
    let Some(pairs) = pairs else { return String::new() };
    let share = fixed(pairs.accuracy * 100.0, 0);
    format!(", prefers the chosen answer in {share}%, margin {}", fixed(pairs.margin, 3))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use moat_contracts::Progress as Report;
    use moat_protocol::control::{RunState, Update};

    use super::{BYTE, Part, Seen, facts, line, seen};

    fn shown(update: &Update, seconds: u64, first: u64) -> String {
        match seen(update) {
            Seen::Note(text) => text,
            Seen::Part(part) => {
                let facts = facts(&part, Duration::from_secs(seconds), first);
                format!("{}: {}", part.phase, line(&part, &facts))
            }
            Seen::Nothing => String::new(),
        }
    }

    fn of_run(progress: Report) -> Update {
        Update::Run { run: "demo-1".to_owned(), progress }
    }

    #[test]
    fn updates_are_told_with_rate_and_time_left() {
        let step = Report::Step {
            step: 120,
            steps: 600,
            loss: 3.2104,
            gradient_norm: 1.0,
            learning_rate: 1e-3,
            tokens: 2048,
            tokens_per_second: 4012.4,
            memory: 1 << 30,
            seconds_left: 240.0,
            cores: 1.9,
            pairs: None,
        };
        let step = of_run(step);
        // A resumed run began at step 100: 20 steps in 10 s, 480 to go.
        assert_eq!(
            shown(&step, 10, 100),
            "demo-1 training: step 120 of 600, loss 3.210, 4012 tokens/s, 4 min left"
        );
        assert_eq!(shown(&step, 0, 120), "demo-1 training: step 120 of 600, loss 3.210, 4012 tokens/s");
        let walking = Update::Curating { documents: 1500, bytes: 3 << 20, of: None };
        assert_eq!(shown(&walking, 10, 500), "curating: document 1,500, 3.00 MiB, 100 documents/s");
        let building = Update::Building { records: 30, of: 30 };
        assert_eq!(shown(&building, 20, 0), "building the dataset: record 30 of 30, 1.5 records/s");
        let state = Update::RunState { run: "demo-1".to_owned(), state: RunState::Evaluating };
        assert_eq!(shown(&state, 0, 0), "demo-1: evaluating");
        let training =
            Report::Training { from: 100, steps: 600, trainable: 1_250_000, parameters: 14_000_000 };
        assert_eq!(
            shown(&of_run(training), 0, 0),
            "demo-1: 600 steps on 1.25 M of 14.0 M parameters, going on after step 100"
        );
        let looked = Report::Validated { step: 1200, loss: 3.2, gain: true, pairs: None };
        assert_eq!(shown(&of_run(looked), 0, 0), "demo-1: validation loss 3.200 after 1,200 steps");
        assert_eq!(shown(&of_run(Report::Checkpoint { step: 5 }), 0, 0), "");
        let part =
            Part { phase: String::new(), unit: BYTE, done: 3 << 20, of: Some(9 << 20), words: String::new() };
        let told = facts(&part, Duration::from_secs(3), 0);
        assert_eq!(line(&part, &told), "3.00 MiB of 9.00 MiB, 1.00 MiB/s, 6 s left");
    }
}
