//! Says when a file may have another content: it was written, replaced, removed, came back, or a
//! symbolic link on the way to it turned to another place. Reads no content, and knows nothing of
//! what is in it.
//!
//! What is watched are the directories in which the names on the way to the file are looked up,
//! each for its name: the file itself may be gone or be another one at any time, and so may the
//! directories (`..data` of a Kubernetes mount is a link that is replaced). Where the kernel does
//! not tell (inotify(7): mounts, network file systems, no watches left) the file is looked at every
//! [`LOOK_EVERY`].

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
use tokio::time::{Instant, sleep, timeout};

/// How long nothing must happen before the file is worth reading: editors and copies take several
/// steps.
pub const SETTLED: Duration = Duration::from_millis(100);
/// Somebody who never stops writing is not waited for longer.
const SETTLED_MOST: Duration = Duration::from_secs(1);
/// How often the file is worth a look even when the kernel says nothing.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);
/// So many links on the way are a loop (path_resolution(7)).
const LINKS_MOST: usize = 40;
/// Room for a few events of the longest names (inotify(7)).
const BUFFER: usize = 4096;

/// Watches one file.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    look_every: Option<Duration>,
    armed: Option<Armed>,
    /// Why the kernel does not tell, said once.
    trouble: Option<String>,
}

struct Armed {
    events: EventStream<Vec<u8>>,
    /// The names of interest by directory.
    names: HashMap<WatchDescriptor, Vec<OsString>>,
}

impl fmt::Debug for Armed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Armed").field(&self.names).finish()
    }
}

impl Watch {
    /// Starts to watch. Needs a tokio runtime. `look_every`: how often a look is worth it without a
    /// word from the kernel; `None` for never.
    #[must_use]
    pub fn new(path: &Path, look_every: Option<Duration>) -> Self {
        // An error needs an empty path or a working directory that is gone.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut watch = Self { path, look_every, armed: None, trouble: None };
        watch.arm();
        watch
    }

    /// Returns when a look at the file is worth it. Everything that happens after that is told by
    /// the next call.
    pub async fn changed(&mut self) {
        let told = tokio::select! {
            () = event(self.armed.as_mut()) => true,
            () = after(self.look_every) => false,
        };
        if told {
            let until = Instant::now() + SETTLED_MOST;
            while Instant::now() < until && timeout(SETTLED, event(self.armed.as_mut())).await.is_ok() {}
        }
        self.arm();
    }

    /// Watches the way to the file as it is now.
    fn arm(&mut self) {
        let trouble = match armed(&self.path) {
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
                tracing::warn!("changes of {path} are detected up to {LOOK_EVERY:?} late: {trouble}");
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
            // One without a name concerns the directory, or the whole queue when it overflowed.
            Some(Ok(event)) => match event.name {
                Some(name) if !names.get(&event.wd).is_some_and(|known| known.contains(&name)) => {}
                _ => return,
            },
            Some(Err(_)) | None => return pending().await,
        }
    }
}

/// Watches all directories on the way. Returns the error for those that cannot be watched.
fn armed(path: &Path) -> io::Result<(Armed, Option<String>)> {
    // A directory that turned while it was being watched leads elsewhere: the way is looked at
    // again when the watches stand.
    const TURNS: usize = 5;
    let mut places = way(path);
    let mut turns = 0;
    loop {
        let inotify = Inotify::init()?;
        let mut names: HashMap<_, Vec<OsString>> = HashMap::new();
        let mut trouble = None;
        for (dir, name) in &places {
            match inotify.watches().add(dir, mask()) {
                Ok(watch) => names.entry(watch).or_default().push(name.clone()),
                Err(error) => trouble = Some(format!("watch {}: {}", dir.display(), error)),
            }
        }
        let now = way(path);
        turns += 1;
        if now == places || turns == TURNS {
            let events = inotify.into_event_stream(vec![0; BUFFER])?;
            return Ok((Armed { events, names }, trouble));
        }
        places = now;
    }
}

fn mask() -> WatchMask {
    // Not MODIFY: a file is worth reading when its writer has closed it.
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

/// Every directory that is asked for a name on the way from the root to the file, as far as the way
/// goes, and that name (path_resolution(7)).
fn way(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut asked = Vec::new();
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
                let whole = dir.join(name);
                asked.push((dir.clone(), name.to_owned()));
                let Ok(kind) = whole.symlink_metadata().map(|meta| meta.file_type()) else { break };
                if kind.is_symlink() {
                    let Ok(target) = whole.read_link() else { break };
                    links += 1;
                    if links > LINKS_MOST {
                        break;
                    }
                    left.push_front(target);
                } else {
                    dir = whole;
                }
            }
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    /// Nothing but the kernel's word: what it does not tell is not seen at all.
    fn watched(path: &Path) -> Watch {
        Watch::new(path, None)
    }

    async fn is_told(watch: &mut Watch) -> bool {
        timeout(Duration::from_secs(20), watch.changed()).await.is_ok()
    }

    /// No change is reported for several settle times.
    async fn is_quiet(watch: &mut Watch) -> bool {
        timeout(SETTLED * 5, watch.changed()).await.is_err()
    }

    #[test]
    fn the_way_to_a_file_is_every_directory_that_is_asked_for_a_name() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap();
        fs::create_dir_all(dir.join("real/deep")).unwrap();
        fs::write(dir.join("real/deep/file"), "").unwrap();
        symlink("real", dir.join("link")).unwrap();
        symlink(dir.join("real/deep/file"), dir.join("absolute")).unwrap();
        symlink("../real/./deep/file", dir.join("real/dotted")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        let below = |way: Vec<(PathBuf, OsString)>| -> Vec<String> {
            let inside = way.into_iter().filter(|(parent, _)| parent.starts_with(&dir));
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
            assert_eq!(below(way(&dir.join(path))), expected, "{path}");
        }
        assert!(way(&dir.join("loop")).len() < 100);
        assert_eq!(way(Path::new("/")), []);
    }

    #[tokio::test]
    async fn every_way_to_change_a_file_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("conf");
        let file = dir.join("dispatch.json");
        let other = temp.path().join("other");
        let mut watch = watched(&file);
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
            ("what the link leads to is written", Box::new(|| fs::write(&other, "4").unwrap())),
            ("the directory goes", Box::new(|| fs::remove_dir_all(&dir).unwrap())),
        ];
        for (name, step) in steps {
            step();
            assert!(is_told(&mut watch).await, "{name}");
        }
        assert!(is_quiet(&mut watch).await);
    }

    #[tokio::test]
    async fn a_mount_as_kubernetes_makes_them_is_followed_through_its_swaps() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        for version in ["..1", "..2", "..3"] {
            fs::create_dir(dir.join(version)).unwrap();
            fs::write(dir.join(version).join("dispatch.json"), version).unwrap();
        }
        symlink("..1", dir.join("..data")).unwrap();
        symlink("..data/dispatch.json", dir.join("dispatch.json")).unwrap();
        let mut watch = watched(&dir.join("dispatch.json"));
        for version in ["..2", "..3"] {
            symlink(version, dir.join("..tmp")).unwrap();
            fs::rename(dir.join("..tmp"), dir.join("..data")).unwrap();
            assert!(is_told(&mut watch).await, "{version}");
        }
        fs::remove_dir_all(dir.join("..1")).unwrap();
        assert!(is_quiet(&mut watch).await, "what is not on the way any more is nobody's business");
    }

    #[tokio::test]
    async fn neighbours_are_none_of_its_business_and_many_steps_are_told_once() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("dispatch.json");
        fs::write(&file, "1").unwrap();
        let mut watch = watched(&file);
        for number in 0..2000 {
            fs::write(temp.path().join(format!("neighbour-{number}")), "").unwrap();
        }
        assert!(is_quiet(&mut watch).await);
        for number in 0..50 {
            fs::write(&file, number.to_string()).unwrap();
        }
        assert!(is_told(&mut watch).await);
        assert!(is_quiet(&mut watch).await);
    }

    #[tokio::test]
    async fn without_a_word_from_the_kernel_it_is_looked_at_now_and_then() {
        let temp = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(&temp.path().join("dispatch.json"), Some(Duration::from_millis(1)));
        watch.armed = None;
        assert!(is_told(&mut watch).await);
    }
}
