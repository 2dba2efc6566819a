//! Request id, which connects a user's report with its log line: the id of the previous hop, else a
//! new one. Pure.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::sys::random_id;

/// Header of requests and responses.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum length of an id.
const LONGEST: usize = 64;

/// Returns the id from a trusted hop: `X-Request-Id`, else `Cf-Ray`. Ignores values that are long
/// or contain other characters than letters, digits and `-_.`, because the id is logged.
#[must_use]
pub fn given(headers: &HeaderMap) -> Option<HeaderValue> {
    let sane = |id: &&HeaderValue| {
        let sound = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        (1..=LONGEST).contains(&id.len()) && id.as_bytes().iter().all(sound)
    };
    headers.get(HEADER).filter(sane).or_else(|| headers.get("cf-ray").filter(sane)).cloned()
}

/// Returns that id, else a new one.
#[must_use]
pub fn or_fresh(given: Option<HeaderValue>) -> HeaderValue {
    given
        .or_else(|| HeaderValue::from_str(&random_id::fresh()).ok())
        .unwrap_or_else(|| HeaderValue::from_static("none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_safe_id_is_kept() {
        let long = "a".repeat(65);
        for (request_id, ray, expected) in [
            ("9f1c-2.b_", "8d3-FRA", Some("9f1c-2.b_")),
            ("", "8d3-FRA", Some("8d3-FRA")),
            ("a b", "8d3-FRA", Some("8d3-FRA")),
            ("a\"", "x=1", None),
            (&long, "", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, request_id.parse().unwrap());
            headers.insert("cf-ray", ray.parse().unwrap());
            assert_eq!(given(&headers).as_ref().map(|id| id.to_str().unwrap()), expected);
        }
        assert_ne!(or_fresh(None), or_fresh(None));
    }
}
