//! Modules, names and paths of one source file.

use std::collections::{BTreeMap, BTreeSet};

use crate::tiers::rules::source::{Kind, Token};

/// One module, as far as one file says.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Modules in files of their own, with the `#[path]` if there is one.
    pub files: Vec<(String, Option<String>)>,
    /// Modules in braces.
    pub inline: Vec<(String, Module)>,
    /// Names of items defined here.
    pub items: BTreeSet<String>,
    /// Names that `use` brings, with the path of each.
    pub uses: BTreeMap<String, Vec<String>>,
    /// Paths that end in `*`.
    pub globs: Vec<Vec<String>>,
    /// Paths in code, those of `pub use` left out, with their lines.
    pub paths: Vec<(Vec<String>, usize)>,
}

const ITEMS: [&str; 8] = ["fn", "struct", "enum", "trait", "type", "const", "static", "union"];

/// Reads code without comments ([`super::super::source::product_code`]).
pub fn parse(code: &[Token]) -> Module {
    let mut parser = Parser { code, at: 0, path_attribute: None };
    parser.module()
}

struct Parser<'a> {
    code: &'a [Token],
    at: usize,
    path_attribute: Option<String>,
}

impl Parser<'_> {
    fn ident(&self, ahead: usize) -> Option<&str> {
        self.code.get(self.at + ahead)?.ident()
    }

    fn is(&self, ahead: usize, punct: char) -> bool {
        self.code.get(self.at + ahead).is_some_and(|token| token.is(punct))
    }

    fn before(&self, back: usize) -> Option<&Token> {
        self.code.get(self.at.checked_sub(back)?)
    }

    /// To the end, or the brace that closes the module.
    fn module(&mut self) -> Module {
        let mut module = Module::default();
        let mut depth = 0_usize;
        while let Some(token) = self.code.get(self.at) {
            let line = token.line;
            match &token.kind {
                Kind::Punct('{') => depth += 1,
                Kind::Punct('}') if depth == 0 => {
                    self.at += 1;
                    return module;
                }
                Kind::Punct('}') => depth -= 1,
                Kind::Punct('#') if self.is(1, '[') && self.ident(2) == Some("path") && self.is(3, '=') => {
                    if let Some(Kind::Text(path)) = self.code.get(self.at + 4).map(|token| &token.kind) {
                        self.path_attribute = Some(path.clone());
                    }
                }
                Kind::Ident(word) => {
                    let word = word.as_str();
                    if word == "mod"
                        && depth == 0
                        && self.ident(1).is_some()
                        && (self.is(2, ';') || self.is(2, '{'))
                    {
                        let name = self.ident(1).unwrap_or_default().to_owned();
                        let path = self.path_attribute.take();
                        let inline = self.is(2, '{');
                        self.at += 3;
                        if inline {
                            module.inline.push((name, self.module()));
                        } else {
                            module.files.push((name, path));
                        }
                        continue;
                    }
                    if word == "use" {
                        let public = self.before(1).is_some_and(|t| t.is(')') || t.ident() == Some("pub"));
                        self.at += 1;
                        self.use_tree(&mut module, depth == 0, public, line);
                        continue;
                    }
                    if word == "macro_rules" && self.is(1, '!') {
                        module.items.extend(self.ident(2).map(str::to_owned));
                    }
                    if depth == 0 && ITEMS.contains(&word) {
                        module.items.extend(self.ident(1).map(str::to_owned));
                    }
                    if self.is(1, ':') && self.is(2, ':') && !self.follows_path() && !self.is_visibility() {
                        let path = self.inline_path();
                        module.paths.push((path, line));
                        continue;
                    }
                }
                _ => {}
            }
            self.at += 1;
        }
        module
    }

    fn follows_path(&self) -> bool {
        self.before(1).is_some_and(|token| token.is(':')) && self.before(2).is_some_and(|token| token.is(':'))
    }

    /// `pub(in crate::a)`.
    fn is_visibility(&self) -> bool {
        self.before(1).and_then(Token::ident) == Some("in")
            && self.before(2).is_some_and(|token| token.is('('))
    }

    fn inline_path(&mut self) -> Vec<String> {
        let mut path = vec![self.ident(0).unwrap_or_default().to_owned()];
        self.at += 1;
        while self.is(0, ':') && self.is(1, ':') {
            let Some(name) = self.ident(2) else { break };
            path.push(name.to_owned());
            self.at += 3;
        }
        path
    }

    fn use_tree(&mut self, module: &mut Module, at_top: bool, public: bool, line: usize) {
        let mut found = Vec::new();
        self.use_branch(&[], &mut found);
        for (path, alias, glob) in found {
            if glob {
                if at_top {
                    module.globs.push(path.clone());
                }
            } else if at_top {
                module.uses.insert(alias, path.clone());
            }
            if !public {
                module.paths.push((path, line));
            }
        }
    }

    /// One path of a `use`, or of a group in it; stops after `,`, `}` or `;`.
    fn use_branch(&mut self, prefix: &[String], found: &mut Vec<(Vec<String>, String, bool)>) {
        let mut path = prefix.to_vec();
        let mut alias = None;
        let mut done = false;
        while let Some(token) = self.code.get(self.at) {
            self.at += 1;
            match &token.kind {
                Kind::Ident(word) if word == "as" => {
                    alias = self.ident(0).map(str::to_owned);
                    self.at += 1;
                }
                // `a::{self}` is the path of `a`.
                Kind::Ident(word) if word == "self" && !path.is_empty() => {}
                Kind::Ident(word) => path.push(word.clone()),
                Kind::Punct('*') => {
                    found.push((path.clone(), String::new(), true));
                    done = true;
                }
                Kind::Punct('{') => {
                    done = true;
                    while !self.is(0, '}') && self.at < self.code.len() {
                        self.use_branch(&path, found);
                        if self.is(0, ',') {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                }
                Kind::Punct(',' | '}') if !prefix.is_empty() || !done => {
                    self.at -= 1;
                    break;
                }
                Kind::Punct(';') => break,
                _ => {}
            }
        }
        if !done && let Some(last) = path.last() {
            let name = alias.unwrap_or_else(|| last.clone());
            found.push((path, name, false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Module, parse};
    use crate::tiers::rules::source::product_code;

    fn parsed(text: &str) -> Module {
        parse(&product_code(text))
    }

    fn paths(module: &Module) -> Vec<String> {
        module.paths.iter().map(|(path, _)| path.join("::")).collect()
    }

    #[test]
    fn groups_and_aliases_of_use_are_read() {
        let module = parsed("use crate::{a::{self, B as C}, d::*, e};\nuse super::f;\nfn g() { h::i(); }");
        assert_eq!(paths(&module), ["crate::a", "crate::a::B", "crate::d", "crate::e", "super::f", "h::i"]);
        assert_eq!(module.uses["C"], ["crate", "a", "B"]);
        assert_eq!(module.globs, [["crate", "d"]]);
        assert!(module.items.contains("g"));
    }

    #[test]
    fn modules_are_in_files_or_in_braces() {
        let module = parsed(
            "mod a;\n#[path = \"x/y.rs\"]\npub mod b;\nmod c { pub use super::D; fn e() {} }\nfn f() {}",
        );
        assert_eq!(module.files[1], ("b".to_owned(), Some("x/y.rs".to_owned())));
        assert!(module.inline[0].1.items.contains("e") && module.items.contains("f"));
        assert!(module.inline[0].1.paths.is_empty(), "pub use does not count");
    }

    #[test]
    fn a_visibility_is_no_import() {
        assert!(paths(&parsed("pub(in crate::a) fn b() {}")).is_empty());
        assert_eq!(paths(&parsed("fn b() { for x in (crate::a::c()) {} }")).len(), 1);
        assert_eq!(paths(&parsed("fn b() { for x in crate::a::c() {} }")).len(), 1);
    }
}
