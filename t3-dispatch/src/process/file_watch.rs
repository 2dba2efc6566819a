//! Change detection for one file: written, replaced, removed, created again, or a symbolic link of
//! its path was changed. Does not read the file.
//!
//! The watches are on the directories in which the components of the path are looked up, each for
//! its name: the file may be missing or replaced at any time, and so may the directories (`..data`
//! of a Kubernetes mount is a link that is replaced). Where the kernel does not report changes
//! (inotify(7): mounts, network file systems, no watches left), the file is checked every
//! [`POLL_INTERVAL`].

use std::{
    collections::{HashMap, VecDeque},
    ffi::OsString,
    fmt,
    future::pending,
    io,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep, timeout},
};

/// Time without events after which a change is reported: editors and copies take several steps.
pub const SETTLED: Duration = Duration::from_millis(100);
/// Limit of that wait, for a file that is written continuously.
const SETTLED_MAX: Duration = Duration::from_secs(1);
/// Interval of checks without an event from the kernel.
pub const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// Limit of the time for which the creation of watches delays the caller.
const ARM_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit of symbolic links in a path (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// Buffer size in bytes, for a few events with the longest names (inotify(7)).
const BUFFER: usize = 4096;

/// Watches one file.
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    poll_interval: Option<Duration>,
    armed: Option<Armed>,
    /// Creation of watches that has not ended: on a file system that does not answer, a lookup
    /// blocks.
    arming: Option<JoinHandle<Arming>>,
    /// Reason for missing events; logged once.
    trouble: Option<String>,
}

/// New watches, and the error for those that cannot be created.
type Arming = io::Result<(Armed, Option<String>)>;

struct Armed {
    events: EventStream<Vec<u8>>,
    /// Watched names by directory.
    names: HashMap<WatchDescriptor, Vec<OsString>>,
}

impl fmt::Debug for Armed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Armed").field(&self.names).finish()
    }
}

impl FileWatch {
    /// Starts to watch. Needs a tokio runtime. Without events, a change is assumed every
    /// `poll_interval`; `None` disables that.
    #[must_use]
    pub async fn new(path: &Path, poll_interval: Option<Duration>) -> Self {
        // Fails only for an empty path or a deleted working directory.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut watch = Self { path, poll_interval, armed: None, arming: None, trouble: None };
        watch.arm().await;
        watch
    }

    /// Returns when the file may have changed. Later changes are reported by the next call.
    pub async fn changed(&mut self) {
        if self.arming.is_some() {
            // Without the new watches, a change may have been missed: one is reported.
            self.arm().await;
            if self.arming.is_some() {
                sleep(self.poll_interval.unwrap_or(POLL_INTERVAL)).await;
            }
            return;
        }
        let by_event = tokio::select! {
            () = event(self.armed.as_mut()) => true,
            () = after(self.poll_interval) => false,
        };
        if by_event {
            let until = Instant::now() + SETTLED_MAX;
            while Instant::now() < until && timeout(SETTLED, event(self.armed.as_mut())).await.is_ok() {}
        }
        self.arm().await;
    }

    /// Creates watches for the current path. No more than one thread is blocked by a lookup.
    async fn arm(&mut self) {
        let path = self.path.clone();
        let arming = self.arming.get_or_insert_with(|| spawn_blocking(move || armed(&path)));
        let result = match timeout(ARM_TIMEOUT, arming).await {
            Ok(result) => {
                self.arming = None;
                result.unwrap_or_else(|error| Err(io::Error::other(error)))
            }
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the file system does not answer")),
        };
        let trouble = match result {
            Ok((armed, trouble)) => {
                self.armed = Some(armed);
                trouble
            }
            Err(error) => {
                self.armed = None;
                Some(format!("inotify: {error}"))
            }
        };
        if trouble != self.trouble {
            if let Some(trouble) = &trouble {
                let path = self.path.display();
                tracing::warn!("changes of {path} are detected up to {POLL_INTERVAL:?} late: {trouble}");
            }
            self.trouble = trouble;
        }
    }
}

async fn after(time: Option<Duration>) {
    match time {
        Some(time) => sleep(time).await,
        None => pending().await,
    }
}

/// Returns at the first event that concerns the file.
async fn event(armed: Option<&mut Armed>) {
    let Some(Armed { events, names }) = armed else { return pending().await };
    loop {
        match events.next().await {
            // An event without a name is for the directory, or for the queue when it overflowed.
            Some(Ok(event)) => match event.name {
                Some(name) if !names.get(&event.wd).is_some_and(|known| known.contains(&name)) => {}
                _ => return,
            },
            Some(Err(_)) | None => return pending().await,
        }
    }
}

/// Creates watches on all directories of the path. Also returns the error for those that cannot be
/// watched.
fn armed(path: &Path) -> Arming {
    // The path can change while the watches are created, so it is resolved again afterwards.
    const ATTEMPTS: usize = 5;
    let mut steps = lookups(path);
    let mut attempts = 0;
    loop {
        let inotify = Inotify::init()?;
        let mut names: HashMap<_, Vec<OsString>> = HashMap::new();
        let mut trouble = None;
        for (dir, name) in &steps {
            match inotify.watches().add(dir, mask()) {
                Ok(watch) => names.entry(watch).or_default().push(name.clone()),
                Err(error) => trouble = Some(format!("watch {}: {}", dir.display(), error)),
            }
        }
        let current = lookups(path);
        attempts += 1;
        if current == steps || attempts == ATTEMPTS {
            let events = inotify.into_event_stream(vec![0; BUFFER])?;
            return Ok((Armed { events, names }, trouble));
        }
        steps = current;
    }
}

fn mask() -> WatchMask {
    // Not MODIFY: a change is complete when the writer has closed the file.
    WatchMask::CREATE
        | WatchMask::CLOSE_WRITE
        | WatchMask::MOVED_FROM
        | WatchMask::MOVED_TO
        | WatchMask::DELETE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
}

/// Directory and name of each lookup from the root to the file, up to the first missing component
/// (path_resolution(7)).
fn lookups(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut lookups = Vec::new();
    let mut dir = PathBuf::from("/");
    let mut left: VecDeque<PathBuf> = VecDeque::from([path.to_owned()]);
    let mut links = 0;
    while let Some(next) = left.pop_front() {
        let mut components = next.components();
        let Some(component) = components.next() else { continue };
        let rest = components.as_path().to_owned();
        if !rest.as_os_str().is_empty() {
            left.push_front(rest);
        }
        match component {
            Component::Prefix(_) | Component::CurDir => {}
            Component::RootDir => dir = PathBuf::from("/"),
            Component::ParentDir => {
                dir.pop();
            }
            Component::Normal(name) => {
                let entry = dir.join(name);
                lookups.push((dir.clone(), name.to_owned()));
                let Ok(kind) = entry.symlink_metadata().map(|meta| meta.file_type()) else { break };
                if kind.is_symlink() {
                    let Ok(target) = entry.read_link() else { break };
                    links += 1;
                    if links > LINKS_MAX {
                        break;
                    }
                    left.push_front(target);
                } else {
                    dir = entry;
                }
            }
        }
    }
    lookups
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    /// A watch without polling: it reports only events of the kernel.
    async fn watched(path: &Path) -> FileWatch {
        FileWatch::new(path, None).await
    }

    async fn is_reported(watch: &mut FileWatch) -> bool {
        timeout(Duration::from_secs(20), watch.changed()).await.is_ok()
    }

    /// No change is reported for several settle times.
    async fn is_quiet(watch: &mut FileWatch) -> bool {
        timeout(SETTLED * 5, watch.changed()).await.is_err()
    }

    #[test]
    fn every_lookup_of_a_path_is_listed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap();
        fs::create_dir_all(dir.join("real/deep")).unwrap();
        fs::write(dir.join("real/deep/file"), "").unwrap();
        symlink("real", dir.join("link")).unwrap();
        symlink(dir.join("real/deep/file"), dir.join("absolute")).unwrap();
        symlink("../real/./deep/file", dir.join("real/dotted")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        let below = |lookups: Vec<(PathBuf, OsString)>| -> Vec<String> {
            let inside = lookups.into_iter().filter(|(parent, _)| parent.starts_with(&dir));
            inside
                .map(|(parent, name)| parent.join(name).strip_prefix(&dir).unwrap().display().to_string())
                .collect()
        };
        for (path, expected) in [
            ("real/deep/file", &["real", "real/deep", "real/deep/file"][..]),
            ("link/deep/file", &["link", "real", "real/deep", "real/deep/file"]),
            ("real/dotted", &["real", "real/dotted", "real", "real/deep", "real/deep/file"]),
            ("absolute", &["absolute", "real", "real/deep", "real/deep/file"]),
            ("missing/deep/file", &["missing"]),
            ("real/missing", &["real", "real/missing"]),
        ] {
            assert_eq!(below(lookups(&dir.join(path))), expected, "{path}");
        }
        assert!(lookups(&dir.join("loop")).len() < 100);
        assert_eq!(lookups(Path::new("/")), []);
    }

    #[tokio::test]
    async fn every_kind_of_change_is_reported() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("conf");
        let file = dir.join("dispatch.json");
        let other = temp.path().join("other");
        let mut watch = watched(&file).await;
        type Step<'a> = (&'a str, Box<dyn Fn() + 'a>);
        let steps: [Step<'_>; 11] = [
            ("the directory appears", Box::new(|| fs::create_dir(&dir).unwrap())),
            ("the file appears", Box::new(|| fs::write(&file, "1").unwrap())),
            ("it is written in place", Box::new(|| fs::write(&file, "2").unwrap())),
            (
                "it is replaced by renaming",
                Box::new(|| {
                    fs::write(&other, "3").unwrap();
                    fs::rename(&other, &file).unwrap();
                }),
            ),
            (
                "it becomes readable",
                Box::new(|| fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap()),
            ),
            ("it is removed", Box::new(|| fs::remove_file(&file).unwrap())),
            ("it is back", Box::new(|| fs::write(&file, "4").unwrap())),
            ("it is renamed away", Box::new(|| fs::rename(&file, &other).unwrap())),
            ("it comes back as a link", Box::new(|| symlink(&other, &file).unwrap())),
            ("the target of the link is written", Box::new(|| fs::write(&other, "4").unwrap())),
            ("the directory is removed", Box::new(|| fs::remove_dir_all(&dir).unwrap())),
        ];
        for (name, step) in steps {
            step();
            assert!(is_reported(&mut watch).await, "{name}");
        }
        assert!(is_quiet(&mut watch).await);
    }

    #[tokio::test]
    async fn swaps_of_a_kubernetes_mount_are_reported() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        for version in ["..1", "..2", "..3"] {
            fs::create_dir(dir.join(version)).unwrap();
            fs::write(dir.join(version).join("dispatch.json"), version).unwrap();
        }
        symlink("..1", dir.join("..data")).unwrap();
        symlink("..data/dispatch.json", dir.join("dispatch.json")).unwrap();
        let mut watch = watched(&dir.join("dispatch.json")).await;
        for version in ["..2", "..3"] {
            symlink(version, dir.join("..tmp")).unwrap();
            fs::rename(dir.join("..tmp"), dir.join("..data")).unwrap();
            assert!(is_reported(&mut watch).await, "{version}");
        }
        fs::remove_dir_all(dir.join("..1")).unwrap();
        assert!(is_quiet(&mut watch).await, "a directory that left the path is ignored");
    }

    #[tokio::test]
    async fn other_files_are_ignored_and_many_steps_are_reported_once() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("dispatch.json");
        fs::write(&file, "1").unwrap();
        let mut watch = watched(&file).await;
        for number in 0..2000 {
            fs::write(temp.path().join(format!("other-{number}")), "").unwrap();
        }
        assert!(is_quiet(&mut watch).await);
        for number in 0..50 {
            fs::write(&file, number.to_string()).unwrap();
        }
        assert!(is_reported(&mut watch).await);
        assert!(is_quiet(&mut watch).await);
    }

    #[tokio::test]
    async fn without_events_the_file_is_polled() {
        let temp = tempfile::tempdir().unwrap();
        let mut watch =
            FileWatch::new(&temp.path().join("dispatch.json"), Some(Duration::from_millis(1))).await;
        watch.armed = None;
        assert!(is_reported(&mut watch).await);
    }
}
