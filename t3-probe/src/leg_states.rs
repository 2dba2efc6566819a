//! State of all legs: metrics, and per leg the last incident of each kind, from which the state
//! over a window follows.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use t3_record::probe::{self, Attribution, Disconnect, LegFault, State, attribute, disconnect};
use tokio::time::Instant;

use crate::{
    leg::Leg,
    metrics::Metrics,
    progress::{Failure, Progress},
};

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
    last_disconnect: Option<(Instant, Disconnect)>,
    /// Last answer that was slow, and its time.
    last_slow: Option<(Instant, Duration)>,
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
    /// Last time to an answer that was slow.
    pub slow_answer: Option<Duration>,
}

impl LegStates {
    /// State of these legs, none observed yet, with the window of the overview.
    #[must_use]
    pub fn new(legs: &[Leg], metrics: Metrics, window: Duration) -> Self {
        for leg in legs {
            metrics.add_leg(&leg.name);
        }
        let row = |leg: &Leg| LegState {
            leg: leg.clone(),
            up: None,
            seen: None,
            rtt: None,
            last_disconnect: None,
            last_slow: None,
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

    /// Records an echo or a response after `rtt`, and with its Pong after `complete`.
    pub fn answered(&self, leg: &Leg, rtt: Duration, complete: Duration, slow: Duration) {
        self.metrics.rtt(&leg.name, rtt.as_secs_f64());
        self.with(leg, |row| {
            let now = Instant::now();
            row.seen = Some(now);
            row.rtt = Some(rtt);
            if complete >= slow {
                row.last_slow = Some((now, complete));
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
            row.last_disconnect = Some((now, disconnect.clone()));
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
            last_disconnect: row.last_disconnect.as_ref().map(|(_, disconnect)| disconnect.clone()),
            slow_answer: row.last_slow.map(|(_, answer)| answer),
        };
        self.rows().iter().map(view).collect()
    }

    /// Attribution from all legs over the window.
    #[must_use]
    pub fn attribution(&self) -> Attribution {
        let leg = |view: LegView| probe::Leg {
            name: view.leg.name,
            way: view.leg.way,
            state: view.state,
            fault: match view.state {
                State::Down => view.last_disconnect.map(|last| LegFault::Failed {
                    reason: last.reason,
                    phase: last.phase,
                    detail: last.detail,
                }),
                State::Slow => view.slow_answer.map(LegFault::Slow),
                State::Clean | State::Unseen => None,
            },
        };
        attribute(&self.view().into_iter().map(leg).collect::<Vec<_>>())
    }
}

impl LegState {
    /// The worst state of the window. A leg that is down now is down, however old its disconnect.
    fn state(&self, now: Instant, window: Duration) -> State {
        if self.up == Some(false) {
            return State::Down;
        }
        let is_recent = |at: Option<Instant>| at.is_some_and(|at| now.duration_since(at) <= window);
        if is_recent(self.last_disconnect.as_ref().map(|(at, _)| *at)) {
            State::Down
        } else if is_recent(self.last_slow.map(|(at, _)| at)) {
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

#[cfg(test)]
mod tests {
    use t3_record::probe::{Phase, Reason, Way};

    use super::*;
    use crate::leg::Address;

    const SLOW: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_worst_state_of_the_window_counts_and_is_forgotten_after_it() {
        let leg = Leg {
            name: "internal".to_owned(),
            way: Way::Internal,
            url: "wss://t3.example.org/probe/ws".parse().unwrap(),
            address: Address::System,
            authorization: None,
        };
        let window = Duration::from_secs(60);
        let states = LegStates::new(std::slice::from_ref(&leg), Metrics::new().unwrap(), window);
        let state = || states.view()[0].state;
        let answered = |millis: u64, complete: u64| {
            states.answered(&leg, Duration::from_millis(millis), Duration::from_millis(complete), SLOW);
        };
        assert_eq!(state(), State::Unseen);
        states.up(&leg);
        answered(4, 5);
        assert_eq!(state(), State::Clean);
        // A late Pong alone is enough.
        answered(4, 1_400);
        assert_eq!(state(), State::Slow);
        assert!(states.attribution().sentence.contains("internal is slow (answered after 1.4 s)"));

        let failure = Failure { reason: Reason::PongTimeout, detail: "no Pong".to_owned() };
        let progress = Progress::default();
        progress.begin(Phase::Echo);
        let last = states.disconnected(&leg, failure, &progress, Some(window));
        assert_eq!((last.reason, last.phase, last.age_ms), (Reason::PongTimeout, Phase::Echo, Some(60_000)));
        states.up(&leg);
        // However many slow answers follow, the disconnect is in the window.
        for _ in 0..1_000 {
            answered(1_000, 1_000);
        }
        assert_eq!(state(), State::Down);
        assert!(states.attribution().sentence.contains("internal is down (pong_timeout in echo: no Pong)"));
        tokio::time::advance(window / 2).await;
        answered(1_000, 1_000);
        tokio::time::advance(window / 2 + SLOW).await;
        assert_eq!(state(), State::Slow);
        tokio::time::advance(window).await;
        assert_eq!(state(), State::Clean);
    }
}
