//! Report of the fuzzing client by case, and the differences between two runs.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Map, Value};

use crate::error::{Attempt, Result, TestError};

/// Compared keys of a case: judgement, end of the connection, received messages, frames by kind.
/// Not compared: keys that depend on time or addresses (`duration`, `wirelog`, octets per read, the
/// text of the handshake).
const COMPARED: [&str; 17] = [
    "behavior",
    "behaviorClose",
    "remoteCloseCode",
    "remoteCloseReason",
    "localCloseCode",
    "localCloseReason",
    "closedByMe",
    "failedByMe",
    "droppedByMe",
    "wasClean",
    "wasNotCleanReason",
    "wasOpenHandshakeTimeout",
    "wasCloseHandshakeTimeout",
    "wasServerConnectionDropTimeout",
    "received",
    "rxFrameStats",
    "txFrameStats",
];

/// All cases by number, such as `7.13.1`.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Report {
    pub cases: BTreeMap<String, Map<String, Value>>,
}

impl Report {
    /// Reads the report folder of a run.
    pub fn read(dir: &Path, agent: &str) -> Result<Self> {
        let index = json(&dir.join("index.json"))?;
        let bad = |what: &str| TestError::Unexpected {
            what: format!("a report of the fuzzing client in {}", dir.display()),
            got: what.to_owned(),
        };
        let cases = index.get(agent).and_then(Value::as_object).ok_or_else(|| bad("unknown server"))?;
        let mut report = Self::default();
        for (number, case) in cases {
            let file = case.get("reportfile").and_then(Value::as_str);
            let whole = json(&dir.join(file.ok_or_else(|| bad("case without a file"))?))?;
            let mut kept = Map::new();
            for key in COMPARED {
                let value = whole.get(key).ok_or_else(|| bad(&format!("case {number} without {key}")))?;
                kept.insert(key.to_owned(), value.clone());
            }
            report.cases.insert(number.clone(), kept);
        }
        Ok(report)
    }

    /// Number of cases by judgement.
    #[must_use]
    pub fn tally(&self) -> BTreeMap<String, usize> {
        let mut tally = BTreeMap::new();
        for case in self.cases.values() {
            *tally.entry(text(case.get("behavior"))).or_default() += 1;
        }
        tally
    }
}

/// Cases with different results in two runs, and the differences.
#[must_use]
pub fn differences(direct: &Report, through: &Report) -> BTreeMap<String, String> {
    let numbers = direct.cases.keys().chain(through.cases.keys());
    let difference = |number: &String| match (direct.cases.get(number), through.cases.get(number)) {
        (Some(one), Some(other)) => {
            let keys = one.keys().filter(|key| one.get(*key) != other.get(*key));
            let parts: Vec<_> = keys
                .map(|key| format!("{key}: direct {}, through {}", text(one.get(key)), text(other.get(key))))
                .collect();
            (!parts.is_empty()).then(|| parts.join("; "))
        }
        (one, _) => Some(format!("only in the run {}", if one.is_some() { "without" } else { "through" })),
    };
    numbers.filter_map(|number| Some((number.clone(), difference(number)?))).collect()
}

/// Text of a value; a long one is truncated.
fn text(value: Option<&Value>) -> String {
    let text = match value {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "nothing".to_owned(),
    };
    text.chars().take(200).collect()
}

fn json(path: &Path) -> Result<Value> {
    let what = || format!("read {}", path.display());
    let text = fs::read(path).attempt(what)?;
    serde_json::from_slice(&literal_escapes(&text)).map_err(std::io::Error::other).attempt(what)
}

/// Turns `\uXXXX` into six literal characters: cases of invalid UTF-8 contain unpaired surrogates,
/// which are not valid JSON text.
fn literal_escapes(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let mut bytes = json.iter().copied();
    while let Some(byte) = bytes.next() {
        out.push(byte);
        if byte == b'\\' {
            let next = bytes.next();
            out.extend((next == Some(b'u')).then_some(b'\\').into_iter().chain(next));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cases: &[(&str, &str, u64)]) -> Report {
        let case = |(number, behavior, code): &(&str, &str, u64)| {
            let kept = [("behavior", Value::from(*behavior)), ("remoteCloseCode", Value::from(*code))];
            let kept = kept.map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
            ((*number).to_owned(), kept)
        };
        Report { cases: cases.iter().map(case).collect() }
    }

    #[test]
    fn equal_runs_have_no_difference_and_each_difference_is_told() {
        let direct = report(&[("1.1.1", "OK", 1000), ("7.1.1", "OK", 1000), ("9.1.1", "OK", 1000)]);
        assert!(differences(&direct, &direct).is_empty());
        let through = report(&[("1.1.1", "FAILED", 1000), ("7.1.1", "OK", 1006)]);
        let found = differences(&direct, &through);
        assert_eq!(found["1.1.1"], "behavior: direct OK, through FAILED");
        assert_eq!(found["7.1.1"], "remoteCloseCode: direct 1000, through 1006");
        assert_eq!(found["9.1.1"], "only in the run without");
        assert_eq!(through.tally(), BTreeMap::from([("FAILED".to_owned(), 1), ("OK".to_owned(), 1)]));
    }

    #[test]
    fn half_a_surrogate_pair_is_kept_as_it_is_written() {
        let value: Value = serde_json::from_slice(&literal_escapes(br#""\ud800 \\u \" \n""#)).unwrap();
        assert_eq!(value, "\\ud800 \\u \" \n");
    }

    #[test]
    fn a_run_is_read_from_its_folder_and_a_report_without_a_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, value: &Value| fs::write(dir.path().join(name), value.to_string()).unwrap();
        write("index.json", &serde_json::json!({"peer": {"1.1.1": {"reportfile": "a.json"}}}));
        let mut case: Map<String, Value> =
            COMPARED.iter().map(|key| ((*key).to_owned(), Value::Null)).collect();
        case.insert("duration".to_owned(), 7.into());
        write("a.json", &Value::Object(case.clone()));
        let report = Report::read(dir.path(), "peer").unwrap();
        assert_eq!(report.cases["1.1.1"].len(), COMPARED.len());
        case.remove("wasClean");
        write("a.json", &Value::Object(case));
        assert!(Report::read(dir.path(), "peer").unwrap_err().to_string().contains("wasClean"));
        assert!(Report::read(dir.path(), "other").is_err());
    }
}
