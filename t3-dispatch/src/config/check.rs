//! `t3-dispatch check`: the options in use, their sources, and all problems. Reads
//! the configuration and the routing table; opens no socket and changes nothing.

use std::{
    ffi::OsStr,
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use t3_config::unit_files::{self, HiddenUnit};

use super::{
    LoadedConfig, Origin, Setting, VARIABLES, definition, file::nearest, options_of, os_users, plain::plain,
    trust,
};
use crate::{pages::probe_token::ProbeToken, routing::table::Table, sys::listeners::accepts};

/// Shorter prefixes of trusted networks are reported. 10.0.0.0/8 is common, and an IPv6 site has at
/// most a /32.
const SHORTEST_IPV4: u8 = 8;
const SHORTEST_IPV6: u8 = 32;
const LOOPBACK_IPV4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
const LOOPBACK_IPV6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);

/// Units of the package. Not t3-serve@.service, in whose place a site may have its own.
const UNITS: [&str; 5] = [
    "t3-dispatch.service",
    "t3-dispatch.socket",
    "t3-dispatch-diag.socket",
    "t3-mint.socket",
    "t3-mint@.service",
];

/// Result of `check`.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Options in use, then the table, in complete lines.
    pub used: String,
    /// Settings that are probably unintended.
    pub warnings: Vec<String>,
    /// Reasons why the configuration cannot be used.
    pub problems: Vec<String>,
}

/// Checks a configuration together with the routing table it names. `variables` are the names of
/// the environment.
#[must_use]
pub fn report(config: &LoadedConfig, variables: impl Iterator<Item = String>) -> CheckReport {
    let mut report = CheckReport::default();
    for setting in &config.settings {
        let _ = writeln!(report.used, "{} = {}   ({})", setting.name, written(setting), setting.origin);
    }
    match &config.options {
        Err(problems) => report.problems.extend(problems.iter().map(ToString::to_string)),
        Ok(options) => {
            let errors = trust::load(&options.trust).err().unwrap_or_default();
            report.problems.extend(errors.iter().map(ToString::to_string));
        }
    }
    for setting in config.settings.iter().filter(|setting| setting.name == "log-filter") {
        let filter = value(setting).unwrap_or_default();
        if let Err(error) = t3_journal::check_filter(filter) {
            report.problems.push(format!("{}: {error}", setting.origin));
        }
    }
    if let Some(path) =
        config.settings.iter().find(|setting| setting.name == "probe-token-file").and_then(value)
        && path != "off"
        && let Err(error) = ProbeToken::read(Path::new(path))
    {
        report.problems.push(error.to_string());
    }
    if let Some(path) =
        config.settings.iter().find(|setting| setting.name == "table").and_then(|s| s.values.first())
    {
        table(Path::new(path), config, &mut report);
    }
    report.warnings.extend(warnings(config, variables));
    report.warnings.extend(hidden_units());
    report
}

/// Returns a warning for each unit of the package that another file on this host hides.
pub fn hidden_units() -> impl Iterator<Item = String> {
    hidden_warnings(unit_files::hidden_on_this_host(&UNITS))
}

fn hidden_warnings(hidden: Vec<HiddenUnit>) -> impl Iterator<Item = String> {
    hidden.into_iter().map(|hidden| format!("{hidden}; {}", hidden.remedy()))
}

fn table(path: &Path, config: &LoadedConfig, report: &mut CheckReport) {
    let (table, problems) = match Table::examine(path) {
        Ok(examined) => examined,
        Err(error) => return report.problems.push(error.to_string()),
    };
    report.problems.extend(problems.iter().map(ToString::to_string));
    let _ = writeln!(report.used, "routing table {}: {} logins", path.display(), table.len());
    for (login, route) in table.routes() {
        let _ = writeln!(report.used, "{} -> {}:{}", plain(login), plain(&route.os_user), route.port);
    }
    if table.is_empty() && problems.is_empty() {
        report.warnings.push(format!("routing table {} is empty: every request gets 403", path.display()));
    }
    report.warnings.extend(os_users::on_this_host(&table));
    let own = config.settings.iter().filter(|setting| setting.name.ends_with("listen")).filter_map(address);
    for address in own.collect::<Vec<_>>() {
        for (login, _) in table.routes().filter(|(_, route)| route.port == address.port()) {
            let port = address.port();
            let what = format!("{} is routed to port {port}, a listening port of t3-dispatch", plain(login));
            // Only then serve's address reaches t3-dispatch.
            if accepts(address.ip().to_canonical(), Ipv4Addr::LOCALHOST.into()) {
                report.problems.push(what);
            } else {
                report.warnings.push(what);
            }
        }
    }
}

/// Valid settings that are probably unintended. `variables` are the names of the environment.
#[must_use]
pub fn warnings(config: &LoadedConfig, variables: impl Iterator<Item = String>) -> Vec<String> {
    let mut warnings = Vec::new();
    for setting in &config.settings {
        let Setting { name, origin, .. } = setting;
        if name == "trusted-proxy" {
            for network in setting.values.iter().filter_map(|value| value.to_str()?.parse::<IpNet>().ok()) {
                if let Some(problem) = problem_of(&network) {
                    warnings.push(format!("{origin}: `{name}` {network} {problem}"));
                }
            }
        }
        if let Some(address) = address(setting)
            && name != "listen"
            && !is_loopback(address.ip())
        {
            warnings.push(format!(
                "{origin}: `{name}` {address} is not a loopback address: every host that can connect can read it"
            ));
        }
    }
    warnings.extend(missing_trust(config));
    warnings.extend(unknown_variables(variables));
    warnings
}

/// Problem of a trusted network.
fn problem_of(network: &IpNet) -> Option<&'static str> {
    let shortest = if network.addr().is_ipv4() { SHORTEST_IPV4 } else { SHORTEST_IPV6 };
    let loopback = [IpNet::V4(LOOPBACK_IPV4), IpNet::V6(LOOPBACK_IPV6)];
    if network.prefix_len() == 0 {
        Some("lets any client impersonate any user")
    } else if network.prefix_len() < shortest {
        Some("is very large: any host in it can impersonate any user")
    } else if loopback.iter().any(|loopback| loopback.contains(network)) {
        Some("has no effect: processes of this host are trusted by user; set `trusted-user`")
    } else {
        None
    }
}

/// Returns one line on the settings without which no proxy, or every host name, is accepted.
fn missing_trust(config: &LoadedConfig) -> Option<String> {
    let setting = |name: &str| config.settings.iter().find(|setting| setting.name == name);
    let (proxy, user, host) = (setting("trusted-proxy")?, setting("trusted-user")?, setting("host")?);
    if proxy.values.is_empty() && (user.values.is_empty() || user.origin == Origin::Default) {
        let trusted = if user.values.is_empty() {
            "no proxy is trusted"
        } else {
            "no proxy is trusted, except processes of root on this host"
        };
        return Some(format!(
            "{trusted}: set `trusted-proxy` to the address of the proxy, or `trusted-user` to its user on this host, and `host` to the name in URLs"
        ));
    }
    host.values.is_empty().then(|| {
        "`host` is not set, so requests for any host name are answered (DNS rebinding): set it to the name in URLs".to_owned()
    })
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    let definition = definition();
    let known: Vec<_> = definition
        .get_subcommands()
        .flat_map(options_of)
        .filter_map(|arg| arg.get_env().and_then(OsStr::to_str))
        .collect();
    let mut unknown: Vec<_> =
        names.filter(|name| name.starts_with(VARIABLES) && !known.contains(&name.as_str())).collect();
    unknown.sort();
    // Compares the names without the common prefix.
    let rest = |name: &str| name.strip_prefix(VARIABLES).unwrap_or_default().to_owned();
    let known: Vec<_> = known.into_iter().map(rest).collect();
    // Never with its value, which may be a secret.
    let warn = |name: &String| match nearest(&rest(name), known.iter().map(String::as_str)) {
        Some(nearest) => {
            format!("environment: unknown variable {}; did you mean {VARIABLES}{nearest}?", plain(name))
        }
        None => format!("environment: unknown variable {}", plain(name)),
    };
    unknown.iter().map(warn).collect()
}

fn value(setting: &Setting) -> Option<&str> {
    setting.values.first()?.to_str()
}

fn address(setting: &Setting) -> Option<SocketAddr> {
    if setting.name.ends_with("listen") { value(setting)?.parse().ok() } else { None }
}

/// The values in the syntax of the environment; `none` for an option that is not set.
fn written(setting: &Setting) -> String {
    if setting.values.is_empty() {
        return "none".to_owned();
    }
    setting.values.iter().map(|value| plain(&value.to_string_lossy())).collect::<Vec<_>>().join(",")
}

impl LoadedConfig {
    /// One sentence with the number of options per source.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = |wanted: fn(&Origin) -> bool| self.settings.iter().filter(|s| wanted(&s.origin)).count();
        let file = match &self.file {
            Some(path) => format!("{} from {}", count(|o| matches!(o, Origin::File(..))), path.display()),
            None => "no file".to_owned(),
        };
        format!(
            "configuration: {file}, {} from the environment, {} from the command line",
            count(|o| matches!(o, Origin::Environment(_))),
            count(|o| *o == Origin::CommandLine)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[(&str, &str)]) -> LoadedConfig {
        let settings = settings.iter().map(|(name, value)| Setting {
            name: (*name).to_owned(),
            values: vec![value.into()],
            origin: Origin::CommandLine,
        });
        LoadedConfig {
            mode: super::super::Mode::Check,
            file: None,
            settings: settings.collect(),
            options: Err(Vec::new()),
        }
    }

    fn warned(settings: &[(&str, &str)], variables: &[&str]) -> Vec<String> {
        warnings(&config(settings), variables.iter().map(ToString::to_string))
    }

    #[test]
    fn probable_mistakes_are_warned_about() {
        for (name, value, expected) in [
            ("trusted-proxy", "0.0.0.0/0", Some("lets any client impersonate any user")),
            ("trusted-proxy", "::/0", Some("lets any client impersonate any user")),
            ("trusted-proxy", "0.0.0.0/1", Some("is very large")),
            ("trusted-proxy", "128.0.0.0/1", Some("is very large")),
            ("trusted-proxy", "2000::/3", Some("is very large")),
            ("trusted-proxy", "10.0.0.0/8", None),
            ("trusted-proxy", "2001:db8::/32", None),
            ("trusted-proxy", "127.0.0.0/8", Some("set `trusted-user`")),
            ("trusted-proxy", "127.0.0.1/32", Some("set `trusted-user`")),
            ("trusted-proxy", "::1/128", Some("set `trusted-user`")),
            ("metrics-listen", "0.0.0.0:9780", Some("not a loopback address")),
            ("metrics-listen", "[::]:9780", Some("not a loopback address")),
            ("metrics-listen", "10.1.2.3:9780", Some("not a loopback address")),
            ("metrics-listen", "127.0.0.1:9780", None),
            ("metrics-listen", "[::1]:9780", None),
            ("metrics-listen", "[::ffff:127.0.0.1]:9780", None),
            ("listen", "[::]:3780", None),
        ] {
            let warnings = warned(&[(name, value)], &[]);
            match expected {
                Some(expected) => {
                    assert!(warnings.len() == 1 && warnings[0].contains(expected), "{warnings:?}");
                }
                None => assert!(warnings.is_empty(), "{value}: {warnings:?}"),
            }
        }
    }

    #[test]
    fn an_unknown_variable_is_named_without_its_value() {
        let warnings = warned(
            &[],
            &["T3_DISPATCH_LISTN", "T3_DISPATCH_LISTEN", "T3_OTHER", "PATH", "T3_DISPATCH_ZZZZZZ"],
        );
        assert_eq!(
            warnings,
            [
                "environment: unknown variable T3_DISPATCH_LISTN; did you mean T3_DISPATCH_LISTEN?",
                "environment: unknown variable T3_DISPATCH_ZZZZZZ"
            ]
            .map(|text| text.to_owned())
        );
    }

    #[test]
    fn missing_trust_is_reported_in_one_line() {
        type Row = (&'static [&'static str], (&'static [&'static str], Origin), &'static [&'static str]);
        let root = (&["root"][..], Origin::Default);
        let rows: [(Row, Option<&str>); 6] = [
            (
                (&[], root.clone(), &[]),
                Some("no proxy is trusted, except processes of root on this host: set"),
            ),
            ((&[], root.clone(), &["t3"]), Some("no proxy is trusted, except")),
            ((&[], (&[], Origin::CommandLine), &["t3"]), Some("no proxy is trusted: set")),
            ((&["10.0.0.0/8"], root.clone(), &[]), Some("`host` is not set")),
            ((&["10.0.0.0/8"], root, &["t3"]), None),
            ((&[], (&["root"], Origin::CommandLine), &["t3"]), None),
        ];
        for ((proxy, (user, origin), host), expected) in rows {
            let mut config = config(&[("trusted-proxy", ""), ("trusted-user", ""), ("host", "")]);
            for (setting, values) in config.settings.iter_mut().zip([proxy, user, host]) {
                setting.values = values.iter().map(Into::into).collect();
            }
            config.settings[1].origin = origin;
            let warnings = warnings(&config, std::iter::empty());
            match expected {
                Some(expected) => {
                    assert!(warnings.len() == 1 && warnings[0].starts_with(expected), "{warnings:?}");
                }
                None => assert!(warnings.is_empty(), "{warnings:?}"),
            }
        }
    }

    #[test]
    fn a_hidden_unit_is_reported_with_its_remedy() {
        let hidden = |unit: &str| HiddenUnit {
            unit: unit.to_owned(),
            by: Path::new("/etc/systemd/system").join(unit),
            packaged: Path::new("/usr/lib/systemd/system").join(unit),
            is_masked: false,
        };
        assert_eq!(hidden_warnings(Vec::new()).count(), 0);
        let warnings: Vec<_> = hidden_warnings(UNITS.map(hidden).to_vec()).collect();
        assert_eq!(warnings.len(), UNITS.len());
        let first = &warnings[0];
        assert!(
            first.starts_with("/etc/systemd/system/t3-dispatch.service hides the packaged unit"),
            "{first}"
        );
        assert!(
            first.contains("; move your settings to a drop-in (systemctl edit t3-dispatch.service)"),
            "{first}"
        );
    }

    #[test]
    fn no_value_can_forge_a_line() {
        let report =
            report(&config(&[("listen", "x\nlisten = y   (default)"), ("log", "")]), std::iter::empty());
        assert_eq!(report.used.lines().count(), 2);
        assert!(report.used.contains("log = \"\"   (command line)"), "{}", report.used);
    }
}
