//! The apt configuration of this host, which the guests use too. The mirror of the host is used for
//! every release; none is hard-coded.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::tools::run::stdout_of;

/// Overrides the mirror of the apt configuration.
const MIRROR_VARIABLE: &str = "T3_DEBIAN_MIRROR";
/// Names of releases that identify the main archive of Debian.
const RELEASES: [&str; 9] =
    ["bullseye", "bookworm", "trixie", "forky", "sid", "stable", "oldstable", "testing", "unstable"];

/// Settings for installing packages in guests.
#[derive(Debug)]
pub struct HostApt {
    /// The archive of Debian's main suites.
    pub mirror: String,
    /// Fetch settings (proxies, date checks) in apt.conf syntax, one each.
    pub options: Vec<String>,
}

/// Reads the apt configuration of this host.
pub fn host() -> Result<HostApt> {
    let mirror = match std::env::var(MIRROR_VARIABLE) {
        Ok(mirror) => Some(mirror),
        Err(_) => mirror(&source_files()),
    };
    let Some(mirror) = mirror else {
        bail!("cannot find a Debian archive in the sources of apt; set {MIRROR_VARIABLE} to its address");
    };
    let dump = stdout_of(Command::new("apt-config").args(["dump", "Acquire"]))?;
    Ok(HostApt { mirror, options: fetch_options(&dump) })
}

/// Every sources file: (is it in deb822 form, its text).
fn source_files() -> Vec<(bool, String)> {
    let dir = Path::new("/etc/apt");
    let mut paths = vec![dir.join("sources.list")];
    if let Ok(entries) = fs::read_dir(dir.join("sources.list.d")) {
        paths.extend(entries.flatten().map(|entry| entry.path()));
    }
    paths.sort();
    let known = |path: &Path| match path.extension()?.to_str()? {
        "sources" => Some(true),
        "list" => Some(false),
        _ => None,
    };
    paths.iter().filter_map(|path| Some((known(path)?, fs::read_to_string(path).ok()?))).collect()
}

/// The first archive that carries a Debian release's main suite.
fn mirror(files: &[(bool, String)]) -> Option<String> {
    files
        .iter()
        .flat_map(|(deb822, text)| if *deb822 { deb822_sources(text) } else { one_line_sources(text) })
        .find(|source| source.suites.iter().any(|suite| RELEASES.contains(&suite.as_str())))
        .map(|source| source.uri)
}

#[derive(Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
}

/// `deb [options] URI SUITE COMPONENT…`, one a line (sources.list(5)).
fn one_line_sources(text: &str) -> Vec<Source> {
    let source = |line: &str| {
        let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
        let rest = rest.strip_prefix(char::is_whitespace)?.trim();
        let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
        let mut words = rest.split_whitespace();
        Some(Source { uri: words.next()?.to_owned(), suites: vec![words.next()?.to_owned()] })
    };
    text.lines().filter_map(source).collect()
}

/// Stanzas of `Field: value`, values may continue in indented lines (sources.list(5)).
fn deb822_sources(text: &str) -> Vec<Source> {
    let mut stanzas = vec![Vec::<(String, String)>::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if let Some(stanza) = stanzas.last_mut() {
            if line.starts_with(char::is_whitespace) {
                if let Some((_, value)) = stanza.last_mut() {
                    value.push(' ');
                    value.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once(':') {
                stanza.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
    }
    stanzas.iter().flat_map(|stanza| stanza_sources(stanza)).collect()
}

fn stanza_sources(stanza: &[(String, String)]) -> Vec<Source> {
    let words = |field: &str| -> Vec<String> {
        let found = stanza.iter().find(|(name, _)| name == field);
        found.map(|(_, value)| value.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
    };
    let enabled = words("enabled").first().is_none_or(|value| !value.eq_ignore_ascii_case("no"));
    if !enabled || !words("types").iter().any(|kind| kind == "deb") {
        return Vec::new();
    }
    words("uris").into_iter().map(|uri| Source { uri, suites: words("suites") }).collect()
}

/// Of `apt-config dump Acquire`: proxies, timeouts and checks; not what belongs to index files and
/// caches.
fn fetch_options(dump: &str) -> Vec<String> {
    const COPIED: [&str; 6] = ["http", "https", "Retries", "Check-Valid-Until", "Check-Date", "ForceIPv4"];
    let taken = |line: &&str| {
        let key = line.split_whitespace().next().unwrap_or_default();
        let second = key.split("::").nth(1).unwrap_or_default();
        COPIED.contains(&second) && !line.ends_with("\"\";") && !key.ends_with("::")
    };
    dump.lines().filter(taken).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{deb822_sources, fetch_options, mirror, one_line_sources};

    #[test]
    fn deb822_stanzas_are_read() {
        let text = "# ours\nTypes: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm\n bookworm-updates\n\
                    Components: main\n\nTypes: deb\nEnabled: no\nURIs: http://off.example/\nSuites: trixie\n";
        let found = deb822_sources(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].uri, "http://mirror.example/debian");
        assert_eq!(found[0].suites, ["bookworm", "bookworm-updates"]);
    }

    #[test]
    fn one_line_sources_are_read() {
        let text = "deb-src http://s.example/d bookworm main\n# deb http://c.example/d bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://m.example/d bookworm main contrib # why\ndeb\n";
        let found = one_line_sources(text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].uri.as_str(), found[0].suites[0].as_str()), ("http://m.example/d", "bookworm"));
    }

    #[test]
    fn the_mirror_is_the_main_archive_not_security_or_a_vendor() {
        let vendor = (false, "deb http://vendor.example/node nodistro main\n".to_owned());
        let security =
            (true, "Types: deb\nURIs: http://m.example/sec\nSuites: bookworm-security\n".to_owned());
        let main =
            (true, "Types: deb\nURIs: http://m.example/main\nSuites: bookworm-updates trixie\n".to_owned());
        assert_eq!(
            mirror(&[vendor.clone(), security.clone(), main]).as_deref(),
            Some("http://m.example/main")
        );
        assert_eq!(mirror(&[vendor, security]), None);
    }

    #[test]
    fn only_fetch_settings_are_copied() {
        let dump = "Acquire \"\";\nAcquire::http::Proxy \"http://p.example:3128\";\nAcquire::https::Proxy \"\";\n\
                    Acquire::Check-Date \"false\";\nAcquire::IndexTargets::deb::Packages::MetaKey \"x\";\n\
                    Acquire::GzipIndexes \"true\";\n";
        let taken = fetch_options(dump);
        assert_eq!(
            taken,
            ["Acquire::http::Proxy \"http://p.example:3128\";", "Acquire::Check-Date \"false\";"]
        );
    }
}
