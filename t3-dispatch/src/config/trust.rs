//! Trust settings from the options: resolves users and reads the secret file.

use std::{fs, io::Read, os::unix::fs::MetadataExt, path::Path, path::PathBuf};

use crate::{
    cli::TrustOptions,
    routing::trust::{ProxySecrets, Trust, TrustedHops},
    sys::{socket_owner::OVERFLOW_UID, users},
};

/// Maximum size of the secret file, in bytes.
const LARGEST_FILE: u64 = 16 << 10;

/// Error of the trust settings.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("`trusted-user` {0:?} is not a user of this host (passwd(5)); use the name or the uid")]
    UnknownUser(String),
    /// The kernel reports this uid for users that it cannot name.
    #[error("`trusted-user` {0:?} has uid {OVERFLOW_UID}, which can stand for any user")]
    Overflow(String),
    #[error("cannot read `proxy-secret-file` {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`proxy-secret-file` {path}: {what}")]
    Secret { path: PathBuf, what: String },
}

/// Loads the trust settings. Returns all errors.
///
/// # Errors
/// At least one [`TrustError`].
pub fn load(options: &TrustOptions) -> Result<Trust, Vec<TrustError>> {
    let mut errors = Vec::new();
    let mut keep = |result: Result<u32, TrustError>| result.map_err(|error| errors.push(error)).ok();
    let users = options.trusted_user.iter().filter_map(|name| keep(uid(name))).collect();
    let secrets = match options.proxy_secret_file.path().map(secrets).transpose() {
        Ok(secrets) => secrets,
        Err(error) => {
            errors.push(error);
            None
        }
    };
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Trust {
        hops: TrustedHops { networks: options.trusted_proxy.clone(), users, secrets },
        hosts: options.host.clone(),
        login_domains: options.login_domain.clone(),
        client_ip_header: options.client_ip_header.0.clone(),
    })
}

fn uid(name: &str) -> Result<u32, TrustError> {
    let uid = name.parse().ok().or_else(|| users::uid_of(name));
    match uid.ok_or_else(|| TrustError::UnknownUser(name.to_owned()))? {
        OVERFLOW_UID => Err(TrustError::Overflow(name.to_owned())),
        uid => Ok(uid),
    }
}

fn secrets(path: &Path) -> Result<ProxySecrets, TrustError> {
    let failed = |source| TrustError::Read { path: path.to_owned(), source };
    let wrong = |what: String| TrustError::Secret { path: path.to_owned(), what };
    let about = fs::metadata(path).map_err(failed)?;
    if !about.is_file() {
        return Err(wrong("is not a regular file".to_owned()));
    }
    if about.mode() & 0o004 != 0 {
        return Err(wrong("every local user can read it; run chmod o-rwx".to_owned()));
    }
    let mut text = String::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(LARGEST_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(wrong(format!("is larger than {LARGEST_FILE} bytes")));
    }
    ProxySecrets::parse(&text).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn loaded(options: &[&str]) -> Result<Trust, String> {
        let all = ["t3-dispatch", "serve"].iter().chain(options);
        let options = Cli::parse_from(all).command.options();
        load(&options.trust).map_err(|errors| errors.iter().map(|error| format!("{error}\n")).collect())
    }

    #[test]
    fn root_alone_is_trusted_by_default() {
        let trust = loaded(&[]).unwrap();
        assert_eq!((trust.hops.users, trust.hops.networks), (vec![0], Vec::new()));
        assert_eq!(loaded(&["--trusted-user", "998,root"]).unwrap().hops.users, [998, 0]);
        for (name, what) in [
            ("no-such-user", "is not a user of this host"),
            ("", "is not a user of this host"),
            ("-1", "is not a user of this host"),
            ("65534", "can stand for any user"),
            ("nobody", "can stand for any user"),
        ] {
            let error = loaded(&[&format!("--trusted-user={name}")]).unwrap_err();
            assert!(error.contains(what), "{name}: {error}");
        }
    }

    #[test]
    fn a_secret_that_everybody_can_read_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let load = || loaded(&["--proxy-secret-file", path.to_str().unwrap()]);
        assert!(load().unwrap_err().contains("cannot read"));
        fs::write(&path, "a-secret-of-the-proxy\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load().unwrap_err().contains("every local user can read it"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load().unwrap().hops.secrets.is_some());
        fs::write(&path, "x".repeat(20_000)).unwrap();
        assert!(load().unwrap_err().contains("is larger than"));
        assert!(loaded(&["--proxy-secret-file", "/dev/null"]).unwrap_err().contains("regular file"));
    }
}
