//! Reads a configuration file: TOML, a flat list of `option = value`. Finds every mistake of form,
//! not only the first.
//!
//! Knows TOML and the names of options; what a value may be is the option's own matter, which is
//! asked elsewhere. Each value becomes the text that would stand behind the option on the command
//! line.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction};
use toml::de::{DeTable, DeValue};

/// A place in the file, as an editor counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Location {
    /// Of a byte of the text.
    #[must_use]
    pub fn of(text: &str, byte: usize) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// One `option = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The option's name, as on the command line without the dashes in front.
    pub name: String,
    /// What would stand behind it there, each time.
    pub values: Vec<String>,
    /// Where its name stands.
    pub key_at: Location,
    /// Where its value stands.
    pub value_at: Location,
}

/// What is wrong at a place of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}, {at}: {what}")]
pub struct FileError {
    /// Which file.
    pub path: PathBuf,
    /// Where in it.
    pub at: Location,
    /// What, with the name of the option where there is one.
    pub what: String,
}

/// The file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read the configuration {path}: {source}")]
pub struct ReadError {
    /// Which file.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// Reads the file; `None` when it is not there.
///
/// # Errors
/// [`ReadError`] when it is there and cannot be read.
pub fn read(path: &Path) -> Result<Option<String>, ReadError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReadError { path: path.to_owned(), source }),
    }
}

/// The entries of a text in the order of their lines, and everything that is wrong with its form.
/// `known` are the options that may stand in it; `path` is for the mistakes.
#[must_use]
pub fn parse<'a>(
    text: &str,
    path: &Path,
    known: impl Iterator<Item = &'a Arg> + Clone,
) -> (Vec<Entry>, Vec<FileError>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let wrong = |at: Location, what: String| FileError { path: path.to_owned(), at, what };
    let mut mistakes: Vec<_> = errors
        .iter()
        .map(|error| {
            let at = error.span().map_or(0, |span| span.start);
            wrong(Location::of(text, at), error.message().to_owned())
        })
        .collect();
    let mut entries = BTreeMap::<String, Entry>::new();
    let mut in_order: Vec<_> = table.get_ref().iter().collect();
    in_order.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in in_order {
        let (key_at, value_at) =
            (Location::of(text, key.span().start), Location::of(text, value.span().start));
        if mistakes.iter().any(|mistake| mistake.at.line == key_at.line) {
            // What the parser made of a line that it did not understand.
            continue;
        }
        let name = key.get_ref().replace('_', "-");
        let Some(arg) = known.clone().find(|arg| arg.get_long() == Some(&name)) else {
            let names = known.clone().filter_map(Arg::get_long);
            mistakes.push(wrong(key_at, unknown(key.get_ref(), value.get_ref(), nearest(&name, names))));
            continue;
        };
        if let Some(before) = entries.get(&name) {
            mistakes.push(wrong(
                key_at,
                format!("`{name}` is there twice, first in line {}", before.key_at.line),
            ));
            continue;
        }
        match values(arg, value.get_ref()) {
            Ok(values) => {
                entries.insert(name.clone(), Entry { name, values, key_at, value_at });
            }
            Err(what) => mistakes.push(wrong(value_at, format!("`{name}` {what}"))),
        }
    }
    mistakes.sort_by_key(|mistake| mistake.at);
    let mut entries: Vec<_> = entries.into_values().collect();
    entries.sort_by_key(|entry| entry.key_at);
    (entries, mistakes)
}

fn unknown(key: &str, value: &DeValue<'_>, nearest: Option<&str>) -> String {
    if matches!(value, DeValue::Table(_)) {
        return format!("`{key}` is a section; this file has none, options stand in it as `name = value`");
    }
    match nearest {
        Some(nearest) => format!("unknown option `{key}`; did you mean `{nearest}`?"),
        None => format!("unknown option `{key}`"),
    }
}

/// The known name that `name` is most likely meant to be, if one is near enough.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const NEAR_ENOUGH: f64 = 0.8;
    known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness >= NEAR_ENOUGH)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// The texts that the value stands for. The error goes on after the option's name.
fn values(arg: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let repeatable = matches!(arg.get_action(), ArgAction::Append) || arg.get_value_delimiter().is_some();
    match value {
        DeValue::Array(items) if repeatable => items.iter().map(|item| scalar(item.get_ref())).collect(),
        DeValue::Array(_) => Err("takes one value, not a list".to_owned()),
        value => {
            let text = scalar(value)?;
            Ok(match arg.get_value_delimiter() {
                Some(delimiter) => text.split(delimiter).map(str::to_owned).collect(),
                None => vec![text],
            })
        }
    }
}

fn scalar(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| format!("has a number out of range: {number}")),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Datetime(_) => Err("takes no date; a time like \"10s\" stands in quotes".to_owned()),
        DeValue::Array(_) => Err("takes no list in a list".to_owned()),
        DeValue::Table(_) => Err("takes a value, not a section".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known() -> Vec<Arg> {
        let arg = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Set);
        vec![
            arg("listen"),
            arg("close-timeout"),
            arg("trusted-proxy").action(ArgAction::Append).value_delimiter(','),
            arg("header").action(ArgAction::Append),
            arg("no-install-tags").action(ArgAction::SetTrue),
        ]
    }

    fn parsed(text: &str) -> (Vec<(String, Vec<String>)>, Vec<String>) {
        let known = known();
        let (entries, mistakes) = parse(text, Path::new("d.toml"), known.iter());
        (
            entries.into_iter().map(|entry| (entry.name, entry.values)).collect(),
            mistakes.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn every_kind_of_value_becomes_its_text() {
        for (text, name, values) in [
            ("close-timeout = \"10s\"", "close-timeout", &["10s"][..]),
            ("close_timeout = '10s' # why", "close-timeout", &["10s"]),
            ("\"close-timeout\" = 0x_f", "close-timeout", &[]),
            ("close-timeout = 1_000", "close-timeout", &["1000"]),
            ("close-timeout = -0xf", "close-timeout", &[]),
            ("close-timeout = 0xff", "close-timeout", &["255"]),
            ("close-timeout = 0.25", "close-timeout", &["0.25"]),
            ("no-install-tags = true", "no-install-tags", &["true"]),
            ("trusted-proxy = \"10.0.0.0/8,::1\"", "trusted-proxy", &["10.0.0.0/8", "::1"]),
            ("trusted-proxy = [\n \"10.0.0.0/8\", \"::1\",\n]", "trusted-proxy", &["10.0.0.0/8", "::1"]),
            ("header = \"a,b\"", "header", &["a,b"]),
            ("header = [\"a\", 2, true]", "header", &["a", "2", "true"]),
        ] {
            let (entries, mistakes) = parsed(text);
            if values.is_empty() {
                assert!(!mistakes.is_empty(), "{text}");
            } else {
                let values = values.iter().map(ToString::to_string).collect();
                assert_eq!((entries, mistakes), (vec![(name.to_owned(), values)], vec![]), "{text}");
            }
        }
        let (entries, mistakes) = parsed("trusted-proxy = []");
        assert_eq!((entries, mistakes), (vec![("trusted-proxy".to_owned(), vec![])], vec![]));
    }

    #[test]
    fn every_mistake_names_file_line_column_and_key() {
        for (text, expected) in [
            ("\n  lisen = 1", "d.toml, line 2, column 3: unknown option `lisen`; did you mean `listen`?"),
            (
                "close-timout = 1",
                "d.toml, line 1, column 1: unknown option `close-timout`; did you mean `close-timeout`?",
            ),
            ("colour = 1", "d.toml, line 1, column 1: unknown option `colour`"),
            ("listen = [1]", "d.toml, line 1, column 10: `listen` takes one value, not a list"),
            ("é = 1\nlisten = 2001-01-01", "line 2, column 10: `listen` takes no date"),
            ("header = [[1]]", "`header` takes no list in a list"),
            ("[limits]\nlisten = 1", "d.toml, line 1, column 2: `limits` is a section; this file has none"),
            ("listen.port = 1", "`listen` takes a value, not a section"),
            (
                "close-timeout = 1\nclose_timeout = 2",
                "line 2, column 1: `close-timeout` is there twice, first in line 1",
            ),
            ("listen = 1\nlisten = 2", "line 2, column 1: duplicate key"),
            ("listen = ", "line 1, column"),
        ] {
            let (_, mistakes) = parsed(text);
            assert!(mistakes.iter().any(|mistake| mistake.contains(expected)), "{text}: {mistakes:?}");
        }
    }

    #[test]
    fn all_mistakes_are_found_in_the_order_of_their_lines() {
        let (entries, mistakes) = parsed("b = 1\nlisten = \"x\"\nclose-timeout = [1]\n= 3\nz = 1\n");
        assert_eq!(entries.len(), 1);
        let lines: Vec<_> = mistakes.iter().map(|mistake| mistake.split(',').nth(1).unwrap()).collect();
        assert_eq!(lines, [" line 1", " line 3", " line 4", " line 5"]);
    }

    proptest! {
        #[test]
        fn any_text_comes_through_as_it_is(text in any::<String>()) {
            let mut quoted = String::new();
            for c in text.chars() {
                quoted.push_str(&format!("\\U{:08x}", u32::from(c)));
            }
            let (entries, mistakes) = parsed(&format!("header = [\"{quoted}\"]"));
            prop_assert_eq!(mistakes, Vec::<String>::new());
            prop_assert_eq!(entries, vec![("header".to_owned(), vec![text])]);
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            parsed(&text);
        }
    }
}
