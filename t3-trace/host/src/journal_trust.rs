//! Which entries of the journal are believed. A `MESSAGE_ID` is a field that any local user can
//! send; who sent an entry is not: journald takes the fields that begin with `_` from the kernel
//! and refuses them from anybody else (systemd.journal-fields(7), "Trusted Journal Fields"). Only
//! decides; reads no journal.

use std::collections::BTreeMap;

use crate::accounts;

/// The trusted fields that the rule looks at: what is read from the journal must contain them.
pub const FIELDS: [&str; 2] = ["_UID", "_SYSTEMD_UNIT"];

/// The units whose entries are believed whatever their uid: where a journal comes from another
/// machine, uids mean nothing.
const UNITS: [&str; 2] = ["t3-dispatch.service", "t3-trace.service"];

/// The user that t3-dispatch runs as unless somebody said otherwise.
pub const DISPATCH_USER: &str = "t3-dispatch";

/// Whose entries are believed on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trust {
    /// The uid of dispatch's user; `None` where there is no such user.
    pub dispatch: Option<u32>,
}

impl Trust {
    /// Root's entries, those of our units, and those of this user, which is looked up now.
    #[must_use]
    pub fn in_user(dispatch_user: &str) -> Self {
        Self { dispatch: accounts::uid_of(dispatch_user) }
    }

    /// Whether an entry with these fields was written by t3-dispatch, t3-trace or root.
    #[must_use]
    pub fn allows(&self, fields: &BTreeMap<String, String>) -> bool {
        let text = |name: &str| fields.get(name).map(String::as_str);
        self.allows_writer(text("_UID"), text("_SYSTEMD_UNIT"))
    }

    /// The same by the values of [`FIELDS`].
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
    fn root_dispatchs_user_and_our_units_are_believed_and_nobody_else() {
        let trust = Trust { dispatch: Some(991) };
        for (uid, unit, believed) in [
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
            assert_eq!(trust.allows_writer(uid, unit), believed, "{uid:?} {unit:?}");
        }
    }

    #[test]
    fn what_a_sender_can_write_itself_counts_for_nothing() {
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
    fn where_there_is_no_such_user_only_root_and_our_units_are_left() {
        let trust = Trust::in_user("no-such-user-here");
        assert_eq!(trust, Trust { dispatch: None });
        assert!(trust.allows_writer(Some("0"), None) && !trust.allows_writer(None, None));
    }
}
