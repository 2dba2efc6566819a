//! Tells systemd how the daemon is (sd_notify(3)): ready, a line of status, alive, stopping. Does
//! nothing where there is no systemd.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;

use crate::state::Shared;

const STATUS_EVERY: Duration = Duration::from_secs(10);

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

/// The socket is open.
pub(crate) fn ready(shared: &Shared) {
    tell(&[NotifyState::Ready, NotifyState::Status(&shared.summary())]);
}

/// The end has begun.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Tells for ever: the event loop that runs this is alive.
pub(crate) async fn keep_telling(shared: Arc<Shared>) {
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(STATUS_EVERY, |watchdog| (watchdog / 3).min(STATUS_EVERY));
    let mut told = String::new();
    let mut tick = tokio::time::interval(every.max(Duration::from_millis(100)));
    loop {
        tick.tick().await;
        if watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
        let summary = shared.summary();
        if summary != told {
            tell(&[NotifyState::Status(&summary)]);
            told = summary;
        }
    }
}
