//! A request's body on its way to serve: who is being waited for, and `Expect: 100-continue`.
//!
//! The HTTP library tells a client to go on when its body is asked for. So for a client that waits
//! to be told, the body is not asked for before serve has agreed (RFC 9110 section 10.1.1), or has
//! said nothing for as long as other clients wait before they send anyway.

use std::{
    error::Error,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Why a body broke off.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// How long serve may keep silent to `Expect: 100-continue`. curl and Go wait as long.
const EXPECT: Duration = Duration::from_secs(1);

/// serve has answered without the body.
#[derive(Debug, thiserror::Error)]
#[error("serve responded without reading the body")]
pub struct BodyRejected;

/// What is known of a body on its way.
#[derive(Debug)]
pub struct UploadProgress {
    since: Instant,
    /// When serve last took a piece, in milliseconds.
    at: AtomicU64,
    /// Only the client can go on.
    clients_turn: AtomicBool,
    /// The body may be asked for.
    agreed: AtomicBool,
    /// serve's answer is over, and it never asked.
    unwanted: AtomicBool,
    waker: AtomicWaker,
}

impl UploadProgress {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            at: AtomicU64::new(0),
            clients_turn: AtomicBool::new(false),
            agreed: AtomicBool::new(false),
            unwanted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// serve said 100.
    pub fn agree(&self) {
        self.agreed.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// serve's answer is over: a body that it never asked for is not sent any more.
    pub fn answered(&self) {
        self.unwanted.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn progress(&self) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at.store(now, Ordering::Release);
    }

    /// Since when serve is being waited for; `None` while it is the client's turn.
    fn serves_turn_since(&self) -> Option<Instant> {
        let at = Duration::from_millis(self.at.load(Ordering::Acquire));
        (!self.clients_turn.load(Ordering::Acquire)).then(|| self.since + at)
    }
}

/// Waits for serve to answer, at most for so long in which nothing but serve could have gone on.
pub async fn in_time<F: Future>(
    answer: F,
    sent: Option<&UploadProgress>,
    patience: Duration,
) -> Option<F::Output> {
    tokio::pin!(answer);
    let mut deadline = Instant::now() + patience;
    loop {
        tokio::select! {
            answer = &mut answer => return Some(answer),
            () = sleep_until(deadline) => {}
        }
        deadline = match sent.map(UploadProgress::serves_turn_since) {
            Some(None) => Instant::now() + patience,
            Some(Some(since)) if since + patience > Instant::now() => since + patience,
            _ => return None,
        };
    }
}

/// The body of a request to serve: none, or the client's upload.
#[derive(Debug)]
pub struct RequestBody {
    upload: Option<Upload>,
}

impl RequestBody {
    #[must_use]
    pub const fn empty() -> Self {
        Self { upload: None }
    }

    /// The client's body; with `expects`, of a client that waits for 100 (Continue).
    #[must_use]
    pub fn upload(body: Incoming, expects: bool) -> (Self, Arc<UploadProgress>) {
        let sent = Arc::new(UploadProgress::new());
        let gate = expects.then(|| Box::pin(sleep(EXPECT)));
        (Self { upload: Some(Upload { body, sent: Arc::clone(&sent), gate }) }, sent)
    }
}

#[derive(Debug)]
struct Upload {
    body: Incoming,
    sent: Arc<UploadProgress>,
    /// Until then the client is not asked to send.
    gate: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.upload.as_mut().map_or(Poll::Ready(None), |upload| upload.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.upload.as_ref().is_none_or(|upload| upload.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.upload.as_ref().map_or_else(|| SizeHint::with_exact(0), |upload| upload.body.size_hint())
    }
}

impl Upload {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &mut self.gate {
            let silent = gate.as_mut().poll(cx);
            self.sent.waker.register(cx.waker());
            if !self.sent.agreed.load(Ordering::Acquire) {
                if self.sent.unwanted.load(Ordering::Acquire) {
                    return Poll::Ready(Some(Err(BodyRejected.into())));
                }
                ready!(silent);
            }
            self.gate = None;
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into);
        self.sent.clients_turn.store(frame.is_pending(), Ordering::Release);
        if frame.is_ready() {
            self.sent.progress();
        }
        frame
    }
}
