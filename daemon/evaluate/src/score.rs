use moat_contracts::{Example, Kind};
use moat_template::{BaseText, Chat, Message, Pair, TemplateError, Turns, messages, pair};
use moat_tensor::{Batch, IGNORE};

/// A record as tokens, with the tokens that count.
pub(crate) struct Scored {
    pub(crate) tokens: Vec<u32>,
    /// Whether a token's loss counts; the first never does, since nothing precedes it.
    counts: Vec<bool>,
    /// Bytes of what counts.
    pub(crate) bytes: u64,
}

/// What a record is measured on.
///
/// - Of a text every token counts, the first too where the base wants a start token before it; otherwise its bytes are
///   left out with it. The end token does not count: it has no bytes.
/// - Of a chat the answers count that training would learn, all turns of them, without the tokens that end them.
pub(crate) fn scored(text: &BaseText, example: &Example) -> Result<Scored, TemplateError> {
    if example.kind == Kind::Chat {
        return scored_chat(text, &example.body);
    }
    let ranges = text.encode_ranges(&example.body)?;
    let mut tokens = Vec::with_capacity(ranges.len() + 1);
    tokens.extend(text.start());
    tokens.extend(ranges.iter().map(|(token, _)| *token));
    let skipped = match (text.start(), ranges.get(1)) {
        (Some(_), _) => 0,
        (None, Some((_, second))) => second.start,
        (None, None) => example.body.len(),
    };
    let mut counts = vec![true; tokens.len()];
    counts.iter_mut().take(1).for_each(|first| *first = false);
    Ok(Scored { tokens, counts, bytes: (example.body.len() - skipped) as u64 })
}

fn scored_chat(text: &BaseText, body: &str) -> Result<Scored, TemplateError> {
    let messages = messages(body)?;
    let chat = text.chat(&messages)?;
    let answers = messages.iter().rev().filter(|message| message.is_learnt());
    let learnt = if chat.turns == Turns::Last { 1 } else { usize::MAX };
    let bytes = answers.take(learnt).map(|message| message.content.len() as u64).sum();
    let ends = text.stops();
    let pairs = chat.tokens.iter().zip(&chat.answer).enumerate();
    let counts = pairs.map(|(index, (token, answer))| index > 0 && *answer && !ends.contains(token));
    Ok(Scored { counts: counts.collect(), bytes, tokens: chat.tokens })
}

/// Both answers of a preference, the chosen one first, each after its prompt. The tokens that end them count as well, as they
/// do where they are learnt; the bytes are those of the answers alone.
pub(crate) fn scored_answers(text: &BaseText, body: &str) -> Result<[Scored; 2], TemplateError> {
    let pair = pair(body)?;
    let said = |messages: &[Message]| {
        let answers = messages.iter().filter(|message| message.is_learnt());
        answers.map(|message| message.content.len() as u64).sum::<u64>()
    };
    let bytes = match &pair {
        Pair::Text { chosen, rejected, .. } => [chosen.len() as u64, rejected.len() as u64],
        Pair::Chat { chosen, rejected, .. } => [said(chosen), said(rejected)],
    };
    let [chosen, rejected] = text.answers(&pair)?;
    let scored = |chat: Chat, bytes| {
        let counts = chat.answer.iter().enumerate().map(|(index, answer)| index > 0 && *answer);
        Scored { counts: counts.collect(), tokens: chat.tokens, bytes }
    };
    Ok([scored(chosen, bytes[0]), scored(rejected, bytes[1])])
}

/// A stretch of one record that is scored at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) tokens: Vec<u32>,
    pub(crate) targets: Vec<u32>,
}

impl Scored {
    /// Windows of `length` tokens at most. Each begins half a window before where the one before it ended, so that
    /// every counting token is a target exactly once, after at least half a window of context where there is so much.
    /// Windows without a counting token are left out.
    pub(crate) fn windows(&self, length: usize) -> Vec<Window> {
        let inputs = self.tokens.len().saturating_sub(1);
        let (mut windows, mut done) = (Vec::new(), 0);
        while done < inputs {
            let start = if done == 0 { 0 } else { done - length / 2 };
            let end = inputs.min(start + length);
            let target = |position: usize| {
                let next = position + 1;
                if position >= done && self.counts[next] { self.tokens[next] } else { IGNORE }
            };
            let targets: Vec<u32> = (start..end).map(target).collect();
            if targets.iter().any(|target| *target != IGNORE) {
                windows.push(Window { tokens: self.tokens[start..end].to_vec(), targets });
            }
            done = end;
        }
        windows
    }
}

/// Windows laid end to end; attention never crosses from one into another.
pub(crate) fn batch(windows: &[Window]) -> Batch {
    let mut batch = Batch { tokens: Vec::new(), targets: Vec::new(), segments: vec![0] };
    for window in windows {
        batch.tokens.extend_from_slice(&window.tokens);
        batch.targets.extend_from_slice(&window.targets);
        batch.segments.push(batch.tokens.len());
    }
    batch
}

#[cfg(test)]
mod tests {
    use moat_tensor::IGNORE;

    use super::Scored;

    #[test]
    fn every_counting_token_is_a_target_once_with_half_a_window_before_it() {
        for total in 0..40usize {
            for length in 2..12 {
                let tokens: Vec<u32> = (0..total as u32).collect();
                let counts: Vec<bool> = (0..total).map(|index| index > 0 && index % 5 != 4).collect();
                let scored = Scored { tokens, counts: counts.clone(), bytes: 0 };
                let mut met = vec![0; total];
                for window in scored.windows(length) {
                    assert!(window.tokens.len() <= length);
                    for (place, (token, target)) in window.tokens.iter().zip(&window.targets).enumerate() {
                        if *target != IGNORE {
                            assert_eq!(*target, token + 1);
                            met[*target as usize] += 1;
                            let context = place + 1;
                            assert!(context >= (length / 2).min(*target as usize));
                        }
                    }
                }
                let expected: Vec<i32> = counts.iter().map(|counts| i32::from(*counts)).collect();
                assert_eq!(met, expected, "{total} tokens in windows of {length}");
            }
        }
    }
}
