//! Notifications to systemd (sd_notify(3)): ready, reloading, stopping, watchdog, and one line for
//! `systemctl status`. Does nothing without systemd.
//!
//! The word that dispatch lives comes from the event loop, so that a loop that stands still is one
//! that systemd restarts. It is sent by a thread of its own: a systemd that does not read (its
//! socket holds some hundred messages) holds no session up.

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

const STATUS_EVERY: Duration = Duration::from_secs(2);
/// Messages that wait for systemd to read; more are dropped.
const QUEUE: usize = 32;

/// Tells systemd.
pub struct Teller {
    app: Arc<App>,
    state: Mutex<State>,
    queue: SyncSender<Message>,
}

enum Message {
    Tell(String),
    /// Everything before this has been sent.
    Sent(oneshot::Sender<()>),
}

#[derive(Debug, Default)]
struct State {
    /// What is wrong with the routing table's file.
    bad_table: Option<String>,
    stopping: bool,
    told: String,
}

impl Teller {
    /// Of this dispatch.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(app: Arc<App>) -> io::Result<Self> {
        let (queue, messages) = sync_channel(QUEUE);
        std::thread::Builder::new().name("systemd".to_owned()).spawn(move || send(&messages))?;
        Ok(Self { app, state: Mutex::default(), queue })
    }

    /// Start, or a reload, is over.
    pub fn ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// A reload begins. `Type=notify-reload` wants to know when, on the clock that systemd reads.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!("cannot read the clock for systemd: {error}"),
        }
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.state().stopping = true;
        self.tell(&[NotifyState::Stopping]);
    }

    /// The table's file can be used.
    pub fn table_is_good(&self) {
        self.state().bad_table = None;
        self.status();
    }

    /// The table's file cannot be used.
    pub fn table_is_bad(&self, why: &dyn Display) {
        self.state().bad_table = Some(why.to_string());
        self.status();
    }

    /// Reports status changes, and watchdog keep-alives if systemd expects them. Never returns.
    pub async fn keep_telling(self: Arc<Self>) {
        let watchdog = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero());
        let every = watchdog.map_or(STATUS_EVERY, |patience| (patience / 2).min(STATUS_EVERY));
        let mut ticks = interval(every);
        loop {
            ticks.tick().await;
            if watchdog.is_some() {
                self.send(&[NotifyState::Watchdog]);
            }
            self.status();
        }
    }

    /// The line, when it is another one.
    fn status(&self) {
        let mut state = self.state();
        let line = self.line(&state);
        if line != state.told && self.send(&[NotifyState::Status(&line)]) {
            state.told = line;
        }
    }

    fn tell(&self, what: &[NotifyState<'_>]) {
        let mut state = self.state();
        let line = self.line(&state);
        let mut all = what.to_vec();
        all.push(NotifyState::Status(&line));
        if self.send(&all) {
            state.told.clone_from(&line);
        }
    }

    /// Waits until everything is sent, but not for a systemd that does not read.
    pub async fn settle(&self) {
        let (sent, all_sent) = oneshot::channel();
        if self.queue.try_send(Message::Sent(sent)).is_ok() {
            let _ = timeout(Duration::from_millis(100), all_sent).await;
        }
    }

    /// Whether there was room for it.
    fn send(&self, states: &[NotifyState<'_>]) -> bool {
        let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
        self.queue.try_send(Message::Tell(lines.join("\n"))).is_ok()
    }

    fn line(&self, state: &State) -> String {
        line(self.app.recorder.in_flight.count(), self.app.table().len(), state)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One line, whatever stands in it.
fn line(sessions: usize, logins: usize, state: &State) -> String {
    if state.stopping {
        return format!("stopping, {sessions} WebSockets left");
    }
    let mut line = format!("{sessions} WebSockets, {logins} logins");
    if let Some(why) = &state.bad_table {
        line.push_str("; keeping the previous table: ");
        line.extend(why.chars().map(|c| if c.is_control() { ' ' } else { c }));
    }
    line
}

fn send(messages: &Receiver<Message>) {
    let mut failed = false;
    for message in messages {
        match message {
            Message::Tell(lines) => match sd_notify::notify(&[NotifyState::Custom(&lines)]) {
                Ok(()) => failed = false,
                // Once: the watchdog would repeat it indefinitely.
                Err(error) if !failed => {
                    failed = true;
                    tracing::warn!("cannot notify systemd: {error}");
                }
                Err(_) => {}
            },
            Message::Sent(sent) => drop(sent.send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_it_is_and_is_one_line() {
        let mut state = State::default();
        assert_eq!(line(3, 2, &state), "3 WebSockets, 2 logins");
        state.bad_table = Some("t.json, line 1: key \"a\nREADY=1\"".to_owned());
        assert_eq!(
            line(3, 2, &state),
            "3 WebSockets, 2 logins; keeping the previous table: t.json, line 1: key \"a READY=1\""
        );
        state.stopping = true;
        assert_eq!(line(1, 2, &state), "stopping, 1 WebSockets left");
    }
}
