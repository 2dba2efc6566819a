//! Encoding of a log file of the spool: header, records, checksums.
//!
//! ```text
//! header: magic (8)  generation (8)  salt (8)  CRC32 (4)
//! record: length of kind to value (4)  kind (1)  length of key (1)  key  value  CRC32 (4)
//! ```
//!
//! Integers are little endian. The checksum of a record starts from a [`Seed`] and covers its
//! offset: bytes that an older generation or an earlier process left at the same place are never a
//! record.

use crc32fast::Hasher;

/// Name and version of the format.
const MAGIC: [u8; 8] = *b"t3spool\x01";
pub(super) const HEADER_LEN: usize = 28;
/// A record without key and value.
pub(super) const FRAME_LEN: usize = 10;
pub(super) const EPOCH_LEN: usize = FRAME_LEN + 8;
const LENGTH: usize = 4;
const CRC: usize = 4;
/// Kind and length of the key.
const MIN_BODY: usize = 2;
/// Longest key.
pub const MAX_KEY: usize = 255;
/// Longest value.
pub const MAX_VALUE: usize = 16 * 1024;
pub(super) const MAX_RECORD: usize = FRAME_LEN + MAX_KEY + MAX_VALUE;

/// Start of a log file. The file with the higher generation is the valid one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) generation: u64,
    /// Random: an interrupted compaction leaves records of the same generation in the file.
    pub(super) salt: u64,
}

/// Start value of the checksums of a generation, or of what one process appended to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed(u32);

impl Seed {
    /// The seed after an epoch record.
    pub(super) fn then(self, salt: u64) -> Self {
        let mut crc = Hasher::new_with_initial(self.0);
        crc.update(&salt.to_le_bytes());
        Self(crc.finalize())
    }
}

/// First bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstBytes {
    /// Never written.
    Blank,
    Valid(Header),
    Damaged,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..24]);
        bytes[24..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> FirstBytes {
        if bytes.iter().all(|byte| *byte == 0) {
            return FirstBytes::Blank;
        }
        let header = || {
            let generation = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
            let salt = u64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?);
            let header = Self { generation, salt };
            (bytes == header.encode()).then_some(header)
        };
        header().map_or(FirstBytes::Damaged, FirstBytes::Valid)
    }

    pub(super) fn seed(self) -> Seed {
        Seed(crc32fast::hash(&self.encode()))
    }
}

/// One record of a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// The log ends here; the next append overwrites it. Without it the end is torn.
    End,
    /// A process opened the file: records after it have another seed.
    Epoch(u64),
    Put {
        key: &'a str,
        value: &'a [u8],
    },
    Remove {
        key: &'a str,
    },
    Cursor(&'a str),
}

const END: u8 = 1;
const EPOCH: u8 = 2;
const PUT: u8 = 3;
const REMOVE: u8 = 4;
const CURSOR: u8 = 5;

impl<'a> Record<'a> {
    /// Length in the file.
    pub(super) fn len(&self) -> usize {
        FRAME_LEN
            + match self {
                Self::End => 0,
                Self::Epoch(_) => 8,
                Self::Put { key, value } => key.len() + value.len(),
                Self::Remove { key } => key.len(),
                Self::Cursor(cursor) => cursor.len(),
            }
    }

    /// Appends the record for `offset` of the file. Keys and values have valid lengths.
    pub(super) fn encode(&self, seed: Seed, offset: u64, out: &mut Vec<u8>) {
        let salt;
        let (kind, key, value): (u8, &str, &[u8]) = match *self {
            Self::End => (END, "", &[]),
            Self::Epoch(number) => {
                salt = number.to_le_bytes();
                (EPOCH, "", &salt)
            }
            Self::Put { key, value } => (PUT, key, value),
            Self::Remove { key } => (REMOVE, key, &[]),
            Self::Cursor(cursor) => (CURSOR, "", cursor.as_bytes()),
        };
        let start = out.len();
        let body = u32::try_from(MIN_BODY + key.len() + value.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&body.to_le_bytes());
        out.extend_from_slice(&[kind, u8::try_from(key.len()).unwrap_or(u8::MAX)]);
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(value);
        let crc = checksum(seed, offset, &out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// Decodes the record at `offset` of the file; `bytes` may continue after it.
    pub(super) fn decode(bytes: &'a [u8], seed: Seed, offset: u64) -> Option<Self> {
        let len = record_len(bytes)?;
        let (covered, crc) = bytes.get(..len)?.split_at(len - CRC);
        if checksum(seed, offset, covered).to_le_bytes() != crc {
            return None;
        }
        let (&[kind, key_len], rest) = covered[LENGTH..].split_first_chunk::<2>()?;
        let (key, value) = rest.split_at_checked(key_len.into())?;
        let key = str::from_utf8(key).ok()?;
        match (kind, key, value) {
            (END, "", []) => Some(Self::End),
            (EPOCH, "", salt) => Some(Self::Epoch(u64::from_le_bytes(salt.try_into().ok()?))),
            (PUT, key, value) => Some(Self::Put { key, value }),
            (REMOVE, key, []) => Some(Self::Remove { key }),
            (CURSOR, "", cursor) => Some(Self::Cursor(str::from_utf8(cursor).ok()?)),
            _ => None,
        }
    }
}

/// Length of the record that starts with `bytes`, if it is a possible one.
pub(super) fn record_len(bytes: &[u8]) -> Option<usize> {
    let body = u32::from_le_bytes(*bytes.first_chunk::<LENGTH>()?);
    let len = usize::try_from(body).ok()?.checked_add(LENGTH + CRC)?;
    (FRAME_LEN..=MAX_RECORD).contains(&len).then_some(len)
}

fn checksum(seed: Seed, offset: u64, bytes: &[u8]) -> u32 {
    let mut crc = Hasher::new_with_initial(seed.0);
    crc.update(&offset.to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}
