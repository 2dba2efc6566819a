//! Client socket behind the guard: all bytes read from it have been checked.
//!
//! A violation is answered in order, after the responses to the earlier requests. So a request that
//! no client can send replaces the rejected one ([`is_substitute`]), and the request handler reads
//! the reason from [`Exchanges`].

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Uri;
use hyper::{
    body::Bytes,
    upgrade::{Parts, Upgraded},
};
use hyper_util::rt::TokioIo;
use t3_record::evidence::{Nanos, SeenEnd};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    runtime::Handle,
    time::{Instant, Sleep, sleep_until, timeout},
};

use crate::sys::{clock, recv, tcp};

use super::{
    ClientTimeouts, Limits, Violation,
    framing::{FeedResult, Framing, RequestPhase},
    interim::Interims,
};

/// The guard rejects this target from clients, so only the guard can have inserted it.
const SUBSTITUTE: &[u8] = b"OPTIONS * HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n";
/// Size of a head above which the connection ends with the response, in bytes.
const LARGE_HEAD: usize = 32 * 1024;
/// Maximum number of bytes read after a WebSocket upgrade before its response.
const MAX_BEHIND_UPGRADE: usize = 64 * 1024;
/// Time and bytes for reading from a client that is still sending after the response with
/// `Connection: close`. An immediate close would send RST, and the response could be lost (RFC 9112
/// section 9.6).
const LINGER: (Duration, u64) = (Duration::from_secs(2), 8 * 1024 * 1024);

/// Returns whether the request replaces a rejected one.
#[must_use]
pub fn is_substitute(target: &Uri) -> bool {
    target.path() == "*"
}

/// State that the reading and the responding side of one connection share.
#[derive(Debug)]
pub struct Exchanges {
    since: Instant,
    /// Number of complete responses.
    ended: AtomicU64,
    /// Time of the last one, in milliseconds after `since`.
    ended_at: AtomicU64,
    violation: OnceLock<Violation>,
    last: AtomicBool,
    /// A head was so large that the buffers for it are not kept.
    large: AtomicBool,
    end: OnceLock<(SeenEnd, Nanos)>,
    /// Number of complete heads that were read.
    heads: AtomicU64,
    /// A part of the next head was read.
    in_head: AtomicBool,
    interims: Arc<Interims>,
}

impl Exchanges {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            ended: AtomicU64::new(0),
            ended_at: AtomicU64::new(0),
            violation: OnceLock::new(),
            last: AtomicBool::new(false),
            large: AtomicBool::new(false),
            end: OnceLock::new(),
            heads: AtomicU64::new(0),
            in_head: AtomicBool::new(false),
            interims: Arc::default(),
        }
    }

    /// Interim responses to the client.
    #[must_use]
    pub const fn interims(&self) -> &Arc<Interims> {
        &self.interims
    }

    /// End of the client's connection, with its time.
    #[must_use]
    pub fn end(&self) -> Option<(SeenEnd, Nanos)> {
        self.end.get().copied()
    }

    /// Number of complete heads that were read so far.
    #[must_use]
    pub fn heads(&self) -> u64 {
        self.heads.load(Ordering::Acquire)
    }

    /// Returns whether a part of a head was read that is not complete.
    #[must_use]
    pub fn in_head(&self) -> bool {
        self.in_head.load(Ordering::Acquire)
    }

    fn set_end(&self, how: SeenEnd) {
        // The first end counts; a later write error repeats it.
        let _ = self.end.set((how, clock::now()));
    }

    /// Returns the result, and records the error that ended the connection.
    fn note_error<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.set_end(tcp::seen_end(error));
        }
        result
    }

    /// Starts an exchange; dropped when the response has been sent.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Exchange {
        Exchange(Arc::clone(self))
    }

    /// Violation of the client, if any.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.violation.get().copied()
    }

    /// Returns whether the connection cannot carry another request: the client sent a WebSocket
    /// upgrade, or a head whose buffers an idle connection would keep.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.last.load(Ordering::Acquire) || self.large.load(Ordering::Acquire)
    }
}

/// One request and its response.
#[derive(Debug)]
pub struct Exchange(Arc<Exchanges>);

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.ended_at.store(now, Ordering::Release);
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

/// Client socket behind the guard.
#[derive(Debug)]
pub struct Guarded {
    /// `None` only after [`Guarded::into_parts`].
    stream: Option<TcpStream>,
    framing: Framing,
    /// Checked bytes that were not read yet.
    out: Vec<u8>,
    out_at: usize,
    /// A body was aborted here; reported once `out` is empty.
    broken: Option<Violation>,
    eof: bool,
    /// The last read returned bytes.
    has_read: bool,
    /// Number of forwarded heads.
    heads: u64,
    exchanges: Arc<Exchanges>,
    timeouts: ClientTimeouts,
    timer: Option<Pin<Box<Sleep>>>,
    /// Phase that the timer limits.
    timed: Option<RequestPhase>,
    /// Deadline for the first head, in addition to the timeouts.
    first_head_by: Option<Instant>,
}

impl Guarded {
    /// Guards a new connection.
    #[must_use]
    pub fn new(stream: TcpStream, limits: Limits, timeouts: ClientTimeouts) -> Self {
        Self {
            stream: Some(stream),
            framing: Framing::new(limits),
            out: Vec::new(),
            out_at: 0,
            broken: None,
            eof: false,
            has_read: false,
            heads: 0,
            exchanges: Arc::new(Exchanges::new()),
            timeouts,
            timer: None,
            timed: None,
            first_head_by: None,
        }
    }

    /// Limits the time until the first head is complete, from now on.
    pub fn limit_first_head(&mut self, limit: Duration) {
        self.first_head_by = Some(Instant::now() + limit);
    }

    /// State for the responding side.
    #[must_use]
    pub fn exchanges(&self) -> Arc<Exchanges> {
        Arc::clone(&self.exchanges)
    }

    /// Removes the guard; returns the socket and the bytes read after the last request. `None` if
    /// the socket was taken.
    #[must_use]
    pub fn into_parts(mut self) -> Option<(TcpStream, Vec<u8>)> {
        let stream = self.stream.take()?;
        let empty = Framing::new(Limits { head_bytes: 0, fields: 0 });
        Some((stream, std::mem::replace(&mut self.framing, empty).into_held()))
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn reject(&mut self, why: Violation) {
        self.framing.reject();
        if self.exchanges.violation.set(why).is_err() {
            return;
        }
        if why.in_body() {
            self.broken = Some(why);
        } else {
            self.out.extend_from_slice(SUBSTITUTE);
        }
    }

    /// Processes the bytes that were read into `buf` after `start`.
    fn process_input(&mut self, buf: &mut ReadBuf<'_>, start: usize) {
        let FeedResult { held, pass, heads, violation } = self.framing.feed(&buf.filled()[start..]);
        self.heads += heads;
        self.exchanges.heads.store(self.heads, Ordering::Release);
        let in_head = self.framing.phase() == RequestPhase::Head;
        self.exchanges.in_head.store(in_head, Ordering::Release);
        if heads > 0 || !pass.is_empty() {
            // The next phase starts its timer now.
            self.timed = None;
        }
        if held.is_empty() && pass.start == 0 {
            buf.set_filled(start + pass.end);
        } else {
            if held.len() > LARGE_HEAD {
                self.exchanges.large.store(true, Ordering::Release);
            }
            self.out = held;
            self.out_at = 0;
            self.out.extend_from_slice(&buf.filled()[start..][pass]);
            buf.set_filled(start);
        }
        if let Some(why) = violation {
            self.reject(why);
        }
        if self.framing.phase() == RequestPhase::Upgrade {
            self.exchanges.last.store(true, Ordering::Release);
        }
    }

    /// No bytes arrived: checks the timeout of the phase.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let phase = self.framing.phase();
        let limit = match phase {
            RequestPhase::Between => self.timeouts.idle,
            RequestPhase::Head => self.timeouts.head,
            RequestPhase::Body => self.timeouts.body,
            RequestPhase::Upgrade | RequestPhase::Rejected => return Poll::Pending,
        };
        if self.timed != Some(phase) {
            self.timed = Some(phase);
            let until = Instant::now() + limit;
            let first = self.first_head_by.filter(|_| self.heads == 0);
            self.run_timer(first.map_or(until, |first| first.min(until)));
        }
        loop {
            let Some(timer) = &mut self.timer else { return Poll::Pending };
            ready!(timer.as_mut().poll(cx));
            match phase {
                RequestPhase::Between => match self.idle_until() {
                    Some(until) if until <= Instant::now() => return Poll::Ready(Ok(())),
                    Some(until) => self.run_timer(until),
                    None => self.run_timer(Instant::now() + limit),
                },
                RequestPhase::Head => {
                    self.reject(Violation::SlowHead);
                    return Poll::Ready(Ok(()));
                }
                _ => {
                    self.reject(Violation::SlowBody);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Returns the deadline for the next request; `None` while a response is pending.
    fn idle_until(&self) -> Option<Instant> {
        let since = Duration::from_millis(self.exchanges.ended_at.load(Ordering::Acquire));
        let answered = self.exchanges.ended.load(Ordering::Acquire) >= self.heads;
        let first = self.first_head_by.filter(|_| self.heads == 0);
        answered.then(|| {
            let until = self.exchanges.since + since + self.timeouts.idle;
            first.map_or(until, |first| first.min(until))
        })
    }

    fn run_timer(&mut self, until: Instant) {
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(until),
            None => self.timer = Some(Box::pin(sleep_until(until))),
        }
    }

    /// Discards bytes of a rejected client until the end of the stream.
    fn skip(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; 1024];
        loop {
            let mut scratch = ReadBuf::new(&mut scratch);
            ready!(self.stream()?.poll_read(cx, &mut scratch))?;
            if scratch.filled().is_empty() {
                self.eof = true;
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        loop {
            let rest = self.out.get(self.out_at..).unwrap_or_default();
            if !rest.is_empty() {
                let take = rest.len().min(buf.remaining());
                buf.put_slice(&rest[..take]);
                self.out_at += take;
                if self.out_at == self.out.len() {
                    (self.out, self.out_at) = (Vec::new(), 0);
                }
                return Poll::Ready(Ok(()));
            }
            if let Some(why) = self.broken.take() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
            match self.framing.phase() {
                RequestPhase::Rejected => return self.skip(cx),
                RequestPhase::Upgrade if self.framing.held() >= MAX_BEHIND_UPGRADE => return Poll::Pending,
                _ => {}
            }
            match recv::poll_read(self.stream()?.get_mut(), cx, buf) {
                Poll::Pending => {
                    self.has_read = false;
                    ready!(self.poll_timeout(cx))?;
                    if self.exchanges.violation().is_none() {
                        // Idle timeout: reported to the HTTP library as end of stream.
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(read) => {
                    self.exchanges.note_error(read)?;
                    if buf.filled().len() == start {
                        self.exchanges.set_end(SeenEnd::Eof);
                        // hyper drops a request that it reads together with the end before it
                        // polls the request's future once: the request would have no record.
                        if std::mem::take(&mut self.has_read) {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        self.eof = true;
                        return Poll::Ready(Ok(()));
                    }
                    self.has_read = true;
                    self.process_input(buf, start);
                    if buf.filled().len() > start {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(self.stream()?.poll_write(cx, bytes));
        Poll::Ready(self.exchanges.note_error(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.stream()?.poll_write_vectored(cx, slices));
        Poll::Ready(self.exchanges.note_error(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The HTTP library calls this when it has nothing left to write.
        let exchanges = Arc::clone(&self.exchanges);
        let mut stream = self.stream()?;
        let written = exchanges.interims.poll_write(|bytes| stream.as_mut().poll_write(cx, bytes));
        exchanges.note_error(ready!(written))?;
        stream.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Only a rejected client may still be sending; bytes after an upgrade were not read.
        let sending = !self.eof && self.framing.phase() != RequestPhase::Between;
        if let (true, Some(stream), Ok(runtime)) = (sending, self.stream.take(), Handle::try_current()) {
            runtime.spawn(linger(stream));
        }
    }
}

/// Returns the client socket without the guard, and the bytes read after the upgrade.
pub fn guarded_socket(upgraded: Upgraded) -> Option<(TcpStream, Bytes)> {
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<Guarded>>().ok()?;
    let (stream, behind) = io.into_inner().into_parts()?;
    // The guard forwards nothing after an upgrade, so one of the two is empty.
    Some((stream, if behind.is_empty() { read_buf } else { behind.into() }))
}

/// Reads remaining bytes, so that the response arrives before the connection ends.
async fn linger(mut stream: TcpStream) {
    let (time, bytes) = LINGER;
    let until_it_ends = async {
        let _ = stream.shutdown().await;
        let mut scratch = [0; 4096];
        let mut left = bytes;
        while let Ok(read @ 1..) = stream.read(&mut scratch).await {
            left = left.saturating_sub(read as u64);
            if left == 0 {
                break;
            }
        }
    };
    // The socket is closed in any case.
    let _ = timeout(time, until_it_ends).await;
}
