//! Interim responses (1xx, RFC 9110 section 15.2) from serve to the client. The HTTP library cannot
//! send them, so the guarded socket writes them.
//!
//! They are written only when the HTTP library has nothing left to write, and the response to the
//! request is held back until they are. So they cannot get into another response.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use futures_util::task::AtomicWaker;
use http::{HeaderMap, StatusCode, header::CONTENT_LENGTH};

use crate::http::headers::strip_hop_by_hop;

/// Limit of waiting interim responses in bytes; further ones are dropped.
const LIMIT: usize = 64 * 1024;

/// Waiting interim responses of one connection.
#[derive(Debug, Default)]
pub struct Interims {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Number of the request that may have interim responses now.
    current: Option<u64>,
    requests: u64,
}

/// Accepts interim responses to one request, until the request has its response.
#[derive(Debug, Clone)]
pub struct InterimSender {
    interims: Arc<Interims>,
    request: u64,
}

impl InterimSender {
    /// Sends an interim response, without the headers of one connection.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        let head = encode(status, headers);
        let mut queue = self.interims.lock();
        if queue.current == Some(self.request) && queue.bytes.len() + head.len() <= LIMIT {
            queue.bytes.extend_from_slice(&head);
            drop(queue);
            self.interims.waker.wake();
        }
    }
}

impl Interims {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a request.
    #[must_use]
    pub fn sender(self: &Arc<Self>) -> InterimSender {
        let mut queue = self.lock();
        queue.requests += 1;
        queue.current = Some(queue.requests);
        InterimSender { interims: Arc::clone(self), request: queue.requests }
    }

    /// Returns the response of a request once its interim responses are written.
    pub async fn before<F: Future>(&self, response: F) -> F::Output {
        let mut response = pin!(response);
        let output = poll_fn(|cx| {
            // The socket is written by the same task.
            self.waker.register(cx.waker());
            response.as_mut().poll(cx)
        })
        .await;
        self.lock().current = None;
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            if self.lock().bytes.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        // A waker keeps the memory of its task, also after the end of the task: a session holds
        // this for longer than its connection.
        drop(self.waker.take());
        output
    }

    /// Writes waiting bytes with `write`, which returns how many it wrote.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn poll_write<E>(
        &self,
        mut write: impl FnMut(&[u8]) -> Poll<Result<usize, E>>,
    ) -> Poll<Result<(), E>> {
        let mut queue = self.lock();
        if queue.bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !queue.bytes.is_empty() {
            match write(&queue.bytes) {
                Poll::Ready(Ok(count)) => drop(queue.bytes.drain(..count)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        queue.bytes = Vec::new();
        drop(queue);
        self.waker.wake();
        Poll::Ready(Ok(()))
    }
}

fn encode(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut headers = headers.clone();
    strip_hop_by_hop(&mut headers);
    headers.remove(CONTENT_LENGTH);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in &headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn link() -> HeaderMap {
        [("link", "</a.css>"), ("connection", "x-secret"), ("x-secret", "1"), ("content-length", "5")]
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn written(interims: &Interims) -> String {
        let mut all = Vec::new();
        let result = interims.poll_write(|bytes| {
            // A socket that takes part of it.
            let take = bytes.len().min(7);
            all.extend_from_slice(&bytes[..take]);
            Poll::Ready(Ok::<_, ()>(take))
        });
        assert!(result.is_ready());
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn an_interim_response_is_written_before_the_response_and_without_headers_of_the_connection() {
        let interims = Arc::new(Interims::default());
        let sender = interims.sender();
        let mut response = Box::pin(interims.before(async { 1 }));
        sender.send(StatusCode::EARLY_HINTS, &link());
        assert_eq!(response.as_mut().now_or_never(), None);
        assert_eq!(written(&interims), "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
        assert_eq!(response.as_mut().now_or_never(), Some(1));
    }

    #[test]
    fn an_interim_response_after_the_response_or_of_another_request_is_dropped() {
        let interims = Arc::new(Interims::default());
        let sender = interims.sender();
        assert_eq!(interims.before(async { 1 }).now_or_never(), Some(1));
        sender.send(StatusCode::EARLY_HINTS, &link());
        assert_eq!(written(&interims), "");
        let _next = interims.sender();
        sender.send(StatusCode::EARLY_HINTS, &link());
        assert_eq!(written(&interims), "");
    }

    #[test]
    fn waiting_interim_responses_are_bounded() {
        let interims = Arc::new(Interims::default());
        let sender = interims.sender();
        for _ in 0..100_000 {
            sender.send(StatusCode::PROCESSING, &HeaderMap::new());
        }
        assert!(interims.lock().bytes.len() <= LIMIT);
    }
}
