//! The names of changed documents: a document with our tags in it is not the one that serve named,
//! so it gets a name of its own, from which serve's comes back when the browser asks whether it has
//! changed (RFC 9110 sections 8.8.3 and 13.1.2). Pure.
//!
//! The name is weak, so that no range of serve's bytes is ever put together with ours, and it holds
//! a sum of the tags, so that a document with yesterday's tags is not kept because serve's part of
//! it has stayed the same.

/// A name of serve's, as it wrote it: `"x"` or `W/"x"`.
type Theirs = String;

/// The ETag of serve's document `theirs` with our tags in it. `None` when `theirs` is not an ETag.
#[must_use]
pub fn ours(theirs: &str) -> Option<String> {
    let (weak, opaque) = parse(theirs.trim())?;
    Some(format!("W/\"{opaque}{}{}\"", mark(), if weak { 'w' } else { 's' }))
}

/// The name of serve's that `ours` was made from; `None` when it was not made here with the tags of
/// today.
#[must_use]
pub fn theirs(ours: &str) -> Option<Theirs> {
    // A proxy between us and the browser may have taken or given the W/.
    let (_, opaque) = parse(ours)?;
    let (rest, weak) = match opaque.strip_suffix('w') {
        Some(rest) => (rest, "W/"),
        None => (opaque.strip_suffix('s')?, ""),
    };
    rest.strip_suffix(mark().as_str()).map(|opaque| format!("{weak}\"{opaque}\""))
}

/// Two names of one thing, weakly compared.
#[must_use]
pub fn matches_weakly(one: &str, other: &str) -> bool {
    matches!((parse(one.trim()), parse(other.trim())), (Some((_, one)), Some((_, other))) if one == other)
}

/// The names in an If-None-Match; commas may stand inside of them.
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

/// Weak or not, and what stands between the quotes.
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

/// FNV-1a: tells one set of tags from another; nobody gains by a collision.
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
    fn a_name_is_weak_and_leads_back_to_the_one_it_was_made_from() {
        for name in ["\"abc\"", "W/\"abc\"", "\"\"", "\"a,b\"", "W/\"1f-18c2s\"", "\"xw\""] {
            let made = ours(name).unwrap();
            assert!(made.starts_with("W/\""), "{made}");
            assert_ne!(made, name);
            assert_eq!(theirs(&made).as_deref(), Some(name));
            assert_eq!(
                theirs(made.trim_start_matches("W/")).as_deref(),
                Some(name),
                "made strong on the way"
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
    fn lists_are_taken_apart() {
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
        fn no_header_value_breaks_it(value in "[ -~]{0,40}") {
            let _ = (list(&value).count(), ours(&value), matches_weakly(&value, &value));
            if let Some(theirs) = theirs(&value) {
                prop_assert!(matches_weakly(&ours(&theirs).unwrap(), &value));
            }
        }
    }
}
