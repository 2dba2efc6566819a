//! `App` of t3-dispatch only builds and wires: no file outside `server/` and `process/` names it.

use super::source::product_code;
use super::{File, Finding};

const SOURCE: &str = "t3-dispatch/src/";
const ALLOWED: [&str; 2] = ["server/", "process/"];

pub fn check(files: &[File]) -> Vec<Finding> {
    let is_subject = |name: &str| {
        let inside = name.strip_prefix(SOURCE).filter(|inside| inside.ends_with(".rs"));
        inside.is_some_and(|inside| !ALLOWED.iter().any(|folder| inside.starts_with(folder)))
    };
    let names_app = |(name, text): &File| {
        let first = product_code(text).into_iter().find(|token| token.ident() == Some("App"))?;
        Some(Finding::new(name, first.line, "names `App`; take a plain struct instead"))
    };
    files.iter().filter(|(name, _)| is_subject(name)).filter_map(names_app).collect()
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn app_is_named_only_where_it_is_built_and_wired() {
        let file = |name: &str, text: &str| (format!("t3-dispatch/src/{name}"), text.to_owned());
        let files = [
            file("server/app.rs", "pub struct App;"),
            file("relay/session.rs", "//! Not App.\n\nfn run(app: &App) {}"),
            file("relay/ok.rs", "//! App.\nfn run(apps: &Apps) { \"App\" }\n#[cfg(test)] fn t(a: App) {}"),
        ];
        let found = check(&files);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].place.as_str(), found[0].line), ("t3-dispatch/src/relay/session.rs", 3));
    }
}
