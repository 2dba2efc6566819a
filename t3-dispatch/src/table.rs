//! The routing table `dispatch.json`: `{"LOGIN": {"os_user": "USER", "port": PORT}, ...}`. Reads and checks it; keeping the last
//! good one is the caller's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

/// Where one login goes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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
    #[error("read the routing table {path}: {source}")]
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
        let text = std::fs::read_to_string(path)
            .map_err(|source| TableError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads a text; `path` is for the error.
    ///
    /// # Errors
    /// [`TableError::Content`] names line, column and key.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TableError> {
        serde_json::from_str(text).map_err(|error| {
            let place = format!(" at line {} column {}", error.line(), error.column());
            let what = error.to_string();
            TableError::Content {
                path: path.to_owned(),
                line: error.line(),
                column: error.column(),
                what: what.strip_suffix(&place).unwrap_or(&what).to_owned(),
            }
        })
    }

    /// The route of a login.
    #[must_use]
    pub fn route(&self, login: &str) -> Option<&Route> {
        self.routes.get(login)
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

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Routes;

        impl<'de> Visitor<'de> for Routes {
            type Value = Table;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"an object {"LOGIN": {"os_user": "USER", "port": PORT}, ...}"#)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
                let mut routes = BTreeMap::new();
                while let Some(login) = map.next_key::<String>()? {
                    // serde_json finds line and column again at the end of a message that carries another one.
                    let route: Route = map
                        .next_value()
                        .map_err(|error| A::Error::custom(format!("key {login:?}: {error}")))?;
                    check(&login, &route).map_err(A::Error::custom)?;
                    if routes.contains_key(&login) {
                        return Err(A::Error::custom(format!("key {login:?} is there twice")));
                    }
                    routes.insert(login, route);
                }
                Ok(Table { routes })
            }
        }

        deserializer.deserialize_map(Routes)
    }
}

fn check(login: &str, route: &Route) -> Result<(), String> {
    if login.is_empty() {
        return Err("key \"\": a login must not be empty".to_owned());
    }
    if route.os_user.is_empty() {
        return Err(format!("key {login:?}: os_user must not be empty"));
    }
    if route.port == 0 {
        return Err(format!("key {login:?}: port must be 1 to 65535"));
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
            ("", "line 1, column 0", "EOF"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("routing table /etc/t3-serve/dispatch.json, "), "{error}");
            assert!(error.contains(place) && error.contains(what), "{text}: {error}");
        }
    }
}
