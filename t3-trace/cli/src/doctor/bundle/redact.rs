//! Takes users, addresses and credentials out of running text. Pure. Errs on the side of taking out
//! too much: a report that says less can be asked about, one that says too much cannot be called
//! back.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

const REMOVED: &str = "[removed]";
/// What a word that is followed by a credential contains, in lower case.
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
/// A run of letters and digits from here on is no name that this program gives.
const LONG: usize = 20;

/// Knows who is who: the same name gets the same number throughout.
#[derive(Debug, Clone)]
pub(super) struct Redactor {
    /// In lower case, by name.
    users: BTreeMap<String, usize>,
    addresses: BTreeMap<IpAddr, usize>,
}

impl Redactor {
    /// These names are known to be somebody's; others are met in records.
    pub(super) fn new(names: BTreeSet<String>) -> Self {
        let names = names.into_iter().filter(|name| !name.is_empty()).enumerate();
        let users = names.map(|(n, name)| (name.to_lowercase(), n + 1)).collect();
        Self { users, addresses: BTreeMap::new() }
    }

    /// A user by another name.
    pub(super) fn user(&mut self, name: &str) -> String {
        let next = self.users.len() + 1;
        format!("user-{}", self.users.entry(name.to_lowercase()).or_insert(next))
    }

    /// An address by another name.
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

    /// A text without them.
    pub(super) fn text(&mut self, text: &str) -> String {
        let mut out = String::new();
        // Something announced a credential: nothing of the line is kept from there on, how many
        // words it may have.
        let mut secret = false;
        for piece in pieces(text) {
            if !piece.starts_with(in_word) {
                secret &= !piece.contains('\n');
                out.push_str(piece);
            } else if secret {
                out.push_str(if piece.bytes().all(|b| b.is_ascii_punctuation()) { piece } else { REMOVED });
            } else {
                let announces = announces(piece);
                out.push_str(&self.word(piece, announces));
                // A query string is whole within its word.
                secret = announces && !piece.contains('?');
            }
        }
        out
    }

    fn word(&mut self, word: &str, announces: bool) -> String {
        if let Some((before, query)) = word.split_once('?')
            && !query.is_empty()
        {
            return format!("{}?{REMOVED}", self.word(before, self::announces(before)));
        }
        if announces {
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

    /// An address, with its port or prefix length or in brackets.
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

    /// Long runs of letters with digits are keys of something.
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

    /// Names, wherever they stand between other than letters and digits; the longest first.
    fn names(&self, word: &str) -> String {
        let mut names: Vec<_> = self.users.iter().collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        let mut word = word.to_owned();
        for (name, number) in names {
            let mut from = 0;
            while let Some(at) = find_from(&word, name, from) {
                let end = at + name.len();
                let apart = |c: Option<char>| !c.is_some_and(char::is_alphanumeric);
                if apart(word[..at].chars().next_back()) && apart(word[end..].chars().next()) {
                    let stand_in = format!("user-{number}");
                    word.replace_range(at..end, &stand_in);
                    from = at + stand_in.len();
                } else {
                    from = end;
                }
            }
        }
        word
    }
}

fn announces(word: &str) -> bool {
    let word = word.to_lowercase();
    SECRETS.iter().any(|secret| word.contains(secret))
}

/// Where `name` (in lower case) begins in `word`, whatever case it has there.
fn find_from(word: &str, name: &str, from: usize) -> Option<usize> {
    let starts = word[from..].char_indices().map(|(at, _)| from + at);
    starts
        .into_iter()
        .find(|at| word.get(*at..*at + name.len()).is_some_and(|part| part.to_lowercase() == name))
}

/// What words are made of: everything but blanks, quotes, brackets and commas.
fn in_word(c: char) -> bool {
    !c.is_whitespace()
        && !matches!(c, '"' | '\'' | '`' | ',' | ';' | '(' | ')' | '{' | '}' | '[' | ']' | '<' | '>' | '|')
}

/// Words and what is between them, in turn.
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
