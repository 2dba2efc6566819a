//! Tests of manual pages and completions with a sample program.

use std::process::Command as Process;

use clap::ArgAction;

use super::*;

fn program() -> Command {
    let run = Command::new("run")
        .about("Run it.")
        .arg(Arg::new("table").long("table").env("PATH").default_value("/etc/p.toml").help("Where things\n'are'."))
        .arg(Arg::new("no-x").long("no-x").action(ArgAction::SetTrue).help("No x.").help_heading("Other things"))
        .arg(Arg::new("way").long("way").value_parser(["fast", "slow"]).help("Which way: c:\\x."))
        .after_help("Examples:\n  p run --way fast # quickly\n  .dot p run\n  p run | head\n\nExit status:\n  0  well\n\nIt is\nso.");
    with(Command::new("p").version("1.2").about("It does.").subcommand_required(true).subcommand(run))
}

fn page(file: &str) -> String {
    man(program()).into_iter().find(|page| page.file == file).map(|page| page.roff).unwrap()
}

#[test]
fn the_program_and_each_visible_subcommand_has_its_page() {
    let files: Vec<_> = man(program()).into_iter().map(|page| page.file).collect();
    assert_eq!(files, ["p.8", "p-run.8", "p-completions.8"]);
    let mut built = program();
    built.build();
    assert_eq!(man(built).len(), 3, "clap's own help has no page");
}

#[test]
fn a_page_has_the_sections_of_the_help_files_and_cross_references() {
    let text = page("p-run.8");
    assert!(
        text.contains(".TH p\\-run 8 \"\" \"p 1.2\"") || text.contains(".TH p-run 8 \"\" \"p 1.2\""),
        "{text}"
    );
    for part in [
        ".SH \"OTHER THINGS\"\n",
        ".SH EXAMPLES\n.PP\n.RS 4\n.nf\np run \\-\\-way fast # quickly\n\\&.dot p run\np run | head\n.fi\n.RE\n",
        ".SH \"EXIT STATUS\"\n.PP\n.RS 4\n.nf\n0  well\n.fi\n.RE\n",
        ".SH NOTES\nIt is\nso.\n",
        ".SH FILES\n.TP\n\\fB/etc/p.toml\\fR\n",
        ".SH \"SEE ALSO\"\n\\fBp\\fR(8), \\fBp\\-completions\\fR(8)\n",
        "[default: /etc/p.toml]",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_variable_is_shown_by_name_never_by_value() {
    let value = std::env::var("PATH").unwrap();
    let all: String = man(program()).into_iter().map(|page| page.roff).collect();
    assert!(all.contains("PATH") && !all.contains(&value) && !all.contains(&value.replace('-', "\\-")));
    for shell in SHELLS {
        assert!(!completions(program(), shell).contains(&value), "{shell}");
    }
}

#[test]
fn the_audit_reports_errors_of_a_definition() {
    let problems = audit::problems(&program());
    assert_eq!(problems, Vec::<String>::new());
    let bad =
        Command::new("bad").about("Bad.").arg(Arg::new("y").long("yy")).after_help("Example: p bad --zz\n");
    let problems = audit::problems(&program().subcommand(bad)).join("\n");
    for part in ["no EXIT STATUS", "--zz", "--yy in p-bad.8 has no help"] {
        assert!(problems.contains(part), "{problems}");
    }
    let problems = audit::problems(&program().after_help("Examples:\n  p nonsense\n  q run"));
    assert!(problems.len() == 2 && problems[0].contains("p nonsense") && problems[1].contains("q run"));
}

#[test]
fn bash_completes_with_the_script() {
    for name in ["p", "p-q", "p-q-r"] {
        let script = completions(program().name(name), Shell::Bash);
        let ask = |words: &[&str]| audit::in_bash(name, &script, words).unwrap();
        assert_eq!(ask(&["ru"]), ["run"], "{name}");
        assert_eq!(ask(&["run", "--t"]), ["--table"], "{name}");
        assert_eq!(ask(&["run", "--way", "s"]), ["slow"], "{name}");
    }
}

#[test]
fn only_the_added_subcommands_are_run() {
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    assert!(run(program(), words(&["p", "run"])).is_none());
    assert!(run(program(), words(&["p"])).is_none());
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().to_str().unwrap();
    assert_eq!(run(program(), words(&["p", "man", "--to", to])), Some(ExitCode::SUCCESS));
    assert_eq!(fs::read_to_string(folder.path().join("p-run.8")).unwrap(), page("p-run.8"));
    let nowhere = format!("{to}/no/such");
    assert_eq!(run(program(), words(&["p", "man", "--to", &nowhere])), Some(ExitCode::FAILURE));
}

/// Skipped with a message where groff is not installed.
#[test]
fn groff_reports_no_warning() {
    for page in man(program()) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(&page.file);
        fs::write(&file, &page.roff).unwrap();
        match Process::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(&file).output() {
            Ok(out) => assert!(out.status.success() && out.stderr.is_empty(), "{}: {out:?}", page.file),
            Err(error) => eprintln!("skipped: no groff ({error})"),
        }
    }
}
