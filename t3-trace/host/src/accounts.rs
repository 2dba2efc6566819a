//! Numbers of users and groups by name, from `/etc/passwd` and `/etc/group`, then from `getent` for
//! other sources (a static binary has no name service).

use std::{fs, process::Command};

/// Returns the uid of a user name or a number.
#[must_use]
pub fn uid_of(user: &str) -> Option<u32> {
    number(user, "/etc/passwd", "passwd")
}

/// Returns the gid of a group name or a number.
#[must_use]
pub fn gid_of(group: &str) -> Option<u32> {
    number(group, "/etc/group", "group")
}

/// Returns the name of a user, if it has one.
#[must_use]
pub fn user_name(uid: u32) -> Option<String> {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_of(&text, uid).or_else(|| {
        let output = Command::new("getent").args(["passwd", "--", &uid.to_string()]).output().ok()?;
        name_of(&String::from_utf8_lossy(&output.stdout), uid)
    })
}

/// Returns the name of a group, or its number if it has no name.
#[must_use]
pub fn group_name(gid: u32) -> String {
    let text = fs::read_to_string("/etc/group").unwrap_or_default();
    let found = name_of(&text, gid).or_else(|| {
        let output = Command::new("getent").args(["group", "--", &gid.to_string()]).output().ok()?;
        name_of(&String::from_utf8_lossy(&output.stdout), gid)
    });
    found.unwrap_or_else(|| gid.to_string())
}

fn name_of(text: &str, number: u32) -> Option<String> {
    let named = |line: &&str| line.split(':').nth(2).and_then(|field| field.parse().ok()) == Some(number);
    text.lines().find(named)?.split(':').next().map(str::to_owned)
}

fn number(name: &str, file: &str, database: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let text = fs::read_to_string(file).unwrap_or_default();
    find(&text, name).or_else(|| {
        let output = Command::new("getent").args([database, "--", name]).output().ok()?;
        find(&String::from_utf8_lossy(&output.stdout), name)
    })
}

/// Third field of the line of this name (passwd(5), group(5)).
fn find(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_name_matches() {
        let text = "root:x:0:0:root:/root:/bin/bash\nt3-dispatch2:x:7:7::/:/x\nt3-dispatch:x:991:991::/:/x\nbroken:x\n";
        assert_eq!(find(text, "t3-dispatch"), Some(991));
        for name in ["t3", "dispatch", "broken", "", "x"] {
            assert_eq!(find(text, name), None, "{name:?}");
        }
    }

    #[test]
    fn a_number_has_its_name() {
        let text = "root:x:0:\nt3-trace:x:990:ann\nbroken:x\n";
        assert_eq!(name_of(text, 990).as_deref(), Some("t3-trace"));
        assert_eq!(name_of(text, 7), None);
        assert_eq!(group_name(0), "root");
    }

    #[test]
    fn root_and_numbers_are_known_everywhere() {
        assert_eq!((uid_of("root"), gid_of("root")), (Some(0), Some(0)));
        assert_eq!(uid_of("4711"), Some(4711));
        assert_eq!(uid_of("no-such-user-here"), None);
    }
}
