//! Outages of the host's own network: the link or the address of the downstream leg.
//!
//! To dispatch they look like a client that vanished; t3-trace sees the change itself. And rules of
//! the host's firewall between dispatch and serve: serve's own end of the connection shows that
//! serve did nothing.

use std::time::Duration;

use t3_record::{
    Cause::{DownstreamClosed, Graceful, UpstreamClosed},
    ClosedBy, LegEnd, Segment, Verdict,
};

use super::{Expect, ExpectedRecord, Fault, Fixture, Need};
use crate::{error::Result, harness::Firewall};

/// Longer than the time after a short outage in which what it held up still arrives.
const OVER: Duration = Duration::from_secs(7);

pub(super) fn faults() -> Vec<Fault> {
    vec![
        Fault::new("own_link_down", cut_off("link_down"), |fx| {
            let netns = fx.session_over_link(|_| ())?;
            fx.stop_heartbeat()?;
            netns.set_near_link(false)?;
            fx.keep_netns(netns);
            Ok(())
        })
        .needs(&[Need::Root, Need::Netns])
        .timeout(180),
        Fault::new("own_address_removed", cut_off("address_removed"), |fx| {
            let netns = fx.session_over_link(|_| ())?;
            fx.stop_heartbeat()?;
            netns.remove_near_address()?;
            fx.keep_netns(netns);
            Ok(())
        })
        .needs(&[Need::Root, Need::Netns])
        .timeout(180),
        // Control: a short outage of an idle session, and later a page that is left.
        Fault::new("own_link_flap_idle", closed_later(), |fx| {
            let netns = fx.session_over_link(|_| ())?;
            fx.stop_heartbeat()?;
            netns.set_near_link(false)?;
            std::thread::sleep(Duration::from_millis(500));
            netns.set_near_link(true)?;
            std::thread::sleep(OVER);
            fx.client().close(Some(1001), "");
            fx.wait_end()?;
            fx.keep_netns(netns);
            Ok(())
        })
        .needs(&[Need::Root, Need::Netns])
        .timeout(60),
        Fault::new(
            "firewall_rejects_serve",
            between(Verdict::ServeReset, "rst", ClosedBy::Upstream)
                .is("up_end", "rst_in")
                .one_of("down_end", &["rst_out", "fin_out"]),
            |fx| {
                fx.session()?;
                reject(fx)?;
                fx.wait_end()
            },
        )
        .needs(&[Need::Root, Need::Kernel, Need::Firewall]),
        // The client's side of the connection is not of this host, so nothing tells the firewall's
        // RST from the client's.
        Fault::new("firewall_rejects_client", rejected_client(), |fx| {
            fx.session()?;
            let client = fx.client().local.port();
            // The client learns of no end: what dispatch sends it is rejected, too.
            fx.firewall = Some(Firewall::new(&format!("tcp dport {client} reject with tcp reset"))?);
            Ok(())
        })
        .needs(&[Need::Root, Need::Kernel, Need::Firewall]),
        Fault::new(
            "firewall_drops_to_serve",
            between(Verdict::ServeStalled, "loss", ClosedBy::Dispatch)
                .is("up_end", "timeout")
                .one_of("down_end", &["rst_out", "fin_out"])
                .key("hb_wait_ms", Expect::Range(5_000, 60_000))
                .key("up_idle_ms", Expect::Range(5_000, 60_000)),
            |fx| {
                fx.session()?;
                drop_packets(fx)?;
                fx.wait_end()
            },
        )
        .needs(&[Need::Root, Need::Kernel, Need::Firewall])
        .timeout(60),
        // Control: the packets arrive later, and the page is left.
        Fault::new(
            "firewall_drops_briefly",
            ExpectedRecord::opened(
                Verdict::ClientClosed,
                Segment::Downstream,
                Graceful,
                "ws_close:1001",
                ClosedBy::Downstream,
            )
            .is("peer_exit", "alive")
            .close_frame("down", "1001", "")
            .ends(LegEnd::FinOut, LegEnd::FinIn)
            .key("hb_rtt_max_ms", Expect::Range(500, 20_000)),
            |fx| {
                fx.session()?;
                drop_packets(fx)?;
                std::thread::sleep(Duration::from_millis(1_200));
                fx.firewall = None;
                fx.client().heartbeats(8)?;
                fx.client().close(Some(1001), "");
                fx.wait_end()
            },
        )
        .needs(&[Need::Root, Need::Kernel, Need::Firewall]),
    ]
}

/// Record of a session between whose processes the host's firewall stands.
fn between(verdict: Verdict, how: &str, closed_by: ClosedBy) -> ExpectedRecord {
    let expected = ExpectedRecord::opened(verdict, Segment::Devvm, UpstreamClosed, how, closed_by)
        .is("confidence", "likely")
        .is("peer_exit", "alive");
    ["up_retrans", "up_unacked", "up_lost"]
        .into_iter()
        .fold(expected, |expected, key| expected.key(key, Expect::Free))
}

fn rejected_client() -> ExpectedRecord {
    let expected = ExpectedRecord::opened(
        Verdict::ClientReset,
        Segment::Downstream,
        DownstreamClosed,
        "rst",
        ClosedBy::Downstream,
    )
    .is("confidence", "likely")
    .is("peer_exit", "alive")
    .is("down_end", "rst_in")
    .one_of("up_end", &["rst_out", "fin_out"]);
    ["down_retrans", "down_unacked", "down_lost"]
        .into_iter()
        .fold(expected, |expected, key| expected.key(key, Expect::Free))
}

/// Packets of dispatch to serve's port.
fn rule(fx: &Fixture<'_>, verdict: &str) -> Result<Firewall> {
    Firewall::new(&format!("tcp dport {} {verdict}", fx.stack.port(&fx.user)?))
}

fn reject(fx: &mut Fixture<'_>) -> Result<()> {
    fx.firewall = Some(rule(fx, "reject with tcp reset")?);
    Ok(())
}

fn drop_packets(fx: &mut Fixture<'_>) -> Result<()> {
    fx.firewall = Some(rule(fx, "drop")?);
    Ok(())
}

fn cut_off(change: &str) -> ExpectedRecord {
    let mut expected = ExpectedRecord::opened(
        Verdict::ClientVanished,
        Segment::Devvm,
        DownstreamClosed,
        "vanished",
        ClosedBy::Dispatch,
    )
    .is("confidence", "likely")
    .is("peer_exit", "alive")
    // Without a route the kernel may report that, and not the timeout.
    .one_of("how", &["vanished", "loss", "unreach"])
    .one_of("down_end", &["timeout", "unreach"])
    .one_of("up_end", &["fin_out", "rst_out"])
    .key("chain", Expect::Begins(format!("down:{change}@-")));
    for key in ["hb_gap_ms", "down_idle_ms", "up_idle_ms"] {
        expected = expected.key(key, Expect::Range(5_000, 180_000));
    }
    for key in ["down_retrans", "down_unacked", "down_lost"] {
        expected = expected.key(key, Expect::Free);
    }
    expected
}

fn closed_later() -> ExpectedRecord {
    let expected = ExpectedRecord::opened(
        Verdict::ClientClosed,
        Segment::Downstream,
        Graceful,
        "ws_close:1001",
        ClosedBy::Downstream,
    );
    // The Close frame itself ends the silence of the client.
    let idle = ["hb_gap_ms", "up_idle_ms"];
    idle.into_iter()
        .fold(expected, |expected, key| expected.key(key, Expect::Range(5_000, 60_000)))
        .is("peer_exit", "alive")
        .close_frame("down", "1001", "")
        .ends(LegEnd::FinOut, LegEnd::FinIn)
        .key("chain", Expect::Begins("down:link_down@-".to_owned()))
}
