//! Tests of the sources and their precedence, with two sample programs.

use std::{
    ffi::OsString,
    io::Write,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    process,
};

use clap::{Args, Parser, Subcommand};

use super::*;

#[derive(Debug, Parser)]
#[command(name = "p")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Run),
    Show(Show),
}

#[derive(Debug, Args)]
struct Run {
    #[arg(long, env = "P_CONFIG", default_value = "/nonexistent/p.toml")]
    config: PathBuf,
    #[arg(long, env = "PATH")]
    path: Option<String>,
    #[arg(long, env = "P_COUNT", default_value = "1")]
    count: u8,
    #[arg(long, env = "P_TOKEN", conflicts_with = "user")]
    token: Option<String>,
    #[arg(long, env = "P_USER", requires = "password")]
    user: Option<String>,
    #[arg(long, env = "P_PASSWORD", requires = "user", conflicts_with = "token")]
    password: Option<String>,
    #[arg(long, env = "P_LIST", value_delimiter = ',', default_value = "a")]
    list: Vec<String>,
    #[arg(long, env = "P_WAY", value_parser = ["fast", "slow"])]
    way: Option<String>,
    #[arg(long, env = "P_FLAG")]
    flag: bool,
    /// Of one run.
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Args)]
struct Show {
    #[arg(long, env = "P_OTHER")]
    other: Option<u8>,
}

/// A program without subcommands, with the same file.
#[derive(Debug, Parser)]
#[command(name = "q")]
struct Alone {
    #[arg(long, env = "P_CONFIG", default_value = "/nonexistent/p.toml")]
    config: PathBuf,
    #[arg(long, env = "P_OTHER")]
    other: Option<u8>,
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn words(command: &[&str], config: &Path, more: &[&str]) -> Vec<OsString> {
    let mut words: Vec<OsString> = command.iter().map(Into::into).collect();
    words.extend(["--config".into(), config.as_os_str().to_owned()]);
    words.extend(more.iter().map(Into::into));
    words
}

/// The options of `run`, or the errors without the path of the file.
fn run(text: &str, more: &[&str]) -> Result<Run, String> {
    let file = file(text);
    let loaded = read::<Cli, _>(words(&["p", "run"], file.path(), more), &[]);
    let loaded = loaded.map_err(|error| error.to_string())?;
    match loaded.options {
        Ok(Cli { command: Command::Run(run) }) => Ok(run),
        Ok(other) => panic!("{other:?}"),
        Err(errors) => {
            let path = file.path().display().to_string();
            let errors = errors.iter().map(|error| error.to_string().replace(&path, "FILE"));
            Err(errors.collect::<Vec<_>>().join("\n"))
        }
    }
}

#[test]
fn the_command_line_overrides_the_environment_which_overrides_the_file() {
    let text = "path = \"file\"\ncount = 7\nflag = true\nlist = [\"b\", \"c\"]\nother = 3\n";
    let of_file = run(text, &[]).unwrap();
    assert_eq!(of_file.path, std::env::var("PATH").ok(), "the environment");
    assert_eq!((of_file.count, of_file.flag, of_file.once), (7, true, false));
    assert_eq!(of_file.list, ["b", "c"]);
    let given = run(text, &["--path", "x", "--count=8", "--flag=false", "--list=d", "--once"]).unwrap();
    assert_eq!((given.path.as_deref(), given.count, given.flag, given.once), (Some("x"), 8, false, true));
    assert_eq!(given.list, ["d"]);
    let defaults = run("", &[]).unwrap();
    assert_eq!(defaults.way, None);
    assert_eq!((defaults.count, defaults.flag, defaults.list), (1, false, vec!["a".to_owned()]));
    assert_eq!(run("list = []", &[]).unwrap().list, Vec::<String>::new());
    assert_eq!(run("list = \"b,c\"", &[]).unwrap().list, ["b", "c"]);
}

#[test]
fn an_error_of_the_file_names_the_line_and_the_option() {
    for (text, expected) in [
        ("\ncuont = 1", "FILE, line 2, column 1: unknown option `cuont`; did you mean `count`?"),
        ("count = 300", "FILE, line 1, column 9: `count` cannot be \"300\": "),
        ("count = [1]", "FILE, line 1, column 9: `count` expects one value, not a list"),
        ("count = 1979-05-27", "FILE, line 1, column 9: `count` does not accept a date"),
        ("way = \"x\"", "FILE, line 1, column 7: `way` cannot be \"x\": expected one of: fast, slow"),
        ("flag = \"yes\"", "FILE, line 1, column 8: `flag` cannot be \"yes\": "),
        ("once = true", "FILE, line 1, column 1: `once` can only be set on the command line; remove it"),
        ("config = \"x\"", "FILE, line 1, column 1: unknown option `config`"),
        ("oter = 3", "did you mean `other`?"),
    ] {
        let error = run(text, &[]).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
    // The value of another subcommand is that subcommand's.
    assert!(run("other = 300", &[]).is_ok());
}

#[test]
fn options_of_the_file_are_checked_together() {
    for (text, expected) in [
        ("user = \"ann\"", "FILE: the following required arguments were not provided: --password <PASSWORD>"),
        (
            "password = \"x\"\nuser = \"ann\"\ntoken = \"t\"",
            "FILE: the argument '--password <PASSWORD>' cannot be used with '--token <TOKEN>'",
        ),
    ] {
        let error = run(text, &[]).unwrap_err();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
    let both = run("user = \"ann\"\npassword = \"x\"", &[]).unwrap();
    assert_eq!((both.user.as_deref(), both.password.as_deref()), (Some("ann"), Some("x")));
    // One of the command line, the other of the file.
    let mixed = run("password = \"x\"", &["--user", "bob"]).unwrap();
    assert_eq!((mixed.user.as_deref(), mixed.password.as_deref()), (Some("bob"), Some("x")));
}

#[test]
fn an_option_of_the_command_line_replaces_those_of_the_file_that_it_excludes() {
    let token = run("user = \"ann\"\npassword = \"x\"", &["--token", "t"]).unwrap();
    assert_eq!((token.token.as_deref(), token.user, token.password), (Some("t"), None, None));
    let user = run("token = \"t\"", &["--user", "ann", "--password", "x"]).unwrap();
    assert_eq!((user.token, user.user.as_deref()), (None, Some("ann")));
    // An error of the command line is reported with its usage.
    let error = run("count = 2", &["--token", "t", "--user", "ann"]).unwrap_err();
    assert!(error.contains("Usage: p run"), "{error}");
}

#[test]
fn a_program_without_subcommands_skips_the_options_of_others() {
    let file = file("other = 3\ncount = [\"anything\"]\n");
    let read = |foreign: &[&str]| {
        let rules = Rules { foreign, ..Rules::default() };
        let sources = Sources::read::<Alone, _>(words(&["q"], file.path(), &[]), rules).unwrap();
        let loaded = sources.parse::<Alone>().unwrap();
        assert_eq!(loaded.subcommand, "");
        loaded.options.map(|alone| alone.other).map_err(|errors| errors[0].to_string())
    };
    assert_eq!(read(&["count"]), Ok(Some(3)));
    let error = read(&[]).unwrap_err();
    assert!(
        error.ends_with("line 2, column 1: unknown option `count`; remove it or correct its name"),
        "{error}"
    );
    assert_eq!(file_options(&definition::<Alone>()), ["other"]);
    let of_all = ["path", "count", "token", "user", "password", "list", "way", "flag", "other"];
    assert_eq!(file_options(&definition::<Cli>()), of_all);
}

#[test]
fn the_help_has_the_possible_values() {
    let error = read::<Cli, _>(["p", "run", "--help"].map(OsString::from), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DisplayHelp);
    assert!(error.to_string().contains("[possible values: fast, slow]"), "{error}");
}

#[test]
fn only_flags_of_the_file_have_a_value() {
    let definition = definition::<Cli>();
    let run = definition.find_subcommand("run").unwrap();
    let takes_value =
        |id| run.get_arguments().find(|arg| arg.get_id() == id).unwrap().get_action().takes_values();
    assert!(takes_value("flag") && !takes_value("once"));
}

/// A program whose default file is in the environment of the test.
#[derive(Debug)]
struct Denied;

const CHILD: &str = "T3_CONFIG_TEST_FILE";

impl CommandFactory for Denied {
    fn command() -> clap::Command {
        let path = std::env::var(CHILD).unwrap_or_default();
        let config = Arg::new("config").long("config").env("P_CONFIG").default_value(path);
        let command = |name: &'static str| clap::Command::new(name).arg(config.clone());
        clap::Command::new("p").subcommand(command("read")).subcommand(command("serve"))
    }

    fn command_for_update() -> clap::Command {
        Self::command()
    }
}

impl FromArgMatches for Denied {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self)
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        Ok(())
    }
}

/// Root may read everything, so the test starts itself as another user.
#[test]
fn a_default_file_without_permission_is_an_error_unless_the_subcommand_continues() {
    let is_child = std::env::var_os(CHILD).is_some();
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !is_child {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let path = dir.path().join("p.toml");
        std::fs::write(&path, "nonsense\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
        let name = "tests::a_default_file_without_permission_is_an_error_unless_the_subcommand_continues";
        let mut child = process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name]).env(CHILD, &path);
        if is_root {
            child.uid(65534).gid(65534);
        }
        match child.output() {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) => eprintln!("skipped: another user cannot start the test program ({error})"),
        }
        return;
    }
    let rules = Rules { without_file: &["read"], ..Rules::default() };
    let path = std::env::var(CHILD).unwrap();
    let read = |words: &[&str]| Sources::read::<Denied, _>(words.iter().map(OsString::from), rules).unwrap();
    let sources = read(&["p", "read"]);
    let ignored = sources.ignored().expect("the error is kept").to_string();
    assert_eq!(
        ignored,
        format!("cannot read configuration {path}: Permission denied (os error 13); see --config")
    );
    assert!(sources.parse::<Denied>().unwrap().options.is_ok());
    for words in [&["p", "serve"][..], &["p", "read", "--config", &path]] {
        let sources = read(words);
        assert!(sources.ignored().is_none(), "{words:?}");
        let errors = sources.parse::<Denied>().unwrap().options.unwrap_err();
        assert_eq!(errors.len(), 1, "{words:?}");
        assert!(errors[0].to_string().contains("Permission denied"), "{}", errors[0]);
    }
}
