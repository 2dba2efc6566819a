//! Injects the faults of one target one after the other and compares the records of both ports.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use t3_record::TcpCloseRecord;

use super::{
    fault::{CATALOGUE, Fault, Place, Session, quiet},
    legs::{Leg, legs},
    proxy::{Proxy, Route, RunningProxy, path_of},
};
use crate::{
    client::{Client, Config, Ended},
    error::{Result, TestError},
    harness::{Cgroup, Netns, Serve},
    journald::Journal,
};

/// Answered heartbeats before a fault: the session is then older than [`MIN_DURATION`].
const HEARTBEATS: u64 = 4;
/// Period of the heartbeats.
const PERIOD: Duration = Duration::from_millis(200);
/// Minimum duration of a recorded connection: connections that test whether a port is open are
/// shorter.
const MIN_DURATION: Duration = Duration::from_millis(400);
/// Timeout for a line of the proxy's log.
const LOG: Duration = Duration::from_secs(1);
/// Timeout for the records of a fault.
const RECORD: Duration = Duration::from_secs(30);

/// A proxy in front of serve, or none, with the ports of each fault.
#[derive(Debug)]
pub struct Target {
    pub proxy: Option<Proxy>,
    routes: Vec<(Fault, Route)>,
}

/// One fault with what was found.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub proxy: Option<Proxy>,
    pub fault: Fault,
    /// Record of the proxy's port.
    pub at_proxy: Option<Leg>,
    /// Record of serve's port.
    pub at_serve: Option<Leg>,
    /// End of the client's connection, as the client saw it.
    pub seen: Option<Ended>,
    /// What the proxy's own log has.
    pub log: Vec<String>,
    /// Differences from the expected records; empty if none.
    pub mismatches: Vec<String>,
    /// Records that claim something wrong as proven.
    pub wrong_proven: usize,
}

/// What a run needs.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    pub journal: &'a Journal,
    /// Folder for sockets and files.
    pub dir: &'a Path,
}

impl Target {
    /// Selects the ports of the faults that are possible with this proxy, all or those named.
    pub fn new(proxy: Option<Proxy>, only: &[&str]) -> Result<Self> {
        let wanted = |fault: &&Fault| only.is_empty() || only.contains(&fault.name);
        let faults = CATALOGUE.iter().filter(|fault| fault.is_possible(proxy)).filter(wanted);
        let route = |fault: &Fault| {
            let mut route = Route::new(fault.name)?;
            if proxy.is_none() {
                // The client connects to serve.
                route.listen = route.serve;
            }
            Ok((*fault, if fault.place == Place::IdleTimeout { route.with_idle_timeout() } else { route }))
        };
        Ok(Self { proxy, routes: faults.map(route).collect::<Result<_>>()? })
    }

    /// Name in tables.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.proxy.map_or("direct", Proxy::name)
    }

    /// Arguments of `t3-trace daemon` that watch its ports.
    #[must_use]
    pub fn watch(&self) -> Vec<String> {
        let mut ports: Vec<u16> =
            self.routes.iter().flat_map(|(_, route)| [route.listen, route.serve]).collect();
        ports.dedup();
        let min = MIN_DURATION.as_millis();
        ports
            .iter()
            .flat_map(|port| ["--watch".to_owned(), format!("port={port},min-duration={min}ms")])
            .collect()
    }

    fn has(&self, port: u16) -> bool {
        self.routes.iter().any(|(_, route)| [route.listen, route.serve].contains(&port))
    }
}

/// Injects each fault of the target; `before` is called with it before, `after` with the outcome.
///
/// # Errors
/// The proxy or a fake serve does not start, or a session does not open or end as ordered.
pub fn run_target<E: From<TestError>>(
    run: Run<'_>,
    target: &Target,
    mut before: impl FnMut(&Fault) -> Result<(), E>,
    mut after: impl FnMut(&Outcome) -> Result<(), E>,
) -> Result<Vec<Outcome>, E> {
    let dir = run.dir.join(target.name());
    std::fs::create_dir_all(&dir)
        .map_err(|source| TestError::Io { what: format!("create {}", dir.display()), source })?;
    let run = Run { dir: &dir, ..run };
    let routes: Vec<Route> = target.routes.iter().map(|(_, route)| route.clone()).collect();
    let mut proxy = target.proxy.map(|proxy| RunningProxy::start(proxy, &dir, &routes)).transpose()?;
    let mut outcomes = Vec::new();
    for (fault, route) in &target.routes {
        before(fault)?;
        let context = |error: TestError| TestError::Unexpected {
            what: format!("{} with {}", fault.name, target.name()),
            got: format!("{error}\n{}", proxy.as_ref().map(RunningProxy::stderr).unwrap_or_default()),
        };
        let mut outcome = one(run, proxy.as_ref(), *fault, route).map_err(context)?;
        if let Some(proxy) = proxy.as_mut().filter(|_| fault.place == Place::Process) {
            let (status, leg) = (proxy.status(), outcome.at_proxy.as_ref());
            outcome.mismatches.extend(leg.and_then(|leg| contradicts_status(status.as_deref(), leg)));
        }
        after(&outcome)?;
        outcomes.push(outcome);
        if let Some(proxy) = proxy.as_mut().filter(|_| fault.place == Place::Process) {
            proxy.start_again()?;
        }
    }
    // Each connection has one record; a surplus one may come late.
    std::thread::sleep(Duration::from_millis(500));
    let found = run.journal.tcp_closes(|record| target.has(record.port))?.len();
    let expected: usize = outcomes.iter().map(|outcome| 1 + usize::from(outcome.proxy.is_some())).sum();
    if found > expected {
        let what = format!("{expected} records with {}", target.name());
        return Err(TestError::Unexpected { what, got: found.to_string() }.into());
    }
    Ok(outcomes)
}

fn one(run: Run<'_>, proxy: Option<&RunningProxy>, fault: Fault, route: &Route) -> Result<Outcome> {
    let cgroup = if fault.place == Place::Memory { Some(Cgroup::new()?) } else { None };
    let procs = cgroup.as_ref().map(Cgroup::procs_files).transpose()?.unwrap_or_default();
    let mut arguments = vec!["--deflate"];
    if proxy.is_none() {
        arguments.extend(["--ip", "0.0.0.0"]);
    }
    let serve = Serve::start(run.dir, route.serve, &arguments, procs)?;
    let netns = if fault.place == Place::Link { Some(Netns::new()?) } else { None };
    let client = Client::connect(config(route, netns.as_ref())?)?;
    client.heartbeats(HEARTBEATS)?;
    quiet(&client)?;
    let session = Session {
        client: &client,
        serve: &serve,
        proxy,
        port: route.listen,
        netns: netns.as_ref(),
        cgroup: cgroup.as_ref(),
    };
    fault.inject(&session)?;
    let kind = proxy.map(|proxy| proxy.proxy);
    let (at_proxy, at_serve) = records(run.journal, route, kind.is_some())?;
    let log = proxy.map(|proxy| log(proxy, route)).unwrap_or_default();
    let seen = client.seen().ended;
    drop(serve);
    Ok(compared(kind, fault, at_proxy, at_serve, seen, log))
}

/// A client like that of t3 today: compressed, with heartbeats.
fn config(route: &Route, netns: Option<&Netns>) -> Result<Config> {
    let mut config = Config::new(([127, 0, 0, 1], route.listen).into(), "u0");
    config.target = path_of(&route.name);
    config.heartbeat = Some(PERIOD);
    config.is_compressed = true;
    if let Some(netns) = netns {
        config.address = (netns.near, route.listen).into();
        config.namespace = Some(netns.descriptor()?);
    }
    Ok(config)
}

/// Waits for the record of each port; a missing one is a mismatch.
fn records(journal: &Journal, route: &Route, has_proxy: bool) -> Result<(Option<Leg>, Option<Leg>)> {
    let deadline = Instant::now() + crate::wait::scaled(RECORD);
    let is_of_route = |record: &TcpCloseRecord| {
        legs(record).iter().any(|(port, _)| [route.listen, route.serve].contains(port))
    };
    loop {
        let found = journal.tcp_closes(is_of_route)?;
        let find =
            |wanted: u16| found.iter().flat_map(legs).find(|(port, _)| *port == wanted).map(|(_, leg)| leg);
        let at_proxy = if has_proxy { find(route.listen) } else { None };
        let at_serve = find(route.serve);
        if (at_serve.is_some() && at_proxy.is_some() == has_proxy) || Instant::now() > deadline {
            return Ok((at_proxy, at_serve));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The proxy writes its log when both connections have ended, or nothing.
fn log(proxy: &RunningProxy, route: &Route) -> Vec<String> {
    let deadline = Instant::now() + LOG;
    // A first line may come before the end.
    std::thread::sleep(LOG / 5);
    loop {
        let found = proxy.log_of(&route.name);
        if !found.is_empty() || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(LOG / 20);
    }
}

fn compared(
    proxy: Option<Proxy>,
    fault: Fault,
    at_proxy: Option<Leg>,
    at_serve: Option<Leg>,
    seen: Option<Ended>,
    log: Vec<String>,
) -> Outcome {
    let expected = fault.expected(proxy);
    let named = |port: &str, leg: Option<&Leg>, found: Vec<String>| -> Vec<String> {
        let line = leg.map(|leg| leg.line.clone()).unwrap_or_default();
        found.into_iter().map(|wrong| format!("{port}: {wrong} in {line}")).collect()
    };
    let mut mismatches =
        named("serve's port", at_serve.as_ref(), expected.serve.mismatches(at_serve.as_ref()));
    let mut wrong_proven =
        at_serve.as_ref().map_or(0, |leg| usize::from(expected.serve.is_wrong_proven(leg)));
    if let Some(expected) = &expected.proxy {
        let wrong = expected.mismatches(at_proxy.as_ref());
        mismatches.extend(named("the proxy's port", at_proxy.as_ref(), wrong));
        wrong_proven += at_proxy.as_ref().map_or(0, |leg| usize::from(expected.is_wrong_proven(leg)));
    }
    let nearest = at_proxy.as_ref().or(at_serve.as_ref());
    mismatches.extend(nearest.and_then(|leg| contradicts(seen, leg)));
    Outcome { proxy, fault, at_proxy, at_serve, seen, log, mismatches, wrong_proven }
}

/// The client saw the end that the record gives to the process behind its port: an observation
/// that does not come from t3-trace.
fn contradicts(seen: Option<Ended>, leg: &Leg) -> Option<String> {
    let claimed = match leg.how.as_str() {
        "fin" if leg.closed_by == Some(t3_record::ClosedBy::Upstream) => Ended::Fin,
        "rst" if leg.closed_by == Some(t3_record::ClosedBy::Upstream) => Ended::Reset,
        _ => return None,
    };
    (seen != Some(claimed)).then(|| format!("the client saw {seen:?}, the record has {}", leg.line))
}

/// The exit status that the test has from wait(2) is that of the record, if it has one.
fn contradicts_status(status: Option<&str>, leg: &Leg) -> Option<String> {
    let claims = leg.how.starts_with("exit:") || leg.how.starts_with("signal:");
    let is_wrong = claims && status.is_some_and(|status| status != leg.how);
    is_wrong.then(|| format!("the proxy ended with {status:?}, the record has {}", leg.line))
}

#[cfg(test)]
mod tests {
    use t3_record::{ClosedBy, Confidence, Verdict};

    use super::*;

    fn leg(how: &str, closed_by: ClosedBy) -> Leg {
        Leg {
            verdict: Verdict::ServeLeft,
            how: how.to_owned(),
            closed_by: Some(closed_by),
            confidence: Some(Confidence::Likely),
            peer_comm: None,
            ends: String::new(),
            line: String::new(),
        }
    }

    #[test]
    fn what_the_client_and_the_parent_saw_decides() {
        let (up, down) = (ClosedBy::Upstream, ClosedBy::Downstream);
        assert_eq!(contradicts(Some(Ended::Fin), &leg("fin", up)), None);
        assert!(contradicts(Some(Ended::Reset), &leg("fin", up)).is_some());
        assert!(contradicts(None, &leg("rst", up)).is_some());
        assert_eq!(contradicts(Some(Ended::Ours), &leg("rst", down)), None, "an act of the client");
        assert_eq!(contradicts_status(Some("exit:0"), &leg("exit:0", up)), None);
        assert!(contradicts_status(Some("signal:15"), &leg("exit:0", up)).is_some());
        assert_eq!(contradicts_status(Some("exit:0"), &leg("fin", up)), None);
    }

    #[test]
    fn the_ports_of_a_target_are_watched() {
        let target = Target::new(Some(Proxy::Nginx), &["client_fin", "serve_rst"]).unwrap();
        assert_eq!(target.watch().iter().filter(|argument| *argument == "--watch").count(), 4);
        let direct = Target::new(None, &["client_fin", "proxy_idle"]).unwrap();
        assert_eq!(direct.watch().len(), 2);
        assert!(direct.watch()[1].ends_with(",min-duration=400ms"));
    }
}
