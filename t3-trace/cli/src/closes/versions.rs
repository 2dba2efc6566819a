//! Changes of serve's version between the closes of a user: an upgrade is a frequent reason for a
//! close, and for another behaviour after it. Pure.

use std::collections::HashMap;

use t3_record::CloseRecord;

/// Users whose version is kept.
const MOST: usize = 10_000;

/// The last version of each user's serve.
#[derive(Debug, Default)]
pub struct Versions {
    last: HashMap<(String, String), String>,
}

impl Versions {
    /// Notes the version in a record. Returns the line of a change: the record before it of the
    /// same user on the same host has another version.
    pub fn change(&mut self, record: &CloseRecord, host: Option<&str>) -> Option<String> {
        let version = record.serve_version.as_deref()?;
        let key = (host.unwrap_or_default().to_owned(), record.user.clone());
        if let Some(last) = self.last.get_mut(&key) {
            let before = (last != version).then(|| std::mem::replace(last, version.to_owned()))?;
            return Some(format!("serve of {}: version {before} -> {version}", record.user));
        }
        if self.last.len() < MOST {
            self.last.insert(key, version.to_owned());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use t3_record::{Segment, Verdict};

    use super::*;

    fn record(user: &str, version: Option<&str>) -> CloseRecord {
        let mut record = crate::closes::tests::record(user, Verdict::ServeExited, Segment::Serve, 1);
        record.serve_version = version.map(str::to_owned);
        record
    }

    #[test]
    fn only_another_version_of_the_same_user_on_the_same_host_is_a_change() {
        let mut versions = Versions::default();
        let mut change = |user: &str, version: Option<&str>, host: Option<&str>| {
            versions.change(&record(user, version), host)
        };
        assert_eq!(change("ann", Some("0.0.41"), None), None, "the first");
        assert_eq!(change("ann", Some("0.0.41"), None), None, "the same");
        assert_eq!(change("bob", Some("0.0.42"), None), None, "another user");
        assert_eq!(change("ann", Some("0.0.42"), Some("other")), None, "another host");
        assert_eq!(change("ann", None, None), None, "unknown");
        let changed = "serve of ann: version 0.0.41 -> 0.0.42";
        assert_eq!(change("ann", Some("0.0.42"), None).as_deref(), Some(changed));
        assert_eq!(change("ann", Some("0.0.42"), None), None, "reported once");
    }
}
