//! What the service manager is told, where there is one.

use std::time::Duration;

use tracing::warn;

/// Tells how the service stands, such as `READY=1`.
pub(crate) fn notify(state: &str) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let (key, value) = state.split_once('=').unwrap_or((state, ""));
    if let Err(error) = systemd::daemon::notify([(key, value)].iter()) {
        warn!("systemd could not be notified: {error}");
    }
}

/// Answers the watchdog three times in its interval, for as long as both kinds of the runtime's threads take up work:
/// a daemon that hangs in either is ended and started again.
pub(crate) async fn answer_watchdog() {
    let interval = match systemd::daemon::watchdog_enabled() {
        Ok(0) => return,
        Ok(microseconds) => Duration::from_micros(microseconds),
        Err(error) => return warn!("systemd's watchdog could not be asked for: {error}"),
    };
    let mut ticks = tokio::time::interval(interval / 3);
    loop {
        ticks.tick().await;
        // Fails only while the runtime ends.
        if tokio::task::spawn_blocking(|| notify("WATCHDOG=1")).await.is_err() {
            return;
        }
    }
}
