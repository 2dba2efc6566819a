//! Faults at open between dispatch and serve's listener: a firewall of this host, another address,
//! a full accept queue, and a client that gives up before serve answers.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use t3_record::{Cause::DownstreamClosed, ClosedBy, LegEnd, Segment, Verdict};

use super::{Expect, ExpectedRecord, Fault, Fixture, Need, opening::failed};
use crate::{
    client::Client,
    error::{Attempt as _, Result, TestError},
    harness::Firewall,
    sys,
};

/// Timeout for connecting of dispatch, in milliseconds.
const CONNECT: u64 = 5_000;
/// The shortest open timeout of a client.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A user who closes the tab while the page waits.
const IMPATIENT: Duration = Duration::from_secs(2);
/// A user who closes the tab as soon as it opens.
const QUICK: Duration = Duration::from_millis(300);
/// Time after which t3-trace has found a listener.
const SEARCH: Duration = Duration::from_millis(2_500);
/// uid of another user.
const STRANGER: u32 = 61_234;
/// Time to wait for a connection that cannot be accepted.
const PROBE: Duration = Duration::from_millis(300);

/// Record of a client that left before serve answered the upgrade, after so many milliseconds.
fn left(verdict: Verdict, how: &str, waited: u64) -> ExpectedRecord {
    let segment = if verdict == Verdict::ClientLeft { Segment::Downstream } else { Segment::Serve };
    ExpectedRecord::unopened(verdict, segment, DownstreamClosed, how, ClosedBy::Downstream)
        .is("peer_exit", "alive")
        .is("down_end", LegEnd::FinIn.as_str())
        .one_of("up_end", &["fin_out", "rst_out"])
        .key("up_silent_ms", Expect::Range(waited - 100, waited + 900))
}

pub(super) fn faults() -> Vec<Fault> {
    let waited = || Expect::Range(CONNECT - 100, CONNECT + 1_500);
    let firewall: &'static [Need] = &[Need::Root, Need::Firewall];
    vec![
        Fault::new(
            "firewall_drops",
            failed(Verdict::ServeTimeout, "loss")
                .is("segment", "devvm")
                .is("confidence", "likely")
                .is("up_end", "none")
                .key("up_silent_ms", waited()),
            |fx| refused(fx, "drop"),
        )
        .needs(firewall)
        .timeout(60),
        Fault::new(
            "firewall_rejects",
            failed(Verdict::ServeRefused, "refused")
                .is("segment", "devvm")
                .is("confidence", "likely")
                .is("up_end", "refused")
                .is("peer_exit", "alive"),
            |fx| refused(fx, "reject with tcp reset"),
        )
        .needs(firewall),
        // Controls: nothing listens where dispatch connects, and a queue that is full.
        Fault::new(
            "serve_elsewhere",
            failed(Verdict::ServeRefused, "other_address")
                .is("up_end", "refused")
                .key("peer_pid", Expect::Absent)
                .key("peer_comm", Expect::Absent)
                .key("peer_exit", Expect::Absent),
            |fx| {
                fx.serve(&["--ip", "::1"])?;
                Client::refused(fx.config()).map(drop)
            },
        ),
        // A process of another user on serve's port, on each address that takes its connections.
        foreign("foreign_listener", |fx| foreign_listener(fx, "127.0.0.1")),
        foreign("foreign_listener_ipv6", |fx| foreign_listener(fx, "[::]")),
        Fault::new(
            "accept_queue_full",
            failed(Verdict::ServeTimeout, "connect_timeout")
                .is("up_end", "none")
                .key("up_silent_ms", waited()),
            |fx| {
                fx.serve(&["--backlog", "1"])?;
                fx.last_serve().process.signal(libc::SIGSTOP)?;
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fx.last_serve().port));
                let mut waiting = Vec::new();
                while let Ok(stream) = TcpStream::connect_timeout(&address, PROBE) {
                    waiting.push(stream);
                }
                Client::refused(fx.config()).map(drop)
            },
        )
        .timeout(60),
        Fault::new(
            "client_gives_up_at_open",
            left(Verdict::ServeTimeout, "handshake_timeout", 5_000).is("confidence", "likely"),
            |fx| leave(fx, OPEN_TIMEOUT),
        ),
        Fault::new(
            "client_impatient_at_open",
            left(Verdict::ClientLeft, "fin", 2_000).is("confidence", "likely"),
            |fx| leave(fx, IMPATIENT),
        ),
        // It may leave before the process of the port is known.
        Fault::new("client_quick_at_open", left(Verdict::ClientLeft, "fin", 300).without_peer(), |fx| {
            leave(fx, QUICK)
        }),
    ]
}

fn foreign(name: &'static str, run: fn(&mut Fixture<'_>) -> Result<()>) -> Fault {
    Fault::new(
        name,
        failed(Verdict::ServeRefused, "foreign_listener")
            .is("segment", "devvm")
            .is("up_end", "none")
            .is("peer_uid", &STRANGER.to_string())
            .key("peer_pid", Expect::Free)
            .key("peer_comm", Expect::Free),
        run,
    )
}

/// serve does not run, and another user listens on its port. Fails if anything is sent there.
fn foreign_listener(fx: &mut Fixture<'_>, ip: &str) -> Result<()> {
    let port = fx.stack.port(&fx.user)?;
    let what = || format!("listen on {ip}:{port} as uid {STRANGER}");
    let listener = sys::listen_as(STRANGER, &format!("{ip}:{port}")).attempt(what)?;
    Client::refused(fx.config()).map(drop)?;
    listener.set_nonblocking(true).attempt(what)?;
    match listener.accept() {
        Ok(_) => Err(TestError::Unexpected { what: "no connection".to_owned(), got: "one".to_owned() }),
        Err(_) => Ok(()),
    }
}

/// serve listens, and the firewall does not let dispatch connect.
fn refused(fx: &mut Fixture<'_>, action: &str) -> Result<()> {
    fx.serve(&[])?;
    std::thread::sleep(SEARCH);
    let rule = format!("iif lo tcp dport {} {action}", fx.last_serve().port);
    fx.firewall = Some(Firewall::new(&rule)?);
    Client::refused(fx.config()).map(drop)
}

/// serve accepts the connection and does not answer, and the client closes after some time.
fn leave(fx: &mut Fixture<'_>, after: Duration) -> Result<()> {
    fx.serve(&["--opening", "silent"])?;
    let mut config = fx.config();
    config.open_timeout = after;
    // The error is that of the timeout.
    drop(Client::connect(config));
    Ok(())
}
