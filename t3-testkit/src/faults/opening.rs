//! Faults at open: serve is unavailable, does not respond, or sends another response.

use t3_record::{Cause::UpstreamClosed, ClosedBy, LegEnd, Segment, Verdict};

use super::{Expect, ExpectedRecord, Fault, Fixture};
use crate::{client::Client, error::Result};

pub(super) fn failed(verdict: Verdict, how: &str) -> ExpectedRecord {
    ExpectedRecord::unopened(verdict, Segment::Serve, UpstreamClosed, how, ClosedBy::Upstream)
        // The client receives an HTTP error; its connection may stay open.
        .key("down_end", Expect::Free)
        .key("peer_exit", Expect::Free)
}

pub(super) fn faults() -> Vec<Fault> {
    let alive = |verdict, how| failed(verdict, how).is("peer_exit", "alive");
    vec![
        Fault::new(
            "serve_refused",
            failed(Verdict::ServeRefused, "refused").is("up_end", "refused").key("peer_exit", Expect::Absent),
            |fx| refused(fx, None),
        ),
        Fault::new(
            "serve_silent",
            alive(Verdict::ServeTimeout, "handshake_timeout")
                .one_of("up_end", &["none", "fin_out", "rst_out"]),
            |fx| refused(fx, Some("silent")),
        )
        .timeout(60),
        rejected("serve_401", "status:401"),
        rejected("serve_403", "status:403"),
        rejected("serve_500", "status:500"),
        rejected("serve_502", "status:502"),
        Fault::new(
            "serve_garbage",
            alive(Verdict::ServeProtocol, "garbage")
                .one_of("up_end", &["fin_in", "fin_out", "rst_out", "none"]),
            |fx| refused(fx, Some("garbage")),
        ),
        Fault::new(
            "serve_wrong_accept",
            alive(Verdict::ServeProtocol, "bad_accept").one_of("up_end", &["fin_out", "rst_out", "none"]),
            |fx| refused(fx, Some("wrong_accept")),
        ),
        Fault::new(
            "serve_eof_at_open",
            alive(Verdict::ServeLeft, "handshake_eof").is("up_end", LegEnd::FinIn.as_str()),
            |fx| refused(fx, Some("eof")),
        ),
        Fault::new(
            "serve_rst_at_open",
            alive(Verdict::ServeReset, "rst").is("up_end", LegEnd::RstIn.as_str()),
            |fx| refused(fx, Some("reset")),
        ),
    ]
}

fn rejected(name: &'static str, how: &'static str) -> Fault {
    let expected = failed(Verdict::ServeRejected, how)
        .is("peer_exit", "alive")
        .one_of("up_end", &["fin_in", "fin_out", "rst_out", "none"]);
    Fault::new(
        name,
        expected,
        match how {
            "status:401" => |fx| refused(fx, Some("status:401")),
            "status:403" => |fx| refused(fx, Some("status:403")),
            "status:500" => |fx| refused(fx, Some("status:500")),
            _ => |fx| refused(fx, Some("status:502")),
        },
    )
}

/// Sends an upgrade that must fail; without an `opening` no serve is started.
fn refused(fx: &mut Fixture<'_>, opening: Option<&str>) -> Result<()> {
    if let Some(opening) = opening {
        fx.serve(&["--opening", opening])?;
    }
    // Only that the client receives a response is checked here, not its status.
    Client::refused(fx.config()).map(drop)
}
