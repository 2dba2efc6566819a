//! The table of docs/FOREIGN-PROXIES.md: our records next to what each proxy's own log has.

use super::{fault::CATALOGUE, legs::Leg, proxy::Proxy, runner::Outcome};

/// Names and versions of the proxies.
#[must_use]
pub fn versions() -> String {
    let versions: Vec<String> = Proxy::ALL.iter().filter_map(|proxy| proxy.version()).collect();
    versions.join(", ")
}

/// The table in Markdown, in the order of the catalogue.
#[must_use]
pub fn markdown(outcomes: &[Outcome]) -> String {
    let mut lines = Vec::new();
    for fault in CATALOGUE {
        let mut of_fault: Vec<_> =
            outcomes.iter().filter(|outcome| outcome.fault.name == fault.name).collect();
        of_fault.sort_by_key(|outcome| outcome.proxy);
        if of_fault.is_empty() {
            continue;
        }
        lines.push(format!("`{}`: {}.\n", fault.name, fault.injected));
        lines.push(
            "| proxy | record of the proxy's port | record of serve's port | the proxy's own log |"
                .to_owned(),
        );
        lines.push("|---|---|---|---|".to_owned());
        lines.extend(of_fault.into_iter().map(row));
        lines.push(String::new());
    }
    lines.join("\n")
}

fn row(outcome: &Outcome) -> String {
    let name = outcome.proxy.map_or("direct", Proxy::name);
    let log = match (outcome.proxy, outcome.log.is_empty()) {
        (None, _) => "-".to_owned(),
        (Some(_), true) => "nothing".to_owned(),
        (Some(_), false) => {
            let texts = outcome.log.iter().map(|line| format!("`{}`", line.replace('|', "/")));
            texts.collect::<Vec<_>>().join("; ")
        }
    };
    let at_proxy = outcome.proxy.map_or_else(|| "-".to_owned(), |_| cell(outcome.at_proxy.as_ref()));
    format!("| {name} | {at_proxy} | {} | {log} |", cell(outcome.at_serve.as_ref()))
}

fn cell(leg: Option<&Leg>) -> String {
    let Some(leg) = leg else { return "no record".to_owned() };
    let confidence = leg.confidence.map_or("", |confidence| confidence.as_str());
    format!("`{}` `{}` {confidence}, {}", leg.verdict.as_str(), leg.how, leg.ends)
}
