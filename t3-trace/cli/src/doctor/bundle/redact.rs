//! Removes users, addresses and credentials from text. Pure. Removes too much rather than too
//! little: a missing detail can be requested later.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

const REMOVED: &str = "[removed]";
/// Lower-case parts of words that precede a credential.
const SECRETS: [&str; 13] = [
    "ticket",
    "token",
    "secret",
    "passw",
    "credential",
    "cookie",
    "authorization",
    "bearer",
    "basic",
    "apikey",
    "api_key",
    "api-key",
    "session=",
];
/// Minimum length of a run of letters and digits that is removed.
const LONG: usize = 20;

/// Mapping of names and addresses to numbers: the same name always has the same number.
#[derive(Debug, Clone)]
pub(super) struct Redactor {
    /// Lower-case names.
    users: BTreeMap<String, usize>,
    addresses: BTreeMap<IpAddr, usize>,
}

impl Redactor {
    /// Starts with known names; others are added from records.
    pub(super) fn new(names: BTreeSet<String>) -> Self {
        let names = names.into_iter().filter(|name| !name.is_empty()).enumerate();
        let users = names.map(|(n, name)| (name.to_lowercase(), n + 1)).collect();
        Self { users, addresses: BTreeMap::new() }
    }

    /// Replaces a user.
    pub(super) fn user(&mut self, name: &str) -> String {
        let next = self.users.len() + 1;
        format!("user-{}", self.users.entry(name.to_lowercase()).or_insert(next))
    }

    /// Replaces an address.
    pub(super) fn address(&mut self, text: &str) -> String {
        text.parse().map_or_else(|_| REMOVED.to_owned(), |ip| self.known(ip))
    }

    fn known(&mut self, ip: IpAddr) -> String {
        if ip.is_loopback() || ip.is_unspecified() {
            return ip.to_string();
        }
        let next = self.addresses.len() + 1;
        format!("address-{}", self.addresses.entry(ip).or_insert(next))
    }

    /// Redacts a text.
    pub(super) fn text(&mut self, text: &str) -> String {
        let mut out = String::new();
        // After a keyword of a credential, the rest of the line is removed.
        let mut secret = false;
        for piece in pieces(text) {
            if !piece.starts_with(in_word) {
                secret &= !piece.contains('\n');
                out.push_str(piece);
            } else if secret {
                out.push_str(if piece.bytes().all(|b| b.is_ascii_punctuation()) { piece } else { REMOVED });
            } else {
                let precedes_secret = precedes_secret(piece);
                out.push_str(&self.word(piece, precedes_secret));
                // A query string is complete within its word.
                secret = precedes_secret && !piece.contains('?');
            }
        }
        out
    }

    fn word(&mut self, word: &str, precedes_secret: bool) -> String {
        if let Some((before, query)) = word.split_once('?')
            && !query.is_empty()
        {
            return format!("{}?{REMOVED}", self.word(before, self::precedes_secret(before)));
        }
        if precedes_secret {
            return match word.find(['=', ':']) {
                Some(at) if at + 1 < word.len() => format!("{}{REMOVED}", &word[..=at]),
                _ => word.to_owned(),
            };
        }
        if let Some(address) = self.as_address(word) {
            return address;
        }
        let (user_info, is_url) = match word.split_once("://") {
            Some((_, rest)) => (rest.split('/').next().is_some_and(|host| host.contains('@')), true),
            None => (false, false),
        };
        let mail = !is_url
            && word.split_once('@').is_some_and(|(_, host)| {
                host.contains('.') && !host.trim_end_matches(['.', ':']).ends_with(".service")
            });
        if user_info || mail {
            return REMOVED.to_owned();
        }
        self.names(&self.without_long(word))
    }

    /// Replaces an address, also with port, prefix length or brackets.
    fn as_address(&mut self, word: &str) -> Option<String> {
        let bare = word.trim_end_matches(['.', ':']);
        let tail = &word[bare.len()..];
        if let Ok(socket) = bare.parse::<SocketAddr>() {
            return Some(format!("{}:{}{tail}", self.known(socket.ip()), socket.port()));
        }
        let (ip, prefix) = bare.split_once('/').unwrap_or((bare, ""));
        let ip: IpAddr = ip.parse().ok()?;
        let slash = if prefix.is_empty() { "" } else { "/" };
        let prefix = if prefix.bytes().all(|b| b.is_ascii_digit()) { prefix } else { REMOVED };
        Some(format!("{}{slash}{prefix}{tail}", self.known(ip)))
    }

    /// Removes long runs of letters with digits: probably keys.
    fn without_long(&self, word: &str) -> String {
        let is_run = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let mut out = String::new();
        let mut rest = word;
        while !rest.is_empty() {
            let end = rest.find(|c| !is_run(c)).unwrap_or(rest.len());
            let (run, after) = rest.split_at(end);
            let mixed =
                run.bytes().any(|b| b.is_ascii_digit()) && run.bytes().any(|b| b.is_ascii_alphabetic());
            out.push_str(if run.len() >= LONG && mixed { REMOVED } else { run });
            let end = after.find(is_run).unwrap_or(after.len());
            let (between, after) = after.split_at(end);
            out.push_str(between);
            rest = after;
        }
        out
    }

    /// Replaces names between characters other than letters and digits; the longest first.
    fn names(&self, word: &str) -> String {
        let mut names: Vec<_> = self.users.iter().collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        let mut word = word.to_owned();
        for (name, number) in names {
            let mut from = 0;
            while let Some(at) = find_from(&word, name, from) {
                let end = at + name.len();
                let separate = |c: Option<char>| !c.is_some_and(char::is_alphanumeric);
                if separate(word[..at].chars().next_back()) && separate(word[end..].chars().next()) {
                    let replacement = format!("user-{number}");
                    word.replace_range(at..end, &replacement);
                    from = at + replacement.len();
                } else {
                    from = end;
                }
            }
        }
        word
    }
}

fn precedes_secret(word: &str) -> bool {
    let word = word.to_lowercase();
    SECRETS.iter().any(|secret| word.contains(secret))
}

/// Position of `name` (in lower case) in `word`, in any case.
fn find_from(word: &str, name: &str, from: usize) -> Option<usize> {
    let starts = word[from..].char_indices().map(|(at, _)| from + at);
    starts
        .into_iter()
        .find(|at| word.get(*at..*at + name.len()).is_some_and(|part| part.to_lowercase() == name))
}

/// Characters of words: all except spaces, quotes, brackets and commas.
fn in_word(c: char) -> bool {
    !c.is_whitespace()
        && !matches!(c, '"' | '\'' | '`' | ',' | ';' | '(' | ')' | '{' | '}' | '[' | ']' | '<' | '>' | '|')
}

/// Words and separators in turn.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let kind = in_word(first);
        let end = rest.find(|c| in_word(c) != kind).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}
