//! Replies as people read them. Everything here makes text of data; nothing writes.

mod answer;
mod api;
mod base;
pub(crate) mod bundle;
mod compare;
mod course;
mod data;
mod dataset;
pub(crate) mod preview;
mod rights;
mod run;
mod source;
mod status;
mod sweep;
mod table;
pub(crate) mod text;
mod vault;
mod why;

#[cfg(test)]
mod tests;

use jiff::tz::TimeZone;
use moat_protocol::control::Reply;

/// How text looks where it goes.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) colors: bool,
    /// The zone that times are shown in.
    pub(crate) zone: TimeZone,
}

/// What a stretch of text stands for; decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    /// Names and headings.
    Strong,
    /// What matters less.
    Faint,
    Good,
    Bad,
}

impl View {
    /// The text in its tone's colour (ECMA-48 SGR), where colours are on.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Strong => 1,
            Tone::Faint => 2,
            Tone::Good => 32,
            Tone::Bad => 31,
        };
        if self.colors { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Seconds since 1970 as a local day and time.
    pub(crate) fn time(&self, seconds: i64) -> String {
        match jiff::Timestamp::from_second(seconds) {
            Ok(time) => time.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M").to_string(),
            Err(_) => format!("{seconds} s after 1970"),
        }
    }
}

/// A reply as text that ends with a newline; empty for one that needs no words.
pub(crate) fn reply(view: &View, reply: &Reply) -> String {
    match reply {
        Reply::Update(_) | Reply::Done => String::new(),
        Reply::Api(description) => api::api(view, description),
        Reply::Status(status) => status::status(view, status),
        Reply::Sources(found) => source::sources(view, found),
        Reply::SourceListing(found) => source::listing(view, found),
        Reply::SourceTrial(found) => source::trial(view, found),
        Reply::SourceFolders(found) => source::folders(view, found),
        Reply::SourceRemoved(gone) => source::removed(gone),
        Reply::SourceFaults(found) => source::faults(view, found),
        Reply::Why(documents) => why::why(view, documents),
        Reply::Dataset(found) => dataset::dataset(view, found),
        Reply::Datasets(found) => dataset::datasets(view, found),
        Reply::DatasetDiff(diff) => dataset::diff(view, diff),
        Reply::DatasetFacts(found) => data::facts(view, found),
        Reply::Records(found) => data::found(view, found),
        Reply::Record(record) => data::record(view, record),
        Reply::Reviews(queue) => data::queue(view, queue),
        Reply::Reviewed(decided) => data::reviewed(view, decided),
        Reply::Tryout(tried) => data::tryout(view, tried),
        Reply::Base(found) => base::imported(view, found),
        Reply::Bases(found) => base::bases(view, found),
        Reply::Run(found) => run::run(view, found),
        Reply::Steps(found) => course::steps(view, found),
        Reply::Comparison(found) => compare::comparison(view, found),
        Reply::Sweep(found) => sweep::sweep(view, found),
        Reply::Sweeps(found) => sweep::sweeps(view, found),
        Reply::Preview(found) => preview::preview(view, found),
        Reply::Runs(found) => run::runs(view, found),
        Reply::Made(made) => rights::made(view, made),
        Reply::Accounts(found) => rights::accounts(view, found),
        Reply::Statement(found) => rights::statement(view, found),
        Reply::Statements(found) => rights::statements(view, found),
        Reply::ApiKeys(found) => rights::keys(view, found),
        Reply::ApiKey(key) => rights::key(view, key),
        Reply::BackedUp(made) => base::backed_up(view, made),
        Reply::Exported(exported) => base::exported(view, exported),
        Reply::Card(card) => text::clean_lines(card),
        Reply::Sample(found) => answer::sample(view, found),
        Reply::Invitation(made) => rights::invitation(view, made),
        Reply::Enlisted(found) => rights::enlisted(view, found),
        Reply::Answer(completions) => answer::answer(view, completions),
        Reply::Shares(found) => vault::shares(view, found),
        Reply::Seal(found) => vault::seal(view, found),
        Reply::Ledger(page) => vault::ledger(view, page),
        Reply::Receipt(text) => text.clone(),
        Reply::Failed { message, .. } => format!("{}\n", text::clean(message)),
    }
}
