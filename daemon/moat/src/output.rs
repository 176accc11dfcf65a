//! The one place that writes: replies to standard output, everything else to standard error.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::render::View;

/// Where words go, and how they look there.
pub(crate) struct Output {
    pub(crate) json: bool,
    /// For standard output.
    pub(crate) view: View,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let colors = colors_on(&io::stdout());
        Self { json, view: View { colors, zone: jiff::tz::TimeZone::system() } }
    }

    /// Writes text to standard output. A reader that went away is no failure: it has what it wanted.
    pub(crate) fn page(&self, text: &str) -> Result<(), Failure> {
        put(io::stdout().lock(), text)
    }

    /// Writes one line of JSON to standard output.
    pub(crate) fn line(&self, value: &impl Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_string(value)
            .map_err(|error| Failure::new(Exit::Internal, format!("the reply cannot be written: {error}")))?;
        text.push('\n');
        self.page(&text)
    }
}

/// Writes text to standard error. Nobody is told where that fails, for there is no place left to tell.
pub(crate) fn notice(text: &str) {
    let _ = put(io::stderr().lock(), text);
}

/// Colours only on a terminal that has them, and never against the user's wish (no-color.org).
pub(crate) fn colors_on(stream: &impl IsTerminal) -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    stream.is_terminal() && set("NO_COLOR").is_none() && set("TERM").is_none_or(|terminal| terminal != "dumb")
}

fn put(mut stream: impl Write, text: &str) -> Result<(), Failure> {
    match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Internal, format!("the output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}
