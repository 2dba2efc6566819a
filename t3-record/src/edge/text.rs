//! Redaction of external text: no query string, no value of `wsTicket`, no control character.

/// Credential in the query string of a browser.
const TICKET: &str = "wsticket";

/// Placeholder for removed text.
const LEFT_OUT: char = '…';

/// Removes text after a `?` up to a blank or a quote, and text after `wsTicket`: a hostile query
/// can contain quotes, and the text after one can still be a credential.
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
            // `="` or any other separator.
            rest = skipped(after.trim_start_matches(|c: char| !c.is_alphanumeric()));
        } else {
            kept.push_str(if first.is_control() { "\u{fffd}" } else { shown });
            rest = after;
        }
    }
    kept
}

/// Text after the name of the credential, if it starts with that.
fn ticket(text: &str) -> Option<&str> {
    let (name, after) = text.split_at_checked(TICKET.len())?;
    name.eq_ignore_ascii_case(TICKET).then_some(after)
}

/// The text from its first blank or quote.
fn skipped(text: &str) -> &str {
    let end = text.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(text.len());
    &text[end..]
}

/// Removes the prefix of a container runtime (CRI: time, stream, `F` or `P`).
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
