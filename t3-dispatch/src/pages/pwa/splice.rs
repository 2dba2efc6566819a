//! Body with inserted bytes. Reads ahead only to the end of the head; the rest is streamed.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};

use super::head_scanner::{HeadPosition, Scanner};

type Piece<E> = Result<Frame<Bytes>, E>;

/// Body whose beginning has been read.
#[derive(Debug)]
pub struct Spliced<B: HttpBody> {
    ahead: VecDeque<Piece<B::Error>>,
    /// `None` after its end.
    rest: Option<B>,
    /// The original length was known.
    exact: bool,
}

impl<B: HttpBody<Data = Bytes> + Unpin> Spliced<B> {
    /// Reads to the end of the head, if any. Buffers at most the longest head and one frame.
    pub async fn read_ahead(mut body: B) -> (Self, HeadPosition) {
        let exact = body.size_hint().exact().is_some();
        let mut scanner = Scanner::default();
        let mut ahead = VecDeque::new();
        loop {
            let Some(piece) = body.frame().await else {
                return (Self { ahead, rest: None, exact }, HeadPosition::Absent);
            };
            let data = piece.as_ref().ok().and_then(Frame::data_ref);
            // Trailers and errors end a body.
            let found = data.map_or(Some(HeadPosition::Absent), |bytes| scanner.feed(bytes));
            ahead.push_back(piece);
            if let Some(found) = found {
                return (Self { ahead, rest: Some(body), exact }, found);
            }
        }
    }

    /// Inserts `bytes` at `offset`, which must have been read.
    pub fn insert(&mut self, offset: u64, bytes: &'static [u8]) {
        let mut before = offset;
        for index in 0..self.ahead.len() {
            let Some(data) = self.ahead[index].as_ref().ok().and_then(Frame::data_ref).cloned() else {
                return;
            };
            let length = data.len() as u64;
            if before < length {
                let at = usize::try_from(before).unwrap_or(data.len());
                let pieces = [data.slice(..at), Bytes::from_static(bytes), data.slice(at..)];
                self.ahead.remove(index);
                for piece in pieces.into_iter().rev().filter(|piece| !piece.is_empty()) {
                    self.ahead.insert(index, Ok(Frame::data(piece)));
                }
                return;
            }
            before -= length;
        }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Spliced<B>
where
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece<B::Error>>> {
        if let Some(piece) = self.ahead.pop_front() {
            return Poll::Ready(Some(piece));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    /// Exact only if the original was: a chunked body stays chunked, with its trailers.
    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.iter().filter_map(|piece| piece.as_ref().ok()?.data_ref());
        let ahead = ahead.map(|bytes| bytes.len() as u64).sum::<u64>();
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(ahead.saturating_add(rest.lower()));
        if self.exact
            && let Some(rest) = rest.upper()
        {
            hint.set_upper(ahead.saturating_add(rest));
        }
        hint
    }
}
