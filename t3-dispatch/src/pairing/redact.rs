//! Redacts a command's stderr for the log: its first line, truncated, escaped, and without anything
//! that could be a credential. Pure. In doubt it hides a word: an incomplete cause is still useful,
//! but a logged credential grants access.

use super::credential::Credential;

/// Maximum number of characters.
const MAX: usize = 200;
const HIDDEN: &str = "[hidden]";
/// Minimum length of a credential.
const SHORTEST: usize = 8;

/// Returns the first non-empty line of `stderr`, quoted and escaped. Words of `stdout`, which may
/// hold the credential, are hidden. `user` is never hidden.
pub(super) fn first_line(stderr: &[u8], stdout: &[u8], user: &str) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("nothing on stderr");
    let mut line = line.to_owned();
    if let Ok(minted) = serde_json::from_slice::<Minted>(stdout)
        && !minted.credential.is_empty()
    {
        line = line.replace(minted.credential.text(), HIDDEN);
    }
    let line = without_secret_words(before_value(&line), &words_of_output(stdout), user);
    let mut shown: String = line.chars().take(MAX).collect();
    if shown.len() < line.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

#[derive(serde::Deserialize)]
struct Minted {
    credential: Credential,
}

/// Cuts the line at `credential: ...`, `"token":"..."` and similar.
fn before_value(line: &str) -> &str {
    let lower = line.to_ascii_lowercase();
    let cut = ["credential", "token", "secret", "password"].iter().filter_map(|name| {
        let behind = lower.match_indices(name).map(|(at, _)| at + name.len());
        behind
            .filter(|at| {
                let rest = lower.get(*at..).unwrap_or_default();
                rest.trim_start_matches(['"', '\'', '\\', ' ']).starts_with([':', '='])
            })
            .min()
    });
    cut.min().and_then(|at| line.get(..at)).unwrap_or(line)
}

/// Returns the longer words of an output that names a credential but could not be parsed.
fn words_of_output(stdout: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stdout);
    if !text.contains("credential") {
        return Vec::new();
    }
    text.split(|c| !in_word(c)).filter(|word| word.len() >= 6).map(str::to_owned).collect()
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

fn without_secret_words(line: &str, printed: &[String], user: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for piece in line.split_inclusive(|c| !in_word(c)) {
        let word = piece.trim_end_matches(|c| !in_word(c));
        let hidden =
            word != user && (looks_secret(word) || printed.iter().any(|printed| printed.as_str() == word));
        out.push_str(if hidden { HIDDEN } else { word });
        out.push_str(piece.get(word.len()..).unwrap_or_default());
    }
    out
}

/// Returns whether a word is upper case with digits, or mixes letters and digits. Error names
/// (`ECONNREFUSED`, `SQLITE_BUSY`) do not count.
fn looks_secret(word: &str) -> bool {
    let count = |is: fn(&char) -> bool| word.chars().filter(is).count();
    let digits = count(|c| c.is_ascii_digit());
    let letters = count(|c| c.is_ascii_alphabetic());
    let capitals = letters >= 2 && !word.chars().any(|c| c.is_ascii_lowercase());
    let names_error = digits == 0 && (word.starts_with('E') || word.contains('_'));
    word.len() >= SHORTEST && ((capitals && !names_error) || (digits >= 2 && letters >= 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_shown() {
        for (stderr, shown) in [
            ("sudo: a password is required\n", "\"sudo: a password is required\""),
            ("\n  \nsecond\nthird", "\"second\""),
            ("", "\"nothing on stderr\""),
            ("t3-mint: no serve of user2024 is running", "\"t3-mint: no serve of user2024 is running\""),
            ("Error: connect ECONNREFUSED 127.0.0.1:3773", "\"Error: connect ECONNREFUSED 127.0.0.1:3773\""),
            ("SQLITE_BUSY: database is locked", "\"SQLITE_BUSY: database is locked\""),
            ("node:internal/modules/cjs/loader:1143", "\"node:internal/modules/cjs/loader:1143\""),
            (
                "2026-11-23T23:46:40Z the credential store is full",
                "\"2026-11-23T23:46:40Z the credential store is full\"",
            ),
            (
                "sudo: The \"no new privileges\" flag is set",
                "\"sudo: The \\\"no new privileges\\\" flag is set\"",
            ),
        ] {
            assert_eq!(first_line(stderr.as_bytes(), b"", "user2024"), shown);
        }
    }

    #[test]
    fn a_line_stays_one_line_and_short() {
        let forged = first_line(b"oh\r no\x1b[31m\xff\nnext", b"", "ann");
        assert_eq!(forged, "\"oh\\r no\\u{1b}[31m\u{fffd}\"");
        let long = first_line("no ".repeat(1000).as_bytes(), b"", "ann");
        assert!(long.chars().count() <= MAX + 3 && long.ends_with("…\""), "{long}");
    }

    #[test]
    fn credentials_are_hidden() {
        let json = br#"{"credential":"open sesame","expiresAt":"2026"}"#;
        let broken = br#"{"credential":"opensesame""#;
        for (stderr, stdout, secret) in [
            ("could not keep open sesame: disk full", &json[..], "sesame"),
            ("could not keep opensesame: disk full", broken, "sesame"),
            ("could not keep 7KQ2M9XPB4DW: disk full", b"", "7KQ2"),
            ("could not keep KQMXPBDWHTZA", b"", "KQMX"),
            ("could not keep aB3-dE_f9Gh2", b"", "f9Gh2"),
            ("wrote {\"credential\": \"opensesame\"} to 3", b"", "sesame"),
            ("credential=opensesame", b"", "sesame"),
            ("{\\\"Token\\\":\\\"opensesame\\\"}", b"", "sesame"),
        ] {
            let shown = first_line(stderr.as_bytes(), stdout, "ann");
            assert!(!shown.contains(secret), "{stderr}: {shown}");
        }
        assert_eq!(first_line(b"keep 7KQ2M9XPB4DW: full", b"", "ann"), "\"keep [hidden]: full\"");
    }
}
