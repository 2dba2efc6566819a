//! Signals of the process.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal that changes the state of the process.
pub(super) enum SignalEvent {
    Reload,
    /// SIGTERM or SIGINT; the signal number.
    Stop(i32),
}

/// SIGHUP, SIGTERM and SIGINT.
pub(super) struct SignalStream {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl SignalStream {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn next(&mut self) -> SignalEvent {
        tokio::select! {
            _ = self.hangup.recv() => SignalEvent::Reload,
            _ = self.terminate.recv() => SignalEvent::Stop(SignalKind::terminate().as_raw_value()),
            _ = self.interrupt.recv() => SignalEvent::Stop(SignalKind::interrupt().as_raw_value()),
        }
    }
}
