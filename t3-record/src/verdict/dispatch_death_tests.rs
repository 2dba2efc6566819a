//! Verdicts of sessions whose t3-dispatch process died.

use super::{
    Side::{Down, Up},
    evidence_builder::{END, EvidenceBuilder, MS},
    tests::check,
    *,
};
use crate::evidence::*;

#[test]
fn the_end_of_the_dispatch_process() {
    let died = |fate| {
        let mut s = EvidenceBuilder::healthy()
            .socket(Down, |t| t.fin_out = Some(END))
            .socket(Up, |t| t.fin_out = Some(END));
        s.0.relay = None;
        s.0.dispatch_died = Some(DispatchDeath { fate, at: END });
        s
    };
    check(
        died(Some(Fate::Signal(9))),
        "dispatch_died proxy_signal:9 dispatch dispatch dispatch_closed proven",
    );
    check(died(Some(Fate::Exit(101))), "dispatch_died proxy_gone dispatch dispatch dispatch_closed proven");
    check(died(None), "dispatch_died proxy_gone dispatch dispatch dispatch_closed likely");
    // dispatch had reported a Close frame: what came before is known, what came after is not.
    let reported = |code| {
        let mut s = EvidenceBuilder::healthy()
            .close(Down, code, END - 300 * MS)
            .socket(Up, |t| t.fin_out = Some(END));
        s.0.dispatch_died = Some(DispatchDeath { fate: Some(Fate::Signal(6)), at: END });
        s
    };
    check(reported(1000), "client_closed ws_close:1000 downstream downstream downstream_closed likely");
    check(reported(1001), "client_closed ws_close:1001 downstream downstream downstream_closed likely");
    // It crashed first, and the browser gave up while it wrote its core dump.
    let mut crashed = reported(1000);
    crashed.0.dispatch_died = Some(DispatchDeath { fate: Some(Fate::Signal(6)), at: END - 400 * MS });
    check(crashed, "dispatch_died proxy_signal:6 dispatch dispatch dispatch_closed proven");
    // serve was killed before dispatch died, and its record was not yet written.
    let earlier = died(Some(Fate::Signal(9)))
        .socket(Up, |t| t.rst_in = Some(END - 50 * MS))
        .peer(Fate::Signal(9), END - 51 * MS);
    check(earlier, "serve_killed signal:9 serve upstream upstream_closed proven");
    // Without the facts of the relay a FIN can be the reply to the other peer's Close frame.
    let after = |side: Side, change: fn(&mut SocketFacts)| died(Some(Fate::Signal(9))).socket(side, change);
    let fin: fn(&mut SocketFacts) = |t| t.fin_in = Some(END - 20 * MS);
    for side in [Up, Down] {
        check(after(side, fin), "dispatch_died proxy_signal:9 dispatch dispatch dispatch_closed likely");
    }
    check(
        after(Up, fin).peer(Fate::Exit(3), END - 21 * MS),
        "serve_exited exit:3 serve upstream upstream_closed proven",
    );
    check(
        after(Down, |t| t.rst_in = Some(END - 20 * MS)),
        "client_reset rst downstream downstream downstream_closed likely",
    );
}
