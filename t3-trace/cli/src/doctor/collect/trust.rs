//! Trust settings of t3-dispatch, from the output of `t3-dispatch check`.

use t3_trace_host::accounts;

use crate::doctor::facts::{Collected, LocalTrust};

/// First uid of users who can log in (`UID_MIN` of login.defs(5)).
const FIRST_LOGIN: u32 = 1000;

/// Reads the settings.
pub(super) fn read() -> Collected<LocalTrust> {
    parse(&super::run("t3-dispatch", &["check"])?, accounts::uid_of)
}

fn parse(output: &str, uid_of: impl Fn(&str) -> Option<u32>) -> Collected<LocalTrust> {
    let value = |name: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))?;
        Some(line.rsplit_once("   (").map_or(line, |(value, _)| value))
    };
    let missing = || "t3-dispatch check does not print trusted-user: another release?".to_owned();
    let users = value("trusted-user").ok_or_else(missing)?;
    let users = users.split(',').filter(|user| !matches!(*user, "none" | "root" | "0"));
    let can_log_in = |user: &str| {
        let uid = user.parse().ok().or_else(|| uid_of(user));
        uid.is_none_or(|uid| uid >= FIRST_LOGIN)
    };
    Ok(LocalTrust {
        users: users.map(|user| (user.to_owned(), can_log_in(user))).collect(),
        secret: value("proxy-secret-file").is_some_and(|file| file != "off"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_secret_are_read_from_the_output_of_check() {
        let parsed = |users: &str, secret: &str| {
            let text = format!(
                "listen = [::]:3780   (default)\ntrusted-user = {users}   (file /etc/t3-dispatch.toml:3)\n\
                 proxy-secret-file = {secret}   (default)\nann -> ann:1\n"
            );
            parse(&text, |name| (name == "traefik").then_some(998)).unwrap()
        };
        for none in ["root", "0", "none", "root,0"] {
            assert_eq!(parsed(none, "off"), LocalTrust::default(), "{none}");
        }
        let users = [("traefik", false), ("ann", true), ("1001", true), ("33", false)];
        let users = users.map(|(user, can_log_in)| (user.to_owned(), can_log_in)).into();
        assert_eq!(
            parsed("root,traefik,ann,1001,33", "/etc/t3-dispatch.secret"),
            LocalTrust { users, secret: true }
        );
        assert!(parse("trusted-proxy = 10.0.0.0/8   (default)\n", |_| None).is_err());
    }
}
