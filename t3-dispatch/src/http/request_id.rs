//! The id by which a user's complaint finds its log line: that of the hop before us when it gave
//! one, else our own. Pure.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::sys::random_id;

/// The header, of requests and answers.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ones are not believed to be ids.
const LONGEST: usize = 64;

/// The id that a trusted hop gave a request: `X-Request-Id`, else `Cf-Ray`. Only what is one short
/// word of letters, digits and `-_.` counts: it goes to the log.
#[must_use]
pub fn given(headers: &HeaderMap) -> Option<HeaderValue> {
    let sane = |id: &&HeaderValue| {
        let sound = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        (1..=LONGEST).contains(&id.len()) && id.as_bytes().iter().all(sound)
    };
    headers.get(HEADER).filter(sane).or_else(|| headers.get("cf-ray").filter(sane)).cloned()
}

/// That id, else one of our own.
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
    fn an_id_is_taken_over_only_when_it_can_do_no_harm() {
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
