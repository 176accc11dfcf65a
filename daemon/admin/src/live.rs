use std::time::Duration;

use futures_util::future::BoxFuture;
use maud::Markup;
use tokio::sync::mpsc;

use crate::pages::error;
use crate::routes::Needs;
use crate::site::{Outcome, Visit};

/// How often a part of a page is drawn anew at most.
const OFTEN: Duration = Duration::from_secs(1);

/// Drawings without a change after which the line is tried, so that a browser that went away is noticed.
const QUIET: u32 = 15;

/// Sends a part of a page whenever it looks different, for as long as whoever watches is signed in and may see it. The
/// page is told to load itself again where that ends.
pub(crate) fn part(
    visit: Visit,
    needs: Needs,
    draw: impl for<'a> Fn(&'a Visit) -> BoxFuture<'a, Option<Markup>> + Send + Sync + 'static,
) -> Outcome {
    let seats = if visit.here.is_some() { &visit.site.live } else { &visit.site.live_strangers };
    let Ok(seat) = seats.clone().try_acquire_owned() else { return error::plain(503) };
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let (_seat, mut visit) = (seat, visit);
        let (mut shown, mut quiet) = (String::new(), 0);
        loop {
            let drawn = if visit.look_again(needs) { draw(&visit).await } else { None };
            let Some(drawn) = drawn.map(Markup::into_string) else {
                drop(sender.send(event("over", "")).await);
                return;
            };
            quiet = if drawn == shown { quiet + 1 } else { 0 };
            let message = match quiet {
                0 => Some(event("part", &drawn)),
                QUIET => Some(":\n\n".to_owned()),
                _ => None,
            };
            if quiet == QUIET {
                quiet = 1;
            }
            shown = drawn;
            if let Some(message) = message
                && sender.send(message).await.is_err()
            {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(OFTEN) => {}
                () = sender.closed() => return,
            }
        }
    });
    Outcome::Live(receiver)
}

/// One event of a stream, as the HTML standard writes them.
pub(crate) fn event(name: &str, data: &str) -> String {
    let mut text = format!("event: {name}\n");
    for line in data.split(['\n', '\r']) {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text
}
