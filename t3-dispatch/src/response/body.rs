//! Body of a response to a client: forwarded, generated, or both. Buffers one frame at most.

use std::{
    any::Any,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};

use crate::{
    http::guard::Exchange,
    upstream::{pool::Lease, request_body::BodyError},
};

/// Body of a response. A known length becomes Content-Length; otherwise the body is chunked.
#[derive(Debug)]
pub struct ResponseBody {
    kind: Kind,
    /// Dropped together with the body, whether it was sent or not.
    during: Option<Exchange>,
    held: Option<Box<dyn Any + Send + Sync>>,
}

#[derive(Debug)]
enum Kind {
    Full(Option<Bytes>),
    /// Not boxed, because nearly all bodies are forwarded unchanged.
    Incoming(Incoming, Option<Lease>),
    Boxed(UnsyncBoxBody<Bytes, BodyError>),
}

impl ResponseBody {
    const fn of(kind: Kind) -> Self {
        Self { kind, during: None, held: None }
    }

    /// Returns this body with the exchange that ends together with it.
    #[must_use]
    pub fn during(mut self, exchange: Exchange) -> Self {
        self.during = Some(exchange);
        self
    }

    /// Returns this body with a value that is dropped together with it.
    #[must_use]
    pub fn holding(mut self, held: impl Any + Send + Sync) -> Self {
        self.held = Some(Box::new(held));
        self
    }

    #[must_use]
    pub const fn empty() -> Self {
        Self::of(Kind::Full(None))
    }

    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::of(Kind::Full(Some(bytes.into()).filter(|bytes| !bytes.is_empty())))
    }

    /// Returns serve's body with the lease of its connection.
    #[must_use]
    pub fn leased(body: Incoming, lease: Lease) -> Self {
        if body.is_end_stream() {
            lease.end();
            return Self::of(Kind::Incoming(body, None));
        }
        Self::of(Kind::Incoming(body, Some(lease)))
    }

    /// Returns any other body, with one allocation.
    #[must_use]
    pub fn boxed<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
    {
        Self::of(Kind::Boxed(body.map_err(Into::into).boxed_unsync()))
    }
}

impl From<Incoming> for ResponseBody {
    fn from(body: Incoming) -> Self {
        Self::of(Kind::Incoming(body, None))
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Incoming(body, lease) => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                if !matches!(frame, Some(Err(_)))
                    && (frame.is_none() || body.is_end_stream())
                    && let Some(lease) = lease.take()
                {
                    lease.end();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Kind::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Incoming(body, _) => body.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Incoming(body, _) => body.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    #[tokio::test]
    async fn a_body_of_known_length_has_a_size_hint() {
        let pieces = || ["a", "bc"].map(|text| Ok::<_, std::io::Error>(Frame::data(Bytes::from(text))));
        let streamed = ResponseBody::boxed(StreamBody::new(futures_util::stream::iter(pieces())));
        for (body, length, text) in [
            (ResponseBody::empty(), Some(0), ""),
            (ResponseBody::full(""), Some(0), ""),
            (ResponseBody::full("abc"), Some(3), "abc"),
            (streamed, None, "abc"),
        ] {
            assert_eq!(body.size_hint().exact(), length);
            assert_eq!(body.is_end_stream(), length == Some(0));
            assert_eq!(body.collect().await.unwrap().to_bytes(), text);
        }
    }
}
