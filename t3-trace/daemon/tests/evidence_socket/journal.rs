//! The daemon program with a real journald: a dispatch that exits between writing a record and
//! sending `Done`.

use std::{
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{record, support::session};
use t3_record::{
    Verdict,
    journal::datagram,
    wire::{FromTrace, Role, ToTrace, VERSION},
};
use t3_testkit::{TestError, journald::Journal};
use tokio_seqpacket::UnixSeqpacket;

pub const SOCKET: &str = "T3_TEST_EVIDENCE_SOCKET";
const RECORD_TIMEOUT: Duration = Duration::from_secs(30);

/// A child process; killed on drop.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
#[ignore = "the body of the child process of the test below; run by it"]
async fn dispatch_that_exits_before_done() {
    let socket =
        UnixSeqpacket::connect(std::env::var_os(SOCKET).expect("run by the test below")).await.unwrap();
    let register = |n| ToTrace::Register(Box::new(session(n, 3773)));
    let ask = |n: u16| ToTrace::Ask { conn: format!("conn-{n}") };
    let hello = ToTrace::Hello { v: VERSION, role: Role::Dispatch };
    for message in [hello, register(1), register(2), register(3), ask(1), ask(2)] {
        socket.send(&serde_json::to_vec(&message).unwrap()).await.unwrap();
    }
    let mut answers = 0;
    let mut buffer = vec![0; 65536];
    while answers < 2 {
        let length = socket.recv(&mut buffer).await.unwrap().bytes_read();
        let message = serde_json::from_slice(&buffer[..length]).unwrap();
        answers += usize::from(matches!(message, FromTrace::Evidence { .. }));
    }
    // The first was queried and written, the second only queried, the third neither.
    let fields = record("conn-1").to_fields();
    let entry = datagram(fields.iter().map(|(name, value)| (name.as_ref(), value.as_str())));
    UnixDatagram::unbound().unwrap().send_to(&entry, "/run/systemd/journal/socket").unwrap();
    std::process::abort();
}

/// A journald of the test; `None` where there cannot be one.
pub fn private_journal() -> Option<Journal> {
    match Journal::private() {
        Ok(journal) => Some(journal),
        Err(missing @ TestError::Missing { .. }) => {
            assert!(std::env::var_os("CI").is_none(), "CI must have what this needs: {missing}");
            println!("skipped: {missing}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Starts the daemon program with its socket and its spool in `dir`. Returns the socket's path.
pub fn start_daemon(journal: &Journal, dir: &Path) -> (Killed, PathBuf) {
    let socket = dir.join("evidence.sock");
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_t3-trace-daemon"));
    daemon.args(["--no-ebpf", "--log=journald", "--socket"]).arg(&socket).stderr(Stdio::null());
    daemon.arg("--state-dir").arg(dir.join("state"));
    journal.lend(&mut daemon).unwrap();
    let daemon = Killed(daemon.spawn().unwrap());
    for _ in 0..1000 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    (daemon, socket)
}

#[test]
fn a_record_written_before_the_exit_is_not_written_again() {
    let Some(journal) = private_journal() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (_daemon, socket) = start_daemon(&journal, dir.path());
    let mut dispatch = Command::new(std::env::current_exe().unwrap());
    dispatch
        .args(["--ignored", "--exact", "journal::dispatch_that_exits_before_done"])
        .env(SOCKET, &socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    journal.lend(&mut dispatch).unwrap();
    let _dispatch = Killed(dispatch.spawn().unwrap());

    let closes = journal.wait_closes(3, RECORD_TIMEOUT, |_| true).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let mut seen: Vec<_> = journal
        .closes(|_| true)
        .unwrap()
        .into_iter()
        .map(|(record, _)| (record.conn, record.verdict))
        .collect();
    seen.sort();
    let expected = [
        ("conn-1".to_owned(), Verdict::ClientClosed),
        ("conn-2".to_owned(), Verdict::DispatchDied),
        ("conn-3".to_owned(), Verdict::DispatchDied),
    ];
    assert_eq!(seen, expected, "one record each ({} at first)", closes.len());
}
