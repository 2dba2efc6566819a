//! Outages of the host's own network: the link or the address of the downstream leg.
//!
//! To dispatch they look like a client that vanished; t3-trace sees the change itself.

use std::time::Duration;

use t3_record::{
    Cause::{DownstreamClosed, Graceful},
    ClosedBy, LegEnd, Segment, Verdict,
};

use super::{Expect, ExpectedRecord, Fault, Need};

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
    ]
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
