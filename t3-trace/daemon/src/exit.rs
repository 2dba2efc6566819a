//! Exit status of the daemon. systemd restarts it after 1, and not after 2
//! (`RestartPreventExitStatus=`): the next start would fail in the same way. Pure.

use std::io::ErrorKind;

use t3_config::ConfigError;
use t3_journal::logging::InitError;

/// A failure that can be over at the next start.
const RUNTIME: u8 = 1;
/// Usage or configuration error: only the operator can correct it.
const CONFIGURATION: u8 = 2;

/// Exit status for errors of the configuration. A file that could not be read, for example for lack
/// of memory or descriptors, is a runtime failure.
#[must_use]
pub fn of_configuration(errors: &[ConfigError]) -> u8 {
    let passes = |error: &ConfigError| match error {
        ConfigError::Read(error) => !matches!(
            error.source.kind(),
            ErrorKind::NotFound
                | ErrorKind::PermissionDenied
                | ErrorKind::IsADirectory
                | ErrorKind::NotADirectory
                | ErrorKind::InvalidData
        ),
        ConfigError::File(_) | ConfigError::Combination { .. } | ConfigError::Value { .. } => false,
    };
    if errors.iter().all(passes) { RUNTIME } else { CONFIGURATION }
}

/// Exit status for an error of [`crate::start`].
#[must_use]
pub fn of(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<InitError>() {
        Some(InitError::Filter { .. }) => CONFIGURATION,
        _ => RUNTIME,
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, io};

    use t3_config::{
        Origin,
        file::{FileError, Location, ReadError},
    };

    use super::*;

    fn read(kind: ErrorKind) -> ConfigError {
        ReadError { path: "/etc/t3-trace.toml".into(), source: kind.into() }.into()
    }

    #[test]
    fn only_a_failure_that_can_pass_is_restarted() {
        let at = Location { line: 1, column: 1 };
        let file = || FileError { path: "f".into(), at, what: String::new() }.into();
        let value = ConfigError::Value {
            origin: Origin::CommandLine,
            name: "log".to_owned(),
            value: OsString::new(),
            why: String::new(),
        };
        for (errors, expected) in [
            (vec![file()], CONFIGURATION),
            (vec![value], CONFIGURATION),
            (vec![read(ErrorKind::NotFound)], CONFIGURATION),
            (vec![read(ErrorKind::PermissionDenied)], CONFIGURATION),
            (vec![read(ErrorKind::IsADirectory)], CONFIGURATION),
            (vec![read(ErrorKind::InvalidData)], CONFIGURATION),
            (vec![read(ErrorKind::OutOfMemory)], RUNTIME),
            (vec![read(ErrorKind::Other)], RUNTIME),
            (vec![read(ErrorKind::Other), file()], CONFIGURATION),
        ] {
            assert_eq!(of_configuration(&errors), expected, "{errors:?}");
        }
    }

    #[test]
    fn a_log_filter_is_configuration_and_everything_else_is_a_runtime_failure() {
        let filter = t3_journal::check_filter("=a=b=").unwrap_err();
        assert_eq!(of(&filter.into()), CONFIGURATION);
        assert_eq!(of(&InitError::Start(io::ErrorKind::NotFound.into()).into()), RUNTIME);
        assert_eq!(of(&anyhow::anyhow!("another daemon")), RUNTIME);
    }
}
