//! Commands in the documentation use existing options of the programs.

use clap::{Command, CommandFactory};
use t3_record::{CloseRecord, OpenRecord, TcpCloseRecord, journal};

use crate::{known, queries};

fn accepts(program: &Command, words: &[String]) -> Result<(), clap::Error> {
    program.clone().try_get_matches_from(words).map(drop)
}

fn programs() -> [(&'static str, Command); 4] {
    [
        ("t3-trace", t3_trace::cli::Cli::command()),
        ("t3-dispatch", t3_dispatch::cli::Cli::command()),
        ("t3-probe", t3_probe::cli::Cli::command()),
        ("t3-otlp", t3_otlp::cli::Cli::command()),
    ]
}

#[test]
fn every_documented_command_is_accepted_by_its_program() {
    for (name, program) in programs() {
        let commands = queries::commands(name);
        assert!(!commands.is_empty(), "no page has a command of {name}");
        for (place, words) in commands {
            accepts(&program, &words).unwrap_or_else(|error| panic!("{place}\n{error}"));
        }
    }
}

#[test]
fn an_invalid_command_is_found() {
    let [(_, trace), ..] = programs();
    let words = |line: &str| shlex::split(line).unwrap();
    assert!(accepts(&trace, &words("t3-trace closes --since '2 hours ago'")).is_ok());
    assert!(accepts(&trace, &words("t3-trace closes --sins yesterday")).is_err());
    assert!(accepts(&trace, &words("t3-trace close")).is_err());
}

#[test]
fn every_documented_journalctl_uses_fields_and_values_of_records() {
    let commands = queries::commands("journalctl");
    assert!(commands.len() > 5, "{}", commands.len());
    let fields: Vec<(String, &str)> = CloseRecord::KEYS
        .iter()
        .chain(OpenRecord::KEYS)
        .chain(TcpCloseRecord::KEYS)
        .map(|key| (journal::field(key.name), key.name))
        .collect();
    let ids =
        [journal::CLOSE_ID, journal::OPEN_ID, journal::BURST_ID, journal::ATTEMPTS_ID, journal::TCP_CLOSE_ID];
    for (place, words) in commands {
        for (field, value) in words.iter().filter_map(|word| word.split_once('=')) {
            if field == "MESSAGE_ID" {
                assert!(ids.contains(&value), "{place}");
            } else if field.starts_with(journal::PREFIX) {
                let (_, key) = fields
                    .iter()
                    .find(|(name, _)| name == field)
                    .unwrap_or_else(|| panic!("{place}: no record has {field}"));
                let words = known::words(key);
                assert!(words.is_empty() || words.contains(&value), "{place}: {field} is never {value}");
            }
        }
    }
}
