//! Faults of a segment that several users share, in front of dispatch: many sessions cut in the
//! same second, and what only looks so.

use t3_record::{Cause::DownstreamClosed, Cause::Graceful, ClosedBy, LegEnd, Segment, Verdict};

use super::{Expect, Fault, Truth, World};
use crate::{error::Result, harness::Edge};

/// Sessions and users of the bursts.
pub(super) const SESSIONS: usize = 20;
pub(super) const USERS: usize = 5;

/// Tabs of one browser that is closed.
const TABS: usize = 6;

/// Each of the sessions cut in a burst; `ends` says how.
pub(super) fn burst(sessions: usize, users: usize) -> Truth {
    Truth::opened(Verdict::EdgeBurst, Segment::Downstream, DownstreamClosed, "burst", ClosedBy::Downstream)
        .is("peer_exit", "alive")
        .is("confidence", "likely")
        .is("burst", &format!("{sessions}/{users}"))
}

/// A session that was not hit and ends later by a browser's Close 1000.
pub(super) fn untouched() -> Truth {
    Truth::opened(Verdict::ClientClosed, Segment::Downstream, Graceful, "ws_close:1000", ClosedBy::Downstream)
        .is("peer_exit", "alive")
        .close_frame("down", "1000", "")
        .ends(LegEnd::FinOut, LegEnd::FinIn)
}

fn left(how: &str) -> Truth {
    Truth::opened(Verdict::ClientLeft, Segment::Downstream, DownstreamClosed, how, ClosedBy::Downstream)
        .is("peer_exit", "alive")
        .ends(LegEnd::FinIn, LegEnd::FinOut)
}

pub(super) fn faults() -> Vec<Fault> {
    let all = burst(SESSIONS, USERS);
    vec![
        Fault::new("burst_fin", all.clone().ends(LegEnd::FinIn, LegEnd::FinOut), |w| {
            crowd(w)?;
            (0..SESSIONS).for_each(|number| w.nth(number).fin());
            Ok(())
        })
        .crowd(SESSIONS, USERS)
        .after(|w| w.one_burst(SESSIONS as u64, USERS as u64)),
        Fault::new("burst_rst", all.ends(LegEnd::RstIn, LegEnd::RstOut), |w| {
            crowd(w)?;
            (0..SESSIONS).for_each(|number| w.nth(number).reset());
            Ok(())
        })
        .crowd(SESSIONS, USERS)
        .after(|w| w.one_burst(SESSIONS as u64, USERS as u64)),
        // One person closes the browser: whatever the tabs still get to say, nothing shared has
        // broken.
        Fault::new(
            "tabs_closed",
            untouched().is("how", "ws_close:1001").close_frame("down", "1001", ""),
            |w| {
                w.crowd(TABS, 1, w.stack.address)?;
                (0..TABS).for_each(|number| w.nth(number).close(Some(1001), ""));
                Ok(())
            },
        )
        .crowd(TABS, 1)
        .after(|w| w.no_burst()),
        Fault::new("tabs_left", left("fin").is("burst", "6/1"), |w| {
            w.crowd(TABS, 1, w.stack.address)?;
            w.all_quiet()?;
            (0..TABS).for_each(|number| w.nth(number).fin());
            Ok(())
        })
        .crowd(TABS, 1)
        .after(|w| w.one_burst(TABS as u64, 1)),
        // Four of four users are too few to speak of a segment.
        Fault::new("four_left", left("fin").key("burst", Expect::Absent), |w| {
            w.crowd(4, 4, w.stack.address)?;
            w.all_quiet()?;
            (0..4).for_each(|number| w.nth(number).fin());
            Ok(())
        })
        .crowd(4, 4)
        .after(|w| w.no_burst()),
        // Everybody's sessions go through one process, and it is restarted (cloudflared).
        Fault::new("edge_restarted", burst(SESSIONS, USERS).ends(LegEnd::FinIn, LegEnd::FinOut), |w| {
            let edge = Edge::start(4, w.stack.address)?;
            w.crowd(SESSIONS, USERS, edge.address)?;
            w.all_quiet()?;
            edge.restart();
            Ok(())
        })
        .crowd(SESSIONS, USERS)
        .after(|w| w.one_burst(SESSIONS as u64, USERS as u64)),
        // One of its four connections is lost: a quarter of the sessions, dealt out over all users.
        // The others live on.
        Fault::new("tunnel_lost", burst(SESSIONS / 4, USERS).ends(LegEnd::FinIn, LegEnd::FinOut), |w| {
            let edge = Edge::start(4, w.stack.address)?;
            w.crowd(SESSIONS, USERS, edge.address)?;
            let others = || (0..SESSIONS).filter(|number| number % 4 != 0);
            others().for_each(|number| w.set_aside(number % USERS, number));
            w.all_quiet()?;
            edge.lose(0);
            for number in (0..SESSIONS).step_by(4) {
                w.nth(number).wait_end()?;
            }
            w.one_burst(SESSIONS as u64 / 4, USERS as u64)?;
            for number in others() {
                w.nth(number).heartbeat(Some(super::PERIOD));
                w.nth(number).heartbeats(2)?;
                w.nth(number).close(Some(1000), "");
                w.nth(number).wait_end()?;
            }
            Ok(())
        })
        .crowd(SESSIONS, USERS)
        .aside(untouched().key("hb_gap_ms", Expect::Range(0, 20_000)))
        .patience(60),
    ]
}

fn crowd(w: &mut World<'_>) -> Result<()> {
    w.crowd(SESSIONS, USERS, w.stack.address)?;
    w.all_quiet()
}
