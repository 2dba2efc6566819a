//! One-time credential. It can be sent to serve, but not printed: a reader of the log could use it.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Credential from the mint, valid for one session.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Credential(String);

impl Credential {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the text, to search for it in output that must not contain it.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// Returns `{"credential": "..."}`, the request body for serve.
    pub(super) fn body(&self) -> Bytes {
        #[derive(Serialize)]
        struct Body<'a> {
            credential: &'a str,
        }
        // A struct with one string always serializes.
        serde_json::to_vec(&Body { credential: &self.0 }).unwrap_or_default().into()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sent_and_not_printed() {
        let credential: Credential = serde_json::from_str(r#""a\"b""#).unwrap();
        assert_eq!(credential.body(), r#"{"credential":"a\"b"}"#);
        assert_eq!(format!("{credential:?} {:#?}", Some(&credential)).matches("a\"b").count(), 0);
    }
}
