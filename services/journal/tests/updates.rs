//! Encoded updates from outside: refused or applied, never a panic.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use parlance_journal::{Budget, Document, EMPTY_UPDATE, Error, Versions, Writer};
use yrs::updates::decoder::Decode as _;
use yrs::{
    Any, ClientID, Doc, GetString as _, OffsetKind, Options, ReadTxn as _, StateVector, Text as _,
    Transact as _, Update,
};

fn document(text: &str) -> Document {
    let mut document = Document::new(Writer::new(1 << 20));
    document.rewrite(text, &mut Budget::EDIT.clone()).unwrap();
    document
}

/// Updates as Yjs clients make them: insertions, deletions, emoji, several clients in one.
fn samples() -> Vec<Vec<u8>> {
    let mut samples = vec![EMPTY_UPDATE.to_vec()];
    let mut present = document("one\ntwo 👍🏽 three\n");
    let mut copies: Vec<_> = (2..6)
        .map(|n| Document::load([present.checkpoint()], Writer::new(n << 20)).unwrap())
        .collect();
    let texts = [
        "one\n👍🏽 three\n",
        "zero\none\ntwo 👍🏿 three\n",
        "one\ntwo 👍🏽 four three\n",
        "",
    ];
    for (copy, text) in copies.iter_mut().zip(texts) {
        let edit = copy.rewrite(text, &mut Budget::EDIT.clone()).unwrap().unwrap();
        present.apply(&edit.update, u64::MAX).unwrap();
        samples.push(edit.update);
        samples.push(copy.checkpoint());
    }
    samples.push(present.checkpoint());
    samples.push(present.diff_since(&copies[0].state_vector()).unwrap());
    samples
}

#[test]
fn ten_thousand_random_and_mutated_updates_are_refused_or_applied_without_a_panic() {
    let samples = samples();
    let mut random = fastrand::Rng::with_seed(11);
    let checkpoint = document("one\ntwo 👍🏽 three\n").checkpoint();
    let mut document = Document::load([&checkpoint], Writer::NONE).unwrap();
    let (mut applied, mut broken) = (0, 0);
    for case in 0..10_000 {
        let mut bytes = match case % 4 {
            0 => (0..random.usize(0..40)).map(|_| random.u8(..)).collect(),
            _ => samples[random.usize(..samples.len())].clone(),
        };
        for _ in 0..random.usize(0..4) {
            match (random.usize(0..4), bytes.len()) {
                (_, 0) => {}
                (0, len) => bytes[random.usize(..len)] = random.u8(..),
                (1, len) => bytes[random.usize(..len)] ^= 1 << random.usize(0..8),
                (2, len) => bytes.truncate(random.usize(..len)),
                (_, len) => bytes.insert(random.usize(..len), random.u8(..)),
            }
        }
        let before = document.checkpoint();
        match document.apply(&bytes, 1_000_000) {
            Ok(_) => applied += 1,
            Err(Error::Broken) => broken += 1,
            Err(_) => assert_eq!(
                document.checkpoint(),
                before,
                "a refused update changed the document"
            ),
        }
        let kept = document.text().len() + document.checkpoint().len();
        if kept > 4_000 || broken > 0 {
            document = Document::load([&checkpoint], Writer::NONE).unwrap();
        }
        let mut state = document.state_vector();
        let at = random.usize(..state.len());
        state[at] = random.u8(..);
        for state in [bytes, state] {
            let _ = document.diff_since(&state);
        }
    }
    assert!(applied > 500, "only {applied} were applied");
    assert_eq!(broken, 0, "updates that pass the checks break the document");
}

#[test]
fn what_a_checked_document_holds_can_be_loaded_again() {
    let samples = samples();
    let mut random = fastrand::Rng::with_seed(12);
    for _ in 0..200 {
        let mut document = document("one\ntwo 👍🏽 three\n");
        for _ in 0..10 {
            let mut bytes = samples[random.usize(..samples.len())].clone();
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
            let _ = document.apply(&bytes, u64::MAX);
        }
        // Its text may differ where one id was sent with two contents: such updates are forged.
        let loaded = Document::load([document.checkpoint()], Writer::NONE).unwrap();
        assert_eq!(loaded.text().len(), document.text().len());
    }
}

#[test]
fn what_is_not_an_update_of_the_plain_text_is_malformed() {
    let mut document = document("one");
    let foreign = |name: &str, write: fn(&yrs::TextRef, &mut yrs::TransactionMut<'_>)| {
        let doc = Doc::with_client_id(7);
        let text = doc.get_or_insert_text(name);
        write(&text, &mut doc.transact_mut());
        doc.transact().encode_state_as_update_v1(&StateVector::default())
    };
    let elsewhere = foreign("other", |text, txn| text.insert(txn, 0, "x"));
    let formatted = foreign("content", |text, txn| {
        text.insert_with_attributes(txn, 0, "b", [("bold".into(), Any::Bool(true))].into());
    });
    let embedded = foreign("content", |text, txn| {
        text.insert_embed(txn, 0, Any::Bool(true));
    });
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    for bytes in [
        &b""[..],
        b"\x01",
        b"garbage",
        &huge,
        &elsewhere,
        &formatted,
        &embedded,
    ] {
        assert_eq!(
            document.apply(bytes, u64::MAX),
            Err(Error::Malformed),
            "{bytes:?}"
        );
    }
    assert_eq!(document.text(), "one");
}

#[test]
fn an_update_that_builds_on_the_unknown_is_incomplete_and_leaves_nothing_behind() {
    let mut present = document("one");
    let mut theirs = Document::load([present.checkpoint()], Writer::new(9 << 20)).unwrap();
    let budget = &mut Budget::EDIT.clone();
    let first = theirs.rewrite("one two", budget).unwrap().unwrap();
    let second = theirs.rewrite("one two three", budget).unwrap().unwrap();
    assert_eq!(present.apply(&second.update, u64::MAX), Err(Error::Incomplete));
    present.apply(&first.update, u64::MAX).unwrap();
    assert_eq!(present.text(), "one two");
    present.apply(&second.update, u64::MAX).unwrap();
    assert_eq!(present.text(), "one two three");
}

#[test]
fn a_costly_update_is_refused_before_it_is_applied() {
    let mut present = document("one");
    let mut theirs = Document::load([present.checkpoint()], Writer::new(9 << 20)).unwrap();
    for n in 0..200 {
        let text = format!("{n}\n{}", theirs.text());
        theirs.rewrite(&text, &mut Budget::EDIT.clone()).unwrap();
    }
    let update = theirs.diff_since(&present.state_vector()).unwrap();
    let work = present.price(&update).unwrap();
    let limit = work - 1;
    assert_eq!(
        present.apply(&update, limit),
        Err(Error::TooCostly { work, limit })
    );
    assert_eq!(present.text(), "one");
    present.apply(&update, work).unwrap();
    assert_eq!(present.text(), theirs.text());
}

#[test]
fn text_that_cannot_be_stored_is_refused() {
    let mut present = document("one");
    let doc = Doc::with_client_id(7);
    doc.get_or_insert_text("content")
        .insert(&mut doc.transact_mut(), 0, "a\0b");
    let update = doc.transact().encode_state_as_update_v1(&StateVector::default());
    assert_eq!(present.apply(&update, u64::MAX), Err(Error::NotStorable));
    assert_eq!(
        present.rewrite("a\0b", &mut Budget::EDIT.clone()).err(),
        Some(Error::NotStorable)
    );
}

#[test]
fn a_document_is_what_other_yjs_documents_read_and_write() {
    let present = document("one\n");
    let doc = Doc::with_client_id(7);
    let text = doc.get_or_insert_text("content");
    doc.transact_mut()
        .apply_update(Update::decode_v1(&present.checkpoint()).unwrap())
        .unwrap();
    let update = {
        let mut txn = doc.transact_mut();
        text.insert(&mut txn, 4, "two 👍🏽\n");
        txn.encode_update_v1()
    };
    let mut present = present;
    let changes = present.apply(&update, u64::MAX).unwrap();
    assert_eq!(
        (changes.len(), changes[0].at, changes[0].inserted.as_str()),
        (1, 4, "two 👍🏽\n")
    );
    assert_eq!(present.text(), "one\ntwo 👍🏽\n");
    assert_eq!(present.apply(&update, u64::MAX), Ok(Vec::new()));
}

/// Yjs clients that compare UTF-16 units do this where one emoji takes the place of another.
#[test]
fn half_a_surrogate_pair_that_a_client_deletes_is_a_replacement_character_in_versions_too() {
    let present = document("one 👍🏽 two");
    let doc = Doc::with_options(Options {
        offset_kind: OffsetKind::Utf16,
        ..Options::with_client_id(ClientID::new(7))
    });
    let text = doc.get_or_insert_text("content");
    doc.transact_mut()
        .apply_update(Update::decode_v1(&present.checkpoint()).unwrap())
        .unwrap();
    let update = {
        let mut txn = doc.transact_mut();
        text.remove_range(&mut txn, 5, 1);
        text.insert(&mut txn, 8, "x");
        txn.encode_update_v1()
    };
    let mut versions = Versions::new(1, &present.checkpoint()).unwrap();
    versions.push(2, &update).unwrap();
    assert_eq!(&**versions.text(), text.get_string(&doc.transact()));
    assert_eq!(&**versions.text(), versions.document().text());
    assert!(versions.text().contains('\u{fffd}'));
}
