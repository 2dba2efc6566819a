//! Verdicts on a host that did not run: what each kind of evidence for it proves.

use super::tests::check;
use crate::{
    Side::Down,
    evidence::{Pause, Pressure, Span, Stall},
    verdict::evidence_builder::{END, EvidenceBuilder, MS},
};

const LIKELY: &str = "host_paused pause devvm downstream downstream_closed likely";
const STALLED: &str = "dispatch_stalled stall dispatch downstream downstream_closed likely";
const CLOSED: &str = "client_closed ws_close:1000 downstream downstream downstream_closed";

fn beat(before_end: u64) -> EvidenceBuilder {
    EvidenceBuilder::healthy().heartbeat(|h| {
        let at = END - before_end * MS;
        (h.last_ping_at, h.last_pong_at) = (Some(at), Some(at + MS));
    })
}

/// A pause that only clocks show which can be set.
fn paused(length: u64, ended: u64, beat_before_end: u64) -> EvidenceBuilder {
    let pause = Pause { at: END - ended * MS, length: length * MS, is_certain: false };
    beat(beat_before_end).relay(|r| r.pauses.push(pause))
}

#[test]
fn a_clock_that_can_be_set_proves_nothing() {
    check(paused(12_500, 20, 1_000).close(Down, 1000, END), LIKELY);
    check(paused(2_500, 20, 1_000).close(Down, 1000, END), &format!("{CLOSED} likely"));
    // The session had gone on after the pause: a heartbeat was answered.
    check(paused(12_500, 3_000, 2_000).close(Down, 1000, END), &format!("{CLOSED} proven"));
    check(paused(12_500, 1_200, 1_000).close(Down, 1000, END), LIKELY);
    // The kernel counted one of two pauses.
    let both = paused(12_500, 20, 1_000)
        .relay(|r| r.pauses.push(Pause { at: END - 30 * MS, length: 2_000 * MS, is_certain: true }));
    check(both.close(Down, 1000, END), LIKELY);
}

/// dispatch was late for `ms`, and t3-trace from `after` ms later to the same time.
fn late(ms: u64, after: u64) -> EvidenceBuilder {
    let until = END - 20 * MS;
    let span = Span { from: until - ms * MS + after * MS, until };
    beat(ms + 1_000).lag(ms, 20).kernel(|k| k.delays.push(span))
}

fn cpu_pressure(steal: Option<f32>) -> EvidenceBuilder {
    late(12_500, 900).kernel(|k| {
        let cpu = Some(Stall { some: 95.0, full: None, peak: 99.0, some30: 90.0 });
        k.pressure = Some(Pressure { cpu, ..Pressure::default() });
        k.steal = steal;
    })
}

#[test]
fn a_delay_of_both_programs_is_one_of_the_host() {
    check(late(12_500, 900).close(Down, 1000, END), LIKELY);
    check(late(12_500, 12_000).close(Down, 1000, END), STALLED);
    check(beat(13_500).lag(12_500, 20).close(Down, 1000, END), STALLED);
    // Other processes took the CPU, unless the hypervisor did.
    check(
        cpu_pressure(None).close(Down, 1000, END),
        "dispatch_stalled stall devvm downstream downstream_closed likely",
    );
    check(
        cpu_pressure(Some(5.0)).close(Down, 1000, END),
        "dispatch_stalled stall devvm downstream downstream_closed likely",
    );
    check(cpu_pressure(Some(60.0)).close(Down, 1000, END), LIKELY);
    // t3-trace was stopped alone, and dispatch was late for a part of that.
    let alone = |ms: u64| {
        let until = END - 20 * MS;
        late(6_000, 0).kernel(|k| k.delays = vec![Span { from: until - ms * MS, until }])
    };
    check(alone(12_100).close(Down, 1000, END), STALLED);
    check(alone(11_900).close(Down, 1000, END), LIKELY);
    // Shorter than any watchdog.
    check(late(2_500, 900).close(Down, 1000, END), &format!("{CLOSED} likely"));
}

#[test]
fn a_delay_or_a_pause_before_the_open_does_not_count() {
    let opened_late = |builder: EvidenceBuilder, before_end: u64| {
        builder.relay(|r| {
            (r.heartbeat, r.up.last_frame_at) = (None, None);
            r.opened_at = Some(END - before_end * MS);
            r.started_at = END - (before_end + 1) * MS;
        })
    };
    // Both programs were late until 20 ms before the end. Without heartbeats a close is likely.
    check(opened_late(late(12_500, 0), 12_000).close(Down, 1000, END), LIKELY);
    check(opened_late(late(12_500, 0), 15).close(Down, 1000, END), &format!("{CLOSED} likely"));
    check(opened_late(late(12_500, 0), 1_000).close(Down, 1000, END), &format!("{CLOSED} likely"));
    // A pause takes no time of the clock that orders the events.
    check(opened_late(paused(12_500, 20, 1_000), 21).close(Down, 1000, END), LIKELY);
    check(opened_late(paused(12_500, 20, 1_000), 19).close(Down, 1000, END), &format!("{CLOSED} likely"));
}
