//! Reading of a log file: the live entries, and where the log ends.

use std::collections::BTreeMap;

use super::{
    files::LogFile,
    log::{FirstBytes, HEADER_LEN, Header, MAX_RECORD, Record, Seed, record_len},
};

/// Bytes of a read: a few hundred records.
const CHUNK: usize = 256 * 1024;

/// Where a record is in the active file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) seed: Seed,
}

/// Content of a log file.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) entries: BTreeMap<String, Vec<u8>>,
    pub(super) index: BTreeMap<String, Place>,
    pub(super) cursor: Option<String>,
    /// Offset of the next record.
    pub(super) end: u64,
    pub(super) seed: Seed,
    /// The log has no end mark: something after `end` is lost.
    pub(super) torn: bool,
}

impl Replay {
    /// A log without records.
    pub(super) fn empty(header: Header) -> Self {
        Self {
            entries: BTreeMap::new(),
            index: BTreeMap::new(),
            cursor: None,
            end: HEADER_LEN as u64,
            seed: header.seed(),
            torn: false,
        }
    }
}

/// Reads the header. An unreadable sector is damage: the other file may be good.
pub(super) fn first_bytes(file: &impl LogFile) -> FirstBytes {
    let mut bytes = [0; HEADER_LEN];
    file.read_at(&mut bytes, 0).map_or(FirstBytes::Damaged, |_| Header::decode(&bytes))
}

/// Reads all records up to the end mark or the first damage.
pub(super) fn replay(file: &impl LogFile, header: Header) -> Replay {
    let mut found = Replay::empty(header);
    let mut chunk = Chunk { bytes: Vec::new(), start: 0 };
    loop {
        let offset = found.end;
        let bytes = chunk.at(file, offset);
        let Some(record) = Record::decode(bytes, found.seed, offset) else {
            found.torn = true;
            return found;
        };
        let len = record.len();
        match record {
            Record::End => return found,
            Record::Epoch(salt) => found.seed = found.seed.then(salt),
            Record::Put { key, value } => {
                let place = Place { offset, len: u32::try_from(len).unwrap_or(u32::MAX), seed: found.seed };
                found.index.insert(key.to_owned(), place);
                found.entries.insert(key.to_owned(), value.to_owned());
            }
            Record::Remove { key } => {
                found.index.remove(key);
                found.entries.remove(key);
            }
            Record::Cursor(cursor) => found.cursor = Some(cursor.to_owned()),
        }
        found.end += len as u64;
    }
}

/// The part of the file that was read last.
struct Chunk {
    bytes: Vec<u8>,
    start: u64,
}

impl Chunk {
    /// Bytes from `offset` on: a whole record if the file contains one there.
    fn at(&mut self, file: &impl LogFile, offset: u64) -> &[u8] {
        let complete = |bytes: &[u8]| record_len(bytes).is_some_and(|len| len <= bytes.len());
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        if !self.bytes.get(from..).is_some_and(complete) {
            self.bytes.resize(CHUNK.max(MAX_RECORD), 0);
            // An unreadable sector is damage as well: the log ends before it.
            let read = file.read_at(&mut self.bytes, offset).unwrap_or(0);
            self.bytes.truncate(read);
            self.start = offset;
            return &self.bytes;
        }
        self.bytes.get(from..).unwrap_or_default()
    }
}
