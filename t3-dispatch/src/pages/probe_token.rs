//! Token that a probe must have: `Authorization: Bearer TOKEN` (RFC 6750 section 2.1).

use std::{fmt, path::Path};

use http::{HeaderMap, header::AUTHORIZATION};

/// Limits of the length of a token, in characters.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=256;

/// Token of the probes. Cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ProbeToken(String);

impl fmt::Debug for ProbeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeToken")
    }
}

/// Error of [`ProbeToken::read`].
#[derive(Debug, thiserror::Error)]
pub enum ProbeTokenError {
    #[error("cannot read probe token {path}: {source}; see --probe-token-file")]
    Read { path: String, source: std::io::Error },
    #[error("probe token {0}: expected one line with 16 to 256 letters, digits or -._~+/=")]
    Content(String),
}

impl ProbeToken {
    /// Reads a file with one line.
    ///
    /// # Errors
    /// [`ProbeTokenError`]; it does not contain the token.
    pub fn read(path: &Path) -> Result<Self, ProbeTokenError> {
        let name = || path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|source| ProbeTokenError::Read { path: name(), source })?;
        Self::parse(text.trim_end_matches(['\r', '\n'])).ok_or_else(|| ProbeTokenError::Content(name()))
    }

    fn parse(text: &str) -> Option<Self> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        (LENGTHS.contains(&text.len()) && text.bytes().all(valid)).then(|| Self(text.to_owned()))
    }

    /// Whether the request has the token.
    #[must_use]
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, token)) = value.as_bytes().split_at_checked("Bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"Bearer ") && is_equal(token, self.0.as_bytes())
    }
}

/// Compares in a time that does not depend on the position of the first difference.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "abcdefghij0123456789";

    #[test]
    fn only_the_complete_token_is_accepted() {
        let token = ProbeToken::parse(TOKEN).unwrap();
        for (values, accepted) in [
            (&[][..], false),
            (&["Bearer abcdefghij0123456789"], true),
            (&["bearer abcdefghij0123456789"], true),
            (&["Bearer abcdefghij012345678"], false),
            (&["Bearer abcdefghij01234567890"], false),
            (&["Bearer abcdefghij012345678\u{e9}"], false),
            (&["Basic abcdefghij0123456789"], false),
            (&["abcdefghij0123456789"], false),
            (&["Bearer "], false),
            (&["Bearer abcdefghij0123456789", "Bearer abcdefghij0123456789"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            assert_eq!(token.is_in(&headers), accepted, "{values:?}");
        }
    }

    #[test]
    fn a_file_has_one_token_which_is_not_printed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, valid) in [
            (format!("{TOKEN}\n"), true),
            (TOKEN.to_owned(), true),
            (String::new(), false),
            ("short\n".to_owned(), false),
            (format!("{TOKEN}\n{TOKEN}\n"), false),
            (format!("{TOKEN} "), false),
            ("x".repeat(257), false),
        ] {
            std::fs::write(file.path(), &text).unwrap();
            let read = ProbeToken::read(file.path());
            assert_eq!(read.is_ok(), valid, "{text:?}");
            assert!(!format!("{read:?}").contains(TOKEN));
        }
        assert!(ProbeToken::read(Path::new("/nonexistent")).is_err());
    }
}
