use moat_catalog::Catalog;
use moat_contracts::{Dataset, Example, Split};
use moat_protocol::engine::ToEngine;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use tracing::debug;

use crate::failure::Failure;
use crate::state::State;

/// Frames on their way to the engine that may wait in memory.
const WAITING: usize = 32;

/// Feeds sides of a dataset to an engine, then whatever is sent through the sender that it gives (a stop).
///
/// The texts go from the catalog through the socket and nowhere else. Where one cannot be read the engine is hung up
/// on, and the failure is what the second value resolves to.
pub(crate) fn feed(
    state: &State,
    dataset: Dataset,
    splits: &'static [Split],
    mut output: OwnedWriteHalf,
) -> (mpsc::Sender<ToEngine>, tokio::task::JoinHandle<Result<(), Failure>>) {
    let (sender, mut receiver) = mpsc::channel(WAITING);
    let (examples, state) = (sender.clone(), state.clone());
    let reader = tokio::task::spawn_blocking(move || {
        let catalog = state.catalog()?;
        for entry in dataset.entries.iter().filter(|entry| splits.contains(&entry.split)) {
            let example = ToEngine::Example(example(&catalog, entry)?);
            // The writer is gone with the engine; its end is told by the engine's side.
            if examples.blocking_send(example).is_err() {
                return Ok(());
            }
        }
        if examples.blocking_send(ToEngine::End).is_err() {
            debug!("the engine ended before all examples were sent");
        }
        Ok::<(), Failure>(())
    });
    let writer = async move {
        while let Some(message) = receiver.recv().await {
            if moat_protocol::write(&mut output, &message).await.is_err() {
                debug!("the engine ended while it was being fed");
                break;
            }
        }
    };
    let handle = tokio::spawn(async move {
        let writer = tokio::spawn(writer);
        match reader.await.map_err(Failure::internal)? {
            // The writer goes on, for a stop; it ends when the last sender is dropped.
            Ok(()) => Ok(()),
            Err(failure) => {
                writer.abort();
                Err(failure)
            }
        }
    });
    (sender, handle)
}

fn example(catalog: &Catalog, entry: &moat_contracts::DatasetEntry) -> Result<Example, Failure> {
    let found = catalog.text_and_kind(entry.record)?;
    let (body, kind) =
        found.ok_or_else(|| Failure::internal(format!("the text of record {} is missing", entry.record)))?;
    Ok(Example { record: entry.record, source: entry.source.clone(), split: entry.split, kind, body })
}
