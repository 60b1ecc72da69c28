//! Holds the table of who may know whom, over the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use proc_macro2::{TokenStream, TokenTree};

/// Each crate with the crates of ours it depends on.
const OURS: &[(&str, &[&str])] = &[
    ("parlance-proto", &[]),
    ("parlance-bus", &["parlance-proto"]),
    ("parlance-runtime", &[]),
    ("parlance-journal", &[]),
    (
        "parlance-gateway",
        &[
            "parlance-proto",
            "parlance-bus",
            "parlance-runtime",
            "parlance-journal",
        ],
    ),
    (
        "parlance-persistence",
        &[
            "parlance-proto",
            "parlance-bus",
            "parlance-runtime",
            "parlance-journal",
        ],
    ),
    (
        "parlance-operator",
        &["parlance-proto", "parlance-bus", "parlance-runtime"],
    ),
    ("parlance-harness", &["parlance-proto", "parlance-bus"]),
];

/// Crates that decide what a part of the system is, with the only ones of ours that may name them.
const OWNED: &[(&str, &[&str])] = &[
    ("async-nats", &["parlance-bus"]),
    ("fail", &["parlance-bus"]),
    // The harness asserts on rows.
    ("sqlx", &["parlance-persistence", "parlance-harness"]),
    ("yrs", &["parlance-journal"]),
    ("socketioxide", &["parlance-gateway"]),
    ("engineioxide", &["parlance-gateway"]),
    // The runtime serves health pages.
    ("axum", &["parlance-gateway", "parlance-runtime"]),
    // The harness mints tokens.
    ("jsonwebtoken", &["parlance-gateway", "parlance-harness"]),
];

/// What the crates of pure data and of pure computation may not know.
const NEVER_IN_PURE: &[&str] = &["tokio", "serde_json", "async-nats", "sqlx", "axum"];

pub fn metadata() -> Metadata {
    MetadataCommand::new()
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .unwrap()
}

/// Names of normal and build dependencies per crate; what tests use does not ship.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let shipped = |kind| kind != DependencyKind::Development;
    let names = |package: &cargo_metadata::Package| {
        let used = package
            .dependencies
            .iter()
            .filter(|dependency| shipped(dependency.kind));
        used.map(|dependency| dependency.name.clone()).collect()
    };
    let metadata = metadata();
    metadata
        .packages
        .iter()
        .map(|package| (package.name.to_string(), names(package)))
        .collect()
}

#[test]
fn crates_depend_only_on_those_they_may_know() {
    let dependencies = dependencies();
    let known: BTreeSet<_> = OURS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let found: BTreeSet<_> = dependencies.keys().cloned().collect();
    assert_eq!(
        found, known,
        "a crate is missing in the table of this test, or the table names one too many"
    );
    for (name, allowed) in OURS {
        let used = dependencies[*name].iter().filter(|used| known.contains(*used));
        let refused: Vec<_> = used.filter(|used| !allowed.contains(&used.as_str())).collect();
        assert!(refused.is_empty(), "{name} must not depend on {refused:?}");
    }
}

#[test]
fn neither_service_knows_the_other_even_in_tests() {
    let metadata = metadata();
    for (name, other) in [
        ("parlance-gateway", "parlance-persistence"),
        ("parlance-persistence", "parlance-gateway"),
        ("parlance-gateway", "sqlx"),
        ("parlance-persistence", "socketioxide"),
    ] {
        let package = metadata
            .packages
            .iter()
            .find(|package| package.name.as_str() == name)
            .unwrap();
        let names = package
            .dependencies
            .iter()
            .any(|dependency| dependency.name == other);
        assert!(!names, "{name} must not name {other}");
    }
}

#[test]
fn what_defines_a_part_is_named_by_its_owner_only() {
    let dependencies = dependencies();
    for (dependency, owners) in OWNED {
        let users = dependencies
            .iter()
            .filter(|(_, used)| used.contains(*dependency))
            .map(|(name, _)| name);
        let others: Vec<_> = users.filter(|name| !owners.contains(&name.as_str())).collect();
        assert!(
            others.is_empty(),
            "{dependency} belongs to {owners:?} but is named by {others:?}"
        );
    }
    for name in ["parlance-proto", "parlance-journal"] {
        let used = &dependencies[name];
        let refused: Vec<_> = NEVER_IN_PURE
            .iter()
            .filter(|never| used.contains(**never))
            .collect();
        assert!(refused.is_empty(), "{name} is pure but names {refused:?}");
    }
}

#[test]
fn deliberate_flaws_are_in_no_build_that_does_not_ask_for_them() {
    let metadata = metadata();
    for package in &metadata.packages {
        let default = package.features.get("default").cloned().unwrap_or_default();
        assert_eq!(
            default,
            Vec::<String>::new(),
            "{} has default features",
            package.name
        );
        for fail in package.dependencies.iter().filter(|one| one.name == "fail") {
            assert!(fail.optional, "{} always has failpoints", package.name);
        }
        let ours = package
            .dependencies
            .iter()
            .filter(|one| one.name.starts_with("parlance-"));
        for dependency in ours.filter(|one| one.kind != DependencyKind::Development) {
            assert!(
                !dependency.features.iter().any(|feature| feature == "faults"),
                "{} asks for the failpoints of {}",
                package.name,
                dependency.name
            );
        }
    }
}

/// Ways to begin a task that nothing watches.
const UNWATCHED: &[&str] = &[
    "tokio::spawn(",
    "task::spawn(",
    "spawn_blocking(",
    "runtime.spawn(",
    "handle.spawn(",
    "Handle::current().spawn(",
    "connections.spawn(",
    "answering.spawn(",
    "under_way.spawn(",
    "tracker.spawn(",
];
/// The one module that begins tasks, and the one that watches over their trackers.
const BEGIN_TASKS: &[&str] = &["runtime/src/tasks.rs", "runtime/src/lifecycle.rs"];

pub fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A task that panics ends its process: so each begins where that is seen to.
#[test]
fn tasks_of_services_begin_in_one_module() {
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for part in ["bus", "runtime", "journal", "gateway", "persistence", "operator"] {
        sources(&services.join(part).join("src"), &mut files);
    }
    let mut others = Vec::new();
    for file in files {
        let name = file
            .strip_prefix(services)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let is_test = name.ends_with("tests.rs") || name.contains("/tests/");
        if is_test || BEGIN_TASKS.contains(&name.as_str()) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let shipped = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for (number, line) in shipped.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if UNWATCHED.iter().any(|begin| code.contains(begin)) && !code.contains("tasks::") {
                others.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(
        others.is_empty(),
        "begin these by parlance_runtime::tasks: {others:#?}"
    );
}

/// Where the gateway may name socketioxide: everything else must work with another engine.
const NAME_SOCKETIOXIDE: &[&str] = &["edge/socket", "session"];

/// Whether code names it; comments and strings do not.
fn names(tokens: TokenStream, name: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Group(group) => names(group.stream(), name),
        TokenTree::Ident(word) => word == name,
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

#[test]
fn socketioxide_is_named_by_sockets_and_sessions_alone() {
    let gateway = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("gateway/src");
    let mut files = Vec::new();
    sources(&gateway, &mut files);
    let mut owners = BTreeSet::new();
    let mut others = Vec::new();
    for file in files {
        let tokens: TokenStream = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        if !names(tokens, "socketioxide") {
            continue;
        }
        let module = file.strip_prefix(&gateway).unwrap().with_extension("");
        let owner = NAME_SOCKETIOXIDE.iter().find(|owner| module.starts_with(owner));
        match owner {
            Some(owner) => drop(owners.insert(*owner)),
            None => others.push(module),
        }
    }
    assert!(others.is_empty(), "these name socketioxide: {others:#?}");
    assert_eq!(owners.len(), NAME_SOCKETIOXIDE.len(), "only {owners:?} name it");
}
