//! Socket options that accepted connections inherit from their listener: the kernel copies the
//! listener when a handshake is complete (net/core/sock.c, `sk_clone_lock`).
//!
//! A connection whose handshake was complete before the options were set does not have them. Those
//! are the first ones to be accepted, as many as were in the accept queue then.

use std::os::fd::AsRawFd;

use tokio::net::TcpListener;

use crate::sys::{
    tcp::{self, TcpTimeouts},
    tcp_info,
};

/// Connections that may have entered the accept queue between the change of the options and the
/// reading of its length: far more than one per core.
const MARGIN: u32 = 256;

/// The options of a listener.
#[derive(Debug)]
pub struct InheritedOptions {
    timeouts: TcpTimeouts,
    /// The next connections that may lack the options; `None`: all.
    may_lack: Option<u32>,
    /// A connection had them.
    is_checked: bool,
}

impl InheritedOptions {
    /// Sets the options of [`tcp::prepare`] on a listener. If it does not accept all of them,
    /// no connection has them.
    #[must_use]
    pub fn set(listener: &TcpListener, timeouts: TcpTimeouts) -> Self {
        Self::with_margin(listener, timeouts, MARGIN)
    }

    fn with_margin(listener: &TcpListener, timeouts: TcpTimeouts, margin: u32) -> Self {
        let is_set = tcp::prepare_listener(listener, &timeouts).is_ok();
        // MPTCP has its own rules for what a connection inherits.
        let is_plain = is_set && tcp::is_plain(listener);
        let queued = tcp_info::accept_queue(listener).ok().filter(|_| is_plain);
        let may_lack = queued.map(|queued| queued.saturating_add(margin));
        Self { timeouts, may_lack, is_checked: false }
    }

    /// Returns whether the connection accepted next has the options.
    pub fn has(&mut self, connection: &(impl AsRawFd + std::os::fd::AsFd)) -> bool {
        match &mut self.may_lack {
            None => return false,
            Some(0) => {}
            Some(more) => {
                *more -= 1;
                return false;
            }
        }
        if !self.is_checked {
            self.is_checked = tcp::is_prepared(connection, &self.timeouts);
            if !self.is_checked {
                // Not a kernel that copies them.
                self.may_lack = None;
            }
        }
        self.is_checked
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpStream, time::Duration};

    use super::*;
    use crate::sys::bind::bind;

    fn timeouts(seconds: u64) -> TcpTimeouts {
        let time = Duration::from_secs(seconds);
        TcpTimeouts { keepalive: time, user_timeout: 2 * time }
    }

    /// Connects to a port of this address and accepts; returns the accepted end.
    async fn accepted(
        listener: &TcpListener,
        address: &str,
        clients: &mut Vec<TcpStream>,
    ) -> tokio::net::TcpStream {
        let port = listener.local_addr().unwrap().port();
        clients.push(TcpStream::connect((address, port)).unwrap());
        listener.accept().await.unwrap().0
    }

    #[tokio::test]
    async fn connections_have_the_options_that_were_last_set_on_the_listener() {
        for (bound, address) in [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "::1"), ("[::]:0", "127.0.0.1")] {
            let listener = bind(bound.parse().unwrap()).unwrap();
            let mut clients = Vec::new();
            for (seconds, other) in [(15, 20), (20, 15), (0, 15)] {
                let mut options = InheritedOptions::with_margin(&listener, timeouts(seconds), 0);
                for _ in 0..2 {
                    let stream = accepted(&listener, address, &mut clients).await;
                    assert!(options.has(&stream), "{address}, {seconds} s");
                    assert!(tcp::is_prepared(&stream, &timeouts(seconds)), "{address}, {seconds} s");
                    assert!(!tcp::is_prepared(&stream, &timeouts(other)));
                }
            }
        }
    }

    #[tokio::test]
    async fn connections_that_were_already_queued_do_not_count_as_prepared() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let early: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut options = InheritedOptions::with_margin(&listener, timeouts(15), 1);
        let late: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut found = Vec::new();
        for _ in 0..6 {
            let (stream, _) = listener.accept().await.unwrap();
            found.push((tcp::is_prepared(&stream, &timeouts(15)), options.has(&stream)));
        }
        let (no, yes, margin) = ((false, false), (true, true), (true, false));
        assert_eq!(found, [no, no, no, margin, yes, yes]);
        drop((early, late));
    }

    #[tokio::test]
    async fn without_inheritance_all_connections_are_prepared_one_by_one() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut options = InheritedOptions::with_margin(&listener, timeouts(15), 0);
        // As a kernel that does not copy the options.
        tcp::prepare_listener(&listener, &timeouts(16)).unwrap();
        let mut clients = Vec::new();
        for _ in 0..2 {
            let stream = accepted(&listener, "127.0.0.1", &mut clients).await;
            assert!(!options.has(&stream));
        }
        tcp::prepare_listener(&listener, &timeouts(15)).unwrap();
        assert!(!options.has(&accepted(&listener, "127.0.0.1", &mut clients).await));
    }
}
