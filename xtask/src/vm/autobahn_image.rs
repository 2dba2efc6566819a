//! The WebSocket conformance suite of the Autobahn project, installed once under `target/autobahn`
//! for the host tier. It needs Python 2, which current releases of Debian lack, so it is in a file
//! system of an older release, entered by `chroot`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::tools::run::run_checked;
use crate::tools::{paths, progress};
use crate::vm::apt;
use crate::vm::autobahn_recipe::{self, PIP, REQUIREMENTS, Recipe};
use crate::vm::rootfs::{as_root, path_text, remove_tree};

/// Certificates that this host trusts; pip uses them.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Makes the file system with the suite unless it exists.
pub fn ensure() -> Result<()> {
    let host = apt::host()?;
    let dir = paths::autobahn();
    let recipe = Recipe { mirror: host.mirror, apt_options: host.options, files: dir.join("files") };
    let (tree, stamp) = (dir.join("root"), dir.join("stamp"));
    if fs::read_to_string(&stamp).is_ok_and(|found| found == recipe.key()) && tree.is_dir() {
        return Ok(());
    }
    progress::step("making the file system of the Autobahn suite (a minute or so, then cached)");
    let _ = fs::remove_file(&stamp);
    remove_tree(&tree)?;
    put_files(&recipe.files)?;
    let took = as_root("autobahn: mmdebstrap", "mmdebstrap", &recipe.mmdebstrap_args(path_text(&tree)?)?)?;
    // The owner of `target/` can then delete it.
    let reference = format!("--reference={}", path_text(&paths::target())?);
    as_root("chown", "chown", &["-R".to_owned(), reference, path_text(&tree)?.to_owned()])?;
    fs::write(&stamp, recipe.key())?;
    progress::note(&format!("file system of the Autobahn suite made ({})", progress::took(took)));
    Ok(())
}

/// Further contents of the file system: pip, its configuration on this host, and its requirements.
fn put_files(files: &Path) -> Result<()> {
    if files.exists() {
        fs::remove_dir_all(files).with_context(|| format!("cannot empty {}", files.display()))?;
    }
    fs::create_dir_all(files).with_context(|| format!("cannot create {}", files.display()))?;
    fs::write(files.join("requirements.txt"), REQUIREMENTS)?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--dest"]).arg(files).arg(PIP);
    run_checked("pip download", pip)?;
    let wheel = fs::read_dir(files)?.flatten().map(|entry| entry.path());
    let Some(wheel) = wheel.into_iter().find(|path| path.extension().is_some_and(|name| name == "whl"))
    else {
        bail!("`pip download {PIP}` left no wheel in {}", files.display());
    };
    fs::rename(&wheel, files.join(autobahn_recipe::PIP_WHEEL))?;
    let configuration = pip_configuration().into_iter().find(|path| path.is_file());
    let text =
        configuration.map(fs::read_to_string).transpose().context("cannot read pip's configuration")?;
    fs::write(files.join("pip.conf"), text.unwrap_or_default())?;
    let certificates = fs::read(CERTIFICATES).unwrap_or_default();
    fs::write(files.join("certificates.crt"), certificates)?;
    Ok(())
}

/// Configuration files of pip, the one with the highest priority first.
fn pip_configuration() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let named = std::env::var_os("PIP_CONFIG_FILE").map(PathBuf::from);
    let usual = [home.join(".config/pip/pip.conf"), home.join(".pip/pip.conf"), "/etc/pip.conf".into()];
    named.into_iter().chain(usual).collect()
}
