//! Selection of entries, independent of the store. Pure.
//!
//! A journal evaluates it with its index ([`terms`]). Loki evaluates a line filter that may select
//! more, and [`Want::holds`] the rest.

use t3_record::{
    journal::{ATTEMPTS_ID, BURST_ID, CLOSE_ID, OPEN_ID, TCP_CLOSE_ID, field},
    logfmt::{ATTEMPTS, BURST, CLOSE, OPEN, TCP_CLOSE},
};

use super::starts::{self, FAILED_ID, STARTED_ID};
use crate::journal::export_format::Entry;

/// Kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Open,
    Close,
    Burst,
    Attempts,
    TcpClose,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Open, Self::Close, Self::Burst, Self::Attempts, Self::TcpClose];

    /// `MESSAGE_ID` of its entries.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Open => OPEN_ID,
            Self::Close => CLOSE_ID,
            Self::Burst => BURST_ID,
            Self::Attempts => ATTEMPTS_ID,
            Self::TcpClose => TCP_CLOSE_ID,
        }
    }

    /// Prefix of its lines.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Open => OPEN,
            Self::Close => CLOSE,
            Self::Burst => BURST,
            Self::Attempts => ATTEMPTS,
            Self::TcpClose => TCP_CLOSE,
        }
    }
}

/// A key of a record and a value. Several values of one key are alternatives; several keys must all
/// match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    pub key: &'static str,
    pub value: String,
}

impl Term {
    #[must_use]
    pub fn new(key: &'static str, value: impl Into<String>) -> Self {
        Self { key, value: value.into() }
    }
}

/// Unit of PID 1 in the journal.
pub const INIT: &str = "init.scope";

/// One alternative of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Records of these kinds with these terms, the most selective key first.
    Records { kinds: Vec<Kind>, terms: Vec<Term> },
    /// Entries of a unit.
    Unit(&'static str),
    /// Messages of systemd about these units.
    Systemd(Vec<String>),
    /// Messages of systemd about starts and failures of these units ([`starts::is_one`]). A journal
    /// may select those of other units, too; Loki selects also the start of the host, which a
    /// journal shows by its boot.
    Starts(Vec<String>),
    /// Messages of the kernel. Only in the journal: a shipper sends the entries of units.
    Kernel,
    /// Messages of root with one of these ids. Only in the journal, for the same reason.
    Root(&'static [&'static str]),
}

impl Want {
    /// All records of a kind.
    #[must_use]
    pub fn all(kind: Kind) -> Self {
        Self::Records { kinds: vec![kind], terms: Vec::new() }
    }

    /// Whether an entry of Loki matches; journald has done this itself.
    #[must_use]
    pub fn holds(&self, entry: &Entry) -> bool {
        match self {
            Self::Records { kinds, terms } => {
                let id = entry.get("MESSAGE_ID");
                kinds.iter().any(|kind| id == Some(kind.id())) && hold(terms, entry)
            }
            Self::Unit(unit) => entry.get("_SYSTEMD_UNIT") == Some(unit),
            // The messages name their unit in the text; a shipper has no other field of it.
            Self::Systemd(units) => {
                let text = entry.get("MESSAGE").unwrap_or_default();
                entry.get("_SYSTEMD_UNIT") == Some(INIT) && units.iter().any(|unit| text.contains(unit))
            }
            Self::Starts(units) => {
                let text = entry.get("MESSAGE").unwrap_or_default();
                entry.get("_SYSTEMD_UNIT") == Some(INIT) && starts::is_start(units, text)
            }
            Self::Kernel | Self::Root(_) => false,
        }
    }
}

fn hold(terms: &[Term], entry: &Entry) -> bool {
    terms.iter().all(|term| {
        let value = entry.get(&field(term.key));
        terms.iter().any(|other| other.key == term.key && value == Some(other.value.as_str()))
    })
}

/// Returns the terms of journalctl(1): `FIELD=value`, with `+` between alternatives.
#[must_use]
pub fn terms(wanted: &[Want]) -> Vec<String> {
    let mut out = Vec::new();
    for want in wanted {
        if !out.is_empty() {
            out.push("+".to_owned());
        }
        match want {
            Want::Records { kinds, terms } => {
                out.extend(kinds.iter().map(|kind| format!("MESSAGE_ID={}", kind.id())));
                out.extend(terms.iter().map(|term| format!("{}={}", field(term.key), term.value)));
            }
            Want::Unit(unit) => out.push(format!("_SYSTEMD_UNIT={unit}")),
            // The trusted fields _PID and _UID prove that systemd wrote them.
            Want::Systemd(units) => {
                out.extend(["_PID=1", "_UID=0"].map(str::to_owned));
                out.extend(units.iter().map(|unit| format!("UNIT={unit}")));
            }
            Want::Starts(units) => {
                out.extend(["_PID=1", "_UID=0"].map(str::to_owned));
                out.extend([STARTED_ID, FAILED_ID].map(|id| format!("MESSAGE_ID={id}")));
                // The index has only complete names.
                if !units.iter().any(|unit| unit.ends_with('@')) {
                    out.extend(units.iter().map(|unit| format!("UNIT={unit}")));
                }
            }
            Want::Kernel => out.push("_TRANSPORT=kernel".to_owned()),
            Want::Root(ids) => {
                out.push("_UID=0".to_owned());
                out.extend(ids.iter().map(|id| format!("MESSAGE_ID={id}")));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &[(&str, &str)]) -> Entry {
        let mut entry = Entry::default();
        fields.iter().for_each(|(name, value)| entry.add(name, value));
        entry
    }

    #[test]
    fn values_of_a_key_are_alternatives_and_keys_must_all_match() {
        let want = Want::Records {
            kinds: vec![Kind::Close, Kind::Burst],
            terms: vec![
                Term::new("user", "ann"),
                Term::new("verdict", "serve_oom"),
                Term::new("verdict", "serve_killed"),
            ],
        };
        let of = |id, user, verdict| {
            want.holds(&entry(&[("MESSAGE_ID", id), ("T3_USER", user), ("T3_VERDICT", verdict)]))
        };
        assert!(of(CLOSE_ID, "ann", "serve_oom") && of(BURST_ID, "ann", "serve_killed"));
        assert!(!of(CLOSE_ID, "anna", "serve_oom") && !of(CLOSE_ID, "ann", "client_left"));
        assert!(!of(OPEN_ID, "ann", "serve_oom"));
        assert!(!want.holds(&entry(&[("MESSAGE_ID", CLOSE_ID), ("T3_USER", "ann")])));
        let expected = format!(
            "MESSAGE_ID={CLOSE_ID} MESSAGE_ID={BURST_ID} T3_USER=ann T3_VERDICT=serve_oom T3_VERDICT=serve_killed"
        );
        assert_eq!(terms(&[want]).join(" "), expected);
    }

    #[test]
    fn messages_of_systemd_name_their_unit_and_come_from_pid_1() {
        let want = Want::Systemd(vec!["t3-serve@ann.service".to_owned()]);
        let of = |unit, text| want.holds(&entry(&[("_SYSTEMD_UNIT", unit), ("MESSAGE", text)]));
        assert!(of(INIT, "Started t3-serve@ann.service - T3 serve of ann."));
        assert!(!of("cron.service", "Started t3-serve@ann.service") && !of(INIT, "Started cron.service"));
        let expected = "_SYSTEMD_UNIT=t3-probe.service + _PID=1 _UID=0 UNIT=t3-serve@ann.service";
        assert_eq!(terms(&[Want::Unit("t3-probe.service"), want]).join(" "), expected);
        let expected = "_TRANSPORT=kernel + _UID=0 MESSAGE_ID=a MESSAGE_ID=b";
        assert_eq!(terms(&[Want::Kernel, Want::Root(&["a", "b"])]).join(" "), expected);
    }
}
