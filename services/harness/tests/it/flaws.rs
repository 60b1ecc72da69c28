//! The deliberate flaws of the fault suite are patches in `services/harness/flaws`: each switched on by its own name, listed in
//! the README and used by a test; sources have none.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use parlance_harness::devstack::repository;
use parlance_harness::environment::variable;

use crate::boundaries::sources;

const BEGIN: &str = "<!-- generated: flaws (make generate) -->\n";
const END: &str = "<!-- end of generated part -->\n";
/// What a patch calls, whatever stands before it.
const CALL: &str = "faults::happens(\"";
/// The only source that may name what patches call.
const FAILPOINTS: &str = "services/bus/src/faults.rs";

/// A patch of the folder `flaws`.
pub struct Flaw {
    pub name: String,
    /// What it breaks: the text before the diff.
    about: String,
    /// The lines it adds.
    added: String,
}

/// All flaws, by name.
pub fn flaws() -> Vec<Flaw> {
    let folder = repository().join("services/harness/flaws");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let paths: BTreeSet<PathBuf> = paths.collect();
    paths.iter().map(|path| Flaw::read(path)).collect()
}

impl Flaw {
    fn read(path: &Path) -> Self {
        assert_eq!(path.extension().unwrap(), "patch", "{}", path.display());
        let text = fs::read_to_string(path).unwrap();
        let diff_at = text.find("--- a/").expect("a diff");
        let (about, diff) = text.split_at(diff_at);
        let added = diff.lines().filter_map(|line| line.strip_prefix('+'));
        Self {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            about: about.split_whitespace().collect::<Vec<_>>().join(" "),
            added: added.collect::<Vec<_>>().join("\n"),
        }
    }
}

#[test]
fn a_flaw_is_switched_on_by_its_own_name() {
    let flaws = flaws();
    assert!(flaws.len() > 20, "{}", flaws.len());
    for Flaw { name, added, .. } in flaws {
        let calls = added.split(CALL).skip(1);
        let names: BTreeSet<&str> = calls.filter_map(|call| call.split('"').next()).collect();
        assert_eq!(names, BTreeSet::from([name.as_str()]), "{name}.patch");
    }
}

#[test]
fn sources_have_crash_points_and_no_flaw() {
    let root = repository();
    let mut files = Vec::new();
    for part in ["bus", "runtime", "journal", "gateway", "persistence", "operator"] {
        sources(&root.join("services").join(part), &mut files);
    }
    for file in files {
        let name = file.strip_prefix(&root).unwrap();
        let calls = fs::read_to_string(&file).unwrap().contains("happens(");
        assert!(
            !calls || name == Path::new(FAILPOINTS),
            "{} has a flaw: make it a patch (CONTRIBUTING.md)",
            name.display()
        );
    }
}

#[test]
fn every_flaw_is_switched_on_by_a_test() {
    let harness = repository().join("services/harness");
    let mut files = Vec::new();
    sources(&harness.join("tests"), &mut files);
    files.push(harness.join("js/tests/faults/promises.mjs"));
    let tests: String = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    for Flaw { name, .. } in flaws() {
        let used = tests.contains(&format!("{name}=")) || tests.contains(&format!("\"{name}\""));
        assert!(
            used,
            "no test switches {name} on: a flaw that nothing detects proves nothing"
        );
    }
}

#[test]
fn the_readme_lists_every_flaw() {
    let readme = repository().join("services/harness/README.md");
    let present = fs::read_to_string(&readme).unwrap();
    let (before, rest) = present.split_once(BEGIN).expect("the begin marker");
    let (_, after) = rest.split_once(END).expect("the end marker");
    let rows: String = flaws()
        .iter()
        .map(|flaw| {
            assert!(
                !flaw.about.is_empty(),
                "{}.patch does not say what it breaks",
                flaw.name
            );
            format!("| `{}` | {} |\n", flaw.name, flaw.about)
        })
        .collect();
    let wanted = format!("{before}{BEGIN}| flaw | what it does |\n| --- | --- |\n{rows}{END}{after}");
    if variable("PARLANCE_BLESS").is_some() {
        fs::write(&readme, wanted).unwrap();
        return;
    }
    assert_eq!(
        present, wanted,
        "services/harness/README.md is out of date: run `make generate`"
    );
}
