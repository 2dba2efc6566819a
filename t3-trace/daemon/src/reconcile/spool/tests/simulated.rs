//! A simulated disk with a page cache: crashes, errors and full.

use std::{cell::RefCell, io, rc::Rc};

use crate::reconcile::spool::files::{Allocation, LogFile};

/// Writes reach the disk in pieces of this size, in any order.
const SECTOR: usize = 512;

/// Two files on one disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Rc<RefCell<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// As a process sees them.
    cache: [Vec<u8>; 2],
    synced: [Vec<u8>; 2],
    /// Written since the last sync: file, offset, bytes.
    writes: Vec<(usize, usize, Vec<u8>)>,
    /// Number of writes and syncs.
    steps: usize,
    /// Everything fails from this step on.
    dies_at: Option<usize>,
    died_in_write: bool,
    /// These steps fail.
    fails_at: Vec<usize>,
    /// Space for both files together.
    space: Option<u64>,
    cannot_allocate: bool,
}

/// One file of the disk.
#[derive(Debug)]
pub(super) struct SimulatedFile {
    disk: Disk,
    at: usize,
}

impl Disk {
    /// A disk with these files, all of it synced.
    pub(super) fn with(content: [Vec<u8>; 2]) -> Self {
        Self(Rc::new(RefCell::new(Inner { cache: content.clone(), synced: content, ..Inner::default() })))
    }

    pub(super) fn files(&self) -> [SimulatedFile; 2] {
        [0, 1].map(|at| SimulatedFile { disk: self.clone(), at })
    }

    pub(super) fn dies_at(self, step: usize) -> Self {
        self.0.borrow_mut().dies_at = Some(step);
        self
    }

    pub(super) fn fails_at(self, steps: Vec<usize>) -> Self {
        self.0.borrow_mut().fails_at = steps;
        self
    }

    pub(super) fn set_space(&self, bytes: u64) {
        self.0.borrow_mut().space = Some(bytes);
    }

    pub(super) fn without_allocation(self) -> Self {
        self.0.borrow_mut().cannot_allocate = true;
        self
    }

    pub(super) fn steps(&self) -> usize {
        self.0.borrow().steps
    }

    pub(super) fn is_dead(&self) -> bool {
        let inner = self.0.borrow();
        inner.dies_at.is_some_and(|step| inner.steps > step)
    }

    /// The files as the process sees them.
    pub(super) fn cache(&self) -> [Vec<u8>; 2] {
        self.0.borrow().cache.clone()
    }

    /// The files if only synced bytes are left.
    pub(super) fn synced(&self) -> [Vec<u8>; 2] {
        self.0.borrow().synced.clone()
    }

    /// Length of the last write.
    pub(super) fn last_write(&self) -> usize {
        self.0.borrow().writes.last().map_or(0, |(.., bytes)| bytes.len())
    }

    /// Whether the disk died in a write, which is then the last one and may be cut.
    pub(super) fn died_in_write(&self) -> bool {
        self.0.borrow().died_in_write
    }

    /// The files after a SIGKILL: of the last write only `written` bytes.
    pub(super) fn killed(&self, written: usize) -> [Vec<u8>; 2] {
        let inner = self.0.borrow();
        let mut files = inner.synced.clone();
        let last = inner.writes.len().saturating_sub(1);
        for (number, (file, offset, bytes)) in inner.writes.iter().enumerate() {
            let bytes = if number == last { &bytes[..written.min(bytes.len())] } else { bytes };
            apply(&mut files[*file], *offset, bytes);
        }
        files
    }

    /// Number of sectors written since the last sync.
    pub(super) fn unsynced(&self) -> usize {
        self.sectors().len()
    }

    /// The files after a power loss, with those unsynced sectors that `reached` selects.
    pub(super) fn power_lost(&self, mut reached: impl FnMut(usize) -> bool) -> [Vec<u8>; 2] {
        let mut files = self.synced();
        for (number, (file, offset, bytes)) in self.sectors().into_iter().enumerate() {
            if reached(number) {
                apply(&mut files[file], offset, &bytes);
            }
        }
        files
    }

    fn sectors(&self) -> Vec<(usize, usize, Vec<u8>)> {
        let mut sectors = Vec::new();
        for (file, offset, bytes) in &self.0.borrow().writes {
            let (mut offset, mut rest) = (*offset, &bytes[..]);
            while !rest.is_empty() {
                let (sector, more) = rest.split_at(rest.len().min(SECTOR - offset % SECTOR));
                sectors.push((*file, offset, sector.to_vec()));
                (offset, rest) = (offset + sector.len(), more);
            }
        }
        sectors
    }
}

fn apply(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

impl Inner {
    /// Counts a step. Returns whether it succeeds.
    fn step(&mut self) -> io::Result<()> {
        let step = self.steps;
        self.steps += 1;
        if self.dies_at.is_some_and(|dies| step >= dies) || self.fails_at.contains(&step) {
            return Err(io::Error::other(format!("injected at step {step}")));
        }
        Ok(())
    }
}

impl LogFile for SimulatedFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.0.borrow().cache[self.at].len() as u64)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap();
        let mut inner = self.disk.0.borrow_mut();
        inner.cache[self.at].resize(len, 0);
        inner.synced[self.at].resize(len, 0);
        Ok(())
    }

    fn allocate(&mut self, len: u64) -> io::Result<Allocation> {
        let mut inner = self.disk.0.borrow_mut();
        if inner.cannot_allocate {
            return Ok(Allocation::Unsupported);
        }
        let len = usize::try_from(len).unwrap().max(inner.cache[self.at].len());
        let other = inner.cache[1 - self.at].len();
        if inner.space.is_some_and(|space| (len + other) as u64 > space) {
            return Ok(Allocation::NoSpace);
        }
        inner.cache[self.at].resize(len, 0);
        inner.synced[self.at].resize(len, 0);
        Ok(Allocation::Reserved)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = self.disk.0.borrow();
        let rest = inner.cache[self.at].get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    /// A write that fails has written the first half; the one at death is all in `writes`, and
    /// `killed` and `power_lost` cut it.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.0.borrow_mut();
        let dead = inner.dies_at.is_some_and(|dies| inner.steps > dies);
        let done = inner.step();
        let dies = inner.dies_at.is_some_and(|dies| inner.steps == dies + 1);
        let bytes = if done.is_ok() || dies { bytes } else { &bytes[..bytes.len() / 2] };
        if !dead {
            inner.died_in_write = dies;
            let offset = usize::try_from(offset).unwrap();
            apply(&mut inner.cache[self.at], offset, bytes);
            inner.writes.push((self.at, offset, bytes.to_vec()));
        }
        done
    }

    /// As in Linux, a sync that fails gives up the pages: the next one succeeds without them.
    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.disk.0.borrow_mut();
        let done = inner.step();
        if done.is_err() && inner.dies_at.is_some() {
            return done;
        }
        let at = self.at;
        let writes = std::mem::take(&mut inner.writes);
        let (own, others) = writes.into_iter().partition(|(file, ..)| *file == at);
        inner.writes = others;
        if done.is_ok() {
            for (_, offset, bytes) in own {
                apply(&mut inner.synced[at], offset, &bytes);
            }
        }
        done
    }
}
