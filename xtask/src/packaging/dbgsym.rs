//! Packages NAME-dbgsym: the debug information of the programs, as files that debuggers find by the
//! build ID of a program (`/usr/lib/debug/.build-id/`, as in Debian's own packages).

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Plan, deb};
use crate::tools::paths;
use crate::tools::run::{run_checked, stdout_of};

/// Sections from which debuggers find functions and lines.
const SECTIONS: [&str; 2] = [".debug_info", ".debug_line"];

/// Root of the package's files.
pub fn tree(name: &str) -> PathBuf {
    paths::target().join("package/stage").join(format!("{name}-dbgsym"))
}

/// Adds the debug information of a program to the package of `name`; not with a quick plan, whose
/// programs have none.
///
/// # Errors
/// The program has no build ID or no line numbers: a debugger would find nothing.
pub fn add(name: &str, program: &Path, plan: &Plan) -> Result<()> {
    if plan.is_quick {
        return Ok(());
    }
    let notes = stdout_of(Command::new("readelf").args(["--notes", "--wide"]).arg(program))?;
    let Some(id) = build_id(&notes) else { bail!("{} has no build ID", program.display()) };
    let (folder, file) = id.split_at(2);
    let dir = tree(name).join("usr/lib/debug/.build-id").join(folder);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut objcopy = Command::new(plan.arch.binutils("objcopy"));
    objcopy.args(["--only-keep-debug", "--compress-debug-sections"]).arg(program);
    let made = dir.join(format!("{file}.debug"));
    run_checked("objcopy", with(objcopy, &made))?;
    let sections = stdout_of(Command::new("readelf").args(["--sections", "--wide"]).arg(&made))?;
    let missing: Vec<_> = SECTIONS.iter().filter(|name| !has_section(&sections, name)).collect();
    if !missing.is_empty() {
        bail!("{} has no debug information: {missing:?} are missing", program.display());
    }
    Ok(())
}

fn has_section(sections: &str, name: &str) -> bool {
    sections.split_whitespace().any(|word| word == name)
}

fn with(mut command: Command, file: &Path) -> Command {
    command.arg(file);
    command
}

fn build_id(notes: &str) -> Option<String> {
    let id = notes.split("Build ID:").nth(1)?.split_whitespace().next()?;
    (id.len() > 2 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// Makes the package from the staged files; `None` without any.
pub fn make(name: &str, to: &Path, plan: &Plan) -> Result<Option<PathBuf>> {
    let tree = tree(name);
    if !tree.is_dir() {
        return Ok(None);
    }
    let version = deb::version(name)?;
    let file = to.join(deb::file_name(&format!("{name}-dbgsym"), &version, plan));
    let doc = tree.join("usr/share/doc");
    let control = tree.join("DEBIAN");
    for dir in [&doc, &control] {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let link = doc.join(format!("{name}-dbgsym"));
    if link.symlink_metadata().is_err() {
        symlink(name, &link)?;
    }
    let (ids, bytes) = contents(&tree.join("usr/lib/debug/.build-id"))?;
    let text = self::control(name, &version, plan, &ids, bytes);
    fs::write(control.join("control"), text)?;
    permissions(&tree)?;
    deb::delete_others(to, &format!("{name}-dbgsym"), &file, plan)?;
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.args(["--root-owner-group", "-Zxz", "--build"]).arg(&tree).arg(&file);
    if let Some(time) = deb::source_time() {
        // dpkg-deb(1): limits the times of all files.
        dpkg.env("SOURCE_DATE_EPOCH", time);
    }
    run_checked("dpkg-deb", dpkg)?;
    Ok(Some(file))
}

/// Build IDs, sorted, and the total size in bytes.
fn contents(dir: &Path) -> Result<(Vec<String>, u64)> {
    let (mut ids, mut bytes) = (Vec::new(), 0);
    for folder in fs::read_dir(dir)? {
        let folder = folder?;
        for file in fs::read_dir(folder.path())? {
            let file = file?;
            bytes += file.metadata()?.len();
            let (begin, end) = (folder.file_name(), file.file_name());
            let end = end.to_string_lossy();
            ids.push(format!("{}{}", begin.to_string_lossy(), end.trim_end_matches(".debug")));
        }
    }
    ids.sort();
    Ok((ids, bytes))
}

fn control(name: &str, version: &str, plan: &Plan, ids: &[String], bytes: u64) -> String {
    let version = format!("{version}-{}", plan.revision);
    format!(
        "Package: {name}-dbgsym\nSource: {name}\nVersion: {version}\nArchitecture: {}\n\
         Auto-Built-Package: debug-symbols\nMaintainer: The t3-dispatch authors <t3-dispatch@example.org>\n\
         Installed-Size: {}\nDepends: {name} (= {version})\nSection: debug\nPriority: optional\n\
         Description: debug symbols for {name}\nBuild-Ids: {}\n",
        plan.arch.debian(),
        bytes.div_ceil(1024),
        ids.join(" ")
    )
}

/// Independent of the umask.
fn permissions(dir: &Path) -> Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            permissions(&entry.path())?;
        } else if kind.is_file() {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::arch::Arch;

    #[test]
    fn the_build_id_is_read_from_readelf() {
        let notes = "Displaying notes found in: .note.gnu.build-id\n  Owner  Data size  Description\n  GNU  0x14  \
                     NT_GNU_BUILD_ID (unique build ID bitstring)\n    Build ID: 2c40e0\n";
        assert_eq!(build_id(notes).as_deref(), Some("2c40e0"));
        assert_eq!(build_id("no notes"), None);
        assert_eq!(build_id("Build ID: ../x"), None);
    }

    #[test]
    fn a_section_is_a_whole_word() {
        let sections = "[27] .debug_info PROGBITS 0000 0000 0000 00 C 0 0 8\n[28] .debug_line_str PROGBITS";
        assert!(has_section(sections, ".debug_info"));
        assert!(!has_section(sections, ".debug_line"));
    }

    #[test]
    fn the_control_file_names_the_package_that_it_belongs_to() {
        let plan = Plan { arch: Arch::Arm64, revision: "2".to_owned(), is_quick: false };
        let text = control("t3-trace", "0.1.0", &plan, &["ab".to_owned(), "cd".to_owned()], 1025);
        for line in [
            "Package: t3-trace-dbgsym",
            "Version: 0.1.0-2",
            "Architecture: arm64",
            "Depends: t3-trace (= 0.1.0-2)",
            "Installed-Size: 2",
            "Build-Ids: ab cd",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
