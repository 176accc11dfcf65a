use moat_catalog::CatalogError;
use moat_contracts::RecordId;
use moat_template::TemplateError;

/// Why a dataset cannot be built or read. Names records by id, never their text.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The base's tokenizer failed.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// No two records that are not near-duplicates of each other.
    #[error(
        "the recipe selects {records} records in {groups} groups of near-duplicates, but a dataset needs at least 2 groups, one to train on and one to hold back: add documents, or select more in `selection`"
    )]
    TooFew {
        /// Records selected.
        records: usize,
        /// Groups of near-duplicates among them.
        groups: usize,
    },
    /// Too few groups to train on for a validation side beside them.
    #[error(
        "the training side holds {groups} group of near-duplicates, but `split.validation` needs at least 2, one to train on and one to validate on: add documents, or take `split.validation` out"
    )]
    NoValidation {
        /// Groups of near-duplicates on the training side.
        groups: usize,
    },
    /// The day of a time split leaves one side empty.
    #[error(
        "`split.train_before` leaves {train} records to train on and {held_out} to hold back ({untimed} carry no time, {near} are near-duplicates of earlier ones): choose a day that leaves at least 1 on each side"
    )]
    Day {
        /// Authored before the day.
        train: usize,
        /// Authored on or after it.
        held_out: usize,
        /// Left out because no document of theirs carries a time.
        untimed: u64,
        /// Left out because they are near-duplicates of records authored before the day.
        near: u64,
    },
    /// The day of a time split is no day.
    #[error("`split.train_before` is not a day written YYYY-MM-DD")]
    NoDay,
    /// A record's text vanished between selecting and reading it.
    #[error("record {record} was removed while the dataset was being built: build it again")]
    Vanished {
        /// The record.
        record: RecordId,
    },
    /// Nothing is left on a side once chats that the base cannot learn are out.
    #[error(
        "{left_out} chats cannot be learnt (no answer, or a special token's text in a message), which leaves {train} records to train on, {validation} to validate on and {held_out} to hold back: repair the chats, or select more in `selection`"
    )]
    Unlearnable {
        /// Records to train on.
        train: usize,
        /// Records to validate on; none are needed where the recipe asks for none.
        validation: usize,
        /// Records to hold back.
        held_out: usize,
        /// Chats left out.
        left_out: u64,
    },
    /// A chat record that is not a list of messages, or a base whose template cannot render chats.
    #[error("record {record} cannot be put through the base's chat template: {source}")]
    Chat {
        /// The record.
        record: RecordId,
        /// What is wrong with it.
        source: TemplateError,
    },
    /// A manifest that was changed or cut, or is not one.
    #[error("line {line} of the manifest is not in the form of version 1: {what}")]
    Manifest {
        /// The line, from 1.
        line: usize,
        /// What was expected.
        what: &'static str,
    },
}
