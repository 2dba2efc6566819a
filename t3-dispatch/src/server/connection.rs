//! One client connection: guard and HTTP/1.1 server, until it ends or becomes a WebSocket.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode, Version};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use t3_record::evidence::{Nanos, SeenEnd};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    admission::{client::Client, connections::ConnectionPermit, rejections::LogCause},
    http::{
        guard::{self, ClientTimeouts, Exchanges, Guarded, Violation},
        peer::Peer,
    },
    record::{
        attempts::{self, Unfinished},
        recorder::Recorder,
    },
    response::{
        body::ResponseBody,
        refused::{close, refused},
    },
    server::{app::App, router},
    sys::{clock, peer_owner::PeerOwner, tcp},
};

/// Buffer size in addition to the longest head that the guard accepts: hyper parses a head only
/// once it is complete in the buffer.
const BUFFER_EXTRA: usize = 16 * 1024;
/// Number of fields that hyper parses without an allocation.
const HYPER_DEFAULT_FIELDS: usize = 100;

/// Time that a client has during a shutdown to send its first request on a connection that is
/// accepted: the process that accepts the next ones cannot answer it.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// Interval at which this first request is looked for.
const POLL: Duration = Duration::from_millis(2);

/// An accepted connection.
#[derive(Debug)]
pub struct Accepted {
    pub stream: TcpStream,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub owner: PeerOwner,
    /// Time since its last data arrived, or since the handshake.
    pub queued: Duration,
    /// A trusted hop.
    pub trusted: bool,
    /// It has the options of [`tcp::prepare`].
    pub is_prepared: bool,
}

/// Serves one connection until it ends or becomes a WebSocket. `_count` is dropped last: a shutdown
/// waits for it, and then writes the attempts.
///
/// A peer that is not trusted has no user whose requests it carries: it gets the time for one head
/// from the accept on, and between two requests no more than that.
pub async fn serve(
    app: Arc<App>,
    accepted: Accepted,
    (_permit, _count): (ConnectionPermit, ConnectionCount),
) {
    let Accepted { stream, local, remote, owner, queued, trusted, is_prepared } = accepted;
    let mut attempt = Attempt::accepted(&app, queued);
    // First, because reading the cookie generates it.
    let Ok(leg) = tcp::leg(&stream, local, remote) else {
        return attempt.gone(&stream, SeenEnd::Reset);
    };
    if !is_prepared && let Err(error) = tcp::prepare(&stream, &app.timeouts.legs) {
        tracing::debug!(peer = %leg.remote.ip(), "cannot set the options of a connection: {error}");
        return;
    }
    if let PeerOwner::Closed(end) = owner {
        return attempt.gone(&stream, end);
    }
    let peer = Peer { ip: leg.remote.ip(), leg, owner };
    let mut timeouts = app.http.client;
    if !trusted {
        timeouts = ClientTimeouts { idle: timeouts.idle.min(timeouts.head), ..timeouts };
    }
    let mut stream = Guarded::new(stream, app.http.limits, timeouts);
    if !trusted {
        stream.limit_first_head(timeouts.head);
    }
    let exchanges = stream.exchanges();
    attempt.exchanges = Some(Arc::clone(&exchanges));
    let service = service_fn({
        let (app, exchanges) = (Arc::clone(&app), Arc::clone(&exchanges));
        move |request| {
            let (app, exchanges) = (Arc::clone(&app), Arc::clone(&exchanges));
            async move { Ok::<_, Infallible>(exchange(app, peer, &exchanges, request).await) }
        }
    });
    let limits = app.http.limits;
    let mut http = http1::Builder::new();
    http.preserve_header_case(true)
        .title_case_headers(true)
        // serve's responses are forwarded unchanged, with or without a Date.
        .auto_date_header(false)
        .max_buf_size(limits.head_bytes + BUFFER_EXTRA);
    if limits.fields > HYPER_DEFAULT_FIELDS {
        http.max_headers(limits.fields);
    }
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = app.shutdown.wait() => {
            let ended = tokio::select! {
                result = connection.as_mut() => Some(result),
                () = first_request(&exchanges) => None,
                () = app.shutdown.wait_for_force() => return,
            };
            match ended {
                Some(result) => result,
                None => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        result = timeout(app.timeouts.relay.going_away, connection) => match result {
                            Ok(result) => result,
                            Err(_) => return,
                        },
                        () = app.shutdown.wait_for_force() => return,
                    }
                }
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %peer.ip, "HTTP connection: {error}");
    }
}

/// Returns when the first request was read, or after [`FIRST_REQUEST`]. A client whose connection
/// is closed earlier cannot know whether its request was processed (RFC 9112 section 9.3.1).
async fn first_request(exchanges: &Exchanges) {
    let deadline = Instant::now() + FIRST_REQUEST;
    while exchanges.heads() == 0 && Instant::now() < deadline {
        sleep(POLL).await;
    }
}

/// A connection until its end: counted then if no complete request was read.
struct Attempt {
    recorder: Arc<Recorder>,
    queued: Nanos,
    accepted_at: Nanos,
    /// The client was gone, and had sent bytes before.
    had_bytes: bool,
    end: SeenEnd,
    /// `None` if the client was gone when it was accepted.
    exchanges: Option<Arc<Exchanges>>,
}

impl Attempt {
    fn accepted(app: &App, queued: Duration) -> Self {
        Self {
            recorder: Arc::clone(&app.recorder),
            queued: u64::try_from(queued.as_nanos()).unwrap_or(u64::MAX),
            accepted_at: clock::now(),
            had_bytes: false,
            end: SeenEnd::Reset,
            exchanges: None,
        }
    }

    /// The client was gone when its connection was accepted.
    fn gone(&mut self, stream: &TcpStream, end: SeenEnd) {
        self.had_bytes = rustix::io::ioctl_fionread(stream).is_ok_and(|bytes| bytes > 0);
        self.end = end;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let now = clock::now();
        let (seen, ended_at, has_part, served) = match &self.exchanges {
            None => (Some(self.end), now, self.had_bytes, false),
            Some(exchanges) => {
                let violation = exchanges.violation();
                let is_answered = violation.is_some_and(|why| why != Violation::SlowHead);
                let served = exchanges.heads() > 0;
                if is_answered || (served && !exchanges.in_head()) {
                    return;
                }
                // After a timeout, the end that follows is not the cause.
                let end = exchanges.end().filter(|_| violation.is_none());
                let (seen, at) = end.map_or((None, now), |(seen, at)| (Some(seen), at));
                (seen, at, exchanges.in_head(), served)
            }
        };
        let is_shutdown = self.recorder.shutdown.triggered().is_some();
        let connection = Unfinished {
            queued: self.queued,
            accepted_at: self.accepted_at,
            ended_at,
            delays: self.recorder.lag.delays(),
            has_part,
            served,
        };
        self.recorder.unfinished(&connection, attempts::end(seen, is_shutdown));
    }
}

/// Counts an HTTP connection from its accept until it ends or is upgraded: a shutdown waits for it.
pub struct ConnectionCount(Arc<App>);

impl ConnectionCount {
    #[must_use]
    pub fn new(app: &Arc<App>) -> Self {
        app.connections.opened();
        Self(Arc::clone(app))
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.connections.closed();
    }
}

fn log_violation(app: &App, peer: Peer, why: Violation) {
    let status = why.status().as_u16();
    if why == Violation::Tls {
        tracing::debug!(peer = %peer.ip, "{status}: {why}");
    } else {
        app.rejections.log(LogCause::InvalidRequest, &Client::from(peer).to_string(), |suppressed| {
            tracing::info!(peer = %peer.ip, suppressed, "{status}: {why}");
        });
    }
}

/// Answers one request, or the guard's placeholder for an invalid one.
async fn exchange(
    app: Arc<App>,
    peer: Peer,
    exchanges: &Arc<Exchanges>,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    // The session recorder reads the end of the client's connection from it.
    request.extensions_mut().insert(Arc::clone(exchanges));
    let exchange = exchanges.begin();
    let mut response = match exchanges.violation() {
        Some(why) if guard::is_substitute(request.uri()) => {
            app.metrics.invalid_request(why.status());
            log_violation(&app, peer, why);
            refused(why)
        }
        _ => {
            let interims = exchanges.interims();
            // HTTP/1.0 has none (RFC 9110 section 15.2).
            if request.version() == Version::HTTP_11 {
                request.extensions_mut().insert(interims.sender());
            }
            interims.before(router::answer(Arc::clone(&app), peer, request)).await
        }
    };
    app.metrics.response(&response);
    let is_last = exchanges.is_last() || app.shutdown.triggered().is_some();
    if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // The guard forwards no further request, the buffers are not to be kept, or dispatch stops.
        close(&mut response);
    }
    response.map(|body| body.during(exchange))
}
