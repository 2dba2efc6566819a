//! Body that passes unchanged while its beginning is collected for an observer.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};

/// A body and its observer, which gets the complete data once it has passed.
pub struct Observed<B, F: FnOnce(&[u8])> {
    body: B,
    seen: Vec<u8>,
    most: usize,
    observer: Option<F>,
}

impl<B: HttpBody<Data = Bytes>, F: FnOnce(&[u8])> Observed<B, F> {
    /// Observes a body of up to `most` bytes; a longer one only passes.
    pub const fn new(body: B, most: usize, observer: F) -> Self {
        Self { body, seen: Vec::new(), most, observer: Some(observer) }
    }

    fn collect(&mut self, data: &[u8]) {
        if self.seen.len() + data.len() <= self.most {
            self.seen.extend_from_slice(data);
        } else {
            (self.observer, self.seen) = (None, Vec::new());
        }
    }
}

impl<B, F> HttpBody for Observed<B, F>
where
    B: HttpBody<Data = Bytes> + Unpin,
    F: FnOnce(&[u8]) + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) if this.observer.is_some() => {
                if let Some(data) = frame.data_ref() {
                    this.collect(data);
                }
            }
            Some(Err(_)) => this.observer = None,
            _ => {}
        }
        // The last frame of a body with a known length is not followed by another poll.
        if (frame.is_none() || this.body.is_end_stream())
            && let Some(observer) = this.observer.take()
        {
            observer(&this.seen);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    type Piece = Result<Frame<Bytes>, &'static str>;

    async fn passed(pieces: Vec<Piece>, most: usize) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let seen = Mutex::new(None);
        let body = StreamBody::new(futures_util::stream::iter(pieces));
        let observed = Observed::new(body, most, |bytes: &[u8]| *seen.lock().unwrap() = Some(bytes.to_vec()));
        let data = observed.collect().await.ok().map(|body| body.to_bytes().to_vec());
        (data, seen.into_inner().unwrap())
    }

    #[tokio::test]
    async fn a_complete_body_is_observed_and_passes_unchanged() {
        let pieces = || vec![Ok(Frame::data("ab".into())), Ok(Frame::data("c".into()))];
        let all = Some(b"abc".to_vec());
        assert_eq!(passed(pieces(), 3).await, (all.clone(), all.clone()));
        assert_eq!(passed(pieces(), 2).await, (all, None), "too long");
        assert_eq!(passed(vec![Ok(Frame::data("ab".into())), Err("cut")], 9).await, (None, None));
    }

    #[tokio::test]
    async fn a_body_of_known_length_keeps_it_and_needs_no_further_poll() {
        let seen = Mutex::new(None);
        let mut body = Observed::new(Full::new(Bytes::from("abc")), 9, |bytes: &[u8]| {
            *seen.lock().unwrap() = Some(bytes.to_vec());
        });
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(3), false));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
        assert!(body.is_end_stream());
        drop(body);
        assert_eq!(seen.into_inner().unwrap(), Some(b"abc".to_vec()));
    }
}
