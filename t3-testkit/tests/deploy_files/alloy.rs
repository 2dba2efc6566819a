//! Parser for the part of Alloy's configuration language that the deployed file uses: blocks with
//! labels, attributes with texts, lists, maps and references. Anything else is an error.

use std::{collections::BTreeMap, iter::Peekable, str::Chars};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `"text"`.
    Text(String),
    /// `[a, b]`.
    List(Vec<Value>),
    /// `{ a = b }`.
    Map(BTreeMap<String, Value>),
    /// `loki.write.loki.receiver`.
    Reference(String),
}

#[derive(Debug, Default)]
pub struct Block {
    /// `loki.source.journal`.
    pub name: String,
    /// `"devvm"`.
    pub label: Option<String>,
    /// Attributes by name.
    pub attributes: BTreeMap<String, Value>,
    /// Nested blocks.
    pub blocks: Vec<Block>,
}

impl Block {
    /// Nested blocks with this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Block> {
        self.blocks.iter().filter(move |block| block.name == name)
    }

    /// The text of an attribute.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Parses a file.
pub fn read(text: &str) -> Result<Block, String> {
    let mut reader = Reader { rest: text.chars().peekable(), line: 1 };
    let mut file = Block::default();
    reader.body(&mut file, false).map_err(|error| format!("line {}: {error}", reader.line))?;
    Ok(file)
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    /// Peeks at the next character outside of blanks and comments.
    fn peek(&mut self) -> Option<char> {
        while let Some(&c) = self.rest.peek() {
            if c == '/' {
                while self.next().is_some_and(|c| c != '\n') {}
            } else if c.is_whitespace() {
                self.next();
            } else {
                return Some(c);
            }
        }
        None
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        match self.peek() {
            Some(c) if c == wanted => {
                self.next();
                Ok(())
            }
            other => Err(format!("{other:?} instead of {wanted:?}")),
        }
    }

    fn accept(&mut self, wanted: char) -> bool {
        self.peek() == Some(wanted) && self.next().is_some()
    }

    fn name(&mut self) -> Result<String, String> {
        self.peek();
        let mut name = String::new();
        while let Some(&c) = self.rest.peek() {
            if !(c.is_ascii_alphanumeric() || c == '_' || c == '.') {
                break;
            }
            name.push(c);
            self.next();
        }
        let proper = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if proper { Ok(name) } else { Err(format!("{:?} instead of a name", self.rest.peek())) }
    }

    fn text(&mut self) -> Result<String, String> {
        self.expect('"')?;
        let mut text = String::from('"');
        loop {
            let c = self.next().filter(|c| *c != '\n').ok_or("a text without an end")?;
            text.push(c);
            match c {
                '\\' => text.extend(self.next()),
                '"' => return serde_json::from_str(&text).map_err(|error| format!("{text}: {error}")),
                _ => {}
            }
        }
    }

    fn body(&mut self, block: &mut Block, inner: bool) -> Result<(), String> {
        loop {
            match self.peek() {
                None if !inner => return Ok(()),
                Some('}') if inner => return self.expect('}'),
                _ => {}
            }
            let name = self.name()?;
            if self.accept('=') {
                let value = self.value()?;
                if block.attributes.insert(name.clone(), value).is_some() {
                    return Err(format!("{name} is set twice"));
                }
                continue;
            }
            let label = if self.peek() == Some('"') { Some(self.text()?) } else { None };
            self.expect('{')?;
            let mut child = Block { name, label, ..Block::default() };
            self.body(&mut child, true)?;
            block.blocks.push(child);
        }
    }

    fn value(&mut self) -> Result<Value, String> {
        match self.peek() {
            Some('"') => self.text().map(Value::Text),
            Some('[') => {
                self.expect('[')?;
                let mut members = Vec::new();
                while !self.accept(']') {
                    members.push(self.value()?);
                    if !self.accept(',') {
                        self.expect(']')?;
                        break;
                    }
                }
                Ok(Value::List(members))
            }
            Some('{') => {
                self.expect('{')?;
                let mut members = BTreeMap::new();
                while !self.accept('}') {
                    let name = self.name()?;
                    self.expect('=')?;
                    let value = self.value()?;
                    if members.insert(name.clone(), value).is_some() {
                        return Err(format!("duplicate key {name} in a map"));
                    }
                    if !self.accept(',') {
                        self.expect('}')?;
                        break;
                    }
                }
                Ok(Value::Map(members))
            }
            _ => self.name().map(Value::Reference),
        }
    }
}

#[test]
fn a_block_is_parsed_with_its_contents() {
    let file = read(
        "// why\na.b \"c\" {\n\tx = [d.e.f, \"g\\\"\"]\n\tm = {\n\t\tk = \"\",\n\t}\n\ti { y = \"1\" }\n}\n",
    )
    .unwrap();
    let block = &file.blocks[0];
    assert_eq!((block.name.as_str(), block.label.as_deref()), ("a.b", Some("c")));
    let list = vec![Value::Reference("d.e.f".to_owned()), Value::Text("g\"".to_owned())];
    assert_eq!(block.attributes["x"], Value::List(list));
    assert_eq!(block.attributes["m"], Value::Map([("k".to_owned(), Value::Text(String::new()))].into()));
    assert_eq!(block.all("i").next().and_then(|inner| inner.text("y")), Some("1"));
    for wrong in
        ["a {", "a = ", "a }", "a = [b c]", "a = {b = \"c\" d = \"e\"}", "a = \"b", "a = b\na = c", "= b"]
    {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
