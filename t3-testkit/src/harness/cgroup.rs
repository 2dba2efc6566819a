//! A cgroup for one fake serve: on cgroup v2 for PSI and, with controllers there, limits; on a
//! hybrid host the memory limit is in the v1 hierarchy, with the same processes in both.
//!
//! Removed on drop, which works only after the end of its processes: drop their handles first.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::Unit;
use crate::{
    error::{Attempt, Result, TestError},
    wait,
};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A cgroup, in each required hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    /// Folder on cgroup v2.
    pub v2: PathBuf,
    /// Folder in the v1 memory hierarchy of a hybrid host.
    pub v1_memory: Option<PathBuf>,
    /// Created here, so removed here.
    is_owned: bool,
}

impl Cgroup {
    /// Creates one.
    ///
    /// # Errors
    /// [`TestError::Missing`] without cgroup v2.
    pub fn new() -> Result<Self> {
        let name = format!("t3-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = v2_root().ok_or_else(|| TestError::Missing {
            what: "cgroup v2".to_owned(),
            remedy: "mount it on /sys/fs/cgroup or /sys/fs/cgroup/unified".to_owned(),
        })?;
        let v2 = root.join(&name);
        // Without a controller in subtree_control there is PSI, but no limits.
        let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
        let _ = fs::write(root.join("cgroup.subtree_control"), "+cpu");
        fs::create_dir(&v2).attempt(|| format!("create the cgroup {}", v2.display()))?;
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let v1_memory = (v1.join("memory.limit_in_bytes").exists()
            || v1.join("memory.usage_in_bytes").exists())
        .then(|| v1.join(&name));
        let v1_memory = v1_memory.filter(|path| fs::create_dir(path).is_ok());
        Ok(Self { v2, v1_memory, is_owned: true })
    }

    /// The cgroup of a systemd unit.
    #[must_use]
    pub fn of_unit(unit: &Unit) -> Self {
        Self { v2: unit.cgroup.clone(), v1_memory: None, is_owned: false }
    }

    pub fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.v2.join(file);
        fs::write(&path, value).attempt(|| format!("write {value:?} to {}", path.display()))
    }

    /// Whether memory can be limited, in either hierarchy.
    #[must_use]
    pub fn limits_memory(&self) -> bool {
        self.v1_memory.is_some() || self.v2.join("memory.max").exists()
    }

    /// Whether the memory limit and the OOM counters are on cgroup v2.
    #[must_use]
    pub fn counts_on_v2(&self) -> bool {
        self.v2.join("memory.events").exists()
    }

    /// Limits memory, without swap.
    ///
    /// # Errors
    /// [`TestError::Missing`] without a memory controller.
    pub fn limit_memory(&self, bytes: u64) -> Result<()> {
        let limit = bytes.to_string();
        if self.v2.join("memory.max").exists() {
            let _ = fs::write(self.v2.join("memory.swap.max"), "0");
            return fs::write(self.v2.join("memory.max"), limit).attempt(|| "set memory.max".to_owned());
        }
        let Some(v1) = &self.v1_memory else {
            return Err(TestError::Missing {
                what: "the memory controller".to_owned(),
                remedy: "enable it for cgroup v2 (cgroup.controllers of the root must list it)".to_owned(),
            });
        };
        fs::write(v1.join("memory.limit_in_bytes"), &limit)
            .attempt(|| "set memory.limit_in_bytes".to_owned())?;
        // Exists only with swap accounting.
        let _ = fs::write(v1.join("memory.memsw.limit_in_bytes"), &limit);
        Ok(())
    }

    /// Freezes or resumes all processes.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let word = if frozen { "1" } else { "0" };
        self.set("cgroup.freeze", word)
    }

    /// Descriptors of `cgroup.procs`, one per hierarchy, for [`crate::sys::in_cgroup`].
    pub fn procs_files(&self) -> Result<Vec<OwnedFd>> {
        let folders = std::iter::once(&self.v2).chain(&self.v1_memory);
        folders
            .map(|folder| {
                let file = fs::OpenOptions::new().write(true).open(folder.join("cgroup.procs"));
                Ok(OwnedFd::from(file.attempt(|| format!("open cgroup.procs of {}", folder.display()))?))
            })
            .collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.is_owned {
            return;
        }
        let _ = self.freeze(false);
        let _ = fs::write(self.v2.join("cgroup.kill"), "1");
        for folder in std::iter::once(&self.v2).chain(&self.v1_memory) {
            let _ = wait::until("an empty cgroup", Duration::from_secs(5), || fs::remove_dir(folder).ok());
        }
    }
}

fn v2_root() -> Option<PathBuf> {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    roots
        .into_iter()
        .find(|root| root.join("cgroup.procs").exists() && root.join("cgroup.controllers").exists())
}
