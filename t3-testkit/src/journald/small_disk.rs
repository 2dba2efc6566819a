//! A disk of a few megabytes for the files of a journal: a tmpfs that a test can fill.

use std::{
    ffi::CString,
    fs::{self, File},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

use crate::error::{Attempt, Result};

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
