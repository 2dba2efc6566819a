//! Fake serve and test client directly connected: each end must look to the peer as its name says,
//! because the fault catalogue relies on it.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::time::Duration;

use t3_testkit::{
    client::{Client, Config, Ended},
    harness::{Serve, free_port},
};
use tempfile::TempDir;

fn pair() -> (TempDir, Serve, Client) {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(dir.path(), free_port().unwrap(), &[], Vec::new()).unwrap();
    let client = Client::connect(config(&serve)).unwrap();
    client.heartbeats(2).unwrap();
    (dir, serve, client)
}

fn config(serve: &Serve) -> Config {
    let mut config = Config::new(([127, 0, 0, 1], serve.port).into(), "u0");
    config.heartbeat = Some(Duration::from_millis(20));
    config
}

#[test]
fn serve_ends_as_ordered() {
    let fin = (Some(Ended::Fin), None);
    for (order, (ended, code)) in [
        ("close 1011 oh", (Some(Ended::Fin), Some(Some(1011)))),
        ("close", (Some(Ended::Fin), Some(None))),
        ("fin", fin),
        ("mid_frame", fin),
        ("rst", (Some(Ended::Reset), None)),
        ("exit 3", fin),
        ("signal 9", fin),
        ("signal 11", fin),
    ] {
        let (_dir, serve, client) = pair();
        // Unread bytes in the socket of a killed process would turn its FIN into RST.
        client.heartbeat(None);
        client
            .wait("all heartbeat replies", Duration::from_secs(5), |seen| seen.pings == seen.pongs)
            .unwrap();
        serve.order(order).unwrap();
        let seen = client.wait_end().unwrap();
        assert_eq!(seen.ended, ended, "{order}");
        assert_eq!(seen.close.map(|(code, _)| code), code, "{order}");
        assert_eq!(seen.mid_frame, order == "mid_frame", "{order}");
    }
}

#[test]
fn serve_exits_with_the_ordered_status() {
    use std::os::unix::process::ExitStatusExt as _;
    for (order, code, signal) in
        [("exit 3", Some(3), None), ("signal 9", None, Some(9)), ("signal 11", None, Some(11))]
    {
        let (_dir, mut serve, _client) = pair();
        serve.order(order).unwrap();
        let status = serve.process.wait(Duration::from_secs(5)).unwrap().unwrap();
        assert_eq!((status.code(), status.signal()), (code, signal), "{order}");
    }
}

#[test]
fn a_muted_serve_does_not_reply_and_a_busy_one_replies_late() {
    let (_dir, serve, client) = pair();
    serve.order("mute").unwrap();
    let before = client.seen();
    client.wait("three more pings", Duration::from_secs(5), |seen| seen.pings >= before.pings + 3).unwrap();
    assert!(client.seen().pongs <= before.pongs + 1);
    serve.order("unmute").unwrap();
    client.heartbeats(2).unwrap();
    serve.begin("busy 300").unwrap();
    client.heartbeats(5).unwrap();
}

#[test]
fn opens_fail_as_ordered() {
    let (_dir, serve, _client) = pair();
    for (opening, answer) in [
        ("status:401", "HTTP/1.1 401"),
        ("garbage", "not HTTP"),
        ("wrong_accept", "HTTP/1.1 101"),
        ("eof", "the connection ended"),
        ("reset", "reset"),
    ] {
        serve.order(&format!("opening {opening}")).unwrap();
        let error = Client::connect(config(&serve)).unwrap_err().to_string();
        assert!(error.contains(answer), "{opening}: {error}");
    }
    serve.order("unlisten").unwrap();
    let error = Client::connect(config(&serve)).unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
    serve.order("listen").unwrap();
    serve.order("opening accept").unwrap();
    t3_testkit::wait::until("a session", Duration::from_secs(5), || Client::connect(config(&serve)).ok())
        .unwrap();
}
