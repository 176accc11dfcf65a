//! The pages, a file for each: what it asks of the daemon, and how it draws the answer.

pub(crate) mod approvals;
pub(crate) mod bases;
pub(crate) mod boundary;
pub(crate) mod compare;
pub(crate) mod data;
pub(crate) mod door;
pub(crate) mod error;
pub(crate) mod ledger;
pub(crate) mod models;
pub(crate) mod new_source;
pub(crate) mod overview;
pub(crate) mod people;
pub(crate) mod playground;
pub(crate) mod recipe;
pub(crate) mod records;
pub(crate) mod review;
pub(crate) mod rules;
pub(crate) mod runs;
pub(crate) mod set_up;
pub(crate) mod source;
pub(crate) mod sources;
pub(crate) mod sweeps;
pub(crate) mod way;
