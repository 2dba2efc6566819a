//! Request body to serve: upload progress, and `Expect: 100-continue` (RFC 9110 section 10.1.1).
//!
//! hyper sends 100 Continue to the client when the body is first polled. For a client that waits
//! for it, the body is therefore polled only after serve sent 100 Continue, or after the time that
//! other clients wait before they send anyway.

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

/// Reason for an incomplete body.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// Time to wait for serve's 100 Continue; curl and Go use the same.
const EXPECT_TIMEOUT: Duration = Duration::from_secs(1);

/// serve's response ended before it requested the body.
#[derive(Debug, thiserror::Error)]
#[error("serve responded without reading the body")]
pub struct BodyRejected;

/// Upload progress of a request body.
#[derive(Debug)]
pub struct UploadProgress {
    started_at: Instant,
    /// Time of the last chunk, in milliseconds since `started_at`.
    last_chunk_ms: AtomicU64,
    /// The next chunk has to come from the client.
    waits_for_client: AtomicBool,
    /// serve sent 100 Continue.
    continued: AtomicBool,
    response_ended: AtomicBool,
    waker: AtomicWaker,
}

impl UploadProgress {
    fn new() -> Self {
        Self {
            started_at: Instant::now(),
            last_chunk_ms: AtomicU64::new(0),
            waits_for_client: AtomicBool::new(false),
            continued: AtomicBool::new(false),
            response_ended: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// serve sent 100 Continue.
    pub fn set_continued(&self) {
        self.continued.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// serve's response has ended: a body that it has not requested is not sent.
    pub fn response_ended(&self) {
        self.response_ended.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn record_chunk(&self) {
        let now = u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_chunk_ms.store(now, Ordering::Release);
    }

    /// Start of the current wait for serve; `None` while waiting for the client.
    fn waits_for_serve_since(&self) -> Option<Instant> {
        let last_chunk = Duration::from_millis(self.last_chunk_ms.load(Ordering::Acquire));
        (!self.waits_for_client.load(Ordering::Acquire)).then(|| self.started_at + last_chunk)
    }
}

/// Waits for serve's response. The timeout does not run while the client sends its body.
pub async fn with_timeout<F: Future>(
    response: F,
    upload: Option<&UploadProgress>,
    limit: Duration,
) -> Option<F::Output> {
    tokio::pin!(response);
    let mut deadline = Instant::now() + limit;
    loop {
        tokio::select! {
            response = &mut response => return Some(response),
            () = sleep_until(deadline) => {}
        }
        deadline = match upload.map(UploadProgress::waits_for_serve_since) {
            Some(None) => Instant::now() + limit,
            Some(Some(since)) if since + limit > Instant::now() => since + limit,
            _ => return None,
        };
    }
}

/// Body of a request to serve: empty, or the client's upload.
#[derive(Debug)]
pub struct RequestBody {
    upload: Option<Upload>,
}

impl RequestBody {
    #[must_use]
    pub const fn empty() -> Self {
        Self { upload: None }
    }

    /// Returns the client's body and its progress. `expects`: the client waits for 100 Continue.
    #[must_use]
    pub fn upload(body: Incoming, expects: bool) -> (Self, Arc<UploadProgress>) {
        let progress = Arc::new(UploadProgress::new());
        let hold = expects.then(|| Box::pin(sleep(EXPECT_TIMEOUT)));
        (Self { upload: Some(Upload { body, progress: Arc::clone(&progress), hold }) }, progress)
    }
}

#[derive(Debug)]
struct Upload {
    body: Incoming,
    progress: Arc<UploadProgress>,
    /// Holds the body back until 100 Continue or its timeout.
    hold: Option<Pin<Box<Sleep>>>,
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
        if let Some(hold) = &mut self.hold {
            let timed_out = hold.as_mut().poll(cx);
            self.progress.waker.register(cx.waker());
            if !self.progress.continued.load(Ordering::Acquire) {
                if self.progress.response_ended.load(Ordering::Acquire) {
                    return Poll::Ready(Some(Err(BodyRejected.into())));
                }
                ready!(timed_out);
            }
            self.hold = None;
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into);
        self.progress.waits_for_client.store(frame.is_pending(), Ordering::Release);
        if frame.is_ready() {
            self.progress.record_chunk();
        }
        frame
    }
}
