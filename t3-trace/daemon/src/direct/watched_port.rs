//! A port whose direct connections are recorded, as the option `watch` gives it.

use std::time::Duration;

use t3_config::value;
use t3_record::evidence::Nanos;
use t3_trace_host::kernel::ConnectionsOf;

/// Minimum duration of a recorded connection.
const MIN_DURATION: Duration = Duration::from_secs(30);
/// The same at least for serve ports: connections of dispatch's HTTP pool are recognised while they
/// are open, every two seconds.
const SERVE_MIN_DURATION: Duration = Duration::from_secs(5);
/// Records per minute.
const BUDGET: u32 = 1_000;

/// A watched port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedPort {
    /// Listening port.
    pub port: u16,
    /// comm of the process behind it; connections of others are not recorded.
    pub process: Option<String>,
    /// Its systemd unit; connections of others are not recorded.
    pub unit: Option<String>,
    /// Minimum duration of a recorded connection.
    pub min_duration: Duration,
    /// Records per minute.
    pub budget: u32,
    /// The process behind it is a proxy: its own connections are watched, and a session has one
    /// record for both.
    pub proxy: bool,
    /// Close frames of its plain-text WebSockets are read.
    pub is_websocket: bool,
}

impl WatchedPort {
    /// A port with the defaults.
    #[must_use]
    pub const fn new(port: u16) -> Self {
        Self {
            port,
            process: None,
            unit: None,
            min_duration: MIN_DURATION,
            budget: BUDGET,
            proxy: false,
            is_websocket: false,
        }
    }

    /// Parses `port=8080,process=nginx,min-duration=5s`.
    ///
    /// # Errors
    /// A clause that describes the expected value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut watched = Self::new(0);
        let mut known: Vec<&str> = Vec::new();
        for pair in text.split(',') {
            let (key, text) = pair.split_once('=').ok_or("expected KEY=VALUE, as in port=8080")?;
            let (key, text) = (key.trim(), text.trim());
            if known.contains(&key) {
                return Err(format!("{key}: is set twice"));
            }
            known.push(key);
            let wrong = |why: String| format!("{key}: {why}");
            match key {
                "port" => watched.port = port(text).map_err(wrong)?,
                "process" => watched.process = Some(comm(text).map_err(wrong)?),
                "unit" => watched.unit = Some(unit(text).map_err(wrong)?),
                "min-duration" => watched.min_duration = value::duration_or_zero(text).map_err(wrong)?,
                "budget" => watched.budget = budget(text).map_err(wrong)?,
                "proxy" => watched.proxy = flag(text).map_err(wrong)?,
                "websocket" => watched.is_websocket = flag(text).map_err(wrong)?,
                _ => {
                    let expected = "port, process, unit, min-duration, budget, proxy, websocket";
                    return Err(format!("unknown key {key:?}; expected one of: {expected}"));
                }
            }
        }
        if watched.port == 0 { Err("expected a port, as in port=8080".to_owned()) } else { Ok(watched) }
    }

    /// The configured ports and the serve ports, each once; the configuration of a serve port takes
    /// precedence.
    pub(super) fn all(configured: &[Self], serve: &[u16]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for watched in configured {
            let mut watched = watched.clone();
            if serve.contains(&watched.port) {
                watched.min_duration = watched.min_duration.max(SERVE_MIN_DURATION);
            }
            match all.iter_mut().find(|known| known.port == watched.port) {
                // As with other options, the last one counts.
                Some(known) => *known = watched,
                None => all.push(watched),
            }
        }
        for port in serve {
            if all.iter().all(|known| known.port != *port) {
                all.push(Self::new(*port));
            }
        }
        all
    }

    /// What the kernel side watches.
    pub(super) fn connections(&self) -> ConnectionsOf {
        ConnectionsOf {
            port: self.port,
            min_age: self.min_age(),
            is_proxy: self.proxy,
            has_websocket: self.is_websocket,
        }
    }

    /// Minimum duration in nanoseconds.
    pub(super) fn min_age(&self) -> Nanos {
        self.min_duration.as_nanos().try_into().unwrap_or(Nanos::MAX)
    }

    /// Whether connections of this process are recorded; of an unknown one they are.
    pub(super) fn accepts(&self, comm: Option<&str>, unit: Option<&str>) -> bool {
        let fits = |wanted: &Option<String>, found: Option<&str>| match (wanted, found) {
            (Some(wanted), Some(found)) => wanted == found,
            _ => true,
        };
        fits(&self.process, comm) && fits(&self.unit, unit)
    }
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("expected 1 to 65535, got {text:?}"))
}

fn flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("expected true or false, got {text:?}"))
}

pub(super) fn budget(text: &str) -> Result<u32, String> {
    let budget = text.parse().ok().filter(|budget| *budget != 0);
    budget.ok_or_else(|| format!("expected records per minute, 1 or more, got {text:?}"))
}

/// The kernel cuts the name of a process to 15 bytes.
fn comm(text: &str) -> Result<String, String> {
    match text.len() {
        1..=15 => Ok(text.to_owned()),
        0 => Err("expected the name of a process".to_owned()),
        _ => Err(format!("expected up to 15 bytes, as in /proc/PID/comm; try {:?}", cut(text, 15))),
    }
}

fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

pub(super) fn unit(text: &str) -> Result<String, String> {
    if text.ends_with(".service") || text.ends_with(".scope") {
        Ok(text.to_owned())
    } else {
        Err(format!("expected a service or scope, as in nginx.service, got {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_port_has_defaults_and_every_key() {
        assert_eq!(WatchedPort::parse("port=8080"), Ok(WatchedPort::new(8080)));
        let all = "port=443, process=nginx, unit=nginx.service, min-duration=1m30s, budget=7, proxy=true, \
                   websocket=true";
        assert_eq!(
            WatchedPort::parse(all),
            Ok(WatchedPort {
                port: 443,
                process: Some("nginx".to_owned()),
                unit: Some("nginx.service".to_owned()),
                min_duration: Duration::from_secs(90),
                budget: 7,
                proxy: true,
                is_websocket: true,
            })
        );
        assert_eq!(WatchedPort::parse("port=1,min-duration=0s").unwrap().min_age(), 0);
    }

    #[test]
    fn an_error_names_the_key() {
        for (text, expected) in [
            ("", "expected KEY=VALUE, as in port=8080"),
            ("8080", "expected KEY=VALUE, as in port=8080"),
            ("process=nginx", "expected a port, as in port=8080"),
            ("port=0", "port: expected 1 to 65535, got \"0\""),
            ("port=65536", "port: expected 1 to 65535, got \"65536\""),
            ("port=1,port=2", "port: is set twice"),
            (
                "port=1,proces=x",
                "unknown key \"proces\"; expected one of: port, process, unit, min-duration, budget, \
                 proxy, websocket",
            ),
            ("port=1,websocket=yes", "websocket: expected true or false, got \"yes\""),
            ("port=1,process=", "process: expected the name of a process"),
            (
                "port=1,process=a-very-long-name-of-it",
                "process: expected up to 15 bytes, as in /proc/PID/comm; try \"a-very-long-nam\"",
            ),
            ("port=1,unit=nginx", "unit: expected a service or scope, as in nginx.service, got \"nginx\""),
            (
                "port=1,min-duration=5",
                "min-duration: expected a duration such as 500ms, 5s, 2m or 1h30m, the largest unit first",
            ),
            ("port=1,proxy=yes", "proxy: expected true or false, got \"yes\""),
            ("port=1,budget=0", "budget: expected records per minute, 1 or more, got \"0\""),
        ] {
            assert_eq!(WatchedPort::parse(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn serve_ports_are_added_unless_configured() {
        let configured =
            ["port=1,min-duration=0s", "port=2,min-duration=0s", "port=1,budget=5,min-duration=9s"];
        let configured: Vec<_> = configured.iter().map(|text| WatchedPort::parse(text).unwrap()).collect();
        let all = WatchedPort::all(&configured, &[2, 3]);
        let found: Vec<_> =
            all.iter().map(|port| (port.port, port.min_duration.as_secs(), port.budget)).collect();
        // dispatch's own connections to 2 are recognised after a moment only.
        assert_eq!(found, [(1, 9, 5), (2, 5, 1_000), (3, 30, 1_000)]);
        assert_eq!(WatchedPort::all(&[], &[]), []);
    }

    #[test]
    fn connections_of_other_processes_are_not_recorded() {
        let port = |text| WatchedPort::parse(text).unwrap();
        let (any, nginx) = (port("port=1"), port("port=1,process=nginx,unit=nginx.service"));
        assert!(any.accepts(Some("node"), None) && any.accepts(None, None));
        assert!(nginx.accepts(Some("nginx"), Some("nginx.service")));
        assert!(!nginx.accepts(Some("node"), Some("nginx.service")));
        assert!(!nginx.accepts(Some("nginx"), Some("other.service")));
        assert!(nginx.accepts(None, None), "a process that is not known");
    }

    proptest! {
        #[test]
        fn any_text_is_a_port_or_an_error(text in "(port|unit|process|budget|min-duration|websocket|true|=|,|[0-9é]| ){0,9}") {
            let _ = WatchedPort::parse(&text);
        }
    }
}
