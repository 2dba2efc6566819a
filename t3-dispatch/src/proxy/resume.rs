//! Continues the sessions of the process before: matches the slots with the sockets from the
//! descriptor store, and starts a relay for each.

use std::{collections::HashMap, net, os::fd::OwnedFd, sync::Arc};

use rustix::net::sockopt::socket_cookie;
use t3_record::evidence::Nanos;
use tokio::net::TcpStream;

use crate::{
    fd_store::slot::Slot,
    proxy::websocket::{self, Permits, WebsocketProxy},
    record::{close::SessionRecorder, not_resumed},
    relay::{
        Legs,
        kept::pick_up::{self, Ended, PickedUp},
    },
    sys::{clock, receive_buffer::ReceiveBuffer},
};

/// Counts of a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Sessions that go on.
    pub resumed: usize,
    /// Sessions that have ended.
    pub not_resumed: usize,
}

/// Continues the sessions of `slots`, whose sockets are among `sockets`. Sockets without a session
/// are closed. `died_at`: last time at which that process is known to have run, `existed_at`: to
/// have existed.
pub fn all(
    proxy: &Arc<WebsocketProxy>,
    slots: Vec<Slot>,
    sockets: Vec<(String, OwnedFd)>,
    [died_at, existed_at]: [Nanos; 2],
) -> Resumed {
    let Some(store) = &proxy.store else { return Resumed::default() };
    let mut by_cookie = HashMap::new();
    for (name, socket) in sockets {
        if let Ok(cookie) = socket_cookie(&socket) {
            by_cookie.insert(cookie, (name, socket));
        }
    }
    let mut counts = Resumed::default();
    // Started at the end: a relay overwrites the read buffers.
    let mut continued = HashMap::new();
    for slot in slots {
        let (name, identity) = (slot.name(), pick_up::identity(&slot));
        let legs = identity.as_ref().and_then(|identity| {
            let [down, up] = identity.cookies()?;
            let (down, up) = (by_cookie.remove(&down)?, by_cookie.remove(&up)?);
            Some(Legs { down: stream(down.1)?, up: stream(up.1)? })
        });
        match pick_up::pick_up(slot, &store.descriptors, legs, [died_at, existed_at], clock::now()) {
            Ok(session) => {
                continued.insert(name, session);
                counts.resumed += 1;
            }
            Err(Ended { why, session }) => {
                counts.not_resumed += 1;
                proxy.metrics.not_resumed();
                let conn = session.as_ref().map_or("unknown", |session| session.identity.conn.as_str());
                tracing::warn!(conn, "session not resumed after the restart: {why}");
                drop(store.descriptors.remove(name));
                if let Some(session) = session {
                    tokio::spawn(not_resumed::record(Arc::clone(&proxy.recorder), session, died_at));
                }
            }
        }
    }
    for (name, socket) in by_cookie.into_values() {
        drop(socket);
        if !continued.contains_key(&name) {
            drop(store.descriptors.remove(name));
        }
    }
    for session in continued.into_values() {
        start(proxy, session);
    }
    counts
}

/// Starts the relay of a session.
fn start(proxy: &Arc<WebsocketProxy>, session: PickedUp) {
    let PickedUp { session, legs, kept } = session;
    let permits = Permits {
        _user: proxy.admission.readmit(&session.identity.user),
        buffer: ReceiveBuffer::of(&legs.up),
    };
    let recorder = SessionRecorder::resume(&proxy.recorder, session);
    let proxy = Arc::clone(proxy);
    tokio::spawn(async move {
        websocket::relay_session(&proxy, recorder, Some(Box::new(kept)), permits, Box::new(legs)).await;
    });
}

fn stream(socket: OwnedFd) -> Option<TcpStream> {
    let stream = net::TcpStream::from(socket);
    stream.set_nonblocking(true).ok()?;
    TcpStream::from_std(stream).ok()
}
