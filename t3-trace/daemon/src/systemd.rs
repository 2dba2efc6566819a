//! Reports daemon state to systemd (sd_notify(3)): ready, status line, watchdog, stopping. Has no
//! effect without systemd.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;

use crate::state::Shared;

const STATUS_EVERY: Duration = Duration::from_secs(10);

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify systemd");
    }
}

/// Reports that the socket is open.
pub(crate) fn ready(shared: &Shared) {
    notify(&[NotifyState::Ready, NotifyState::Status(&shared.summary())]);
}

/// Reports that the daemon is stopping.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Sends watchdog keep-alives and the status line, from the event loop that they monitor.
pub(crate) async fn run(shared: Arc<Shared>) {
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(STATUS_EVERY, |watchdog| (watchdog / 3).min(STATUS_EVERY));
    let mut reported = String::new();
    let mut tick = tokio::time::interval(every.max(Duration::from_millis(100)));
    loop {
        tick.tick().await;
        if watchdog.is_some() {
            notify(&[NotifyState::Watchdog]);
        }
        let summary = shared.summary();
        if summary != reported {
            notify(&[NotifyState::Status(&summary)]);
            reported = summary;
        }
    }
}
