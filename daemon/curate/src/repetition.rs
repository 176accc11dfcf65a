use crate::table::Table;
use crate::words::{Words, mix};

/// Longest run of words that the rules look at.
const LONGEST: usize = 10;

/// How much of a text repeats itself, as shares of its characters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Repetition {
    /// The commonest 2, 3 and 4 words; 0 where none stands twice.
    pub top: [f64; 3],
    /// Runs of 5 to 10 words that stood before.
    pub duplicate: [f64; 6],
}

/// Memory that is kept from text to text.
#[derive(Default)]
pub(crate) struct Scratch {
    active: Vec<Run>,
    table: Table,
}

/// A run of words that begins at a word.
#[derive(Clone, Copy)]
struct Run {
    start: u32,
    slot: u32,
    characters: u32,
    hash: u64,
}

/// Measures repetition up to runs of `longest` words. `characters` are all of the text's, white space too.
///
/// Shorter runs are looked at first, and only where one stood elsewhere as well is it made longer, since a longer run
/// cannot repeat where its beginning does not: most of a text is looked at once, and the time is linear.
pub(crate) fn measure(words: &Words, characters: u64, longest: usize, scratch: &mut Scratch) -> Repetition {
    let mut found = Repetition::default();
    let Scratch { active, table } = scratch;
    active.clear();
    let runs = words.hashes.iter().zip(&words.lengths).zip(0u32..);
    active.extend(runs.map(|((&hash, &characters), start)| Run { start, slot: 0, characters, hash }));
    let share = |part: u64| part as f64 / characters.max(1) as f64;
    for n in 2..=longest.min(LONGEST) {
        let words_left = words.len().saturating_sub(n - 1);
        while active.last().is_some_and(|run| run.start as usize >= words_left) {
            active.pop();
        }
        if active.is_empty() {
            break;
        }
        table.clear(active.len());
        for run in active.iter_mut() {
            let last = run.start as usize + n - 1;
            run.hash = mix(run.hash.rotate_left(23) ^ words.hashes[last]);
            run.characters = run.characters.saturating_add(words.lengths[last]);
            run.slot = table.count(run.hash).0;
        }
        active.retain(|run| table.counted(run.slot) > 1);
        if n <= 4 {
            // Of equally common runs the longest, so that the order of the text does not matter.
            let top = active.iter().map(|run| (table.counted(run.slot), run.characters + n as u32 - 1)).max();
            found.top[n - 2] = top.map_or(0.0, |(count, length)| share(u64::from(count) * u64::from(length)));
        } else {
            found.duplicate[n - 5] = share(covered(active, table, n));
        }
    }
    found
}

/// Characters in runs that stood before, each word counted once.
fn covered(active: &[Run], table: &mut Table, n: usize) -> u64 {
    let mut next = 0;
    let mut covered = 0;
    for run in active {
        if run.start as usize >= next && table.mark(run.slot) {
            covered += u64::from(run.characters);
            next = run.start as usize + n;
        }
    }
    covered
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::{Repetition, Scratch, measure};
    use crate::words::Words;

    /// The definition itself, with strings and without shortcuts.
    fn plainly(text: &str) -> Repetition {
        let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
        let length = |run: &[&str]| run.iter().map(|word| word.len()).sum::<usize>();
        let share = |part: usize| part as f64 / text.len().max(1) as f64;
        let mut found = Repetition::default();
        for n in 2..=4 {
            let mut counts: HashMap<&[&str], usize> = HashMap::new();
            words.windows(n).for_each(|run| *counts.entry(run).or_default() += 1);
            let top = counts.iter().filter(|(_, count)| **count > 1);
            let top = top.map(|(run, count)| (*count, length(run) + n - 1)).max();
            found.top[n - 2] = top.map_or(0.0, |(count, length)| share(count * length));
        }
        for n in 5..=10 {
            let (mut seen, mut at, mut covered) = (HashSet::new(), 0, 0);
            while at + n <= words.len() {
                if seen.insert(&words[at..at + n]) {
                    at += 1;
                } else {
                    covered += length(&words[at..at + n]);
                    at += n;
                }
            }
            found.duplicate[n - 5] = share(covered);
        }
        found
    }

    proptest! {
        #[test]
        fn the_shortcuts_change_nothing(text in prop::collection::vec("a|bb|ccc", 0..120)) {
            let text = text.join(" ");
            let mut words = Words::default();
            words.read(&text);
            let found = measure(&words, text.len() as u64, 10, &mut Scratch::default());
            prop_assert_eq!(found, plainly(&text));
        }
    }
}
