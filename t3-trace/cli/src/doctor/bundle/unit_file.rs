//! Unit files for a bug report: values of directives that matter to this program, names of the
//! others. Environments, credentials and arguments of commands are removed.

/// Prefixes of directives whose values stay.
const KEPT: [&str; 40] = [
    "After",
    "AmbientCapabilities",
    "Before",
    "CPU",
    "CapabilityBoundingSet",
    "CollectMode",
    "Delegate",
    "IO",
    "IPAddressDeny",
    "KeyringMode",
    "KillMode",
    "KillSignal",
    "Limit",
    "LockPersonality",
    "LogLevelMax",
    "LogRateLimit",
    "ManagedOOM",
    "Memory",
    "Nice",
    "NoNewPrivileges",
    "NotifyAccess",
    "OOM",
    "Private",
    "ProcSubset",
    "Protect",
    "Requires",
    "Restart",
    "Restrict",
    "RuntimeDirectory",
    "Slice",
    "StartLimit",
    "StateDirectory",
    "SystemCall",
    "Tasks",
    "Timeout",
    "Type",
    "UMask",
    "WantedBy",
    "Wants",
    "Watchdog",
];

/// Commands of the project's programs.
const COMMANDS: [&str; 4] = ["check", "daemon", "run", "serve"];

/// Returns the text of a unit file without private values.
pub(super) fn redacted(text: &str) -> String {
    let joined = text.replace("\\\n", " ");
    let lines =
        joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    lines.filter_map(line).map(|line| line + "\n").collect()
}

fn line(line: &str) -> Option<String> {
    if line.starts_with('[') {
        let name = line.strip_prefix('[')?.strip_suffix(']')?;
        return name.bytes().all(|b| b.is_ascii_alphabetic()).then(|| format!("[{name}]"));
    }
    let (name, value) = line.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) || name.len() > 64 {
        return None;
    }
    let value = match name {
        _ if name.starts_with("Exec") => command(value),
        "User" | "Group" | "SupplementaryGroups" if is_project_user(value) => value.to_owned(),
        _ if KEPT.iter().any(|kept| name.starts_with(kept)) && is_plain(value) => value.to_owned(),
        _ => "[removed]".to_owned(),
    };
    Some(format!("{name}={value}"))
}

/// Returns the program and the names of its options.
fn command(value: &str) -> String {
    let mut words = value.split_whitespace();
    let program = words.next().filter(|word| is_plain(word)).unwrap_or("[removed]");
    let option = |word: &str| {
        let name = word.split('=').next().unwrap_or_default();
        let known = name.starts_with("--")
            && name.len() < 40
            && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        if known || COMMANDS.contains(&name) { name.to_owned() } else { "[removed]".to_owned() }
    };
    let options = words.map(option);
    std::iter::once(program.to_owned()).chain(options).collect::<Vec<_>>().join(" ")
}

fn is_project_user(value: &str) -> bool {
    matches!(value, "root" | "t3-dispatch" | "t3-trace" | "%i" | "%I")
}

fn is_plain(value: &str) -> bool {
    value.bytes().all(|b| b.is_ascii_alphanumeric() || b" .,:_@%/~+-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_stay_and_possible_secrets_are_removed() {
        let text = "# by ann, password hunter2\n[Service]\nUser=ann\nGroup=t3-trace\nMemoryMax=12G\nOOMPolicy=continue\n\
                    Environment=TOKEN=abc \"B=c\"\nSetCredential=x:secret\nExecStart=/usr/bin/t3 serve --port=3773 --key abc \\\n  --host x\n\
                    Description=ann's serve\nSystemCallFilter=@system-service\nX-Odd Name=1\n[Bad Section]\n";
        assert_eq!(
            redacted(text),
            "[Service]\nUser=[removed]\nGroup=t3-trace\nMemoryMax=12G\nOOMPolicy=continue\nEnvironment=[removed]\n\
             SetCredential=[removed]\nExecStart=/usr/bin/t3 serve --port --key [removed] --host [removed]\n\
             Description=[removed]\nSystemCallFilter=@system-service\n"
        );
    }
}
