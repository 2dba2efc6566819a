//! Filter of the list of closes: parses typed terms, tests records. Pure.

use std::{fmt, str::FromStr, time::Duration};

use t3_record::vocabulary::{Segment, Verdict, Via};

use super::close::Close;
use crate::{present::verdict_text, time::duration};

/// An invalid term of a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFilter {
    #[error("unknown verdict {0:?}; for example serve_oom or client_left (docs/VERDICTS.md)")]
    Verdict(String),
    #[error("unknown segment {0:?}; expected one of: downstream, serve, devvm, dispatch, none, unknown")]
    Segment(String),
    #[error("short: {0}")]
    Short(String),
    #[error("unknown carrier {0:?}; expected one of: dispatch, direct")]
    Via(String),
    #[error("port: expected 1 to 65535, got {0:?}")]
    Port(String),
}

/// One condition on a record.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    User(String),
    Verdict(Verdict),
    Segment(Segment),
    Shorter(Duration),
    /// Sessions of t3-dispatch, or other connections.
    Via(Via),
    /// Listening port of a connection that t3-dispatch did not carry.
    Port(u16),
    /// Substring of the record or its label, in lower case.
    Text(String),
}

/// Conditions that must all hold; of several users, verdicts, segments or ports, one must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    wanted: Vec<Test>,
    unwanted: Vec<Test>,
}

impl Filter {
    /// Whether all records match.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.unwanted.is_empty()
    }

    /// Filter of the command line options.
    #[must_use]
    pub fn of(user: Option<&str>, short: Option<Duration>) -> Self {
        let user = user.map(|user| Test::User(user.to_owned()));
        let short = short.map(Test::Shorter);
        Self { wanted: user.into_iter().chain(short).collect(), unwanted: Vec::new() }
    }

    /// Replaces the condition on the user.
    pub fn only_user(&mut self, user: &str) {
        self.wanted.retain(|test| !matches!(test, Test::User(_)));
        self.wanted.push(Test::User(user.to_owned()));
    }

    /// Replaces the condition on the verdict.
    pub fn only_verdict(&mut self, verdict: Verdict) {
        self.wanted.retain(|test| !matches!(test, Test::Verdict(_)));
        self.wanted.push(Test::Verdict(verdict));
    }

    /// Replaces the condition on the segment.
    pub fn only_segment(&mut self, segment: Segment) {
        self.wanted.retain(|test| !matches!(test, Test::Segment(_)));
        self.wanted.push(Test::Segment(segment));
    }

    /// Whether a close matches.
    #[must_use]
    pub fn matches(&self, close: &Close) -> bool {
        if self.is_empty() {
            return true;
        }
        let one_of = |same: fn(&Test) -> bool| {
            let mut tests = self.wanted.iter().filter(|test| same(test)).peekable();
            tests.peek().is_none() || tests.any(|test| test.holds(close))
        };
        one_of(|test| matches!(test, Test::User(_)))
            && one_of(|test| matches!(test, Test::Verdict(_)))
            && one_of(|test| matches!(test, Test::Segment(_)))
            && one_of(|test| matches!(test, Test::Port(_)))
            && self
                .wanted
                .iter()
                .filter(|test| matches!(test, Test::Shorter(_) | Test::Via(_) | Test::Text(_)))
                .all(|test| test.holds(close))
            && !self.unwanted.iter().any(|test| test.holds(close))
    }
}

impl Test {
    fn holds(&self, close: &Close) -> bool {
        let (record, direct) = (&close.record, close.direct.as_deref());
        match self {
            // The list shows a unit or process in place of an unknown user.
            Self::User(user) => *user == record.user,
            Self::Verdict(verdict) => *verdict == record.verdict,
            Self::Segment(segment) => *segment == record.segment,
            Self::Shorter(short) => u128::from(record.dur_ms) < short.as_millis(),
            Self::Via(via) => (*via == Via::Direct) == direct.is_some(),
            Self::Port(port) => direct.is_some_and(|direct| direct.port == *port),
            Self::Text(text) => {
                let line = direct.map_or_else(|| record.to_line(), t3_record::TcpCloseRecord::to_line);
                verdict_text::close_label(record).to_lowercase().contains(text.as_str())
                    || line.to_lowercase().contains(text.as_str())
            }
        }
    }
}

impl FromStr for Filter {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, BadFilter> {
        let mut filter = Self::default();
        for word in text.split_whitespace() {
            match word.strip_prefix('!').filter(|rest| !rest.is_empty()) {
                Some(rest) => filter.unwanted.push(test(rest)?),
                None => filter.wanted.push(test(word)?),
            }
        }
        Ok(filter)
    }
}

fn test(word: &str) -> Result<Test, BadFilter> {
    let text = || Ok(Test::Text(word.to_lowercase()));
    let Some((key, value)) = word.split_once([':', '=']).filter(|(_, value)| !value.is_empty()) else {
        return text();
    };
    match key {
        "user" | "u" => Ok(Test::User(value.to_owned())),
        "verdict" | "v" => value.parse().map(Test::Verdict).map_err(|_| BadFilter::Verdict(value.to_owned())),
        "segment" | "s" => value.parse().map(Test::Segment).map_err(|_| BadFilter::Segment(value.to_owned())),
        "via" => value.parse().map(Test::Via).map_err(|_| BadFilter::Via(value.to_owned())),
        "port" | "p" => match value.parse() {
            Ok(port @ 1..) => Ok(Test::Port(port)),
            _ => Err(BadFilter::Port(value.to_owned())),
        },
        "short" => duration(value).map(Test::Shorter).map_err(BadFilter::Short),
        _ => text(),
    }
}

/// Formats a duration as it is typed.
fn time(time: Duration) -> String {
    let ms = time.as_millis();
    match ms {
        _ if ms > 0 && ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = self.wanted.iter().map(|test| ("", test));
        let unwanted = self.unwanted.iter().map(|test| ("!", test));
        for (n, (not, test)) in wanted.chain(unwanted).enumerate() {
            let blank = if n == 0 { "" } else { " " };
            match test {
                Test::User(user) => write!(f, "{blank}{not}user:{user}")?,
                Test::Verdict(verdict) => write!(f, "{blank}{not}verdict:{verdict}")?,
                Test::Segment(segment) => write!(f, "{blank}{not}segment:{segment}")?,
                Test::Shorter(short) => write!(f, "{blank}{not}short:{}", time(*short))?,
                Test::Via(via) => write!(f, "{blank}{not}via:{via}")?,
                Test::Port(port) => write!(f, "{blank}{not}port:{port}")?,
                Test::Text(text) => write!(f, "{blank}{not}{text}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::screen::testing::{direct, record};

    fn shows(filter: &str, user: &str, verdict: Verdict, segment: Segment) -> bool {
        let record = Box::new(record("c1", user, verdict, segment));
        filter.parse::<Filter>().unwrap().matches(&Close { seq: 0, at: 0, record, direct: None })
    }

    #[test]
    fn carrier_and_port_select_connections() {
        let direct = Box::new(direct(""));
        let close = Close { seq: 0, at: 0, record: Box::new(direct.as_close()), direct: Some(direct) };
        for (filter, shown) in [
            ("via:direct", true),
            ("via:dispatch", false),
            ("!via:direct", false),
            ("port:8080", true),
            ("p:8081", false),
            ("p:8081 port:8080", true),
            ("!port:8080", false),
            ("user:port", false),
            ("nginx", true),
            ("tcp port=8080", true),
        ] {
            let read: Filter = filter.parse().unwrap();
            assert_eq!(read.matches(&close), shown, "{filter:?}");
            assert_eq!(read.to_string().parse(), Ok(read), "{filter:?}");
        }
        assert!(shows("via:dispatch", "ann", Verdict::ServeOom, Segment::Serve));
        assert!(!shows("via:direct", "ann", Verdict::ServeOom, Segment::Serve));
        assert!(!shows("port:8080", "ann", Verdict::ServeOom, Segment::Serve));
    }

    #[test]
    fn each_term_selects_and_round_trips() {
        let oom = |filter| shows(filter, "ann", Verdict::ServeOom, Segment::Serve);
        for (filter, shown) in [
            ("", true),
            ("user:ann", true),
            ("user:an", false),
            ("u:bob user:ann", true),
            ("verdict:serve_oom", true),
            ("v:client_left", false),
            ("segment:serve user:ann", true),
            ("segment:serve user:bob", false),
            ("s=devvm", false),
            ("killed", true),
            ("OOM 192.0.2.7", true),
            ("killed nothing", false),
            ("!user:ann", false),
            ("!verdict:client_left", true),
            ("!killed", false),
            ("!", false),
            ("short:10m", true),
            ("short:1s", false),
            ("short:1500ms", false),
            ("verdict=serve_oom", true),
            ("what:ever", false),
        ] {
            assert_eq!(oom(filter), shown, "{filter:?}");
            let read: Filter = filter.parse().unwrap();
            assert_eq!(read.to_string().parse(), Ok(read), "{filter:?}");
        }
    }

    #[test]
    fn an_invalid_term_is_rejected_with_valid_ones() {
        for (filter, said) in [
            ("v:serve_bored", "serve_oom"),
            ("s:moon", "devvm"),
            ("short:soon", "1h30m"),
            ("via:tunnel", "direct"),
            ("port:0", "65535"),
        ] {
            let refused = filter.parse::<Filter>().unwrap_err().to_string();
            assert!(refused.contains(said), "{refused}");
        }
    }

    #[test]
    fn a_new_condition_replaces_the_previous_of_its_kind() {
        let mut filter: Filter = "user:ann verdict:unknown !x".parse().unwrap();
        filter.only_user("bob");
        filter.only_verdict(Verdict::ServeOom);
        filter.only_segment(Segment::Serve);
        assert_eq!(filter.to_string(), "user:bob verdict:serve_oom segment:serve !x");
        assert!(Filter::of(None, None).is_empty());
        assert_eq!(Filter::of(Some("a"), Some(Duration::from_secs(2))).to_string(), "user:a short:2s");
    }
}
