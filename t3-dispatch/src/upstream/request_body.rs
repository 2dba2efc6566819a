//! A request's body on its way to serve: who is being waited for, and `Expect: 100-continue`.
//!
//! The HTTP library tells a client to go on when its body is asked for. So for a client that waits
//! to be told, the body is not asked for before serve has agreed (RFC 9110 section 10.1.1), or has
//! said nothing for as long as other clients wait before they send anyway.

use std::{
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

use crate::response::body::BodyError;

/// How long serve may keep silent to `Expect: 100-continue`. curl and Go wait as long.
const EXPECT: Duration = Duration::from_secs(1);

/// serve has answered without the body.
#[derive(Debug, thiserror::Error)]
#[error("serve answered without asking for the body")]
pub struct Unwanted;

/// What is known of a body on its way.
#[derive(Debug)]
pub struct Sent {
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

impl Sent {
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
pub async fn in_time<F: Future>(answer: F, sent: Option<&Sent>, patience: Duration) -> Option<F::Output> {
    tokio::pin!(answer);
    let mut deadline = Instant::now() + patience;
    loop {
        tokio::select! {
            answer = &mut answer => return Some(answer),
            () = sleep_until(deadline) => {}
        }
        deadline = match sent.map(Sent::serves_turn_since) {
            Some(None) => Instant::now() + patience,
            Some(Some(since)) if since + patience > Instant::now() => since + patience,
            _ => return None,
        };
    }
}

/// The body.
#[derive(Debug)]
pub struct Sending {
    body: Incoming,
    sent: Arc<Sent>,
    /// Until when the client is not told to send.
    gate: Option<Pin<Box<Sleep>>>,
}

impl Sending {
    /// This body, of a client that waits to be told (`expects`) or does not.
    #[must_use]
    pub fn new(body: Incoming, expects: bool) -> (Self, Arc<Sent>) {
        let sent = Arc::new(Sent::new());
        let gate = expects.then(|| Box::pin(sleep(EXPECT)));
        (Self { body, sent: Arc::clone(&sent), gate }, sent)
    }
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &mut self.gate {
            let silent = gate.as_mut().poll(cx);
            self.sent.waker.register(cx.waker());
            if !self.sent.agreed.load(Ordering::Acquire) {
                if self.sent.unwanted.load(Ordering::Acquire) {
                    return Poll::Ready(Some(Err(Unwanted.into())));
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

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
