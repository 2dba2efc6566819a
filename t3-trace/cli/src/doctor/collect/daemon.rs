//! Queries the status and the open sessions of the daemon as a subscriber.

use std::{io::ErrorKind, os::unix::fs::MetadataExt, path::Path, time::Duration};

use anyhow::Context;
use t3_record::{
    vocabulary::HeartbeatSource,
    wire::{FromTrace, MAX_MESSAGE, Role, Status, ToTrace, VERSION, live::OpenSession},
};
use t3_trace_host::{accounts, journal_trust::DISPATCH_USER, proc};
use tokio_seqpacket::UnixSeqpacket;

use super::super::facts::{Daemon, Heartbeats};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Age of a session at which its heartbeat is recognised: t3 pings every 5 s, and the period is
/// known after four pings.
const DUE_MS: u64 = 30_000;
/// Group of the socket if it is not readable: the default of `--group`.
const GROUP: &str = "t3-trace";

/// Returns the result, the heartbeats of the open sessions and the pid of the daemon.
pub(super) fn query(socket: &Path) -> anyhow::Result<(Daemon, Option<Heartbeats>, Option<u32>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    Ok(runtime.block_on(async {
        match UnixSeqpacket::connect(socket).await {
            Ok(peer) => {
                let pid = peer.peer_cred().ok().and_then(|cred| cred.pid());
                let pid = pid.and_then(|pid| u32::try_from(pid).ok());
                let answer = tokio::time::timeout(TIMEOUT, status(&peer)).await;
                let daemon = answer
                    .unwrap_or_else(|_| unexpected(&format!("no response after {} s", TIMEOUT.as_secs())));
                let heartbeats = match daemon.status() {
                    Some(status) if status.dispatch => {
                        tokio::time::timeout(TIMEOUT, heartbeats(&peer)).await.ok().flatten()
                    }
                    _ => None,
                };
                (daemon, heartbeats, pid)
            }
            Err(error) => (unreachable(socket, &error), None, None),
        }
    }))
}

fn unreachable(socket: &Path, error: &std::io::Error) -> Daemon {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Daemon::Absent,
        ErrorKind::PermissionDenied => Daemon::Denied { group: group_of(socket) },
        _ => unexpected(&error.to_string()),
    }
}

fn unexpected(why: &str) -> Daemon {
    Daemon::Unexpected(crate::present::text::safe(why))
}

/// Group of the socket, or of its directory if that is not readable.
fn group_of(socket: &Path) -> String {
    let meta = std::fs::metadata(socket).ok().or_else(|| std::fs::metadata(socket.parent()?).ok());
    meta.map(|meta| meta.gid()).map_or_else(|| GROUP.to_owned(), accounts::group_name)
}

async fn status(peer: &UnixSeqpacket) -> Daemon {
    match converse(peer).await {
        Ok(status) => Daemon::Answers(Box::new(status)),
        Err(why) => unexpected(&why),
    }
}

async fn converse(peer: &UnixSeqpacket) -> Result<Status, String> {
    send(peer, &ToTrace::Hello { v: VERSION, role: Role::Subscriber }).await?;
    let mut queried = false;
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let length = peer.recv(&mut buffer).await.map_err(|error| error.to_string())?.bytes_read();
        if length == 0 {
            return Err("connection closed".to_owned());
        }
        match serde_json::from_slice(buffer.get(..length).unwrap_or_default()) {
            Ok(FromTrace::Status(status)) => return Ok(*status),
            Ok(FromTrace::Refused { why }) => return Err(why),
            Ok(FromTrace::Welcome { .. }) if !queried => {
                queried = true;
                send(peer, &ToTrace::Status).await?;
            }
            // Records may arrive in between; messages of a newer daemon are ignored.
            Ok(_) | Err(_) => {}
        }
    }
}

/// Heartbeats of the open sessions. The first query makes the daemon request them from dispatch, so
/// that the second one is complete.
async fn heartbeats(peer: &UnixSeqpacket) -> Option<Heartbeats> {
    let is_due = |session: &OpenSession| session.age_ms >= DUE_MS && !session.ending;
    let mut sessions = sessions(peer).await?;
    if sessions.iter().any(is_due) {
        sessions = self::sessions(peer).await?;
    }
    let sources: Vec<_> =
        sessions.iter().filter(|session| is_due(session)).filter_map(|s| s.live?.hb_by).collect();
    let without = sources.iter().filter(|source| **source == HeartbeatSource::None).count();
    Some(Heartbeats { sessions: sources.len(), without })
}

/// The open sessions; `None` if the daemon does not reply.
async fn sessions(peer: &UnixSeqpacket) -> Option<Vec<OpenSession>> {
    send(peer, &ToTrace::Sessions).await.ok()?;
    let mut sessions = Vec::new();
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let length = peer.recv(&mut buffer).await.ok().map(|message| message.bytes_read())?;
        if length == 0 {
            return None;
        }
        match serde_json::from_slice(buffer.get(..length)?) {
            Ok(FromTrace::Sessions(part)) => {
                let more = part.more;
                sessions.extend(part.sessions);
                if !more {
                    return Some(sessions);
                }
            }
            Ok(FromTrace::Refused { .. }) => return None,
            Ok(_) | Err(_) => {}
        }
    }
}

async fn send(peer: &UnixSeqpacket, message: &ToTrace) -> Result<(), String> {
    let bytes = serde_json::to_vec(message).map_err(|error| error.to_string())?;
    peer.send(&bytes).await.map(drop).map_err(|error| error.to_string())
}

/// Pid of a running dispatch: its network namespace has the listeners. Any process can have this
/// name, so its owner must be root or dispatch's user.
pub(super) fn dispatch_pid() -> Option<u32> {
    let user = accounts::uid_of(DISPATCH_USER);
    let trusted = |pid: &u32| {
        let owner = std::fs::metadata(format!("/proc/{pid}")).map(|meta| meta.uid());
        owner.is_ok_and(|uid| uid == 0 || Some(uid) == user)
    };
    let named = |pid: &u32| proc::stat::read(*pid).is_some_and(|stat| stat.comm == "t3-dispatch");
    proc::pids().filter(named).find(trusted)
}
