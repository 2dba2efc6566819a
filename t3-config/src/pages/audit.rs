//! Checks of a program's help, manual pages and completions, for the tests of the programs.

use clap::{Arg, Command};
use clap_complete::Shell;

use super::{SECTION, completions, man, sections};

/// Returns the errors of a definition that includes the subcommands of [`super::with`].
#[must_use]
pub fn problems(definition: &Command) -> Vec<String> {
    let mut built = definition.clone();
    built.build();
    let program = built.get_name().to_owned();
    let mut found = Vec::new();
    let pages = man(definition.clone());
    let scripts =
        [Shell::Bash, Shell::Zsh, Shell::Fish].map(|shell| (shell, completions(definition.clone(), shell)));
    for example in sections::examples(&after(&built)) {
        check_example(definition, None, &example, &mut found);
    }
    for command in built.get_subcommands().filter(|command| super::is_visible(command)) {
        let name = command.get_name();
        help(definition, command, &mut found);
        let file = format!("{program}-{name}.{SECTION}");
        let page = pages.iter().find(|page| page.file == file).map_or("", |page| page.roff.as_str());
        for title in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "\"EXIT STATUS\"", "\"SEE ALSO\""] {
            if !page.contains(&format!(".SH {title}\n")) {
                found.push(format!("{file} has no section {title}"));
            }
        }
        for (shell, script) in &scripts {
            if !script.contains(name) {
                found.push(format!("the completions for {shell} lack {name}"));
            }
        }
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            option(arg, page, &file, &scripts, &mut found);
        }
    }
    found
}

fn after(command: &Command) -> String {
    let text = command.get_after_long_help().or(command.get_after_help());
    text.map(ToString::to_string).unwrap_or_default()
}

fn help(definition: &Command, command: &Command, found: &mut Vec<String>) {
    let name = command.get_name();
    let after = after(command);
    let titles: Vec<_> = sections::parse(&after).into_iter().map(|section| section.title).collect();
    for title in ["EXAMPLES", "EXIT STATUS"] {
        if !titles.iter().any(|found| found == title) {
            found.push(format!("the help of {name} has no {title}"));
        }
    }
    for example in sections::examples(&after) {
        check_example(definition, Some(name), &example, found);
    }
}

fn check_example(definition: &Command, subcommand: Option<&str>, example: &str, found: &mut Vec<String>) {
    if let Err(why) = parses(definition, subcommand, example) {
        let whose = subcommand.unwrap_or_else(|| definition.get_name());
        found.push(format!("the help of {whose} shows {example:?}, which is invalid: {why}"));
    }
}

/// Checks that the program accepts an example, up to the first operator of the shell, and that it
/// runs this subcommand.
fn parses(definition: &Command, subcommand: Option<&str>, example: &str) -> Result<(), String> {
    let words = shlex::split(example).ok_or("unbalanced quotes")?;
    let program = definition.get_name();
    let begin =
        words.iter().position(|word| word == program).ok_or_else(|| format!("it does not run {program}"))?;
    let shell = |word: &&String| !["|", ">", ">>", "&&", ";", "&"].contains(&word.as_str());
    let words: Vec<_> = words.iter().skip(begin).take_while(shell).collect();
    let matches = definition.clone().try_get_matches_from(words).map_err(|error| error.to_string())?;
    match matches.subcommand_name() {
        Some(found) if subcommand.is_none_or(|wanted| wanted == found) => Ok(()),
        other => Err(format!("it runs {other:?}")),
    }
}

fn option(arg: &Arg, page: &str, file: &str, scripts: &[(Shell, String)], found: &mut Vec<String>) {
    let Some(long) = arg.get_long() else { return };
    if !page.contains(&format!("\\-\\-{}", long.replace('-', "\\-"))) {
        found.push(format!("{file} does not name --{long}"));
    }
    if let Some(variable) = arg.get_env().and_then(|name| name.to_str())
        && !page.contains(variable)
    {
        found.push(format!("{file} does not name {variable}"));
    }
    if arg.get_help().is_none() {
        found.push(format!("--{long} in {file} has no help"));
    }
    for (shell, script) in scripts {
        let written = if *shell == Shell::Fish { format!("-l {long}") } else { format!("--{long}") };
        if !script.contains(&written) {
            found.push(format!("the completions for {shell} lack --{long}"));
        }
    }
}
