//! One connection to the evidence socket, from Hello to its end: checks the peer, implements the
//! protocol, passes messages on.
//!
//! A peer that violates the protocol receives one `Refused` message, then the connection is closed.
//! Messages are trusted according to the peer's uid: only dispatch registers sessions, all others
//! may only subscribe.

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
    questions::{Question, Questions},
    reconcile::Report,
    sessions::{ConnectionId, Entry},
    state::Shared,
};

const HELLO_TIMEOUT: Duration = Duration::from_secs(1);
/// Queued answers per dispatch; beyond it only the queries of this dispatch wait.
const ANSWERS: usize = 1024;
/// Queries without a place after which reading pauses for [`PAUSE`]: a dispatch that asks without
/// end does not take a CPU.
const UNANSWERED: u32 = 32;
const PAUSE: Duration = Duration::from_millis(1);

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// The peer closed the connection, or the socket failed.
    Gone,
    /// The peer violates the protocol; it receives the reason.
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
        tracing::warn!(why, "peer of the evidence socket refused");
        let refused = FromTrace::Refused { why };
        let sent = send(&socket, &refused);
        let _ = tokio::time::timeout(Duration::from_secs(1), sent).await;
    }
}

/// Tells a peer without a place why, if that is possible without waiting.
pub(crate) async fn refuse_without_place(socket: &UnixSeqpacket, uid: u32) {
    let refused = FromTrace::Refused { why: format!("too many connections of uid {uid}; end one of them") };
    let _ = tokio::time::timeout(Duration::ZERO, send(socket, &refused)).await;
}

async fn talk(shared: &Arc<Shared>, socket: &Arc<UnixSeqpacket>) -> Result<(), End> {
    let peer = socket.peer_cred()?;
    let hello = tokio::time::timeout(HELLO_TIMEOUT, receive(socket, &mut buffer())).await;
    let role = match hello
        .map_err(|_| End::Refused("timed out waiting for Hello as the first message".to_owned()))??
    {
        ToTrace::Hello { v, .. } if v != VERSION => {
            return Err(End::Refused(format!(
                "evidence protocol: expected version {VERSION}, got {v}; install both programs from the same release"
            )));
        }
        ToTrace::Hello { role, .. } => role,
        _ => return Err(End::Refused("expected Hello as the first message".to_owned())),
    };
    match role {
        Role::Subscriber => subscriber(shared, socket, peer.uid() == 0).await,
        Role::Dispatch => {
            let allowed = may_register(peer.uid(), &shared.options.dispatch_user);
            if !allowed {
                return Err(End::Refused(format!(
                    "uid {} may not register sessions: expected user {}; see --dispatch-user",
                    peer.uid(),
                    shared.options.dispatch_user
                )));
            }
            let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
            dispatch(shared, socket, pid).await
        }
    }
}

/// Looked up at each Hello: the user may be created or renumbered while the daemon runs.
fn may_register(uid: u32, dispatch_user: &str) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw() || accounts::uid_of(dispatch_user) == Some(uid)
}

async fn subscriber(shared: &Arc<Shared>, socket: &Arc<UnixSeqpacket>, is_root: bool) -> Result<(), End> {
    let Some(subscription) = shared.subscribers.subscribe(is_root) else {
        return Err(End::Refused("too many subscribers; end one of them".to_owned()));
    };
    send(socket, &welcome(shared)).await?;
    let (answers, mut answered) = mpsc::channel::<FromTrace>(4);
    // Reads while a send waits: a subscriber that disconnects is noticed, and one that does not
    // read costs only its queue.
    let reading = async {
        let mut buffer = buffer();
        let mut next = Instant::now();
        loop {
            match receive(socket, &mut buffer).await? {
                ToTrace::Status => answers.send(shared.status()).await.map_err(|_| End::Gone)?,
                ToTrace::Sessions => {
                    // Faster queries wait.
                    sleep_until(next).await;
                    next = Instant::now() + open_sessions::EVERY;
                    for part in &*open_sessions::answer(shared).await {
                        let part = FromTrace::Sessions(Box::new(part.clone()));
                        answers.send(part).await.map_err(|_| End::Gone)?;
                    }
                }
                ToTrace::Reconcile => {
                    answers.send(reconciled(shared).await).await.map_err(|_| End::Gone)?;
                }
                _ => {
                    let why =
                        "a subscriber may only query the status and the open sessions, or ask to reconcile";
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

/// Compares the journal with the open sessions now.
async fn reconciled(shared: &Shared) -> FromTrace {
    let report = match &shared.reconciler {
        Some(reconciler) => reconciler.request().await,
        None => Report {
            error: Some("t3-trace does not write to the journal (--log)".to_owned()),
            ..Report::default()
        },
    };
    let Report { reconciled, rewritten, open, error, .. } = report;
    FromTrace::Reconciled { reconciled, rewritten, open, error }
}

async fn dispatch(shared: &Arc<Shared>, socket: &Arc<UnixSeqpacket>, pid: Option<u32>) -> Result<(), End> {
    let (answers, mut answered) = mpsc::channel::<FromTrace>(ANSWERS);
    let process = shared.join(pid, answers.clone());
    tracing::info!(pid, connection = process.id.0, "dispatch connected");
    // Its predecessor may have left sessions that it never registered here.
    if let Some(reconciler) = &shared.reconciler {
        reconciler.wake();
    }
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
    let mut peer = Peer {
        shared,
        connection: process.id,
        pid,
        netns: foreign_namespace(pid),
        answers: answers.clone(),
        questions: Questions::default(),
        unanswered: 0,
    };
    let questions = peer.questions.clone();
    let work = |question: &Question| evidence_of(Arc::clone(shared), question);
    let ended = tokio::select! {
        ended = peer.converse(socket) => ended,
        // The writer failed.
        () = shared.turns.answer(&questions, &answers, work) => Err(End::Gone),
    };
    drop(peer);
    writer.abort();
    let orphans = shared.leave(process.id);
    tracing::info!(pid, connection = process.id.0, sessions = orphans, "dispatch disconnected");
    if orphans > 0 {
        shared.orphan_writers.spawn(orphans::handle_disconnect(Arc::clone(shared), process, monotonic()));
    } else {
        shared.pick_ups().settled(process.id);
    }
    ended
}

/// Inode of dispatch's network namespace if it differs from that of the daemon.
fn foreign_namespace(pid: Option<u32>) -> Option<u32> {
    let namespace = network_namespace(pid?)?;
    (network_namespace(std::process::id()) != Some(namespace)).then_some(namespace)
}

struct Peer<'a> {
    shared: &'a Arc<Shared>,
    connection: ConnectionId,
    pid: Option<u32>,
    netns: Option<u32>,
    answers: mpsc::Sender<FromTrace>,
    questions: Questions,
    /// Queries without a place since the last pause.
    unanswered: u32,
}

impl Peer<'_> {
    async fn converse(&mut self, socket: &UnixSeqpacket) -> Result<(), End> {
        self.answer(welcome(self.shared)).await?;
        if let Some(reconciler) = &self.shared.reconciler {
            self.answer(FromTrace::Journal(reconciler.counts())).await?;
        }
        let mut buffer = buffer();
        loop {
            match receive(socket, &mut buffer).await? {
                ToTrace::Hello { .. } => {
                    return Err(End::Refused("unexpected second Hello".to_owned()));
                }
                ToTrace::Watch { listen, serve, users } => {
                    self.shared.watch(self.connection, self.pid, listen, serve, users);
                }
                ToTrace::Register(session) => self.register(*session),
                ToTrace::Ending { conn, facts } => self.shared.sessions().set_ending(&conn, facts),
                ToTrace::Ask { conn } => self.ask(&conn).await,
                ToTrace::Done { conn, record, lost, again } => {
                    if let Some(reconciler) = &self.shared.reconciler {
                        reconciler.reported(&record, self.pid, lost);
                    }
                    self.shared.sessions().done(&conn);
                    self.shared.pick_ups().done(&conn);
                    if !again {
                        self.shared.subscribers.publish(FromTrace::Closed { record });
                    }
                }
                ToTrace::Opened { record } => self.shared.subscribers.publish(FromTrace::Opened { record }),
                ToTrace::PickedUp { ended } => self.picked_up(ended),
                ToTrace::Status => self.answer(self.shared.status()).await?,
                ToTrace::Pulses { pulses } => {
                    let mut sessions = self.shared.sessions();
                    pulses.into_iter().for_each(|stats| sessions.set_live_stats(stats));
                }
                ToTrace::Sessions => {
                    return Err(End::Refused("only a subscriber may query the open sessions".to_owned()));
                }
                ToTrace::Reconcile => {
                    return Err(End::Refused("only a subscriber may ask to reconcile".to_owned()));
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
        if let Some((tuple, generation)) = serve {
            self.shared.direct.carried(tuple, generation);
        }
        if let Some(pid) = self.pid {
            self.shared.owners.want_also(crate::sessions::serve_address(&session), pid);
        }
        let entry = Entry {
            session,
            connection: self.connection,
            registered_at: monotonic(),
            asked_at: None,
            detached_at: None,
            serve,
            dispatch_pid: self.pid,
            live_stats: None,
            ending: None,
            holder: None,
        };
        if let Some(reconciler) = &self.shared.reconciler {
            reconciler.opened(&entry.session, self.pid);
        }
        let registered = self.shared.sessions().register(entry);
        if let Err(error) = registered {
            tracing::error!("{error}");
        }
    }

    fn picked_up(&self, ended: Vec<String>) {
        let reconciler = self.shared.reconciler.as_ref();
        for conn in ended {
            let session = self.shared.sessions().hand_over(&conn, self.connection, self.pid).cloned();
            let is_in_ledger = reconciler.is_some_and(|reconciler| reconciler.handed_over(&conn, self.pid));
            if session.is_none() && !is_in_ledger {
                self.shared.pick_ups().add_ended(conn, self.connection);
            }
        }
        // After the sessions that are not lost have changed hands.
        self.shared.pick_ups().picked_up(self.connection);
        if let Some(reconciler) = reconciler {
            reconciler.wake();
        }
    }

    async fn ask(&mut self, conn: &str) {
        if self.questions.add(conn, Instant::now()) {
            self.shared.sessions().asked(conn, monotonic());
            return;
        }
        self.unanswered += 1;
        if self.unanswered >= UNANSWERED {
            self.unanswered = 0;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Answer to a query whose turn it is.
fn evidence_of(shared: Arc<Shared>, question: &Question) -> impl Future<Output = FromTrace> + use<> {
    let conn = question.conn().to_owned();
    let late = LateEvents::Possible { waited: question.waited() };
    async move {
        let entry = shared.sessions().get(&conn);
        let facts = Box::new(gather(&shared, entry.as_ref(), late).await);
        FromTrace::Evidence { conn, facts }
    }
}

fn welcome(shared: &Shared) -> FromTrace {
    FromTrace::Welcome {
        v: VERSION,
        kernel: shared.kernel().source(),
        sessions: true,
        ending: true,
        kept: true,
    }
}

/// One byte more than allowed, to detect a message that is too long.
fn buffer() -> Vec<u8> {
    vec![0; MAX_MESSAGE + 1]
}

async fn receive(socket: &UnixSeqpacket, buffer: &mut [u8]) -> Result<ToTrace, End> {
    let length = socket.recv(buffer).await?.bytes_read();
    match length {
        0 => Err(End::Gone),
        length if length > MAX_MESSAGE => {
            Err(End::Refused(format!("message too long: expected up to {MAX_MESSAGE} bytes")))
        }
        length => {
            let mut message: ToTrace = serde_json::from_slice(&buffer[..length])
                .map_err(|error| End::Refused(format!("cannot decode message: {error}")))?;
            message.bound().map_err(|error| End::Refused(error.to_string()))?;
            Ok(message)
        }
    }
}

async fn send(socket: &UnixSeqpacket, message: &FromTrace) -> Result<(), End> {
    let bytes = serde_json::to_vec(message).map_err(|error| {
        tracing::error!(%error, "cannot encode message");
        End::Gone
    })?;
    if bytes.len() > MAX_MESSAGE {
        tracing::error!(bytes = bytes.len(), "message too long, not sent");
        return Ok(());
    }
    socket.send(&bytes).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_the_own_uid_and_the_named_user_may_register() {
        let own = rustix::process::geteuid().as_raw();
        assert!(may_register(0, "no-such-user-here") && may_register(own, "no-such-user-here"));
        assert!(may_register(4711, "4711"));
        assert!(!may_register(4711, "4712") && !may_register(4711, "no-such-user-here"));
    }
}
