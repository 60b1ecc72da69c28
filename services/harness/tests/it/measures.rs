//! The metrics: the list that operators read is the one that the services expose, each with a description.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use parlance_harness::Stack;

use crate::spec::{Transport, run};

/// Names with the names of their labels.
type Listed = BTreeMap<String, BTreeSet<String>>;

/// What the section about metrics lists.
fn documented() -> Listed {
    let readme = include_str!("../../../README.md");
    let section = readme.split("\n## Metrics\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let quoted = section.split('`').skip(1).step_by(2);
    quoted
        .filter(|text| text.starts_with("chat_") || text.starts_with("process_"))
        .map(|text| match text.split_once('{') {
            Some((name, labels)) => {
                let labels = labels.trim_end_matches('}').split(',');
                (name.to_owned(), labels.map(str::to_owned).collect())
            }
            None => (text.to_owned(), BTreeSet::new()),
        })
        .collect()
}

/// Every name that the sources of the services measure.
fn measured() -> BTreeSet<String> {
    fn walk(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, names);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                for kind in ["counter!(", "gauge!(", "histogram!("] {
                    for call in text.split(&format!("metrics::{kind}")).skip(1) {
                        let name = call.trim_start().strip_prefix('"').unwrap_or_default();
                        let name = name.split('"').next().unwrap_or_default();
                        names.extend((!name.is_empty()).then(|| name.to_owned()));
                    }
                }
            }
        }
    }
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut names = BTreeSet::new();
    for service in ["gateway", "persistence"] {
        walk(&services.join(service).join("src"), &mut names);
    }
    names
}

/// What a process exposes: its metrics with their labels, and those that are described.
async fn exposed(url: &str) -> (Listed, BTreeSet<String>) {
    let text = reqwest::get(format!("{url}/metrics")).await.unwrap();
    let text = text.text().await.unwrap();
    let (mut listed, mut described) = (Listed::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(help.ends_with('.') || name.starts_with("process_"), "{line}");
            described.insert(name.to_owned());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, _) = kind.split_once(' ').unwrap();
            listed.entry(name.to_owned()).or_default();
        } else if let Some((series, _)) = line.rsplit_once(' ')
            && let Some((name, labels)) = series.split_once('{')
        {
            let parts = ["_bucket", "_sum", "_count"];
            let family = parts.iter().find_map(|part| name.strip_suffix(part));
            let family = family
                .filter(|family| listed.contains_key(*family))
                .unwrap_or(name);
            let names = labels
                .split("=\"")
                .map(|part| part.rsplit([',', '"']).next().unwrap());
            let names = names.filter(|name| !name.is_empty() && *name != "}" && *name != "le");
            listed.get_mut(family).unwrap().extend(names.map(str::to_owned));
        }
    }
    (listed, described)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_that_are_documented_measured_and_exposed_are_the_same() {
    let documented = documented();
    let ours: BTreeSet<_> = documented
        .keys()
        .filter(|name| name.starts_with("chat_"))
        .cloned()
        .collect();
    // Every process says what it is, and how.
    let mut measured = measured();
    measured.extend(["chat_build_info", "chat_ready"].map(str::to_owned));
    assert_eq!(ours, measured, "services/README.md and the sources");

    let stack = Stack::builder().gateways(2).start().await.unwrap();
    run(&stack, "traces", Transport::Websocket).await;
    let mut seen = BTreeSet::new();
    for process in stack.gateways().iter().chain(stack.persistence_replicas()) {
        let (listed, described) = exposed(process.internal_url()).await;
        for (name, labels) in listed {
            assert!(
                described.contains(&name),
                "{name} of {} has no description",
                process.name()
            );
            let wanted = documented.get(&name);
            let wanted = wanted.unwrap_or_else(|| panic!("{name} of {} is not documented", process.name()));
            // Without a sample there is no label to see.
            assert!(
                labels.is_empty() || labels == *wanted,
                "{name} has {labels:?}, documented {wanted:?}"
            );
            seen.insert(name);
        }
    }
    let process: BTreeSet<_> = documented
        .keys()
        .filter(|name| name.starts_with("process_"))
        .cloned()
        .collect();
    assert!(process.is_subset(&seen), "{process:?} but only {seen:?}");
    // There from the start, so that alerts on them never lack a series.
    for name in [
        "chat_build_info",
        "chat_gateway_draining",
        "chat_gateway_inflight_commands",
        "chat_gateway_lease_lapses_total",
        "chat_persistence_dead_letters_total",
        "chat_push_parked_total",
    ] {
        assert!(seen.contains(name), "{name} is missing in {seen:?}");
    }
}
