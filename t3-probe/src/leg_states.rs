//! State of all legs: metrics, and per leg the recent incidents that give its state over a window.
//! Bounded.

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

/// Incidents kept per leg.
const MAX_INCIDENTS: usize = 64;
/// State of all legs.
#[derive(Debug)]
pub struct LegStates {
    pub metrics: Metrics,
    /// Window of the overview.
    pub window: Duration,
    legs: Mutex<Vec<LegState>>,
}

#[derive(Debug)]
struct LegState {
    leg: Leg,
    /// Up or down now; `None` before the first attempt.
    up: Option<bool>,
    seen: Option<Instant>,
    rtt: Option<Duration>,
    incidents: VecDeque<(Instant, State)>,
    last_disconnect: Option<Disconnect>,
}

/// A leg as shown on the page.
#[derive(Debug, Clone)]
pub struct LegView {
    pub leg: Leg,
    /// State over the window.
    pub state: State,
    /// Up or down now; `None` before the first attempt.
    pub up: Option<bool>,
    /// Last RTT.
    pub rtt: Option<Duration>,
    pub last_disconnect: Option<Disconnect>,
}

impl LegStates {
    /// State of these legs, none observed yet, with the window of the overview.
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
            incidents: VecDeque::new(),
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

    /// Records that the leg is established.
    pub fn up(&self, leg: &Leg) {
        self.metrics.connected(&leg.name, true);
        self.with(leg, |row| {
            row.up = Some(true);
            row.seen = Some(Instant::now());
        });
    }

    /// Records an echo or a response.
    pub fn answered(&self, leg: &Leg, rtt: Duration, slow: Duration) {
        self.metrics.rtt(&leg.name, rtt.as_secs_f64());
        self.with(leg, |row| {
            let now = Instant::now();
            row.seen = Some(now);
            row.rtt = Some(rtt);
            if rtt >= slow {
                row.incident(now, State::Slow);
            }
        });
    }

    /// Records a disconnect and returns it for the log.
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
            row.incident(now, State::Down);
            row.last_disconnect = Some(disconnect.clone());
        });
        disconnect
    }

    /// All legs with their states.
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

    /// Attribution from all legs over the window.
    #[must_use]
    pub fn attribution(&self) -> Attribution {
        let leg = |view: LegView| probe::Leg { name: view.leg.name, way: view.leg.way, state: view.state };
        attribute(&self.view().into_iter().map(leg).collect::<Vec<_>>())
    }
}

impl LegState {
    fn incident(&mut self, at: Instant, what: State) {
        if self.incidents.len() == MAX_INCIDENTS {
            self.incidents.pop_front();
        }
        self.incidents.push_back((at, what));
    }

    /// The worst state of the window. A leg that is down now is down, however old its disconnect.
    fn state(&self, now: Instant, window: Duration) -> State {
        if self.up == Some(false) {
            return State::Down;
        }
        let recent = || self.incidents.iter().filter(|(at, _)| now.duration_since(*at) <= window);
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
