//! The daemon program with a real journald restarts while the kept sessions of an ended dispatch
//! wait for their successor: it knows them only from its spool.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use t3_record::{
    Reconciled, Verdict,
    wire::{Role, ToTrace, VERSION},
};
use tokio_seqpacket::UnixSeqpacket;

use super::{
    disconnect::{KEPT, register_kept},
    journal::{Killed, SOCKET, private_journal, start_daemon},
    support::Peer,
};

const REGISTERED: Duration = Duration::from_secs(30);
/// A successor is awaited for 30 s from the start of the daemon.
const RECORD_TIMEOUT: Duration = Duration::from_secs(75);

async fn connect(socket: &Path, role: Role) -> Peer {
    let peer = Peer(UnixSeqpacket::connect(socket).await.unwrap());
    peer.send(&ToTrace::Hello { v: VERSION, role }).await;
    assert!(peer.receive().await.is_some());
    peer
}

async fn until_sessions(socket: &Path, is_reached: impl Fn(u64, u64) -> bool) {
    let subscriber = connect(socket, Role::Subscriber).await;
    let reached = async {
        loop {
            let status = subscriber.status_between_records().await;
            if is_reached(status.sessions, status.waiting.unwrap()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(REGISTERED, reached).await.expect("the sessions are registered, or wait");
}

fn stop(mut daemon: Killed) {
    let pid = Pid::from_raw(i32::try_from(daemon.0.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    daemon.0.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_sessions_wait_for_their_successor_across_a_restart_of_the_daemon() {
    let Some(journal) = private_journal() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (daemon, socket) = start_daemon(&journal, dir.path());
    let mut dispatch = Command::new(std::env::current_exe().unwrap());
    dispatch.args(["--ignored", "--exact", "disconnect::killed_dispatch"]);
    dispatch.env(SOCKET, &socket).env(KEPT, "1").stdout(Stdio::null()).stderr(Stdio::null());
    let dispatch = Killed(dispatch.spawn().unwrap());
    until_sessions(&socket, |sessions, _| sessions == 3).await;
    drop(dispatch);
    until_sessions(&socket, |_, waiting| waiting == 3).await;
    stop(daemon);

    let (_daemon, socket) = start_daemon(&journal, dir.path());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(journal.closes(|_| true).unwrap().len(), 0, "its successor is awaited");
    let successor = connect(&socket, Role::Dispatch).await;
    successor.send(&register_kept(1, 1)).await;
    successor.send(&ToTrace::PickedUp { ended: vec!["conn-2".to_owned()] }).await;
    until_sessions(&socket, |sessions, _| sessions == 1).await;
    let closes = tokio::task::block_in_place(|| journal.wait_closes(1, RECORD_TIMEOUT, |_| true)).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (record, _) = &closes[0];
    assert_eq!((record.conn.as_str(), record.verdict), ("conn-3", Verdict::DispatchDied));
    assert_eq!(record.reconciled, Some(Reconciled::Journal));
    assert_eq!(journal.closes(|_| true).unwrap().len(), 1, "the others are with the successor");
}
