//! Socket of a connection to serve. A write that fails does not hide what serve had sent.
//!
//! serve may answer before it has read the whole request, for example 413, and close. Its kernel
//! then resets the connection, and the next write fails although the response has arrived. So after
//! a failed write nothing more is written, and the error is reported once everything is read.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::sys::recv;

/// Socket of a connection to serve.
#[derive(Debug)]
pub struct ServeSocket {
    stream: TcpStream,
    /// Error of a write.
    failed: Option<io::ErrorKind>,
}

impl ServeSocket {
    #[must_use]
    pub const fn new(stream: TcpStream) -> Self {
        Self { stream, failed: None }
    }

    #[must_use]
    pub fn into_inner(self) -> TcpStream {
        self.stream
    }

    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error)) => {
                self.failed = Some(error.kind());
                // Reading has to go on.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            written => written,
        }
    }
}

impl AsyncRead for ServeSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(recv::poll_read(&self.stream, cx, buffer));
        match self.failed {
            // The write has taken the error of the socket.
            Some(kind) if read.is_ok() && buffer.filled().len() == before && buffer.remaining() > 0 => {
                Poll::Ready(Err(kind.into()))
            }
            _ => Poll::Ready(read),
        }
    }
}

impl AsyncWrite for ServeSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.failed.is_some() {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.failed.is_some() {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Ready(Err(_)) if self.failed.is_some() => Poll::Ready(Ok(())),
            result => result,
        }
    }
}
