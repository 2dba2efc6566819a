//! File of the evidence socket: removes a stale one, never an active one; mode 0660 from the start,
//! owned by the subscribers' group.

use std::{
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::Mode;
use t3_trace_host::accounts;
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

/// Length of the accept queue, up to `net.core.somaxconn`: also with many connections that are
/// refused, there is room for that of dispatch.
const BACKLOG: i32 = 4096;

/// The socket could not be created.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A daemon accepts connections there.
    #[error("cannot listen at {0}: another t3-trace daemon is running; stop it or change --socket")]
    InUse(PathBuf),
    /// Another kind of file exists there.
    #[error("cannot listen at {0}: not a socket; remove it or change --socket")]
    NotASocket(PathBuf),
    /// An operation failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// Attempted operation.
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// The listening socket; its file is removed on drop.
pub struct Listening {
    pub listener: UnixSeqpacketListener,
    file: File,
}

struct File {
    path: PathBuf,
    inode: u64,
}

impl Drop for File {
    fn drop(&mut self) {
        // Not the file of a successor that has replaced it.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|now| now.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listening {
    /// Path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

/// Binds the socket. A missing group is not an error: then only the owner may connect.
pub async fn bind(path: &Path, group: &str) -> Result<Listening, ListenError> {
    let failed = |what| move |source| ListenError::Io { what, path: path.to_owned(), source };
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(failed("create the directory of"))?;
    }
    remove_stale(path).await?;
    // The file must not be accessible to others before its mode is set.
    let earlier = rustix::process::umask(Mode::from_raw_mode(0o117));
    let bound = UnixSeqpacketListener::bind_with_backlog(path, BACKLOG);
    rustix::process::umask(earlier);
    let listener = bound.map_err(failed("listen at"))?;
    let inode = std::fs::symlink_metadata(path).map_err(failed("inspect"))?.ino();
    let file = File { path: path.to_owned(), inode };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .map_err(failed("set the mode of"))?;
    match accounts::gid_of(group) {
        None => tracing::warn!(
            group,
            "group not found: only root may use the evidence socket; create the group and restart"
        ),
        Some(gid) => {
            if let Err(error) = std::os::unix::fs::chown(path, None, Some(gid)) {
                tracing::warn!(group, %error, "cannot set the group of the evidence socket");
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
        Err(error) => return Err(failed("inspect")(error)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(ListenError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    if UnixSeqpacket::connect(path).await.is_ok() {
        return Err(ListenError::InUse(path.to_owned()));
    }
    tracing::info!(path = %path.display(), "removing stale socket");
    std::fs::remove_file(path).map_err(failed("remove the stale socket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_stale_socket_is_replaced() {
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
    async fn a_regular_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert!(matches!(bind(&path, "root").await, Err(ListenError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
    }
}
