//! Reads log files in place of Loki: once from the start, line by line; keeps the lines in the
//! window. A `.gz` file is decompressed, a folder is read with its files. Runs on a separate thread
//! and stops at its deadline.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    time::Instant,
};

use flate2::read::MultiGzDecoder;
use t3_record::edge::{BadLine, Reading};

use super::folder;

/// Limit of a line in bytes; the rest is dropped.
const LINE: u64 = 256 * 1024;
/// Limit of lines kept.
const MOST: usize = 50_000;

/// A log file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {path} (--{option}): {why}")]
    Read { path: PathBuf, option: &'static str, why: io::Error },
    #[error(
        "{path} (--{option}): no file from the time of the close; Logpush sends batches, and never sends a lost one again"
    )]
    NoBatch { path: PathBuf, option: &'static str },
    #[error("{paths} (--{option}): no line in the format of this log")]
    Foreign { paths: String, option: &'static str },
}

/// One kind of log.
pub(super) struct Kind<T> {
    pub option: &'static str,
    pub parse: fn(&str) -> Result<T, BadLine>,
    /// Whether the line is in the window.
    pub wanted: fn(&T, super::Window) -> bool,
}

/// Reads the lines in the window from all files.
pub(super) fn read<T>(
    paths: &[PathBuf],
    kind: &Kind<T>,
    window: super::Window,
    deadline: Instant,
) -> Result<Reading<T>, FileError> {
    let mut reading = Reading::default();
    let mut any = false;
    for path in paths {
        let failed = |why| FileError::Read { path: path.clone(), option: kind.option, why };
        let found = folder::files(path, window).map_err(failed)?;
        if found.files.is_empty() {
            return Err(FileError::NoBatch { path: path.clone(), option: kind.option });
        }
        reading.cut |= found.cut;
        for file in found.files {
            any |= one(&file, kind, window, deadline, &mut reading).map_err(failed)?;
        }
    }
    let names = || paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    if any || reading.cut {
        Ok(reading)
    } else {
        Err(FileError::Foreign { paths: names(), option: kind.option })
    }
}

/// Reads one file; returns whether any line had the right format.
fn one<T>(
    path: &Path,
    kind: &Kind<T>,
    window: super::Window,
    deadline: Instant,
    reading: &mut Reading<T>,
) -> io::Result<bool> {
    let mut file = open(path)?;
    let mut line = Vec::new();
    let (mut any, mut inside) = (false, false);
    // A line that cannot be parsed has no time: it is in the window if the line before or after it
    // is.
    let mut pending = Reading::default();
    loop {
        line.clear();
        match file.by_ref().take(LINE).read_until(b'\n', &mut line) {
            Ok(0) => break,
            // A compressed file that is still being written.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                reading.cut = true;
                break;
            }
            read => read?,
        };
        if !line.ends_with(b"\n") && line.len() as u64 == LINE {
            skip_line(&mut file)?;
        }
        if Instant::now() > deadline || reading.lines.len() >= MOST {
            reading.cut = true;
            break;
        }
        let text = String::from_utf8_lossy(&line);
        match (kind.parse)(&text) {
            Ok(value) => {
                any = true;
                let before = std::mem::replace(&mut inside, (kind.wanted)(&value, window));
                count(std::mem::take(&mut pending), before || inside, reading);
                if inside {
                    reading.lines.push(value);
                }
            }
            bad @ Err(_) => pending.take(&text, bad),
        }
    }
    count(pending, inside, reading);
    Ok(any)
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let file = File::open(path)?;
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz")) {
        return Ok(Box::new(BufReader::new(MultiGzDecoder::new(file))));
    }
    Ok(Box::new(BufReader::new(file)))
}

fn count<T>(pending: Reading<T>, inside: bool, reading: &mut Reading<T>) {
    if inside {
        reading.unread += pending.unread;
        reading.sample = reading.sample.take().or(pending.sample);
    }
}

fn skip_line(file: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = file.fill_buf()?;
        let (used, done) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        file.consume(used);
        if done {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use t3_record::edge::cloudflared;

    use super::{super::Window, *};

    fn kind() -> Kind<cloudflared::TunnelLine> {
        Kind {
            option: "cloudflared-log",
            parse: cloudflared::parse,
            wanted: |line, window| window.holds(line.at_ms),
        }
    }

    fn line(second: u32) -> String {
        format!("2026-08-22T10:01:{second:02}Z INF Lost connection with the edge connIndex=2\n")
    }

    /// From second 10 to second 20.
    fn window() -> Window {
        let at = |second| cloudflared::parse(line(second).trim()).unwrap().at_ms;
        Window { from_ms: at(10), until_ms: at(20) }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn lines_in_the_window_are_kept_and_broken_lines_in_it_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let broken = "2026-08-22T10:01:12Z ERR Request failed error=\"cut\n";
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        fs::write(&old, format!("{broken}{}{broken}{}other\n", line(1), line(2))).unwrap();
        let long = format!("{}\n", "x".repeat(2 * usize::try_from(LINE).unwrap() + 7));
        fs::write(
            &new,
            [
                line(3),
                broken.to_owned(),
                line(10),
                long,
                line(20),
                "\u{fffd}\n".to_owned(),
                line(21),
                broken.to_owned(),
            ]
            .concat(),
        )
        .unwrap();
        let reading = read(&[old, new], &kind(), window(), soon()).unwrap();
        assert_eq!((reading.lines.len(), reading.cut), (2, false));
        // The one before second 10, and the first part of the long one.
        assert_eq!(reading.unread, 2, "{:?}", reading.sample);
    }

    #[test]
    fn compressed_files_and_the_batches_of_a_folder_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let compressed = |text: &str| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let day = dir.path().join("20260822");
        fs::create_dir(&day).unwrap();
        fs::write(day.join("20260822T100000Z_20260822T100500Z_a.log.gz"), compressed(&line(12))).unwrap();
        fs::write(day.join("20260822T100500Z_20260822T101000Z_b.log"), line(13)).unwrap();
        // Not from that time: not read.
        fs::write(day.join("20260821T100000Z_20260821T100500Z_c.log.gz"), "not gzip").unwrap();
        let folder = [dir.path().to_owned()];
        let whole = read(&folder, &kind(), window(), soon()).unwrap();
        assert_eq!((whole.lines.len(), whole.cut), (2, false));
        let half = compressed(&[line(14), line(15)].concat());
        fs::write(day.join("20260822T100500Z_20260822T101000Z_d.log.gz"), &half[..half.len() - 9]).unwrap();
        assert!(read(&folder, &kind(), window(), soon()).unwrap().cut);
        let empty = tempfile::tempdir().unwrap();
        let error = read(&[empty.path().to_owned()], &kind(), window(), soon()).unwrap_err().to_string();
        assert!(error.contains("no file from the time of the close"), "{error}");
    }

    #[test]
    fn an_unreadable_or_foreign_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("nowhere");
        let error = read(&[nowhere], &kind(), window(), soon()).unwrap_err().to_string();
        assert!(error.contains("nowhere (--cloudflared-log)"), "{error}");
        let foreign = dir.path().join("syslog");
        fs::write(&foreign, "hello\n").unwrap();
        let error = read(&[foreign], &kind(), window(), soon()).unwrap_err().to_string();
        assert!(error.contains("no line in the format of this log"), "{error}");
    }

    #[test]
    fn a_file_that_takes_too_long_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        fs::write(&file, line(12)).unwrap();
        let late = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        assert!(read(&[file], &kind(), window(), late).unwrap().cut);
    }
}
