//! One connection to the evidence socket, from the hello to its end: checks who the peer is, speaks
//! the protocol, hands on.
//!
//! A peer that says something wrong hears one sentence and is let go. What it sends is believed
//! only as far as its uid goes: dispatch registers, everybody else only listens.

use std::{sync::Arc, time::Duration};

use t3_record::wire::{FromTrace, MAX_MESSAGE, Role, Session, ToTrace, VERSION};
use t3_trace_host::{accounts, clock::monotonic, kernel::ServeTuple, proc::network_namespace};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_seqpacket::UnixSeqpacket;

use crate::{
    evidence::{LateEvents, gather},
    open_sessions, orphans,
    sessions::{ConnectionId, Entry},
    state::Shared,
};

const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// How many answers wait for one dispatch; the tasks behind further ones wait, nobody else does.
const ANSWERS: usize = 1024;

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// The peer left, or the socket failed.
    Gone,
    /// The peer was told why, and let go.
    Refused(String),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// Serves one connection until it ends.
pub(crate) async fn serve(shared: Arc<Shared>, socket: UnixSeqpacket) {
    let socket = Arc::new(socket);
    if let Err(End::Refused(why)) = talk(&shared, &socket).await {
        tracing::warn!(why, "refused a peer of the evidence socket");
        let refused = FromTrace::Refused { why };
        let told = send(&socket, &refused);
        let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
    }
}

async fn talk(shared: &Arc<Shared>, socket: &Arc<UnixSeqpacket>) -> Result<(), End> {
    let peer = socket.peer_cred()?;
    let hello = tokio::time::timeout(HELLO_WITHIN, receive(socket, &mut buffer())).await;
    let role = match hello.map_err(|_| End::Refused("no hello came; say who you are first".to_owned()))?? {
        ToTrace::Hello { v, .. } if v != VERSION => {
            return Err(End::Refused(format!(
                "this t3-trace speaks version {VERSION} of the evidence protocol, the peer {v}; install both from one release"
            )));
        }
        ToTrace::Hello { role, .. } => role,
        _ => return Err(End::Refused("the first message must be a hello".to_owned())),
    };
    match role {
        Role::Subscriber => subscriber(shared, socket).await,
        Role::Dispatch => {
            let allowed = may_dispatch(peer.uid(), &shared.options.dispatch_user);
            if !allowed {
                return Err(End::Refused(format!(
                    "uid {} may not be dispatch; only {} may (--dispatch-user)",
                    peer.uid(),
                    shared.options.dispatch_user
                )));
            }
            let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
            dispatch(shared, socket, pid).await
        }
    }
}

/// Looked up at each hello: the user may be made, or renumbered, while we run.
fn may_dispatch(uid: u32, dispatch_user: &str) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw() || accounts::uid_of(dispatch_user) == Some(uid)
}

async fn subscriber(shared: &Arc<Shared>, socket: &Arc<UnixSeqpacket>) -> Result<(), End> {
    let Some(subscription) = shared.subscribers.subscribe() else {
        return Err(End::Refused("there are too many subscribers; end one of them".to_owned()));
    };
    send(socket, &welcome(shared)).await?;
    let (answers, mut answered) = mpsc::channel::<FromTrace>(4);
    // Reading goes on while a send waits: a subscriber that hangs up is noticed, one that sleeps
    // costs only its queue.
    let reading = async {
        let mut buffer = buffer();
        let mut next = Instant::now();
        loop {
            match receive(socket, &mut buffer).await? {
                ToTrace::Status => answers.send(shared.status()).await.map_err(|_| End::Gone)?,
                ToTrace::Sessions => {
                    // Who asks faster waits.
                    sleep_until(next).await;
                    next = Instant::now() + open_sessions::EVERY;
                    for part in &*open_sessions::answer(shared).await {
                        let part = FromTrace::Sessions(Box::new(part.clone()));
                        answers.send(part).await.map_err(|_| End::Gone)?;
                    }
                }
                _ => {
                    let why = "a subscriber may only ask for the status and the open sessions";
                    return Err(End::Refused(why.to_owned()));
                }
            }
        }
    };
    let writing = async {
        loop {
            tokio::select! {
                Some(answer) = answered.recv() => send(socket, &answer).await?,
                message = subscription.next() => send(socket, &message).await?,
            }
        }
    };
    let ended: Result<std::convert::Infallible, End> =
        tokio::select! { end = reading => end, end = writing => end };
    ended.map(|never| match never {})
}

async fn dispatch(shared: &Arc<Shared>, socket: &Arc<UnixSeqpacket>, pid: Option<u32>) -> Result<(), End> {
    let (answers, mut answered) = mpsc::channel::<FromTrace>(ANSWERS);
    let process = shared.join(pid, answers.clone());
    tracing::info!(pid, connection = process.id.0, "dispatch is connected");
    let writer = {
        let socket = Arc::clone(socket);
        tokio::spawn(async move {
            while let Some(answer) = answered.recv().await {
                if send(&socket, &answer).await.is_err() {
                    break;
                }
            }
        })
    };
    let mut peer = Peer { shared, connection: process.id, pid, netns: foreign_namespace(pid), answers };
    let ended = peer.converse(socket).await;
    drop(peer);
    writer.abort();
    let orphans = shared.leave(process.id);
    tracing::info!(pid, connection = process.id.0, sessions = orphans, "dispatch's connection ended");
    if orphans > 0 {
        shared.orphan_writers.spawn(orphans::after(Arc::clone(shared), process, monotonic()));
    }
    ended
}

/// The inode of dispatch's network namespace when it is not ours.
fn foreign_namespace(pid: Option<u32>) -> Option<u32> {
    let theirs = network_namespace(pid?)?;
    (network_namespace(std::process::id()) != Some(theirs)).then_some(theirs)
}

struct Peer<'a> {
    shared: &'a Arc<Shared>,
    connection: ConnectionId,
    pid: Option<u32>,
    netns: Option<u32>,
    answers: mpsc::Sender<FromTrace>,
}

impl Peer<'_> {
    async fn converse(&mut self, socket: &UnixSeqpacket) -> Result<(), End> {
        self.answer(welcome(self.shared)).await?;
        let mut buffer = buffer();
        loop {
            match receive(socket, &mut buffer).await? {
                ToTrace::Hello { .. } => {
                    return Err(End::Refused("a second hello makes no sense".to_owned()));
                }
                ToTrace::Watch { listen, serve } => {
                    self.shared.watch(self.connection, self.pid, listen, serve)
                }
                ToTrace::Register(session) => self.register(*session),
                ToTrace::Ask { conn } => self.ask(conn),
                ToTrace::Done { conn, record } => {
                    self.shared.sessions().done(&conn);
                    self.shared.subscribers.publish(FromTrace::Closed { record });
                }
                ToTrace::Opened { record } => self.shared.subscribers.publish(FromTrace::Opened { record }),
                ToTrace::Status => self.answer(self.shared.status()).await?,
                ToTrace::Pulses { pulses } => {
                    let mut sessions = self.shared.sessions();
                    pulses.into_iter().for_each(|pulse| sessions.pulse(pulse));
                }
                ToTrace::Sessions => {
                    return Err(End::Refused(
                        "dispatch knows its sessions; only a subscriber asks".to_owned(),
                    ));
                }
            }
        }
    }

    async fn answer(&self, answer: FromTrace) -> Result<(), End> {
        self.answers.send(answer).await.map_err(|_| End::Gone)
    }

    fn register(&self, session: Session) {
        let serve = session.up.map(|leg| {
            let tuple = ServeTuple { netns: self.netns, ..ServeTuple::mirror(leg.local, leg.remote) };
            (tuple, self.shared.kernel().serve_generation(&tuple))
        });
        if let Some(pid) = self.pid {
            self.shared.owners.want_also(session.serve_port, pid);
        }
        let entry = Entry {
            session,
            connection: self.connection,
            registered_at: monotonic(),
            asked_at: None,
            detached_at: None,
            serve,
            dispatch_pid: self.pid,
            pulse: None,
        };
        let registered = self.shared.sessions().register(entry);
        if let Err(error) = registered {
            tracing::error!("{error}");
        }
    }

    fn ask(&self, conn: String) {
        let entry = self.shared.sessions().ask(&conn, monotonic());
        let (shared, answers) = (Arc::clone(self.shared), self.answers.clone());
        tokio::spawn(async move {
            let facts = Box::new(gather(&shared, entry.as_ref(), LateEvents::Possible).await);
            // Nobody waits for the answer any more when this fails.
            let _ = answers.send(FromTrace::Evidence { conn, facts }).await;
        });
    }
}

fn welcome(shared: &Shared) -> FromTrace {
    FromTrace::Welcome { v: VERSION, kernel: shared.kernel().source(), sessions: true }
}

/// One byte more than allowed, so that a message that is too long is seen to be.
fn buffer() -> Vec<u8> {
    vec![0; MAX_MESSAGE + 1]
}

async fn receive(socket: &UnixSeqpacket, buffer: &mut [u8]) -> Result<ToTrace, End> {
    let length = socket.recv(buffer).await?.bytes_read();
    match length {
        0 => Err(End::Gone),
        length if length > MAX_MESSAGE => {
            Err(End::Refused(format!("a message is longer than {MAX_MESSAGE} bytes")))
        }
        length => serde_json::from_slice(&buffer[..length])
            .map_err(|error| End::Refused(format!("a message makes no sense: {error}"))),
    }
}

async fn send(socket: &UnixSeqpacket, message: &FromTrace) -> Result<(), End> {
    let bytes = serde_json::to_vec(message).map_err(|error| {
        tracing::error!(%error, "a message could not be encoded");
        End::Gone
    })?;
    if bytes.len() > MAX_MESSAGE {
        tracing::error!(bytes = bytes.len(), "a message is too long to be sent");
        return Ok(());
    }
    socket.send(&bytes).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_ourselves_and_the_named_user_may_be_dispatch() {
        let us = rustix::process::geteuid().as_raw();
        assert!(may_dispatch(0, "no-such-user-here") && may_dispatch(us, "no-such-user-here"));
        assert!(may_dispatch(4711, "4711"));
        assert!(!may_dispatch(4711, "4712") && !may_dispatch(4711, "no-such-user-here"));
    }
}
