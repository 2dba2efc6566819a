//! Faults at open: serve is not there, does not answer, or answers something else.

use t3_record::{Cause::UpstreamClosed, ClosedBy, LegEnd, Segment, Verdict};

use super::{Expect, Fault, Truth, World};
use crate::{client::Client, error::Result};

fn failed(verdict: Verdict, how: &str) -> Truth {
    Truth::unopened(verdict, Segment::Serve, UpstreamClosed, how, ClosedBy::Upstream)
        // The browser's connection is answered with an HTTP error; it may live on for another
        // request.
        .key("down_end", Expect::Free)
        .key("peer_exit", Expect::Free)
}

pub(super) fn faults() -> Vec<Fault> {
    let alive = |verdict, how| failed(verdict, how).is("peer_exit", "alive");
    vec![
        Fault::new(
            "serve_refused",
            failed(Verdict::ServeRefused, "refused").is("up_end", "refused").key("peer_exit", Expect::Absent),
            |w| refused(w, None),
        ),
        Fault::new(
            "serve_silent",
            alive(Verdict::ServeTimeout, "handshake_timeout")
                .one_of("up_end", &["none", "fin_out", "rst_out"]),
            |w| refused(w, Some("silent")),
        )
        .patience(60),
        rejected("serve_401", "status:401"),
        rejected("serve_403", "status:403"),
        rejected("serve_500", "status:500"),
        rejected("serve_502", "status:502"),
        Fault::new(
            "serve_garbage",
            alive(Verdict::ServeProtocol, "garbage")
                .one_of("up_end", &["fin_in", "fin_out", "rst_out", "none"]),
            |w| refused(w, Some("garbage")),
        ),
        Fault::new(
            "serve_wrong_accept",
            alive(Verdict::ServeProtocol, "bad_accept").one_of("up_end", &["fin_out", "rst_out", "none"]),
            |w| refused(w, Some("wrong_accept")),
        ),
        Fault::new(
            "serve_eof_at_open",
            alive(Verdict::ServeLeft, "handshake_eof").is("up_end", LegEnd::FinIn.as_str()),
            |w| refused(w, Some("eof")),
        ),
        Fault::new(
            "serve_rst_at_open",
            alive(Verdict::ServeReset, "handshake_eof").is("up_end", LegEnd::RstIn.as_str()),
            |w| refused(w, Some("reset")),
        ),
    ]
}

fn rejected(name: &'static str, how: &'static str) -> Fault {
    let truth = failed(Verdict::ServeRejected, how)
        .is("peer_exit", "alive")
        .one_of("up_end", &["fin_in", "fin_out", "rst_out", "none"]);
    Fault::new(
        name,
        truth,
        match how {
            "status:401" => |w| refused(w, Some("status:401")),
            "status:403" => |w| refused(w, Some("status:403")),
            "status:500" => |w| refused(w, Some("status:500")),
            _ => |w| refused(w, Some("status:502")),
        },
    )
}

/// A handshake through dispatch that must fail; without a serve at all when there is no way to
/// open.
fn refused(w: &mut World<'_>, opening: Option<&str>) -> Result<()> {
    if let Some(opening) = opening {
        w.serve(&["--opening", opening])?;
    }
    // Which status the browser gets is dispatch's own affair; that it gets an answer is checked.
    Client::refused(w.config()).map(drop)
}
