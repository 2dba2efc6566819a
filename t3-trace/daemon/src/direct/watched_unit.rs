//! A systemd unit whose outgoing connections are recorded, as the option `watch` gives it.

use std::time::Duration;

use t3_config::value;

use super::{WatchedPort, watched_port};

/// Minimum duration of a recorded connection, as for ports.
const MIN_DURATION: Duration = Duration::from_secs(30);
/// Records per minute, as for ports.
const BUDGET: u32 = 1_000;

/// A value of the option `watch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watch {
    /// Connections to a port.
    Port(WatchedPort),
    /// Outgoing connections of a unit.
    Unit(WatchedUnit),
}

impl Watch {
    /// Parses `port=8080,process=nginx` or `outgoing=true,unit=cloudflared.service`.
    ///
    /// # Errors
    /// A clause that describes the expected value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_outgoing = |pair: &&str| pair.split_once('=').is_some_and(|(key, _)| key.trim() == "outgoing");
        let (outgoing, others): (Vec<&str>, Vec<&str>) = text.split(',').partition(|pair| is_outgoing(pair));
        let others = others.join(",");
        match outgoing.as_slice() {
            [] => WatchedPort::parse(text).map(Self::Port),
            [one] => match one.split_once('=').map_or("", |(_, value)| value.trim()) {
                "true" => WatchedUnit::parse(&others).map(Self::Unit),
                "false" => WatchedPort::parse(&others).map(Self::Port),
                other => Err(format!("outgoing: expected true or false, got {other:?}")),
            },
            _ => Err("outgoing: is set twice".to_owned()),
        }
    }
}

impl Watch {
    /// The ports and the units.
    #[must_use]
    pub fn split(watched: Vec<Self>) -> (Vec<WatchedPort>, Vec<WatchedUnit>) {
        let (mut ports, mut units) = (Vec::new(), Vec::new());
        for watch in watched {
            match watch {
                Self::Port(port) => ports.push(port),
                Self::Unit(unit) => units.push(unit),
            }
        }
        (ports, units)
    }
}

/// A unit whose outgoing connections are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedUnit {
    /// The unit.
    pub unit: String,
    /// Port of the server; `None` for all.
    pub port: Option<u16>,
    /// Minimum duration of a recorded connection.
    pub min_duration: Duration,
    /// Records per minute.
    pub budget: u32,
}

impl WatchedUnit {
    /// A unit with the defaults.
    #[must_use]
    pub const fn new(unit: String) -> Self {
        Self { unit, port: None, min_duration: MIN_DURATION, budget: BUDGET }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut watched = Self::new(String::new());
        let mut known: Vec<&str> = Vec::new();
        for pair in text.split(',') {
            let (key, text) =
                pair.split_once('=').ok_or("expected a unit, as in unit=cloudflared.service")?;
            let (key, text) = (key.trim(), text.trim());
            if known.contains(&key) {
                return Err(format!("{key}: is set twice"));
            }
            known.push(key);
            let wrong = |why: String| format!("{key}: {why}");
            match key {
                "unit" => watched.unit = watched_port::unit(text).map_err(wrong)?,
                "port" => watched.port = Some(watched_port::port(text).map_err(wrong)?),
                "min-duration" => watched.min_duration = value::duration_or_zero(text).map_err(wrong)?,
                "budget" => watched.budget = watched_port::budget(text).map_err(wrong)?,
                _ => {
                    let expected = "outgoing, unit, port, min-duration, budget";
                    return Err(format!("unknown key {key:?} with outgoing; expected one of: {expected}"));
                }
            }
        }
        if watched.unit.is_empty() {
            Err("expected a unit, as in unit=cloudflared.service".to_owned())
        } else {
            Ok(watched)
        }
    }

    /// Whether it includes a connection of this unit to a server's port that lasted this long.
    pub(super) fn includes(&self, unit: &str, port: u16, age: Option<Duration>) -> bool {
        self.unit == unit
            && self.port.is_none_or(|wanted| wanted == port)
            && age.is_none_or(|age| age >= self.min_duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_defaults_and_every_key() {
        let unit = |text| match Watch::parse(text) {
            Ok(Watch::Unit(unit)) => unit,
            other => panic!("{other:?}"),
        };
        let defaults = WatchedUnit::new("cloudflared.service".to_owned());
        assert_eq!(unit("outgoing=true,unit=cloudflared.service"), defaults);
        assert_eq!(
            unit("unit=cloudflared.service, port=7844, min-duration=0s, outgoing = true, budget=7"),
            WatchedUnit { port: Some(7_844), min_duration: Duration::ZERO, budget: 7, ..defaults }
        );
        assert_eq!(Watch::parse("port=80,outgoing=false"), Ok(Watch::Port(WatchedPort::new(80))));
        assert_eq!(Watch::parse("port=80"), Ok(Watch::Port(WatchedPort::new(80))));
    }

    #[test]
    fn an_error_names_the_key() {
        for (text, expected) in [
            ("outgoing=true", "expected a unit, as in unit=cloudflared.service"),
            ("outgoing=true,port=7844", "expected a unit, as in unit=cloudflared.service"),
            ("outgoing=yes,unit=a.service", "outgoing: expected true or false, got \"yes\""),
            ("outgoing=true,outgoing=true", "outgoing: is set twice"),
            ("outgoing=true,unit=a", "unit: expected a service or scope, as in nginx.service, got \"a\""),
            ("outgoing=true,unit=a.service,port=0", "port: expected 1 to 65535, got \"0\""),
            (
                "outgoing=true,unit=a.service,process=b",
                "unknown key \"process\" with outgoing; expected one of: outgoing, unit, port, min-duration, \
                 budget",
            ),
            ("", "expected KEY=VALUE, as in port=8080"),
        ] {
            assert_eq!(Watch::parse(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_connection_is_included_by_unit_port_and_age() {
        let mut watched = WatchedUnit::new("a.service".to_owned());
        let (long, short) = (Some(Duration::from_secs(30)), Some(Duration::from_secs(29)));
        assert!(watched.includes("a.service", 443, long) && watched.includes("a.service", 443, None));
        assert!(!watched.includes("b.service", 443, long) && !watched.includes("a.service", 443, short));
        watched.port = Some(7_844);
        assert!(watched.includes("a.service", 7_844, long) && !watched.includes("a.service", 443, long));
    }
}
