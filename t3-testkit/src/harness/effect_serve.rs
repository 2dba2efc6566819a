//! A serve with the RPC server of Effect on node, and a page with the RPC client of Effect: the
//! libraries of t3. Installed once by npm from the lock file in `peers/effect-serve` below the
//! target folder; not part of the build.

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
    pub process: Process,
}

impl EffectServe {
    /// The folder with the server; installs it if necessary.
    ///
    /// # Errors
    /// [`TestError::Missing`]: npm cannot install it.
    pub fn folder() -> Result<PathBuf> {
        static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let folder = FOLDER.get_or_init(install).clone();
        folder.map_err(|why| TestError::Missing { what: "Effect's RPC server".to_owned(), remedy: why })
    }

    /// A command for `t3-dispatch --mint-command` that works in `folder`.
    pub fn mint_command(folder: &Path) -> Result<String> {
        let script = folder.join("mint.sh");
        fs::write(&script, MINT).attempt(|| format!("write {}", script.display()))?;
        Ok(format!("sh {}", script.display()))
    }

    /// Users for which that command made a session, in order.
    #[must_use]
    pub fn minted(folder: &Path) -> Vec<String> {
        let text = fs::read_to_string(folder.join("minted")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Starts one and waits until it listens. Its credentials and sessions are in `folder/user`,
    /// where [`EffectServe::mint_command`] puts them.
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

/// Makes a credential for a user, as `t3-mint` does, and adds the user to the file `minted`.
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
