//! Lifetime of a leg: connect, observe until it disconnects, report, retry with a growing delay.

use std::{future::Future, sync::Arc};

use http::Request;
use t3_http_client::exchange;
use t3_record::probe::{Disconnect, Phase, Reason, Way};
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::{
    dial::Dial,
    echo::Echo,
    leg::{Leg, Timeouts},
    leg_states::LegStates,
    progress::{Failure, Progress},
};

/// Limit of a response of a serve, in bytes.
const MAX_RESPONSE: usize = 1 << 20;

/// Called for each disconnect.
pub type OnDisconnect = Arc<dyn Fn(&Disconnect) + Send + Sync>;

/// Keeps one leg under observation; does not return.
pub async fn leg<D: Dial>(
    leg: Leg,
    dial: D,
    timeouts: Timeouts,
    states: Arc<LegStates>,
    on_disconnect: OnDisconnect,
) {
    match leg.way {
        Way::Cloudflare | Way::Internal => socket(&leg, &dial, &timeouts, &states, &on_disconnect).await,
        Way::Serve => serve(&leg, &dial, &timeouts, &states, &on_disconnect).await,
    }
}

async fn socket<D: Dial>(
    leg: &Leg,
    dial: &D,
    timeouts: &Timeouts,
    states: &LegStates,
    on_disconnect: &OnDisconnect,
) {
    let mut failures = 0u32;
    loop {
        let progress = Progress::default();
        let mut since = None;
        let failure = match established(leg, dial, timeouts, &progress).await {
            Ok(echo) => {
                failures = 0;
                since = Some(Instant::now());
                states.up(leg);
                tracing::info!(leg = leg.name, "connected");
                observe(echo, leg, timeouts, states, &progress).await
            }
            Err(failure) => failure,
        };
        on_disconnect(&states.disconnected(
            leg,
            failure,
            &progress,
            since.map(|since: Instant| since.elapsed()),
        ));
        failures = failures.saturating_add(1);
        sleep(timeouts.backoff(failures)).await;
    }
}

async fn observe<S>(
    mut echo: Echo<S>,
    leg: &Leg,
    timeouts: &Timeouts,
    states: &LegStates,
    progress: &Progress,
) -> Failure
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        match echo.ping(timeouts, progress).await {
            Ok(answered) => states.answered(leg, answered.echo, answered.both(), timeouts.slow_threshold),
            Err(failure) => return failure,
        }
        if let Err(failure) = echo.idle(timeouts, progress).await {
            return failure;
        }
    }
}

/// Establishes a WebSocket leg, within the connect timeout.
///
/// # Errors
/// The cause; `progress` has the phase.
pub async fn established<D: Dial>(
    leg: &Leg,
    dial: &D,
    timeouts: &Timeouts,
    progress: &Progress,
) -> Result<Echo<D::Stream>, Failure> {
    let open = async {
        let stream = dial.dial(leg, progress).await?;
        Echo::open(leg, stream, progress).await
    };
    bounded(timeouts.connect_timeout, Reason::ConnectTimeout, "no connection", open).await
}

async fn bounded<T>(
    limit: Duration,
    reason: Reason,
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(Failure { reason, detail: format!("{what} within {} s", limit.as_secs_f32()) })
    })
}

async fn serve<D: Dial>(
    leg: &Leg,
    dial: &D,
    timeouts: &Timeouts,
    states: &LegStates,
    on_disconnect: &OnDisconnect,
) {
    let mut failures = 0u32;
    loop {
        let progress = Progress::default();
        match answered(leg, dial, timeouts, &progress).await {
            (Some(rtt), Ok(())) => {
                failures = 0;
                states.up(leg);
                states.answered(leg, rtt, rtt, timeouts.slow_threshold);
            }
            (rtt, Err(failure)) => {
                if let Some(rtt) = rtt {
                    states.answered(leg, rtt, rtt, timeouts.slow_threshold);
                }
                failures = failures.saturating_add(1);
                on_disconnect(&states.disconnected(leg, failure, &progress, None));
            }
            (None, Ok(())) => {}
        }
        // As slow as a WebSocket leg after failures, so that an outage has as many of them.
        sleep(timeouts.ping_interval.max(timeouts.backoff(failures))).await;
    }
}

/// Requests the session page of a serve; returns the time to its response, if any, and the result.
pub async fn answered<D: Dial>(
    leg: &Leg,
    dial: &D,
    timeouts: &Timeouts,
    progress: &Progress,
) -> (Option<Duration>, Result<(), Failure>) {
    let begun = Instant::now();
    let query = async {
        let stream = dial.dial(leg, progress).await?;
        progress.begin(Phase::Upgrade);
        let path = leg.url.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header("host", leg.url.authority().map_or("", |authority| authority.as_str()))
            .header("user-agent", concat!("t3-probe/", env!("CARGO_PKG_VERSION")))
            .body(())
            .map_err(|error| Failure::new(Reason::ConnectFailed, &error))?;
        let response = exchange(stream, request, MAX_RESPONSE).await;
        response
            .map(|response| response.status().as_u16())
            .map_err(|error| Failure::new(Reason::IoError, &error))
    };
    match bounded(timeouts.response_timeout, Reason::RttTimeout, "no response", query).await {
        Ok(200) => (Some(begun.elapsed()), Ok(())),
        Ok(status) => {
            let detail = format!("serve answered {status}");
            (Some(begun.elapsed()), Err(Failure { reason: Reason::Http(status), detail }))
        }
        Err(failure) => (None, Err(failure)),
    }
}
