//! Gives a browser on its first visit a session of its user's serve, so that nobody types a pairing
//! code (docs/PAIRING.md).
//!
//! [`decide`] says which requests need one, [`session_check`] asks serve about those that have one
//! already, [`mint`] makes a one-time credential (or [`mint_socket`] has one made), and
//! [`exchange`] has serve turn it into a session, whose cookies go to the browser with a 302. Never
//! touches a request that is not a top-level navigation, and never puts a credential or a cookie
//! into the log.

pub mod credential;
pub mod decide;
pub mod exchange;
pub mod loops;
pub mod mint;
pub mod mint_answer;
pub mod mint_socket;
mod redact;
mod serve_request;
pub mod session_check;
pub mod single_flight;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{
    HeaderMap, Method, Response, StatusCode,
    header::{CACHE_CONTROL, HeaderValue, LOCATION, RETRY_AFTER, SET_COOKIE, USER_AGENT},
};
use ipnet::IpNet;

pub use self::mint::MintCommand;
use self::{
    credential::Credential,
    decide::Need,
    exchange::{ExchangeError, Paired},
    loops::{Browser, Loops, Verdict},
    mint::{Mint, MintError},
    mint_socket::{MintSocket, SocketError},
    single_flight::Flights,
};
use crate::{
    metrics::{Metrics, labels},
    response::{body::ResponseBody, text::plain},
    routing::{identity, table::Route},
    settings::Timeouts,
    sys::clock,
};

/// Bytes of a User-Agent that distinguish browsers.
const MAX_AGENT: usize = 256;

/// Sources of credentials and timeouts of pairing.
#[derive(Debug, Clone)]
pub struct Settings {
    pub mint_command: MintCommand,
    /// Used in place of the command when set.
    pub mint_socket: mint_socket::Where,
    pub mint_timeout: Duration,
    pub exchange_timeout: Duration,
    pub session_check_timeout: Duration,
}

/// What pairing keeps between requests.
#[derive(Debug)]
pub struct Pairing {
    source: Source,
    exchange_patience: Duration,
    check_patience: Duration,
    flights: Flights<Result<Arc<Paired>, Failed>>,
    loops: Mutex<Loops>,
    metrics: Arc<Metrics>,
    timeouts: Timeouts,
    trusted: Vec<IpNet>,
}

/// Where credentials come from.
#[derive(Debug)]
enum Source {
    Command(Mint),
    Socket(MintSocket),
}

/// There is no credential.
#[derive(Debug, thiserror::Error)]
enum NoCredential {
    #[error(transparent)]
    Command(#[from] MintError),
    #[error(transparent)]
    Socket(#[from] SocketError),
}

impl Source {
    fn new(options: &Settings) -> Self {
        match &options.mint_socket {
            mint_socket::Where::Off => {
                Self::Command(Mint::new(options.mint_command.clone(), options.mint_timeout))
            }
            mint_socket::Where::At(path) => Self::Socket(MintSocket::new(path, options.mint_timeout)),
        }
    }

    async fn credential(&self, user: &str) -> Result<Credential, NoCredential> {
        Ok(match self {
            Self::Command(mint) => mint.run(user).await?,
            Self::Socket(mint) => mint.run(user).await?,
        })
    }
}

/// No session could be made; why is in the log already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    Mint,
    Exchange,
}

/// What a browser is known by while it is paired.
struct Visit {
    browser: Browser,
    /// Headers forwarded to serve.
    visitor: HeaderMap,
}

impl Pairing {
    #[must_use]
    pub fn new(settings: &Settings, metrics: Arc<Metrics>, timeouts: Timeouts, trusted: Vec<IpNet>) -> Self {
        Self {
            source: Source::new(settings),
            exchange_patience: settings.exchange_timeout,
            check_patience: settings.session_check_timeout,
            flights: Flights::default(),
            loops: Mutex::default(),
            metrics,
            timeouts,
            trusted,
        }
    }
}

/// The answer to a request that has to be paired first; nothing for all others, which go on to
/// serve.
pub async fn answer(
    pairing: &Arc<Pairing>,
    peer: IpAddr,
    route: &Route,
    method: &Method,
    headers: &HeaderMap,
) -> Option<Response<ResponseBody>> {
    let need = decide::need(method, headers);
    if need == Need::Nothing {
        return None;
    }
    let visitor = serve_request::visitor(headers, peer);
    if need == Need::Check && is_good(pairing, route, visitor.clone(), headers).await {
        return None;
    }
    let agent = headers.get(USER_AGENT).map_or(&[][..], HeaderValue::as_bytes);
    let browser = Browser {
        user: route.os_user.clone(),
        ip: identity::client(headers, peer, &pairing.trusted).to_string(),
        agent: agent.get(..MAX_AGENT).unwrap_or(agent).to_owned(),
    };
    let mut response = pair(pairing, route, Visit { browser, visitor }).await;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

/// Whether the session of a request may go on being used: unless serve says that it does not know
/// it.
async fn is_good(pairing: &Pairing, route: &Route, visitor: HeaderMap, headers: &HeaderMap) -> bool {
    let checked =
        session_check::is_good(route.port, &pairing.timeouts, pairing.check_patience, visitor, headers).await;
    match &checked {
        Ok(true) => {}
        Ok(false) => pairing.metrics.paired(labels::Paired::Unknown),
        Err(unclear) => {
            tracing::info!(user = %route.os_user, "session not checked: {unclear}");
            pairing.metrics.paired(labels::Paired::CheckFailed);
        }
    }
    checked.unwrap_or(true)
}

async fn pair(pairing: &Arc<Pairing>, route: &Route, visit: Visit) -> Response<ResponseBody> {
    match lock(&pairing.loops).ask(&visit.browser, clock::now()) {
        Verdict::Go => {}
        Verdict::Stop => {
            tracing::warn!(
                user = %route.os_user,
                ip = %visit.browser.ip,
                "not paired: {} sessions within a minute and the browser comes back without one: does it keep cookies?",
                loops::MANY
            );
            return stopped(pairing);
        }
        Verdict::StillStopped => return stopped(pairing),
    }
    let flight = || fly(Arc::clone(pairing), route.clone(), visit);
    match pairing.flights.join(&route.os_user, flight).await {
        Some(Ok(paired)) => redirect(&paired),
        Some(Err(Failed::Mint)) | None => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "cannot mint a pairing credential; see the log of t3-dispatch",
        ),
        Some(Err(Failed::Exchange)) => {
            plain(StatusCode::BAD_GATEWAY, "t3 serve did not open a session; see the log of t3-dispatch")
        }
    }
}

/// One pairing, for all who wait for it. Says in one line how it ended.
async fn fly(pairing: Arc<Pairing>, route: Route, visit: Visit) -> Result<Arc<Paired>, Failed> {
    let user = &route.os_user;
    let credential = pairing.source.credential(user).await.map_err(|error| {
        tracing::error!(%user, "mint for {user} failed: {error}");
        pairing.metrics.paired(labels::Paired::MintFailed);
        Failed::Mint
    })?;
    let patience = pairing.exchange_patience;
    let paired =
        exchange::exchange(route.port, &pairing.timeouts, patience, &visit.visitor, &credential).await;
    let paired = paired.map_err(|error| {
        tracing::error!(%user, "pairing exchange for {user} failed: {error}");
        pairing.metrics.paired(match error {
            ExchangeError::Ask(_) | ExchangeError::Timeout { .. } => labels::Paired::Unreachable,
            ExchangeError::Rejected { .. } | ExchangeError::NoCookie { .. } => labels::Paired::Rejected,
        });
        Failed::Exchange
    })?;
    lock(&pairing.loops).given(visit.browser, clock::now());
    tracing::info!(%user, endpoint = %paired.endpoint, fallback = paired.fallback, "paired");
    pairing.metrics.paired(if paired.fallback { labels::Paired::Fallback } else { labels::Paired::Paired });
    Ok(Arc::new(paired))
}

fn redirect(paired: &Paired) -> Response<ResponseBody> {
    let mut response = plain(StatusCode::FOUND, "paired");
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_static("/"));
    for cookie in &paired.cookies {
        headers.append(SET_COOKIE, cookie.clone());
    }
    response
}

fn stopped(pairing: &Pairing) -> Response<ResponseBody> {
    pairing.metrics.paired(labels::Paired::Loop);
    let mut response = plain(
        StatusCode::TOO_MANY_REQUESTS,
        "t3 gave this browser several sessions within a minute, and each time it came back without one that works.\n\
         Does it keep cookies for this address? Delete those it has, allow them, and try again in a minute.",
    );
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("60"));
    response
}

fn lock(loops: &Mutex<Loops>) -> std::sync::MutexGuard<'_, Loops> {
    loops.lock().unwrap_or_else(PoisonError::into_inner)
}
