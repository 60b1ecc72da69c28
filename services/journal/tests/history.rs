//! Texts of past versions, restoring one, and who wrote which part.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use parlance_journal::{Blame, Budget, Change, Document, Span, Writer};

/// Author, update and text of a version.
type Version = (&'static str, Vec<u8>, String);

/// Versions by several authors, and the checkpoint before the first.
fn versions(texts: &[(&'static str, &str)]) -> (Vec<u8>, Vec<Version>) {
    let mut document = Document::new(Writer::new(1 << 20));
    let checkpoint = document.checkpoint();
    let versions = texts.iter().map(|(author, text)| {
        let edit = document
            .rewrite(text, &mut Budget::EDIT.clone())
            .unwrap()
            .unwrap();
        (*author, edit.update, (*text).to_owned())
    });
    (checkpoint, versions.collect())
}

#[test]
fn the_text_of_a_version_is_that_of_the_checkpoint_and_the_updates_since() {
    let (checkpoint, versions) = versions(&[("ann", "one\n"), ("bob", "one\ntwo\n"), ("ann", "two\n")]);
    let updates = |through: usize| versions[..through].iter().map(|(_, update, _)| update.as_slice());
    for (through, (.., text)) in versions.iter().enumerate() {
        let past = std::iter::once(checkpoint.as_slice()).chain(updates(through + 1));
        assert_eq!(&Document::load(past, Writer::NONE).unwrap().text(), text);
    }
}

#[test]
fn restoring_a_version_is_an_edit_that_keeps_what_is_written_at_the_same_time() {
    let (checkpoint, versions) = versions(&[("ann", "one\ntwo\n"), ("bob", "one\n")]);
    let all = || {
        std::iter::once(checkpoint.as_slice()).chain(versions.iter().map(|(_, update, _)| update.as_slice()))
    };
    let mut present = Document::load(all(), Writer::NONE).unwrap();
    let mut other = Document::load(all(), Writer::new(5 << 20)).unwrap();
    let mut restoring = Document::load(all(), Writer::new(6 << 20)).unwrap();
    let budget = &mut Budget::EDIT.clone();
    let meanwhile = other.rewrite("zero\none\n", budget).unwrap().unwrap();
    let restored = restoring.rewrite("one\ntwo\n", budget).unwrap().unwrap();
    present.apply(&meanwhile.update, u64::MAX).unwrap();
    present.apply(&restored.update, u64::MAX).unwrap();
    assert_eq!(present.text(), "zero\none\ntwo\n");
}

#[test]
fn blame_names_the_author_of_each_span() {
    let (checkpoint, versions) = versions(&[
        ("ann", "one two three\n"),
        ("bob", "one 2 three\n"),
        ("cid", "zero one 2 three\n"),
        ("dan", "zero one 2 three\nfour\n"),
    ]);
    let mut blame = Blame::new(&checkpoint).unwrap();
    for (author, update, _) in &versions {
        blame.apply(author, update).unwrap();
    }
    let text = blame.text();
    let mut at = 0;
    let spans: Vec<_> = blame
        .spans()
        .iter()
        .map(|span| {
            let part = &text[at..at + span.length];
            at += span.length;
            (span.author.unwrap(), part)
        })
        .collect();
    assert_eq!(
        spans,
        [
            ("cid", "zero "),
            ("ann", "one "),
            ("bob", "2"),
            ("ann", " three\n"),
            ("dan", "four\n")
        ]
    );
}

fn lengths(spans: &[Span<&'static str>]) -> Vec<(&'static str, usize)> {
    spans
        .iter()
        .map(|span| (span.author.unwrap(), span.length))
        .collect()
}

#[test]
fn spans_are_counted_in_utf16_units_for_javascript() {
    let (checkpoint, versions) = versions(&[("ann", "한글 👍🏽\n"), ("bob", "한글 👍🏽 e\u{301}👩‍👧\n")]);
    let mut blame = Blame::new(&checkpoint).unwrap();
    for (author, update, _) in &versions {
        blame.apply(author, update).unwrap();
    }
    assert_eq!(lengths(blame.spans()), [("ann", 15), ("bob", 15), ("ann", 1)]);
    assert_eq!(
        lengths(&blame.utf16_spans()),
        [("ann", 7), ("bob", 8), ("ann", 1)]
    );
}

#[test]
fn a_blame_takes_several_versions_of_one_author_at_once() {
    let (checkpoint, versions) = versions(&[("ann", "one two\n"), ("bob", "one 2\n"), ("cid", "1 2\n")]);
    let mut run = Blame::new(&checkpoint).unwrap();
    run.apply_all(&"ann", versions.iter().map(|(_, update, _)| update))
        .unwrap();
    assert_eq!(lengths(run.spans()), [("ann", 4)]);
}

#[test]
#[ignore = "prints how long a blame of many versions takes"]
fn a_blame_of_ten_thousand_versions() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut text = "word word word word word word word word word word word word\n".repeat(1_667);
    let mut document = Document::new(Writer::new(1 << 20));
    document.rewrite(&text, &mut Budget::EDIT.clone()).unwrap();
    let before = document.checkpoint();
    let mut blame = Blame::new(&before).unwrap();
    let mut updates = Vec::new();
    for n in 0..10_000 {
        let change = Change {
            at: random.usize(..text.len()),
            removed: 1,
            inserted: ["x", "yz", "\n"][n % 3].to_owned(),
        };
        text.replace_range(change.removed_range(), &change.inserted);
        updates.extend(document.write(&[change]).unwrap());
    }
    let begin = std::time::Instant::now();
    for (n, edit) in updates.iter().enumerate() {
        blame.apply(&(n % 7), &edit.update).unwrap();
    }
    println!(
        "{} versions, {} spans: {:?}",
        updates.len(),
        blame.spans().len(),
        begin.elapsed()
    );
    let begin = std::time::Instant::now();
    let mut runs = Blame::new(&before).unwrap();
    for (n, run) in updates.chunks(20).enumerate() {
        runs.apply_all(&(n % 7), run.iter().map(|edit| &edit.update))
            .unwrap();
    }
    println!("in runs of 20 versions: {:?}", begin.elapsed());
    let begin = std::time::Instant::now();
    let all = std::iter::once(document.checkpoint());
    let loaded = Document::load(all, Writer::NONE).unwrap();
    println!("loading the last one: {:?}", begin.elapsed());
    assert_eq!(loaded.text(), blame.text());
}

#[test]
fn blame_covers_the_text_and_holds_every_author_after_random_edits() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut document = Document::new(Writer::new(1 << 20));
        let mut blame = Blame::new(&document.checkpoint()).unwrap();
        // Each author writes one letter of its own.
        for _ in 0..40 {
            let author = random.char('a'..='e');
            let mut text: Vec<char> = document.text().chars().collect();
            let at = random.usize(..=text.len());
            let end = (at + random.usize(0..6)).min(text.len());
            text.splice(at..end, std::iter::repeat_n(author, random.usize(0..5)));
            let text: String = text.into_iter().collect();
            if let Some(edit) = document.rewrite(&text, &mut Budget::EDIT.clone()).unwrap() {
                blame.apply(&author, &edit.update).unwrap();
            }
        }
        let spans = blame
            .spans()
            .iter()
            .map(|span| String::from(span.author.unwrap()).repeat(span.length));
        assert_eq!(spans.collect::<String>(), document.text(), "seed {seed}");
    }
}
