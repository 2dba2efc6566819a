//! Automatic pairing: gives a browser without a session one of its user's serve, so that users do
//! not type a pairing code (docs/PAIRING.md).
//!
//! [`decide`] selects the requests that need a session, [`session_check`] queries serve about
//! existing ones, [`mint`] or [`mint_socket`] obtains a one-time credential, and [`exchange`]
//! trades it for a session, whose cookies are sent to the browser with a 302. [`loops`] limits the
//! sessions. Requests other than top-level navigations and checks of `/` are forwarded unchanged.
//! Credentials and cookies are never logged.

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

use t3_record::evidence::Nanos;

pub use self::mint::MintCommand;
use self::{
    credential::Credential,
    decide::PairingAction,
    exchange::{ExchangeError, PairedSession},
    loops::{Browser, LoopDecision, LoopDetector, Reason},
    mint::{Mint, MintError},
    mint_socket::{MintSocket, SocketError},
    serve_request::{RequestError, Serve},
    single_flight::SingleFlight,
};
use crate::{
    admission::rejections::{LogCause, Rejections},
    metrics::{Metrics, PairingOutcome},
    response::{
        body::ResponseBody,
        text::{FOREIGN_LISTENER, plain},
    },
    routing::table::Route,
    settings::Timeouts,
    sys::clock,
    upstream::{connect::ConnectError, serve_owner::ServeOwners},
};

/// Bytes of a User-Agent that distinguish browsers.
const MAX_AGENT: usize = 256;

/// Sources of credentials and timeouts of pairing.
#[derive(Debug, Clone)]
pub struct PairingSettings {
    pub mint_command: MintCommand,
    /// Used in place of the command when set.
    pub mint_socket: mint_socket::SocketOption,
    pub mint_timeout: Duration,
    pub exchange_timeout: Duration,
    pub session_check_timeout: Duration,
    /// Sessions of one user within a minute; 0 for no limit.
    pub max_per_user: u32,
}

/// What pairing reads of a request, besides its headers.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine<'a> {
    pub method: &'a Method,
    pub path: &'a str,
}

/// State of pairing between requests.
#[derive(Debug)]
pub struct Pairing {
    source: Source,
    exchange_timeout: Duration,
    check_timeout: Duration,
    in_flight: SingleFlight<Result<Arc<PairedSession>, Failed>>,
    loops: Mutex<LoopDetector>,
    max_per_user: u32,
    metrics: Arc<Metrics>,
    rejections: Arc<Rejections>,
    timeouts: Timeouts,
    owners: ServeOwners,
}

/// Source of credentials.
#[derive(Debug)]
enum Source {
    Command(Mint),
    Socket(MintSocket),
}

/// Error of obtaining a credential.
#[derive(Debug, thiserror::Error)]
enum NoCredential {
    #[error(transparent)]
    Command(#[from] MintError),
    #[error(transparent)]
    Socket(#[from] SocketError),
}

impl Source {
    fn new(options: &PairingSettings) -> Self {
        match &options.mint_socket {
            mint_socket::SocketOption::Off => {
                Self::Command(Mint::new(options.mint_command.clone(), options.mint_timeout))
            }
            mint_socket::SocketOption::At(path) => Self::Socket(MintSocket::new(path, options.mint_timeout)),
        }
    }

    async fn credential(&self, user: &str) -> Result<Credential, NoCredential> {
        Ok(match self {
            Self::Command(mint) => mint.run(user).await?,
            Self::Socket(mint) => mint.run(user).await?,
        })
    }
}

/// Stage at which a pairing failed; the cause has been logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    Mint,
    Exchange,
    ForeignListener,
}

/// Data of the request that starts a pairing.
struct PairingRequest {
    /// `None` for a program.
    browser: Option<Browser>,
    /// Time of the request.
    asked_at: Nanos,
    peer: IpAddr,
    /// Address of the browser.
    client: IpAddr,
    /// Headers forwarded to serve.
    client_headers: HeaderMap,
}

impl Pairing {
    #[must_use]
    pub fn new(
        settings: &PairingSettings,
        metrics: Arc<Metrics>,
        rejections: Arc<Rejections>,
        timeouts: Timeouts,
        owners: ServeOwners,
    ) -> Self {
        Self {
            source: Source::new(settings),
            exchange_timeout: settings.exchange_timeout,
            check_timeout: settings.session_check_timeout,
            in_flight: SingleFlight::default(),
            loops: Mutex::new(LoopDetector::new(settings.max_per_user)),
            max_per_user: settings.max_per_user,
            metrics,
            rejections,
            timeouts,
            owners,
        }
    }

    const fn serve<'a>(&'a self, route: &'a Route) -> Serve<'a> {
        Serve { route, timeouts: &self.timeouts, owners: &self.owners }
    }
}

/// Returns the response to a request that needs pairing; `None` for all others, which are forwarded
/// to serve.
pub async fn answer(
    pairing: &Arc<Pairing>,
    peer: IpAddr,
    client: IpAddr,
    route: &Route,
    request: RequestLine<'_>,
    headers: &HeaderMap,
) -> Option<Response<ResponseBody>> {
    let action = decide::action(request.method, request.path, headers);
    if action == PairingAction::Forward {
        return None;
    }
    let client_headers = serve_request::client_headers(headers, peer);
    if action == PairingAction::Check && is_good(pairing, route, client_headers.clone(), headers).await {
        return None;
    }
    let asked_at = clock::now();
    let agent = headers.get(USER_AGENT).map_or(&[][..], HeaderValue::as_bytes);
    let agent = agent.get(..MAX_AGENT).unwrap_or(agent);
    let request = PairingRequest {
        browser: (action != PairingAction::PairProgram).then(|| Browser::new(&route.os_user, client, agent)),
        asked_at,
        peer: peer.to_canonical(),
        client,
        client_headers,
    };
    let mut response = pair(pairing, route, request).await;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

/// Returns whether the session of a request may be used: false only when serve does not know it.
async fn is_good(pairing: &Pairing, route: &Route, client_headers: HeaderMap, headers: &HeaderMap) -> bool {
    let checked =
        session_check::is_good(&pairing.serve(route), pairing.check_timeout, client_headers, headers).await;
    match &checked {
        Ok(true) => {}
        Ok(false) => pairing.metrics.pairing(PairingOutcome::Unknown),
        Err(error) => {
            pairing.rejections.log(LogCause::SessionCheck, &route.os_user, |suppressed| {
                tracing::info!(user = %route.os_user, suppressed, "cannot check the session: {error}");
            });
            pairing.metrics.pairing(PairingOutcome::CheckFailed);
        }
    }
    checked.unwrap_or(true)
}

async fn pair(pairing: &Arc<Pairing>, route: &Route, request: PairingRequest) -> Response<ResponseBody> {
    match lock(&pairing.loops).check(&route.os_user, request.browser.as_ref(), request.asked_at) {
        LoopDecision::Allow => {}
        LoopDecision::Stop(reason) => {
            log_stop(pairing, &route.os_user, &request, reason);
            return stopped(pairing, reason);
        }
        LoopDecision::StillStopped(reason) => return stopped(pairing, reason),
    }
    let flight = || run_pairing(Arc::clone(pairing), route.clone(), request);
    match pairing.in_flight.join(&route.os_user, flight).await {
        Some(Ok(paired)) => redirect(&paired),
        Some(Err(Failed::Mint)) | None => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "cannot mint a pairing credential; see the log of t3-dispatch",
        ),
        Some(Err(Failed::ForeignListener)) => plain(StatusCode::BAD_GATEWAY, FOREIGN_LISTENER),
        Some(Err(Failed::Exchange)) => {
            plain(StatusCode::BAD_GATEWAY, "t3 serve did not open a session; see the log of t3-dispatch")
        }
    }
}

/// Runs one pairing for all requests that wait for it, and logs its outcome.
async fn run_pairing(
    pairing: Arc<Pairing>,
    route: Route,
    request: PairingRequest,
) -> Result<Arc<PairedSession>, Failed> {
    let user = &route.os_user;
    // Before a credential exists.
    let foreign = |_| {
        pairing.metrics.pairing(PairingOutcome::ForeignListener);
        Failed::ForeignListener
    };
    pairing.owners.check_listener(&route).await.map_err(foreign)?;
    let credential = pairing.source.credential(user).await.map_err(|error| {
        pairing.rejections.log(LogCause::Pairing, user, |suppressed| {
            tracing::error!(%user, suppressed, "mint for {user} failed: {error}");
        });
        pairing.metrics.pairing(PairingOutcome::MintFailed);
        Failed::Mint
    })?;
    let timeout = pairing.exchange_timeout;
    let paired =
        exchange::exchange(&pairing.serve(&route), timeout, &request.client_headers, &credential).await;
    let paired = paired.map_err(|error| {
        if let ExchangeError::Request(RequestError::Connect(ConnectError::Owner(error))) = error {
            return foreign(error);
        }
        pairing.rejections.log(LogCause::Pairing, user, |suppressed| {
            tracing::error!(%user, suppressed, "pairing exchange for {user} failed: {error}");
        });
        pairing.metrics.pairing(match error {
            ExchangeError::Request(_) | ExchangeError::Timeout { .. } => PairingOutcome::Unreachable,
            ExchangeError::Rejected { .. } | ExchangeError::NoCookie { .. } => PairingOutcome::Rejected,
        });
        Failed::Exchange
    })?;
    let (ip, peer) = (request.client, request.peer);
    lock(&pairing.loops).record(user, request.browser, request.asked_at, clock::now());
    tracing::info!(%user, %ip, %peer, endpoint = %paired.endpoint, fallback = paired.fallback, "paired");
    pairing.metrics.pairing(if paired.fallback { PairingOutcome::Fallback } else { PairingOutcome::Paired });
    Ok(Arc::new(paired))
}

fn redirect(paired: &PairedSession) -> Response<ResponseBody> {
    let mut response = plain(StatusCode::FOUND, "paired");
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_static("/"));
    for cookie in &paired.cookies {
        headers.append(SET_COOKIE, cookie.clone());
    }
    response
}

fn log_stop(pairing: &Pairing, user: &str, request: &PairingRequest, reason: Reason) {
    let (ip, peer) = (request.client, request.peer);
    pairing.rejections.log(LogCause::Pairing, user, |suppressed| match reason {
        Reason::Loop => tracing::warn!(
            %user, %ip, %peer, suppressed,
            "pairing loop: a browser returned without its session {} times in a row; check that it stores cookies",
            loops::MAX_SESSIONS
        ),
        Reason::User => tracing::warn!(
            %user, %ip, %peer, suppressed,
            "too many pairings: {} sessions of {user} within a minute; see --max-pairings-per-user",
            pairing.max_per_user
        ),
    });
}

fn stopped(pairing: &Pairing, reason: Reason) -> Response<ResponseBody> {
    let (outcome, text) = match reason {
        Reason::Loop => (
            PairingOutcome::Loop,
            "This browser received several sessions in a row and returned without a valid one each time.\n\
             Allow cookies for this address, delete the existing ones, and try again in a minute.",
        ),
        Reason::User => (
            PairingOutcome::Limited,
            "Too many sessions were opened for this user within a minute; try again in a minute.\n\
             A script should keep the cookie. The limit is --max-pairings-per-user of t3-dispatch.",
        ),
    };
    pairing.metrics.pairing(outcome);
    let mut response = plain(StatusCode::TOO_MANY_REQUESTS, text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("60"));
    response
}

fn lock(loops: &Mutex<LoopDetector>) -> std::sync::MutexGuard<'_, LoopDetector> {
    loops.lock().unwrap_or_else(PoisonError::into_inner)
}
