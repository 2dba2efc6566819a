//! The routing table `dispatch.json`: `{"LOGIN": {"os_user": "USER", "port": PORT}, ...}`. Reads
//! and checks it; keeping the last good one is the caller's.
//!
//! Strict about what would send a request astray, tolerant of keys of an entry that other programs
//! have put there. Several logins may go to one user; one port cannot belong to two users, because
//! only one serve listens on it and the other user would be given its shell.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use t3_config::file::Location;

/// Where one login goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct Route {
    /// The OS user whose serve it is.
    pub os_user: String,
    /// Its port on 127.0.0.1, 1 to 65535.
    pub port: u16,
}

/// Login to route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    routes: BTreeMap<String, Route>,
}

/// The table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file cannot be read.
    #[error("cannot read routing table {path}: {source}; see --table")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its content is not a table.
    #[error("routing table {path}, line {line}, column {column}: {what}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong, and with which key.
        what: String,
    },
}

impl Table {
    /// Reads a file.
    ///
    /// # Errors
    /// [`TableError`] names file, line, column and key.
    pub fn load(path: &Path) -> Result<Self, TableError> {
        Self::parse(&Self::read(path)?, path)
    }

    /// The text of a file.
    ///
    /// # Errors
    /// [`TableError::Read`].
    pub fn read(path: &Path) -> Result<String, TableError> {
        std::fs::read_to_string(path).map_err(|source| TableError::Read { path: path.to_owned(), source })
    }

    /// Reads a text; `path` is for the error.
    ///
    /// # Errors
    /// [`TableError::Content`] names line, column and key: of the first mistake.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TableError> {
        let (table, mistakes) = examine(text, path);
        mistakes.into_iter().next().map_or(Ok(table), Err)
    }

    /// Reads a file: the routes that make sense, and all mistakes.
    ///
    /// # Errors
    /// [`TableError::Read`].
    pub fn examine(path: &Path) -> Result<(Self, Vec<TableError>), TableError> {
        Ok(examine(&Self::read(path)?, path))
    }

    /// All logins with their routes, by login.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &Route)> {
        self.routes.iter().map(|(login, route)| (login.as_str(), route))
    }

    /// How it differs from the one before, for people.
    #[must_use]
    pub fn changes(&self, before: &Self) -> String {
        let count = |number: usize, what: &str| (number > 0).then(|| format!("{number} {what}"));
        let new = self.routes.keys().filter(|login| !before.routes.contains_key(*login)).count();
        let gone = before.routes.keys().filter(|login| !self.routes.contains_key(*login)).count();
        let other =
            |(login, route): &(&String, &Route)| before.routes.get(*login).is_some_and(|old| old != *route);
        let changed = self.routes.iter().filter(other).count();
        let parts = [count(new, "new"), count(changed, "changed"), count(gone, "gone")];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "nothing changed".to_owned() } else { parts.join(", ") }
    }

    /// The route of a login.
    #[must_use]
    pub fn route(&self, login: &str) -> Option<&Route> {
        self.routes.get(login)
    }

    /// Somebody is routed there.
    #[must_use]
    pub fn has(&self, route: &Route) -> bool {
        self.routes.values().any(|known| known == route)
    }

    /// All ports that serves listen on, each once.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        self.routes.values().map(|route| route.port).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// How many logins it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

fn examine(text: &str, path: &Path) -> (Table, Vec<TableError>) {
    let mistake = |line, column, what| TableError::Content { path: path.to_owned(), line, column, what };
    let entries = match serde_json::from_str::<Entries<'_>>(text) {
        Ok(Entries(entries)) => entries,
        Err(error) => {
            let (line, column, what) = (error.line(), error.column(), message(&error));
            return (Table::default(), vec![mistake(line, column, what)]);
        }
    };
    let mut table = Table::default();
    let mut owners = BTreeMap::<u16, (String, String)>::new();
    let mut mistakes = Vec::new();
    for (login, raw) in entries {
        // The entry is a slice of the text.
        let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
        let route = match serde_json::from_str::<Route>(raw.get()) {
            Ok(route) => route,
            Err(error) => {
                let first = Location::of(text, start);
                let line = first.line + error.line() - 1;
                let column =
                    if error.line() == 1 { first.column - 1 + error.column() } else { error.column() };
                mistakes.push(mistake(line, column, format!("key {login:?}: {}", message(&error))));
                continue;
            }
        };
        let wrong = check(&login, &route).err().or_else(|| {
            let taken = owners.get(&route.port).filter(|(_, os_user)| *os_user != route.os_user);
            taken.map(|(other, os_user)| {
                format!("key {login:?}: port {} is {os_user}'s already, by key {other:?}", route.port)
            })
        });
        let twice = || table.routes.contains_key(&login).then(|| format!("key {login:?} is there twice"));
        if let Some(what) = wrong.or_else(twice) {
            let Location { line, column } = Location::of(text, start);
            mistakes.push(mistake(line, column, what));
            continue;
        }
        owners.entry(route.port).or_insert_with(|| (login.clone(), route.os_user.clone()));
        table.routes.insert(login, route);
    }
    (table, mistakes)
}

/// serde_json's message without the place it puts at its end.
fn message(error: &serde_json::Error) -> String {
    let what = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    what.strip_suffix(&place).unwrap_or(&what).to_owned()
}

/// The entries as they stand, so that each can be read by itself and one wrong one hides no other.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"an object {"LOGIN": {"os_user": "USER", "port": PORT}, ...}"#)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(Each).map(Entries)
    }
}

fn check(login: &str, route: &Route) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("key {login:?}: {what}"));
    if login.is_empty() {
        return wrong("a login must not be empty");
    }
    if login.trim() != login || login.contains(char::is_control) {
        // Header values are trimmed and carry no control characters (RFC 9110 section 5.5).
        return wrong("no request can carry this login: spaces around it or control characters in it");
    }
    if route.os_user.is_empty() {
        return wrong("os_user must not be empty");
    }
    // It becomes a word on a command line and in every record.
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | ',');
    if route.os_user.starts_with('-') || route.os_user.contains(odd) {
        return wrong(&format!("os_user {:?} cannot be the name of a user (useradd(8))", route.os_user));
    }
    if route.port == 0 {
        return wrong("port must be 1 to 65535");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Table, String> {
        Table::parse(text, Path::new("/etc/t3-serve/dispatch.json")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_routes_by_login() {
        let table = parse(
            r#"{"vbarzin": {"os_user": "wizard", "port": 3773, "note": 1}, "ann": {"os_user": "ann", "port": 3774}}"#,
        )
        .unwrap();
        assert_eq!(table.route("vbarzin"), Some(&Route { os_user: "wizard".to_owned(), port: 3773 }));
        assert_eq!(table.route("wizard"), None);
        assert_eq!(table.ports(), [3773, 3774]);
        assert!(parse("{}").unwrap().is_empty());
    }

    #[test]
    fn errors_name_file_line_column_and_key() {
        for (text, place, what) in [
            (
                "{\n  \"ann\": {\"os_user\": \"ann\"}\n}",
                "line 2, column 27",
                "key \"ann\": missing field `port`",
            ),
            (
                "{\"ann\":\n {\"os_user\": \"ann\", \"port\": 70000}}",
                "line 2, column 33",
                "key \"ann\": invalid value",
            ),
            ("{\"ann\": {\"os_user\": \"ann\", \"port\": 0}}", "line 1", "port must be 1 to 65535"),
            ("{\"ann\": {\"os_user\": \"\", \"port\": 1}}", "line 1", "os_user must not be empty"),
            (
                "{\"a\": {\"os_user\": \"a\", \"port\": 1},\n\"a\": {\"os_user\": \"b\", \"port\": 2}}",
                "line 2",
                "twice",
            ),
            ("[]", "line 1", "an object {"),
            ("{\"ann\": {\"os_user\": \"ann\", \"port\": 1},}", "line 1, column 39", "trailing comma"),
            (
                "{\"ann\": {\"os_user\": \"ann\", \"port\": 1, \"port\": 2}}",
                "line 1",
                "duplicate field `port`",
            ),
            (
                "{\"a\": {\"os_user\": \"a\", \"port\": 1},\n\"b\": {\"os_user\": \"b\", \"port\": 1}}",
                "line 2, column 6",
                "key \"b\": port 1 is a's already, by key \"a\"",
            ),
            (
                "{\"ann\": {\"os_user\": \"-u root\", \"port\": 1}}",
                "line 1, column 9",
                "cannot be the name of a user",
            ),
            (
                "{\"ann\": {\"os_user\": \"../ann\", \"port\": 1}}",
                "line 1, column 9",
                "cannot be the name of a user",
            ),
            ("{\" ann\": {\"os_user\": \"ann\", \"port\": 1}}", "line 1, column 10", "no request can carry"),
            ("{\"ann\": 3}", "line 1, column 9", "key \"ann\": invalid type"),
            ("", "line 1, column 0", "EOF"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("routing table /etc/t3-serve/dispatch.json, "), "{error}");
            assert!(error.contains(place) && error.contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn every_mistake_is_found_and_the_rest_is_read() {
        let text = "{\n \"a\": {\"os_user\": \"a\", \"port\": 0},\n \"b\": {\"os_user\": \"b\", \"port\": 2},\n \"c\": {\n  \"port\": 1\n },\n \"d\": []\n}";
        let (table, mistakes) = examine(text, Path::new("t"));
        assert_eq!(table.routes().map(|(login, _)| login).collect::<Vec<_>>(), ["b"]);
        let lines: Vec<_> = mistakes
            .iter()
            .map(|mistake| match mistake {
                TableError::Content { line, .. } => *line,
                TableError::Read { .. } => 0,
            })
            .collect();
        assert_eq!(lines, [2, 6, 7], "{mistakes:?}");
    }

    #[test]
    fn two_logins_may_be_one_user() {
        let table = parse(
            r#"{"ann": {"os_user": "ann", "port": 1}, "ann@example.org": {"os_user": "ann", "port": 1}}"#,
        );
        assert_eq!(table.unwrap().ports(), [1]);
    }

    #[test]
    fn what_changed_is_counted() {
        let before =
            parse(r#"{"a": {"os_user": "a", "port": 1}, "b": {"os_user": "b", "port": 2}}"#).unwrap();
        let after = parse(r#"{"b": {"os_user": "b", "port": 3}, "c": {"os_user": "c", "port": 4}}"#).unwrap();
        assert_eq!(after.changes(&before), "1 new, 1 changed, 1 gone");
        assert_eq!(after.changes(&after), "nothing changed");
    }
}
