//! Local users who claim to be another one, as real uids: over loopback and over an address of this
//! host in a trusted network, with plain requests, upgrades, and sockets that are closed before
//! t3-dispatch reads from them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use t3_testkit::{
    harness::{Setup, Stack},
    journald::Journal,
    prerequisite,
};

/// Users without a name, who need no account.
const MALLORY: u32 = 61_001;
const PROXY: u32 = 61_002;
/// Login and OS user of the victim. The serve of this test runs as root.
const VICTIM: &str = "root";
const UPGRADE: &str = "Connection: Upgrade\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Version: 13\\r\\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n";

/// Serve that answers every request with 204 and counts them.
fn serve(port: u16) -> Arc<AtomicUsize> {
    let requests = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let counter = Arc::clone(&requests);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            if stream.read(&mut head).is_ok_and(|length| length > 0) {
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
            }
        }
    });
    requests
}

/// Runs a script of bash as this user, with host, port and request as arguments. Returns its
/// output.
fn script(uid: u32, text: &str, host: &str, port: u16, more: &str) -> String {
    let request = format!(
        "POST / HTTP/1.1\\r\\nHost: t3\\r\\nX-authentik-username: {VICTIM}\\r\\n{more}Content-Length: 0\\r\\n\\r\\n"
    );
    let mut command = Command::new("bash");
    command.args(["-c", text, "bash", host, &port.to_string(), &request]).uid(uid).gid(uid);
    let output = command.current_dir("/").output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Status of the response to a request of this user.
fn status(uid: u32, host: &str, port: u16, more: &str) -> String {
    let text = r#"exec 3<>"/dev/tcp/$1/$2"; printf "$3" >&3; head -n1 <&3"#;
    let get = more.contains("Upgrade") || more.contains("Sec-Fetch-Dest");
    let text = if get { text.replace("printf \"$3\"", "printf \"${3/POST/GET}\"") } else { text.to_owned() };
    script(uid, &text, host, port, more).split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Sends many requests, each on a connection that is closed immediately.
fn fire_and_close(uid: u32, host: &str, port: u16) {
    let text = r#"for n in $(seq 200); do exec 3<>"/dev/tcp/$1/$2"; printf "$3" >&3; exec 3>&-; done"#;
    script(uid, text, host, port, "");
}

fn stack(more: &[&str], networks: &[String]) -> (Stack, Arc<AtomicUsize>) {
    start([&["--no-pairing"], more].concat(), networks)
}

fn start(arguments: Vec<&str>, networks: &[String]) -> (Stack, Arc<AtomicUsize>) {
    let mut setup = Setup::named([VICTIM]).unwrap();
    setup.trace = false;
    setup.listen = "[::]:0".parse().unwrap();
    setup.trusted = networks.to_vec();
    setup.dispatch_arguments = arguments.into_iter().map(str::to_owned).collect();
    let port = setup.users[VICTIM];
    let requests = serve(port);
    (Stack::start(setup, Journal::private().unwrap()).unwrap(), requests)
}

/// An address of this host that is not loopback.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && TcpListener::bind((ip, 0)).is_ok()).then(|| ip.to_string())
}

#[test]
fn a_local_user_cannot_be_another_one() {
    if prerequisite::or_skip("a_local_user_cannot_be_another_one", prerequisite::root()).is_none() {
        return;
    }
    let own = own_address();
    // The networks contain every address that the attacks come from.
    let networks: Vec<String> =
        ["127.0.0.0/8".to_owned(), "::1/128".to_owned()].into_iter().chain(own.clone()).collect();
    let (stack, requests) = stack(&[], &networks);
    let port = stack.address.port();
    let hosts = ["127.0.0.1", "127.0.0.7", "::1"].into_iter().chain(own.as_deref());
    for host in hosts {
        for more in ["", "Sec-Fetch-Dest: document\\r\\n", "X-T3-Proxy-Secret: x\\r\\n", UPGRADE] {
            assert_eq!(status(MALLORY, host, port, more), "403", "{host} {more}");
        }
        // The kernel reports a socket without a process as one of root.
        fire_and_close(MALLORY, host, port);
        thread::sleep(Duration::from_millis(500));
        assert_eq!(requests.load(Ordering::SeqCst), 0, "{host}");
        // Control: root itself.
        assert_eq!(status(0, host, port, ""), "204", "{host}");
        assert_eq!(requests.swap(0, Ordering::SeqCst), 1, "{host}");
    }
    // The process that is trusted is still served.
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
}

#[test]
fn only_the_user_of_the_proxy_is_trusted() {
    if prerequisite::or_skip("only_the_user_of_the_proxy_is_trusted", prerequisite::root()).is_none() {
        return;
    }
    let (stack, _requests) = stack(&["--trusted-user", &PROXY.to_string()], &[]);
    let port = stack.address.port();
    for (uid, expected) in [(PROXY, "204"), (MALLORY, "403"), (65_534, "403")] {
        assert_eq!(status(uid, "127.0.0.1", port, ""), expected, "{uid}");
    }
}

#[test]
fn no_session_is_minted_for_a_local_user() {
    if prerequisite::or_skip("no_session_is_minted_for_a_local_user", prerequisite::root()).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mint, minted) = (dir.path().join("mint"), dir.path().join("minted"));
    let script =
        format!("#!/bin/sh\necho \"$1\" >>{}\necho '{{\"credential\":\"SECRET\"}}'\n", minted.display());
    fs::write(&mint, script).unwrap();
    fs::set_permissions(&mint, fs::Permissions::from_mode(0o755)).unwrap();
    let mint = mint.display().to_string();
    let networks = ["127.0.0.0/8".to_owned()];
    let (stack, requests) = start(vec!["--mint-socket=off", "--mint-command", &mint], &networks);
    let navigation = "Sec-Fetch-Dest: document\\r\\nSec-Fetch-Mode: navigate\\r\\n";
    let port = stack.address.port();
    assert_eq!(status(MALLORY, "127.0.0.1", port, navigation), "403");
    assert!(!minted.exists() && requests.load(Ordering::SeqCst) == 0);
    // Control: for a trusted user it is. This serve gives no cookie for the credential.
    assert_eq!(status(0, "127.0.0.1", port, navigation), "502");
    assert_eq!(fs::read_to_string(&minted).unwrap().trim(), VICTIM);
}
