//! Places of local users who are not trusted, as real uids: one of them holds every connection and
//! every probe that it gets, over several addresses, and another user and the proxy still get
//! theirs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use t3_testkit::{
    harness::{Setup, Stack},
    journald::Journal,
    prerequisite,
};

/// Users without a name, who need no account.
const MALLORY: u32 = 61_001;
const ANN: u32 = 61_003;
const PROXY: u32 = 61_002;
const HOSTS: [&str; 2] = ["127.0.0.1", "::1"];
/// Connections and probes per user.
const PLACES: usize = 6;
const PROBE: &str = "GET /probe/ws HTTP/1.1\\r\\nHost: t3\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\
                     Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n";
const HEALTH: &str = "GET /healthz HTTP/1.1\\r\\nHost: t3\\r\\nConnection: close\\r\\n\\r\\n";

fn bash(uid: u32, text: &str, host: &str, port: u16, request: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", text, "bash", host, &port.to_string(), request]).uid(uid).gid(uid);
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// Status of the response to a request of this user.
fn status(uid: u32, host: &str, port: u16, request: &str) -> String {
    let text = r#"exec 3<>"/dev/tcp/$1/$2"; printf "$3" >&3; head -n1 <&3"#;
    let output = bash(uid, text, host, port, request).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split(' ').nth(1).unwrap_or_default().to_owned()
}

/// A process that holds connections until it is dropped.
struct Holder(Child);

impl Holder {
    /// Opens connections and sends the request on each.
    fn start(uid: u32, host: &str, port: u16, request: &str) -> Self {
        let text = r#"for n in $(seq 40); do exec {fd}<>"/dev/tcp/$1/$2" && printf "$3" >&"$fd"; done
                      sleep 0.5; echo held; exec sleep 60"#;
        let mut command = bash(uid, text, host, port, request);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn stack() -> Stack {
    let mut setup = Setup::named(["root"]).unwrap();
    setup.trace = false;
    setup.listen = "[::]:0".parse().unwrap();
    let places = PLACES.to_string();
    let options = ["--max-connections-per-address", &places, "--max-probes-per-address", &places];
    let proxy = PROXY.to_string();
    let more = ["--max-probes", "64", "--header-timeout", "60s", "--trusted-user", &proxy];
    setup.dispatch_arguments.extend(options.iter().chain(&more).map(ToString::to_string));
    Stack::start(setup, Journal::private().unwrap()).unwrap()
}

#[test]
fn a_local_user_takes_no_place_of_another_one() {
    if prerequisite::or_skip("a_local_user_takes_no_place_of_another_one", prerequisite::root()).is_none() {
        return;
    }
    for (what, request, served) in [("silent connections", "", "200"), ("probes", PROBE, "101")] {
        let stack = stack();
        let port = stack.address.port();
        let request_of_others = if request.is_empty() { HEALTH } else { request };
        let held: Vec<_> = HOSTS.iter().map(|host| Holder::start(MALLORY, host, port, request)).collect();
        for host in HOSTS {
            assert_eq!(status(MALLORY, host, port, request_of_others), "429", "{what} at {host}");
            for uid in [ANN, PROXY] {
                assert_eq!(status(uid, host, port, request_of_others), served, "{what} at {host} of {uid}");
            }
        }
        // Places of a process that has ended are free.
        drop(held);
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert_eq!(status(MALLORY, HOSTS[0], port, request_of_others), served, "{what}");
    }
}

/// The proxy needs none of these places: all users come through it.
#[test]
fn connections_of_a_trusted_user_have_no_limit_of_their_own() {
    let name = "connections_of_a_trusted_user_have_no_limit_of_their_own";
    if prerequisite::or_skip(name, prerequisite::root()).is_none() {
        return;
    }
    let stack = stack();
    let port = stack.address.port();
    let _held: Vec<_> = HOSTS.iter().map(|host| Holder::start(PROXY, host, port, "")).collect();
    for uid in [PROXY, ANN] {
        assert_eq!(status(uid, HOSTS[0], port, HEALTH), "200", "{uid}");
    }
}
