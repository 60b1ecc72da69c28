use proptest::prelude::*;
use yrs::Any;

use super::*;

fn client(number: u128) -> u64 {
    client_of(Uuid::from_u128(number << 64 | number))
}

fn yjs(client: u64, state: &[u8]) -> Doc {
    let doc = open(client);
    apply(&doc, state).unwrap();
    doc
}

#[test]
fn a_journal_begins_with_its_text_and_an_empty_one_is_a_document_too() {
    let first = begin("héllo\n", client(1)).unwrap();
    assert_eq!(
        (first.content.as_str(), content_of(&first.state).unwrap().as_str()),
        ("héllo\n", "héllo\n")
    );
    let empty = begin("", client(1)).unwrap();
    assert_eq!(content_of(&empty.state).unwrap(), "");
    assert_eq!(
        rewrite(&empty.state, None, "x", client(2))
            .unwrap()
            .unwrap()
            .content,
        "x"
    );
}

#[test]
fn edits_of_one_version_are_both_kept() {
    let base = begin("one\ntwo\n", client(1)).unwrap();
    let fork = [base.state.clone()];
    let left = rewrite(&base.state, Some(&fork), "one\nleft\ntwo\n", client(2))
        .unwrap()
        .unwrap();
    let both = rewrite(&left.state, Some(&fork), "one\ntwo\nright\n", client(3))
        .unwrap()
        .unwrap();
    assert_eq!(both.content, "one\nleft\ntwo\nright\n");
}

#[test]
fn nothing_new_is_no_change() {
    let base = begin("one\n", client(1)).unwrap();
    assert_eq!(rewrite(&base.state, None, "one\n", client(2)), Ok(None));
    assert_eq!(merge(&base.state, &base.state), Ok(None));
}

#[test]
fn a_client_s_own_update_merges_once() {
    let base = begin("one", client(1)).unwrap();
    let theirs = yjs(7, &base.state);
    let update = {
        let text = text(&theirs);
        let mut txn = theirs.transact_mut();
        text.insert(&mut txn, 3, " two");
        txn.encode_update_v1()
    };
    let merged = merge(&base.state, &update).unwrap().unwrap();
    assert_eq!((merged.content.as_str(), &merged.update), ("one two", &update));
    assert_eq!(merge(&merged.state, &update), Ok(None));
}

#[test]
fn what_is_no_update_of_the_text_is_refused() {
    let base = begin("one", client(1)).unwrap();
    let theirs = yjs(7, &base.state);
    let formatted = {
        let text = text(&theirs);
        let mut txn = theirs.transact_mut();
        text.insert_with_attributes(&mut txn, 0, "b", [("bold".into(), Any::Bool(true))].into());
        txn.encode_update_v1()
    };
    let elsewhere = {
        let doc = open(9);
        let other = doc.get_or_insert_text("other");
        let mut txn = doc.transact_mut();
        other.insert(&mut txn, 0, "x");
        txn.encode_update_v1()
    };
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    for bytes in [&b""[..], b"\x01", b"garbage", &huge, &formatted, &elsewhere] {
        assert_eq!(merge(&base.state, bytes), Err(Refusal::NotAnUpdate), "{bytes:?}");
    }
}

#[test]
fn an_update_that_builds_on_the_unknown_is_refused() {
    let base = begin("one", client(1)).unwrap();
    let theirs = yjs(7, &base.state);
    let text = text(&theirs);
    text.insert(&mut theirs.transact_mut(), 0, "lost ");
    let later = {
        let mut txn = theirs.transact_mut();
        text.insert(&mut txn, 0, "later ");
        txn.encode_update_v1()
    };
    assert_eq!(merge(&base.state, &later), Err(Refusal::Incomplete));
}

#[test]
fn what_cannot_be_stored_or_carried_is_refused() {
    let base = begin("one", client(1)).unwrap();
    assert_eq!(
        rewrite(&base.state, None, "a\0b", client(2)),
        Err(Refusal::NotStorable)
    );
    let long = "x".repeat(MAX_TEXT_BYTES + 1);
    assert_eq!(
        rewrite(&base.state, None, &long, client(2)),
        Err(Refusal::TooLarge)
    );
    let all = "y".repeat(MAX_TEXT_BYTES);
    assert!(rewrite(&base.state, None, &all, client(2)).unwrap().is_some());
}

#[test]
fn a_document_and_a_fork_without_what_was_forgotten_still_merge() {
    let base = begin("one\ntwo\nthree\n", client(1)).unwrap();
    let cut = rewrite(&base.state, None, "one\nthree\n", client(2))
        .unwrap()
        .unwrap();
    let fork = [base.state.clone()];
    let late = rewrite(&cut.state, Some(&fork), "one\ntwo\ninserted\nthree\n", client(3))
        .unwrap()
        .unwrap();
    assert_eq!(late.content, "one\ninserted\nthree\n");
}

/// What one editor does to the text they see: a paragraph put in, or one of the old paragraphs cut.
#[derive(Debug, Clone)]
struct Step {
    editor: usize,
    line: prop::sample::Index,
    cut: bool,
    look: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0..4usize,
        any::<prop::sample::Index>(),
        prop::bool::weighted(0.2),
        any::<bool>(),
    )
        .prop_map(|(editor, line, cut, look)| Step {
            editor,
            line,
            cut,
            look,
        });
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Four editors, each on the version they last looked at; a fifth follows by updates alone.
    #[test]
    fn forks_converge_and_keep_every_paragraph(steps in steps()) {
        let first = begin("old 0 é\nold 1 👍🏽\nold 2\n", client(1)).unwrap();
        let follower = yjs(5, &first.state);
        let mut updates = vec![first.update.clone()];
        let mut present = first.clone();
        let mut seen = vec![(1usize, first.content.clone()); 4];
        let mut inserted = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            let view = &mut seen[step.editor];
            if step.look {
                *view = (updates.len(), present.content.clone());
            }
            let mut lines: Vec<&str> = view.1.split_inclusive('\n').collect();
            let at = step.line.index(lines.len() + 1);
            let paragraph = format!("paragraph {number} of {}: ünï👩‍👩‍👧 x\n", step.editor);
            if step.cut {
                lines.retain(|line| !line.starts_with(&format!("old {}", at % 3)));
            } else {
                lines.insert(at, &paragraph);
            }
            let wanted = lines.concat();
            let base = &updates[..view.0];
            let made = rewrite(&present.state, Some(base), &wanted, client(100 + number as u128)).unwrap();
            if !step.cut {
                inserted.push(paragraph.clone());
            }
            if let Some(made) = made {
                apply(&follower, &made.update).unwrap();
                updates.push(made.update.clone());
                present = made;
            }
        }
        for paragraph in &inserted {
            prop_assert!(present.content.contains(paragraph.as_str()), "{paragraph:?} in {:?}", present.content);
        }
        prop_assert_eq!(&text(&follower).get_string(&follower.transact()), &present.content);
        let replayed = load(updates.iter().map(Vec::as_slice)).unwrap();
        prop_assert_eq!(&text(&replayed).get_string(&replayed.transact()), &present.content);
    }
}

#[test]
fn a_text_that_is_all_new_is_one_change_of_bounded_work() {
    let words = |word: &str| format!("{word} - ").repeat(50_000);
    let base = begin(&words("old"), client(1)).unwrap();
    let edited = rewrite(&base.state, None, &words("new"), client(2))
        .unwrap()
        .unwrap();
    assert_eq!(edited.content, words("new"));
    assert!(
        edited.update.len() < MAX_UPDATE_BYTES && edited.content.len() + edited.update.len() < 850 * 1024
    );
}

#[test]
fn an_update_of_very_many_blocks_is_refused() {
    let doc = open(9);
    let body = text(&doc);
    for n in 0..3_000 {
        body.insert(&mut doc.transact_mut(), n / 2, "x");
    }
    assert_eq!(
        merge(&begin("", client(1)).unwrap().state, &encode(&doc)),
        Err(Refusal::NotAnUpdate)
    );
}
