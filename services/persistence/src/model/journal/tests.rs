use parlance_journal::{Budget, EMPTY_UPDATE};

use super::*;

const LIMITS: Limits = Limits {
    text_bytes: 1_000,
    update_bytes: 1_200,
    document_bytes: 5_000,
    work: 2_000_000,
};

/// The update of a client that has this document and makes its text into that.
fn update(journal: &mut Journal, writer: u64, content: &str) -> Vec<u8> {
    let writer = Writer::new(writer << 32);
    let mut theirs = Document::load([journal.checkpoint().unwrap()], writer).unwrap();
    let edit = theirs.rewrite(content, &mut { Budget::EDIT }).unwrap();
    edit.map_or_else(|| EMPTY_UPDATE.to_vec(), |edit| edit.update)
}

fn journal(content: &str) -> Journal {
    let mut journal = Journal::new(Vec::new());
    let first = update(&mut journal, 1, content);
    journal.merge(&first, &LIMITS).unwrap();
    journal
}

#[test]
fn updates_of_one_version_are_both_kept_and_each_merges_once() {
    let mut both = journal("one\ntwo\n");
    let left = update(&mut both, 2, "one\nleft\ntwo\n");
    let right = update(&mut both, 3, "one\ntwo\nright\n");
    assert_eq!(both.merge(&left, &LIMITS), Ok(true));
    assert_eq!(both.merge(&right, &LIMITS), Ok(true));
    assert_eq!(both.merge(&left, &LIMITS), Ok(false));
    assert_eq!(both.merge(EMPTY_UPDATE, &LIMITS), Ok(false));
    assert_eq!(both.text().unwrap(), "one\nleft\ntwo\nright\n");
}

#[test]
fn a_document_is_its_checkpoint_and_the_updates_since() {
    let mut written = journal("one\n");
    let checkpoint = written.checkpoint().unwrap();
    let first = update(&mut written, 2, "one\ntwo\n");
    written.merge(&first, &LIMITS).unwrap();
    let second = update(&mut written, 3, "zero\none\ntwo\n");
    written.merge(&second, &LIMITS).unwrap();
    let mut stored = Journal::new(vec![checkpoint, first, second]);
    assert_eq!(stored.text(), written.text());
    assert_eq!(stored.checkpoint(), written.checkpoint());
}

#[test]
fn what_is_no_update_or_builds_on_the_unknown_changes_nothing() {
    let mut one = journal("one");
    let foreign = update(&mut journal("another"), 2, "another one");
    let before = one.checkpoint();
    for (bytes, refusal) in [
        (&b""[..], Error::Malformed),
        (b"\x01", Error::Malformed),
        (b"garbage", Error::Malformed),
        (&foreign, Error::Incomplete),
    ] {
        assert_eq!(one.merge(bytes, &LIMITS), Err(refusal.into()), "{bytes:?}");
    }
    assert_eq!(one.checkpoint(), before);
}

#[test]
fn what_would_grow_too_large_changes_nothing_and_what_comes_after_it_merges() {
    let mut journal = journal(&"x".repeat(600));
    let limits = |text_bytes, update_bytes| Limits {
        text_bytes,
        update_bytes,
        ..LIMITS
    };
    let before = journal.checkpoint();
    let more = update(&mut journal, 2, &"xy".repeat(400));
    let refused = [
        journal.merge(&more, &limits(700, 1_200)),
        journal.merge(&more, &limits(1_000, more.len() - 1)),
        journal.merge(&more, &Limits { work: 1, ..LIMITS }),
    ];
    assert!(
        matches!(
            refused,
            [
                Err(Refusal::TooLarge {
                    what: "text",
                    bytes: 800,
                    most: 700
                }),
                Err(Refusal::TooLarge { what: "update", .. }),
                Err(Refusal::Document(Error::TooCostly { .. })),
            ]
        ),
        "{refused:?}"
    );
    assert_eq!(journal.checkpoint(), before);
    assert_eq!(journal.merge(&more, &LIMITS), Ok(true));
    assert_eq!(journal.text().unwrap(), "xy".repeat(400));
}

#[test]
fn text_is_counted_in_bytes() {
    let mut journal = journal("");
    let many = update(&mut journal, 2, &"漢字😄".repeat(100));
    let limits = |text_bytes| Limits { text_bytes, ..LIMITS };
    let refused = journal.merge(&many, &limits(999));
    let large = Refusal::TooLarge {
        what: "text",
        bytes: 1_000,
        most: 999,
    };
    assert_eq!(refused, Err(large));
    assert_eq!(journal.merge(&many, &limits(1_000)), Ok(true));
}

#[test]
fn a_document_that_keeps_too_much_of_what_was_deleted_takes_no_more() {
    let mut journal = journal("");
    let mut grown = 0;
    let refused = loop {
        grown += 1;
        let writer = Writer::new(grown << 32);
        let mut theirs = Document::load([journal.checkpoint().unwrap()], writer).unwrap();
        let mut updates = Vec::new();
        for content in ["a", "ab", ""] {
            updates.extend(theirs.rewrite(content, &mut { Budget::EDIT }).unwrap());
        }
        let refused = updates
            .iter()
            .find_map(|edit| journal.merge(&edit.update, &LIMITS).err());
        if let Some(refused) = refused {
            break refused;
        }
    };
    assert!(grown > 50, "{grown}");
    assert!(
        matches!(refused, Refusal::TooLarge { what: "document", bytes, .. } if bytes > 5_000),
        "{refused:?}"
    );
}

#[test]
fn a_text_that_is_all_new_fits_one_message() {
    let words = |word: &str| format!("{word} - ").repeat(50_000);
    let limits = Limits {
        text_bytes: 384 * 1024,
        update_bytes: 448 * 1024,
        document_bytes: 1 << 22,
        ..LIMITS
    };
    let mut journal = Journal::new(Vec::new());
    for (writer, word) in [(1, "old"), (2, "new")] {
        let all = update(&mut journal, writer, &words(word));
        assert_eq!(journal.merge(&all, &limits), Ok(true), "{} bytes", all.len());
    }
    assert_eq!(journal.text().unwrap(), words("new"));
}
