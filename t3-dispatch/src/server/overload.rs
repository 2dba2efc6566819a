//! Response to a connection above a limit: 429 or 503 without reading the request, then the end.
//!
//! A number of such connections are kept until the client has read the response; unread bytes would
//! turn the FIN into an RST, which can discard it (RFC 9112 section 9.6). Further ones are closed
//! immediately.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

use crate::admission::connections::ConnectionsExceeded;

/// Maximum number of refused connections that are not closed yet.
const MAX_OPEN: usize = 64;
/// Timeout for sending the response and for the client's end.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of bytes read from the client.
const MAX_READ: usize = 64 * 1024;

/// Refuses connections.
#[derive(Debug)]
pub struct Refuser {
    places: Arc<Semaphore>,
}

impl Default for Refuser {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(MAX_OPEN)) }
    }
}

impl Refuser {
    /// Sends the response in the background, and closes the connection.
    pub fn refuse(&self, stream: TcpStream, status: StatusCode, text: &str) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let response = response(status, text);
        tokio::spawn(async move {
            // The connection is closed in any case.
            let _ = timeout(TIMEOUT, send(stream, &response)).await;
            drop(place);
        });
    }
}

/// Status of a refusal.
#[must_use]
pub const fn status(why: ConnectionsExceeded) -> StatusCode {
    if why.is_of_peer() { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn response(status: StatusCode, text: &str) -> String {
    let length = text.len() + 1;
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Retry-After: 1\r\nConnection: close\r\n\r\n{text}\n"
    )
}

async fn send(mut stream: TcpStream, response: &str) {
    if stream.write_all(response.as_bytes()).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    let mut scratch = [0; 1024];
    let mut left = MAX_READ;
    while let Ok(read @ 1..) = stream.read(&mut scratch).await {
        left = left.saturating_sub(read);
        if left == 0 {
            return;
        }
    }
}
