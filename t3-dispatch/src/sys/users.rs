//! Numbers of users by name, from `/etc/passwd`, then from `getent` for other sources (a static
//! binary has no name service).

use std::{fs, process::Command};

/// Returns the uid of a user; `None` if this host does not have the user. Blocks: `getent` may ask
/// a server.
#[must_use]
pub fn uid_of(name: &str) -> Option<u32> {
    // A name with a colon would match other fields.
    if name.is_empty() || name.contains([':', '\n']) {
        return None;
    }
    find(&fs::read_to_string("/etc/passwd").unwrap_or_default(), name).or_else(|| {
        let output = Command::new("getent").args(["passwd", "--", name]).output().ok()?;
        find(&String::from_utf8_lossy(&output.stdout), name)
    })
}

/// Third field of the line of this name (passwd(5)).
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
        let text = "root:x:0:0:root:/root:/bin/bash\nann2:x:7:7::/:/x\nann:x:1001:1001::/:/x\nbroken:x\n";
        assert_eq!(find(text, "ann"), Some(1001));
        for name in ["an", "broken", "", "x", "1001"] {
            assert_eq!(find(text, name), None, "{name:?}");
        }
    }

    #[test]
    fn root_is_known_everywhere() {
        assert_eq!(uid_of("root"), Some(0));
        for name in ["no-such-user-here", "", "root:x", "0"] {
            assert_eq!(uid_of(name), None, "{name:?}");
        }
    }
}
