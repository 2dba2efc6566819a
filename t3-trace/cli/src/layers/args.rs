//! Options for the other layers. A password is read from a file, never from the command line.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use crate::{server::LokiArgs, time::duration};

/// Sources of the logs and metrics of the edge. Without any of them no query is sent.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Other layers")]
#[allow(rustdoc::bare_urls, reason = "the text is the help, where angle brackets would be part of it")]
pub struct LayerArgs {
    #[command(flatten)]
    pub server: LokiArgs,
    /// Loki selector of Traefik's access log.
    #[arg(long, value_name = "LOGQL", env = "T3_TRAEFIK_SELECTOR", default_value = TRAEFIK)]
    pub traefik_selector: String,
    /// Loki selector of cloudflared's log.
    #[arg(long, value_name = "LOGQL", env = "T3_CLOUDFLARED_SELECTOR", default_value = CLOUDFLARED)]
    pub cloudflared_selector: String,
    /// Another stream of Loki to show around the close, for example '{job="devvm-journal"} |=
    /// "oom"' (repeatable).
    #[arg(long, value_name = "LOGQL", env = "T3_LOKI_SELECTOR")]
    pub loki_selector: Vec<String>,
    /// Prometheus, for example http://prometheus.example.org:9090: probe legs and host PSI.
    #[arg(long, value_name = "URL", env = "T3_PROMETHEUS_URL", hide_env_values = true)]
    pub prometheus: Option<String>,
    /// Tenant of Mimir or a similar server (X-Scope-OrgID).
    #[arg(long, value_name = "TENANT", env = "T3_PROMETHEUS_TENANT")]
    pub prometheus_tenant: Option<String>,
    /// File with a bearer token for Prometheus.
    #[arg(long, value_name = "FILE", env = "T3_PROMETHEUS_TOKEN_FILE", conflicts_with = "prometheus_user")]
    pub prometheus_token_file: Option<PathBuf>,
    /// User of Prometheus; requires --prometheus-password-file.
    #[arg(long, value_name = "USER", env = "T3_PROMETHEUS_USER", requires = "prometheus_password_file")]
    pub prometheus_user: Option<String>,
    /// File with the password of that user.
    #[arg(
        long,
        value_name = "FILE",
        env = "T3_PROMETHEUS_PASSWORD_FILE",
        requires = "prometheus_user",
        conflicts_with = "prometheus_token_file"
    )]
    pub prometheus_password_file: Option<PathBuf>,
    /// File with request headers for Prometheus, one per line.
    #[arg(long, value_name = "FILE", env = "T3_PROMETHEUS_HEADER_FILE")]
    pub prometheus_header_file: Option<PathBuf>,
    /// Labels of this host in Prometheus, for example 'instance="devvm:9100"'; without it the PSI
    /// of all hosts is shown.
    #[arg(long, value_name = "LABELS", env = "T3_PROMETHEUS_HOST")]
    pub prometheus_host: Option<String>,
    /// Access log of Traefik as a file, in place of Loki (repeatable).
    #[arg(long, value_name = "FILE", env = "T3_TRAEFIK_LOG")]
    pub traefik_log: Vec<PathBuf>,
    /// Log of cloudflared as a file, in place of Loki (repeatable).
    #[arg(long, value_name = "FILE", env = "T3_CLOUDFLARED_LOG")]
    pub cloudflared_log: Vec<PathBuf>,
    /// Cloudflare's websocket_analytics (Logpush): a file, also .gz, or a folder with batches
    /// (repeatable); which side closed at the edge, found by the ray.
    #[arg(long, value_name = "PATH", env = "T3_LOGPUSH")]
    pub logpush: Vec<PathBuf>,
    /// Loki selector of Cloudflare's websocket_analytics.
    #[arg(long, value_name = "LOGQL", env = "T3_LOGPUSH_SELECTOR")]
    pub logpush_selector: Option<String>,
    /// Access log of Envoy in place of Traefik, as a file (repeatable).
    #[arg(long, value_name = "FILE", env = "T3_ENVOY_LOG")]
    pub envoy_log: Vec<PathBuf>,
    /// Loki selector of Envoy's access log.
    #[arg(long, value_name = "LOGQL", env = "T3_ENVOY_SELECTOR")]
    pub envoy_selector: Option<String>,
    /// Log of HAProxy in place of Traefik, as a file (repeatable).
    #[arg(long, value_name = "FILE", env = "T3_HAPROXY_LOG")]
    pub haproxy_log: Vec<PathBuf>,
    /// Loki selector of HAProxy's log.
    #[arg(long, value_name = "LOGQL", env = "T3_HAPROXY_SELECTOR")]
    pub haproxy_selector: Option<String>,
    /// Timeout for each layer, for example 5s.
    #[arg(
        long,
        value_name = "TIME",
        env = "T3_LAYER_TIMEOUT",
        value_parser = duration,
        default_value = "10s"
    )]
    pub layer_timeout: Duration,
}

impl LayerArgs {
    /// Whether Envoy or HAProxy is in place of Traefik, and no option of Traefik is set.
    pub(super) fn replaces_traefik(&self) -> bool {
        let replaced = !self.envoy_log.is_empty()
            || !self.haproxy_log.is_empty()
            || self.envoy_selector.is_some()
            || self.haproxy_selector.is_some();
        replaced && self.traefik_log.is_empty() && self.traefik_selector == TRAEFIK
    }
}

const TRAEFIK: &str = r#"{job="traefik"}"#;
const CLOUDFLARED: &str = r#"{job="cloudflared"}"#;

impl Default for LayerArgs {
    fn default() -> Self {
        Self {
            server: LokiArgs::default(),
            traefik_selector: TRAEFIK.to_owned(),
            cloudflared_selector: CLOUDFLARED.to_owned(),
            loki_selector: Vec::new(),
            prometheus: None,
            prometheus_tenant: None,
            prometheus_token_file: None,
            prometheus_user: None,
            prometheus_password_file: None,
            prometheus_header_file: None,
            prometheus_host: None,
            traefik_log: Vec::new(),
            cloudflared_log: Vec::new(),
            logpush: Vec::new(),
            logpush_selector: None,
            envoy_log: Vec::new(),
            envoy_selector: None,
            haproxy_log: Vec::new(),
            haproxy_selector: None,
            layer_timeout: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        layers: LayerArgs,
    }

    #[test]
    fn no_layer_is_enabled_by_default() {
        let args = Line::try_parse_from(["t3-trace"]).unwrap().layers;
        let default = LayerArgs::default();
        assert_eq!(
            (&args.traefik_selector, &args.cloudflared_selector, args.layer_timeout),
            (&default.traefik_selector, &default.cloudflared_selector, default.layer_timeout)
        );
        assert!(args.traefik_log.is_empty() && args.loki_selector.is_empty());
    }

    #[test]
    fn an_incomplete_credential_is_rejected() {
        for wrong in [
            &["--loki-user", "ann"][..],
            &["--loki-password-file", "p"],
            &["--loki-token-file", "t", "--loki-user", "ann", "--loki-password-file", "p"],
        ] {
            let line = ["t3-trace"].iter().chain(wrong);
            assert!(Line::try_parse_from(line).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_docs_page_has_every_option_and_no_other() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/EDGE-LOGS.md");
        let page = std::fs::read_to_string(path).unwrap();
        let words: Vec<_> =
            page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).collect();
        let command = Line::command();
        let mut known = Vec::new();
        for option in command.get_arguments() {
            known.extend(option.get_long().map(|name| format!("--{name}")));
            known.extend(option.get_env().map(|name| name.to_string_lossy().into_owned()));
        }
        for name in &known {
            assert!(words.contains(&name.as_str()), "the page lacks {name}");
        }
        let options = words.iter().filter(|word| {
            word.starts_with("--") && word.len() > 2 && !word.starts_with("---") || word.starts_with("T3_")
        });
        for word in options {
            assert!(known.iter().any(|name| name == word), "the page has the unknown {word}");
        }
    }
}
