//! Spool on disk: what the daemon must not forget while the journal does not take it.
//!
//! A map from a short key to bytes that survives SIGKILL at any instruction (up to the last
//! [`Spool::flush`]) and power loss (up to the last [`Spool::sync`]). It consists of two log files
//! of a fixed size. Changes are appended to the active one; when it is full, its live entries are
//! copied into the other one. That one becomes active with a header of a higher generation, which
//! is written only when the copy is on disk: at every point exactly one file is the valid one.
//!
//! Both files are preallocated, so the spool works while the disk is full, which is when it is
//! needed. Embedded databases (redb, SQLite) grow their files or write a second one for each
//! transaction, and fail on a full disk. On file systems that copy on write (btrfs, ZFS)
//! preallocation does not promise as much; an append then fails with the error of the disk.

mod files;
mod log;
mod replay;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    path::{Path, PathBuf},
};

use files::{LogFile, NAMES};
use log::{EPOCH_LEN, FRAME_LEN, FirstBytes, HEADER_LEN, Header, Record, Seed};
pub use log::{MAX_KEY, MAX_VALUE};
use replay::{Place, Replay};

/// Longest cursor; space for one is always kept free.
pub const MAX_CURSOR: usize = 1024;
/// Bytes of a write during compaction.
const CHUNK: usize = 256 * 1024;

/// Why the spool refused an operation.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process has the spool open.
    #[error("{} is in use by another process", path.display())]
    InUse { path: PathBuf },
    /// The live entries and this one do not fit.
    #[error("the spool is full: its entries have {live} of {capacity} bytes")]
    Full { live: u64, capacity: u64 },
    /// The value is longer than [`MAX_VALUE`] or the cursor longer than [`MAX_CURSOR`].
    #[error("{len} bytes are more than {most}")]
    TooLong { len: usize, most: usize },
    /// The key is empty or longer than [`MAX_KEY`].
    #[error("a key has 1 to {MAX_KEY} bytes, not {len}")]
    Key { len: usize },
    /// Directory or file cannot be opened.
    #[error("cannot open {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// The disk reported an error.
    #[error("cannot {action} the spool")]
    Io { action: &'static str, source: io::Error },
}

/// A part of the spool that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Name of the file.
    pub file: &'static str,
    /// First unreadable byte; 0 is the header.
    pub offset: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset } = self;
        match offset {
            0 => write!(f, "{file}: the header is damaged, its entries are lost"),
            _ => {
                write!(f, "{file}: entries from byte {offset} on are damaged or were not completely written")
            }
        }
    }
}

/// State of the active file for appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// No header yet.
    Unwritten,
    /// The next append starts with an epoch record: an earlier process may have left bytes after
    /// the end that must not become records.
    Reopened,
    Appendable,
}

/// The persistent map; see the module.
///
/// [`Self::put`] and [`Self::remove`] may compact and [`Self::sync`] waits for the disk: call them
/// where blocking is allowed.
#[derive(Debug)]
pub struct Spool<F: LogFile = File> {
    files: [F; 2],
    active: usize,
    header: Header,
    /// The header of the active file is on disk.
    header_synced: bool,
    tail: Tail,
    seed: Seed,
    /// Offset of the first byte that is not in the file.
    end: u64,
    /// Records that follow at `end`.
    pending: Vec<u8>,
    /// The file has bytes that are not on disk.
    unsynced: bool,
    /// The active file has something else than memory: the next sync compacts.
    stale: bool,
    index: BTreeMap<String, Place>,
    cursor: Option<String>,
    /// Length of all live records, the cursor included.
    live: u64,
    /// Size of each file.
    size: u64,
    damage: Option<Damage>,
}

impl Spool {
    /// Opens or creates the spool in `dir` with files of `limit` bytes together, and returns its
    /// live entries.
    ///
    /// Without enough space on the disk it is smaller ([`Self::capacity`]); what is damaged is left
    /// out ([`Self::damage`]).
    ///
    /// # Errors
    /// Another process has it open, or its files cannot be opened.
    pub fn open(dir: &Path, limit: u64) -> Result<(Self, BTreeMap<String, Vec<u8>>), SpoolError> {
        Self::over(files::open_both(dir)?, limit)
    }
}

impl<F: LogFile> Spool<F> {
    fn over(mut files: [F; 2], limit: u64) -> Result<(Self, BTreeMap<String, Vec<u8>>), SpoolError> {
        let headers = [0, 1].map(|at| replay::first_bytes(&files[at]));
        let damaged = headers.iter().position(|header| *header == FirstBytes::Damaged);
        let mut damage = damaged.map(|at| Damage { file: NAMES[at], offset: 0 });
        let valid = |at: usize| match headers[at] {
            FirstBytes::Valid(header) => Some((header, at)),
            FirstBytes::Blank | FirstBytes::Damaged => None,
        };
        let newest = [0, 1].into_iter().filter_map(valid).max_by_key(|(header, _)| header.generation);
        // The first compaction writes into the file that is not active.
        let (header, active) = newest.unwrap_or((Header { generation: 0, salt: 0 }, 1));
        let (found, tail) = match newest {
            Some(_) => (replay::replay(&files[active], header), Tail::Reopened),
            None => (Replay::empty(header), Tail::Unwritten),
        };
        if found.torn {
            damage = Some(Damage { file: NAMES[active], offset: found.end });
        }
        let cursor = cursor_len(found.cursor.as_deref());
        let live = found.index.values().map(|place| u64::from(place.len)).sum::<u64>() + cursor;
        let mut kept = [0, 0];
        if tail == Tail::Reopened {
            kept[active] = found.end + FRAME_LEN as u64;
        }
        let wanted = (limit / 2).max(size_for(live));
        let size = files::allocate_both(&mut files, wanted, kept).map_err(failed("allocate"))?;
        let spool = Self {
            files,
            active,
            header,
            header_synced: true,
            tail,
            seed: found.seed,
            end: found.end,
            pending: Vec::new(),
            unsynced: false,
            // What is left of a damaged file is copied soon.
            stale: damage.is_some() && size_of_log(live) <= size,
            index: found.index,
            cursor: found.cursor,
            live,
            size,
            damage,
        };
        Ok((spool, found.entries))
    }

    /// Bytes that live entries may have together, 10 bytes of framing each included.
    pub fn capacity(&self) -> u64 {
        // An eighth is free after each compaction, so that a full spool does not compact all the
        // time.
        let fixed = (HEADER_LEN + FRAME_LEN + EPOCH_LEN + FRAME_LEN + MAX_CURSOR) as u64;
        (self.size - self.size / 8).saturating_sub(fixed)
    }

    /// Bytes of the live entries.
    pub fn live_bytes(&self) -> u64 {
        self.live
    }

    /// Number of live entries.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// What could not be read, at open or during a compaction.
    pub fn damage(&self) -> Option<Damage> {
        self.damage
    }

    /// The cursor that was set last.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Sets the value of `key`.
    ///
    /// # Errors
    /// Too long, full, or a compaction failed; the entry is as before.
    pub fn put(&mut self, key: &str, value: &[u8]) -> Result<(), SpoolError> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(SpoolError::Key { len: key.len() });
        }
        if value.len() > MAX_VALUE {
            return Err(SpoolError::TooLong { len: value.len(), most: MAX_VALUE });
        }
        let record = Record::Put { key, value };
        let old = self.index.get(key).map_or(0, |place| u64::from(place.len));
        let cursor = cursor_len(self.cursor.as_deref());
        let entries = self.live - cursor - old + record.len() as u64;
        if entries > self.capacity() {
            return Err(SpoolError::Full { live: self.live, capacity: self.capacity() });
        }
        let place = self.append(record)?;
        // Looked up again: a compaction drops an entry that is damaged.
        let old = self.index.insert(key.to_owned(), place).map_or(0, |place| u64::from(place.len));
        self.live = self.live - old + u64::from(place.len);
        Ok(())
    }

    /// Removes the entry of `key`, if there is one.
    ///
    /// # Errors
    /// A compaction failed: the entry is removed in memory, and on disk with the next sync that
    /// succeeds.
    pub fn remove(&mut self, key: &str) -> Result<(), SpoolError> {
        let Some(place) = self.index.remove(key) else { return Ok(()) };
        self.live -= u64::from(place.len);
        let record = Record::Remove { key };
        let done = if self.fits(record.len()) { self.append(record).map(drop) } else { self.compact() };
        self.stale |= done.is_err();
        done
    }

    /// Sets the cursor.
    ///
    /// # Errors
    /// Too long, no space at all, or a compaction failed; the cursor is as before.
    pub fn set_cursor(&mut self, cursor: &str) -> Result<(), SpoolError> {
        if cursor.len() > MAX_CURSOR {
            return Err(SpoolError::TooLong { len: cursor.len(), most: MAX_CURSOR });
        }
        let old = cursor_len(self.cursor.as_deref());
        let place = self.append(Record::Cursor(cursor))?;
        self.live = self.live - old + u64::from(place.len);
        self.cursor = Some(cursor.to_owned());
        Ok(())
    }

    /// Hands all changes to the kernel: they survive this process.
    ///
    /// # Errors
    /// The file cannot be written; the changes are kept for the next call.
    pub fn flush(&mut self) -> Result<(), SpoolError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let len = self.pending.len();
        Record::End.encode(self.seed, self.end + len as u64, &mut self.pending);
        let written = self.files[self.active].write_at(&self.pending, self.end);
        self.pending.truncate(len);
        self.unsynced = true;
        written.map_err(failed("write"))?;
        self.end += len as u64;
        self.pending.clear();
        Ok(())
    }

    /// Writes all changes to the disk: they survive a power loss.
    ///
    /// # Errors
    /// The disk reported an error; the next call writes everything again.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        if self.stale {
            return self.compact();
        }
        self.flush()?;
        self.sync_header()?;
        if self.unsynced {
            // After an error the kernel forgets which pages were not written: a second fdatasync
            // would succeed without them.
            self.files[self.active].sync().map_err(failed("sync")).inspect_err(|_| self.stale = true)?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Writes the header again if its sync failed. Until it is on disk the other file must stay.
    fn sync_header(&mut self) -> Result<(), SpoolError> {
        if !self.header_synced {
            let file = &mut self.files[self.active];
            file.write_at(&self.header.encode(), 0).map_err(failed("write"))?;
            file.sync().map_err(failed("sync")).inspect_err(|_| self.stale = true)?;
            self.header_synced = true;
        }
        Ok(())
    }

    /// Whether a record of this length fits into the active file, with the end mark after it.
    fn fits(&self, len: usize) -> bool {
        let epoch = match self.tail {
            Tail::Unwritten => return false,
            Tail::Reopened => EPOCH_LEN,
            Tail::Appendable => 0,
        };
        self.end + (self.pending.len() + epoch + len + FRAME_LEN) as u64 <= self.size
    }

    /// Appends a record to the active file, after a compaction if it is full.
    fn append(&mut self, record: Record<'_>) -> Result<Place, SpoolError> {
        if !self.fits(record.len()) {
            if size_of_log(self.live) + record.len() as u64 > self.size {
                return Err(SpoolError::Full { live: self.live, capacity: self.capacity() });
            }
            self.compact()?;
        }
        if self.tail == Tail::Reopened {
            let salt = random();
            let offset = self.end + self.pending.len() as u64;
            Record::Epoch(salt).encode(self.seed, offset, &mut self.pending);
            self.seed = self.seed.then(salt);
            self.tail = Tail::Appendable;
        }
        let offset = self.end + self.pending.len() as u64;
        record.encode(self.seed, offset, &mut self.pending);
        Ok(Place { offset, len: u32::try_from(record.len()).unwrap_or(u32::MAX), seed: self.seed })
    }

    /// Copies the live entries into the other file and makes it the active one.
    fn compact(&mut self) -> Result<(), SpoolError> {
        if size_of_log(self.live) > self.size {
            return Err(SpoolError::Full { live: self.live, capacity: self.capacity() });
        }
        self.sync_header()?;
        let target = 1 - self.active;
        let header = Header { generation: self.header.generation + 1, salt: random() };
        let (places, end) = self.copy_live(target, header.seed()).map_err(failed("write"))?;
        let file = &mut self.files[target];
        file.sync().map_err(failed("sync"))?;
        file.write_at(&header.encode(), 0).map_err(failed("write"))?;
        // From here on this file is the valid one for every reader, whether its header is on disk
        // or not: further records go there.
        let mut places = places.into_iter();
        self.index.retain(|_, place| places.next().flatten().map(|new| *place = new).is_some());
        let cursor = cursor_len(self.cursor.as_deref());
        self.live = self.index.values().map(|place| u64::from(place.len)).sum::<u64>() + cursor;
        self.active = target;
        self.header = header;
        self.header_synced = false;
        self.seed = header.seed();
        self.tail = Tail::Appendable;
        self.end = end;
        self.pending.clear();
        self.unsynced = false;
        self.stale = false;
        self.files[target].sync().map_err(failed("sync"))?;
        self.header_synced = true;
        Ok(())
    }

    /// Writes the live entries and the cursor into the file `target`. Returns the place of each
    /// entry, none if it is damaged, and the end.
    fn copy_live(&mut self, target: usize, seed: Seed) -> io::Result<(Vec<Option<Place>>, u64)> {
        let mut places = Vec::with_capacity(self.index.len());
        let mut out = Vec::with_capacity(CHUNK + 2 * log::MAX_RECORD);
        let mut start = HEADER_LEN as u64;
        if let Some(cursor) = &self.cursor {
            Record::Cursor(cursor).encode(seed, start, &mut out);
        }
        let mut buffer = Vec::new();
        for place in self.index.values() {
            let bytes = self.read(*place, &mut buffer)?;
            let record = Record::decode(bytes, place.seed, place.offset);
            let Some(record @ Record::Put { .. }) = record else {
                self.damage = Some(Damage { file: NAMES[self.active], offset: place.offset });
                places.push(None);
                continue;
            };
            let offset = start + out.len() as u64;
            record.encode(seed, offset, &mut out);
            places.push(Some(Place { offset, len: place.len, seed }));
            if out.len() >= CHUNK {
                self.files[target].write_at(&out, start)?;
                start += out.len() as u64;
                out.clear();
            }
        }
        let end = start + out.len() as u64;
        Record::End.encode(seed, end, &mut out);
        self.files[target].write_at(&out, start)?;
        Ok((places, end))
    }

    /// Bytes of a record of the active file.
    fn read<'a>(&'a self, place: Place, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        let len = usize::try_from(place.len).unwrap_or(usize::MAX);
        if let Some(from) = place.offset.checked_sub(self.end) {
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            return Ok(self.pending.get(from..).and_then(|rest| rest.get(..len)).unwrap_or_default());
        }
        buffer.resize(len, 0);
        let read = self.files[self.active].read_at(buffer, place.offset)?;
        Ok(&buffer[..read])
    }
}

fn cursor_len(cursor: Option<&str>) -> u64 {
    cursor.map_or(0, |cursor| Record::Cursor(cursor).len() as u64)
}

/// Size of a file with these live records and nothing else.
fn size_of_log(live: u64) -> u64 {
    live + (HEADER_LEN + FRAME_LEN) as u64
}

/// Size of a file whose capacity is `live`.
fn size_for(live: u64) -> u64 {
    if live == 0 {
        0
    } else {
        (live + (HEADER_LEN + 2 * FRAME_LEN + EPOCH_LEN + MAX_CURSOR) as u64) / 7 * 8 + 8
    }
}

/// A number that no other generation or process has.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> SpoolError {
    move |source| SpoolError::Io { action, source }
}
