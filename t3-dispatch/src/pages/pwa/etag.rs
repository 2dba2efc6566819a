//! ETags of changed documents: a document with tags differs from that of serve, so it gets a
//! separate ETag, from which serve's is restored for validation (RFC 9110 sections 8.8.3 and
//! 13.1.2). Pure.
//!
//! The ETag is weak, so that ranges of the two documents are never combined. It contains a checksum
//! of the tags, so that a cached document with older tags is not considered fresh.

/// ETag of serve, unchanged: `"x"` or `W/"x"`.
type Theirs = String;

/// Returns the ETag of serve's document `theirs` with tags. `None` when `theirs` is not an ETag.
#[must_use]
pub fn ours(theirs: &str) -> Option<String> {
    let (weak, opaque) = parse(theirs.trim())?;
    Some(format!("W/\"{opaque}{}{}\"", mark(), if weak { 'w' } else { 's' }))
}

/// Returns serve's ETag from which `ours` was created; `None` when it was not created with the
/// current tags.
#[must_use]
pub fn theirs(ours: &str) -> Option<Theirs> {
    // A proxy on the path may have removed or added the W/.
    let (_, opaque) = parse(ours)?;
    let (rest, weak) = match opaque.strip_suffix('w') {
        Some(rest) => (rest, "W/"),
        None => (opaque.strip_suffix('s')?, ""),
    };
    rest.strip_suffix(mark().as_str()).map(|opaque| format!("{weak}\"{opaque}\""))
}

/// Weak comparison of two ETags.
#[must_use]
pub fn matches_weakly(one: &str, other: &str) -> bool {
    matches!((parse(one.trim()), parse(other.trim())), (Some((_, one)), Some((_, other))) if one == other)
}

/// Splits an If-None-Match; ETags may contain commas.
pub fn list(value: &str) -> impl Iterator<Item = &str> {
    let mut rest = value;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let quote = rest.find(['"', ','])?;
        let end = match rest.as_bytes()[quote] {
            b'"' => quote + 1 + rest[quote + 1..].find('"')? + 1,
            _ => quote,
        };
        let (one, others) = rest.split_at(end);
        rest = others;
        Some(one)
    })
}

/// Parses into the weak flag and the opaque part.
fn parse(tag: &str) -> Option<(bool, &str)> {
    let (weak, quoted) = match tag.strip_prefix("W/") {
        Some(quoted) => (true, quoted),
        None => (false, tag),
    };
    let opaque = quoted.strip_prefix('"')?.strip_suffix('"')?;
    (!opaque.contains('"')).then_some((weak, opaque))
}

fn mark() -> String {
    format!(".t3-{:08x}", sum(super::TAGS.as_bytes()))
}

/// FNV-1a: distinguishes sets of tags; a collision is harmless.
const fn sum(bytes: &[u8]) -> u32 {
    let mut sum = 0x811c_9dc5_u32;
    let mut at = 0;
    while at < bytes.len() {
        sum = (sum ^ bytes[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_etag_is_weak_and_restores_the_original() {
        for name in ["\"abc\"", "W/\"abc\"", "\"\"", "\"a,b\"", "W/\"1f-18c2s\"", "\"xw\""] {
            let made = ours(name).unwrap();
            assert!(made.starts_with("W/\""), "{made}");
            assert_ne!(made, name);
            assert_eq!(theirs(&made).as_deref(), Some(name));
            assert_eq!(
                theirs(made.trim_start_matches("W/")).as_deref(),
                Some(name),
                "made strong by a proxy"
            );
            assert_eq!(theirs(name), None);
        }
        for no_name in ["", "abc", "\"abc", "W/abc", "\"a\"b\"", "*"] {
            assert_eq!((ours(no_name), theirs(no_name)), (None, None), "{no_name}");
        }
        let stale = ours("\"abc\"").unwrap().replace(&mark(), ".t3-00000000");
        assert_eq!(theirs(&stale), None, "other tags");
    }

    #[test]
    fn lists_are_split() {
        for (value, expected) in [
            ("\"a\"", &["\"a\""][..]),
            ("\"a\", W/\"b,c\" ,,\"\"", &["\"a\"", "W/\"b,c\"", "\"\""]),
            ("", &[]),
            ("*", &[]),
            ("\"open", &[]),
            ("junk, \"a\"", &["junk", "\"a\""]),
        ] {
            assert_eq!(list(value).collect::<Vec<_>>(), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_header_value_causes_a_panic(value in "[ -~]{0,40}") {
            let _ = (list(&value).count(), ours(&value), matches_weakly(&value, &value));
            if let Some(theirs) = theirs(&value) {
                prop_assert!(matches_weakly(&ours(&theirs).unwrap(), &value));
            }
        }
    }
}
