//! The body of a request or an answer: streamed through, our own, or made of both. Holds no more
//! than the piece that is on its way.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};

use crate::{
    http::guard::Exchange,
    upstream::{pool::Lease, request_body::BodyError},
};

/// A body. Its length, when it is known, becomes Content-Length; else it is sent in chunks.
#[derive(Debug)]
pub struct ResponseBody {
    kind: Kind,
    /// Over when the body has been sent, or will not be.
    during: Option<Exchange>,
}

#[derive(Debug)]
enum Kind {
    Full(Option<Bytes>),
    /// Without a box, because nearly all bodies are passed as they come.
    Incoming(Incoming, Option<Lease>),
    Boxed(UnsyncBoxBody<Bytes, BodyError>),
}

impl ResponseBody {
    const fn of(kind: Kind) -> Self {
        Self { kind, during: None }
    }

    /// This body, whose end is the end of an exchange.
    #[must_use]
    pub fn during(mut self, exchange: Exchange) -> Self {
        self.during = Some(exchange);
        self
    }

    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self::of(Kind::Full(None))
    }

    /// These bytes.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::of(Kind::Full(Some(bytes.into()).filter(|bytes| !bytes.is_empty())))
    }

    /// serve's, and the connection that it is read from.
    #[must_use]
    pub fn leased(body: Incoming, lease: Lease) -> Self {
        if body.is_end_stream() {
            lease.end();
            return Self::of(Kind::Incoming(body, None));
        }
        Self::of(Kind::Incoming(body, Some(lease)))
    }

    /// Any other body. Costs one allocation.
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
    async fn a_body_says_its_length_when_it_knows_it_and_keeps_its_bytes() {
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
