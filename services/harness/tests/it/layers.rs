//! Holds the order of the modules within each crate: a module may use those below it, and no two use each other, neither of
//! the top level nor within one module of it.

mod modules;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::Path;

use crate::boundaries::metadata;
use modules::{Crate, Dependency, Modules, ROOT};

/// Layers from top to bottom, each with its modules. A module may use what stands below it and, as long as no cycle comes of
/// it, what stands beside it. The root file is above them all.
type Order = &'static [&'static [&'static str]];

/// The order within each crate.
const ORDERS: &[(&str, Order)] = &[
    (
        "parlance-proto",
        &[&["error", "hidden", "ids", "participants"], &["text", "v1"]],
    ),
    (
        "parlance-bus",
        &[
            // What is done with the bus, one verb or area each.
            &["consume", "control", "inspect", "operations", "relay", "request"],
            &["publish", "push", "subscribe"],
            &["streams"],
            &["connection"],
            &["error", "faults", "subject", "trace"],
        ],
    ),
    (
        "parlance-runtime",
        &[
            &["health", "healthcheck", "lifecycle"],
            &["startup", "tasks", "telemetry"],
            &["backoff", "config"],
        ],
    ),
    (
        "parlance-journal",
        &[
            &["awareness", "history", "whole_text"],
            &["versions"],
            &["document"],
            &["diff", "update"],
            &["change", "error"],
        ],
    ),
    (
        "parlance-gateway",
        &[
            // What is made from what.
            &["app"],
            // What is set, what operators ask, what is said of events and routes.
            &["config", "contract", "operations"],
            // Decodes what clients send, encodes what they receive.
            &["edge"],
            // Carries out what they ask for.
            &["actions"],
            // Rooms, users, presence.
            &["delivery"],
            // One connected client.
            &["session"],
            // Pure.
            &["dialect"],
            &["backend"],
            &["auth", "limits", "signals", "slots"],
            &["clock", "error", "ids", "measures", "metadata", "query"],
        ],
    ),
    (
        "parlance-persistence",
        &[
            &["service"],
            // The settings of every area, each in the type of that area.
            &["config"],
            // Leases begin and end ingest and intake; queries take in reports of presence.
            &["leases", "operations", "queries"],
            &["expiry", "ingest", "intake", "presence", "push"],
            &["feed", "liveness", "report", "startup"],
            &["dead_letters"],
            &["database", "error", "store"],
            // Neutral: the store loads and writes it, everybody else decides on it.
            &["model"],
            &[
                "identity",
                "measures",
                "ownership",
                "payload_limit",
                "signals",
                "thread",
            ],
        ],
    ),
    (
        "parlance-operator",
        &[
            &["dead_letters", "gateways", "persistence"],
            &["ask", "cli", "show"],
            &["config"],
        ],
    ),
    (
        "parlance-harness",
        &[
            &["bench", "dev", "load"],
            &["checker", "stack"],
            &["devstack", "history", "token"],
            &["environment", "eventually"],
        ],
    ),
];

/// The order within large modules, by crate and module. What their own file declares is above them all.
const WITHIN: &[(&str, &str, Order)] = &[
    (
        "parlance-gateway",
        "edge",
        &[
            &["rest", "socket"],
            // Judge every request, or lead it on.
            &["cors"],
            &["gate"],
            &[
                "addresses",
                "bundle",
                "compression",
                "endpoints",
                "headers",
                "origins",
                "refusals",
            ],
        ],
    ),
    (
        "parlance-gateway",
        "actions",
        &[
            &["perform", "services"],
            &["control", "reads"],
            &["core"],
            &["commands"],
            &["idempotency", "resolver", "user"],
        ],
    ),
    (
        "parlance-gateway",
        "delivery",
        &[
            &["presence", "repair"],
            &["users"],
            &["rooms"],
            &["awareness", "journal", "presence_input", "served"],
        ],
    ),
];

/// Modules in which two still use each other. What is mended leaves this list.
const WITH_CYCLES: &[(&str, &str)] = &[
    // `deadline` asks `asking` how long a query may take, `asking` asks `deadline` what is left of that.
    ("parlance-gateway", "backend"),
    // An entry keeps the hold of the lane that it waits in.
    ("parlance-persistence", "ingest"),
];

/// What of a crate breaks its order; nothing if all is well.
fn flaws(order: Order, modules: &Modules) -> Vec<String> {
    let mut flaws = Vec::new();
    let mut layers = BTreeMap::from([(ROOT, 0)]);
    for (layer, names) in (1..).zip(order) {
        for &name in *names {
            if layers.insert(name, layer).is_some() {
                flaws.push(format!("the table names `{name}` twice"));
            }
            if !modules.names.contains(name) {
                flaws.push(format!("the table names `{name}`, and there is no such module"));
            }
        }
    }
    for name in &modules.names {
        if !layers.contains_key(name.as_str()) {
            flaws.push(format!("`{name}` has no layer: add it to the table"));
        }
    }
    let layer_of = |name: &str| layers.get(name).copied();
    let mut beside: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for dependency in &modules.dependencies {
        if layer_of(&dependency.from) == layer_of(&dependency.to) {
            beside.entry(&dependency.from).or_default().insert(&dependency.to);
        }
    }
    for dependency in &modules.dependencies {
        let (from, to) = (dependency.from.as_str(), dependency.to.as_str());
        let (Some(below), Some(above)) = (layer_of(from), layer_of(to)) else {
            continue;
        };
        if above < below {
            let place = place(dependency);
            flaws.push(format!("{place} points upwards: `{from}` is below `{to}`"));
        } else if above == below {
            flaws.extend(cycle(dependency, &beside));
        }
    }
    flaws
}

/// The paths by which modules use each other. What their own file declares is no module beside them.
fn cycles(modules: &Modules) -> Vec<String> {
    let mut beside: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for dependency in modules
        .dependencies
        .iter()
        .filter(|dependency| dependency.to != ROOT)
    {
        beside.entry(&dependency.from).or_default().insert(&dependency.to);
    }
    let each = modules.dependencies.iter();
    each.filter_map(|dependency| cycle(dependency, &beside)).collect()
}

/// Where a dependency stands.
fn place(dependency: &Dependency) -> String {
    let (file, line, path) = (dependency.file.display(), dependency.line, &dependency.path);
    format!("{file}:{line}: `{path}`")
}

/// The cycle that a dependency closes among these.
fn cycle(dependency: &Dependency, beside: &BTreeMap<&str, BTreeSet<&str>>) -> Option<String> {
    let way = way_back(beside, &dependency.to, &dependency.from)?;
    let (place, from) = (place(dependency), &dependency.from);
    Some(format!("{place} closes a cycle: {from} → {}", way.join(" → ")))
}

/// The shortest way from one module to another within a layer, with both ends.
fn way_back<'a>(
    beside: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    from: &'a str,
    to: &str,
) -> Option<Vec<&'a str>> {
    let mut seen = BTreeSet::from([from]);
    let mut ways = VecDeque::from([vec![from]]);
    while let Some(way) = ways.pop_front() {
        let last = *way.last()?;
        if last == to {
            return Some(way);
        }
        for &next in beside.get(last).into_iter().flatten() {
            if seen.insert(next) {
                ways.push_back([way.as_slice(), &[next]].concat());
            }
        }
    }
    None
}

#[test]
fn modules_of_each_crate_use_only_what_is_below_them() {
    let metadata = metadata();
    let root = metadata.workspace_root.as_std_path();
    let read = |path: &Path| fs::read_to_string(root.join(path)).ok();
    let orders: BTreeMap<_, _> = ORDERS.iter().copied().collect();
    assert_eq!(orders.len(), ORDERS.len(), "the table names a crate twice");
    let mut found = Vec::new();
    for package in &metadata.packages {
        let Some(order) = orders.get(package.name.as_str()) else {
            found.push(format!("{} has no order: add it to the table", package.name));
            continue;
        };
        // Programs beside a library use it as others do; one that stands alone has modules of its own.
        let libraries = package.targets.iter().filter(|target| target.is_lib());
        let programs = package.targets.iter().filter(|target| target.is_bin());
        let target = libraries.chain(programs).next().unwrap();
        let file = target.src_path.as_std_path().strip_prefix(root).unwrap();
        let read = Crate::read(file, &read);
        let top = read.within(&[]);
        let mut of_crate = flaws(order, &top);
        for (_, module, order) in WITHIN.iter().filter(|(name, ..)| *name == package.name.as_str()) {
            of_crate.extend(flaws(order, &read.within(&[module])));
        }
        for module in &top.names {
            let cycles = cycles(&read.within(&[module]));
            match WITH_CYCLES.contains(&(package.name.as_str(), module)) {
                true if cycles.is_empty() => {
                    of_crate.push(format!("`{module}` has no cycle: take it off the list"))
                }
                true => {}
                false => of_crate.extend(cycles),
            }
        }
        found.extend(of_crate.iter().map(|flaw| format!("{}: {flaw}", package.name)));
    }
    assert!(
        found.is_empty(),
        "{} breaks of the order:\n{}",
        found.len(),
        found.join("\n")
    );
}

/// A crate of these files.
fn sample(files: &[(&str, &str)]) -> Modules {
    sample_within(files, &[])
}

/// The same, of the modules within one.
fn sample_within(files: &[(&str, &str)], within: &[&str]) -> Modules {
    let files: BTreeMap<&Path, &str> = files
        .iter()
        .map(|(name, text)| (Path::new(*name), *text))
        .collect();
    let read = |path: &Path| files.get(path).map(|text| (*text).to_owned());
    Crate::read(Path::new("src/lib.rs"), &read).within(within)
}

#[test]
fn a_cycle_is_found_within_a_layer_and_named_at_each_of_its_ends() {
    let modules = sample(&[
        ("src/lib.rs", "mod a; mod b; mod c; mod d;"),
        ("src/a.rs", "//! Of `crate::c`.\n\nuse crate::b::B;"),
        ("src/b.rs", "fn f() {\n    if true { crate::c::g(1 as usize) }\n}"),
        (
            "src/c.rs",
            "pub fn g() { let _ = super::a::A::<super::d::D>::new(); }",
        ),
        ("src/d.rs", "const NO_PATH: &str = \"crate::a\"; // crate::b::B"),
    ]);
    assert_eq!(
        flaws(&[&["a", "b", "c"], &["d"]], &modules),
        [
            "src/a.rs:3: `crate::b::B` closes a cycle: a → b → c → a",
            "src/b.rs:2: `crate::c::g` closes a cycle: b → c → a → b",
            "src/c.rs:1: `super::a::A` closes a cycle: c → a → b → c",
        ]
    );
}

#[test]
fn a_path_upwards_is_found_however_it_is_written() {
    let modules = sample(&[
        (
            "src/lib.rs",
            "pub mod top;\nmod low { pub mod inner; mod also { use super::super::top::A; use super::inner::B; } }\n\
             pub use top::{Known, other::Name as Renamed}; use external::Thing; pub struct OfRoot;",
        ),
        (
            "src/top.rs",
            "use crate::low::inner; use self::below::X; mod below { use super::Y; use crate::top::Z; }",
        ),
        (
            "src/low/inner.rs",
            "use crate::{low::{self, x, y::Z}, top::{\n    self, one::{Two as _, three},\n}};\n\
             fn f() { println!(\"{}\", crate::top::g()); }\n\
             use crate::{Known, Thing};\n\
             type T = Option<crate::Renamed>;\n\
             use crate::OfRoot;\n\
             pub(in crate::low) use super::super::*;",
        ),
    ]);
    assert_eq!(
        flaws(&[&["top"], &["low"]], &modules),
        [
            "src/lib.rs:2: `super::super::top::A` points upwards: `low` is below `top`",
            "src/low/inner.rs:2: `crate::top::self` points upwards: `low` is below `top`",
            "src/low/inner.rs:2: `crate::top::one::Two` points upwards: `low` is below `top`",
            "src/low/inner.rs:2: `crate::top::one::three` points upwards: `low` is below `top`",
            "src/low/inner.rs:4: `crate::top::g` points upwards: `low` is below `top`",
            "src/low/inner.rs:5: `crate::Known` points upwards: `low` is below `top`",
            "src/low/inner.rs:6: `crate::Renamed` points upwards: `low` is below `top`",
            "src/low/inner.rs:7: `crate::OfRoot` points upwards: `low` is below `crate`",
            "src/low/inner.rs:8: `super::super::*` points upwards: `low` is below `crate`",
        ]
    );
    assert_eq!(flaws(&[&["low"], &["top"]], &modules).len(), 3);
}

#[test]
fn the_order_within_a_module_is_that_of_its_children() {
    let modules = sample_within(
        &[
            ("src/lib.rs", "mod other; mod large;"),
            ("src/other.rs", "use crate::large::low::A;"),
            ("src/large.rs", "pub mod top;\nmod low;\npub struct OfLarge;"),
            ("src/large/top.rs", "use super::low::A; use crate::other::B;"),
            (
                "src/large/low.rs",
                "use crate::large::top::C; use super::OfLarge;\nmod inner { use super::super::top; use super::D; }",
            ),
        ],
        &["large"],
    );
    assert_eq!(
        flaws(&[&["top"], &["low"]], &modules),
        [
            "src/large/low.rs:1: `crate::large::top::C` points upwards: `low` is below `top`",
            "src/large/low.rs:1: `super::OfLarge` points upwards: `low` is below `crate`",
            "src/large/low.rs:2: `super::super::top` points upwards: `low` is below `top`",
        ]
    );
}

#[test]
fn a_cycle_within_a_module_is_found_and_what_its_own_file_declares_is_in_none() {
    let modules = sample_within(
        &[
            ("src/lib.rs", "mod large;"),
            (
                "src/large.rs",
                "mod a; mod b; mod c; use a::A; use c::C; pub struct OfLarge;",
            ),
            ("src/large/a.rs", "use super::b::B; use super::OfLarge;"),
            ("src/large/b.rs", "mod inner { use crate::large::A; }"),
            ("src/large/c.rs", "use super::a::A; use super::OfLarge;"),
        ],
        &["large"],
    );
    assert_eq!(
        cycles(&modules),
        [
            "src/large/a.rs:1: `super::b::B` closes a cycle: a → b → a",
            "src/large/b.rs:1: `crate::large::A` closes a cycle: b → a → b",
        ]
    );
}

#[test]
fn what_only_tests_compile_is_left_out() {
    let modules = sample(&[
        ("src/lib.rs", "mod a; mod b;\n#[cfg(test)]\nmod only_for_tests;"),
        ("src/a.rs", ""),
        (
            "src/b.rs",
            "#[cfg(test)] mod tests;\n\
             #[cfg(test)] use crate::{a::A, a};\n\
             #[cfg(test)] #[expect(dead_code)] impl B { fn f(&self) { crate::a::f() } }\n\
             #[cfg(all(test, unix))] mod more { use crate::a::A; }\n\
             #[cfg(any(test, feature = \"faults\"))] fn g() {\n    crate::a::g()\n}",
        ),
    ]);
    assert_eq!(
        flaws(&[&["a"], &["b"]], &modules),
        ["src/b.rs:6: `crate::a::g` points upwards: `b` is below `a`"]
    );
}

#[test]
fn every_module_stands_in_the_table_once_and_nothing_else_does() {
    let modules = sample(&[
        ("src/lib.rs", "mod a; mod b;"),
        ("src/a.rs", ""),
        ("src/b.rs", ""),
    ]);
    assert_eq!(flaws(&[&["a"], &["b"]], &modules), [""; 0]);
    assert_eq!(
        flaws(&[&["a", "gone"], &["a"]], &modules),
        [
            "the table names `gone`, and there is no such module",
            "the table names `a` twice",
            "`b` has no layer: add it to the table",
        ]
    );
}
