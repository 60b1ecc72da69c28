//! Holds `conformance.jsonl`: every line that the front ends' documents ask for, once, with the checks that
//! hold it. `spec.rs` makes sure that the checks of a specification really ran.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A document's name, its front end, and how many lines of each kind it has.
type Document = (&'static str, &'static str, &'static [(char, usize)]);

/// The documents with the number of lines of each kind in them.
const DOCUMENTS: &[Document] = &[
    (
        "S0",
        "journal",
        &[('c', 5), ('s', 5), ('t', 3), ('m', 2), ('x', 2), ('b', 4)],
    ),
    (
        "S1",
        "encrypted",
        &[
            ('r', 13),
            ('c', 6),
            ('s', 4),
            ('m', 1),
            ('t', 7),
            ('b', 7),
            ('x', 4),
            ('e', 5),
            ('p', 4),
            ('f', 7),
        ],
    ),
    (
        "S2",
        "chats",
        &[
            ('c', 6),
            ('s', 6),
            ('m', 2),
            ('t', 5),
            ('b', 3),
            ('x', 4),
            ('p', 3),
            ('f', 6),
        ],
    ),
    (
        "S3",
        "threads",
        &[
            ('r', 14),
            ('c', 6),
            ('s', 10),
            ('m', 1),
            ('t', 3),
            ('b', 7),
            ('x', 6),
            ('p', 20),
        ],
    ),
    (
        "S4",
        "inbox",
        &[
            ('r', 1),
            ('c', 2),
            ('s', 2),
            ('m', 2),
            ('t', 2),
            ('x', 1),
            ('b', 3),
            ('f', 2),
        ],
    ),
];

/// What the letter of an id stands for, in the order of the table in the README.
const KINDS: &[(char, &str)] = &[
    ('c', "client event"),
    ('s', "server event"),
    ('r', "route"),
    ('t', "data"),
    ('m', "room"),
    ('b', "behaviour"),
    ('e', "error"),
    ('x', "security"),
    ('p', "operation"),
    ('f', "extension"),
];

const BEGIN: &str = "<!-- generated: conformance (make generate) -->\n";
const END: &str = "<!-- end of generated part -->\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Passing,
    Planned,
    Declined,
}

/// A line of the baseline.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    kind: String,
    text: String,
    status: Status,
    /// `js:<specification>#<id>` or `rust:<file>#<function>`.
    #[serde(default)]
    tests: Vec<String>,
    #[serde(default)]
    why: String,
    /// What was chosen where the document is silent, and the reason.
    #[serde(default)]
    decision: String,
}

impl Line {
    fn letter(&self) -> char {
        self.id.chars().nth(3).unwrap_or('?')
    }
}

/// Where a check is.
#[derive(Debug, Clone, Copy)]
enum Check<'a> {
    Js { specification: &'a str, id: &'a str },
    Rust { file: &'a str, function: &'a str },
}

fn check(name: &str) -> Option<Check<'_>> {
    let (language, rest) = name.split_once(':')?;
    let (place, what) = rest.split_once('#')?;
    match language {
        "js" => Some(Check::Js {
            specification: place,
            id: what,
        }),
        "rust" => Some(Check::Rust {
            file: place,
            function: what,
        }),
        _ => None,
    }
}

fn harness() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn repository() -> PathBuf {
    harness().join("../..")
}

fn lines() -> Vec<Line> {
    let text = read_to_string(harness().join("conformance.jsonl")).expect("the baseline");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// The ids whose checks in this specification hold a passing line: each must have run and passed.
pub fn held_by(specification: &str) -> BTreeSet<String> {
    lines()
        .iter()
        .filter(|line| line.status == Status::Passing)
        .flat_map(|line| &line.tests)
        .filter_map(|name| match check(name) {
            Some(Check::Js {
                specification: own,
                id,
            }) if own == specification => Some(id.to_owned()),
            _ => None,
        })
        .collect()
}

/// The ids in front of the name of a check: `S0.c1 S0.m1: who joins hears`.
pub fn ids(name: &str) -> Vec<&str> {
    let Some((front, _)) = name.split_once(": ") else {
        return Vec::new();
    };
    let ids: Vec<&str> = front.split(' ').collect();
    if ids.iter().all(|id| is_id(id)) {
        ids
    } else {
        Vec::new()
    }
}

fn is_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes, [b'S', b'0'..=b'9', b'.', b'a'..=b'z', rest @ ..] if !rest.is_empty() && rest.iter().all(u8::is_ascii_digit))
}

/// The names of the checks in a specification, as far as they are written there as text.
fn names(specification: &str) -> Vec<String> {
    let file = harness().join(format!("js/tests/{specification}.mjs"));
    let text = read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let name = |call: &str| {
        let call = call.trim_start();
        let quote = call.chars().next().filter(|first| "'\"`".contains(*first))?;
        call[1..].split(quote).next().map(str::to_owned)
    };
    text.split("test(").skip(1).filter_map(name).collect()
}

/// All specifications with the ids that their checks carry.
fn carried() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    let root = harness().join("js/tests");
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "mjs") {
                let name = path.with_extension("");
                let name = name.strip_prefix(&root).unwrap().display().to_string();
                let names = names(&name);
                let own = names
                    .iter()
                    .flat_map(|name| ids(name))
                    .map(str::to_owned)
                    .collect();
                found.insert(name, own);
            }
        }
    }
    found
}

/// Whether the file has this function as a test that runs.
fn is_test(file: &str, function: &str) -> bool {
    let text = read_to_string(repository().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let opening = format!("fn {function}(");
    lines.iter().enumerate().any(|(place, line)| {
        let attributes = lines[..place]
            .iter()
            .rev()
            .take_while(|above| above.starts_with("#["));
        let attributes: Vec<_> = attributes.collect();
        let marked = |mark: &str| attributes.iter().any(|attribute| attribute.starts_with(mark));
        line.contains(&opening) && (marked("#[test]") || marked("#[tokio::test")) && !marked("#[ignore")
    })
}

#[test]
fn every_line_of_the_documents_stands_once_in_the_baseline() {
    let expected: Vec<String> = DOCUMENTS
        .iter()
        .flat_map(|(document, _, kinds)| kinds.iter().map(move |kind| (document, kind)))
        .flat_map(|(document, (letter, most))| {
            (1..=*most).map(move |number| format!("{document}.{letter}{number}"))
        })
        .collect();
    let found: Vec<String> = lines().iter().map(|line| line.id.clone()).collect();
    assert_eq!(found, expected);
    for line in lines() {
        let kind = KINDS.iter().find(|(letter, _)| *letter == line.letter());
        assert_eq!(
            kind.map(|(_, kind)| *kind),
            Some(line.kind.as_str()),
            "{}",
            line.id
        );
        assert!(!line.text.is_empty(), "{}", line.id);
        let passing = line.status == Status::Passing;
        assert_eq!(
            line.tests.is_empty(),
            !passing,
            "{}: tests belong to a passing line",
            line.id
        );
        assert_eq!(
            line.why.is_empty(),
            passing,
            "{}: a reason belongs to any other",
            line.id
        );
        assert!(
            line.decision.is_empty() || passing,
            "{}: a decision belongs to what passes",
            line.id
        );
    }
}

#[test]
fn every_check_that_is_named_exists_and_runs() {
    let carried = carried();
    let mut attributed: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let folder = harness().join("tests/it");
    let sources = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let runners: String = sources
        .filter(|path| path.is_file())
        .map(|path| read_to_string(path).unwrap())
        .collect();
    let lines = lines();
    for (line, name) in lines
        .iter()
        .flat_map(|line| line.tests.iter().map(move |name| (line, name)))
    {
        match check(name) {
            Some(Check::Js { specification, id }) => {
                assert_eq!(id, line.id, "{name} holds another line");
                let own = carried
                    .get(specification)
                    .unwrap_or_else(|| panic!("{name}: no such file"));
                assert!(own.contains(id), "{name}: no check carries this id");
                assert!(
                    runners.contains(&format!("\"{specification}\"")),
                    "{name} is never run"
                );
                attributed.entry(specification).or_default().insert(id.to_owned());
            }
            Some(Check::Rust { file, function }) => {
                assert!(is_test(file, function), "{}: {name} is no test", line.id);
            }
            None => panic!("{}: {name} is neither js:… nor rust:…", line.id),
        }
    }
    for (specification, ids) in &carried {
        let own = attributed.remove(specification.as_str()).unwrap_or_default();
        assert_eq!(
            ids, &own,
            "{specification}: its checks carry other ids than the baseline says"
        );
    }
}

#[test]
fn the_readme_shows_how_much_is_held() {
    let readme = repository().join("services/gateway/README.md");
    let present = read_to_string(&readme).unwrap();
    let (before, rest) = present.split_once(BEGIN).expect("the begin marker");
    let (_, after) = rest.split_once(END).expect("the end marker");
    let wanted = format!("{before}{BEGIN}{}{END}{after}", table(&lines()));
    if bless() {
        std::fs::write(&readme, wanted).unwrap();
        return;
    }
    assert_eq!(
        present, wanted,
        "services/gateway/README.md is out of date: run `make generate`"
    );
}

#[expect(clippy::disallowed_methods, reason = "a test without settings of its own")]
fn bless() -> bool {
    std::env::var_os("PARLANCE_BLESS").is_some()
}

fn table(lines: &[Line]) -> String {
    let count = |document: &str, letter: Option<char>| {
        let own = lines.iter().filter(|line| {
            line.id.starts_with(document) && letter.is_none_or(|letter| letter == line.letter())
        });
        let own: Vec<_> = own.collect();
        let held = |status| own.iter().filter(|line| line.status == status).count();
        (own.len(), held(Status::Passing), held(Status::Declined))
    };
    let cell = |(all, passing, _)| match all {
        0 => " ".to_owned(),
        _ => format!("{passing}/{all}"),
    };
    let mut table = String::from("| front end |");
    for (_, kind) in KINDS {
        table.push_str(&format!(" {kind} |"));
    }
    table.push_str(" all | declined |\n|");
    table.push_str(&" --- |".repeat(KINDS.len() + 3));
    table.push('\n');
    for (document, dialect, _) in DOCUMENTS.iter().chain(&[("S", "", [].as_slice())]) {
        let name = if dialect.is_empty() {
            "**all**".to_owned()
        } else {
            format!("`{dialect}` ({document})")
        };
        table.push_str(&format!("| {name} |"));
        for (letter, _) in KINDS {
            table.push_str(&format!(" {} |", cell(count(document, Some(*letter))).trim()));
        }
        let all = count(document, None);
        table.push_str(&format!(" **{}** | {} |\n", cell(all), all.2));
    }
    table
}
