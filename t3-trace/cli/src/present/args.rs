//! Options of every command: the configuration file, colours, time zone.

use std::{ffi::OsStr, io::IsTerminal, path::PathBuf};

use clap::{Args, ValueEnum};

use super::text::Paint;
use crate::time::local::ZoneOption;

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
pub struct CommonArgs {
    /// Configuration file of t3-trace, `name = value` in TOML; the command line and the environment
    /// take precedence. The default file is optional.
    #[arg(long, env = "T3_TRACE_CONFIG", value_name = "FILE", default_value = t3_trace_host::CONFIG)]
    pub config: PathBuf,
    /// Colours: auto is on a terminal, unless NO_COLOR is set.
    #[arg(long, env = "T3_TRACE_COLOR", value_name = "WHEN", value_enum, default_value = "auto")]
    pub color: ColorWhen,
    /// Time zone of the times that are shown and given, for example Europe/Berlin; system is TZ,
    /// else /etc/localtime.
    #[arg(long, env = "T3_TRACE_TIME_ZONE", value_name = "ZONE", default_value = "system")]
    pub time_zone: ZoneOption,
}

/// Value of `--color`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Also into a pipe or a file, and with NO_COLOR.
    Always,
    /// Never.
    Never,
}

impl ColorWhen {
    /// Whether output is coloured. `NO_COLOR` counts if it is not empty (no-color.org).
    #[must_use]
    pub fn is_on(self, is_terminal: bool, no_color: Option<&OsStr>) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => is_terminal && no_color.is_none_or(OsStr::is_empty),
        }
    }
}

impl CommonArgs {
    /// Colours of stdout. `plain` is the former option.
    #[must_use]
    pub fn paint(&self, plain: bool) -> Paint {
        let no_color = std::env::var_os("NO_COLOR");
        let is_on = self.color.is_on(std::io::stdout().is_terminal(), no_color.as_deref());
        Paint { colour: is_on && !plain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_depend_on_the_option_then_on_no_color_and_the_terminal() {
        let (unset, empty, set) = (None, Some(OsStr::new("")), Some(OsStr::new("1")));
        for (when, is_terminal, no_color, expected) in [
            (ColorWhen::Auto, true, unset, true),
            (ColorWhen::Auto, true, empty, true),
            (ColorWhen::Auto, true, set, false),
            (ColorWhen::Auto, false, unset, false),
            (ColorWhen::Always, false, set, true),
            (ColorWhen::Always, true, unset, true),
            (ColorWhen::Never, true, unset, false),
            (ColorWhen::Never, false, empty, false),
        ] {
            let shown = format!("{when:?}, {is_terminal}, {no_color:?}");
            assert_eq!(when.is_on(is_terminal, no_color), expected, "{shown}");
        }
    }
}
