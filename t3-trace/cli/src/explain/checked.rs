//! Checks besides the conclusion: healthy, unhealthy without being the cause, or not checked. Pure;
//! uses the rules and limits of the verdict, so that no check contradicts it.

use t3_record::{
    CloseRecord, How, KernelSource, Segment, Verdict, evidence::Fate, value::Percent, verdict::pressure,
};

use super::facts::ExplainInput;
use crate::{
    layers::{Layer, Outcome, QueryStatus},
    present::{
        text::{lasted, safe},
        units,
    },
};

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Check {
    #[serde(rename = "what")]
    pub name: &'static str,
    #[serde(rename = "said")]
    pub text: String,
}

/// All checks, by result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks {
    /// Healthy.
    pub healthy: Vec<Check>,
    /// Not healthy, and by the rules of the verdict not the cause.
    pub unhealthy: Vec<Check>,
    /// Not checked.
    pub unchecked: Vec<Check>,
}

impl Checks {
    fn healthy(&mut self, name: &'static str, text: impl Into<String>) {
        self.healthy.push(Check { name, text: text.into() });
    }

    fn unhealthy(&mut self, name: &'static str, text: impl Into<String>) {
        self.unhealthy.push(Check { name, text: text.into() });
    }

    fn unchecked(&mut self, name: &'static str, text: impl Into<String>) {
        self.unchecked.push(Check { name, text: text.into() });
    }
}

/// Shortest watchdog; a ping may be in flight at the end.
const SHORTEST_WAIT: u64 = 1_000;
/// Event loop lag from here on is reported, in milliseconds.
const LATE: u64 = 400;

/// Runs all checks.
#[must_use]
pub fn checks(facts: &ExplainInput) -> Checks {
    let mut checks = Checks::default();
    let record = &facts.record;
    kernel(&mut checks, record);
    process(&mut checks, record);
    if facts.opened() {
        heartbeats(&mut checks, record);
    }
    cgroup(&mut checks, record);
    host(&mut checks, record);
    memory(&mut checks, record);
    legs(&mut checks, record);
    dispatch(&mut checks, record);
    neighbours(&mut checks, facts);
    layers(&mut checks, facts);
    checks
}

fn kernel(checks: &mut Checks, record: &CloseRecord) {
    let adds = "it would add the exact first act, the exit of serve, the sender of its signal, and PSI";
    match record.kernel {
        KernelSource::Kprobe | KernelSource::Tracepoint => match record.lost {
            Some(lost) => {
                let events = units::count(lost, "kernel event");
                checks.unchecked(
                    "kernel",
                    format!("{events} lost before this record; one of this session may be among them"),
                );
            }
            None => {
                checks.healthy("kernel", format!("observed both legs ({}), no event lost", record.kernel));
            }
        },
        KernelSource::Off => {
            checks.unchecked("kernel", format!("no t3-trace, or no programs loaded (kernel=off); {adds}"));
        }
        KernelSource::Timeout => {
            checks.unchecked("kernel", format!("t3-trace did not answer in time (kernel=timeout); {adds}"));
        }
    }
    if record.how == Some(How::Rst) && record.rst_reason.is_none() {
        checks.unchecked("reset", "no reason from the kernel (needs Linux 6.10 or newer)");
    }
}

fn process(checks: &mut Checks, record: &CloseRecord) {
    if let Some(version) = &record.serve_version {
        checks.healthy("version", format!("serve's process reported {}", safe(version)));
    }
    let Some(fate) = record.peer_exit else {
        checks.unchecked("serve", "process behind its socket, and whether it is alive");
        return;
    };
    let process = units::process(record).unwrap_or_else(|| "its process".to_owned());
    let died_of_it =
        matches!(record.verdict, Verdict::ServeExited | Verdict::ServeKilled | Verdict::ServeOom);
    if fate == Fate::Alive {
        checks.healthy("serve", format!("{process} is alive"));
    } else if !died_of_it {
        checks.unhealthy(
            "serve",
            format!("{process} {}, but that did not end this session", units::fate(fate)),
        );
    }
}

fn heartbeats(checks: &mut Checks, record: &CloseRecord) {
    let Some(pings @ 1..) = record.hb_n else {
        let died = record.verdict == Verdict::DispatchDied;
        let none = "none: the session was short, or its client sends none";
        checks.unchecked("heartbeats", if died { "lost with the t3-dispatch process" } else { none });
        return;
    };
    let pings = units::count(pings, "ping");
    let worst = record.hb_rtt_max_ms.map_or_else(String::new, |ms| format!(", worst RTT {}", lasted(ms)));
    // As in the verdict: nine tenths of a period, because the watchdog checks at its next tick and
    // ticks jitter.
    let timeout = (record.hb_period_ms.unwrap_or(0).saturating_mul(9) / 10).max(SHORTEST_WAIT);
    match record.hb_wait_ms.filter(|wait| *wait >= timeout) {
        None if record.how == Some(How::HeartbeatLost) => {
            checks.healthy("serve's replies", format!("{pings}, all answered{worst}"));
        }
        None => checks.healthy("heartbeats", format!("{pings}, none unanswered for too long{worst}")),
        Some(_) if matches!(record.how, Some(How::Stall)) => {}
        Some(wait) => {
            checks.unhealthy(
                "heartbeats",
                format!("one was unanswered for {}, but another cause ended the session", lasted(wait)),
            );
        }
    }
}

/// Whether the edge could add evidence.
fn edge_matters(record: &CloseRecord) -> bool {
    matches!(record.segment, Segment::Downstream | Segment::Unknown)
}

/// Whether the verdict considers pressure.
fn considers_pressure(record: &CloseRecord) -> bool {
    record.segment == Segment::Devvm && record.verdict != Verdict::AdminKilled
}

/// Whether one of the PSI values reaches its limit.
pub(super) fn at_least(shares: [Option<Percent>; 3], limits: [f32; 3]) -> bool {
    shares.iter().zip(limits).any(|(share, limit)| share.is_some_and(|share| share.0 >= limit))
}

fn cgroup(checks: &mut Checks, record: &CloseRecord) {
    let shares = [record.psi_mem, record.psi_io, record.psi_cpu];
    let values = units::shares(shares);
    if values.is_empty() {
        checks.unchecked(
            "PSI of serve",
            "not measured: no PSI, no cgroup v2, no t3-trace, or no process; it would show whether pressure explains a \
             stall",
        );
    } else if considers_pressure(record) {
    } else if at_least(shares, pressure::limits()) {
        checks.unhealthy("PSI of serve", format!("{values} (10 s): high, but it did not end this session"));
    } else {
        checks.healthy("PSI of serve", format!("{values} (10 s)"));
    }
}

fn host(checks: &mut Checks, record: &CloseRecord) {
    let shares = [record.host_psi_mem, record.host_psi_io, record.host_psi_cpu];
    let values = units::shares(shares);
    if values.is_empty() {
        checks.unchecked("PSI of the host", "not measured: no PSI, or no t3-trace");
    } else if considers_pressure(record) {
    } else if at_least(shares, pressure::limits()) {
        checks
            .unhealthy("PSI of the host", format!("{values} (10 s): high, but it did not end this session"));
    } else {
        checks.healthy("PSI of the host", format!("{values} (10 s)"));
    }
}

fn memory(checks: &mut Checks, record: &CloseRecord) {
    match (record.oom_kills, record.verdict) {
        (_, Verdict::ServeOom) => {}
        (None, _) => checks.unchecked(
            "OOM kills",
            "not counted: no memory controller (cgroup v2) on this host, or no t3-trace",
        ),
        (Some(0), _) => checks.healthy("OOM kills", "none in serve's cgroup in the last 60 s"),
        (Some(kills), _) => {
            let kills = units::count(kills, "kill");
            let text = format!(
                "{kills} in serve's cgroup in the last 60 s: another process, which did not end this session"
            );
            checks.unhealthy("OOM kills", text);
        }
    }
    if let Some(times) = record.mem_high.filter(|times| *times > 0) {
        let times = units::count(times, "time");
        checks.unhealthy(
            "memory.high of serve",
            format!("throttled {times} in the last 60 s: serve is slower, and is not killed"),
        );
    }
    if let Some(free) = record.swap_free {
        let text = format!("{} free", units::size(free));
        if free == 0 {
            checks.unhealthy("swap of the host", "full".to_owned());
        } else {
            checks.healthy("swap of the host", text);
        }
    }
    if let (Some(current), Some(most)) = (record.mem_current, record.mem_max) {
        let text = format!("{} of {}", units::size(current), units::size(most));
        // Nine tenths of the limit.
        if u128::from(current) * 10 >= u128::from(most) * 9
            && record.verdict != Verdict::ServeOom
            && !considers_pressure(record)
        {
            checks.unhealthy("memory of serve", format!("{text}: close to the limit"));
        } else {
            checks.healthy("memory of serve", text);
        }
    }
}

fn legs(checks: &mut Checks, record: &CloseRecord) {
    let legs = [
        (
            "downstream leg",
            "Traefik node",
            record.down_rtt_us,
            record.down_retrans,
            record.down_lost,
            record.down_unacked,
        ),
        ("upstream leg", "serve", record.up_rtt_us, record.up_retrans, record.up_lost, record.up_unacked),
    ];
    for (what, to, rtt, retrans, lost, unacked) in legs {
        let Some(rtt) = rtt else { continue };
        let rtt = match rtt {
            0..1000 => format!("RTT {rtt} µs ({to})"),
            _ => format!("RTT {}.{} ms ({to})", rtt / 1000, rtt % 1000 / 100),
        };
        match (retrans.unwrap_or(0), lost.unwrap_or(0)) {
            (0, 0) => checks.healthy(what, format!("{rtt}, no retransmits")),
            _ if matches!(record.how, Some(How::Loss | How::ZeroWindow | How::Vanished)) => {}
            (retrans, lost) => {
                let unacked = unacked.unwrap_or(0);
                let segments = format!("retransmitted {retrans}, lost {lost}, not acknowledged {unacked}");
                checks.unhealthy(
                    what,
                    format!("{rtt}; segments {segments}: loss alone does not end a session"),
                );
            }
        }
    }
}

fn dispatch(checks: &mut Checks, record: &CloseRecord) {
    match record.self_lag_ms {
        // A dead process cannot report it.
        None if record.verdict == Verdict::DispatchDied => {}
        None => checks.unchecked("t3-dispatch", "event loop lag not recorded"),
        Some(_) if record.verdict == Verdict::DispatchStalled && record.how == Some(How::Stall) => {}
        Some(late @ LATE..) => {
            checks.unhealthy(
                "t3-dispatch",
                format!(
                    "event loop lag up to {} in the last 30 s, but it did not end this session",
                    lasted(late)
                ),
            );
        }
        Some(late) => {
            checks
                .healthy("t3-dispatch", format!("event loop lag at most {} in the last 30 s", lasted(late)));
        }
    }
}

fn neighbours(checks: &mut Checks, facts: &ExplainInput) {
    let record = &facts.record;
    if let Some(burst) = record.burst.filter(|_| record.verdict != Verdict::EdgeBurst) {
        let (n, users) =
            (units::count(burst.sessions.into(), "session"), units::count(burst.users.into(), "user"));
        checks.unhealthy(
            "burst",
            format!("{n} of {users} closed within one second; this one has a separate cause"),
        );
    }
    let Some(around) = &facts.around else {
        checks.unchecked("journal", "only this record was read");
        return;
    };
    let (before, after) = (
        facts.zero_ms().saturating_sub(around.from_ms).max(0),
        around.until_ms.saturating_sub(facts.zero_ms()).max(0),
    );
    let span = format!(
        "between {} before and {} after it",
        lasted(before.unsigned_abs()),
        lasted(after.unsigned_abs())
    );
    match around.closes.len() as u64 {
        0 => checks.healthy("other sessions", format!("none closed {span}")),
        // These closes are the evidence.
        _ if record.verdict == Verdict::EdgeBurst => {}
        n => {
            let theirs = around.closes.iter().filter(|close| close.what.user == record.user).count();
            let (n, user) = (units::count(n, "other"), safe(&record.user));
            checks.unhealthy(
                "other sessions",
                format!("{n} closed {span}, {theirs} of them of {user}; each has a separate record"),
            );
        }
    }
    let probed = facts.gathered.layers.probe.is_some() || !around.disconnects.is_empty();
    if !probed && edge_matters(record) {
        let text = "no probe records in this journal: all probe legs were healthy, or the probe runs on another host (recommended)";
        checks.unchecked("probe", text);
    }
    if around.incomplete {
        let text = "a part of the journal could not be read: entries around the close may be missing";
        checks.unchecked("journal", text);
    }
    if around.foreign + around.broken > 0 {
        let (foreign, broken) = (around.foreign, around.broken);
        let ours = "t3-dispatch, t3-trace or root";
        let text = format!("{foreign} entries not written by {ours} were ignored, {broken} cannot be read");
        checks.unchecked("journal", text);
    }
}

fn layers(checks: &mut Checks, facts: &ExplainInput) {
    let edge = edge_matters(&facts.record);
    let outcomes = &facts.gathered.outcomes;
    let status = |layer: Layer| {
        outcomes
            .iter()
            .find(|outcome| outcome.layer == layer)
            .map_or(&QueryStatus::No, |outcome| &outcome.status)
    };
    let mut not = 0;
    for layer in Layer::ALL {
        match status(layer) {
            QueryStatus::Yes { from, found, note } => {
                if let Some(note) = note {
                    checks
                        .unchecked(layer.name(), format!("incomplete, from {}: {}", safe(from), safe(note)));
                // Findings of these three are shown with the answer.
                } else if !is_in_answer(layer, edge) {
                    checks.healthy(
                        layer.name(),
                        format!("{} around the close, from {}", entries(*found), safe(from)),
                    );
                }
            }
            QueryStatus::Failed { why } => checks.unchecked(layer.name(), safe(why)),
            QueryStatus::No if edge && is_replaced(layer, outcomes) => {}
            QueryStatus::No if edge => {
                checks.unchecked(layer.name(), format!("not queried; would show {}", layer.would_add()));
            }
            QueryStatus::No => not += 1,
        }
    }
    if not == Layer::ALL.len() {
        checks
            .unchecked("edge", "Traefik, cloudflared and the probe were not queried: the cause is not there");
    }
}

/// Findings that are shown with the answer.
const fn is_in_answer(layer: Layer, edge: bool) -> bool {
    match layer {
        Layer::Traefik | Layer::Cloudflared | Layer::Probe => edge,
        Layer::Logpush | Layer::Envoy | Layer::Haproxy => true,
        Layer::Streams | Layer::Pressure => false,
    }
}

/// One of Traefik, Envoy and HAProxy is in place; Traefik unless another was queried.
fn is_replaced(layer: Layer, outcomes: &[Outcome]) -> bool {
    let queried = |outcome: &Outcome| {
        matches!(outcome.layer, Layer::Envoy | Layer::Haproxy) && outcome.status != QueryStatus::No
    };
    match layer {
        Layer::Traefik => outcomes.iter().any(queried),
        Layer::Envoy | Layer::Haproxy => true,
        _ => false,
    }
}

fn entries(number: usize) -> String {
    if number == 1 { "1 entry".to_owned() } else { format!("{number} entries") }
}
