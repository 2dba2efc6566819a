//! A server to query: address and credentials. Secrets come from files, are marked as sensitive for
//! hyper, and never appear in an error.

use std::{fs, path::Path};

use data_encoding::BASE64;
use http::{HeaderName, HeaderValue, Uri, header::AUTHORIZATION};

use super::LokiArgs;

/// Loki's and Mimir's tenant.
const TENANT: HeaderName = HeaderName::from_static("x-scope-orgid");

/// Invalid options of a server.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("--{option} is not an http or https URL; for example https://{option}.example.org")]
    Url { option: &'static str },
    /// A password in the URL would appear in logs and process lists.
    #[error("--{option} contains a password; use --{option}-user and --{option}-password-file")]
    Password { option: &'static str },
    #[error("cannot read {path} for --{option}-{what}-file: {why}")]
    File { option: &'static str, what: &'static str, path: String, why: String },
    #[error("cannot send {what} of --{option} in a header: it is empty or has control characters")]
    Header { option: &'static str, what: &'static str },
}

/// A server to query.
pub(crate) struct Source {
    /// `Loki` or `Prometheus`.
    pub name: &'static str,
    /// Its option, without dashes.
    pub option: &'static str,
    /// Base of its API.
    pub url: Uri,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Values that must never be shown.
    secrets: Vec<String>,
}

/// Options of one server.
pub(crate) struct ServerOptions<'a> {
    pub name: &'static str,
    pub option: &'static str,
    pub url: &'a str,
    pub tenant: Option<&'a str>,
    pub token: Option<&'a Path>,
    pub user: Option<(&'a str, &'a Path)>,
    pub headers: Option<&'a Path>,
}

impl Source {
    /// Returns Loki if its option is set.
    pub(crate) fn loki(args: &LokiArgs) -> Option<Result<Self, SourceError>> {
        Some(Self::of(ServerOptions {
            name: "Loki",
            option: "loki",
            url: args.loki.as_deref()?,
            tenant: args.loki_tenant.as_deref(),
            token: args.loki_token_file.as_deref(),
            user: args.loki_user.as_deref().zip(args.loki_password_file.as_deref()),
            headers: args.loki_header_file.as_deref(),
        }))
    }

    /// # Errors
    /// An option cannot be used.
    pub(crate) fn of(options: ServerOptions<'_>) -> Result<Self, SourceError> {
        let option = options.option;
        if options.url.contains('@') {
            return Err(SourceError::Password { option });
        }
        let url = options.url.parse::<Uri>().ok();
        let url =
            url.filter(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some());
        let url = url.filter(|url| url.query().is_none()).ok_or(SourceError::Url { option })?;
        let mut source = Self { name: options.name, option, url, headers: Vec::new(), secrets: Vec::new() };
        if let Some(tenant) = options.tenant {
            let tenant = HeaderValue::from_str(tenant)
                .map_err(|_| SourceError::Header { option, what: "the tenant" })?;
            source.headers.push((TENANT, tenant));
        }
        if let Some(path) = options.token {
            let token = read(option, "token", path)?;
            source.secret(AUTHORIZATION, &format!("Bearer {token}"), &token, "the token")?;
        }
        if let Some((user, path)) = options.user {
            let password = read(option, "password", path)?;
            let both = BASE64.encode(format!("{user}:{password}").as_bytes());
            source.secrets.push(password);
            source.secret(AUTHORIZATION, &format!("Basic {both}"), &both, "the password")?;
        }
        if let Some(path) = options.headers {
            let text = read(option, "header", path)?;
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                let bad = SourceError::Header { option, what: "a line (NAME: VALUE) of the header file" };
                let Some((name, value)) = line.split_once(':') else { return Err(bad) };
                let Ok(name) = name.trim().parse::<HeaderName>() else { return Err(bad) };
                source.secret(name, value.trim(), value.trim(), "a header")?;
            }
        }
        Ok(source)
    }

    fn secret(
        &mut self,
        name: HeaderName,
        value: &str,
        secret: &str,
        what: &'static str,
    ) -> Result<(), SourceError> {
        let bad = SourceError::Header { option: self.option, what };
        if secret.is_empty() {
            return Err(bad);
        }
        let mut value = HeaderValue::from_str(value).map_err(|_| bad)?;
        value.set_sensitive(true);
        self.secrets.push(secret.to_owned());
        self.headers.push((name, value));
        Ok(())
    }

    /// Name and address for messages.
    pub(crate) fn place(&self) -> String {
        format!("{} at {}", self.name, self.url.to_string().trim_end_matches('/'))
    }

    /// Removes our secrets from a text of the server, which may echo a header.
    pub(crate) fn shown(&self, text: &str) -> String {
        let all = self.secrets.iter().filter(|secret| !secret.is_empty());
        all.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "…"))
    }
}

/// Reads a file without leading and trailing blanks.
fn read(option: &'static str, what: &'static str, path: &Path) -> Result<String, SourceError> {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|error| SourceError::File {
        option,
        what,
        path: path.display().to_string(),
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &tempfile::TempDir, text: &str) -> std::path::PathBuf {
        let path = dir.path().join(format!("{}", text.len()));
        fs::write(&path, text).unwrap();
        path
    }

    fn loki(change: impl FnOnce(&mut LokiArgs)) -> Result<Source, SourceError> {
        let mut args = LokiArgs { loki: Some("http://loki.test:3100/x/".to_owned()), ..LokiArgs::default() };
        change(&mut args);
        Source::loki(&args).unwrap()
    }

    fn header(source: &Source, name: &str) -> String {
        let found = source.headers.iter().find(|(other, _)| other == name).unwrap();
        found.1.to_str().unwrap().to_owned()
    }

    #[test]
    fn credentials_come_from_files_and_are_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let token = loki(|args| args.loki_token_file = Some(file(&dir, "s3cret\n"))).unwrap();
        assert_eq!(header(&token, "authorization"), "Bearer s3cret");
        assert!(!format!("{:?}", token.headers).contains("s3cret"));
        assert_eq!(token.shown("Bearer s3cret is unknown"), "Bearer … is unknown");
        let user = loki(|args| {
            args.loki_user = Some("ann".to_owned());
            args.loki_password_file = Some(file(&dir, "pass word"));
            args.loki_tenant = Some("t3".to_owned());
        })
        .unwrap();
        assert_eq!(header(&user, "authorization"), format!("Basic {}", BASE64.encode(b"ann:pass word")));
        assert_eq!(header(&user, "x-scope-orgid"), "t3");
        assert_eq!(user.shown("no pass word here"), "no … here");
        let headers =
            loki(|args| args.loki_header_file = Some(file(&dir, "A-B: one\n\nC: two three\n"))).unwrap();
        assert_eq!(
            (header(&headers, "a-b"), header(&headers, "c")),
            ("one".to_owned(), "two three".to_owned())
        );
        assert_eq!(headers.place(), "Loki at http://loki.test:3100/x");
    }

    #[test]
    fn errors_do_not_contain_secrets() {
        let dir = tempfile::tempdir().unwrap();
        for (change, said) in [
            (
                &(|args: &mut LokiArgs| args.loki = Some("loki:3100".to_owned())) as &dyn Fn(&mut LokiArgs),
                "--loki is not an http",
            ),
            (&|args| args.loki = Some("ftp://loki".to_owned()), "--loki is not an http"),
            (&|args| args.loki = Some("http://ann:s3cret@loki".to_owned()), "--loki contains a password"),
            (
                &|args| args.loki_token_file = Some(dir.path().join("nowhere")),
                "nowhere for --loki-token-file",
            ),
            (&|args| args.loki_token_file = Some(file(&dir, "")), "cannot send the token of --loki"),
            (&|args| args.loki_token_file = Some(file(&dir, "s3cret\nx")), "cannot send the token of --loki"),
            (&|args| args.loki_header_file = Some(file(&dir, "s3cret s3cret")), "NAME: VALUE"),
            (&|args| args.loki_tenant = Some("a\nb".to_owned()), "cannot send the tenant of --loki"),
        ] {
            let error = loki(change).err().unwrap().to_string();
            assert!(error.contains(said) && !error.contains("s3cret"), "{error}");
        }
    }
}
