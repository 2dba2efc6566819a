//! Validation of a complete request head (RFC 9112), its body length, and upgrade detection. Pure.

use super::Violation;
use crate::http::headers::has_token;

/// Length of the body after a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Number of bytes.
    Known(u64),
    /// Chunks (RFC 9112 section 7.1).
    Chunked,
}

/// Framing information of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub body: Length,
    /// A WebSocket upgrade: the bytes after it may not be HTTP.
    pub websocket: bool,
}

/// Fields that determine framing, host and upgrade.
#[derive(Debug, Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    connection: bool,
}

/// Parses a head that ends with an empty line. The caller has checked line ends and control
/// characters.
///
/// # Errors
/// [`Violation`].
pub fn parse(head: &[u8], max_fields: usize) -> Result<Head, Violation> {
    let mut lines = Lines(head);
    let (authority, version) = request_line(lines.next().unwrap_or_default())?;
    let mut fields = Fields::default();
    let mut count = 0;
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        count += 1;
        if count > max_fields {
            return Err(Violation::TooManyFields);
        }
        let (name, value) = field(line)?;
        fields.take(name, value)?;
    }
    if fields.chunked && fields.content_length.is_some() {
        return Err(Violation::TwoLengths);
    }
    if fields.chunked && version == Version::Http10 {
        return Err(Violation::TransferEncoding);
    }
    match (fields.host, authority, version) {
        (None, _, Version::Http11) => return Err(Violation::Host),
        (Some(host), Some(authority), _) if !host.eq_ignore_ascii_case(authority) => {
            return Err(Violation::OtherHost);
        }
        _ => {}
    }
    let body = match fields.content_length {
        _ if fields.chunked => Length::Chunked,
        length => Length::Known(length.unwrap_or(0)),
    };
    Ok(Head { body, websocket: fields.upgrade && fields.connection })
}

/// Iterator over lines without their CR LF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let (line, rest) = self.0.split_at(end + 1);
        self.0 = rest;
        Some(line.strip_suffix(b"\r\n").unwrap_or(line))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

/// Returns the authority of an absolute target, and the version.
fn request_line(line: &[u8]) -> Result<(Option<&[u8]>, Version), Violation> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Violation::RequestLine);
    };
    if method == b"PRI" && version == b"HTTP/2.0" {
        return Err(Violation::Http2);
    }
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Violation::Version);
        }
        _ => return Err(Violation::RequestLine),
    };
    if !is_token(method) {
        return Err(Violation::RequestLine);
    }
    if method == b"CONNECT" || method == b"TRACE" {
        return Err(Violation::Method);
    }
    Ok((authority(target)?, version))
}

/// Returns the authority if the target is a URL.
fn authority(target: &[u8]) -> Result<Option<&[u8]>, Violation> {
    // Browsers do not encode some characters that RFC 3986 requires to be encoded
    // (url.spec.whatwg.org, the percent-encode sets of path and query). None of those affects the
    // framing, and hyper accepts them.
    let query = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at(query);
    let sound = |byte: &u8| matches!(byte, 0x21..=0x7e) && !b"#<>".contains(byte);
    if !path.iter().all(|byte| sound(byte) && *byte != b'`')
        || !query.iter().all(|byte| sound(byte) && *byte != b'"')
    {
        return Err(Violation::Target);
    }
    if target.first() == Some(&b'/') {
        return Ok(None);
    }
    let rest = strip_scheme(target, b"http://").or_else(|| strip_scheme(target, b"https://"));
    let rest = rest.ok_or(Violation::Target)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let authority = &rest[..end];
    if is_host(authority) { Ok(Some(authority)) } else { Err(Violation::Target) }
}

fn strip_scheme<'a>(target: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = target.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// `host [ ":" port ]` of RFC 3986 section 3.2, checked by its characters only, which excludes user
/// info, path and lists.
fn is_host(value: &[u8]) -> bool {
    let sound = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte);
    !value.is_empty() && value.iter().all(sound)
}

/// Returns name and value of a field line, the value without surrounding whitespace.
///
/// # Errors
/// [`Violation::Fold`], [`Violation::FieldName`].
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Violation::Fold);
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Violation::FieldName)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if is_token(name) { Ok((name, trim(value))) } else { Err(Violation::FieldName) }
}

impl<'a> Fields<'a> {
    fn take(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Violation> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        if is(b"content-length") {
            let length = number(value).ok_or(Violation::ContentLength)?;
            if self.content_length.replace(length).is_some() {
                return Err(Violation::ContentLength);
            }
        } else if is(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Violation::TransferEncoding);
            }
            self.chunked = true;
        } else if is(b"host") {
            if !is_host(value) || self.host.replace(value).is_some() {
                return Err(Violation::Host);
            }
        } else if is(b"upgrade") {
            self.upgrade |= has_token(value, "websocket");
        } else if is(b"connection") {
            self.connection |= has_token(value, "upgrade");
        }
        Ok(())
    }
}

/// Parses digits, up to 18, so that the number always fits.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// Removes spaces and tabs at both ends (OWS, RFC 9110 section 5.6.3).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().copied().all(is_token_char)
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_token_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, Violation> {
        parse(text.replace('\n', "\r\n").as_bytes(), 8)
    }

    #[test]
    fn a_valid_head_has_a_body_length() {
        let plain = |body| Ok(Head { body, websocket: false });
        for (text, body) in [
            ("GET / HTTP/1.1\nHost: t3\n\n", Length::Known(0)),
            ("GET / HTTP/1.0\n\n", Length::Known(0)),
            ("GET /a\"?b=c|{d}^`\\&e=? HTTP/1.1\nhost:t3:80\n\n", Length::Known(0)),
            ("GET http://T3.example/a HTTP/1.1\nHost: t3.EXAMPLE\n\n", Length::Known(0)),
            ("GET https://[::1]:3780?x HTTP/1.1\nHost: [::1]:3780\n\n", Length::Known(0)),
            ("POST / HTTP/1.1\nHost: t3\nContent-Length:  007\t\n\n", Length::Known(7)),
            ("PURGE / HTTP/1.1\nHost: t3\ntransfer-encoding: ChunkeD\n\n", Length::Chunked),
            ("GET / HTTP/1.1\nHost: t3\nX: \u{e9}\tx\nY:\n_a!b|c~: 1\n\n", Length::Known(0)),
        ] {
            assert_eq!(head(text), plain(body), "{text}");
        }
    }

    #[test]
    fn an_upgrade_needs_both_of_its_headers() {
        for (text, websocket) in [
            ("Upgrade: WebSocket\nConnection: keep-alive, upgrade\n", true),
            ("Upgrade: h2c\nUpgrade: websocket\nConnection: x\nConnection: Upgrade\n", true),
            ("Upgrade: websocket\nConnection: keep-alive\n", false),
            ("Upgrade: h2c\nConnection: Upgrade\n", false),
            ("Connection: Upgrade\n", false),
        ] {
            let found = head(&format!("GET / HTTP/1.1\nHost: t3\n{text}\n")).unwrap();
            assert_eq!(found.websocket, websocket, "{text}");
        }
    }

    #[test]
    fn ambiguous_requests_are_rejected() {
        use Violation as R;
        for (line, why) in [
            ("GET  / HTTP/1.1", R::RequestLine),
            ("GET / HTTP/1.1 ", R::RequestLine),
            (" GET / HTTP/1.1", R::RequestLine),
            ("GET /", R::RequestLine),
            ("GET\t/\tHTTP/1.1", R::RequestLine),
            ("G(T / HTTP/1.1", R::RequestLine),
            ("GET / http/1.1", R::RequestLine),
            ("GET / HTTP/1.10", R::RequestLine),
            ("GET / HTTP/2.0", R::Version),
            ("GET / HTTP/0.9", R::Version),
            ("GET / HTTP/1.2", R::Version),
            ("PRI * HTTP/2.0", R::Http2),
            ("CONNECT t3:80 HTTP/1.1", R::Method),
            ("TRACE / HTTP/1.1", R::Method),
            ("OPTIONS * HTTP/1.1", R::Target),
            ("GET t3:80 HTTP/1.1", R::Target),
            ("GET ftp://t3/ HTTP/1.1", R::Target),
            ("GET http:///x HTTP/1.1", R::Target),
            ("GET http://user@t3/ HTTP/1.1", R::Target),
            ("GET /#x HTTP/1.1", R::Target),
            ("GET /` HTTP/1.1", R::Target),
            ("GET /?\" HTTP/1.1", R::Target),
            ("GET /?<> HTTP/1.1", R::Target),
            ("GET /\u{e9} HTTP/1.1", R::Target),
            ("GET http://other/ HTTP/1.1", R::OtherHost),
        ] {
            assert_eq!(head(&format!("{line}\nHost: t3\n\n")), Err(why), "{line}");
        }
        for (fields, why) in [
            ("", R::Host),
            ("Host: t3\nHost: t3\n", R::Host),
            ("Host:\n", R::Host),
            ("Host: a, b\n", R::Host),
            ("Host: a b\n", R::Host),
            ("Host: a/b\n", R::Host),
            ("Host: user@t3\n", R::Host),
            (" Host: t3\n", R::Fold),
            ("Host: t3\n x\n", R::Fold),
            ("Host: t3\nX: 1\n\ty: 2\n", R::Fold),
            ("Host : t3\n", R::FieldName),
            ("Host\t: t3\n", R::FieldName),
            ("Host: t3\n: x\n", R::FieldName),
            ("Host: t3\nno colon\n", R::FieldName),
            ("Host: t3\nX\u{e9}: 1\n", R::FieldName),
            ("Host: t3\nTransfer-Encoding : chunked\n", R::FieldName),
            ("Host: t3\nContent-Length: 1\nContent-Length: 1\n", R::ContentLength),
            ("Host: t3\nContent-Length: 1\nContent-Length: 2\n", R::ContentLength),
            ("Host: t3\nContent-Length: 1, 1\n", R::ContentLength),
            ("Host: t3\nContent-Length: +1\n", R::ContentLength),
            ("Host: t3\nContent-Length: -1\n", R::ContentLength),
            ("Host: t3\nContent-Length: 0x1\n", R::ContentLength),
            ("Host: t3\nContent-Length: 1e1\n", R::ContentLength),
            ("Host: t3\nContent-Length:\n", R::ContentLength),
            ("Host: t3\nContent-Length: 18446744073709551617\n", R::ContentLength),
            ("Host: t3\nContent-Length: 5\nTransfer-Encoding: chunked\n", R::TwoLengths),
            ("Host: t3\nTransfer-Encoding: chunked\nContent-Length: 0\n", R::TwoLengths),
            ("Host: t3\nTransfer-Encoding: gzip, chunked\n", R::TransferEncoding),
            ("Host: t3\nTransfer-Encoding: chunked, identity\n", R::TransferEncoding),
            ("Host: t3\nTransfer-Encoding: identity\n", R::TransferEncoding),
            ("Host: t3\nTransfer-Encoding: xchunked\n", R::TransferEncoding),
            ("Host: t3\nTransfer-Encoding: \"chunked\"\n", R::TransferEncoding),
            ("Host: t3\nTransfer-Encoding: chunked;q=1\n", R::TransferEncoding),
            ("Host: t3\nTransfer-Encoding:\n", R::TransferEncoding),
            ("Host: t3\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n", R::TransferEncoding),
            ("Host: t3\nTransfer-Encoding: chunked\nTransfer-Encoding: x\n", R::TransferEncoding),
            ("Host: t3\nA: 1\nB: 2\nC: 3\nD: 4\nE: 5\nF: 6\nG: 7\nH: 8\n", R::TooManyFields),
        ] {
            assert_eq!(head(&format!("POST / HTTP/1.1\n{fields}\n")), Err(why), "{fields}");
        }
        assert_eq!(
            head("POST / HTTP/1.0\nTransfer-Encoding: chunked\n\n"),
            Err(R::TransferEncoding),
            "HTTP/1.0 has no chunked coding"
        );
    }
}
