//! Kills and power cuts at ten thousand moments of a daemon's whole life, over vault, ledger, catalog, datasets,
//! checkpoints, bases and exports: nothing acknowledged is lost, nothing visible is damaged, and it goes on from there.
//!
//! A real `moatd` with its engines lives once, under `strace`. From what it did to the disk, every state that a kill or a
//! power cut could have left is made in memory and checked with the product's own crates; on some a real `moatd` is
//! started. A failing state names itself: `MOAT_POWER="cut 1234 5"` looks at it alone, in the recording of the last run.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

mod check;
mod disk;
mod life;
#[path = "../site/mod.rs"]
mod site;
mod story;
mod trace;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use check::Checker;
use disk::{Disk, Image};
use site::Random;
use story::Story;
use trace::Call;

/// States at least.
const STATES: usize = 10_000;
/// Faults after which nothing more is looked at.
const MOST: usize = 8;

/// A state: what happened after how many calls, and which of the many.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    how: How,
    calls: usize,
    seed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Killed between two calls.
    Kill,
    /// Killed within the next call.
    Within,
    /// The power was cut.
    Cut,
}

impl State {
    fn name(self) -> String {
        let how = match self.how {
            How::Kill => "kill",
            How::Within => "within",
            How::Cut => "cut",
        };
        format!("{how} {} {}", self.calls, self.seed)
    }

    fn parse(name: &str) -> Self {
        let words: Vec<&str> = name.split(' ').collect();
        let how = match words[0] {
            "kill" => How::Kill,
            "within" => How::Within,
            "cut" => How::Cut,
            other => panic!("no state is called {other}"),
        };
        Self { how, calls: words[1].parse().unwrap(), seed: words[2].parse().unwrap() }
    }

    /// What is found then, where this state can be.
    fn image(self, disk: &Disk, next: Option<&Call>) -> Option<Image> {
        let mut random = Random(self.seed.wrapping_mul(0x9E37_79B9) ^ self.calls as u64);
        match self.how {
            How::Kill => Some(disk.after_a_kill()),
            How::Within => next.and_then(|call| disk.after_a_kill_within(call, &mut random)),
            How::Cut => Some(disk.after_a_cut(&mut random)),
        }
    }
}

/// A folder in memory: the model loses bytes itself, and needs no disk to sync to.
fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn laid_out(image: &Image) -> tempfile::TempDir {
    let folder = memory();
    image.write(folder.path());
    folder
}

/// Whether a call changes what may be found.
fn changes(call: &Call) -> bool {
    !matches!(call, Call::Sent(_) | Call::Moved { .. })
}

#[test]
fn ten_thousand_kills_and_power_cuts_lose_nothing_acknowledged() {
    let began = Instant::now();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("power");
    let wanted = std::env::var("MOAT_POWER").ok().map(|name| State::parse(&name));
    let lived = wanted.is_none().then(|| {
        drop(fs::remove_dir_all(&kept));
        fs::create_dir_all(&kept).unwrap();
        life::record(&kept).1
    });
    let story = Story::read(&kept);
    let mut disk = story.beginning();
    story.calls.iter().for_each(|call| disk.apply(call));
    if let Some(lived) = lived {
        same(&disk.after_a_kill(), &lived);
    }
    println!("recorded {} calls in {:.0?}", story.calls.len(), began.elapsed());

    let key = memory();
    fs::write(key.path().join("moat-kek"), [7; 32]).unwrap();
    let end = laid_out(&disk.after_a_kill());
    let mut checker = Checker::new(key.path(), end.path());
    let mut disk = story.beginning();
    let moments = 1 + story.calls.iter().filter(|call| changes(call)).count();
    let cuts = STATES.saturating_sub(moments).div_ceil(moments).max(2) as u64;
    let (mut tried, mut distinct, mut faults) = ([0; 3], HashSet::new(), Vec::new());
    for calls in 0..=story.calls.len() {
        let before = calls.checked_sub(1).map(|last| &story.calls[last]);
        before.iter().for_each(|call| disk.apply(call));
        if !before.is_none_or(changes) {
            continue;
        }
        let all = [State { how: How::Kill, calls, seed: 0 }, State { how: How::Within, calls, seed: 0 }];
        let cut = (0..cuts).map(|seed| State { how: How::Cut, calls, seed });
        for state in all.into_iter().chain(cut) {
            if wanted.is_some_and(|wanted| wanted != state) {
                continue;
            }
            let Some(image) = state.image(&disk, story.calls.get(calls)) else { continue };
            tried[state.how as usize] += 1;
            // A state that was found to be good is as good a moment later, but for what was told meanwhile.
            let told = story.told_after(calls);
            distinct.insert(image.digest());
            let folder = laid_out(&image);
            if let Err(fault) = checker.check(folder.path(), &told) {
                println!("{}: {fault}", state.name());
                faults.push(state);
                if wanted.is_some() {
                    let left = laid_out(&image).keep();
                    println!("it is left in {}", left.display());
                }
                assert!(faults.len() < MOST, "too many faults");
            }
        }
    }
    let [kills, within, cuts] = tried;
    println!(
        "{} states: {kills} kills between calls, {within} within one, {cuts} power cuts; {} distinct; {:.0?}",
        kills + within + cuts,
        distinct.len(),
        began.elapsed()
    );
    assert!(faults.is_empty(), "look at one alone with MOAT_POWER={:?}", faults[0].name());
    assert!(wanted.is_some() || kills + within + cuts >= STATES, "too few states");
}

/// Shows that the model of the disk knows what was done to the real one.
fn same(model: &Image, lived: &Image) {
    assert_eq!(model.folders, lived.folders);
    let names = |image: &Image| image.files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(model), names(lived));
    for (path, content) in &model.files {
        assert!(content.bytes == lived.files[path].bytes, "{} is not as the model has it", path.display());
    }
}
