use std::time::Duration;

use futures_util::future::BoxFuture;
use maud::Markup;
use moat_protocol::control::{Request, Update};
use tokio::sync::mpsc;

use crate::routes::Needs;
use crate::site::{Outcome, Visit};

/// How often a part of a page is drawn anew at most.
const OFTEN: Duration = Duration::from_secs(1);

/// When a page that found no seat asks again.
const LATER: Duration = Duration::from_secs(20);

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
    let Ok(seat) = seats.clone().try_acquire_owned() else { return busy() };
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

/// As [`part`], drawn from what one request tells while it is being worked on: `hear` takes each update in.
pub(crate) fn watch<S: Send + 'static>(
    mut visit: Visit,
    needs: Needs,
    request: Request,
    mut told: S,
    hear: impl Fn(&mut S, Update) + Send + Sync + 'static,
    draw: impl Fn(&S) -> Markup + Send + Sync + 'static,
) -> Outcome {
    let (Ok(seat), Some(here)) = (visit.site.live.clone().try_acquire_owned(), &visit.here) else {
        return busy();
    };
    let (updates, mut heard) = mpsc::channel(256);
    let answer = visit.site.daemon.ask(visit.from, &here.session.person, request, Some(updates));
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let _seat = seat;
        let mut shown = String::new();
        let mut ticks = tokio::time::interval(OFTEN);
        tokio::pin!(answer);
        let mut quiet = 0;
        loop {
            tokio::select! {
                // What it came to is told by the page that is loaded then.
                _ = &mut answer => break,
                Some(update) = heard.recv() => hear(&mut told, update),
                () = sender.closed() => return,
                _ = ticks.tick() => {
                    if !visit.look_again(needs) {
                        break;
                    }
                    let drawn = draw(&told).into_string();
                    quiet = if drawn == shown { quiet + 1 } else { 0 };
                    let message = match quiet {
                        0 => event("part", &drawn),
                        _ if quiet % QUIET == 0 => ":\n\n".to_owned(),
                        _ => continue,
                    };
                    shown = drawn;
                    if sender.send(message).await.is_err() {
                        return;
                    }
                }
            }
        }
        drop(sender.send(event("over", "")).await);
    });
    Outcome::Live(receiver)
}

/// Says to come back later: where an answer said no, the page would load itself again and lose what is being typed.
fn busy() -> Outcome {
    let (sender, receiver) = mpsc::channel(1);
    // There is room for one.
    drop(sender.try_send(format!("retry: {}\n\n", LATER.as_millis())));
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
