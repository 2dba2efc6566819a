//! A disk of a few megabytes for the files of a journal: a tmpfs that a test can fill.

use std::{
    ffi::CString,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rustix::{
    fs::statvfs,
    mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount},
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
    bytes: u64,
}

/// Leaves a disk without free space until it is dropped.
#[derive(Debug)]
pub struct Filler {
    place: PathBuf,
    bytes: u64,
}

impl SmallDisk {
    pub(super) fn mount(place: &Path, bytes: u64) -> Result<Self> {
        let what = || format!("mount a tmpfs on {}", place.display());
        let options = CString::new(format!("size={bytes},mode=755")).map_err(std::io::Error::other);
        let options = options.attempt(what)?;
        mount("tmpfs", place, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).attempt(what)?;
        Ok(Self { place: place.to_owned(), bytes })
    }

    /// Shrinks the disk to its files: a file that fills it would occupy memory.
    pub(super) fn fill(&self) -> Result<Filler> {
        let space = statvfs(&self.place).attempt(|| format!("measure {}", self.place.display()))?;
        let used = (space.f_blocks - space.f_bfree) * space.f_frsize;
        resize(&self.place, used)?;
        Ok(Filler { place: self.place.clone(), bytes: self.bytes })
    }
}

fn resize(place: &Path, bytes: u64) -> Result<()> {
    let what = || format!("resize the tmpfs on {} to {bytes} bytes", place.display());
    let options = CString::new(format!("size={bytes}")).map_err(std::io::Error::other).attempt(what)?;
    mount_remount(place, MountFlags::empty(), options.as_c_str()).attempt(what)
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
        if self.use_up(|| Ok(()))? {
            return Ok(filler);
        }
        Err(TestError::Unexpected { what: "a full disk".to_owned(), got: format!("{ROUNDS} entries") })
    }

    /// On a full disk: writes entries until journald drops one; false if it drops none. `fill`
    /// fills the disk again before each round, because journald deletes old files to make room.
    pub fn use_up(&self, mut fill: impl FnMut() -> Result<()>) -> Result<bool> {
        for round in 0..ROUNDS {
            fill()?;
            let mark = format!("t3-mark-{round}");
            self.run(&format!("{NOISE}; echo mark | systemd-cat -t {mark}; journalctl --sync"))?;
            let arrived = self.run(&format!("journalctl --quiet --output=cat -t {mark}"))?;
            if arrived.stdout.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
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
        let _ = resize(&self.place, self.bytes);
    }
}
