//! One HTTP/1.1 request over a connection, the response read up to a limit.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::HttpError;

/// Sends `request` as it is and reads the whole response, up to `limit` bytes of body. The caller
/// bounds the time.
///
/// # Errors
/// [`HttpError::Http`], [`HttpError::TooLong`] or [`HttpError::Incomplete`].
pub async fn exchange<S>(stream: S, request: Request<()>, limit: usize) -> Result<Response<Bytes>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    exchange_body(stream, request.map(|()| Bytes::new()), limit).await
}

/// As [`exchange`], for a request with a body.
///
/// # Errors
/// As [`exchange`].
pub async fn exchange_body<S>(
    stream: S,
    request: Request<Bytes>,
    limit: usize,
) -> Result<Response<Bytes>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let (head, body) = sender.send_request(request.map(Full::new)).await?.into_parts();
        let body = Limited::new(body, limit).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                HttpError::TooLong(limit)
            } else {
                HttpError::Incomplete(error.to_string())
            }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    // Both in one task: dropping the response closes the connection.
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        response = &mut exchange => response,
        // The connection ends with the response; the response reports its error, too.
        _ = connection => exchange.await,
    }
}
