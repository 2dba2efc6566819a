//! Checks of a program's help, manual pages and completions, for the tests of the programs.

use std::{io::Write, process};

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
        let offered = in_bash(&program, &completions(definition.clone(), Shell::Bash), &[name, "--"]);
        match offered {
            Ok(offered) => {
                let args = command.get_arguments().filter(|arg| !arg.is_hide_set());
                for long in args.filter_map(Arg::get_long) {
                    if !offered.iter().any(|word| word.strip_prefix("--") == Some(long)) {
                        found.push(format!("bash does not complete --{long} after {program} {name}"));
                    }
                }
            }
            Err(error) => found.push(format!("cannot run bash: {error}")),
        }
    }
    found
}

/// Words that bash offers with a completion script for the last of the words after the program.
///
/// # Errors
/// bash cannot be started or rejects the script.
pub fn in_bash(program: &str, script: &str, words: &[&str]) -> std::io::Result<Vec<String>> {
    let all = std::iter::once(program).chain(words.iter().copied()).collect::<Vec<_>>();
    let quoted: Vec<String> = all.iter().map(|word| format!("'{word}'")).collect();
    let [.., before, last] = quoted.as_slice() else { return Ok(Vec::new()) };
    let line = quoted.join(" ");
    // As bash does: the function that `complete` names, with the program, the word and the one
    // before.
    let ask = format!(
        "COMP_WORDS=({line}); COMP_CWORD={}; COMPREPLY=()\n\
         function=$(complete -p '{program}' | sed 's/.* -F \\([^ ]*\\).*/\\1/')\n\
         \"$function\" '{program}' {last} {before}; printf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        words.len()
    );
    let mut bash = process::Command::new("bash")
        .args(["--norc", "--noprofile", "-s"])
        .stdin(process::Stdio::piped())
        .stdout(process::Stdio::piped())
        .spawn()?;
    if let Some(mut input) = bash.stdin.take() {
        input.write_all(format!("{script}\n{ask}").as_bytes())?;
    }
    let output = bash.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter(|word| !word.is_empty()).map(str::to_owned).collect())
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
