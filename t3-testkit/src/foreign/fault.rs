//! The faults: who ends the session and how, and what is true on each port.
//!
//! On the proxy's port the process behind the port is the proxy, on serve's port the client is the
//! proxy. A record blames the end that acted on its own connection, not what lies behind the proxy.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use t3_record::{
    ClosedBy, Confidence,
    Verdict::{
        self, AdminKilled, ClientLeft, ClientReset, ClientVanished, ServeExited, ServeKilled, ServeLeft,
        ServeOom, ServeReset,
    },
};

use super::{
    expected::{Expected, ExpectedLeg},
    proxy::{Proxy, RunningProxy},
};
use crate::{
    client::{Client, TIMEOUT},
    error::{Attempt as _, Result, TestError},
    harness::{Cgroup, Netns, Serve},
};

/// comm of the fake serve.
const SERVE: &str = "t3-serve-standi";
/// Memory limit in bytes: enough for a fake serve.
const SMALL: u64 = 64 << 20;
/// Limit for the end of a session by an idle timeout of two seconds.
const IDLE_LIMIT: Duration = Duration::from_secs(20);

const FORWARDED_BY_PROXY: &[Verdict] = &[ClientLeft, ClientReset];
const ENDED_BY_PROXY: &[Verdict] = &[ServeLeft, ServeReset];

/// Where a fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the session.
    Session,
    /// In a session whose client has a network of its own.
    Link,
    /// In a session whose serve has a memory limit.
    Memory,
    /// In the route of the proxy, which has an idle timeout.
    IdleTimeout,
    /// In the process of the proxy: all its sessions end.
    Process,
}

/// One way to end a session.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Unique name.
    pub name: &'static str,
    /// Who acts and how, for people.
    pub injected: &'static str,
    pub place: Place,
    inject: fn(&Session<'_>) -> Result<()>,
    expected: fn(Option<Proxy>) -> Expected,
}

/// An open session.
#[derive(Debug)]
pub struct Session<'a> {
    pub client: &'a Client,
    pub serve: &'a Serve,
    /// The proxy between them.
    pub proxy: Option<&'a RunningProxy>,
    /// Port of the proxy, or of serve without one.
    pub port: u16,
    pub netns: Option<&'a Netns>,
    pub cgroup: Option<&'a Cgroup>,
}

impl Fault {
    /// Whether it is possible with this proxy, or without one.
    #[must_use]
    pub fn is_possible(&self, proxy: Option<Proxy>) -> bool {
        match self.place {
            Place::Session | Place::Link | Place::Memory => {
                self.name != "destroyed_at_serve" || proxy.is_some()
            }
            Place::IdleTimeout => proxy.is_some_and(|proxy| proxy.idle_setting().is_some()),
            Place::Process => proxy.is_some(),
        }
    }

    /// Ends the session.
    pub fn inject(&self, session: &Session<'_>) -> Result<()> {
        (self.inject)(session)
    }

    /// Expected records behind this proxy, or without one.
    #[must_use]
    pub fn expected(&self, proxy: Option<Proxy>) -> Expected {
        (self.expected)(proxy)
    }
}

fn leg(
    verdicts: &'static [Verdict],
    hows: &[&str],
    closed_by: ClosedBy,
    confidence: Confidence,
    peer_comm: &'static str,
) -> ExpectedLeg {
    let hows = hows.iter().map(|how| (*how).to_owned()).collect();
    let closed_by: &'static [ClosedBy] = match closed_by {
        ClosedBy::Downstream => &[ClosedBy::Downstream],
        ClosedBy::Upstream => &[ClosedBy::Upstream],
        ClosedBy::Dispatch => &[ClosedBy::Dispatch],
        ClosedBy::Both => &[ClosedBy::Both],
    };
    ExpectedLeg { verdicts, hows, closed_by, confidence, peer_comm }
}

/// The client acts in this way. The proxy, if there is one, then ends its connection to serve.
fn by_client(
    proxy: Option<Proxy>,
    verdicts: &'static [Verdict],
    how: &str,
    confidence: Confidence,
) -> Expected {
    let acted = |comm| {
        let closed_by = if how == "vanished" { ClosedBy::Dispatch } else { ClosedBy::Downstream };
        leg(verdicts, &[how], closed_by, confidence, comm)
    };
    match proxy {
        Some(proxy) => Expected { proxy: Some(acted(proxy.name())), serve: forwarded() },
        None => Expected { proxy: None, serve: acted(SERVE) },
    }
}

/// Serve's port: the proxy, its client, ends the connection.
fn forwarded() -> ExpectedLeg {
    leg(FORWARDED_BY_PROXY, &["fin", "rst"], ClosedBy::Downstream, Confidence::Likely, SERVE)
}

/// The proxy's port: the proxy ends the connection.
fn ended(proxy: Proxy) -> ExpectedLeg {
    leg(ENDED_BY_PROXY, &["fin", "rst"], ClosedBy::Upstream, Confidence::Likely, proxy.name())
}

/// serve acts in this way. The proxy, if there is one, then ends its connection to the client.
fn by_serve(
    proxy: Option<Proxy>,
    verdicts: &'static [Verdict],
    how: &str,
    confidence: Confidence,
) -> Expected {
    Expected { proxy: proxy.map(ended), serve: leg(verdicts, &[how], ClosedBy::Upstream, confidence, SERVE) }
}

/// The proxy's port: the proxy closes its connections, or exits with them open.
fn stopped(proxy: Proxy) -> ExpectedLeg {
    // HAProxy without its master does not handle SIGTERM.
    let (verdicts, end): (&'static [Verdict], _) = match proxy {
        Proxy::Haproxy => (&[ServeKilled, ServeLeft], "signal:15"),
        _ => (&[ServeExited, ServeLeft], "exit:0"),
    };
    leg(verdicts, &[end, "fin"], ClosedBy::Upstream, Proven, proxy.name())
}

/// Serve's port: Caddy sends a Close frame, which the kernel does not show, to which serve replies
/// and sends FIN; Caddy does not wait for it, so either FIN can be the first.
fn stopped_at_serve(proxy: Option<Proxy>) -> ExpectedLeg {
    let either = &[ClosedBy::Upstream, ClosedBy::Downstream];
    match proxy {
        Some(Proxy::Caddy) => {
            ExpectedLeg { verdicts: &[ServeLeft, ClientLeft, ClientReset], closed_by: either, ..forwarded() }
        }
        _ => forwarded(),
    }
}

/// The proxy's port: Go's runtime handles SIGSEGV and exits with status 2.
fn crashed(proxy: Proxy) -> ExpectedLeg {
    let (verdicts, end): (&'static [Verdict], _) = match proxy {
        Proxy::Traefik | Proxy::Caddy => (&[ServeExited], "exit:2"),
        _ => (&[ServeKilled], "signal:11"),
    };
    leg(verdicts, &[end], ClosedBy::Upstream, Proven, proxy.name())
}

use Confidence::{Likely, Proven};

/// All faults. Those of [`Place::Process`] are the last ones.
pub const CATALOGUE: [Fault; 15] = [
    Fault {
        name: "client_fin",
        injected: "the client sends FIN",
        place: Place::Session,
        inject: |session| {
            session.client.fin();
            session.client.wait_end().map(drop)
        },
        expected: |proxy| by_client(proxy, &[ClientLeft], "fin", Likely),
    },
    Fault {
        name: "client_rst",
        injected: "the client sends RST",
        place: Place::Session,
        inject: |session| {
            session.client.reset();
            Ok(())
        },
        expected: |proxy| by_client(proxy, &[ClientReset], "rst", Likely),
    },
    Fault {
        name: "client_vanished",
        injected: "the client's link drops all packets, then serve sends a message",
        place: Place::Link,
        inject: |session| {
            cut(session)?;
            session.serve.order("send into the void")
        },
        expected: |proxy| by_client(proxy, &[ClientVanished], "vanished", Proven),
    },
    Fault {
        name: "client_close",
        injected: "the client sends Close 1000, which the kernel does not show; serve replies and sends FIN",
        place: Place::Session,
        inject: |session| {
            session.client.close(Some(1000), "");
            session.client.wait_end().map(drop)
        },
        expected: |proxy| by_serve(proxy, &[ServeLeft], "fin", Likely),
    },
    Fault {
        name: "serve_fin",
        injected: "serve sends FIN",
        place: Place::Session,
        inject: |session| ordered(session, "fin"),
        expected: |proxy| by_serve(proxy, &[ServeLeft], "fin", Likely),
    },
    Fault {
        name: "serve_rst",
        injected: "serve sends RST",
        place: Place::Session,
        inject: |session| ordered(session, "rst"),
        expected: |proxy| by_serve(proxy, &[ServeReset], "rst", Likely),
    },
    Fault {
        name: "serve_sigkill",
        injected: "serve is killed with SIGKILL",
        place: Place::Session,
        inject: |session| {
            session.serve.process.signal(libc::SIGKILL)?;
            session.client.wait_end().map(drop)
        },
        expected: |proxy| by_serve(proxy, &[ServeKilled], "signal:9", Proven),
    },
    Fault {
        name: "serve_exit",
        injected: "serve exits with status 3",
        place: Place::Session,
        inject: |session| ordered(session, "exit 3"),
        expected: |proxy| by_serve(proxy, &[ServeExited], "exit:3", Proven),
    },
    Fault {
        name: "serve_oom",
        injected: "serve exceeds the memory limit of its cgroup",
        place: Place::Memory,
        inject: |session| {
            let missing = || TestError::Missing {
                what: "a cgroup for serve".to_owned(),
                remedy: "mount cgroup v2".to_owned(),
            };
            session.cgroup.ok_or_else(missing)?.limit_memory(SMALL)?;
            session.serve.begin(&format!("alloc {}", SMALL * 4))?;
            session.client.wait_end().map(drop)
        },
        expected: |proxy| by_serve(proxy, &[ServeOom], "oom", Proven),
    },
    Fault {
        name: "destroyed",
        injected: "`ss -K` destroys the socket on the port that the client uses",
        place: Place::Session,
        inject: |session| {
            destroy(session.port)?;
            session.client.wait_end().map(drop)
        },
        expected: |proxy| {
            let destroyed = |comm| leg(&[AdminKilled], &["sock_destroy"], ClosedBy::Dispatch, Proven, comm);
            match proxy {
                Some(proxy) => Expected { proxy: Some(destroyed(proxy.name())), serve: forwarded() },
                None => Expected { proxy: None, serve: destroyed(SERVE) },
            }
        },
    },
    Fault {
        name: "destroyed_at_serve",
        injected: "`ss -K` destroys serve's socket",
        place: Place::Session,
        inject: |session| {
            destroy(session.serve.port)?;
            session.client.wait_end().map(drop)
        },
        expected: |proxy| Expected {
            proxy: proxy.map(ended),
            serve: leg(&[AdminKilled], &["sock_destroy"], ClosedBy::Dispatch, Proven, SERVE),
        },
    },
    Fault {
        name: "proxy_idle",
        injected: "no data for the proxy's idle timeout of 2 s",
        place: Place::IdleTimeout,
        inject: |session| {
            let ended =
                session.client.wait("the proxy's idle timeout", IDLE_LIMIT, |seen| seen.ended.is_some());
            ended.map(drop)
        },
        expected: |proxy| Expected { proxy: proxy.map(ended), serve: forwarded() },
    },
    Fault {
        name: "proxy_stopped",
        injected: "the proxy gets SIGTERM",
        place: Place::Process,
        inject: |session| {
            session.proxy.map_or(Ok(()), RunningProxy::stop)?;
            session.client.wait_end().map(drop)
        },
        expected: |proxy| Expected { proxy: proxy.map(stopped), serve: stopped_at_serve(proxy) },
    },
    Fault {
        name: "proxy_sigkill",
        injected: "the proxy's process is killed with SIGKILL (nginx: the worker)",
        place: Place::Process,
        inject: |session| {
            session.proxy.map_or(Ok(()), |proxy| proxy.signal_worker(libc::SIGKILL))?;
            session.client.wait_end().map(drop)
        },
        expected: |proxy| Expected {
            proxy: proxy
                .map(|proxy| leg(&[ServeKilled], &["signal:9"], ClosedBy::Upstream, Proven, proxy.name())),
            serve: forwarded(),
        },
    },
    Fault {
        name: "proxy_sigsegv",
        injected: "the proxy's process crashes with SIGSEGV (nginx: the worker)",
        place: Place::Process,
        inject: |session| {
            session.proxy.map_or(Ok(()), |proxy| proxy.signal_worker(libc::SIGSEGV))?;
            session.client.wait_end().map(drop)
        },
        expected: |proxy| Expected { proxy: proxy.map(crashed), serve: forwarded() },
    },
];

fn ordered(session: &Session<'_>, order: &str) -> Result<()> {
    session.serve.order(order)?;
    session.client.wait_end().map(drop)
}

/// The client's link drops everything, and the client does not notice.
fn cut(session: &Session<'_>) -> Result<()> {
    if let Some(netns) = session.netns {
        netns.cut()?;
    }
    match session.client.seen().ended {
        None => Ok(()),
        Some(ended) => Err(TestError::Unexpected {
            what: "a link that goes down silently".to_owned(),
            got: format!("{ended:?}"),
        }),
    }
}

/// Destroys the sockets on this local port.
fn destroy(port: u16) -> Result<()> {
    let filter = format!("sport = :{port}");
    let mut ss = Command::new("ss");
    ss.args(["-K", "-t", "-n", "-H", "state", "established"]).arg(&filter).stdin(Stdio::null());
    let output = ss.output().attempt(|| "run ss -K (is iproute2 installed?)".to_owned())?;
    if output.status.success() && !output.stdout.is_empty() {
        return Ok(());
    }
    let got = format!("{} {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    Err(TestError::Unexpected { what: format!("a destroyed socket by `ss -K {filter}`"), got })
}

/// Waits until nothing of the session is in flight: unread bytes would turn a FIN into RST.
pub(super) fn quiet(client: &Client) -> Result<()> {
    client.heartbeat(None);
    client.wait("the last heartbeat reply", TIMEOUT, |seen| seen.pings == seen.pongs).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_faults_of_the_process_come_last() {
        let mut names: Vec<_> = CATALOGUE.iter().map(|fault| fault.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len());
        let first = CATALOGUE.iter().position(|fault| fault.place == Place::Process);
        assert!(CATALOGUE.iter().skip(first.unwrap()).all(|fault| fault.place == Place::Process));
    }

    #[test]
    fn with_a_proxy_each_fault_is_expected_on_both_ports() {
        for fault in CATALOGUE {
            for proxy in Proxy::ALL {
                let expected = fault.expected(Some(proxy));
                assert_eq!(expected.proxy.unwrap().peer_comm, proxy.name(), "{}", fault.name);
                assert_eq!(expected.serve.peer_comm, SERVE, "{}", fault.name);
            }
            assert!(!fault.is_possible(None) || fault.expected(None).proxy.is_none(), "{}", fault.name);
        }
    }

    #[test]
    fn nobody_is_blamed_behind_the_proxy() {
        for fault in CATALOGUE {
            let expected = fault.expected(Some(Proxy::Nginx));
            let blames_client = |leg: &ExpectedLeg| leg.closed_by.contains(&ClosedBy::Downstream);
            let proxy = expected.proxy.unwrap();
            // The one that acted first at each port, in the direction of the end of the session.
            if fault.name.starts_with("serve_") {
                assert!(!blames_client(&proxy) && !blames_client(&expected.serve), "{}", fault.name);
            }
            if fault.name.starts_with("client_") && fault.name != "client_close" {
                assert_eq!(expected.serve.closed_by, [ClosedBy::Downstream], "{}", fault.name);
            }
        }
    }
}
