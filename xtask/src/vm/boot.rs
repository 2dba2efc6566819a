//! One guest from power-on to power-off: runs qemu in software emulation, watches its console,
//! prints its output and collects its results.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::tools::progress;
use crate::tools::report::Counts;
use crate::tools::run::{self, command_line};
use crate::vm::console::Watch;
use crate::vm::rootfs::Image;

/// Timeout from power-on to the first output of the payload; a guest boots in 20 s on an idle host.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// Printed lines of the console of a failed guest.
const CONSOLE_LINES: usize = 60;
/// Sockets in the folder of a guest: qemu's monitor, and the serial port for requests to the host.
/// qemu opens them by their names, because the address of a socket is short (unix(7)).
const MONITOR: &str = "monitor.sock";
const HOST: &str = "host.sock";

/// One run of a guest.
#[derive(Debug)]
pub struct Boot<'a> {
    /// Prefix of its output.
    pub name: &'a str,
    /// The image to boot.
    pub image: &'a Image,
    /// The payload's disk.
    pub disk: &'a Path,
    /// Folder of console, output and results.
    pub dir: &'a Path,
    /// Power-on to power-off.
    pub limit: Duration,
    /// Print the console, too.
    pub show_console: bool,
    /// Plays what the guest asks of its host, if the guest runs tests.
    pub outside: Option<&'a Path>,
    /// A reboot does not end the run; the changes to the disk survive it.
    pub reboots: bool,
}

/// How a guest ended.
#[derive(Debug)]
pub struct GuestResult {
    /// The payload's exit code, or why there is none.
    pub exit: Result<i32, String>,
    /// What the payload counted.
    pub counts: Counts,
    /// What it printed.
    pub output: String,
    /// Power-on to power-off.
    pub time: Duration,
}

impl Boot<'_> {
    /// Boots, waits, collects.
    pub fn run(&self) -> Result<GuestResult> {
        for name in ["console", "stdout", "exit", "out.tar", MONITOR, HOST] {
            let _ = fs::remove_file(self.dir.join(name));
        }
        let begin = Instant::now();
        let mut command = self.command();
        let log = File::create(self.dir.join("qemu.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut qemu =
            command.spawn().with_context(|| format!("cannot start `{}`", command_line(&command)))?;
        let outside = self.start_outside(qemu.id())?;

        let mut console = Tail::new(self.dir.join("console"));
        let mut stdout = Tail::new(self.dir.join("stdout"));
        let mut watch = Watch::default();
        let mut text = String::new();
        let mut trouble = None;
        let mut life = begin;
        loop {
            let ended = qemu.try_wait()?;
            let piece = console.next();
            if self.show_console && !piece.is_empty() {
                self.print_lines("console", &piece);
            }
            trouble = watch.feed(&piece).map(str::to_owned).or(trouble);
            let lines = stdout.next_lines(ended.is_some());
            self.print_lines("", &lines);
            text.push_str(&lines);
            if let Some(status) = ended {
                if !status.success() {
                    trouble = Some(format!("qemu exited with {status}: {}", self.read("qemu.log").trim()));
                }
                break;
            }
            if begin.elapsed() > self.limit {
                trouble = Some(format!("not finished after its timeout of {}", progress::took(self.limit)));
            } else if text.is_empty() && begin.elapsed() > BOOT_LIMIT {
                trouble = Some(format!("the payload did not start within {}", progress::took(BOOT_LIMIT)));
            }
            if trouble.is_some() {
                // The guest may still be writing the rest of the error.
                std::thread::sleep(Duration::from_secs(1));
                run::end_tree(&mut qemu);
                break;
            }
            if !lines.is_empty() {
                life = Instant::now();
            } else if life.elapsed() > Duration::from_secs(30) {
                life = Instant::now();
                progress::note(&format!("{}: {} so far", self.name, progress::took(begin.elapsed())));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        if let Some(mut outside) = outside {
            run::end_tree(&mut outside);
        }
        self.unpack();
        let exit = match trouble {
            Some(trouble) => Err(trouble),
            None => exit_code(&self.read("exit")),
        };
        if let Err(trouble) = &exit {
            progress::excerpt(
                &format!("{}: {trouble}; its console", self.name),
                &self.read("console"),
                CONSOLE_LINES,
            );
        }
        let counts = Counts::read(&text);
        Ok(GuestResult { exit, counts, output: text, time: begin.elapsed() })
    }

    /// The browser outside the guest.
    fn start_outside(&self, qemu: u32) -> Result<Option<Child>> {
        let Some(program) = self.outside else { return Ok(None) };
        let log = File::create(self.dir.join("outside.log"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command.args(["--monitor", MONITOR, "--requests", HOST, "--pid", &qemu.to_string()]);
        command.current_dir(self.dir).env("T3_TIMEOUT_FACTOR", "4");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn();
        child.map(Some).with_context(|| format!("cannot start `{}`", command_line(&command)))
    }

    /// setpriv kills qemu when xtask ends.
    fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2G"]);
        command.args(["-nodefaults", "-display", "none"]);
        // Only ports that the host forwards lead to the guest, and nothing leads out.
        command.args(["-nic", "user,model=virtio-net-pci,restrict=on"]);
        command.args(["-monitor", &format!("unix:{MONITOR},server=on,wait=off")]);
        command.current_dir(self.dir);
        if !self.reboots {
            command.arg("-no-reboot");
        }
        command.arg("-kernel").arg(&self.image.kernel).arg("-initrd").arg(&self.image.initrd);
        // Emulated CPUs share those of the host, so the lockup detector needs a long timeout. Boot
        // waits for udev, or the payload could start before its ports and its disk exist.
        let append = "root=LABEL=t3root rw console=ttyS0,115200 panic=-1 loglevel=5 net.ifnames=0 watchdog_thresh=60 SYSTEMD_COLORS=0 \
                      systemd.wants=systemd-udev-settle.service";
        command.args(["-append", append]);
        let root = option_path(&self.image.root);
        command.args(["-drive", &format!("file={root},format=raw,if=virtio,snapshot=on,cache=unsafe")]);
        let disk = option_path(self.disk);
        command.args(["-drive", &format!("file={disk},format=raw,if=none,id=payload,readonly=on")]);
        command.args(["-device", "virtio-blk-pci,drive=payload,serial=t3payload"]);
        command.args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
        let file = |name: &str| option_path(&self.dir.join(name));
        command.args([
            "-chardev",
            &format!("file,id=console,path={}", file("console")),
            "-serial",
            "chardev:console",
        ]);
        command.args(["-chardev", &format!("socket,id=host,path={HOST},server=on,wait=off")]);
        command.args(["-device", "virtserialport,chardev=host,name=t3.host"]);
        for (port, name) in [("stdout", "stdout"), ("exit", "exit"), ("out", "out.tar")] {
            command.args(["-chardev", &format!("file,id={port},path={}", file(name))]);
            command.args(["-device", &format!("virtserialport,chardev={port},name=t3.{port}")]);
        }
        command
    }

    fn print_lines(&self, kind: &str, text: &str) {
        for line in text.lines() {
            println!("    {}{kind} | {line}", self.name);
        }
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.dir.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Unpacks `/out` of the guest into `out/`; after a crash it is missing or incomplete.
    fn unpack(&self) {
        let out = self.dir.join("out");
        let _ = fs::remove_dir_all(&out);
        if fs::create_dir_all(&out).is_ok() {
            let mut tar = Command::new("tar");
            tar.arg("-xf").arg(self.dir.join("out.tar")).arg("-C").arg(&out);
            let _ = tar.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// A path inside a qemu option list, where a comma is doubled.
fn option_path(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Reads `exit N`, the last line of a guest.
fn exit_code(text: &str) -> Result<i32, String> {
    let code = text.trim().strip_prefix("exit ").and_then(|code| code.parse().ok());
    code.ok_or_else(|| {
        "the guest powered off without an exit code; the unit of the payload was stopped".to_owned()
    })
}

/// Follows a file that qemu writes.
struct Tail {
    path: PathBuf,
    file: Option<File>,
    partial: Vec<u8>,
}

impl Tail {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, partial: Vec::new() }
    }

    fn read_more(&mut self) {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            let _ = file.read_to_end(&mut self.partial);
        }
    }

    /// Everything new.
    fn next(&mut self) -> String {
        self.read_more();
        String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned()
    }

    /// New complete lines; with `last`, the incomplete one as well.
    fn next_lines(&mut self, last: bool) -> String {
        self.read_more();
        let whole = self.partial.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let end = if last { self.partial.len() } else { whole };
        String::from_utf8_lossy(&self.partial.drain(..end).collect::<Vec<_>>()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{Tail, exit_code, option_path};
    use std::io::Write as _;
    use std::path::Path;

    #[test]
    fn a_missing_exit_code_is_an_error() {
        assert_eq!(exit_code("exit 0\n"), Ok(0));
        assert_eq!(exit_code("exit 101\n"), Ok(101));
        assert!(exit_code("").is_err());
        assert!(exit_code("exit x").is_err());
    }

    #[test]
    fn output_is_printed_in_complete_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        let mut tail = Tail::new(path.clone());
        assert_eq!(tail.next_lines(false), "");
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(tail.next_lines(false), "one\n");
        file.write_all(b"o\nthr").unwrap();
        assert_eq!(tail.next_lines(false), "two\n");
        assert_eq!(tail.next_lines(true), "thr");
    }

    #[test]
    fn commas_in_paths_are_doubled_for_qemu() {
        assert_eq!(option_path(Path::new("/a,b/c")), "/a,,b/c");
    }
}
