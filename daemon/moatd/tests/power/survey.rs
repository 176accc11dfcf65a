//! States of a story, one after the other.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::path::Path;

use moat_contracts::Digest;

use crate::check::Checker;
use crate::disk::{Disk, Image};
use crate::laid_out;
use crate::site::Random;
use crate::site::people::can_be_others;
use crate::story::{Story, Told};
use crate::trace::Call;

/// Faults after which nothing more is looked at.
const MOST: usize = 8;
/// Power cuts at each moment of the life, in one round.
const CUTS: u64 = 6;

/// A state: what happened after how many calls, and which of the many.
#[derive(Clone, Copy)]
pub(crate) struct State {
    how: How,
    pub(crate) calls: usize,
    seed: u64,
}

#[derive(Clone, Copy)]
enum How {
    /// Killed between two calls.
    Kill,
    /// Killed within the next call.
    Within,
    /// The power was cut.
    Cut,
}

impl How {
    const ALL: [Self; 3] = [Self::Kill, Self::Within, Self::Cut];

    fn word(self) -> &'static str {
        ["kill", "within", "cut"][self as usize]
    }
}

impl State {
    pub(crate) fn cut(calls: usize, seed: u64) -> Self {
        Self { how: How::Cut, calls, seed }
    }

    pub(crate) fn kill(calls: usize) -> Self {
        Self { how: How::Kill, calls, seed: 0 }
    }

    pub(crate) fn parse(name: &str) -> Self {
        let words: Vec<&str> = name.split(' ').collect();
        let how = How::ALL.into_iter().find(|how| how.word() == words[0]).unwrap();
        Self { how, calls: words[1].parse().unwrap(), seed: words[2].parse().unwrap() }
    }

    /// What is found then, where this state can be.
    fn image(&self, disk: &Disk, next: Option<&Call>) -> Option<Image> {
        let mut random = Random(self.seed.wrapping_mul(0x9E37_79B9) ^ self.calls as u64);
        match self.how {
            How::Kill => Some(disk.after_a_kill()),
            How::Within => next.and_then(|call| disk.after_a_kill_within(call, &mut random)),
            How::Cut => Some(disk.after_a_cut(&mut random)),
        }
    }
}

pub(crate) struct Survey<'a> {
    of: String,
    pub(crate) story: &'a Story,
    checker: &'a Checker<'a>,
    before: &'a Told<'a>,
    tried: [usize; 3],
    distinct: HashSet<Digest>,
    faults: Vec<String>,
}

impl<'a> Survey<'a> {
    /// Of a story, before which something had been told already.
    pub(crate) fn new(of: &str, story: &'a Story, checker: &'a Checker<'a>, before: &'a Told<'a>) -> Self {
        let (tried, distinct, faults) = ([0; 3], HashSet::new(), Vec::new());
        Self { of: of.to_owned(), story, checker, before, tried, distinct, faults }
    }

    pub(crate) fn name(&self, state: &State) -> String {
        format!("{} {} {} {}", self.of, state.how.word(), state.calls, state.seed)
    }

    pub(crate) fn told(&self, calls: usize) -> Told<'a> {
        self.story.told_after(calls, self.before)
    }

    /// A state by itself, where it can be.
    pub(crate) fn image(&self, state: &State) -> Option<Image> {
        state.image(&self.disk(state), self.story.calls.get(state.calls))
    }

    /// The disk on which a daemon goes on from a state. After a kill what was not synced still is not.
    pub(crate) fn left(&self, state: &State) -> Disk {
        match state.how {
            How::Kill => self.disk(state).after_this(),
            _ => Disk::of(&self.image(state).unwrap()),
        }
    }

    fn disk(&self, state: &State) -> Disk {
        let mut disk = self.story.beginning.clone();
        self.story.calls[..state.calls].iter().for_each(|call| disk.apply(call));
        disk
    }

    /// Looks at a state by itself; what fails is left to be looked at.
    pub(crate) fn look(&mut self, state: &State) {
        let image = self.image(state).unwrap();
        self.check(state, &image, &self.told(state.calls));
        if !self.faults.is_empty() {
            println!("it is left in {}", laid_out(&image).keep().display());
        }
    }

    /// Looks at rounds of states until so many different ones were seen.
    pub(crate) fn look_until(&mut self, distinct: usize) {
        for round in 0.. {
            self.look_at_each(round * CUTS..(round + 1) * CUTS);
            if self.distinct.len() >= distinct {
                return;
            }
            assert!(round < 20, "the life has too few states: {}", self.distinct.len());
        }
    }

    /// Looks at every moment: power cuts with these seeds, and with the first of them the kills.
    pub(crate) fn look_at_each(&mut self, seeds: Range<u64>) {
        let mut disk = self.story.beginning.clone();
        for calls in 0..=self.story.calls.len() {
            if let Some(last) = calls.checked_sub(1) {
                disk.apply(&self.story.calls[last]);
                if !changes(&self.story.calls[last]) {
                    continue;
                }
            }
            let told = self.told(calls);
            let kills = [How::Kill, How::Within].into_iter().filter(|_| seeds.start == 0);
            let kills = kills.map(|how| State { how, calls, seed: 0 });
            let cuts = seeds.clone().map(|seed| State::cut(calls, seed));
            for state in kills.chain(cuts) {
                if let Some(image) = state.image(&disk, self.story.calls.get(calls)) {
                    self.check(&state, &image, &told);
                }
            }
        }
    }

    fn check(&mut self, state: &State, image: &Image, told: &Told<'_>) {
        self.tried[state.how as usize] += 1;
        self.distinct.insert(image.digest());
        if let Err(fault) = self.checker.check(image, told) {
            println!("{}: {fault}", self.name(state));
            self.faults.push(self.name(state));
            assert!(self.faults.len() < MOST, "too many faults; MOAT_POWER={:?} shows one", self.faults[0]);
        }
    }

    /// Says what was looked at, and fails where anything was found.
    pub(crate) fn tell(&self) {
        let [kills, within, cuts] = self.tried;
        let (all, distinct) = (kills + within + cuts, self.distinct.len());
        println!(
            "{}: {all} states, {distinct} of them distinct: {kills} kills between calls, {within} within one, {cuts} power cuts",
            self.of
        );
        assert!(self.faults.is_empty(), "MOAT_POWER={:?} shows one", self.faults[0]);
    }
}

/// Whether a call changes what may be found.
fn changes(call: &Call) -> bool {
    !matches!(call, Call::Sent(_) | Call::Moved { .. })
}

/// The file or name that a call changes, where it is one that can be synced.
fn changed(call: &Call) -> Option<&Path> {
    match call {
        Call::Written { path, .. } | Call::Renamed { to: path, .. } => Some(path),
        _ => None,
    }
}

/// Whether a call writes the catalog's own file from its log.
pub(crate) fn takes_the_log_over(call: &Call) -> bool {
    matches!(call, Call::Written { path, .. } if path == Path::new("state/catalog.db"))
}

/// Whether a call begins the catalog's log.
pub(crate) fn begins_the_log_anew(call: &Call) -> bool {
    matches!(call, Call::Written { path, at: Some(0), .. } if path == Path::new("state/catalog.db-wal"))
}

/// Kills between a change and the sync that makes it last, one or a few for each kind of thing: whoever goes on from there
/// finds something that a power cut may still take. What is thrown away at the next start is left out.
pub(crate) fn unsynced(life: &Story) -> Vec<State> {
    let mut kinds: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (number, call) in life.calls.iter().enumerate() {
        let Some(changed) = changed(call) else { continue };
        let name = changed.to_string_lossy();
        let thrown_away = [".draft", ".new"].iter().any(|end| name.ends_with(end))
            || ["unfinished/", "/."].iter().any(|part| name.contains(part));
        let synced = |path: &Path| path == changed || Some(path) == changed.parent();
        let soon = life.calls[number + 1..].iter().take(10).find_map(|next| match next {
            Call::Synced { path, .. } if synced(path) => Some(true),
            next => (self::changed(next) == Some(changed)).then_some(false),
        });
        if soon == Some(true) && !thrown_away {
            let kind: String = name.chars().filter(|letter| !letter.is_ascii_digit()).collect();
            kinds.entry(kind).or_default().push(number + 1);
        }
    }
    let mut picked: BTreeSet<usize> = BTreeSet::new();
    for (kind, moments) in &kinds {
        println!("{} kills between a change of {kind} and its sync", moments.len().min(2));
        picked.extend([moments[0], moments[moments.len() / 2]]);
    }
    // And the last of the commits by which the company's folder was taken in as it is at the end.
    let last = life.scans.last().unwrap().0;
    picked.extend(kinds["state/catalog.db-wal"].iter().rfind(|moment| **moment < last));
    picked.into_iter().map(State::kill).collect()
}

/// Shows that the states would tell: without the syncs of any one kind, something that was acknowledged is lost.
pub(crate) fn missing_syncs_are_noticed(life: &Story, checker: &Checker<'_>) {
    let others = can_be_others();
    for (kind, of) in KINDS.into_iter().filter(|(kind, _)| others || *kind != EXPORT) {
        let left_out = |call: &Call| matches!(call, Call::Synced { path, .. } if of(&path.to_string_lossy()));
        let times = life.calls.iter().filter(|call| left_out(call)).count();
        assert!(times > 0, "nothing syncs {kind}");
        let (mut disk, nothing) = (life.beginning.clone(), Told::default());
        let lost = life.calls.iter().enumerate().find_map(|(number, call)| {
            let synced = Call::Sent(Vec::new());
            disk.apply(if left_out(call) { &synced } else { call });
            let told = life.told_after(number + 1, &nothing);
            let states = (0..CUTS).map(|seed| State::cut(number + 1, seed));
            let mut images = states.filter_map(|state| state.image(&disk, None));
            images.find_map(|image| checker.check(&image, &told).err())
        });
        let lost = lost.unwrap_or_else(|| panic!("{times} syncs of {kind} are for nothing"));
        println!("without the {times} syncs of {kind}: {lost}");
    }
}

/// What only root's life has, since it takes two users of the machine.
const EXPORT: &str = "an export's files";

/// Syncs of one kind, and whether a path is of those.
type Kind = (&'static str, fn(&str) -> bool);

/// On whose syncs something that is acknowledged hangs.
const KINDS: [Kind; 13] = [
    ("the state folder", |path| path.is_empty() || path == "state"),
    ("the vault's file", |path| path == "state/vault/root.draft"),
    ("the vault's folder", |path| path == "state/vault"),
    ("the ledger's entries", |path| path.starts_with("state/ledger/entries/")),
    ("the ledger's folders", |path| path == "state/ledger" || path == "state/ledger/entries"),
    ("the ledger's checkpoints", |path| path.starts_with("state/ledger/checkpoints")),
    ("the catalog's log", |path| path == "state/catalog.db-wal"),
    ("the catalog's file", |path| path == "state/catalog.db"),
    ("a base's files", |path| path.starts_with("state/bases/.import-tiny")),
    ("the store of bases", |path| path == "state/bases"),
    ("the folder of runs", |path| path == "state/runs"),
    ("what a run seals", |path| path.starts_with("state/runs/") && path.ends_with(".draft")),
    (EXPORT, |path| path.starts_with("exports/.model.unfinished/")),
];
