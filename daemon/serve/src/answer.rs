use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use moat_contracts::{AskJob, Completion, Frozen, Sampling, TokenLogprob};
use moat_template::{BaseText, Message};
use moat_tensor::{Cache, Folder, Lora, Model, Tuned, Weights, decode};

use crate::ServeError;
use crate::sample::{Sampler, check};

/// Completes the job's prompt with the base, then, where it names one, with the tuned model: an adapter's folder, or
/// that of a fully trained model. Both draw by the same seed. `piece` is given each model's name and its new text as
/// soon as its letters are whole; where it breaks, that answer ends there, as if `max_tokens` were reached, and no
/// other is begun.
///
/// # Errors
/// [`ServeError`] says what is wrong with the models, the prompt or the sampling.
pub fn answer(
    job: &AskJob,
    piece: &mut dyn FnMut(&str, &str) -> ControlFlow<()>,
) -> Result<Vec<Completion>, ServeError> {
    check(&job.sampling)?;
    let base = Path::new(&job.base);
    let text = BaseText::load(base)?;
    let prompt = prompt(&text, job)?;
    let mut model = Model { weights: Weights::load(base)?, adapter: None };
    let (completion, go_on) = complete(&model, "base", &text, &prompt, &job.sampling, piece)?;
    let mut completions = vec![completion];
    let Some(tuned) = job.tuned.as_deref().map(Path::new).filter(|_| go_on.is_continue()) else {
        return Ok(completions);
    };
    match Folder::tuned(tuned, &job.run, job.key.as_ref()) {
        Tuned::Adapter(folder) => {
            let frozen = folder.frozen()?;
            if frozen != Frozen::F32 {
                // What it was trained on; not both at once in memory.
                drop(model);
                model = Model { weights: Weights::load_frozen(&Folder::plain(base), frozen)?, adapter: None };
            }
            let adapter = Lora::load_from(model.weights.architecture(), &folder)?;
            if adapter.is_decomposed() {
                // Its rows' lengths are of the sum, which is made once rather than for every token.
                adapter.merge(&mut model.weights)?;
            } else {
                model.adapter = Some(adapter);
            }
        }
        Tuned::Model(folder) => {
            let vocabulary = model.weights.architecture().vocabulary;
            model.weights = Weights::load_from(&folder)?;
            if model.weights.architecture().vocabulary != vocabulary {
                return Err(ServeError::Strangers(tuned.to_owned()));
            }
        }
    }
    completions.push(complete(&model, "tuned", &text, &prompt, &job.sampling, piece)?.0);
    Ok(completions)
}

/// The prompt as the model was trained to see one.
fn prompt(text: &BaseText, job: &AskJob) -> Result<Vec<u32>, ServeError> {
    let tokens = if job.chat {
        text.chat_prompt(&[Message::user(&job.prompt)])?
    } else {
        text.start().into_iter().chain(text.encode(&job.prompt)?).collect()
    };
    if tokens.is_empty() { Err(ServeError::Empty) } else { Ok(tokens) }
}

fn complete(
    model: &Model,
    name: &'static str,
    text: &BaseText,
    prompt: &[u32],
    sampling: &Sampling,
    piece: &mut dyn FnMut(&str, &str) -> ControlFlow<()>,
) -> Result<(Completion, ControlFlow<()>), ServeError> {
    let positions = model.weights.architecture().max_position;
    // The last token drawn is never taken in, so it needs no position.
    let room = (positions + 1).saturating_sub(prompt.len());
    if room == 0 {
        return Err(ServeError::TooLong { tokens: prompt.len(), positions });
    }
    let limit = sampling.max_tokens.min(room);
    let mut cache = Cache::new(model, prompt.len() + limit);
    let mut sampler = Sampler::new(sampling);
    let mut logits = decode(model, &mut cache, prompt)?;
    let started = Instant::now();
    let (mut tokens, mut answer, mut pieces) = (Vec::new(), String::new(), text.pieces());
    let mut stopped;
    let mut go_on = ControlFlow::Continue(());
    loop {
        let (token, logprob) = sampler.draw(&logits).ok_or(ServeError::NotFinite { model: name })?;
        stopped = text.stops().contains(&token);
        if stopped {
            break;
        }
        tokens.push(TokenLogprob { token, logprob });
        let new = pieces.push(token)?;
        if !new.is_empty() {
            answer.push_str(&new);
            go_on = piece(name, &new);
        }
        if tokens.len() == limit || go_on.is_break() {
            break;
        }
        logits = decode(model, &mut cache, &[token])?;
    }
    let rest = pieces.finish()?;
    if !rest.is_empty() {
        answer.push_str(&rest);
        if go_on.is_continue() {
            go_on = piece(name, &rest);
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let tokens_per_second = if seconds > 0.0 { tokens.len() as f64 / seconds } else { 0.0 };
    let model = name.to_owned();
    Ok((Completion { model, text: answer, tokens, stopped, tokens_per_second }, go_on))
}
