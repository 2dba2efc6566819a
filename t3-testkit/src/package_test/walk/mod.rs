//! Walk of docs/INSTALL.md: the commands of the page, copied from it, executed in its order; after
//! each the state that the page promises. [`tables`] lists what is expected of the page, and a test
//! there fails when the page has a block that no walk reaches.

mod execute;
mod fresh;
mod migration;
mod original;
mod page;
mod tables;

pub(super) use fresh::run as fresh;
pub(super) use migration::run as migration;
pub(super) use tables::{REMOVAL, UPGRADE};

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use t3_record::{CloseRecord, Verdict};

use super::{
    fixture::Fixture,
    sessions::complete,
    steps::{Steps, must},
};
use crate::{
    error::{Attempt, Result, TestError},
    wait,
};
use execute::{Terminal, Watcher};
use page::{Block, PageCommand, blocks};
use tables::Data;

/// The page.
const PAGE: &str = include_str!("../../../../docs/INSTALL.md");
/// Timeout for a close to be shown.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Sessions after a start of which one must have the kernel's evidence; each takes two seconds.
const SESSIONS: usize = 5;

/// A state that the page promises after a command.
struct Promise {
    /// Begin of the command.
    command: &'static str,
    /// Checks the state; gets the output of the command.
    check: fn(&mut Site, &str) -> Result<String>,
}

/// The host during a walk.
struct Site {
    terminal: Terminal,
    fixture: Fixture,
    /// User of the sessions.
    user: &'static str,
    /// Further header fields of a browser's requests, as Traefik adds them.
    fields: Vec<(&'static str, String)>,
    /// The files of an operator before the walk, and serves' processes.
    before: Vec<String>,
    /// Output of the installation.
    installed: String,
}

impl Site {
    fn at(directory: &Path, user: &'static str) -> Result<Self> {
        Ok(Self {
            terminal: Terminal::at(directory),
            fixture: Fixture::open()?,
            user,
            fields: Vec::new(),
            before: Vec::new(),
            installed: String::new(),
        })
    }

    /// Executes all blocks of a section, one step per command.
    fn walk(&mut self, steps: &mut Steps, section: &str, promises: &[Promise]) {
        let blocks = match of_section(section) {
            Ok(blocks) => blocks,
            Err(error) => return steps.step(section, || Err::<String, _>(error)),
        };
        for block in blocks {
            if block.language == tables::COMMANDS {
                for command in block.commands() {
                    steps.step(&format!("INSTALL.md:{}: {}", command.line, command.text), || {
                        self.follow(&command.text, promises)
                    });
                }
            } else if let Some(path) = tables::data(&block).and_then(Data::path) {
                steps.step(&format!("INSTALL.md:{}: lines in {path}", block.line), || put(&block));
            }
        }
    }

    fn follow(&mut self, command: &str, promises: &[Promise]) -> Result<String> {
        let output = if tables::ENDLESS.contains(&command) {
            self.watch(command)?
        } else {
            self.terminal.execute(command, tables::answer(command))?
        };
        let promise = promises.iter().find(|promise| command.starts_with(promise.command));
        promise.map_or(Ok(String::new()), |promise| (promise.check)(self, &output))
    }

    /// Runs a command until it shows a close.
    fn watch(&mut self, command: &str) -> Result<String> {
        let watcher = Watcher::start(command)?;
        // It does not report when it is subscribed, so sessions are closed until one is shown.
        for _ in 0..3 {
            self.session()?;
            if wait::until("the close", TIMEOUT, || watcher.seen().contains(self.user).then_some(())).is_ok()
            {
                return watcher.interrupt();
            }
        }
        let seen = watcher.interrupt()?;
        must(false, &format!("a close of {}", self.user), seen).map(|()| String::new())
    }

    /// Opens sessions and closes their tabs until a record has the kernel's evidence and the
    /// pressure; the page allows some seconds without after a start. Returns this record.
    fn session(&mut self) -> Result<CloseRecord> {
        let mut last = String::new();
        for _ in 0..SESSIONS {
            let fields: Vec<_> = self.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let client = self.fixture.browser_with(self.user, &fields)?;
            let (record, entry) = self.fixture.closed(&client)?;
            must(record.verdict == Verdict::ClientClosed, "client_closed", record.to_line())?;
            if complete(&record, &entry).is_ok() {
                return Ok(record);
            }
            last = record.to_line();
        }
        Err(TestError::Unexpected { what: "the kernel's evidence and the pressure".to_owned(), got: last })
    }
}

/// Blocks of a section, of which there is at least one.
fn of_section(section: &str) -> Result<Vec<Block>> {
    let unexpected = |got: String| TestError::Unexpected { what: format!("section {section:?}"), got };
    let mut found = blocks(PAGE).map_err(|error| unexpected(error.to_string()))?;
    found.retain(|block| block.section == section);
    if found.is_empty() { Err(unexpected("no block of code".to_owned())) } else { Ok(found) }
}

/// Puts the lines of a block into the file that the page names.
fn put(block: &Block) -> Result<String> {
    let lines: String = block.lines.iter().map(|line| format!("{line}\n")).collect();
    let (path, old) = match tables::data(block) {
        Some(Data::Write(path)) => (path, String::new()),
        Some(Data::Append(path)) => (path, fs::read_to_string(path).attempt(|| format!("read {path}"))?),
        Some(Data::Elsewhere(_)) | None => return Ok(String::new()),
    };
    fs::write(path, old + &lines).attempt(|| format!("write {path}"))?;
    Ok(String::new())
}

/// Executes the commands of a section from this directory on; returns their output.
pub(super) fn section(section: &str, directory: &Path) -> Result<String> {
    let mut terminal = Terminal::at(directory);
    let commands: Vec<PageCommand> = of_section(section)?.iter().flat_map(Block::commands).collect();
    let execute = |command: &PageCommand| terminal.execute(&command.text, tables::answer(&command.text));
    commands.iter().map(execute).collect()
}

/// Executes the command of a section that begins with this text; returns its output.
pub(super) fn command(section: &str, begin: &str) -> Result<String> {
    let commands = of_section(section)?;
    let found = commands.iter().flat_map(Block::commands).find(|command| command.text.starts_with(begin));
    let found = found.ok_or_else(|| TestError::Unexpected {
        what: format!("a command {begin:?} in section {section:?}"),
        got: "none".to_owned(),
    })?;
    Terminal::at(&PathBuf::from("/root")).execute(&found.text, tables::answer(&found.text))
}
