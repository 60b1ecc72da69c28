//! Holds the documents under `contract/`, and the metrics in `services/README.md`. `make generate` rewrites them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use parlance_gateway::contract::{documents, written};
use parlance_gateway::measures::MEASURES;

const BEGIN: &str = "<!-- generated: metrics of gateways (make generate) -->\n";
const END: &str = "<!-- end of generated part -->\n";

#[test]
fn the_documents_are_those_of_the_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("contract");
    let mut wanted = BTreeSet::new();
    for (path, document) in documents() {
        let file = folder.join(path);
        let text = written(&document);
        if bless() {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, &text).unwrap();
        }
        let present = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            present == text,
            "{} is out of date: run `make generate`",
            file.display()
        );
        wanted.insert(file);
    }
    for folder in [folder.clone(), folder.join("asyncapi")] {
        for file in files(&folder) {
            assert!(wanted.contains(&file), "{} belongs to nothing", file.display());
        }
    }
}

#[test]
fn no_route_is_served_without_being_documented() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/edge");
    let routes = std::fs::read_dir(folder.join("rest")).unwrap();
    let files = routes
        .map(|entry| entry.unwrap().path())
        .chain([folder.join("rest.rs")]);
    // On the internal port, for services: described in `services/README.md`.
    let files = files.filter(|file| !file.ends_with("internal.rs"));
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for plain in [".route(", ".route_service(", ".nest_service(", "axum::routing"] {
            assert!(
                !text.contains(plain),
                "{} has {plain}: use routes!",
                file.display()
            );
        }
    }
}

#[test]
fn the_reference_lists_every_metric() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let present = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = present.split_once(BEGIN).expect("the begin marker");
    let (_, after) = rest.split_once(END).expect("the end marker");
    let mut table = String::from("| metric | kind | meaning |\n| --- | --- | --- |\n");
    for measure in MEASURES {
        let labels = match measure.labels {
            [] => String::new(),
            labels => format!("{{{}}}", labels.join(",")),
        };
        let kind = format!("{:?}", measure.kind).to_lowercase();
        writeln!(
            table,
            "| `{}{labels}` | {kind} | {} |",
            measure.name, measure.help
        )
        .unwrap();
    }
    let wanted = format!("{before}{BEGIN}{table}{END}{after}");
    if bless() {
        std::fs::write(&file, wanted).unwrap();
        return;
    }
    assert_eq!(
        present, wanted,
        "services/README.md is out of date: run `make generate`"
    );
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").path());
    entries
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect()
}

#[expect(clippy::disallowed_methods, reason = "a test without settings of its own")]
fn bless() -> bool {
    std::env::var_os("PARLANCE_BLESS").is_some()
}
