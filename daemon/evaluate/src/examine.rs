use std::ops::ControlFlow;
use std::path::Path;

use moat_contracts::{AnswerLosses, DocumentLoss, EvaluateJob, Example, Kind};
use moat_template::BaseText;
use moat_tensor::IGNORE;

use crate::pair::Pair;
use crate::score::{Scored, Window, batch, scored, scored_answers};
use crate::{EvaluateError, passages};

/// Tokens that go through a model at once, unless one window is longer: enough to fill the cores, few enough that
/// activations stay small.
const BATCH_TOKENS: usize = 2048;

/// What base and tuned model lose on every record.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Held-back records, in the order given.
    pub held_out: Vec<DocumentLoss>,
    /// The passages of the forgetting text.
    pub forgetting: Vec<DocumentLoss>,
}

/// Measures both models on the held-back examples and on the forgetting text. `examined` is called after each
/// held-back record with its loss, how many are done, and of how many; where it breaks, the measuring stops and
/// `None` is returned.
///
/// # Errors
/// [`EvaluateError`] names what is wrong with the models or with a record.
pub fn examine(
    job: &EvaluateJob,
    held_out: &[Example],
    examined: &mut dyn FnMut(DocumentLoss, u64, u64) -> ControlFlow<()>,
) -> Result<Option<Measured>, EvaluateError> {
    let text = BaseText::load(Path::new(&job.base))?;
    let pair = Pair::load(job, &text)?;
    let length = job.sequence_length.min(pair.positions());
    if length < 2 {
        return Err(EvaluateError::Window(length));
    }
    let mut examiner = Examiner { text, pair, length };
    let of = held_out.len() as u64;
    let mut done = 0;
    let found = examiner.examine(held_out, &mut |loss| {
        done += 1;
        examined(loss.clone(), done, of)
    })?;
    let Some(held_out) = found else { return Ok(None) };
    let forgetting = examiner.examine(&passages()?, &mut |_| ControlFlow::Continue(()))?;
    Ok(forgetting.map(|forgetting| Measured { held_out, forgetting }))
}

struct Examiner {
    text: BaseText,
    pair: Pair,
    /// Tokens of a window at most.
    length: usize,
}

impl Examiner {
    fn examine(
        &mut self,
        mut examples: &[Example],
        each: &mut dyn FnMut(&DocumentLoss) -> ControlFlow<()>,
    ) -> Result<Option<Vec<DocumentLoss>>, EvaluateError> {
        let mut losses = Vec::with_capacity(examples.len());
        while !examples.is_empty() {
            let group = self.group(examples)?;
            examples = &examples[group.len()..];
            for loss in group {
                let goes_on = each(&loss);
                losses.push(loss);
                if goes_on.is_break() {
                    return Ok(None);
                }
            }
        }
        Ok(Some(losses))
    }

    /// Measures as many of the first examples as fill a batch, at least one.
    fn group(&mut self, examples: &[Example]) -> Result<Vec<DocumentLoss>, EvaluateError> {
        let mut losses: Vec<DocumentLoss> = Vec::new();
        // Whose each window is, and whether it is of a rejected answer.
        let (mut windows, mut owners): (Vec<Window>, Vec<(usize, bool)>) = (Vec::new(), Vec::new());
        let mut tokens = 0;
        for example in examples {
            let failed = |source| EvaluateError::Example { record: example.record, source };
            let mut add = |scored: &Scored, rejected| {
                for window in scored.windows(self.length) {
                    tokens += window.tokens.len();
                    windows.push(window);
                    owners.push((losses.len(), rejected));
                }
                scored.bytes
            };
            let (bytes, answers) = if example.kind == Kind::Preference {
                let [chosen, rejected] = scored_answers(&self.text, &example.body).map_err(failed)?;
                let bytes = add(&chosen, false);
                add(&rejected, true);
                (bytes, Some(AnswerLosses::default()))
            } else {
                (add(&scored(&self.text, example).map_err(failed)?, false), None)
            };
            losses.push(DocumentLoss {
                record: example.record,
                source: example.source.clone(),
                bytes,
                base_nats: 0.0,
                tuned_nats: 0.0,
                answers,
            });
            if tokens >= BATCH_TOKENS {
                break;
            }
        }
        let mut from = 0;
        while from < windows.len() {
            let to = from + self.fitting(&windows[from..]);
            let batch = batch(&windows[from..to]);
            let [base, tuned] = self.pair.losses(&batch)?;
            for (segment, owner) in batch.segments.windows(2).zip(&owners[from..to]) {
                let (owner, rejected) = *owner;
                let DocumentLoss { base_nats, tuned_nats, answers, .. } = &mut losses[owner];
                for row in (segment[0]..segment[1]).filter(|row| batch.targets[*row] != IGNORE) {
                    let nats = [f64::from(base[row]), f64::from(tuned[row])];
                    if let Some(answers) = answers {
                        let side = if rejected { &mut answers.rejected } else { &mut answers.chosen };
                        side.iter_mut().zip(nats).for_each(|(sum, nats)| *sum += nats);
                        // What ends an answer has no bytes.
                        if rejected || self.text.stops().contains(&batch.targets[row]) {
                            continue;
                        }
                    }
                    *base_nats += nats[0];
                    *tuned_nats += nats[1];
                }
            }
            from = to;
        }
        for loss in &losses {
            let [base, tuned] = loss.answers.map(|answers| answers.rejected).unwrap_or_default();
            let sums = [(loss.base_nats + base, "base"), (loss.tuned_nats + tuned, "tuned")];
            for (nats, model) in sums {
                if !nats.is_finite() {
                    return Err(EvaluateError::NotFinite { record: loss.record, model });
                }
            }
        }
        Ok(losses)
    }

    /// How many of the first windows go into one batch.
    fn fitting(&self, windows: &[Window]) -> usize {
        let mut tokens = 0;
        let fit = windows.iter().take_while(|window| {
            tokens += window.tokens.len();
            tokens <= BATCH_TOKENS
        });
        fit.count().max(1)
    }
}
