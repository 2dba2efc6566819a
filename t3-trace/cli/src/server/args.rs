//! Options of Loki as a server. A password is read from a file, never from the command line.

use std::path::PathBuf;

use clap::Args;

/// Address and credentials of Loki.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Loki")]
#[allow(rustdoc::bare_urls, reason = "the text is the help, where angle brackets would be part of it")]
pub struct LokiArgs {
    /// Loki, for example https://loki.example.org: the records of all hosts with --from loki, and for
    /// explain the logs of Traefik, cloudflared and others around the close.
    #[arg(long, value_name = "URL", env = "T3_LOKI_URL", hide_env_values = true)]
    pub loki: Option<String>,
    /// Tenant of Loki (X-Scope-OrgID).
    #[arg(long, value_name = "TENANT", env = "T3_LOKI_TENANT")]
    pub loki_tenant: Option<String>,
    /// File with a bearer token for Loki.
    #[arg(long, value_name = "FILE", env = "T3_LOKI_TOKEN_FILE", conflicts_with = "loki_user")]
    pub loki_token_file: Option<PathBuf>,
    /// User of Loki; requires --loki-password-file.
    #[arg(long, value_name = "USER", env = "T3_LOKI_USER", requires = "loki_password_file")]
    pub loki_user: Option<String>,
    /// File with the password of that user.
    #[arg(
        long,
        value_name = "FILE",
        env = "T3_LOKI_PASSWORD_FILE",
        requires = "loki_user",
        conflicts_with = "loki_token_file"
    )]
    pub loki_password_file: Option<PathBuf>,
    /// File with request headers for Loki, one per line, for example "CF-Access-Client-Id: ...".
    #[arg(long, value_name = "FILE", env = "T3_LOKI_HEADER_FILE")]
    pub loki_header_file: Option<PathBuf>,
    /// CA certificates (PEM) to trust in addition to those of the system.
    #[arg(long, value_name = "FILE", env = "T3_LAYER_CA")]
    pub layer_ca: Option<PathBuf>,
}
