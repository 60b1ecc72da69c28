//! The corpus: updates of real documents, and some that were made by hand to be refused.

use std::path::PathBuf;

use parlance_journal::{Budget, Document, EMPTY_UPDATE, Writer};

use crate::parts::{Block, DELETED, GONE, Parts, SKIP, Section, put};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// The entries whose names begin so, by name.
pub fn read(prefix: &str) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(folder()).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
#[ignore = "writes the corpus into the tree, after a change of this file"]
fn write_the_corpus() {
    for (name, bytes) in real().into_iter().chain(nasty()) {
        std::fs::write(folder().join(format!("{name}.bin")), bytes).unwrap();
    }
}

/// Each writer forks from the base and goes through these texts, one update each.
const WRITERS: &[(&str, &[&str])] = &[
    (
        "typing",
        &[
            "oone\ntwo 👍🏽 three\n",
            "oonee\ntwo 👍🏽 three\n",
            "oonee\ntwo 👍🏽 xthree\n",
        ],
    ),
    ("deletion", &["one\n👍🏽 three\n", "one\n👍🏽\n"]),
    ("emptied", &["", "again"]),
    (
        "skin",
        &[
            "one\ntwo 👍🏿 three\n",
            "one\ntwo 👍 three\n",
            "one\ntwo 👩‍👩‍👧 three\n",
        ],
    ),
    (
        "lines",
        &["zero\none\ntwo 👍🏽 three\n", "zero\none\n1½\ntwo 👍🏽 three\nfour\n"],
    ),
    (
        "combining",
        &["one\ntwo 👍🏽 thre\u{301}e\n", "한글\none\ntwo 👍🏽 thre\u{301}e\n"],
    ),
];

fn real() -> Vec<(String, Vec<u8>)> {
    let mut base = Document::new(Writer::new(u64::MAX));
    let budget = &mut Budget::EDIT.clone();
    base.rewrite("one\ntwo 👍🏽 three\n", budget).unwrap();
    let mut all = Document::load([base.checkpoint()], Writer::NONE).unwrap();
    let mut entries = vec![
        ("base".to_owned(), base.checkpoint()),
        ("real-empty".to_owned(), EMPTY_UPDATE.to_vec()),
    ];
    for (n, (name, texts)) in WRITERS.iter().enumerate() {
        // Client ids of all lengths.
        let writer = Writer::new((3 + n as u64) << (11 + 8 * n));
        let mut copy = Document::load([base.checkpoint()], writer).unwrap();
        for (step, text) in texts.iter().enumerate() {
            let edit = copy.rewrite(text, budget).unwrap().unwrap();
            all.apply(&edit.update, u64::MAX).unwrap();
            entries.push((format!("real-{name}-{step}"), edit.update));
        }
        entries.push((
            format!("real-{name}-all"),
            copy.diff_since(&base.state_vector()).unwrap(),
        ));
    }
    // One more writes between what the others wrote.
    let before = all.state_vector();
    let mut last = Document::load([all.checkpoint()], Writer::new(99 << 40)).unwrap();
    let text: String = all.text().chars().flat_map(|letter| [letter, '·']).collect();
    last.rewrite(&text, budget).unwrap();
    entries.push(("real-between".to_owned(), last.diff_since(&before).unwrap()));
    entries.push(("real-checkpoint".to_owned(), last.checkpoint()));
    entries.push((
        "real-difference".to_owned(),
        last.diff_since(&base.state_vector()).unwrap(),
    ));
    entries
}

fn section(client: u64, clock: u64, blocks: Vec<Block>) -> Vec<u8> {
    let parts = Parts {
        sections: vec![Section {
            client,
            clock,
            blocks,
            missing: 0,
        }],
        deleted: Vec::new(),
    };
    parts.encode()
}

fn nasty() -> Vec<(String, Vec<u8>)> {
    let base = (1 << 53) - 1;
    let text = |text| Block::text(None, None, text);
    let linked = |left, right| Block::text(left, right, "x");
    let circle = Parts {
        sections: vec![
            Section {
                client: 71,
                clock: 0,
                blocks: vec![linked(Some((72, 0)), None)],
                missing: 0,
            },
            Section {
                client: 72,
                clock: 0,
                blocks: vec![linked(Some((71, 0)), None)],
                missing: 0,
            },
        ],
        deleted: Vec::new(),
    };
    let deletes = |ranges: Vec<(u64, u64)>| Parts {
        sections: Vec::new(),
        deleted: vec![(base, ranges)],
    };
    let mut counts = vec![1];
    put(&mut counts, u64::from(u32::MAX));
    let entries = [
        ("circle", circle.encode()),
        ("itself", section(71, 0, vec![linked(Some((71, 0)), None)])),
        (
            "backwards",
            section(71, 0, vec![linked(Some((base, 9)), Some((base, 2)))]),
        ),
        (
            "inside-a-pair",
            section(71, 0, vec![linked(Some((base, 8)), Some((base, 9)))]),
        ),
        ("half-a-pair", deletes(vec![(8, 1)]).encode()),
        ("half-pairs", deletes(vec![(9, 2), (13, 40)]).encode()),
        ("unordered", deletes(vec![(5, 2), (1, 2)]).encode()),
        ("last-clock", section(71, (1 << 31) - 2, vec![text("xyz")])),
        ("gone", section(71, 0, vec![Block::empty(GONE, 5), text("x")])),
        (
            "deleted",
            section(71, 0, vec![Block::empty(DELETED, 5), text("x")]),
        ),
        ("skip", section(71, 0, vec![Block::empty(SKIP, 5), text("x")])),
        (
            "skip-around",
            section(71, 5, vec![Block::empty(SKIP, u64::MAX), text("x")]),
        ),
        ("endless", section(71, 0, vec![Block::empty(GONE, (1 << 31) - 1)])),
        ("nothing", section(71, 0, vec![text("")])),
        ("nul", section(71, 0, vec![text("a\0b")])),
        ("twice", section(base, 0, vec![text("something else")])),
        ("counts", counts),
        (
            "overlong",
            vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0],
        ),
    ];
    let named = |(name, bytes)| (format!("nasty-{name}"), bytes);
    entries.into_iter().map(named).collect()
}
