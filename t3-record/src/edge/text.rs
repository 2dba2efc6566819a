//! What may be kept of a text from outside: no query string, no value of a `wsTicket` wherever it
//! stands, no control character.

/// The credential that a browser brings in the query string.
const TICKET: &str = "wsticket";

/// Stands for what was left out.
const LEFT_OUT: char = '…';

/// The text without what stands after a `?` up to a blank or a quote, and without what follows the
/// word `wsTicket`: a hostile query may hold quotes, and what it hides behind one is no less a
/// credential.
#[must_use]
pub fn redacted(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (shown, after) = rest.split_at(first.len_utf8());
        if first == '?' {
            kept.push('?');
            rest = skipped(after);
            if rest.len() < after.len() {
                kept.push(LEFT_OUT);
            }
        } else if let Some(after) = ticket(rest) {
            kept.push_str("wsTicket");
            kept.push(LEFT_OUT);
            // `="` or whatever else stands between the name and its value.
            rest = skipped(after.trim_start_matches(|c: char| !c.is_alphanumeric()));
        } else {
            kept.push_str(if first.is_control() { "\u{fffd}" } else { shown });
            rest = after;
        }
    }
    kept
}

/// What stands after the name of the credential, if the text begins with it.
fn ticket(text: &str) -> Option<&str> {
    let (name, after) = text.split_at_checked(TICKET.len())?;
    name.eq_ignore_ascii_case(TICKET).then_some(after)
}

/// The text from its first blank or quote on.
fn skipped(text: &str) -> &str {
    let end = text.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(text.len());
    &text[end..]
}

/// A container runtime's frame (CRI: time, stream, `F` or `P`) is no part of the line.
pub(super) fn unframed(line: &str) -> &str {
    let line = line.trim_end_matches(['\r', '\n']);
    let mut words = line.splitn(4, ' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(time), Some("stdout" | "stderr"), Some("F" | "P"), Some(rest))
            if super::time::rfc3339(time).is_some() =>
        {
            rest
        }
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn queries_and_tickets_are_left_out_and_the_rest_stays() {
        for (text, kept) in [
            ("plain text", "plain text"),
            ("GET /ws?wsTicket=secret HTTP/1.1", "GET /ws?… HTTP/1.1"),
            ("Get \"https://t3/ws?wsTicket=secret\": EOF", "Get \"https://t3/ws?…\": EOF"),
            ("/ws?a=\"b&wsTicket=secret c", "/ws?…\"b&wsTicket… c"),
            ("wsticket: \"secret\" next", "wsTicket…\" next"),
            ("/ws?a=1\\u0026wsTicket=secret\"", "/ws?…\""),
            ("why? because", "why? because"),
            ("a\x1b[2Jb\n", "a\u{fffd}[2Jb\u{fffd}"),
            ("wsTicke", "wsTicke"),
            ("ünïwsTicket=ü", "ünïwsTicket…"),
        ] {
            assert_eq!(redacted(text), kept, "{text:?}");
        }
    }

    #[test]
    fn a_runtime_s_frame_is_taken_off() {
        let framed = "2026-08-22T10:00:01.1Z stdout F 203.0.113.7 - x\n";
        assert_eq!(unframed(framed), "203.0.113.7 - x");
        for line in ["a stdout F b", "2026-08-22T10:00:01Z ERR F b", "", "stdout F"] {
            assert_eq!(unframed(line), line);
        }
    }

    proptest! {
        #[test]
        fn no_ticket_survives(before in "\\PC{0,40}", name in "wsTicket|WSTICKET|wsticket", after in "[ \"&\\\\?\\PC]{0,40}") {
            let text = format!("{before}{name}=QqSecretQq{after}");
            prop_assert!(!redacted(&text).contains("QqSecretQq"), "{}", redacted(&text));
        }
    }
}
