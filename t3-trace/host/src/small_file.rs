//! Files that the kernel makes when they are read: procfs, cgroups.
//!
//! They have no size. `std::fs::read` asks for it all the same (statx) and then reads in small
//! pieces, a line of `/proc/PID/stat` in five. With room for a page they take open, two reads and
//! close; the kernel makes most of them in one piece of a page.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// Room for the first read.
const PAGE: usize = 4096;

/// Reads the complete file.
///
/// # Errors
/// It cannot be opened or read.
pub fn bytes(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(PAGE);
    // Without a hint of its size, unlike `File::read_to_end`.
    File::open(path)?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// As [`bytes`]; invalid UTF-8, as in the name of a process, is replaced.
///
/// # Errors
/// It cannot be opened or read.
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    let bytes = bytes(path)?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::{PAGE, text};

    #[test]
    fn files_of_any_length_are_read_completely() {
        let stat = format!("/proc/{}/stat", std::process::id());
        assert!(text(stat).unwrap().starts_with(&std::process::id().to_string()));
        let smaps = text("/proc/self/smaps").unwrap();
        assert!(smaps.len() > PAGE && smaps.ends_with('\n'));
        assert!(text("/proc/self/no such file").is_err());
        assert!(text("/proc/self").is_err());
    }
}
