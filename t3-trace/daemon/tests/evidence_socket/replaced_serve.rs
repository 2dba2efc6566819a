//! A serve that is replaced by another process on the same port. A serve is this program again,
//! running only [`serve`].

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use t3_record::{
    evidence::Fate,
    wire::{Session, ToTrace},
};

use super::{
    known_listener,
    support::{Daemon, session},
};

/// Port on which the child listens.
const PORT: &str = "T3_TEST_PORT";

/// Longer than the minimum time between two searches for one port.
const SEARCH_AGAIN: Duration = Duration::from_millis(300);

/// The child; killed on drop.
struct Serve(Child);

impl Serve {
    /// Starts a serve, and waits until it listens.
    fn start(port: u16) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "--nocapture", "replaced_serve::serve"])
            .env(PORT, port.to_string());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        let address = (std::net::Ipv4Addr::LOCALHOST, port);
        for _ in 0..1000 {
            assert_eq!(child.try_wait().unwrap(), None, "serve {pid} listens on port {port}");
            if TcpStream::connect(address).is_ok() {
                return Self(child);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("serve {pid} does not listen on port {port}");
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "the body of the child process that the test of this file starts; run by it"]
fn serve() {
    let port: u16 = std::env::var(PORT).expect("run by the test of this file").parse().unwrap();
    let _listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

#[tokio::test]
async fn the_first_query_after_a_serve_was_replaced_has_the_new_process() {
    let daemon = Daemon::start().await;
    let dispatch = daemon.dispatch().await;
    let (mut found, times) = (0, 5);
    for n in 1..=times {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let old = Serve::start(port);
        assert_eq!(known_listener(&dispatch, 2 * n, port).await.task.pid, old.0.id());
        drop(old);
        tokio::time::sleep(SEARCH_AGAIN).await;
        let new = Serve::start(port);
        let rejected = Session { opened_at: None, ..session(2 * n + 1, port) };
        dispatch.send(&ToTrace::Register(Box::new(rejected))).await;
        let peer = dispatch.ask(&format!("conn-{}", 2 * n + 1)).await.peer;
        found +=
            usize::from(peer.is_some_and(|peer| (peer.task.pid, peer.fate) == (new.0.id(), Fate::Alive)));
    }
    assert!(found >= times as usize - 1, "{found} of {times}; a slow host may miss one");
    daemon.stop().await;
}
