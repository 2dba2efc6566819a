//! One HTTP request over a stream of its own, its answer read to the end, bounded: what DNS over
//! HTTPS and the question to a serve need.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// There was no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// HTTP did not work out.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The answer has no end.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The answer broke off.
    #[error("the answer broke off: {0}")]
    Cut(String),
}

/// Sends `request` and reads the whole answer, of at most `most` bytes. The caller bounds the time.
///
/// # Errors
/// [`HttpError`].
pub async fn exchange<S>(stream: S, request: Request<()>, most: usize) -> Result<(u16, Bytes), HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let answer = sender.send_request(request.map(|()| Empty::<Bytes>::new())).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), most).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                HttpError::TooLong(most)
            } else {
                HttpError::Cut(error.to_string())
            }
        })?;
        Ok((status, body.to_bytes()))
    };
    // Both in this task: whoever gives up on the answer gives up on the connection.
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The connection ends with the answer; its error is the answer's, too.
        _ = connection => exchange.await,
    }
}
