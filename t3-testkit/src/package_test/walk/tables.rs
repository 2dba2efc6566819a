//! What the walks expect of the page: the sections they reach, the files for its other blocks, and
//! the commands that need an operator.

use super::page::Block;

/// Language of blocks of commands; each line is executed.
pub(super) const COMMANDS: &str = "sh";

/// Sections of the walk on a fresh host, in the order of the page.
pub(super) const FRESH: [&str; 4] =
    ["Installation in five minutes", "Access", "Installed files", "Pairing by sudo"];
/// Section of the walk on a host with the Go binary.
pub(super) const MIGRATION: &str = "Migration from the Go binary";
/// Section in place of an upgrade by apt-get.
pub(in super::super) const UPGRADE: &str = "Upgrade";
/// Section in place of a removal by apt-get.
pub(in super::super) const REMOVAL: &str = "Removal";

/// Commands that run until Ctrl-C.
pub(super) const ENDLESS: [&str; 1] = ["t3-trace live"];
/// Begins of commands that ask for a confirmation, and the reply.
const ANSWERS: [(&str, &str); 2] = [("apt remove ", "y\n"), ("apt purge ", "y\n")];

/// What a reader does with a block that has no commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    /// Puts it into this file.
    Write(&'static str),
    /// Appends it to this file.
    Append(&'static str),
    /// Something that a guest cannot show, for this reason.
    Elsewhere(&'static str),
}

impl Data {
    pub(super) fn path(self) -> Option<&'static str> {
        match self {
            Self::Write(path) | Self::Append(path) => Some(path),
            Self::Elsewhere(_) => None,
        }
    }
}

/// (section, language) of these blocks.
const DATA: [(&str, &str, Data); 4] = [
    (FRESH[0], "json", Data::Write("/etc/t3-serve/dispatch.json")),
    (FRESH[0], "toml", Data::Append("/etc/t3-dispatch.toml")),
    (FRESH[0], "logql", Data::Elsewhere("a query for Grafana; host_deploy parses all queries of the pages")),
    (
        "Limits for serve",
        "ini",
        Data::Elsewhere("for a unit of the operator; t3-serve@.service has the same limits"),
    ),
];

pub(super) fn data(block: &Block) -> Option<Data> {
    let is_its = |(section, language, _): &&(&str, &str, Data)| {
        block.section == *section && block.language == *language
    };
    DATA.iter().find(is_its).map(|(.., data)| *data)
}

/// Input of a command.
pub(super) fn answer(command: &str) -> &'static str {
    ANSWERS.iter().find(|(begin, _)| command.starts_with(begin)).map_or("", |(_, answer)| answer)
}

#[cfg(test)]
mod tests {
    use super::{ANSWERS, COMMANDS, DATA, ENDLESS, FRESH, MIGRATION, REMOVAL, UPGRADE, data};
    use crate::package_test::walk::{
        PAGE, Promise, fresh, migration,
        page::{Block, blocks, commands_in_text},
    };

    /// Programs that the text of the page calls.
    const PROGRAMS: [&str; 16] = [
        "apt",
        "apt-get",
        "cargo",
        "curl",
        "install",
        "journalctl",
        "kill",
        "sed",
        "sudo",
        "systemctl",
        "systemd-analyze",
        "t3-dispatch",
        "t3-probe",
        "t3-trace",
        "usermod",
        "visudo",
    ];
    /// Commands in the text of the page, outside of its blocks, and where they are executed or why
    /// a guest cannot execute them.
    const IN_TEXT: [(&str, &str); 18] = [
        (
            "apt install --allow-downgrades ./t3-dispatch_OLD.deb ./t3-trace_OLD.deb",
            "no older release exists",
        ),
        ("apt upgrade", "with a repository, which a guest without a network does not have"),
        ("cargo xtask package", "on the host, for the packages of the guests"),
        ("journalctl -u t3-dispatch", "a block has it with more options"),
        ("kill -9", "the kept sessions: SIGKILL"),
        ("systemctl edit t3-dispatch.socket", "opens an editor"),
        ("systemctl kill t3-dispatch", "host_restart"),
        ("systemctl reload t3-dispatch", "the life of an installation"),
        ("systemctl restart t3-dispatch", "the kept sessions"),
        ("systemctl restart t3-dispatch.socket", "the kept sessions"),
        ("systemctl stop", "the kept sessions"),
        ("systemctl stop t3-dispatch", "the kept sessions"),
        ("systemd-analyze security", "the scores of the units"),
        ("t3-dispatch check", "in a block"),
        ("t3-trace closes", "a block has it with more options"),
        ("t3-trace doctor", "in a block"),
        ("t3-trace explain", "needs Loki and Prometheus; host tests have both"),
        ("t3-trace live", "in a block"),
    ];

    fn page() -> Vec<Block> {
        blocks(PAGE).unwrap()
    }

    fn commands(section: &str) -> Vec<String> {
        let of_section = |block: &Block| block.section == section && block.language == COMMANDS;
        let blocks = page().into_iter().filter(of_section);
        blocks.flat_map(|block| block.commands()).map(|command| command.text).collect()
    }

    #[test]
    fn a_walk_reaches_every_command_of_the_page() {
        let walked = [FRESH.as_slice(), &[MIGRATION, UPGRADE, REMOVAL]].concat();
        for block in page().iter().filter(|block| block.language == COMMANDS) {
            assert!(walked.contains(&block.section.as_str()), "line {}: no walk of this section", block.line);
            assert!(!block.commands().is_empty(), "line {}: a block without commands", block.line);
        }
    }

    #[test]
    fn the_walk_on_a_fresh_host_has_the_order_of_the_page() {
        let mut sections: Vec<String> = page().into_iter().map(|block| block.section).collect();
        sections.dedup();
        sections.retain(|section| FRESH.contains(&section.as_str()));
        assert_eq!(sections, FRESH);
    }

    #[test]
    fn every_other_block_has_one_place_and_every_place_a_block() {
        let others: Vec<Block> = page().into_iter().filter(|block| block.language != COMMANDS).collect();
        for block in &others {
            assert!(data(block).is_some(), "line {}: {} in no file", block.line, block.language);
        }
        assert_eq!(others.len(), DATA.len());
    }

    #[test]
    fn every_promise_belongs_to_one_command() {
        let fresh = |section: &&'static str| (*section, fresh::promises(section));
        let mut all: Vec<(&str, &[Promise])> = FRESH.iter().map(fresh).collect();
        all.push((MIGRATION, &migration::PROMISES));
        for (section, promises) in all {
            let commands = commands(section);
            for Promise { command, .. } in promises {
                let count = commands.iter().filter(|text| text.starts_with(command)).count();
                assert_eq!(count, 1, "{section}: {command}");
            }
        }
    }

    #[test]
    fn endless_and_asking_commands_are_on_the_page() {
        let all: Vec<String> = page().iter().flat_map(|block| commands(&block.section)).collect();
        assert!(ENDLESS.iter().all(|command| all.iter().any(|text| text == command)));
        assert!(ANSWERS.iter().all(|(begin, _)| all.iter().any(|text| text.starts_with(begin))));
    }

    #[test]
    fn every_command_in_the_text_is_listed() {
        let listed: Vec<&str> = IN_TEXT.iter().map(|(command, _)| *command).collect();
        assert_eq!(commands_in_text(PAGE, &PROGRAMS), listed);
    }
}
