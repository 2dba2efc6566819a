//! The routing table `dispatch.json`: `{"LOGIN": {"os_user": "USER", "port": PORT}, ...}`, with an
//! optional `"uid": N` per entry. Reads and checks it; the caller keeps the last valid one.
//!
//! Rejects entries that would misroute a request; ignores unknown keys of an entry, which other
//! programs may have added. Several logins may map to one user. One port cannot belong to two
//! users: only one serve listens on it, and the other user would get its shell.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::OFlags;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use t3_config::file::Location;

use crate::routing::login::check_login;

/// Destination of one login.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct Route {
    /// OS user of the serve process.
    pub os_user: String,
    /// Port of serve on 127.0.0.1, 1 to 65535.
    pub port: u16,
    /// Owner of the listener on that port, if it is not `os_user`: of a container or a user
    /// namespace.
    #[serde(default)]
    pub uid: Option<u32>,
}

/// Routes by login.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    routes: BTreeMap<String, Route>,
}

/// Error of reading or checking the table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("cannot read routing table {path}: {source}; see --table")]
    Read { path: PathBuf, source: io::Error },
    #[error("routing table {path}, line {line}, column {column}: {what}")]
    Content {
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        what: String,
    },
    #[error("routing table {path}, key {login:?}: port {port} is a listening port of t3-dispatch itself")]
    OwnPort { path: PathBuf, login: String, port: u16 },
    #[error("timed out reading routing table {path} after {limit:?}; is its file system available?")]
    Timeout { path: PathBuf, limit: Duration },
}

/// Maximum size of the file in bytes, for tens of thousands of logins.
const MAX_SIZE: u64 = 4 << 20;

impl Table {
    /// Reads a file.
    ///
    /// # Errors
    /// [`TableError`] names file, line, column and key.
    pub fn load(path: &Path) -> Result<Self, TableError> {
        Self::parse(&Self::read(path)?, path)
    }

    /// Returns the text of a regular file of up to 4 MiB.
    ///
    /// # Errors
    /// [`TableError::Read`].
    pub fn read(path: &Path) -> Result<String, TableError> {
        read_text(path).map_err(|source| TableError::Read { path: path.to_owned(), source })
    }

    /// Checks that no route leads to one of these ports: each request would be forwarded to
    /// t3-dispatch again, until it has no descriptors left.
    ///
    /// # Errors
    /// [`TableError::OwnPort`].
    pub fn check_ports(&self, own: &[u16], path: &Path) -> Result<(), TableError> {
        let Some((login, route)) = self.routes.iter().find(|(_, route)| own.contains(&route.port)) else {
            return Ok(());
        };
        Err(TableError::OwnPort { path: path.to_owned(), login: login.clone(), port: route.port })
    }

    /// Parses a text; `path` is for the error.
    ///
    /// # Errors
    /// [`TableError::Content`] names line, column and key of the first mistake.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TableError> {
        let (table, mistakes) = examine(text, path);
        mistakes.into_iter().next().map_or(Ok(table), Err)
    }

    /// Reads a file; returns the valid routes and all mistakes.
    ///
    /// # Errors
    /// [`TableError::Read`].
    pub fn examine(path: &Path) -> Result<(Self, Vec<TableError>), TableError> {
        Ok(examine(&Self::read(path)?, path))
    }

    /// Returns all logins with their routes, sorted by login.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &Route)> {
        self.routes.iter().map(|(login, route)| (login.as_str(), route))
    }

    /// Describes the changes since `before`, for the log.
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

    #[must_use]
    pub fn route(&self, login: &str) -> Option<&Route> {
        self.routes.get(login)
    }

    /// Returns whether a login has this route.
    #[must_use]
    pub fn has(&self, route: &Route) -> bool {
        self.routes.values().any(|known| known == route)
    }

    /// Returns the ports of all serves, without duplicates.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        self.routes.values().map(|route| route.port).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Returns the user of each port.
    #[must_use]
    pub fn port_users(&self) -> BTreeMap<u16, String> {
        self.routes.values().map(|route| (route.port, route.os_user.clone())).collect()
    }

    /// Number of logins.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    // Opening a FIFO would block until it has a writer.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut text = String::new();
    file.take(MAX_SIZE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {MAX_SIZE} bytes")));
    }
    Ok(text)
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
                format!("key {login:?}: port {} already belongs to {os_user}, by key {other:?}", route.port)
            })
        });
        let twice = || table.routes.contains_key(&login).then(|| format!("duplicate key {login:?}"));
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

/// serde_json's message without the position at its end.
fn message(error: &serde_json::Error) -> String {
    let what = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    what.strip_suffix(&place).unwrap_or(&what).to_owned()
}

/// The unparsed entries: each is parsed separately, so that one mistake does not hide another.
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
    if let Err(error) = check_login(login) {
        return wrong(&format!("{error}; no request can match it"));
    }
    if route.os_user.is_empty() {
        return wrong("os_user must not be empty");
    }
    // It is used as a command-line argument and as a record value.
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
        assert_eq!(
            table.route("vbarzin"),
            Some(&Route { os_user: "wizard".to_owned(), port: 3773, uid: None })
        );
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
                "duplicate key",
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
                "key \"b\": port 1 already belongs to a, by key \"a\"",
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
            ("{\" ann\": {\"os_user\": \"ann\", \"port\": 1}}", "line 1, column 10", "a login must not have"),
            ("{\"ann\": 3}", "line 1, column 9", "key \"ann\": invalid type"),
            ("", "line 1, column 0", "EOF"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("routing table /etc/t3-serve/dispatch.json, "), "{error}");
            assert!(error.contains(place) && error.contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_and_valid_entries_read() {
        let text = "{\n \"a\": {\"os_user\": \"a\", \"port\": 0},\n \"b\": {\"os_user\": \"b\", \"port\": 2},\n \"c\": {\n  \"port\": 1\n },\n \"d\": []\n}";
        let (table, mistakes) = examine(text, Path::new("t"));
        assert_eq!(table.routes().map(|(login, _)| login).collect::<Vec<_>>(), ["b"]);
        let lines: Vec<_> = mistakes
            .iter()
            .map(|mistake| match mistake {
                TableError::Content { line, .. } => *line,
                _ => 0,
            })
            .collect();
        assert_eq!(lines, [2, 6, 7], "{mistakes:?}");
    }

    #[test]
    fn two_logins_may_map_to_one_user() {
        let table = parse(
            r#"{"ann": {"os_user": "ann", "port": 1}, "ann@example.org": {"os_user": "ann", "port": 1}}"#,
        );
        assert_eq!(table.unwrap().ports(), [1]);
    }

    #[test]
    fn changes_are_counted() {
        let before =
            parse(r#"{"a": {"os_user": "a", "port": 1}, "b": {"os_user": "b", "port": 2}}"#).unwrap();
        let after = parse(r#"{"b": {"os_user": "b", "port": 3}, "c": {"os_user": "c", "port": 4}}"#).unwrap();
        assert_eq!(after.changes(&before), "1 new, 1 changed, 1 gone");
        assert_eq!(after.changes(&after), "nothing changed");
    }
}
