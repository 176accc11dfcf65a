//! Files: Landlock (landlock(7)), with as much of it as the kernel has.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    make_bitflags,
};

use crate::policy::{Policy, Program};

/// What is known of Landlock, not what the kernel has: the rest is left out where it is missing.
const KNOWN: ABI = ABI::V10;

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
const EXECUTE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | Execute});
const DEVICE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile | IoctlDev});
const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | RemoveDir | RemoveFile | MakeDir | MakeReg | MakeSock | MakeSym | Refer
});
const FILE: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadFile | WriteFile | Execute | Truncate | IoctlDev});

/// The files that a process needs for its own work, besides those that the policy gives to its program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// Files and folders to read.
    pub read: Vec<PathBuf>,
    /// Files and folders to read, write, make and remove.
    pub write: Vec<PathBuf>,
    /// Programs to start.
    pub execute: Vec<PathBuf>,
    /// Sockets to connect to, where the kernel controls that (Linux 7.1).
    pub connect: Vec<PathBuf>,
}

/// What Landlock granted.
pub(crate) struct Granted {
    /// The generation of Landlock that holds; 0 is none.
    pub(crate) generation: i32,
    /// Paths that were asked for and are not there, or may not be looked at.
    pub(crate) missing: Vec<PathBuf>,
}

/// Confines the calling thread, and all that it starts, to a program's files.
pub(crate) fn confine(policy: &Policy, program: Program<'_>, paths: &Paths) -> Result<Granted, String> {
    let made = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(KNOWN)))
        .and_then(|rules| rules.scope(Scope::from_all(KNOWN)))
        .and_then(Ruleset::create);
    let mut rules = made.map_err(said)?;
    for section in policy.sections(program) {
        let lists = [
            (&section.read, READ),
            (&section.write, WRITE),
            (&section.execute, EXECUTE),
            (&section.devices, DEVICE),
        ];
        for (list, access) in lists {
            for path in list {
                // What a machine does not have, nobody needs there.
                rules = add(rules, path, access)?.0;
            }
        }
    }
    let mut missing = Vec::new();
    let connect = BitFlags::from(AccessFs::ResolveUnix);
    let lists =
        [(&paths.read, READ), (&paths.write, WRITE), (&paths.execute, EXECUTE), (&paths.connect, connect)];
    for (list, access) in lists {
        for path in list {
            let (changed, there) = add(rules, path, access)?;
            rules = changed;
            if !there {
                missing.push(path.clone());
            }
        }
    }
    let status = rules.restrict_self().map_err(said)?;
    Ok(Granted { generation: generation(&status), missing })
}

/// Adds a rule; false where the path is not there.
fn add(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<(RulesetCreated, bool), String> {
    let Ok(file) = PathFd::new(path) else { return Ok((rules, false)) };
    let access = if path.is_dir() { access } else { access & (FILE | AccessFs::ResolveUnix) };
    let rules = rules.add_rule(PathBeneath::new(file, access)).map_err(said)?;
    Ok((rules, true))
}

fn generation(status: &RestrictionStatus) -> i32 {
    match (&status.ruleset, &status.landlock) {
        (RulesetStatus::NotEnforced, _) => 0,
        (_, LandlockStatus::Available { effective_abi, .. }) => *effective_abi as i32,
        _ => 0,
    }
}

fn said(error: RulesetError) -> String {
    error.to_string()
}
