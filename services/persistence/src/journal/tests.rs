use super::*;

fn writer(number: u128) -> Writer {
    writer_of(Uuid::from_u128(number << 64 | number))
}

/// The update of a client that has this document and makes its text into that.
fn update(state: &[u8], content: &str) -> Vec<u8> {
    let mut theirs = Document::load([state], writer(7)).unwrap();
    theirs
        .rewrite(content, &mut { Budget::EDIT })
        .unwrap()
        .unwrap()
        .update
}

#[test]
fn a_journal_begins_with_its_text_and_an_empty_one_is_a_document_too() {
    let first = begin("héllo\n", writer(1)).unwrap();
    assert_eq!(
        (first.content.as_str(), content_of(&first.state).unwrap().as_str()),
        ("héllo\n", "héllo\n")
    );
    let empty = begin("", writer(1)).unwrap();
    assert_eq!(content_of(&empty.state).unwrap(), "");
    let edited = rewrite(&empty.state, None, "x", writer(2)).unwrap().unwrap();
    assert_eq!(edited.content, "x");
}

#[test]
fn edits_of_one_version_are_both_kept() {
    let base = begin("one\ntwo\n", writer(1)).unwrap();
    let fork = [base.state.clone()];
    let left = rewrite(&base.state, Some(&fork), "one\nleft\ntwo\n", writer(2));
    let left = left.unwrap().unwrap();
    let both = rewrite(&left.state, Some(&fork), "one\ntwo\nright\n", writer(3));
    assert_eq!(both.unwrap().unwrap().content, "one\nleft\ntwo\nright\n");
}

#[test]
fn nothing_new_is_no_change() {
    let base = begin("one\n", writer(1)).unwrap();
    assert_eq!(rewrite(&base.state, None, "one\n", writer(2)), Ok(None));
    assert_eq!(merge(&base.state, &base.state), Ok(None));
    assert_eq!(merge(&base.state, parlance_journal::EMPTY_UPDATE), Ok(None));
}

#[test]
fn an_update_of_a_client_merges_once() {
    let base = begin("one", writer(1)).unwrap();
    let update = update(&base.state, "one two");
    let merged = merge(&base.state, &update).unwrap().unwrap();
    assert_eq!((merged.content.as_str(), &merged.update), ("one two", &update));
    assert_eq!(merge(&merged.state, &update), Ok(None));
}

#[test]
fn what_is_no_update_or_builds_on_the_unknown_is_refused() {
    let base = begin("one", writer(1)).unwrap();
    for bytes in [&b""[..], b"\x01", b"garbage"] {
        assert_eq!(
            merge(&base.state, bytes),
            Err(Error::Malformed.into()),
            "{bytes:?}"
        );
    }
    let other = begin("another", writer(2)).unwrap();
    let foreign = update(&other.state, "another one");
    assert_eq!(merge(&base.state, &foreign), Err(Error::Incomplete.into()));
}

#[test]
fn what_cannot_be_stored_or_carried_is_refused() {
    let base = begin("one", writer(1)).unwrap();
    let nul = rewrite(&base.state, None, "a\0b", writer(2));
    assert_eq!(nul, Err(Error::NotStorable.into()));
    let long = "x".repeat(MAX_TEXT_BYTES + 1);
    assert_eq!(
        rewrite(&base.state, None, &long, writer(2)),
        Err(Refusal::TooLarge)
    );
    let all = "y".repeat(MAX_TEXT_BYTES);
    assert!(rewrite(&base.state, None, &all, writer(2)).unwrap().is_some());
}

#[test]
fn a_text_that_is_all_new_fits_one_message() {
    let words = |word: &str| format!("{word} - ").repeat(50_000);
    let base = begin(&words("old"), writer(1)).unwrap();
    let edited = rewrite(&base.state, None, &words("new"), writer(2))
        .unwrap()
        .unwrap();
    assert_eq!(edited.content, words("new"));
    assert!(edited.update.len() < MAX_UPDATE_BYTES);
    assert!(edited.content.len() + edited.update.len() < 850 * 1024);
}

#[test]
fn an_update_that_takes_too_much_work_is_refused() {
    let mut document = Document::new(writer(9));
    for n in 0..3_000_usize {
        let content = format!("{}x{}", "x".repeat(n / 2), "y".repeat(n - n / 2));
        document.rewrite(&content, &mut { Budget::EDIT }).unwrap();
    }
    let empty = begin("", writer(1)).unwrap();
    let refused = merge(&empty.state, &document.checkpoint());
    assert!(
        matches!(refused, Err(Refusal::Document(Error::TooCostly { .. }))),
        "{refused:?}"
    );
}
