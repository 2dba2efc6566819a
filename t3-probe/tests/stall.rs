//! Stalls of the path, in simulated time: the default profile notices each that ends a session in a
//! browser, wherever it begins between two pings; that of the Python prober does not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use t3_probe::{
    dial::Dial,
    leg::{Address, Leg, Profile, Timeouts},
    leg_states::LegStates,
    metrics::Metrics,
    progress::{Failure, Progress},
    run,
};
use t3_record::probe::{Phase, State, Way};
use tokio::{
    io::DuplexStream,
    time::{Instant, sleep, sleep_until},
};
use tokio_tungstenite::{accept_async, tungstenite::Message};

const WINDOW: Duration = Duration::from_secs(60);

/// A path on which nothing arrives from one instant to another.
#[derive(Debug, Clone, Copy)]
struct Stalling {
    from: Instant,
    to: Instant,
}

impl Dial for Stalling {
    type Stream = DuplexStream;

    async fn dial(&self, _: &Leg, progress: &Progress) -> Result<DuplexStream, Failure> {
        progress.begin(Phase::Tcp);
        let (near, far) = tokio::io::duplex(4096);
        tokio::spawn(self.answer(far));
        Ok(near)
    }
}

impl Stalling {
    async fn answer(self, far: DuplexStream) {
        self.pass().await;
        let Ok(mut socket) = accept_async(far).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            self.pass().await;
            // The library sends the Pong of a Ping with the next read.
            if matches!(message, Message::Text(_)) && socket.send(message).await.is_err() {
                return;
            }
        }
    }

    /// Waits for the end of a stall that has begun.
    async fn pass(&self) {
        if Instant::now() >= self.from {
            sleep_until(self.to).await;
        }
    }
}

/// State of a leg that sees this stall, which begins `offset` after a minute.
async fn state(profile: Profile, stall: Duration, offset: Duration) -> State {
    let leg = Leg {
        name: "cloudflare".to_owned(),
        way: Way::Cloudflare,
        url: "ws://t3.test/probe/ws".parse().unwrap(),
        address: Address::System,
        authorization: None,
    };
    let timeouts = Timeouts {
        ping_interval: profile.ping_interval(),
        response_timeout: profile.response_timeout(),
        ..Timeouts::default()
    };
    let from = Instant::now() + WINDOW + offset;
    let states = Arc::new(LegStates::new(std::slice::from_ref(&leg), Metrics::new().unwrap(), WINDOW));
    let path = Stalling { from, to: from + stall };
    let task = tokio::spawn(run::leg(leg, path, timeouts, Arc::clone(&states), Arc::new(|_| {})));
    sleep(WINDOW + offset + stall + timeouts.ping_interval + timeouts.response_timeout).await;
    task.abort();
    states.view()[0].state
}

/// Worst and best state over all offsets between two pings.
async fn states(profile: Profile, stall: u64) -> (State, State) {
    let stall = Duration::from_secs(stall);
    let (mut worst, mut best) = (State::Clean, State::Down);
    let interval = u64::try_from(profile.ping_interval().as_millis()).unwrap();
    for offset in (0..interval).step_by(100) {
        let state = state(profile, stall, Duration::from_millis(offset)).await;
        let rank =
            |state: State| [State::Clean, State::Slow, State::Down].iter().position(|one| *one == state);
        worst = if rank(state) > rank(worst) { state } else { worst };
        best = if rank(state) < rank(best) { state } else { best };
    }
    (worst, best)
}

#[tokio::test(start_paused = true)]
async fn no_stall_that_ends_a_session_in_a_browser_leaves_a_leg_clean() {
    for stall in 3..=10 {
        let (worst, best) = states(Profile::Browser, stall).await;
        assert_ne!(best, State::Clean, "{stall} s");
        if stall >= 7 {
            assert_eq!((worst, best), (State::Down, State::Down), "{stall} s");
        }
        if stall <= 4 {
            assert_eq!((worst, best), (State::Slow, State::Slow), "{stall} s");
        }
    }
    for stall in 6..=9 {
        let (worst, best) = states(Profile::Python, stall).await;
        assert_eq!((worst, best), (State::Slow, State::Clean), "{stall} s");
    }
}
