//! A disk of a few megabytes for the files of a journal: a tmpfs that a test can fill.

use std::{
    ffi::CString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

use super::Journal;
use crate::error::{Attempt, Result, TestError};

/// Rounds of noise; one fills half a megabyte, and journald allocates eight.
const ROUNDS: usize = 60;
/// Random, so that journald cannot compress it, in lines below its limit.
const NOISE: &str = "head -c 400000 /dev/urandom | base64 -w 30000 | systemd-cat -t t3-noise";

/// A mounted tmpfs; unmounted on drop.
#[derive(Debug)]
pub(super) struct SmallDisk {
    place: PathBuf,
}

/// Occupies all free space of a disk until it is dropped.
#[derive(Debug)]
pub struct Filler {
    path: PathBuf,
}

impl SmallDisk {
    pub(super) fn mount(place: &Path, bytes: u64) -> Result<Self> {
        let what = || format!("mount a tmpfs on {}", place.display());
        let options = CString::new(format!("size={bytes},mode=755")).map_err(std::io::Error::other);
        let options = options.attempt(what)?;
        mount("tmpfs", place, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).attempt(what)?;
        Ok(Self { place: place.to_owned() })
    }

    pub(super) fn fill(&self) -> Result<Filler> {
        let path = self.place.join("filler");
        let what = || format!("fill {}", self.place.display());
        let file = File::create(&path).attempt(what)?;
        let filler = Filler { path };
        let mut length = 0;
        loop {
            let space = statvfs(&self.place).attempt(what)?;
            let free = space.f_bavail * space.f_frsize;
            if free == 0 {
                return Ok(filler);
            }
            // journald may take some of it meanwhile: then less is left to take.
            let piece =
                if fallocate(&file, FallocateFlags::empty(), length, free).is_ok() { free } else { 0 };
            length += piece;
        }
    }
}

impl Journal {
    /// Fills the disk of [`Journal::on_disk_of`] until the filler is dropped. journald may still
    /// have room in the file that it writes; [`Journal::exhaust`] uses that up.
    pub fn fill(&self) -> Result<Filler> {
        let missing = || TestError::Missing {
            what: "a journal on its own disk".to_owned(),
            remedy: "use Journal::on_disk_of".to_owned(),
        };
        self.own()?.disk.as_ref().ok_or_else(missing)?.fill()
    }

    /// Fills the disk, and writes entries until journald drops one.
    pub fn exhaust(&self) -> Result<Filler> {
        let filler = self.fill()?;
        for round in 0..ROUNDS {
            let mark = format!("t3-mark-{round}");
            self.run(&format!("{NOISE}; echo mark | systemd-cat -t {mark}; journalctl --sync"))?;
            let arrived = self.run(&format!("journalctl --quiet --output=cat -t {mark}"))?;
            if arrived.stdout.is_empty() {
                return Ok(filler);
            }
        }
        Err(TestError::Unexpected { what: "a full disk".to_owned(), got: format!("{ROUNDS} entries") })
    }

    /// Runs a shell command that sees this journal.
    fn run(&self, line: &str) -> Result<Output> {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).stdin(Stdio::null());
        self.lend(&mut shell)?;
        shell.output().attempt(|| format!("run `{line}`"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(&self.place, UnmountFlags::DETACH);
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
