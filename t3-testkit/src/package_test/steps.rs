//! Steps of the test, printed and counted; the count survives a reboot.

use std::{fs, io::Write, path::Path};

use crate::error::{Attempt, Result, TestError};

/// Folder for state that is needed after the reboot.
pub(super) const KEPT: &str = "/var/lib/t3-package-test";

/// Number of passed and failed steps.
#[derive(Debug, Default)]
pub(super) struct Steps {
    passed: u32,
    failed: u32,
    /// Failed before the reboot.
    failed_earlier: u32,
}

impl Steps {
    /// Runs one step and prints its result: a short remark, or the reason of a failure.
    pub(super) fn step<T: AsRef<str>>(&mut self, name: &str, act: impl FnOnce() -> Result<T>) {
        match act() {
            Ok(remark) => {
                self.passed += 1;
                let remark = remark.as_ref().trim();
                let remark = if remark.is_empty() || remark.len() > 160 {
                    String::new()
                } else {
                    format!(": {remark}")
                };
                println!("ok      {name}{}", remark.replace('\n', " / "));
            }
            Err(error) => {
                self.failed += 1;
                println!("FAILED  {name}");
                for line in error.to_string().lines().take(60) {
                    println!("        {line}");
                }
            }
        }
    }

    /// Prints the counts of this boot; true if no step failed in this boot or before.
    pub(super) fn close(&self) -> bool {
        println!("{} passed, {} failed", self.passed, self.failed);
        self.failed + self.failed_earlier == 0
    }

    /// Saves the count for the next boot.
    pub(super) fn keep(&self) -> Result<()> {
        let text = format!("{} {}", boot_id()?, self.failed);
        let file = Path::new(KEPT).join("state");
        // On the disk: the next boot may follow a reset.
        let written = fs::create_dir_all(KEPT).and_then(|()| {
            let mut state = fs::File::create(&file)?;
            state.write_all(text.as_bytes())?;
            state.sync_all()?;
            fs::File::open(KEPT)?.sync_all()
        });
        written.attempt(|| format!("write {}", file.display()))
    }
}

/// The count of the previous boot; `None` in the first one.
pub(super) fn after_reboot() -> Result<Option<Steps>> {
    let file = Path::new(KEPT).join("state");
    let Ok(text) = fs::read_to_string(&file) else { return Ok(None) };
    let bad = || TestError::Unexpected { what: format!("a state in {}", file.display()), got: text.clone() };
    let (boot, failed) = text.split_once(' ').ok_or_else(bad)?;
    let failed_earlier = failed.trim().parse().map_err(|_| bad())?;
    let mut steps = Steps { failed_earlier, ..Steps::default() };
    let now = boot_id()?;
    steps.step("the guest has rebooted", || if boot == now { Err(bad()) } else { Ok(String::new()) });
    Ok(Some(steps))
}

fn boot_id() -> Result<String> {
    let file = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(file).attempt(|| format!("read {file}"))?.trim().to_owned())
}

/// Returns an error with the observed value unless `holds`.
pub(super) fn must(holds: bool, what: &str, seen: impl Into<String>) -> Result<()> {
    if holds { Ok(()) } else { Err(TestError::Unexpected { what: what.to_owned(), got: seen.into() }) }
}
