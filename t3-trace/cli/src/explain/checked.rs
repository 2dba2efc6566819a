//! What was looked at besides the answer: what was clean, what stood beside the close without being
//! its cause, and what could not be looked at. Pure; by the verdict's own rules and numbers, so
//! that nothing here speaks against it.

use t3_record::{
    CloseRecord, How, KernelSource, Segment, Verdict, evidence::Fate, value::Percent, verdict::pressure,
};

use super::facts::ExplainInput;
use crate::{
    layers::{Layer, QueryStatus},
    present::{
        text::{lasted, safe},
        units,
    },
};

/// One thing that was looked at, or could not be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Check {
    /// What.
    pub what: &'static str,
    /// What there is to say.
    pub said: String,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks {
    /// Was as it should be.
    pub clean: Vec<Check>,
    /// Was not, and by the verdict's rules is not why this session ended.
    pub beside: Vec<Check>,
    /// Could not be looked at, or was not.
    pub unknown: Vec<Check>,
}

impl Checks {
    fn clean(&mut self, what: &'static str, said: impl Into<String>) {
        self.clean.push(Check { what, said: said.into() });
    }

    fn beside(&mut self, what: &'static str, said: impl Into<String>) {
        self.beside.push(Check { what, said: said.into() });
    }

    fn unknown(&mut self, what: &'static str, said: impl Into<String>) {
        self.unknown.push(Check { what, said: said.into() });
    }
}

/// No watchdog is shorter, and a ping may be on its way when the end comes.
const SHORTEST_WAIT: u64 = 1_000;
/// An event loop that is this late had no CPU for a moment.
const LATE: u64 = 400;

/// What there is to say about each.
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
    machine(&mut checks, record);
    memory(&mut checks, record);
    legs(&mut checks, record);
    dispatch(&mut checks, record);
    neighbours(&mut checks, facts);
    layers(&mut checks, facts);
    checks
}

fn kernel(checks: &mut Checks, record: &CloseRecord) {
    let adds = "it would add who acted first to the microsecond, serve's fate and who sent its signal, and the pressure";
    match record.kernel {
        KernelSource::Kprobe | KernelSource::Tracepoint => match record.lost {
            Some(lost) => {
                let events = units::count(lost, "kernel event");
                checks.unknown(
                    "kernel",
                    format!(
                        "{events} had been lost before this record; one of this session may be among them"
                    ),
                );
            }
            None => {
                checks.clean("kernel", format!("watched both legs ({}), no event was lost", record.kernel));
            }
        },
        KernelSource::Off => {
            checks.unknown(
                "kernel",
                format!("t3-trace was not there or had no programs loaded (kernel=off); {adds}"),
            );
        }
        KernelSource::Timeout => {
            checks.unknown("kernel", format!("t3-trace did not answer in time (kernel=timeout); {adds}"));
        }
    }
    if record.how == Some(How::Rst) && record.rst_reason.is_none() {
        checks.unknown("reset", "the kernel gave no reason for it; Linux 6.10 and newer do");
    }
}

fn process(checks: &mut Checks, record: &CloseRecord) {
    let Some(fate) = record.peer_exit else {
        checks.unknown("serve", "which process stood behind its socket, and whether it lives");
        return;
    };
    let process = units::process(record).unwrap_or_else(|| "its process".to_owned());
    let died_of_it =
        matches!(record.verdict, Verdict::ServeExited | Verdict::ServeKilled | Verdict::ServeOom);
    if fate == Fate::Alive {
        checks.clean("serve", format!("{process} lives"));
    } else if !died_of_it {
        checks.beside(
            "serve",
            format!("{process} {}, but that is not what ended this session", units::fate(fate)),
        );
    }
}

fn heartbeats(checks: &mut Checks, record: &CloseRecord) {
    let Some(pings @ 1..) = record.hb_n else {
        let died = record.verdict == Verdict::DispatchDied;
        let none = "none was seen: the session was short, or its client sends none";
        checks.unknown("heartbeats", if died { "what t3-dispatch knew of them died with it" } else { none });
        return;
    };
    let pings = units::count(pings, "ping");
    let worst =
        record.hb_rtt_max_ms.map_or_else(String::new, |ms| format!(", worst answer after {}", lasted(ms)));
    // As the verdict has it: nine tenths of a period, because the watchdog looks at the next tick
    // and ticks jitter.
    let patience = (record.hb_period_ms.unwrap_or(0).saturating_mul(9) / 10).max(SHORTEST_WAIT);
    match record.hb_wait_ms.filter(|wait| *wait >= patience) {
        None if record.how == Some(How::HeartbeatLost) => {
            checks.clean("serve's answers", format!("{pings}, each one that came was answered{worst}"));
        }
        None => checks.clean("heartbeats", format!("{pings}, none waited too long{worst}")),
        Some(_) if matches!(record.how, Some(How::Stall)) => {}
        Some(wait) => {
            checks.beside(
                "heartbeats",
                format!(
                    "one had waited {} for its answer, but something else ended the session",
                    lasted(wait)
                ),
            );
        }
    }
}

/// The layers in front of this machine could say more.
fn in_front(record: &CloseRecord) -> bool {
    matches!(record.segment, Segment::Downstream | Segment::Unknown)
}

/// The verdict blames pressure, or could have.
fn blamed(record: &CloseRecord) -> bool {
    record.segment == Segment::Devvm && record.verdict != Verdict::AdminKilled
}

/// One of the shares is as high as would explain a stall of serve's cgroup.
pub(super) fn at_least(shares: [Option<Percent>; 3], limits: [f32; 3]) -> bool {
    shares.iter().zip(limits).any(|(share, limit)| share.is_some_and(|share| share.0 >= limit))
}

fn cgroup(checks: &mut Checks, record: &CloseRecord) {
    let shares = [record.psi_mem, record.psi_io, record.psi_cpu];
    let said = units::shares(shares);
    if said.is_empty() {
        checks.unknown(
            "pressure of serve",
            "not measured: no PSI or no cgroup v2 on this machine, no t3-trace, or no process to measure; it would tell \
             whether the machine starved serve",
        );
    } else if blamed(record) {
    } else if at_least(shares, pressure::limits()) {
        checks.beside(
            "pressure of serve",
            format!("{said} of the last 10 s: high, and it did not end this session"),
        );
    } else {
        checks.clean("pressure of serve", format!("{said} of the last 10 s"));
    }
}

fn machine(checks: &mut Checks, record: &CloseRecord) {
    let shares = [record.host_psi_mem, record.host_psi_io, record.host_psi_cpu];
    let said = units::shares(shares);
    if said.is_empty() {
        checks.unknown("pressure of the machine", "not measured: no PSI, or no t3-trace");
    } else if blamed(record) {
    } else if at_least(shares, pressure::limits()) {
        checks.beside(
            "pressure of the machine",
            format!("{said} of the last 10 s: some task waited, and it did not end this session"),
        );
    } else {
        checks.clean("pressure of the machine", format!("{said} of the last 10 s"));
    }
}

fn memory(checks: &mut Checks, record: &CloseRecord) {
    match (record.oom_kills, record.verdict) {
        (_, Verdict::ServeOom) => {}
        (None, _) => checks.unknown(
            "OOM kills",
            "not counted: no memory controller of cgroup v2 on this machine, or no t3-trace",
        ),
        (Some(0), _) => checks.clean("OOM kills", "none in serve's cgroup in the last 60 s"),
        (Some(kills), _) => {
            let kills = units::count(kills, "kill");
            let said = format!(
                "{kills} in serve's cgroup in the last 60 s: another process of it, which ended no session"
            );
            checks.beside("OOM kills", said);
        }
    }
    if let (Some(current), Some(most)) = (record.mem_current, record.mem_max) {
        let said = format!("{} of {}", units::size(current), units::size(most));
        // Nine tenths of the limit.
        if u128::from(current) * 10 >= u128::from(most) * 9
            && record.verdict != Verdict::ServeOom
            && !blamed(record)
        {
            checks.beside("memory of serve", format!("{said}: nearly all that it may have"));
        } else {
            checks.clean("memory of serve", said);
        }
    }
}

fn legs(checks: &mut Checks, record: &CloseRecord) {
    let legs = [
        (
            "leg of the browser",
            "Traefik's node",
            record.down_rtt_us,
            record.down_retrans,
            record.down_lost,
            record.down_unacked,
        ),
        ("leg of serve", "serve", record.up_rtt_us, record.up_retrans, record.up_lost, record.up_unacked),
    ];
    for (what, to, rtt, retrans, lost, unacked) in legs {
        let Some(rtt) = rtt else { continue };
        let rtt = match rtt {
            0..1000 => format!("{rtt} µs to {to} and back"),
            _ => format!("{}.{} ms to {to} and back", rtt / 1000, rtt % 1000 / 100),
        };
        match (retrans.unwrap_or(0), lost.unwrap_or(0)) {
            (0, 0) => checks.clean(what, format!("{rtt}, nothing retransmitted")),
            _ if matches!(record.how, Some(How::Loss | How::ZeroWindow | How::Vanished)) => {}
            (retrans, lost) => {
                let unacked = unacked.unwrap_or(0);
                let segments = format!("retransmitted {retrans}, lost {lost}, not acknowledged {unacked}");
                checks.beside(what, format!("{rtt}; segments {segments}: loss alone ends no session"));
            }
        }
    }
}

fn dispatch(checks: &mut Checks, record: &CloseRecord) {
    match record.self_lag_ms {
        // When it died it could not say.
        None if record.verdict == Verdict::DispatchDied => {}
        None => checks.unknown("t3-dispatch", "how late its own event loop was"),
        Some(_) if record.verdict == Verdict::DispatchStalled && record.how == Some(How::Stall) => {}
        Some(late @ LATE..) => {
            checks.beside(
                "t3-dispatch",
                format!(
                    "its event loop was up to {} late in the last 30 s, and that did not end this session",
                    lasted(late)
                ),
            );
        }
        Some(late) => checks.clean(
            "t3-dispatch",
            format!("its event loop was never more than {} late in the last 30 s", lasted(late)),
        ),
    }
}

fn neighbours(checks: &mut Checks, facts: &ExplainInput) {
    let record = &facts.record;
    if let Some(burst) = record.burst.filter(|_| record.verdict != Verdict::EdgeBurst) {
        let (n, users) =
            (units::count(burst.sessions.into(), "session"), units::count(burst.users.into(), "user"));
        checks.beside(
            "burst",
            format!("{n} of {users} ended within the same second; this one has a cause of its own"),
        );
    }
    let Some(around) = &facts.around else {
        checks.unknown("journal", "nothing but this record was looked at");
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
        0 => checks.clean("other sessions", format!("none closed {span}")),
        // They are the evidence.
        _ if record.verdict == Verdict::EdgeBurst => {}
        n => {
            let theirs = around.closes.iter().filter(|close| close.what.user == record.user).count();
            let (n, user) = (units::count(n, "other"), safe(&record.user));
            checks.beside(
                "other sessions",
                format!("{n} closed {span}, {theirs} of them of {user}; each has a record of its own"),
            );
        }
    }
    let probed = facts.gathered.layers.probe.is_some() || !around.deaths.is_empty();
    if !probed && in_front(record) {
        let said = "nothing of it is in this journal: its legs were well, or it runs on another machine, as it should";
        checks.unknown("probe", said);
    }
    if around.foreign + around.broken > 0 {
        let (foreign, broken) = (around.foreign, around.broken);
        let ours = "t3-dispatch, t3-trace and root";
        let said = format!(
            "{foreign} entries that others than {ours} wrote were left out, {broken} could not be read"
        );
        checks.unknown("journal", said);
    }
}

fn layers(checks: &mut Checks, facts: &ExplainInput) {
    let in_front = in_front(&facts.record);
    let outcomes = &facts.gathered.outcomes;
    let asked = |layer: Layer| {
        outcomes
            .iter()
            .find(|outcome| outcome.layer == layer)
            .map_or(&QueryStatus::No, |outcome| &outcome.asked)
    };
    let mut not = 0;
    for layer in Layer::ALL {
        match asked(layer) {
            QueryStatus::Yes { from, found, note } => {
                if let Some(note) = note {
                    checks
                        .unknown(layer.name(), format!("not all of it, from {}: {}", safe(from), safe(note)));
                // What these three have to say stands with the answer.
                } else if !(in_front && matches!(layer, Layer::Traefik | Layer::Cloudflared | Layer::Probe)) {
                    checks.clean(layer.name(), format!("{} around it, from {}", entries(*found), safe(from)));
                }
            }
            QueryStatus::Failed { why } => checks.unknown(layer.name(), safe(why)),
            QueryStatus::No if in_front => {
                checks.unknown(layer.name(), format!("not asked; would tell {}", layer.would_add()));
            }
            QueryStatus::No => not += 1,
        }
    }
    if not == Layer::ALL.len() {
        checks.unknown(
            "layers in front",
            "Traefik, cloudflared and the probe were not asked: the cause does not lie there",
        );
    }
}

fn entries(number: usize) -> String {
    if number == 1 { "1 entry".to_owned() } else { format!("{number} entries") }
}
