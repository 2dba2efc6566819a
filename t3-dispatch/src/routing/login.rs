//! Logins that a request can have. Pure.

/// Maximum length of a login, in bytes.
pub const LONGEST_LOGIN: usize = 256;

/// Reason why no request can have a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    #[error("more than one")]
    Several,
    #[error("a login must not be empty")]
    Empty,
    #[error("a login has at most {LONGEST_LOGIN} bytes")]
    Long,
    /// A comma separates the values of a list (RFC 9110 section 5.6.1).
    #[error("a login must not contain a comma")]
    List,
    /// Header values are trimmed (RFC 9110 section 5.5).
    #[error("a login must not have surrounding spaces, control characters or characters outside ASCII")]
    Character,
    #[error("a login must have at most one @, and text on both sides of it")]
    At,
}

/// Checks a login in a header or in the routing table.
///
/// # Errors
/// [`LoginError`]: no request can have it.
pub fn check_login(login: &str) -> Result<(), LoginError> {
    if login.is_empty() {
        return Err(LoginError::Empty);
    }
    if login.len() > LONGEST_LOGIN {
        return Err(LoginError::Long);
    }
    if login.trim() != login || login.contains(|c: char| c.is_control() || !c.is_ascii()) {
        return Err(LoginError::Character);
    }
    if login.contains(',') {
        return Err(LoginError::List);
    }
    match login.split_once('@') {
        Some((local, domain)) if local.is_empty() || domain.is_empty() || domain.contains('@') => {
            Err(LoginError::At)
        }
        _ => Ok(()),
    }
}
