//! Faults of a downstream segment that several users share: many sessions cut within one second,
//! and similar cases that are not bursts.

use t3_record::{Cause::DownstreamClosed, Cause::Graceful, ClosedBy, LegEnd, Segment, Verdict};

use super::{Expect, ExpectedRecord, Fault, Fixture};
use crate::{error::Result, harness::Edge};

/// Number of sessions of a burst.
pub(super) const SESSIONS: usize = 20;
pub(super) const USERS: usize = 5;

/// Tabs of one browser that is closed.
const TABS: usize = 6;

/// Record of a session cut in a burst; the caller adds the ends of the legs.
pub(super) fn burst(sessions: usize, users: usize) -> ExpectedRecord {
    ExpectedRecord::opened(
        Verdict::EdgeBurst,
        Segment::Downstream,
        DownstreamClosed,
        "burst",
        ClosedBy::Downstream,
    )
    .is("peer_exit", "alive")
    .is("confidence", "likely")
    .is("burst", &format!("{sessions}/{users}"))
}

/// Record of an unaffected session that the client closes later with 1000.
pub(super) fn untouched() -> ExpectedRecord {
    ExpectedRecord::opened(
        Verdict::ClientClosed,
        Segment::Downstream,
        Graceful,
        "ws_close:1000",
        ClosedBy::Downstream,
    )
    .is("peer_exit", "alive")
    .close_frame("down", "1000", "")
    .ends(LegEnd::FinOut, LegEnd::FinIn)
}

fn left(how: &str) -> ExpectedRecord {
    ExpectedRecord::opened(
        Verdict::ClientLeft,
        Segment::Downstream,
        DownstreamClosed,
        how,
        ClosedBy::Downstream,
    )
    .is("peer_exit", "alive")
    .ends(LegEnd::FinIn, LegEnd::FinOut)
}

pub(super) fn faults() -> Vec<Fault> {
    let all = burst(SESSIONS, USERS);
    vec![
        Fault::new("burst_fin", all.clone().ends(LegEnd::FinIn, LegEnd::FinOut), |fx| {
            open_all(fx)?;
            (0..SESSIONS).for_each(|number| fx.nth(number).fin());
            Ok(())
        })
        .many(SESSIONS, USERS)
        .after(|fx| fx.one_burst(SESSIONS as u64, USERS as u64)),
        Fault::new("burst_rst", all.ends(LegEnd::RstIn, LegEnd::RstOut), |fx| {
            open_all(fx)?;
            (0..SESSIONS).for_each(|number| fx.nth(number).reset());
            Ok(())
        })
        .many(SESSIONS, USERS)
        .after(|fx| fx.one_burst(SESSIONS as u64, USERS as u64)),
        // One user closes the browser: not a failure of a shared segment.
        Fault::new(
            "tabs_closed",
            untouched().is("how", "ws_close:1001").close_frame("down", "1001", ""),
            |fx| {
                fx.open_many(TABS, 1, fx.stack.address)?;
                (0..TABS).for_each(|number| fx.nth(number).close(Some(1001), ""));
                Ok(())
            },
        )
        .many(TABS, 1)
        .after(|fx| fx.no_burst()),
        Fault::new("tabs_left", left("fin").is("burst", "6/1"), |fx| {
            fx.open_many(TABS, 1, fx.stack.address)?;
            fx.stop_heartbeats()?;
            (0..TABS).for_each(|number| fx.nth(number).fin());
            Ok(())
        })
        .many(TABS, 1)
        .after(|fx| fx.one_burst(TABS as u64, 1)),
        // Four sessions are too few for a burst.
        Fault::new("four_left", left("fin").key("burst", Expect::Absent), |fx| {
            fx.open_many(4, 4, fx.stack.address)?;
            fx.stop_heartbeats()?;
            (0..4).for_each(|number| fx.nth(number).fin());
            Ok(())
        })
        .many(4, 4)
        .after(|fx| fx.no_burst()),
        // All sessions pass one process, which is restarted (cloudflared).
        Fault::new("edge_restarted", burst(SESSIONS, USERS).ends(LegEnd::FinIn, LegEnd::FinOut), |fx| {
            let edge = Edge::start(4, fx.stack.address)?;
            fx.open_many(SESSIONS, USERS, edge.address)?;
            fx.stop_heartbeats()?;
            edge.restart();
            Ok(())
        })
        .many(SESSIONS, USERS)
        .after(|fx| fx.one_burst(SESSIONS as u64, USERS as u64)),
        // One of its four connections is lost: a quarter of the sessions, of all users. The others
        // continue.
        Fault::new("tunnel_lost", burst(SESSIONS / 4, USERS).ends(LegEnd::FinIn, LegEnd::FinOut), |fx| {
            let edge = Edge::start(4, fx.stack.address)?;
            fx.open_many(SESSIONS, USERS, edge.address)?;
            let others = || (0..SESSIONS).filter(|number| number % 4 != 0);
            others().for_each(|number| fx.set_unaffected(number % USERS, number));
            fx.stop_heartbeats()?;
            edge.lose(0);
            for number in (0..SESSIONS).step_by(4) {
                fx.nth(number).wait_end()?;
            }
            fx.one_burst(SESSIONS as u64 / 4, USERS as u64)?;
            for number in others() {
                fx.nth(number).heartbeat(Some(super::PERIOD));
                fx.nth(number).heartbeats(2)?;
                fx.nth(number).close(Some(1000), "");
                fx.nth(number).wait_end()?;
            }
            Ok(())
        })
        .many(SESSIONS, USERS)
        .unaffected(untouched().key("hb_gap_ms", Expect::Range(0, 20_000)))
        .timeout(60),
    ]
}

fn open_all(fx: &mut Fixture<'_>) -> Result<()> {
    fx.open_many(SESSIONS, USERS, fx.stack.address)?;
    fx.stop_heartbeats()
}
