//! The table and the JSON of all runs: medians, what they lie between, and ratios.
//!
//! Must not measure anything.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::checks::Violations;
use super::figures::{Better, Figure, Run};
use super::world::Contender;

/// More than this share of the servers' core used by other programs makes a run doubtful.
const DOUBTFUL: f64 = 0.08;
/// A generator busier than this may have slowed the servers down.
const BUSY: f64 = 0.9;

/// Median, lowest and highest of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    low: f64,
    high: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: *values.get(values.len() / 2)?,
            low: *values.first()?,
            high: *values.last()?,
        })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { median, low, high } = self;
        if low == high {
            write!(out, "{}", number(*median))
        } else {
            write!(out, "{} [{}–{}]", number(*median), number(*low), number(*high))
        }
    }
}

/// Three digits that matter.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    grouped(&format!("{value:.decimals$}"))
}

/// Thousands set apart.
fn grouped(text: &str) -> String {
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.char_indices() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

/// The table of all runs, as Markdown, and a second one of what grows.
#[must_use]
pub fn table(runs: &[Run]) -> String {
    let mut out = String::from(
        "| case | figure | parlance | node | parlance / node |\n| --- | --- | --: | --: | --: |\n",
    );
    let cases = cases(runs);
    for case in &cases {
        rows(&mut out, case, &of_case(runs, case));
    }
    out.push_str(&growth(runs, &cases));
    out
}

/// Names of all cases, in order.
fn cases(runs: &[Run]) -> Vec<&str> {
    let mut cases: Vec<&str> = vec![];
    for run in runs {
        if !cases.contains(&run.case.as_str()) {
            cases.push(&run.case);
        }
    }
    cases
}

fn of_case<'a>(runs: &'a [Run], case: &str) -> Vec<&'a Run> {
    runs.iter().filter(|run| run.case == case).collect()
}

/// By how much each figure grows from the smallest size to the largest, where cases differ in size only.
fn growth(runs: &[Run], cases: &[&str]) -> String {
    let mut out = String::new();
    let mut sizes = BTreeMap::<&str, Vec<&str>>::new();
    for case in cases.iter().filter(|case| case.starts_with("growth/")) {
        let kind = case.rsplit_once('-').map_or(*case, |(kind, _)| kind);
        sizes.entry(kind).or_default().push(case);
    }
    for sizes in sizes.into_values().filter(|sizes| sizes.len() > 1) {
        let (small, large) = (sizes[0], sizes[sizes.len() - 1]);
        let (before, after) = (of_case(runs, small), of_case(runs, large));
        if out.is_empty() {
            out.push_str("\n| from, to | figure | parlance | node |\n| --- | --- | --: | --: |\n");
        }
        for figure in figures(&after) {
            let grown = [Contender::Parlance, Contender::Node].map(|system| {
                let median = |runs: &[&Run]| Spread::of(values(runs, system, &figure.name));
                let (before, after) = (median(&before)?.median, median(&after)?.median);
                (before > 0.0).then(|| format!("{:.1}×", after / before))
            });
            let [ours, theirs] = grown.map(|grown| grown.unwrap_or_else(|| "–".into()));
            let name = &figure.name;
            // Writing to a String cannot fail.
            let _written = writeln!(out, "| {small}, {large} | {name} | {ours} | {theirs} |");
        }
    }
    out
}

fn rows(out: &mut String, case: &str, runs: &[&Run]) {
    let mut name = case;
    let mut row = |figure: &str, cells: [String; 3]| {
        let [ours, theirs, ratio] = cells;
        // Writing to a String cannot fail.
        let _written = writeln!(out, "| {name} | {figure} | {ours} | {theirs} | {ratio} |");
        name = "";
    };
    for figure in figures(runs) {
        let [ours, theirs] = [Contender::Parlance, Contender::Node]
            .map(|system| Spread::of(values(runs, system, &figure.name)));
        let ratio = ours.zip(theirs).filter(|(_, theirs)| theirs.median > 0.0);
        let ratio = ratio.map(|(ours, theirs)| ours.median / theirs.median);
        let arrow = match figure.better {
            Better::Higher => '↑',
            Better::Lower => '↓',
        };
        let cell = |spread: Option<Spread>| spread.map_or("–".into(), |spread| spread.to_string());
        row(
            &format!("{} {arrow}", figure.name),
            [
                cell(ours),
                cell(theirs),
                ratio.map_or("–".into(), |ratio| format!("{ratio:.2}×")),
            ],
        );
        if let Some(unit) = figure.name.strip_prefix("CPU µs per ") {
            let cells = [Contender::Parlance, Contender::Node].map(|system| split(runs, system, unit));
            if cells.iter().any(|cell| !cell.is_empty()) {
                row("… of which", [cells[0].clone(), cells[1].clone(), String::new()]);
            }
        }
    }
    let [ours, theirs] = [Contender::Parlance, Contender::Node].map(|system| remarks(runs, system));
    row("violations and remarks", [ours, theirs, String::new()]);
}

/// Every figure that any of the runs has, in order.
fn figures<'a>(runs: &[&'a Run]) -> Vec<&'a Figure> {
    let mut found: Vec<&Figure> = vec![];
    for figure in runs.iter().flat_map(|run| &run.figures.list) {
        if !found.iter().any(|other| other.name == figure.name) {
            found.push(figure);
        }
    }
    found
}

fn values(runs: &[&Run], system: Contender, name: &str) -> Vec<f64> {
    let runs = runs.iter().filter(|run| run.system == system);
    let figures = runs.flat_map(|run| &run.figures.list);
    figures
        .filter(|figure| figure.name == name)
        .map(|figure| figure.value)
        .collect()
}

/// Median CPU time of each process, the largest first.
fn split(runs: &[&Run], system: Contender, unit: &str) -> String {
    let mut by_role = BTreeMap::<&str, Vec<f64>>::new();
    for run in runs.iter().filter(|run| run.system == system) {
        for (role, cpu) in run.figures.cpu.get(unit).into_iter().flatten() {
            by_role.entry(role).or_default().push(*cpu);
        }
    }
    let medians = by_role
        .into_iter()
        .filter_map(|(role, values)| Some((role, Spread::of(values)?.median)));
    let mut medians: Vec<_> = medians.collect();
    medians.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let cells: Vec<_> = medians
        .iter()
        .map(|(role, cpu)| format!("{role} {}", number(*cpu)))
        .collect();
    cells.join(", ")
}

/// What went wrong in any of the runs, and what makes them doubtful.
fn remarks(runs: &[&Run], system: Contender) -> String {
    let runs: Vec<_> = runs.iter().filter(|run| run.system == system).collect();
    let mut sum = Violations::default();
    runs.iter().for_each(|run| sum += run.violations);
    let refused = runs.iter().map(|run| run.refused).sum();
    let counts = [
        ("lost", sum.lost),
        ("duplicated", sum.duplicated),
        ("out of order", sum.reordered),
        ("in a wrong room", sum.wrong_room),
        ("connections closed", sum.closed),
        ("requests failed", sum.failed),
        ("handshakes refused", refused),
    ];
    let counts = counts.iter().filter(|(_, count)| *count > 0);
    let mut found: Vec<_> = counts
        .map(|(name, count)| format!("{} {name}", grouped(&count.to_string())))
        .collect();
    let failure = runs.iter().find_map(|run| run.failure.as_ref());
    found.extend(failure.map(|failure| format!("first failure: {failure}")));
    found.extend(runs.iter().filter_map(|run| run.error.clone()));
    let most = |share: fn(&Run) -> f64| runs.iter().map(|run| share(run)).fold(0.0, f64::max);
    let foreign = most(|run| run.figures.foreign);
    if foreign > DOUBTFUL {
        found.push(format!(
            "other programs used up to {:.0} % of the core",
            foreign * 100.0
        ));
    }
    let generator = most(|run| run.figures.generator);
    if generator > BUSY {
        found.push(format!("generator {:.0} % busy", generator * 100.0));
    }
    if found.is_empty() {
        return if runs.is_empty() {
            "–".into()
        } else {
            "none".into()
        };
    }
    found.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::Figures;

    fn run(system: Contender, value: f64, lost: u64) -> Run {
        let mut figures = Figures::default();
        figures.higher("connects per second", value);
        Run {
            case: "connect/1".into(),
            system,
            round: 1,
            figures,
            violations: Violations {
                lost,
                ..Violations::default()
            },
            refused: 0,
            failure: None,
            error: None,
        }
    }

    #[test]
    fn a_row_has_medians_the_spread_and_the_ratio() {
        let runs = [
            run(Contender::Parlance, 3_000.0, 0),
            run(Contender::Node, 1_000.0, 1),
            run(Contender::Parlance, 1_000.0, 0),
            run(Contender::Node, 1_000.0, 0),
            run(Contender::Parlance, 2_000.0, 0),
        ];
        let table = table(&runs);
        let wanted = "| connect/1 | connects per second ↑ | 2,000 [1,000–3,000] | 1,000 | 2.00× |";
        assert!(table.contains(wanted), "{table}");
        assert!(
            table.contains("|  | violations and remarks | none | 1 lost |  |"),
            "{table}"
        );
    }

    #[test]
    fn growth_compares_the_smallest_size_with_the_largest() {
        let sized = |case: &str, value| Run {
            case: case.into(),
            ..run(Contender::Parlance, value, 0)
        };
        let runs = [
            sized("growth/members-100", 2.0),
            sized("growth/members-1000", 100.0),
            sized("growth/members-10000", 3.0),
        ];
        let wanted = "| growth/members-100, growth/members-10000 | connects per second | 1.5× | – |";
        assert!(table(&runs).contains(wanted), "{}", table(&runs));
        assert!(!table(&runs[..1]).contains("from, to"));
    }

    #[test]
    fn numbers_show_three_digits_that_matter() {
        for (value, text) in [
            (0.0, "0"),
            (0.25, "0.250"),
            (7.126, "7.13"),
            (15.63, "15.6"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
