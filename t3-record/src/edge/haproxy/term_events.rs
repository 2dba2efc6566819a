//! `term_events` of HAProxy 3.2 and newer: `{fc,fmux,fse,strm,bse,bmux,bc}`, each the first events
//! of one layer, oldest first, as a letter (lower case: towards the client) and a digit.
//!
//! Only the stream sees both sides and thus their order. Source: HAProxy,
//! `include/haproxy/connection-t.h` and `dev/term_events`.

use crate::edge::statement::Closer;

/// Layers of the value.
const LAYERS: usize = 7;
/// Index of the stream.
const STREAM: usize = 3;
/// Most events of a layer.
const MOST: usize = 4;

/// First event of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TermEvents<'a> {
    /// The value as written.
    pub text: &'a str,
    /// Side of the first event.
    pub closer: Closer,
    /// The first event in words.
    pub first: String,
}

/// Parses a value; any other text is `None`.
pub(super) fn parse(text: &str) -> Option<TermEvents<'_>> {
    let text = text.trim_matches('"');
    let inside = text.strip_prefix('{')?.strip_suffix('}')?;
    let layers: Vec<&str> = inside.split(',').collect();
    if layers.len() != LAYERS || !layers.iter().all(|layer| *layer == "-" || are_events(layer)) {
        return None;
    }
    let first = layers.get(STREAM).filter(|layer| **layer != "-").and_then(|layer| layer.get(..2));
    let (closer, what) =
        first.and_then(of_stream).unwrap_or((Closer::Unstated, "no first event of the stream"));
    let (front, back) =
        (layers.first().copied().unwrap_or_default(), layers.last().copied().unwrap_or_default());
    let first = match closer {
        Closer::Downstream => format!("client first: {what}{}", on_socket(front, 'f')),
        Closer::Upstream => format!("server first: {what}{}", on_socket(back, 'F')),
        _ => what.to_owned(),
    };
    Some(TermEvents { text, closer, first })
}

/// Up to four events, a letter and a hexadecimal digit each.
fn are_events(layer: &str) -> bool {
    let event = |event: &[u8]| matches!(event, [place, kind] if b"fhxmesFHXMES".contains(place) && kind.is_ascii_hexdigit());
    layer.len() <= 2 * MOST && layer.len().is_multiple_of(2) && layer.as_bytes().chunks(2).all(event)
}

/// Side and meaning of an event of the stream.
fn of_stream(event: &str) -> Option<(Closer, &'static str)> {
    let (place, kind) = event.split_at_checked(1)?;
    let side = if place == "s" { Closer::Downstream } else { Closer::Upstream };
    Some(match kind {
        "2" => (side, "end of stream"),
        "3" => (side, "receive error"),
        "4" => (side, "send error"),
        "5" => (side, "truncated end of stream"),
        "6" => (side, "truncated receive error"),
        "9" => (side, "protocol error"),
        "7" => (Closer::TimedOut, "timeout"),
        "1" => (Closer::Itself, "HAProxy shut it down"),
        "8" => (Closer::Itself, "intercepted by HAProxy"),
        "a" => (Closer::Itself, "internal error"),
        "c" => (Closer::Itself, "aborted by HAProxy"),
        _ => return None,
    })
}

/// The first event of the socket on that side.
fn on_socket(layer: &str, letter: char) -> &'static str {
    match layer.strip_prefix(letter).and_then(|rest| rest.get(..1)) {
        Some("2") => ", FIN",
        Some("3") => ", error on receive (RST)",
        Some("4") => ", error on send",
        Some("a" | "b") => ", poll error",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_event_of_the_stream_has_its_side() {
        for (text, closer, first) in [
            ("{f2,m2,e2,s2S1,E1,M1,F1}", Closer::Downstream, "client first: end of stream, FIN"),
            (
                "{f3,m3,e3,s3S1,E1,M1,F1}",
                Closer::Downstream,
                "client first: receive error, error on receive (RST)",
            ),
            ("{f1,m1,e1,S2s1,E2,M2,F2}", Closer::Upstream, "server first: end of stream, FIN"),
            (
                "{f1,m1,e1,S3s1,E3,M3,F3}",
                Closer::Upstream,
                "server first: receive error, error on receive (RST)",
            ),
            ("{,,,s7S1,,,}", Closer::TimedOut, "timeout"),
            ("{-,-,-,s8,-,-,-}", Closer::Itself, "intercepted by HAProxy"),
            ("{,,,sc,,,}", Closer::Itself, "aborted by HAProxy"),
            ("{f2,,,,,,F2}", Closer::Unstated, "no first event of the stream"),
            ("{f2,,,-,,,F2}", Closer::Unstated, "no first event of the stream"),
            ("{,,,sb,,,}", Closer::Unstated, "no first event of the stream"),
        ] {
            let read = parse(text).unwrap();
            assert_eq!((read.closer, &*read.first), (closer, first), "{text}");
        }
    }

    #[test]
    fn any_other_text_is_refused() {
        for text in [
            "",
            "{}",
            "{a,b}",
            "{f2,m2,e2,s2,E1,M1}",
            "{f2,m2,e2,s,E1,M1,F1}",
            "{f2,m2,e2,s2s2s2s2s2,,,}",
            "{ä,,,,,,}",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
