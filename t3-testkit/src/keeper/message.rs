//! Messages of sd_notify(3), as far as a descriptor store needs them. No IO.

/// Name of descriptors without a valid `FDNAME=`.
const UNNAMED: &str = "stored";

/// Change of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Add {
        name: String,
        /// Without `FDPOLL=0` systemd closes a descriptor with an error or a hang-up.
        is_polled: bool,
    },
    Remove {
        name: String,
    },
}

/// A datagram.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub is_ready: bool,
    pub is_stopping: bool,
    pub status: Option<String>,
    pub change: Option<Change>,
    /// A number that the keeper sent to itself.
    pub flush: Option<u64>,
}

/// Name of the field of [`Message::flush`]; systemd ignores fields that begin with `X_`.
pub(super) const FLUSH: &str = "X_FLUSH=";

/// Reads the lines of a datagram; unknown ones are ignored, as systemd does.
pub(super) fn parse(bytes: &[u8]) -> Message {
    let text = String::from_utf8_lossy(bytes);
    let has = |line: &str| text.lines().any(|have| have == line);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let name = field("FDNAME=").filter(|name| is_name(name));
    // As systemd: one of both, and a removal needs a name.
    let change = if has("FDSTOREREMOVE=1") {
        name.map(|name| Change::Remove { name: name.to_owned() })
    } else {
        has("FDSTORE=1")
            .then(|| Change::Add { name: name.unwrap_or(UNNAMED).to_owned(), is_polled: !has("FDPOLL=0") })
    };
    Message {
        is_ready: has("READY=1"),
        is_stopping: has("STOPPING=1"),
        status: field("STATUS=").map(str::to_owned),
        change,
        flush: field(FLUSH).and_then(|number| number.parse().ok()),
    }
}

/// Whether systemd accepts this name (sd_notify(3), `FDNAME=`).
pub(super) fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(name: &str, is_polled: bool) -> Option<Change> {
        Some(Change::Add { name: name.to_owned(), is_polled })
    }

    #[test]
    fn changes_of_the_store() {
        let remove = |name: &str| Some(Change::Remove { name: name.to_owned() });
        for (text, expected) in [
            ("FDSTORE=1\nFDNAME=state\nFDPOLL=0", add("state", false)),
            ("FDNAME=a\nFDSTORE=1", add("a", true)),
            ("FDSTORE=1\nFDPOLL=0\n", add(UNNAMED, false)),
            ("FDSTORE=1\nFDNAME=a:b\nFDPOLL=0", add(UNNAMED, false)),
            ("FDSTOREREMOVE=1\nFDNAME=a", remove("a")),
            ("FDSTOREREMOVE=1\nFDSTORE=1\nFDNAME=a", remove("a")),
            ("FDSTOREREMOVE=1", None),
            ("FDSTORE=0\nFDNAME=a", None),
            ("FDNAME=a", None),
            ("", None),
        ] {
            assert_eq!(parse(text.as_bytes()).change, expected, "{text:?}");
        }
    }

    #[test]
    fn states_and_other_fields() {
        let ready = parse(b"READY=1\nSTATUS=3 sessions\nWATCHDOG=1");
        let expected =
            Message { is_ready: true, status: Some("3 sessions".to_owned()), ..Message::default() };
        assert_eq!(ready, expected);
        assert_eq!(parse(b"STOPPING=1"), Message { is_stopping: true, ..Message::default() });
        assert_eq!(parse(b"X_FLUSH=7"), Message { flush: Some(7), ..Message::default() });
        assert_eq!(parse(b"READY=12\nX_FLUSH=x\n\xff"), Message::default());
    }

    #[test]
    fn names_have_up_to_255_printable_characters_without_a_colon() {
        for (name, expected) in
            [("state", true), ("a b", true), ("", false), ("a:b", false), ("a\tb", false), ("é", false)]
        {
            assert_eq!(is_name(name), expected, "{name:?}");
        }
        assert!(is_name(&"x".repeat(255)) && !is_name(&"x".repeat(256)));
    }
}
