//! Incremental scanner for the end of a document's head, where tags may be inserted.
//!
//! Implements just enough HTML (WHATWG HTML, section 13.2.5, and the insertion modes of section
//! 13.2.6.4 up to the head) to ignore a `</head>` in a comment, a script or an attribute. Anything
//! that is not clearly part of a head ends the search, so that at most a head is buffered. A full
//! HTML library returns nodes; needed here is a byte offset.

/// Maximum size of a head, in bytes; a longer one is not changed.
pub const MAX_HEAD: u64 = 256 * 1024;

/// Longer names and values are irrelevant.
const MAX_NAME: usize = 16;
const MAX_VALUE: usize = 256;

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Result of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadPosition {
    /// The head's end tag begins at this offset.
    At(u64),
    /// No head, or a head that must not change.
    Absent,
}

#[derive(Debug, Default)]
pub struct Scanner {
    /// Offset of the current byte.
    at: u64,
    state: State,
    tag: Tag,
    raw: Raw,
    found: Option<HeadPosition>,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    /// At the start of the document.
    #[default]
    Start,
    /// Between tags, where only white space is allowed.
    Between,
    /// After `<`.
    Open,
    /// After `</`.
    EndOpen,
    /// After `<!`.
    Markup,
    /// After `<!-`.
    MarkupDash,
    Comment(Comment),
    /// A doctype or bogus comment: it ends at the first `>`.
    UntilGreater,
    Name,
    Attribute(Attribute),
    /// The text of a raw text element.
    Raw,
}

/// Sections 13.2.5.43 to 13.2.5.52. States that differ only in error reporting are merged.
#[derive(Debug, Clone, Copy)]
enum Comment {
    Start,
    StartDash,
    Inside,
    EndDash,
    End,
    EndBang,
}

/// Sections 13.2.5.32 to 13.2.5.40.
#[derive(Debug, Clone, Copy)]
enum Attribute {
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Unquoted,
    Quoted(u8),
}

/// The tag being read. Names are in lower case.
#[derive(Debug, Default)]
struct Tag {
    start: u64,
    end: bool,
    name: Vec<u8>,
    attribute: Vec<u8>,
    value: Vec<u8>,
}

/// The element whose text is being read.
#[derive(Debug, Default)]
struct Raw {
    name: Vec<u8>,
    end: Matcher,
    /// In a script, `<!--` makes a later `<script` hide the next `</script>` (section 13.2.5.15 and
    /// the following).
    comment: Matcher,
    commented: bool,
    nested: Matcher,
}

/// Number of matched bytes of a text that starts with `<` and has no other `<`.
#[derive(Debug, Default, Clone, Copy)]
struct Matcher(usize);

impl Matcher {
    /// Returns `true` when `byte` completes the text.
    fn next(&mut self, text: impl Iterator<Item = u8>, length: usize, byte: u8) -> bool {
        let mut text = text;
        self.0 = match text.nth(self.0) {
            Some(expected) if expected == byte.to_ascii_lowercase() => self.0 + 1,
            _ => usize::from(byte == b'<'),
        };
        let complete = self.0 == length;
        if complete {
            self.0 = 0;
        }
        complete
    }
}

impl Scanner {
    /// Scans more bytes. After a result it ignores further bytes and returns the same result.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<HeadPosition> {
        for byte in bytes {
            if self.found.is_some() {
                break;
            }
            self.state = self.step(*byte);
            self.at += 1;
            if self.at >= MAX_HEAD {
                self.found.get_or_insert(HeadPosition::Absent);
            }
        }
        self.found
    }

    fn step(&mut self, byte: u8) -> State {
        match self.state {
            State::Start => self.start(byte),
            State::Between => self.between(byte),
            State::Open => self.open(byte),
            State::EndOpen => match byte {
                b'>' => State::Between,
                _ if byte.is_ascii_alphabetic() => self.begin(true, byte),
                _ => State::UntilGreater,
            },
            State::Markup => match byte {
                b'-' => State::MarkupDash,
                _ => until_greater(byte),
            },
            State::MarkupDash => match byte {
                b'-' => State::Comment(Comment::Start),
                _ => until_greater(byte),
            },
            State::Comment(comment) => in_comment(comment, byte),
            State::UntilGreater => until_greater(byte),
            State::Name => self.name(byte),
            State::Attribute(attribute) => self.attribute(attribute, byte),
            State::Raw => self.raw(byte),
        }
    }

    fn nothing(&mut self) -> State {
        self.found = Some(HeadPosition::Absent);
        self.state
    }

    fn start(&mut self, byte: u8) -> State {
        let mark = usize::try_from(self.at).ok().and_then(|at| BYTE_ORDER_MARK.get(at));
        match (self.at, mark) {
            (2, Some(mark)) if *mark == byte => State::Between,
            (_, Some(mark)) if *mark == byte => State::Start,
            (0, _) => self.between(byte),
            _ => self.nothing(),
        }
    }

    fn between(&mut self, byte: u8) -> State {
        match byte {
            b'<' => {
                self.tag.start = self.at;
                State::Open
            }
            _ if is_space(byte) => State::Between,
            // Text starts the body.
            _ => self.nothing(),
        }
    }

    fn open(&mut self, byte: u8) -> State {
        match byte {
            b'!' => State::Markup,
            b'/' => State::EndOpen,
            b'?' => State::UntilGreater,
            _ if byte.is_ascii_alphabetic() => self.begin(false, byte),
            _ => self.nothing(),
        }
    }

    fn begin(&mut self, end: bool, byte: u8) -> State {
        self.tag.end = end;
        self.tag.name.clear();
        self.tag.attribute.clear();
        self.tag.value.clear();
        self.name(byte)
    }

    fn name(&mut self, byte: u8) -> State {
        match byte {
            b'>' => self.finish(),
            b'/' => self.named(),
            _ if is_space(byte) => self.named(),
            _ => {
                push(&mut self.tag.name, byte.to_ascii_lowercase(), MAX_NAME);
                State::Name
            }
        }
    }

    /// Ends the search if the complete name is that of the end tag.
    fn named(&mut self) -> State {
        if self.tag.end && self.tag.name == b"head" {
            self.found = Some(HeadPosition::At(self.tag.start));
        }
        State::Attribute(Attribute::BeforeName)
    }

    fn attribute(&mut self, attribute: Attribute, byte: u8) -> State {
        use Attribute::{AfterName, BeforeName, BeforeValue, Name, Quoted, Unquoted};
        let next = match (attribute, byte) {
            (Quoted(quote), _) if byte != quote => {
                push(&mut self.tag.value, byte, MAX_VALUE);
                attribute
            }
            (Quoted(_), _) => BeforeName,
            (BeforeValue, b'"' | b'\'') => Quoted(byte),
            (_, b'>') => return self.finish(),
            (Unquoted, _) if !is_space(byte) => {
                push(&mut self.tag.value, byte, MAX_VALUE);
                Unquoted
            }
            (BeforeValue, _) if !is_space(byte) => {
                push(&mut self.tag.value, byte, MAX_VALUE);
                Unquoted
            }
            (Name | AfterName, b'=') => BeforeValue,
            (Name, _) if !is_space(byte) && byte != b'/' => {
                push(&mut self.tag.attribute, byte.to_ascii_lowercase(), MAX_NAME);
                Name
            }
            (BeforeName | AfterName, _) if !is_space(byte) && byte != b'/' => {
                self.attribute_done();
                push(&mut self.tag.attribute, byte.to_ascii_lowercase(), MAX_NAME);
                Name
            }
            (Name | AfterName, b'/') | (BeforeName, _) => BeforeName,
            (Name | AfterName, _) => AfterName,
            (Unquoted, _) => BeforeName,
            (BeforeValue, _) => BeforeValue,
        };
        State::Attribute(next)
    }

    /// Ends the search if the page has its own manifest.
    fn attribute_done(&mut self) {
        let Tag { end, name, attribute, value, .. } = &mut self.tag;
        let relation = !*end && name == b"link" && attribute == b"rel";
        if relation && value.split(|byte| is_space(*byte)).any(|word| word.eq_ignore_ascii_case(b"manifest"))
        {
            self.found = Some(HeadPosition::Absent);
        }
        attribute.clear();
        value.clear();
    }

    /// Handles a complete tag.
    fn finish(&mut self) -> State {
        self.named();
        self.attribute_done();
        if self.found.is_some() {
            return self.state;
        }
        match (self.tag.end, self.tag.name.as_slice()) {
            (false, b"html" | b"head" | b"base" | b"basefont" | b"bgsound" | b"link" | b"meta") => {
                State::Between
            }
            (false, b"title" | b"style" | b"script" | b"noscript" | b"noframes") => {
                self.raw = Raw { name: self.tag.name.clone(), ..Raw::default() };
                State::Raw
            }
            // These three end tags start the body; any other unmatched end tag is ignored.
            (true, name) if !matches!(name, b"html" | b"body" | b"br") => State::Between,
            // The body has started; or a template, which may contain another document.
            _ => self.nothing(),
        }
    }

    fn raw(&mut self, byte: u8) -> State {
        let Raw { name, end, comment, commented, nested } = &mut self.raw;
        // The name must be complete: `</title>` ends a title, `</titles>` does not.
        let begun = end.0 == name.len() + 2;
        if begun && (is_space(byte) || matches!(byte, b'/' | b'>')) {
            let name = std::mem::take(name);
            self.tag = Tag { start: self.at, end: true, name, ..Tag::default() };
            return if byte == b'>' { self.finish() } else { self.named() };
        }
        let text = b"</".iter().chain(name.iter()).copied();
        // One more than the length of the text: the byte after it decides, see above.
        end.next(text, name.len() + 3, byte);
        if name == b"script" {
            *commented |= comment.next(b"<!--".iter().copied(), 4, byte);
            if nested.next(b"<script".iter().copied(), 7, byte) && *commented {
                return self.nothing();
            }
        }
        State::Raw
    }
}

fn in_comment(comment: Comment, byte: u8) -> State {
    use Comment::{End, EndBang, EndDash, Inside, Start, StartDash};
    let next = match (comment, byte) {
        (Start | StartDash | End | EndBang, b'>') => return State::Between,
        (Start, b'-') => StartDash,
        (StartDash | EndDash | End, b'-') => End,
        (Inside | EndBang, b'-') => EndDash,
        (End, b'!') => EndBang,
        _ => Inside,
    };
    State::Comment(next)
}

fn until_greater(byte: u8) -> State {
    if byte == b'>' { State::Between } else { State::UntilGreater }
}

/// Returns whether a byte is HTML white space, which includes form feed but not vertical tab.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)
}

/// Keeps one byte more than `most`, so that a longer text never equals a shorter one.
fn push(text: &mut Vec<u8>, byte: u8, most: usize) {
    if text.len() <= most {
        text.push(byte);
    }
}
