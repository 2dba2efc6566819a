//! A serve made of Effect's own RPC server on node, with the page whose client is Effect's own:
//! what t3 is made of, and nothing of ours. Installed by npm from the lock file in
//! `peers/effect-serve`, once, below the target folder; never part of the build.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use super::{Process, npm_peer};
use crate::error::{Attempt, Result, TestError};

/// A running server.
#[derive(Debug)]
pub struct EffectServe {
    /// node.
    pub process: Process,
}

impl EffectServe {
    /// The folder it runs from, installed first if need be.
    ///
    /// # Errors
    /// [`TestError::Missing`]: npm cannot install it.
    pub fn folder() -> Result<PathBuf> {
        static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let folder = FOLDER.get_or_init(install).clone();
        folder.map_err(|why| TestError::Missing { what: "Effect's RPC server".to_owned(), remedy: why })
    }

    /// A command for `t3-dispatch --mint-command`, with `folder` as its folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn mint_command(folder: &Path) -> Result<String> {
        let script = folder.join("mint.sh");
        fs::write(&script, MINT).attempt(|| format!("write {}", script.display()))?;
        Ok(format!("sh {}", script.display()))
    }

    /// For whom a session has been made with that command, in turn.
    #[must_use]
    pub fn minted(folder: &Path) -> Vec<String> {
        let text = fs::read_to_string(folder.join("minted")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Starts one and waits until it listens. Its credentials and sessions are in `folder`, in a
    /// folder named after the user, as [`EffectServe::mint_command`] makes them.
    ///
    /// # Errors
    /// It is missing or does not get ready; with its stderr.
    pub fn start(port: u16, user: &str, folder: &Path) -> Result<Self> {
        let folder = folder.join(user);
        fs::create_dir_all(&folder).attempt(|| format!("create {}", folder.display()))?;
        let mut node = Command::new("node");
        node.current_dir(Self::folder()?).arg("server.mjs").arg(port.to_string()).arg(folder);
        let mut process = Process::start(node)?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let accepts = || TcpStream::connect(address).is_ok();
        process.until_ready("Effect's server", Duration::from_secs(60), accepts)?;
        Ok(Self { process })
    }
}

/// Makes a credential for the user it is given, as `t3-mint` does, and notes that in a file
/// `minted`.
const MINT: &str = r#"set -e
cd "$(dirname "$0")"
credential=$(cat /proc/sys/kernel/random/uuid)
: > "$1/credential-$credential"
echo "$1" >> minted
printf '{"credential":"%s"}\n' "$credential"
"#;

fn install() -> Result<PathBuf, String> {
    let folder = npm_peer::installed("effect-serve")?;
    npm_peer::run("node", &["bundle.mjs"], &folder)?;
    Ok(folder)
}
