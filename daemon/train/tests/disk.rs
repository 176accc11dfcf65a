//! A disk without room: the run ends with the reason and what to do, leaves its last good checkpoint, and goes on from it
//! once there is room. The limit on a file's size stands in for the disk (setrlimit(2)); it holds for the whole process,
//! so this is the only test of its program.

#![allow(clippy::unwrap_used)]
mod common;

use common::{Place, examples, files, recipe, run, steps};
use moat_contracts::Method;
use moat_train::{Ended, TrainError};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Whether a program told so ignores SIGXFSZ is inherited: `trap '' XFSZ` in a shell that runs this test again.
const AGAIN: &str = "MOAT_TEST_FULL_DISK";

#[test]
fn a_full_disk_ends_the_run_with_the_reason_and_it_goes_on_once_there_is_room() {
    if std::env::var_os(AGAIN).is_none() {
        let own = std::env::current_exe().unwrap();
        let script = format!("trap '' XFSZ; {AGAIN}=1 exec '{}' --nocapture", own.display());
        let status = std::process::Command::new("sh").args(["-c", &script]).status().unwrap();
        assert!(status.success());
        return;
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    for method in [Method::Lora, Method::Full] {
        let place = Place::new();
        let recipe = recipe(method);
        let corpus = place.corpus(method, &examples()).unwrap();
        let (ended, reports) = run(&place.job("whole", &recipe), &corpus, None);
        let Ended::Trained(outcome) = ended.unwrap() else { panic!() };
        for job in [place.job("plain", &recipe), place.sealed("sealed", &recipe)] {
            run(&job, &corpus, Some(2)).0.unwrap();
            let folder = place.path(&job.run);
            let before: Vec<_> = files(&folder);
            setrlimit(Resource::RLIMIT_FSIZE, 4096, hard).unwrap();
            let (ended, told) = run(&job, &corpus, None);
            setrlimit(Resource::RLIMIT_FSIZE, soft, hard).unwrap();
            let error = ended.unwrap_err();
            assert!(matches!(error, TrainError::Io { what: "written", .. }), "{error}");
            assert!(error.to_string().contains("free some space and resume"), "{error}");
            assert_eq!(steps(&told).last().unwrap().0, 3, "it ends at the first checkpoint that has no room");
            // The checkpoint is as it was, and what was half written takes no room.
            assert_eq!(files(&folder), before);
            let Ended::Trained(after) = run(&job, &corpus, None).0.unwrap() else { panic!() };
            assert_eq!(after.weights, outcome.weights);
            let (_, again) = run(&job, &corpus, None);
            assert_eq!(steps(&again), steps(&reports));
        }
    }
}
