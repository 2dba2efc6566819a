//! The report as aligned text. Pure.

mod layout;

use std::{collections::BTreeMap, fmt::Write as _};

use self::layout::{number, section};
use super::{
    baseline::{self, Baseline, Trend},
    compare::{self, GoalState},
    contestant::Contestant,
    metric::{Goal, Metric},
    report::{Calls, Idle, Machine, Ratio, Report, Row},
    stats::{Better, Spread},
};

/// System calls that are named; rarer ones are only in the sum.
const RARE: f64 = 0.05;

/// Renders the report.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = machine(&report.machine);
    let _ = writeln!(text, "{} rounds; each cell: median; best", report.rounds);
    if report.quick {
        text.push_str("small run: its numbers mean little\n");
    }
    if !report.rows.is_empty() {
        text.push_str(&values(&report.rows));
        text.push_str(&ratios(&report.rows, &report.ratios));
    }
    if !report.calls.is_empty() {
        text.push_str(&calls(&report.calls));
    }
    if !report.idle.is_empty() {
        text.push_str(&idle(&report.idle));
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

/// Renders the comparison with the committed numbers.
#[must_use]
pub fn against(report: &Report, committed: Option<&Baseline>) -> String {
    let Some(committed) = committed else {
        return "\nno committed numbers; --save-baseline writes them\n".to_owned();
    };
    if report.quick {
        return "\na small run is not compared with the committed numbers\n".to_owned();
    }
    let mut text = String::from("\ncommitted on: ");
    text.push_str(&machine(&committed.machine));
    text.push_str(&changes(report, committed));
    text.push_str(&call_changes(report, committed));
    text
}

fn machine(machine: &Machine) -> String {
    let mut text = format!("{} cores, {}, Linux {}", machine.cores, machine.cpu, machine.kernel);
    for peer in &machine.peers {
        let _ = write!(text, ", {peer}");
    }
    let _ = writeln!(text, "; proxy on CPU {}, load on CPU {}", machine.cpus.proxy, machine.cpus.load);
    text
}

/// Contestants of these rows, in their order, without repetition.
fn contestants<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<Contestant> {
    let all = rows.into_iter().flat_map(|row| &row.cells).map(|cell| cell.contestant);
    let mut all: Vec<Contestant> = all.collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn values(rows: &[Row]) -> String {
    let all = contestants(rows);
    let mut cells = vec![head(&["", ""], &all)];
    for row in rows {
        let of = |contestant: &Contestant| {
            let cell = row.cell(*contestant);
            cell.map_or_else(dash, |cell| pair(&cell.spread, row.metric.better()))
        };
        cells.push([row.title.clone(), row.unit.clone()].into_iter().chain(all.iter().map(of)).collect());
    }
    section("values", 2, &cells)
}

fn ratios(rows: &[Row], ratios: &[Ratio]) -> String {
    let all = contestants(rows);
    let (own, others): (Vec<Contestant>, Vec<Contestant>) = all.into_iter().partition(|one| one.is_ours());
    if own.is_empty() {
        return String::new();
    }
    let mut cells = vec![head(&["", "", ""], &others)];
    cells.iter_mut().for_each(|head| head.extend(["goal", "reached"].map(str::to_owned)));
    for row in rows {
        for contestant in &own {
            let of = |to: &Contestant| {
                let same =
                    |one: &&Ratio| (one.metric, one.contestant, one.to) == (row.metric, *contestant, *to);
                let found = ratios.iter().find(same);
                found.map_or_else(dash, |one| pair(&one.spread, row.metric.better()))
            };
            let mut line = vec![row.title.clone(), row.unit.clone(), contestant.name().to_owned()];
            line.extend(others.iter().map(of));
            line.push(goal(row.metric));
            line.push(compare::goal(row, *contestant).map_or_else(dash, |state| reached(&state)));
            cells.push(line);
        }
    }
    section("t3-dispatch divided by another contestant, within a round", 3, &cells)
}

fn goal(metric: Metric) -> String {
    let sign = match metric.better() {
        Better::Lower => "<=",
        Better::Higher => ">=",
    };
    match metric.goal() {
        Goal::To(contestant, limit) => format!("{sign} {} x {}", number(limit), contestant.name()),
        Goal::ToBest(limit) => format!("{sign} {} x best peer", number(limit)),
        Goal::Value(limit) => format!("{sign} {}", number(limit)),
    }
}

fn reached(state: &GoalState) -> String {
    let word = if state.is_met { "met" } else { "missed" };
    format!("{} {word}", number(state.spread.median))
}

fn calls(calls: &[Calls]) -> String {
    let mut cells = Vec::new();
    for one in calls {
        let mut names: Vec<(&String, f64)> = one.by_name.iter().map(|(name, count)| (name, *count)).collect();
        names.retain(|(_, count)| *count >= RARE);
        names.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let names = names.iter().map(|(name, count)| format!("{name} {}", number(*count)));
        cells.push(vec![
            one.title.clone(),
            one.unit.clone(),
            one.contestant.name().to_owned(),
            number(one.total),
            names.collect::<Vec<_>>().join(", "),
        ]);
    }
    // The sum is padded by hand: the names after it are left-aligned.
    let width = cells.iter().filter_map(|row| row.get(3)).map(String::len).max().unwrap_or(0);
    for sum in cells.iter_mut().filter_map(|row| row.get_mut(3)) {
        *sum = format!("{sum:>width$}");
    }
    section("system calls per unit of work", 5, &cells)
}

fn idle(rows: &[Idle]) -> String {
    let sessions = rows.first().map_or(0, |row| row.sessions);
    let heads = [
        ["", "threads", "before", "with", "after", "PSS", "RSS", "idle"],
        ["", "", "MiB", "MiB", "MiB", "KiB/session", "KiB/session", "CPU ms/s"],
    ];
    let mut cells: Vec<Vec<String>> = heads.map(|head| head.map(str::to_owned).to_vec()).to_vec();
    for row in rows {
        let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
        cells.push(vec![
            row.contestant.name().to_owned(),
            row.threads.to_string(),
            mib(row.before.pss_kib),
            mib(row.with.pss_kib),
            mib(row.after.pss_kib),
            number(row.pss_kib),
            number(row.rss_kib),
            number(row.idle_ms_per_s),
        ]);
    }
    section(
        &format!("{sessions} idle sessions, each after one heartbeat (kernel socket memory not included)"),
        1,
        &cells,
    )
}

fn changes(report: &Report, committed: &Baseline) -> String {
    let changes = baseline::changes(&report.ratios, &committed.ratios);
    let mut others: Vec<Contestant> = changes.iter().map(|one| one.to).collect();
    others.sort_unstable();
    others.dedup();
    let mut lines = BTreeMap::<(Metric, Contestant), BTreeMap<Contestant, String>>::new();
    for one in changes {
        let text = format!("{} ({}){}", number(one.now.median), number(one.then.median), mark(one.trend));
        lines.entry((one.metric, one.contestant)).or_default().insert(one.to, text);
    }
    let mut cells = vec![head(&["", "", ""], &others)];
    for ((metric, contestant), texts) in &lines {
        let Some(row) = report.rows.iter().find(|row| row.metric == *metric) else { continue };
        let mut line = vec![row.title.clone(), row.unit.clone(), contestant.name().to_owned()];
        line.extend(others.iter().map(|to| texts.get(to).cloned().unwrap_or_else(dash)));
        cells.push(line);
    }
    section("ratios of this run (committed)", 3, &cells)
}

fn call_changes(report: &Report, committed: &Baseline) -> String {
    let mut cells = Vec::new();
    for one in baseline::call_changes(&report.calls, &committed.calls) {
        let same = |calls: &&Calls| calls.workload == one.workload;
        let Some(calls) = report.calls.iter().find(same) else { continue };
        cells.push(vec![
            calls.title.clone(),
            calls.unit.clone(),
            one.contestant.name().to_owned(),
            format!("{} ({}){}", number(one.now), number(one.then), mark(one.trend)),
        ]);
    }
    if cells.is_empty() {
        return String::new();
    }
    section("system calls per unit of work (committed)", 4, &cells)
}

const fn mark(trend: Trend) -> &'static str {
    match trend {
        Trend::Better => " better",
        Trend::Same => "",
        Trend::Worse => " WORSE",
    }
}

fn head(labels: &[&str], contestants: &[Contestant]) -> Vec<String> {
    let names = contestants.iter().map(|one| one.name());
    labels.iter().copied().chain(names).map(str::to_owned).collect()
}

fn pair(spread: &Spread, better: Better) -> String {
    format!("{}; {}", number(spread.median), number(spread.best(better)))
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests;
