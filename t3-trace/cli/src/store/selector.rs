//! LogQL of a selection. Pure.
//!
//! Labels are those of deploy/promtail and deploy/alloy: `job`, `host`, `unit`. Every text of the
//! operator is quoted, and escaped where it is a part of a regular expression (RE2).

use t3_record::logfmt::push_value;

use super::{
    starts,
    wanted::{INIT, Kind, Term, Want},
};

/// Matcher of the units whose records are trusted; journald sets the unit of an entry, not its
/// writer.
pub(super) const WRITERS: &str = "=~\"t3-(dispatch|trace)[.]service\"";

/// A stream selector without pipeline, `{job="devvm-journal"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector(String);

/// Not a stream selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a stream selector, got {0:?}; for example {{job=\"devvm-journal\"}}")]
pub struct BadSelector(String);

impl std::str::FromStr for Selector {
    type Err = BadSelector;

    /// Accepts matchers `name OP "value"` in braces. A value may have any characters, so its quotes
    /// are followed.
    fn from_str(text: &str) -> Result<Self, BadSelector> {
        let bad = || BadSelector(text.to_owned());
        let matchers = text.trim().strip_prefix('{').ok_or_else(bad)?;
        let mut quote: Option<char> = None;
        let mut escaped = false;
        for (at, c) in matchers.char_indices() {
            match (quote, c) {
                (Some('"'), _) if escaped => escaped = false,
                (Some('"'), '\\') => escaped = true,
                (Some(open), c) if c == open => quote = None,
                (Some(_), _) => {}
                (None, '"' | '`') => quote = Some(c),
                (None, '}') => {
                    let inside = matchers[..at].trim().trim_end_matches(',').trim_end();
                    let complete = at + 1 == matchers.len() && !inside.is_empty();
                    return if complete { Ok(Self(inside.to_owned())) } else { Err(bad()) };
                }
                (None, '{' | '|' | '(' | ')') => return Err(bad()),
                (None, _) => {}
            }
        }
        Err(bad())
    }
}

impl Default for Selector {
    /// That of the deployed shippers.
    fn default() -> Self {
        Self("job=\"devvm-journal\"".to_owned())
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{{{}}}", self.0)
    }
}

impl Selector {
    /// Returns the selector with the hosts, and with a matcher of the label `unit` if there is one.
    #[must_use]
    pub fn of(&self, unit: Option<&str>, hosts: &[String]) -> String {
        let mut out = format!("{{{}", self.0);
        if let Some(unit) = unit {
            out.push_str(&format!(", unit{unit}"));
        }
        match hosts {
            [] => {}
            [host] => out.push_str(&format!(", host={}", quoted(host))),
            hosts => {
                let any: Vec<_> = hosts.iter().map(|host| escaped(host)).collect();
                out.push_str(&format!(", host=~{}", quoted(&any.join("|"))));
            }
        }
        out.push('}');
        out
    }
}

/// Returns the queries of a selection: one for all records, one for each other alternative.
#[must_use]
pub fn queries(selector: &Selector, hosts: &[String], wanted: &[Want]) -> Vec<String> {
    let mut records: Vec<(&[Kind], &[Term])> = Vec::new();
    let mut out = Vec::new();
    for want in wanted {
        match want {
            Want::Records { kinds, terms } => records.push((kinds, terms)),
            Want::Unit(unit) => out.push(selector.of(Some(&format!("={}", quoted(unit))), hosts)),
            Want::Systemd(units) => {
                let any: Vec<_> = units.iter().map(|unit| escaped(unit)).collect();
                let stream = selector.of(Some(&format!("={}", quoted(INIT))), hosts);
                out.push(format!("{stream} |~ {}", quoted(&any.join("|"))));
            }
            Want::Starts(units) => {
                let any: Vec<_> = units.iter().map(|unit| escaped(unit)).collect();
                let stream = selector.of(Some(&format!("={}", quoted(INIT))), hosts);
                out.push(format!("{stream} |~ {}", quoted(&starts::expression(&any))));
            }
            Want::Kernel | Want::Root(_) => {}
        }
    }
    if !records.is_empty() {
        let stream = selector.of(Some(WRITERS), hosts);
        out.insert(0, format!("{stream}{}", filter(&records)));
    }
    out
}

/// Line filter of the alternatives: their kinds, and terms if every alternative has one.
fn filter(records: &[(&[Kind], &[Term])]) -> String {
    let wanted = |kind: &Kind| records.iter().any(|(kinds, _)| kinds.contains(kind));
    let kinds: Vec<_> = Kind::ALL.iter().filter(|kind| wanted(kind)).map(|kind| kind.prefix()).collect();
    let mut out = format!(" |~ {}", quoted(&format!("^({}) ", kinds.join("|"))));
    let groups: Vec<Vec<&[Term]>> = records.iter().map(|(_, terms)| by_key(terms)).collect();
    // The first key of every alternative, then, if there is only one, its other keys.
    let deepest = if let [only] = &groups[..] { only.len() } else { 1 };
    for depth in 0..deepest {
        let layer: Option<Vec<&[Term]>> = groups.iter().map(|keys| keys.get(depth).copied()).collect();
        let Some(layer) = layer else { break };
        let mut texts: Vec<String> = layer.into_iter().flatten().map(text).collect();
        texts.sort();
        texts.dedup();
        match &texts[..] {
            [one] => out.push_str(&format!(" |= {}", quoted(one))),
            any => {
                let any: Vec<_> = any.iter().map(|text| escaped(text)).collect();
                out.push_str(&format!(" |~ {}", quoted(&any.join("|"))));
            }
        }
    }
    out
}

/// Terms in groups of one key each.
fn by_key(terms: &[Term]) -> Vec<&[Term]> {
    terms.chunk_by(|one, next| one.key == next.key).collect()
}

/// A term as it is in a line.
fn text(term: &Term) -> String {
    let mut out = format!(" {}=", term.key);
    push_value(&mut out, &term.value);
    out
}

/// A string literal of LogQL: a Go string, of whose escapes JSON's are a part.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Escapes the characters with a meaning in RE2.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector() -> Selector {
        "{job=\"devvm-journal\"}".parse().unwrap()
    }

    #[test]
    fn a_selection_becomes_one_query_of_records_and_one_per_other_unit() {
        let alternatives = [
            Want::Records { kinds: vec![Kind::Close], terms: vec![Term::new("user", "ann")] },
            Want::Records { kinds: vec![Kind::Open], terms: vec![Term::new("user", "ann")] },
            Want::Unit("t3-probe.service"),
            Want::Systemd(vec!["t3-serve@ann.service".to_owned(), "t3-dispatch.service".to_owned()]),
            Want::Starts(vec!["t3-serve@".to_owned(), "t3-trace.service".to_owned()]),
        ];
        let expected = [
            r#"{job="devvm-journal", unit=~"t3-(dispatch|trace)[.]service", host="a"} |~ "^(ws open|ws close) " |= " user=ann""#,
            r#"{job="devvm-journal", unit="t3-probe.service", host="a"}"#,
            r#"{job="devvm-journal", unit="init.scope", host="a"} |~ "t3-serve@ann\\.service|t3-dispatch\\.service""#,
            r#"{job="devvm-journal", unit="init.scope", host="a"} |~ "^Started (t3-serve@|t3-trace\\.service)|^(t3-serve@|t3-trace\\.service)[^ ]*: Failed with result |^Startup finished in ""#,
        ];
        assert_eq!(queries(&selector(), &["a".to_owned()], &alternatives), expected);
    }

    #[test]
    fn an_alternative_without_a_term_removes_the_filter_of_terms() {
        let terms = vec![
            Term::new("conn", "c1"),
            Term::new("verdict", "serve_oom"),
            Term::new("verdict", "serve_killed"),
        ];
        let close = Want::Records { kinds: vec![Kind::Close], terms };
        let one = &queries(&selector(), &[], std::slice::from_ref(&close))[0];
        assert!(
            one.ends_with(
                r#" |~ "^(ws close) " |= " conn=c1" |~ " verdict=serve_killed| verdict=serve_oom""#
            ),
            "{one}"
        );
        let both = &queries(&selector(), &[], &[close, Want::all(Kind::Attempts)])[0];
        assert!(both.ends_with(r#"[.]service"} |~ "^(ws close|ws attempts) ""#), "{both}");
    }

    #[test]
    fn hosts_and_values_cannot_leave_their_quotes() {
        let hosts = ["a\"} | x".to_owned(), "b.example".to_owned()];
        assert_eq!(selector().of(None, &hosts), r#"{job="devvm-journal", host=~"a\"\\} \\| x|b\\.example"}"#);
        let user = Want::Records { kinds: vec![Kind::Close], terms: vec![Term::new("user", "a\" |= \"b")] };
        let query = &queries(&selector(), &[], &[user])[0];
        assert!(query.ends_with(r#" |= " user=\"a\\\" |= \\\"b\"""#), "{query}");
    }

    #[test]
    fn only_a_stream_selector_is_accepted() {
        for (given, inside) in [
            ("{job=\"x\"}", "job=\"x\""),
            (" { job =~ \"a}b|c\" , env=`p` , } ", "job =~ \"a}b|c\" , env=`p`"),
            (r#"{job="a\"}b"}"#, r#"job="a\"}b""#),
        ] {
            assert_eq!(given.parse::<Selector>(), Ok(Selector(inside.to_owned())), "{given}");
        }
        for wrong in [
            "",
            "job",
            "{}",
            "{,}",
            "{job=\"x\"",
            "{job=\"x}",
            "{job=\"x\"} |= \"y\"",
            "rate({job=\"x\"}[1m])",
        ] {
            assert!(wrong.parse::<Selector>().is_err(), "{wrong}");
        }
    }
}
