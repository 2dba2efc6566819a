//! A scanner for Rust source: tokens with their lines, enough to read paths, comments and strings.

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Counted from 1; of its first character.
    pub line: usize,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An identifier or keyword, without `r#`.
    Ident(String),
    /// Any other single character of code.
    Punct(char),
    /// A string or byte string literal, without quotes; escapes are not decoded.
    Text(String),
    /// A comment with its slashes, to the end of the line or of the block.
    Comment(String),
    /// A number, character or lifetime.
    Other,
}

impl Token {
    pub fn is(&self, punct: char) -> bool {
        self.kind == Kind::Punct(punct)
    }

    pub fn ident(&self) -> Option<&str> {
        match &self.kind {
            Kind::Ident(name) => Some(name),
            _ => None,
        }
    }
}

/// All tokens of a file, comments included.
pub fn tokens(text: &str) -> Vec<Token> {
    Scanner { chars: text.chars().collect(), at: 0, line: 1 }.run()
}

/// The tokens of code that is not compiled only for tests: no comments, no item under
/// `#[cfg(test)]`, nothing of a file under `#![cfg(test)]`.
pub fn product_code(text: &str) -> Vec<Token> {
    let mut code = tokens(text);
    code.retain(|token| !matches!(token.kind, Kind::Comment(_)));
    let mut kept = Vec::with_capacity(code.len());
    let mut at = 0;
    while at < code.len() {
        if is_test_attribute(&code[at..], true) {
            return Vec::new();
        }
        if is_test_attribute(&code[at..], false) {
            at = end_of_item(&code, at);
        } else {
            kept.push(code[at].clone());
            at += 1;
        }
    }
    kept
}

/// `#[cfg(test)]`, `#[cfg(all(test, …` or, for a whole file, `#![cfg(test)]`.
fn is_test_attribute(code: &[Token], inner: bool) -> bool {
    let mut rest = code.iter();
    let mut punct = |c: char| rest.next().is_some_and(|token| token.is(c));
    if !punct('#') || (inner && !punct('!')) || !punct('[') {
        return false;
    }
    let mut words = rest.clone();
    let mut ident = |name: &str| words.next().is_some_and(|token| token.ident() == Some(name));
    let plain = ident("cfg") && words.next().is_some_and(|token| token.is('('));
    if !plain {
        return false;
    }
    match words.next().and_then(Token::ident) {
        Some("test") => true,
        Some("all") => {
            words.next().is_some_and(|token| token.is('('))
                && words.next().and_then(Token::ident) == Some("test")
        }
        _ => false,
    }
}

/// The index after the item whose attribute is at `at`: after its `;`, or the brace that closes it.
fn end_of_item(code: &[Token], mut at: usize) -> usize {
    let mut depth = 0_usize;
    // Attributes have brackets, too; the item begins after the last of them.
    while code.get(at).is_some_and(|token| token.is('#')) {
        at += 1;
        loop {
            match code.get(at).map(|token| &token.kind) {
                Some(Kind::Punct('[')) => depth += 1,
                Some(Kind::Punct(']')) => depth -= 1,
                None => return at,
                _ => {}
            }
            at += 1;
            if depth == 0 {
                break;
            }
        }
    }
    while let Some(token) = code.get(at) {
        at += 1;
        match token.kind {
            Kind::Punct('{' | '(' | '[') => depth += 1,
            Kind::Punct('}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            Kind::Punct(')' | ']') => depth = depth.saturating_sub(1),
            Kind::Punct(';') if depth == 0 => return at,
            _ => {}
        }
    }
    at
}

struct Scanner {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

impl Scanner {
    fn run(mut self) -> Vec<Token> {
        let mut found = Vec::new();
        while let Some(c) = self.peek(0) {
            let line = self.line;
            let kind = match c {
                c if c.is_whitespace() => {
                    self.take();
                    continue;
                }
                '/' if self.peek(1) == Some('/') => Kind::Comment(self.take_while(|c| c != '\n')),
                '/' if self.peek(1) == Some('*') => Kind::Comment(self.block_comment()),
                '"' => Kind::Text(self.string(0)),
                '\'' => self.char_or_lifetime(),
                c if c.is_ascii_digit() => {
                    self.take_while(|c| c.is_alphanumeric() || c == '_');
                    Kind::Other
                }
                c if c.is_alphabetic() || c == '_' => self.word(),
                c => {
                    self.take();
                    Kind::Punct(c)
                }
            };
            found.push(Token { line, kind });
        }
        found
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek(0)?;
        self.at += 1;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.take();
        }
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek(0).filter(|&c| wanted(c)) {
            text.push(c);
            self.take();
        }
        text
    }

    fn block_comment(&mut self) -> String {
        let mut text = String::new();
        let mut depth = 0_usize;
        while let Some(c) = self.take() {
            text.push(c);
            if c == '/' && self.peek(0) == Some('*') {
                depth += 1;
                text.extend(self.take());
            } else if c == '*' && self.peek(0) == Some('/') {
                depth -= 1;
                text.extend(self.take());
                if depth == 0 {
                    break;
                }
            }
        }
        text
    }

    /// At the opening quote. `hashes`: of a raw string with that many, plus one; 0 has escapes.
    fn string(&mut self, hashes: usize) -> String {
        let mut text = String::new();
        self.take();
        while let Some(c) = self.take() {
            if c == '\\' && hashes == 0 {
                text.push(c);
                text.extend(self.take());
            } else if c == '"' && (1..hashes).all(|n| self.peek(n - 1) == Some('#')) {
                self.skip(hashes.saturating_sub(1));
                break;
            } else {
                text.push(c);
            }
        }
        text
    }

    fn char_or_lifetime(&mut self) -> Kind {
        self.take();
        if self.peek(0) == Some('\\') {
            self.take();
            self.take();
            self.take_while(|c| c != '\'');
            self.take();
        } else if self.peek(1) == Some('\'') {
            self.take();
            self.take();
        } else {
            self.take_while(|c| c.is_alphanumeric() || c == '_');
        }
        Kind::Other
    }

    /// An identifier, or a literal with a prefix (`r#"…"#`, `b'x'`).
    fn word(&mut self) -> Kind {
        let name = self.take_while(|c| c.is_alphanumeric() || c == '_');
        let raw = matches!(name.as_str(), "r" | "br" | "cr");
        match self.peek(0) {
            Some('"') if raw => Kind::Text(self.string(1)),
            Some('"') if matches!(name.as_str(), "b" | "c") => Kind::Text(self.string(0)),
            Some('\'') if name == "b" => self.char_or_lifetime(),
            Some('#') if raw => {
                let hashes = (0..).take_while(|&n| self.peek(n) == Some('#')).count();
                if self.peek(hashes) == Some('"') {
                    self.skip(hashes);
                    Kind::Text(self.string(hashes + 1))
                } else if name == "r" {
                    self.take();
                    Kind::Ident(self.take_while(|c| c.is_alphanumeric() || c == '_'))
                } else {
                    Kind::Ident(name)
                }
            }
            _ => Kind::Ident(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, product_code, tokens};

    fn words(text: &str) -> Vec<String> {
        product_code(text).iter().filter_map(|token| token.ident().map(str::to_owned)).collect()
    }

    #[test]
    fn strings_comments_and_characters_are_not_code() {
        let text = "a \"b // c\" 'd' '\\'' 'e: r#\"f \"g\" \"# b\"h\" /* i /* j */ k */ l // m\nr#type";
        assert_eq!(words(text), ["a", "l", "type"]);
        let texts: Vec<_> = tokens(text).into_iter().filter(|t| matches!(t.kind, Kind::Text(_))).collect();
        assert_eq!(texts[1].kind, Kind::Text("f \"g\" ".to_owned()));
        assert_eq!(tokens(text).last().unwrap().line, 2);
    }

    #[test]
    fn items_for_tests_are_left_out() {
        let text = "fn a() {}\n#[cfg(test)]\n#[path = \"x\"]\nmod b { fn c() { d } }\n#[cfg(test)]\nuse e::f;\nfn g() {}";
        assert_eq!(words(text), ["fn", "a", "fn", "g"]);
        assert_eq!(words("#![cfg(test)]\nfn a() {}"), [""; 0]);
        assert_eq!(words("#[cfg(all(test, unix))]\nfn a() {}\n#[cfg(unix)] fn b() {}").len(), 4);
    }
}
