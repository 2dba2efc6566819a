//! Faults of a segment that several users share, in front of dispatch: many sessions cut in the
//! same second, and what only looks so.

use t3_record::{Cause::DownstreamClosed, Cause::Graceful, ClosedBy, LegEnd, Segment, Verdict};

use super::{Expect, ExpectedRecord, Fault, Fixture};
use crate::{error::Result, harness::Edge};

/// Sessions and users of the bursts.
pub(super) const SESSIONS: usize = 20;
pub(super) const USERS: usize = 5;

/// Tabs of one browser that is closed.
const TABS: usize = 6;

/// Each of the sessions cut in a burst; `ends` says how.
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

/// A session that was not hit and ends later by a browser's Close 1000.
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
            crowd(fx)?;
            (0..SESSIONS).for_each(|number| fx.nth(number).fin());
            Ok(())
        })
        .crowd(SESSIONS, USERS)
        .after(|fx| fx.one_burst(SESSIONS as u64, USERS as u64)),
        Fault::new("burst_rst", all.ends(LegEnd::RstIn, LegEnd::RstOut), |fx| {
            crowd(fx)?;
            (0..SESSIONS).for_each(|number| fx.nth(number).reset());
            Ok(())
        })
        .crowd(SESSIONS, USERS)
        .after(|fx| fx.one_burst(SESSIONS as u64, USERS as u64)),
        // One person closes the browser: whatever the tabs still get to say, nothing shared has
        // broken.
        Fault::new(
            "tabs_closed",
            untouched().is("how", "ws_close:1001").close_frame("down", "1001", ""),
            |fx| {
                fx.crowd(TABS, 1, fx.stack.address)?;
                (0..TABS).for_each(|number| fx.nth(number).close(Some(1001), ""));
                Ok(())
            },
        )
        .crowd(TABS, 1)
        .after(|fx| fx.no_burst()),
        Fault::new("tabs_left", left("fin").is("burst", "6/1"), |fx| {
            fx.crowd(TABS, 1, fx.stack.address)?;
            fx.all_quiet()?;
            (0..TABS).for_each(|number| fx.nth(number).fin());
            Ok(())
        })
        .crowd(TABS, 1)
        .after(|fx| fx.one_burst(TABS as u64, 1)),
        // Four of four users are too few to speak of a segment.
        Fault::new("four_left", left("fin").key("burst", Expect::Absent), |fx| {
            fx.crowd(4, 4, fx.stack.address)?;
            fx.all_quiet()?;
            (0..4).for_each(|number| fx.nth(number).fin());
            Ok(())
        })
        .crowd(4, 4)
        .after(|fx| fx.no_burst()),
        // Everybody's sessions go through one process, and it is restarted (cloudflared).
        Fault::new("edge_restarted", burst(SESSIONS, USERS).ends(LegEnd::FinIn, LegEnd::FinOut), |fx| {
            let edge = Edge::start(4, fx.stack.address)?;
            fx.crowd(SESSIONS, USERS, edge.address)?;
            fx.all_quiet()?;
            edge.restart();
            Ok(())
        })
        .crowd(SESSIONS, USERS)
        .after(|fx| fx.one_burst(SESSIONS as u64, USERS as u64)),
        // One of its four connections is lost: a quarter of the sessions, dealt out over all users.
        // The others live on.
        Fault::new("tunnel_lost", burst(SESSIONS / 4, USERS).ends(LegEnd::FinIn, LegEnd::FinOut), |fx| {
            let edge = Edge::start(4, fx.stack.address)?;
            fx.crowd(SESSIONS, USERS, edge.address)?;
            let others = || (0..SESSIONS).filter(|number| number % 4 != 0);
            others().for_each(|number| fx.set_aside(number % USERS, number));
            fx.all_quiet()?;
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
        .crowd(SESSIONS, USERS)
        .aside(untouched().key("hb_gap_ms", Expect::Range(0, 20_000)))
        .timeout(60),
    ]
}

fn crowd(fx: &mut Fixture<'_>) -> Result<()> {
    fx.crowd(SESSIONS, USERS, fx.stack.address)?;
    fx.all_quiet()
}
