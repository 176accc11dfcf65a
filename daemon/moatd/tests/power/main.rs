//! Kills and power cuts at ten thousand moments of a daemon's whole life, over vault, ledger, catalog, datasets,
//! checkpoints, bases and exports: nothing acknowledged is lost, nothing visible is damaged, and it goes on from there.
//!
//! A real `moatd` with its engines lives once, under `strace`. From what it did to the disk, states that a kill or a
//! power cut could have left are made in memory and checked with the product's own crates. On some of them a real
//! `moatd` is started, and has to end its runs with the same bytes; what some of those do is recorded again, and cut off
//! again. A failing state names itself, and the name replays it in the recordings of the last run:
//! `MOAT_POWER="life cut 1234 5" cargo test --release --workspace --test power`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

mod check;
mod disk;
mod life;
mod parts;
#[path = "../site/mod.rs"]
mod site;
mod story;
mod survey;
mod trace;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use check::Checker;
use disk::{Disk, Image};
use parts::Parts;
use story::{Story, Told};
use survey::{State, Survey};

/// Different states of the life at least.
const STATES: usize = 10_000;
/// States on which a daemon is started, and those of them whose recovery is recorded and cut off too.
const STARTS: usize = 20;
const RECOVERIES: usize = 4;

/// A folder in memory: the model loses bytes itself, and needs no disk to sync to.
fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn laid_out(image: &Image) -> tempfile::TempDir {
    let folder = memory();
    image.write(folder.path());
    folder
}

/// Where the recordings of the last run lie.
fn kept() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("power")
}

/// Reads a recording, and shows that the model of the disk knows what was done to the real one.
fn story(folder: &Path, beginning: Disk, lived: Option<&Image>) -> (Story, Image) {
    let story = Story::read(folder, beginning);
    let mut disk = story.beginning.clone();
    story.calls.iter().for_each(|call| disk.apply(call));
    let end = disk.after_a_kill();
    if let Some(lived) = lived {
        assert_eq!(end.folders, lived.folders);
        let names = |image: &Image| image.files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&end), names(lived));
        for (path, content) in &end.files {
            let same = content.bytes == lived.files[path].bytes;
            assert!(same, "{} is not as the model has it", path.display());
        }
    }
    (story, end)
}

/// Makes a folder for a recording.
fn fresh(name: &str) -> PathBuf {
    let folder = kept().join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn ten_thousand_kills_and_power_cuts_lose_nothing_acknowledged() {
    let began = Instant::now();
    let wanted = std::env::var("MOAT_POWER").ok();
    let lived = wanted.is_none().then(|| {
        drop(fs::remove_dir_all(kept()));
        life::record(&fresh("life"))
    });
    let (life, end) =
        story(&kept().join("life"), Disk::of(&life::installed()), lived.as_ref().map(|(image, _)| image));
    let credentials = memory();
    fs::write(credentials.path().join("moat-kek"), [7; 32]).unwrap();
    let parts = Parts::new(credentials.path(), &end);
    let checker = Checker::new(&parts, &end);
    let nothing = Told::default();
    let mut survey = Survey::new("life", &life, &checker, &nothing);
    if let Some(wanted) = wanted {
        return replay(&wanted, &parts, &mut survey);
    }
    let site = lived.unwrap().1;
    let company = site.path("documents");
    println!("a life of {} calls, {:.0?}", life.calls.len(), began.elapsed());
    let [overwritten, begun] =
        [survey::takes_the_log_over, survey::begins_the_log_anew].map(|is| life.calls.iter().rposition(is));
    assert!(overwritten < begun, "the catalog's log was never begun anew: the life is too short");

    survey.look_until(STATES);
    survey.tell();
    println!("{:.0?}", began.elapsed());
    for number in 0..STARTS {
        let state = State::cut(life.calls.len() * (number + 1) / (STARTS + 1), number as u64);
        let recorded = number % (STARTS / RECOVERIES) == STARTS / RECOVERIES - 1;
        start(&state, recorded, &company, &parts, &survey);
    }
    println!("{STARTS} states were gone on from, {:.0?}", began.elapsed());
    let unsynced = survey::unsynced(&life);
    unsynced.iter().for_each(|state| start(state, true, &company, &parts, &survey));
    println!("and {} between a change and its sync, {:.0?}", unsynced.len(), began.elapsed());
    survey::missing_syncs_are_noticed(&life, &checker);
    println!("{:.0?}", began.elapsed());
}

/// Starts a daemon on a state; where that is recorded, cuts off what it does, too.
fn start(state: &State, recorded: bool, company: &Path, parts: &Parts, life: &Survey<'_>) {
    let left = life.left(state);
    let told = life.told(state.calls);
    let weights = &life.story.recording.weights;
    println!("going on from {}", life.name(state));
    let name = life.name(state).replace(' ', "-");
    let folder = recorded.then(|| fresh(&name));
    // As it was last told to be taken in; at the end it may be on its way.
    let revision = if told.scans + 1 == life::REVISIONS { told.scans } else { told.scans.saturating_sub(1) };
    let lived = life::go_on(folder.as_deref(), &left.after_a_kill(), revision, company, weights);
    if let Some(folder) = folder {
        let (recovery, end) = story(&folder, left, Some(&lived));
        let checker = Checker::new(parts, &end);
        let mut survey = Survey::new(&name, &recovery, &checker, &told);
        survey.look_at_each(0..2);
        survey.tell();
    }
}

/// Looks at one state alone, named as it named itself.
fn replay(wanted: &str, parts: &Parts, life: &mut Survey<'_>) {
    let (story_name, state) = wanted.split_once(' ').unwrap();
    let state = State::parse(state);
    if story_name == "life" {
        life.look(&state);
        return life.tell();
    }
    // A recovery is named by the state of the life that it began with.
    let first = State::parse(&story_name.split_once('-').unwrap().1.replace('-', " "));
    let (recovery, end) = story(&kept().join(story_name), life.left(&first), None);
    let (checker, told) = (Checker::new(parts, &end), life.told(first.calls));
    let mut survey = Survey::new(story_name, &recovery, &checker, &told);
    survey.look(&state);
    survey.tell();
}
