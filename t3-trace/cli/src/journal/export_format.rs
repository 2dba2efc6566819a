//! Parser of `journalctl -o export` (systemd.io, "Journal Export Formats").
//!
//! A field is `NAME=value` or, for a value with control characters, `NAME`, its length as 64-bit
//! little endian and the value; an empty line ends an entry. A value cannot forge a field in this
//! format, and it costs a fraction of JSON on both sides.

use std::io::{self, BufRead, Read};

/// Limit of one value in bytes: any user may write entries of any size.
const MOST: u64 = 64 << 10;
/// Limit of one entry in bytes; further fields are dropped.
const MOST_OF_ALL: usize = 1 << 20;

/// One entry of the journal.
#[derive(Debug, Default)]
pub struct Entry {
    text: String,
    /// End of each name and value in `text`.
    ends: Vec<(usize, usize)>,
}

impl Entry {
    /// Names and values in order. Invalid UTF-8 has replacement characters; printing still needs
    /// [`crate::present::text::safe`].
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.iter().filter_map(move |(name, value)| {
            let field = (self.text.get(start..*name)?, self.text.get(*name..*value)?);
            start = *value;
            Some(field)
        })
    }

    /// Returns the first value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Time at which journald received the entry, in microseconds since the epoch.
    #[must_use]
    pub fn micros(&self) -> Option<u64> {
        self.get("__REALTIME_TIMESTAMP")?.parse().ok()
    }

    /// Name of the host that wrote the entry.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.get("_HOSTNAME")
    }

    /// Appends a field.
    pub fn add(&mut self, name: &str, value: &str) {
        self.push(name.as_bytes(), value.as_bytes());
    }

    pub fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        if self.text.len() + name.len() + value.len() > MOST_OF_ALL {
            return;
        }
        self.text.push_str(&String::from_utf8_lossy(name));
        let name = self.text.len();
        self.text.push_str(&String::from_utf8_lossy(value));
        self.ends.push((name, self.text.len()));
    }
}

/// A stream of entries.
#[derive(Debug)]
pub struct Entries<R> {
    input: R,
    line: Vec<u8>,
    value: Vec<u8>,
    entry: Entry,
}

impl<R: BufRead> Entries<R> {
    pub fn new(input: R) -> Self {
        Self { input, line: Vec::new(), value: Vec::new(), entry: Entry::default() }
    }

    /// Reads the next entry; `None` at the end. An incomplete entry at the end is dropped.
    ///
    /// # Errors
    /// Reading fails.
    pub fn read(&mut self) -> io::Result<Option<&Entry>> {
        self.entry.clear();
        loop {
            if !self.line()? {
                return Ok(None);
            }
            if self.line.is_empty() {
                if self.entry.ends.is_empty() {
                    continue;
                }
                return Ok(Some(&self.entry));
            }
            if let Some(equals) = self.line.iter().position(|byte| *byte == b'=') {
                self.entry.push(&self.line[..equals], &self.line[equals + 1..]);
            } else if self.value()? {
                self.entry.push(&self.line, &self.value);
            } else {
                return Ok(None);
            }
        }
    }

    /// Reads a line without its newline; returns false at the end of the stream.
    fn line(&mut self) -> io::Result<bool> {
        self.line.clear();
        let read = self.input.by_ref().take(MOST).read_until(b'\n', &mut self.line)?;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if read as u64 == MOST {
            self.input.skip_until(b'\n')?;
        }
        Ok(read > 0)
    }

    /// Reads a value with a length; returns false if the stream ends within it.
    fn value(&mut self) -> io::Result<bool> {
        let mut length = [0; 8];
        match self.input.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        let length = u64::from_le_bytes(length);
        self.value.clear();
        self.input.by_ref().take(length.min(MOST)).read_to_end(&mut self.value)?;
        // The rest and the newline after it.
        let rest = length.saturating_sub(MOST).saturating_add(1);
        let skipped = io::copy(&mut self.input.by_ref().take(rest), &mut io::sink())?;
        Ok(skipped == rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Fields = Vec<(String, String)>;

    fn all(bytes: &[u8]) -> Vec<Fields> {
        let mut entries = Entries::new(bytes);
        let mut all = Vec::new();
        while let Some(entry) = entries.read().unwrap() {
            all.push(entry.fields().map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
        }
        all
    }

    /// Formats an entry as journalctl does; `as_bytes` uses lengths for all values.
    fn export(fields: &Fields, as_bytes: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in fields {
            out.extend_from_slice(name.as_bytes());
            if as_bytes || value.contains(|c: char| c.is_control()) {
                out.push(b'\n');
                out.extend_from_slice(&(value.len() as u64).to_le_bytes());
            } else {
                out.push(b'=');
            }
            out.extend_from_slice(value.as_bytes());
            out.push(b'\n');
        }
        out.push(b'\n');
        out
    }

    fn field(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn both_field_formats_are_parsed() {
        let text =
            b"\n__REALTIME_TIMESTAMP=1700000042123456\nMESSAGE\n\x05\0\0\0\0\0\0\0a\nb=c\nX=\nX=2\n\nY==\n\n";
        let first = [
            field("__REALTIME_TIMESTAMP", "1700000042123456"),
            field("MESSAGE", "a\nb=c"),
            field("X", ""),
            field("X", "2"),
        ];
        assert_eq!(all(text), [first.to_vec(), vec![field("Y", "=")]]);
        let mut entries = Entries::new(&text[..]);
        let entry = entries.read().unwrap().unwrap();
        assert_eq!(
            (entry.micros(), entry.get("X"), entry.get("Y")),
            (Some(1_700_000_042_123_456), Some(""), None)
        );
    }

    #[test]
    fn an_incomplete_entry_is_dropped_and_invalid_utf8_is_replaced() {
        let complete = b"A=1\nB\n\x02\0\0\0\0\0\0\0xy\n\n";
        for end in 0..complete.len() {
            assert_eq!(all(&complete[..end]), Vec::<Fields>::new(), "{end}");
        }
        assert_eq!(all(complete).len(), 1);
        assert_eq!(all(b"A=\xff\n\n"), [vec![field("A", "\u{fffd}")]]);
        assert_eq!(all(b"A\n\xff\xff\xff\xff\xff\xff\xff\xffx"), Vec::<Fields>::new());
    }

    #[test]
    fn memory_is_bounded_for_entries_of_any_size() {
        let long = "x".repeat(3 << 20);
        for as_bytes in [false, true] {
            let mut bytes = export(&vec![field("A", &long), field("B", "1")], as_bytes);
            bytes.extend(export(&vec![field("A", &long[..60_000]); 100], as_bytes));
            bytes.extend(export(&vec![field("C", "2")], as_bytes));
            let entries = all(&bytes);
            assert!(entries[0][0].1.len() as u64 <= MOST && entries[0][1] == field("B", "1"));
            assert!(entries[1].len() < 20);
            assert_eq!(entries[2], [field("C", "2")]);
        }
    }

    proptest! {
        #[test]
        fn exported_entries_are_read_back(
            entries in prop::collection::vec(
                prop::collection::vec(("[A-Z_][A-Z0-9_]{0,12}", any::<String>()), 1..8), 0..6,
            ),
            as_bytes: bool,
        ) {
            let bytes: Vec<u8> = entries.iter().flat_map(|fields| export(fields, as_bytes)).collect();
            prop_assert_eq!(all(&bytes), entries);
        }

        #[test]
        fn any_bytes_are_accepted(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            all(&bytes);
        }
    }
}
