//! Passphrases and shares: typed unseen on a terminal, else one line of standard input.

use std::io::{self, BufRead, IsTerminal};

use moat_protocol::control::Secret;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::exit::{Exit, Failure};
use crate::output::notice;

/// Asks for a secret.
pub(crate) fn ask(what: &str) -> Result<Secret, Failure> {
    let stdin = io::stdin();
    let failed = |error: io::Error| Failure::new(Exit::Usage, format!("the {what} cannot be read: {error}"));
    let mut line = String::new();
    if stdin.is_terminal() {
        notice(&format!("{what}: "));
        let before = tcgetattr(&stdin).map_err(|error| failed(error.into()))?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(|error| failed(error.into()))?;
        let read = stdin.lock().read_line(&mut line);
        tcsetattr(&stdin, OptionalActions::Flush, &before).map_err(|error| failed(error.into()))?;
        notice("\n");
        read.map_err(failed)?;
    } else {
        stdin.lock().read_line(&mut line).map_err(failed)?;
    }
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    if line.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("no {what} was given")));
    }
    Ok(Secret(line))
}

/// Asks for a new secret, twice on a terminal, where nobody sees a slip.
pub(crate) fn ask_new(what: &str) -> Result<Secret, Failure> {
    let secret = ask(&format!("new {what}"))?;
    if io::stdin().is_terminal() && ask(&format!("the same {what} again"))? != secret {
        return Err(Failure::new(Exit::Usage, format!("the two {what}s differ: type the same twice")));
    }
    Ok(secret)
}
