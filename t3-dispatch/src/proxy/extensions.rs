//! Names of the WebSocket extensions that a 101 negotiates (RFC 6455 section 9.1).

use hyper::{HeaderMap, header::SEC_WEBSOCKET_EXTENSIONS};

/// Longest text in bytes: the header comes from a program of a user.
const LONGEST: usize = 100;

/// Returns the names without parameters, separated by commas; `None` without extension. Characters
/// that no token has are left out (RFC 9110 section 5.6.2).
#[must_use]
pub fn names(headers: &HeaderMap) -> Option<String> {
    let mut names = String::new();
    let values = headers.get_all(SEC_WEBSOCKET_EXTENSIONS);
    for extension in values.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let name = extension.split(|byte| *byte == b';').next().unwrap_or_default();
        if !names.is_empty() {
            names.push(',');
        }
        let token = name.iter().filter(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte));
        names.extend(token.map(|byte| char::from(*byte)));
    }
    names.truncate(LONGEST);
    values.iter().next().map(|_| names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_listed_without_parameters() {
        for (values, expected) in [
            (&[][..], None),
            (&["permessage-deflate"], Some("permessage-deflate")),
            (&["permessage-deflate; client_max_window_bits=15, x-test"], Some("permessage-deflate,x-test")),
            (&["a", "b;c"], Some("a,b")),
            (&["p e\"r=x;y"], Some("perx")),
            (&[""], Some("")),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(SEC_WEBSOCKET_EXTENSIONS, value.parse().unwrap());
            }
            assert_eq!(names(&headers).as_deref(), expected, "{values:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, "x".repeat(5_000).parse().unwrap());
        assert_eq!(names(&headers).unwrap().len(), LONGEST);
    }
}
