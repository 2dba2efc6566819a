//! Options as text of a page or of a configuration file, for the tests that generate them. Pure.

use clap::{Arg, ArgAction};

/// Help of the option in one line.
#[must_use]
pub fn help(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    help.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Default values of the option.
#[must_use]
pub fn defaults(arg: &Arg) -> Vec<String> {
    let delimiter = arg.get_value_delimiter();
    let all = arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned());
    all.flat_map(|value| match delimiter {
        Some(delimiter) => value.split(delimiter).map(str::to_owned).collect(),
        None => vec![value],
    })
    .collect()
}

/// Returns whether the option takes a list.
#[must_use]
pub fn takes_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append) || arg.get_value_delimiter().is_some()
}

/// Values of an option in the syntax of the file; `None` without values.
#[must_use]
pub fn in_toml(arg: &Arg, values: &[String]) -> Option<String> {
    let value = |text: &String| match text.parse::<i64>() {
        Ok(number) => number.to_string(),
        Err(_) if text == "true" || text == "false" => text.clone(),
        // LogQL has quotes.
        Err(_) if text.contains('"') && !text.contains('\'') => format!("'{text}'"),
        Err(_) => format!("{text:?}"),
    };
    match values {
        all if takes_list(arg) => Some(format!("[{}]", all.iter().map(value).collect::<Vec<_>>().join(", "))),
        [one] => Some(value(one)),
        _ => None,
    }
}

/// The page with another text between the comments `NAME:begin` and `NAME:end`; `None` without
/// them.
#[must_use]
pub fn replace(page: &str, name: &str, list: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
    let from = page.find(&begin)? + begin.len();
    let to = from + page.get(from..)?.find(&end)?;
    Some(format!("{}{list}{}", page.get(..from)?, page.get(to..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_syntax_of_toml() {
        let one = Arg::new("one").long("one").action(ArgAction::Set);
        let list = Arg::new("list").long("list").action(ArgAction::Append).value_delimiter(',');
        for (arg, values, expected) in [
            (&one, &["10s"][..], Some("\"10s\"")),
            (&one, &["7"], Some("7")),
            (&one, &["true"], Some("true")),
            (&one, &["{job=\"x\"}"], Some("'{job=\"x\"}'")),
            (&one, &["it's \"x\""], Some(r#""it's \"x\"""#)),
            (&one, &[], None),
            (&list, &[], Some("[]")),
            (&list, &["a", "7"], Some("[\"a\", 7]")),
        ] {
            let values: Vec<_> = values.iter().map(ToString::to_string).collect();
            assert_eq!(in_toml(arg, &values).as_deref(), expected, "{values:?}");
        }
        let list = list.default_values(["a,b"]);
        assert_eq!(defaults(&list), ["a", "b"]);
    }

    #[test]
    fn a_list_is_replaced_between_its_marks() {
        let page = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n";
        let expected = "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n";
        assert_eq!(replace(page, "x", "new\n").as_deref(), Some(expected));
        assert_eq!(replace(page, "y", "new\n"), None);
    }
}
