//! Image of a guest: made by mmdebstrap and mke2fs, cached in `target/vm/SUITE`, rebuilt when the
//! recipe changes.
//!
//! Guests never write to an image (qemu keeps changes in a temporary file), so all runs share it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::tools::run::{run_quiet, show_failure};
use crate::tools::{paths, progress, sudo};
use crate::vm::recipe::{FILE_SYSTEM, RUNNER, Recipe, UNIT};

/// Enough for the packages and the files of tests.
const IMAGE_SIZE: &str = "1600M";
/// mmdebstrap takes a minute, longer with a slow mirror.
const LIMIT: Duration = Duration::from_secs(1200);

/// Files that qemu boots.
#[derive(Clone, Debug)]
pub struct Image {
    /// An ext4 file system.
    pub root: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
}

/// Returns the image of `recipe`, after building it if it is missing.
pub fn ensure(recipe: &Recipe) -> Result<Image> {
    let name = recipe.suite.name();
    let dir = paths::vm().join(name);
    let stamp = dir.join("stamp");
    let image =
        Image { root: dir.join("root.img"), kernel: dir.join("vmlinuz"), initrd: dir.join("initrd.img") };
    if fs::read_to_string(&stamp).is_ok_and(|found| found == recipe.key()) && image.root.is_file() {
        return Ok(image);
    }
    progress::note(&format!("{name}: making the file system (a minute or two, then cached)"));
    fs::create_dir_all(&dir)?;
    let _ = fs::remove_file(&stamp);
    let tree = dir.join("root");
    let files = dir.join("files");
    remove_tree(&tree)?;
    fs::create_dir_all(&files)?;
    fs::write(files.join("t3-vm.service"), UNIT)?;
    fs::write(files.join("run.sh"), RUNNER)?;

    let args = recipe.mmdebstrap_args(path_text(&tree)?, path_text(&files)?);
    let took = as_root(&format!("{name}: mmdebstrap"), "mmdebstrap", &args)?;
    keep(&tree, "vmlinuz-", &image.kernel)?;
    keep(&tree, "initrd.img-", &image.initrd)?;
    let _ = fs::remove_file(&image.root);
    let more = ["-q", "-L", "t3root", "-d", path_text(&tree)?];
    let mut args: Vec<String> = FILE_SYSTEM.into_iter().chain(more).map(str::to_owned).collect();
    args.extend([path_text(&image.root)?.to_owned(), IMAGE_SIZE.to_owned()]);
    as_root(&format!("{name}: mke2fs"), "mke2fs", &args)?;
    remove_tree(&tree)?;
    fs::write(&stamp, recipe.key())?;
    progress::note(&format!("{name}: file system made ({})", progress::took(took)));
    Ok(image)
}

/// Copies the one file of `/boot` whose name begins with `prefix`, readable for the user who runs
/// qemu.
fn keep(tree: &Path, prefix: &str, to: &Path) -> Result<()> {
    let boot = tree.join("boot");
    let entries = fs::read_dir(&boot).with_context(|| format!("cannot list {}", boot.display()))?;
    let found = entries.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let Some(found) = found else {
        bail!("the guest has no /boot/{prefix}*: the kernel package did not install")
    };
    let args = ["-m", "644", path_text(&found.path())?, path_text(to)?].map(str::to_owned);
    as_root("install", "install", &args).map(drop)
}

/// Deletes a tree owned by root, if it exists.
pub fn remove_tree(tree: &Path) -> Result<()> {
    if tree.symlink_metadata().is_err() {
        return Ok(());
    }
    as_root("rm", "rm", &["-rf", "--one-file-system", path_text(tree)?].map(str::to_owned)).map(drop)
}

/// Runs a program as root and returns its run time; a failure is an error and prints the output.
pub fn as_root(what: &str, program: &str, args: &[String]) -> Result<Duration> {
    let mut command =
        sudo::command(program).ok_or_else(|| anyhow!("{program} needs root, or sudo without a password"))?;
    command.args(args).current_dir("/");
    let finished = run_quiet(what, command, LIMIT)?;
    if !finished.ok() {
        show_failure(what, &finished);
        bail!("{what}: {}", finished.how());
    }
    Ok(finished.time)
}

/// A path as part of a command line.
pub fn path_text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8; move the project", path.display()))
}
