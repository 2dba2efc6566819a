//! What is known of all legs: the metrics, and for each leg the troubles of the last minutes, from
//! which its state over a window follows. Keeps a bounded amount, and never talks to a leg.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use t3_record::probe::{self, Attribution, Disconnect, State, attribute, disconnect};
use tokio::time::Instant;

use crate::{
    leg::Leg,
    metrics::Metrics,
    progress::{Failure, Progress},
};

/// Troubles kept per leg.
const KEPT: usize = 64;
/// All legs.
#[derive(Debug)]
pub struct LegStates {
    /// The metrics.
    pub metrics: Metrics,
    /// The window that the overview speaks of.
    pub window: Duration,
    legs: Mutex<Vec<LegState>>,
}

#[derive(Debug)]
struct LegState {
    leg: Leg,
    /// Established, or answered well, since; else down since.
    up: Option<bool>,
    seen: Option<Instant>,
    rtt: Option<Duration>,
    troubles: VecDeque<(Instant, State)>,
    last_disconnect: Option<Disconnect>,
}

/// A leg as the page shows it.
#[derive(Debug, Clone)]
pub struct LegView {
    /// The leg.
    pub leg: Leg,
    /// Its state over the window.
    pub state: State,
    /// Whether it is up now; `None` before anything is known.
    pub up: Option<bool>,
    /// The last round trip.
    pub rtt: Option<Duration>,
    /// Its last disconnect.
    pub last_disconnect: Option<Disconnect>,
}

impl LegStates {
    /// For these legs, all unseen; the overview speaks of the last `window`.
    #[must_use]
    pub fn new(legs: &[Leg], metrics: Metrics, window: Duration) -> Self {
        for leg in legs {
            metrics.connected(&leg.name, false);
        }
        let row = |leg: &Leg| LegState {
            leg: leg.clone(),
            up: None,
            seen: None,
            rtt: None,
            troubles: VecDeque::new(),
            last_disconnect: None,
        };
        Self { metrics, window, legs: Mutex::new(legs.iter().map(row).collect()) }
    }

    fn rows(&self) -> MutexGuard<'_, Vec<LegState>> {
        self.legs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, leg: &Leg, change: impl FnOnce(&mut LegState)) {
        if let Some(row) = self.rows().iter_mut().find(|row| row.leg.name == leg.name) {
            change(row);
        }
    }

    /// The leg is established.
    pub fn up(&self, leg: &Leg) {
        self.metrics.connected(&leg.name, true);
        self.with(leg, |row| {
            row.up = Some(true);
            row.seen = Some(Instant::now());
        });
    }

    /// An echo or an answer came.
    pub fn beat(&self, leg: &Leg, rtt: Duration, slow: Duration) {
        self.metrics.rtt(&leg.name, rtt.as_secs_f64());
        self.with(leg, |row| {
            let now = Instant::now();
            row.seen = Some(now);
            row.rtt = Some(rtt);
            if rtt >= slow {
                row.trouble(now, State::Slow);
            }
        });
    }

    /// The leg died. Returns what is to be logged.
    pub fn disconnected(
        &self,
        leg: &Leg,
        failure: Failure,
        progress: &Progress,
        age: Option<Duration>,
    ) -> Disconnect {
        let unix = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        self.metrics.disconnected(
            &leg.name,
            failure.reason,
            unix.as_secs_f64(),
            age.map(|age| age.as_secs_f64()),
        );
        let (phase, since) = progress.now();
        let disconnect = Disconnect {
            event: disconnect::EVENT.to_owned(),
            at_ms: millis(unix),
            leg: leg.name.clone(),
            way: leg.way,
            reason: failure.reason,
            phase,
            phase_ms: millis(since),
            age_ms: age.map(millis),
            address: progress.done().1,
            detail: failure.detail,
        };
        self.with(leg, |row| {
            let now = Instant::now();
            row.seen = Some(now);
            row.up = Some(false);
            row.trouble(now, State::Down);
            row.last_disconnect = Some(disconnect.clone());
        });
        disconnect
    }

    /// All legs, with their state over the window.
    #[must_use]
    pub fn view(&self) -> Vec<LegView> {
        let now = Instant::now();
        let view = |row: &LegState| LegView {
            leg: row.leg.clone(),
            state: row.state(now, self.window),
            up: row.up,
            rtt: row.rtt,
            last_disconnect: row.last_disconnect.clone(),
        };
        self.rows().iter().map(view).collect()
    }

    /// What the legs say together about the window.
    #[must_use]
    pub fn attribution(&self) -> Attribution {
        let leg = |view: LegView| probe::Leg { name: view.leg.name, way: view.leg.way, state: view.state };
        attribute(&self.view().into_iter().map(leg).collect::<Vec<_>>())
    }
}

impl LegState {
    fn trouble(&mut self, at: Instant, what: State) {
        if self.troubles.len() == KEPT {
            self.troubles.pop_front();
        }
        self.troubles.push_back((at, what));
    }

    /// The worst of the window. A leg that is down now is down, however long ago it went.
    fn state(&self, now: Instant, window: Duration) -> State {
        if self.up == Some(false) {
            return State::Down;
        }
        let recent = || self.troubles.iter().filter(|(at, _)| now.duration_since(*at) <= window);
        if recent().any(|(_, what)| *what == State::Down) {
            State::Down
        } else if recent().next().is_some() {
            State::Slow
        } else if self.seen.is_some() {
            State::Clean
        } else {
            State::Unseen
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
