//! Messages of systemd about starts and failures of units, and about the start of the host. Pure.
//!
//! Message ids: `/usr/lib/systemd/catalog/systemd.catalog`. Texts, for a store that has only them:
//! systemd `src/core/job.c` (`job_done_messages`), `unit.c` (`unit_log_failure`) and `manager.c`
//! (`manager_notify_finished`); a unit's name is in them by default (`StatusUnitFormat=`).

/// A unit has started.
pub const STARTED_ID: &str = "39f53479d3a045ac8e11786248231fbf";
/// A unit has failed.
pub const FAILED_ID: &str = "d9b373ed55a64feb8242e02dbe79a49c";

const STARTED: &str = "Started ";
const FAILED: &str = "Failed with result ";
const BOOTED: &str = "Startup finished in ";

/// Whether the name is one of these; `t3-serve@` is every instance.
#[must_use]
pub fn is_one(units: &[String], name: &str) -> bool {
    units.iter().any(|unit| name == unit || unit.ends_with('@') && name.starts_with(unit.as_str()))
}

/// Whether the text is about a start or a failure of one of these units, or about that of the host.
#[must_use]
pub fn is_start(units: &[String], text: &str) -> bool {
    let name = match (text.strip_prefix(STARTED), text.split_once(": ")) {
        (Some(rest), _) => rest.split(' ').next().map(|name| name.trim_end_matches('.')),
        (None, Some((name, rest))) if rest.starts_with(FAILED) => Some(name),
        _ => return text.starts_with(BOOTED),
    };
    name.is_some_and(|name| is_one(units, name))
}

/// Returns a regular expression (RE2) that selects these texts, and maybe a few others. The names
/// are escaped already.
#[must_use]
pub fn expression(units: &[String]) -> String {
    let any = units.join("|");
    format!("^{STARTED}({any})|^({any})[^ ]*: {FAILED}|^{BOOTED}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_and_failures_of_these_units_are_selected() {
        let units = ["t3-dispatch.service".to_owned(), "t3-serve@".to_owned()];
        let expression = regex_lite::Regex::new(&expression(&units)).unwrap();
        for text in [
            "Started t3-dispatch.service - Reverse proxy.",
            "Started t3-dispatch.service.",
            "Started t3-serve@ann.service - T3 serve of ann.",
            "t3-serve@ann.service: Failed with result 'oom-kill'.",
            "Startup finished in 2.1s (kernel) + 5s (userspace) = 7.1s.",
        ] {
            assert!(is_start(&units, text) && expression.is_match(text), "{text}");
        }
        for text in [
            "Starting t3-dispatch.service - Reverse proxy...",
            "Stopped t3-dispatch.service - Reverse proxy.",
            "Started t3-dispatch-other.service - Something.",
            "Started cron.service - Regular background program processing daemon.",
            "cron.service: Failed with result 'oom-kill'.",
            "t3-serve@ann.service: Main process exited, code=killed, status=9/KILL",
            "",
        ] {
            assert!(!is_start(&units, text), "{text}");
        }
    }
}
