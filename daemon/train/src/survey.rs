//! What a corpus comes to as tokens, and one example as a person reads it.

use std::path::Path;

use moat_contracts::{Preview, Stretch, Survey, TrainJob};
use moat_template::BaseText;

use crate::corpus::TRAINED;
use crate::memory::draft_memory;
use crate::{Corpus, Plan, TrainError, output, proofs, ranks};

/// Tokens of an example that are shown.
const SHOWN: usize = 512;

/// Counts a corpus.
pub(crate) fn survey(corpus: &Corpus, plan: &Plan, sequence_length: usize) -> Survey {
    let mut lengths: Vec<u64> = corpus.spans().map(|span| span.len() as u64).collect();
    lengths.sort_unstable();
    // The smallest length that so many of the examples have at most.
    let share = |percent: usize| {
        let rank = (lengths.len() * percent).div_ceil(100).max(1);
        lengths.get(rank - 1).copied().unwrap_or(0)
    };
    // An example's first token is never a target.
    let learnt = |span: std::ops::Range<usize>| {
        corpus.tokens()[span].iter().skip(1).filter(|token| **token & TRAINED != 0).count() as u64
    };
    Survey {
        examples: corpus.examples() as u64,
        chats: corpus.facts().chats,
        pairs: if corpus.is_pairs() { corpus.examples() as u64 } else { 0 },
        rearranged: corpus.facts().rearranged,
        tokens: corpus.size(),
        trained: corpus.spans().map(learnt).sum(),
        shortest: share(0),
        median: share(50),
        p95: share(95),
        longest: share(100),
        cut: if corpus.is_pairs() {
            plan.left_out(corpus)
        } else {
            lengths.iter().filter(|length| **length > sequence_length as u64 + 1).count() as u64
        },
        rows: plan.rows() as u64,
        steps: plan.steps(),
    }
}

/// What a job would train on and take. Loads no weights and writes nothing. Plans for as many threads in each of its
/// processes as the caller's rayon pool has.
///
/// # Errors
/// What cannot be read of the base; a recipe that does not fit it, or the number of processes.
pub fn preview(job: &TrainJob, corpus: &Corpus) -> Result<Preview, TrainError> {
    let recipe = &job.recipe;
    let (architecture, _) = output::architecture(Path::new(&job.base))?;
    output::check_length(recipe, &architecture)?;
    ranks::check(&recipe.train, job.processes)?;
    let plan = Plan::new(corpus, &recipe.train, recipe.seed);
    let workers = (job.processes, rayon::current_num_threads());
    let memory = draft_memory(&architecture, corpus, recipe, workers, job.memory)?;
    let text = BaseText::load(Path::new(&job.base))?;
    let facts = corpus.facts();
    let span = facts.sample.clone();
    let shown = |span: &std::ops::Range<usize>| &corpus.tokens()[span.clone()][..span.len().min(SHOWN)];
    let tokens = shown(&span);
    let rejected = facts.rejected.as_ref().map(|span| stretches(&text, shown(span))).transpose()?;
    Ok(Preview {
        survey: survey(corpus, &plan, recipe.train.sequence_length),
        validation_tokens: corpus.validation().map_or(0, Corpus::size),
        proofs: proofs::of_data(corpus),
        memory,
        record: facts.record,
        example: stretches(&text, tokens)?,
        rejected: rejected.unwrap_or_default(),
        left: (span.len() - tokens.len()) as u64,
    })
}

/// Neighbours that are learnt, or are not, as text. A letter whose bytes lie in two of them stands in the later one.
fn stretches(base: &BaseText, tokens: &[u32]) -> Result<Vec<Stretch>, TrainError> {
    let plain: Vec<u32> = tokens.iter().map(|token| token & !TRAINED).collect();
    let learnt = |place: usize| place > 0 && tokens[place] & TRAINED != 0;
    let mut found: Vec<Stretch> = Vec::new();
    let (mut start, mut before) = (0, String::new());
    while start < tokens.len() {
        let trained = learnt(start);
        let end = (start..tokens.len()).find(|place| learnt(*place) != trained).unwrap_or(tokens.len());
        let whole = base.decode_marked(&plain[..end])?;
        let text = match whole.strip_prefix(before.trim_end_matches('\u{fffd}')) {
            Some(text) => text.to_owned(),
            None => base.decode_marked(&plain[start..end])?,
        };
        found.push(Stretch { text, trained });
        (start, before) = (end, whole);
    }
    Ok(found)
}
