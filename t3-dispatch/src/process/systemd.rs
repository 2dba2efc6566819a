//! Notifications to systemd (sd_notify(3)): ready, reloading, stopping, watchdog, and the status
//! line of `systemctl status`. Does nothing without systemd.
//!
//! The event loop creates the watchdog keep-alives, so systemd restarts a process whose loop is
//! blocked. A dedicated thread sends them: a systemd that does not read its socket blocks no
//! session.

use std::{
    fmt::Display,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::{
    sync::oneshot,
    time::{interval, timeout},
};

use crate::server::app::App;

const STATUS_INTERVAL: Duration = Duration::from_secs(2);
/// Limit of unsent messages; further ones are dropped.
const QUEUE: usize = 32;

/// Reports daemon state to systemd.
pub struct SystemdNotifier {
    app: Arc<App>,
    state: Mutex<State>,
    queue: SyncSender<Message>,
}

enum Message {
    Notify(String),
    /// Acknowledged once all earlier messages were sent.
    Flush(oneshot::Sender<()>),
}

#[derive(Debug, Default)]
struct State {
    /// Error in the file of the routing table.
    table_error: Option<String>,
    stopping: bool,
    last_status: String,
}

impl SystemdNotifier {
    /// Starts the sending thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn new(app: Arc<App>) -> io::Result<Self> {
        let (queue, messages) = sync_channel(QUEUE);
        std::thread::Builder::new().name("systemd".to_owned()).spawn(move || send(&messages))?;
        Ok(Self { app, state: Mutex::default(), queue })
    }

    /// Reports the end of the start or of a reload.
    pub fn ready(&self) {
        self.notify(&[NotifyState::Ready]);
    }

    /// Reports the start of a reload, with the time that `Type=notify-reload` requires.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.notify(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!("cannot read the clock for systemd: {error}"),
        }
    }

    /// Reports the start of the shutdown.
    pub fn stopping(&self) {
        self.state().stopping = true;
        self.notify(&[NotifyState::Stopping]);
    }

    /// Removes the table error from the status line.
    pub fn table_loaded(&self) {
        self.state().table_error = None;
        self.status();
    }

    /// Adds a table error to the status line.
    pub fn table_failed(&self, why: &dyn Display) {
        self.state().table_error = Some(why.to_string());
        self.status();
    }

    /// Reports status changes, and watchdog keep-alives if systemd expects them. Never returns.
    pub async fn run(self: Arc<Self>) {
        let watchdog = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        let every = watchdog.map_or(STATUS_INTERVAL, |limit| (limit / 2).min(STATUS_INTERVAL));
        let mut ticks = interval(every);
        loop {
            ticks.tick().await;
            if watchdog.is_some() {
                self.send(&[NotifyState::Watchdog]);
            }
            self.status();
        }
    }

    /// Sends the status line if it changed.
    fn status(&self) {
        let mut state = self.state();
        let line = self.line(&state);
        if line != state.last_status && self.send(&[NotifyState::Status(&line)]) {
            state.last_status = line;
        }
    }

    /// Sends these states together with the status line.
    fn notify(&self, states: &[NotifyState<'_>]) {
        let mut state = self.state();
        let line = self.line(&state);
        let mut all = states.to_vec();
        all.push(NotifyState::Status(&line));
        if self.send(&all) {
            state.last_status.clone_from(&line);
        }
    }

    /// Waits up to 100 ms until all messages are sent.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            let _ = timeout(Duration::from_millis(100), flushed).await;
        }
    }

    /// Queues a message. Returns `false` if the queue is full.
    fn send(&self, states: &[NotifyState<'_>]) -> bool {
        let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
        self.queue.try_send(Message::Notify(lines.join("\n"))).is_ok()
    }

    fn line(&self, state: &State) -> String {
        line(self.app.recorder.in_flight.count(), self.app.table().len(), state)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Status line; control characters of an error are replaced by spaces.
fn line(sessions: usize, logins: usize, state: &State) -> String {
    if state.stopping {
        return format!("stopping, {sessions} WebSockets left");
    }
    let mut line = format!("{sessions} WebSockets, {logins} logins");
    if let Some(why) = &state.table_error {
        line.push_str("; keeping the previous table: ");
        line.extend(why.chars().map(|c| if c.is_control() { ' ' } else { c }));
    }
    line
}

fn send(messages: &Receiver<Message>) {
    let mut failed = false;
    for message in messages {
        match message {
            Message::Notify(lines) => match sd_notify::notify(&[NotifyState::Custom(&lines)]) {
                Ok(()) => failed = false,
                // Logged once: keep-alives fail repeatedly.
                Err(error) if !failed => {
                    failed = true;
                    tracing::warn!("cannot notify systemd: {error}");
                }
                Err(_) => {}
            },
            Message::Flush(done) => drop(done.send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_one_line() {
        let mut state = State::default();
        assert_eq!(line(3, 2, &state), "3 WebSockets, 2 logins");
        state.table_error = Some("t.json, line 1: key \"a\nREADY=1\"".to_owned());
        assert_eq!(
            line(3, 2, &state),
            "3 WebSockets, 2 logins; keeping the previous table: t.json, line 1: key \"a READY=1\""
        );
        state.stopping = true;
        assert_eq!(line(1, 2, &state), "stopping, 1 WebSockets left");
    }
}
