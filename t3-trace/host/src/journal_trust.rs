//! Trust in journal entries by the uid and unit of their writer.
//!
//! Any local user can send a `MESSAGE_ID`. journald takes the fields that begin with `_` from the
//! kernel and rejects them from clients (systemd.journal-fields(7), "Trusted Journal Fields").

use std::collections::BTreeMap;

use crate::accounts;

/// Trusted fields that the rule needs: what is read from the journal must contain them.
pub const FIELDS: [&str; 2] = ["_UID", "_SYSTEMD_UNIT"];

/// Units whose entries are trusted with any uid: in a journal of another host, uids are not
/// comparable.
const UNITS: [&str; 2] = ["t3-dispatch.service", "t3-trace.service"];

/// Default user of t3-dispatch.
pub const DISPATCH_USER: &str = "t3-dispatch";

/// Trusted writers on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trust {
    /// The uid of dispatch's user; `None` if the user does not exist.
    pub dispatch: Option<u32>,
}

impl Trust {
    /// Trusts root, the two units, and this user, whose uid is looked up now.
    #[must_use]
    pub fn in_user(dispatch_user: &str) -> Self {
        Self { dispatch: accounts::uid_of(dispatch_user) }
    }

    /// Whether t3-dispatch, t3-trace or root wrote an entry with these fields.
    #[must_use]
    pub fn allows(&self, fields: &BTreeMap<String, String>) -> bool {
        let text = |name: &str| fields.get(name).map(String::as_str);
        self.allows_writer(text("_UID"), text("_SYSTEMD_UNIT"))
    }

    /// As [`Self::allows`], with the values of [`FIELDS`].
    #[must_use]
    pub fn allows_writer(&self, uid: Option<&str>, unit: Option<&str>) -> bool {
        let uid: Option<u32> = uid.and_then(|uid| uid.parse().ok());
        uid.is_some_and(|uid| uid == 0 || Some(uid) == self.dispatch)
            || unit.is_some_and(|unit| UNITS.contains(&unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_dispatchs_user_and_the_two_units_are_trusted() {
        let trust = Trust { dispatch: Some(991) };
        for (uid, unit, trusted) in [
            (Some("0"), None, true),
            (Some("0"), Some("cron.service"), true),
            (Some("991"), Some("session-3.scope"), true),
            (Some("7"), Some("t3-dispatch.service"), true),
            (None, Some("t3-trace.service"), true),
            (Some("1000"), None, false),
            (Some("1000"), Some("user@1000.service"), false),
            (Some("1000"), Some("t3-dispatch.service.evil"), false),
            (Some("1000"), Some("t3-serve@wizard.service"), false),
            (Some(""), Some(""), false),
            (Some("-0"), None, false),
            (Some("4294967296"), None, false),
            (None, None, false),
        ] {
            assert_eq!(trust.allows_writer(uid, unit), trusted, "{uid:?} {unit:?}");
        }
    }

    #[test]
    fn fields_that_a_client_can_set_are_ignored() {
        let forged: BTreeMap<String, String> = [
            ("_UID", "1000"),
            ("UID", "0"),
            ("OBJECT_UID", "0"),
            ("OBJECT_SYSTEMD_UNIT", "t3-dispatch.service"),
            ("_SYSTEMD_USER_UNIT", "t3-dispatch.service"),
            ("SYSLOG_IDENTIFIER", "t3-dispatch"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        assert!(!Trust { dispatch: Some(991) }.allows(&forged));
    }

    #[test]
    fn without_dispatchs_user_only_root_and_the_two_units_are_trusted() {
        let trust = Trust::in_user("no-such-user-here");
        assert_eq!(trust, Trust { dispatch: None });
        assert!(trust.allows_writer(Some("0"), None) && !trust.allows_writer(None, None));
    }
}
