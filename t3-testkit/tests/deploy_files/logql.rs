//! Parser for the terms of a LogQL query: stream labels, fields of the line and compared values. It
//! knows the part of the language that the deployed files use; anything else is an error, so that
//! all of a query is checked. `host_deploy` checks the grammar.

use std::collections::BTreeSet;

use regex_lite::Regex;

/// A comparison: field, operator, value.
pub type Comparison = (String, String, String);

/// Terms of one query.
#[derive(Debug, Default)]
pub struct QueryTerms {
    /// Comparisons of stream selectors.
    pub labels: Vec<Comparison>,
    /// Texts that the line must contain.
    pub contains: Vec<String>,
    /// Fields that are compared.
    pub compared: Vec<Comparison>,
    /// Fields that are unwrapped, grouped by or part of a line format.
    pub used: BTreeSet<String>,
    /// Fields that the query creates by regexp.
    pub made: BTreeSet<String>,
    /// Parses the line as logfmt or JSON.
    pub parsers: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Number(String),
    Sign(String),
}

const SIGNS: [&str; 8] = ["|=", "|~", "!=", "!~", "=~", ">=", "<=", "=="];
/// Keywords and functions of the language.
const LANGUAGE: [&str; 14] = [
    "sum",
    "max",
    "min",
    "topk",
    "count",
    "or",
    "and",
    "vector",
    "count_over_time",
    "sum_over_time",
    "max_over_time",
    "avg_over_time",
    "rate",
    "sort_desc",
];

/// Parses a query with expanded variables.
pub fn read(query: &str) -> Result<QueryTerms, String> {
    let tokens = tokens(query)?;
    let mut terms = QueryTerms::default();
    let mut at = 0;
    while at < tokens.len() {
        at = match &tokens[at] {
            Token::Sign(sign) if sign == "{" => selector(&tokens, at + 1, &mut terms)?,
            Token::Sign(sign) if sign == "|" => stage(&tokens, at + 1, &mut terms)?,
            Token::Sign(sign) if sign == "|=" || sign == "|~" || sign == "!~" => {
                terms.contains.push(text(&tokens, at + 1)?);
                at + 2
            }
            // After a selector it is a line filter; elsewhere a comparison of numbers.
            Token::Sign(sign) if sign == "!=" && matches!(tokens.get(at + 1), Some(Token::Text(_))) => at + 2,
            Token::Sign(_) | Token::Number(_) => at + 1,
            Token::Word(word) if word == "by" => grouping(&tokens, at + 1, &mut terms)?,
            Token::Word(word) if LANGUAGE.contains(&word.as_str()) => at + 1,
            other => return Err(format!("{other:?} is not understood in {query}")),
        };
    }
    if terms.labels.is_empty() {
        return Err(format!("no stream selector in {query}"));
    }
    Ok(terms)
}

fn selector(tokens: &[Token], mut at: usize, terms: &mut QueryTerms) -> Result<usize, String> {
    loop {
        terms.labels.push((word(tokens, at)?, sign(tokens, at + 1)?, text(tokens, at + 2)?));
        match sign(tokens, at + 3)?.as_str() {
            "," => at += 4,
            "}" => return Ok(at + 4),
            other => return Err(format!("{other} in a selector")),
        }
    }
}

fn stage(tokens: &[Token], at: usize, terms: &mut QueryTerms) -> Result<usize, String> {
    match word(tokens, at)?.as_str() {
        parser @ ("logfmt" | "json") => {
            terms.parsers.push(parser.to_owned());
            Ok(at + 1)
        }
        "regexp" => {
            let groups = Regex::new(r"\(\?P<(\w+)>").unwrap();
            let pattern = text(tokens, at + 1)?;
            Regex::new(&pattern).map_err(|error| format!("{pattern}: {error}"))?;
            terms.made.extend(groups.captures_iter(&pattern).map(|group| group[1].to_owned()));
            Ok(at + 2)
        }
        "line_format" => {
            let template = text(tokens, at + 1)?;
            let field = Regex::new(r"\{\{\s*\.(\w+)\s*\}\}").unwrap();
            let fields: Vec<_> = field.captures_iter(&template).map(|field| field[1].to_owned()).collect();
            if fields.len() != template.matches("{{").count() {
                return Err(format!("more than fields in {template}"));
            }
            terms.used.extend(fields);
            Ok(at + 2)
        }
        "unwrap" => {
            terms.used.insert(word(tokens, at + 1)?);
            Ok(at + 2)
        }
        _ => comparisons(tokens, at, terms),
    }
}

fn comparisons(tokens: &[Token], mut at: usize, terms: &mut QueryTerms) -> Result<usize, String> {
    loop {
        let value = match tokens.get(at + 2) {
            Some(Token::Text(value) | Token::Number(value)) => value.clone(),
            other => return Err(format!("a field is compared with {other:?}")),
        };
        terms.compared.push((word(tokens, at)?, sign(tokens, at + 1)?, value));
        at += 3;
        match tokens.get(at) {
            Some(Token::Word(word)) if word == "or" || word == "and" => at += 1,
            _ => return Ok(at),
        }
    }
}

fn grouping(tokens: &[Token], at: usize, terms: &mut QueryTerms) -> Result<usize, String> {
    let end = tokens[at..].iter().position(|token| *token == Token::Sign(")".to_owned()));
    let end = at + end.ok_or("a grouping without an end")?;
    for token in &tokens[at + 1..end] {
        match token {
            Token::Word(word) => drop(terms.used.insert(word.clone())),
            Token::Sign(sign) if sign == "," => {}
            other => return Err(format!("{other:?} in a grouping")),
        }
    }
    Ok(end + 1)
}

fn word(tokens: &[Token], at: usize) -> Result<String, String> {
    match tokens.get(at) {
        Some(Token::Word(word)) => Ok(word.clone()),
        other => Err(format!("{other:?} instead of a name")),
    }
}

fn text(tokens: &[Token], at: usize) -> Result<String, String> {
    match tokens.get(at) {
        Some(Token::Text(text)) => Ok(text.clone()),
        other => Err(format!("{other:?} instead of a text")),
    }
}

fn sign(tokens: &[Token], at: usize) -> Result<String, String> {
    match tokens.get(at) {
        Some(Token::Sign(sign)) => Ok(sign.clone()),
        other => Err(format!("{other:?} instead of a sign")),
    }
}

fn tokens(query: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = query.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first == '"' {
            let end = quoted(rest).ok_or_else(|| format!("no end of the text {rest}"))?;
            let text = serde_json::from_str(&rest[..end]).map_err(|error| format!("{rest}: {error}"))?;
            tokens.push(Token::Text(text));
            end
        } else if first == '`' {
            let end = rest[1..].find('`').ok_or_else(|| format!("no end of the text {rest}"))? + 2;
            tokens.push(Token::Text(rest[1..end - 1].to_owned()));
            end
        } else if first.is_ascii_alphanumeric() || first == '_' {
            let inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
            let end = rest.find(|c| !inside(c)).unwrap_or(rest.len());
            let word = rest[..end].to_owned();
            tokens.push(if first.is_ascii_digit() { Token::Number(word) } else { Token::Word(word) });
            end
        } else {
            let length = if SIGNS.iter().any(|sign| rest.starts_with(sign)) { 2 } else { 1 };
            if length == 1 && !"{}()[],|=<>/+-*".contains(first) {
                return Err(format!("{first:?} is not understood in {query}"));
            }
            tokens.push(Token::Sign(rest[..length].to_owned()));
            length
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[test]
fn the_terms_of_a_query_are_found() {
    let terms = read(
        r#"sum by (user, verdict) (count_over_time({job="j", unit=~"a|b"} |= "ws close" | logfmt | dur_ms < 120000 and psi_io > 20 or user="x" [5m])) / 2 > 0"#,
    )
    .unwrap();
    assert_eq!(terms.labels.len(), 2);
    assert_eq!(terms.contains, ["ws close"]);
    assert_eq!(terms.used.iter().map(String::as_str).collect::<Vec<_>>(), ["user", "verdict"]);
    let compared: Vec<_> = terms.compared.iter().map(|(field, ..)| field.as_str()).collect();
    assert_eq!(compared, ["dur_ms", "psi_io", "user"]);
    for wrong in ["up", "{job=j}", r#"{job="j"} | json | x"#, r#"quantile({job="j"}[5m])"#, r#"{job="j"#] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
