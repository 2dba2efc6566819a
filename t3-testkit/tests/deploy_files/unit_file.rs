//! Parser for unit files (systemd.syntax(7)): sections, settings in order, and comments. Without
//! continuation lines.

use crate::queries;

/// One `Name=value`.
#[derive(Debug, Clone)]
pub struct Setting {
    /// `[Service]` without brackets.
    pub section: String,
    /// Before the `=`.
    pub name: String,
    /// After the `=`.
    pub value: String,
}

/// A unit, or a drop-in.
#[derive(Debug)]
pub struct Unit {
    /// Path of the file.
    pub name: String,
    /// All settings in order.
    pub settings: Vec<Setting>,
    /// Comments, joined to one line.
    pub comments: String,
}

impl Unit {
    /// Reads a unit file of the project.
    pub fn read(name: &str) -> Self {
        Self::parse(name, &queries::read(name))
    }

    fn parse(name: &str, text: &str) -> Self {
        let (mut settings, mut comments) = (Vec::new(), String::new());
        let mut section = String::new();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix('#') {
                comments.push_str(comment);
            } else if let Some(inside) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = inside.to_owned();
            } else if !line.is_empty() {
                assert!(!line.ends_with('\\'), "{name}: {line}");
                let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{name}: {line}"));
                let (name, value) = (key.to_owned(), value.to_owned());
                settings.push(Setting { section: section.clone(), name, value });
            }
        }
        Self { name: name.to_owned(), settings, comments }
    }

    /// Values of a setting, in order.
    pub fn all<'a>(&'a self, name: &str) -> std::vec::IntoIter<&'a str> {
        let named = self.settings.iter().filter(|setting| setting.name == name);
        named.map(|setting| setting.value.as_str()).collect::<Vec<_>>().into_iter()
    }

    /// Value of a setting that occurs exactly once.
    pub fn one<'a>(&'a self, name: &str) -> &'a str {
        let all: Vec<_> = self.all(name).collect();
        assert_eq!(all.len(), 1, "{}: {name}: {all:?}", self.name);
        all[0]
    }

    /// Value of a duration in seconds.
    pub fn seconds(&self, name: &str) -> u64 {
        let value = self.one(name);
        let digits = value.strip_suffix('s').unwrap_or_else(|| panic!("{}: {name}={value}", self.name));
        digits.parse().unwrap()
    }
}

#[test]
fn settings_and_comments_are_distinguished() {
    let unit = Unit::parse("x", "# why\n[Unit]\nA=1\n\n[Service]\n# CAP_X: because\nA=2=3\nB=5s\n");
    assert_eq!(unit.all("A").collect::<Vec<_>>(), ["1", "2=3"]);
    assert_eq!((unit.one("B"), unit.seconds("B")), ("5s", 5));
    assert_eq!(unit.comments, " why CAP_X: because");
    assert_eq!(unit.settings[1].section, "Service");
}
