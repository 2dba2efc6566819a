//! The evidence socket as a file: takes away a stale one, never a living one; mode 0660 from its
//! first moment, of the viewers' group.

use std::{
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::Mode;
use t3_trace_host::accounts;
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

/// The socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody answers there.
    #[error("another t3-trace answers at {0}; stop it first, or choose another --socket")]
    InUse(PathBuf),
    /// There is something else.
    #[error("{0} exists and is no socket; remove it, or choose another --socket")]
    NotASocket(PathBuf),
    /// An operation failed.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
}

/// The listening socket; its file goes with it.
pub struct Listening {
    /// Accepts connections.
    pub listener: UnixSeqpacketListener,
    file: File,
}

struct File {
    path: PathBuf,
    inode: u64,
}

impl Drop for File {
    fn drop(&mut self) {
        // Not the file of a successor that has already taken the place.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|now| now.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listening {
    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

/// Binds the socket. A group that does not exist is no error: then only its owner may connect.
///
/// # Errors
/// [`ListenError`].
pub async fn bind(path: &Path, group: &str) -> Result<Listening, ListenError> {
    let failed = |what| move |source| ListenError::Io { what, path: path.to_owned(), source };
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(failed("create the directory of"))?;
    }
    remove_stale(path).await?;
    // The file must not be open to others for a moment before its mode is set.
    let earlier = rustix::process::umask(Mode::from_raw_mode(0o117));
    let bound = UnixSeqpacketListener::bind(path);
    rustix::process::umask(earlier);
    let listener = bound.map_err(failed("listen at"))?;
    let inode = std::fs::symlink_metadata(path).map_err(failed("look at"))?.ino();
    let file = File { path: path.to_owned(), inode };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .map_err(failed("set the mode of"))?;
    match accounts::gid_of(group) {
        None => tracing::warn!(
            group,
            "no such group: only root may use the evidence socket; make the group and restart"
        ),
        Some(gid) => {
            if let Err(error) = std::os::unix::fs::chown(path, None, Some(gid)) {
                tracing::warn!(group, %error, "the evidence socket could not be given to the group");
            }
        }
    }
    Ok(Listening { listener, file })
}

async fn remove_stale(path: &Path) -> Result<(), ListenError> {
    use std::os::unix::fs::FileTypeExt;
    let failed = |what| move |source| ListenError::Io { what, path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(ListenError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    if UnixSeqpacket::connect(path).await.is_ok() {
        return Err(ListenError::InUse(path.to_owned()));
    }
    tracing::info!(path = %path.display(), "removing a stale socket");
    std::fs::remove_file(path).map_err(failed("remove the stale socket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/evidence.sock");
        let first = bind(&path, "no-such-group-here").await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(bind(&path, "root").await, Err(ListenError::InUse(_))));
        // A daemon that was killed leaves its file.
        let Listening { listener, file } = first;
        drop(listener);
        std::mem::forget(file);
        assert!(path.exists());
        let second = bind(&path, "root").await.unwrap();
        assert_eq!(second.path(), path);
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn an_ordinary_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert!(matches!(bind(&path, "root").await, Err(ListenError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
    }
}
