//! Versions of serve, as read from its answers that pass, so that a drop can be tied to an update.
//!
//! A version belongs to a process: it counts for a session only if it was read while the process
//! behind that session ran. After a restart of serve the version is unknown until a browser asks
//! for it again.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use serde::Deserialize;
use t3_record::evidence::{Nanos, Process};

/// Path of the answer that contains the version (facts: t3 server).
pub const PATH: &str = "/.well-known/t3/environment";
/// Longest such answer that is read, in bytes.
pub const LONGEST_ANSWER: usize = 16 << 10;
/// Longest version, in bytes: it comes from a program of a user.
const LONGEST: usize = 64;
/// Kept per serve: sessions of the previous process may still need theirs.
const KEPT: usize = 4;
/// Serves above this number are ignored.
const MOST_SERVES: usize = 4096;

/// Versions with the times of reading, oldest first.
type Readings = VecDeque<(Nanos, String)>;

/// Versions per serve.
#[derive(Debug, Default)]
pub struct ServeVersions {
    /// By user and port.
    seen: Mutex<HashMap<(String, u16), Readings>>,
}

impl ServeVersions {
    /// Stores the version in an answer of a serve that passed at `now`, if it has one.
    pub fn read(&self, user: &str, port: u16, answer: &[u8], now: Nanos) {
        let Some(version) = version(answer) else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (user.to_owned(), port);
        if seen.len() >= MOST_SERVES && !seen.contains_key(&key) {
            return;
        }
        let of_serve = seen.entry(key).or_default();
        if of_serve.len() >= KEPT {
            of_serve.pop_front();
        }
        of_serve.push_back((now, version));
    }

    /// Returns the version of the process behind a session that ended at `ended_at`.
    #[must_use]
    pub fn of(&self, user: &str, port: u16, process: &Process, ended_at: Nanos) -> Option<String> {
        // Behind a forwarder another serve can answer.
        let started = process.started_at.filter(|_| !process.is_forwarder)?;
        let until = process.ended_at.unwrap_or(ended_at).min(ended_at);
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let of_serve = seen.get(&(user.to_owned(), port))?;
        let of_process = of_serve.iter().rev().find(|(at, _)| (started..=until).contains(at));
        of_process.map(|(_, version)| version.clone())
    }
}

/// The `serverVersion` of an answer, if it is short and consists of the characters of versions.
fn version(answer: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Environment {
        #[serde(rename = "serverVersion")]
        server_version: String,
    }
    let Environment { server_version: version } = serde_json::from_slice(answer).ok()?;
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    ((1..=LONGEST).contains(&version.len()) && version.bytes().all(is_part)).then_some(version)
}

#[cfg(test)]
mod tests {
    use t3_record::evidence::{Fate, Task};

    use super::*;

    fn answer(version: &str) -> String {
        format!(
            r#"{{"label":"devvm","serverVersion":{},"capabilities":{{"x":true}}}}"#,
            serde_json::json!(version)
        )
    }

    fn process(started_at: Nanos, ended_at: Option<Nanos>) -> Process {
        Process {
            started_at: Some(started_at),
            ended_at,
            ..Process::new(Task { pid: 1, comm: "node".into() }, Fate::Alive)
        }
    }

    #[test]
    fn a_version_has_only_the_characters_of_versions() {
        for text in ["0.0.42", "0.0.42-nightly.20261128.7", "v1_2+b", &"1".repeat(LONGEST)] {
            assert_eq!(version(answer(text).as_bytes()).as_deref(), Some(text));
        }
        for text in ["", "1 verdict=x", "1\n", "ü", "1\"", &"1".repeat(LONGEST + 1)] {
            assert_eq!(version(answer(text).as_bytes()), None, "{text:?}");
        }
        for body in ["", "{}", "null", r#"{"serverVersion":7}"#, r#"{"serverVersion":"1""#, "\u{1f}\u{8b}"] {
            assert_eq!(version(body.as_bytes()), None, "{body:?}");
        }
        assert_eq!(version(&b"[".repeat(LONGEST_ANSWER)), None);
    }

    #[test]
    fn a_version_counts_only_for_the_process_that_reported_it() {
        let versions = ServeVersions::default();
        let of = |process: &Process| versions.of("ann", 3773, process, 100);
        assert_eq!(of(&process(1, None)), None);
        versions.read("ann", 3773, answer("1").as_bytes(), 50);
        assert_eq!(of(&process(1, None)).as_deref(), Some("1"));
        assert_eq!(of(&process(50, None)).as_deref(), Some("1"));
        assert_eq!(of(&process(51, None)), None, "another process since");
        assert_eq!(of(&process(1, Some(49))), None, "the answer of a later process");
        assert_eq!(versions.of("ann", 3773, &process(1, None), 49), None);
        assert_eq!(versions.of("bob", 3773, &process(1, None), 100), None);
        assert_eq!(versions.of("ann", 3774, &process(1, None), 100), None);
        assert_eq!(of(&Process { started_at: None, ..process(1, None) }), None);
        assert_eq!(of(&Process { is_forwarder: true, ..process(1, None) }), None);
        // Restarted: the session of the previous process keeps its version.
        versions.read("ann", 3773, answer("2").as_bytes(), 80);
        assert_eq!(of(&process(1, Some(70))).as_deref(), Some("1"));
        assert_eq!(of(&process(75, None)).as_deref(), Some("2"));
        for n in 0..10 {
            versions.read("ann", 3773, answer("3").as_bytes(), 81 + n);
        }
        assert_eq!(versions.seen.lock().unwrap().values().next().map(VecDeque::len), Some(KEPT));
    }
}
