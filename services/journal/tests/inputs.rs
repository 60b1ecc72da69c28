//! The concrete inputs that corrupted or lost text before, each as a test.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use parlance_journal::{Budget, Document, Versions, WholeTextEdit, WholeTextSession, Writer};

/// A journal at one gateway; versions are emitted and edits stored when the test says so.
struct Journal {
    present: Document,
    versions: Versions,
    writers: u64,
}

impl Journal {
    fn new(text: &str) -> Self {
        let mut present = Document::new(Writer::new(1 << 20));
        present.rewrite(text, &mut Budget::EDIT.clone()).unwrap();
        Self {
            versions: Versions::new(1, &present.checkpoint()).unwrap(),
            present,
            writers: 1,
        }
    }

    fn joined(&self) -> WholeTextSession {
        WholeTextSession::joined(self.versions.newest())
    }

    fn edit(&mut self, session: &mut WholeTextSession, sent: &str) -> WholeTextEdit {
        self.writers += 1;
        let writer = Writer::new(self.writers << 20);
        session
            .edit(sent, &self.versions, writer, &mut Budget::EDIT.clone())
            .unwrap()
    }

    /// Persistence stores an edit, and the gateway emits the version to these sessions.
    fn store(&mut self, edit: WholeTextEdit, sessions: &mut [&mut WholeTextSession]) {
        let Some(update) = edit.update else {
            return;
        };
        self.present.apply(&update, u64::MAX).unwrap();
        let number = self.versions.newest() + 1;
        self.versions.push(number, &update).unwrap();
        for session in sessions {
            session.emits(number, &self.versions);
        }
    }

    /// Edits of one client, stored only after all of them were sent; then again, each stored before the next one.
    fn types(texts: &[&str]) {
        for stored_at_once in [false, true] {
            let mut journal = Self::new("");
            let mut session = journal.joined();
            let mut edits = Vec::new();
            for text in texts {
                let edit = journal.edit(&mut session, text);
                match stored_at_once {
                    true => journal.store(edit, &mut [&mut session]),
                    false => edits.push(edit),
                }
            }
            for edit in edits {
                journal.store(edit, &mut [&mut session]);
            }
            assert_eq!(Some(&journal.present.text().as_str()), texts.last());
        }
    }
}

#[test]
fn te_teh_the_is_the() {
    Journal::types(&["te", "teh", "the"]);
}

#[test]
fn n_ni_and_the_chinese_word_are_the_chinese_word() {
    Journal::types(&["n", "ni", "你"]);
}

#[test]
fn kana_that_become_kanji_are_the_kanji() {
    Journal::types(&["か", "かん", "かんじ", "漢字"]);
}

#[test]
fn jamo_that_become_a_syllable_are_the_syllable() {
    Journal::types(&["한", "한ㄱ", "한그", "한글"]);
}

#[test]
fn a_short_code_that_becomes_an_emoji_is_the_emoji() {
    Journal::types(&[":smile", ":smile:", "😄"]);
}

#[test]
fn undone_pasted_and_cut_text_is_what_was_sent_last() {
    Journal::types(&["a", "ab", "a", "", "a\nb\na\nb\n", "a\nb\n", "b\na\n", "b\n"]);
}

#[test]
fn a_client_that_never_joined_types_on_its_own_text() {
    let mut journal = Journal::new("");
    let mut session = WholeTextSession::resumed(journal.versions.newest());
    for text in ["te", "teh", "the"] {
        let edit = journal.edit(&mut session, text);
        journal.store(edit, &mut []);
    }
    assert_eq!(journal.present.text(), "the");
}

#[test]
fn a_second_editor_deletes_text_right_after_seeing_it() {
    let mut journal = Journal::new("one\n");
    let (mut first, mut second) = (journal.joined(), journal.joined());
    let edit = journal.edit(&mut first, "one\ntwo\n");
    journal.store(edit, &mut [&mut first, &mut second]);
    let edit = journal.edit(&mut second, "one\n");
    journal.store(edit, &mut [&mut first, &mut second]);
    assert_eq!(journal.present.text(), "one\n");
}

#[test]
fn a_second_editor_corrects_text_right_after_seeing_it() {
    let mut journal = Journal::new("one\n");
    let (mut first, mut second) = (journal.joined(), journal.joined());
    let edit = journal.edit(&mut first, "one\ntwoo\n");
    journal.store(edit, &mut [&mut second]);
    let edit = journal.edit(&mut second, "one\ntwo\n");
    journal.store(edit, &mut [&mut first]);
    assert_eq!(journal.present.text(), "one\ntwo\n");
}

#[test]
fn a_second_editor_who_has_not_seen_the_text_yet_deletes_nothing() {
    let mut journal = Journal::new("one\n");
    let (mut first, mut second) = (journal.joined(), journal.joined());
    let edit = journal.edit(&mut first, "one\ntwo\n");
    journal.store(edit, &mut [&mut second]);
    let edit = journal.edit(&mut second, "zero\none\n");
    journal.store(edit, &mut [&mut first]);
    assert_eq!(journal.present.text(), "zero\none\ntwo\n");
}

#[test]
fn similar_paragraphs_inserted_at_one_place_do_not_replace_each_other() {
    let mut journal = Journal::new("");
    let (mut first, mut second) = (journal.joined(), journal.joined());
    let edit = journal.edit(&mut first, "paragraph 12\n");
    journal.store(edit, &mut [&mut second]);
    let edit = journal.edit(&mut second, "paragraph 13\n");
    journal.store(edit, &mut [&mut first]);
    let text = journal.present.text();
    assert!(
        ["paragraph 12\n", "paragraph 13\n"]
            .iter()
            .all(|line| text.contains(line)),
        "{text:?}"
    );
}

#[test]
fn two_editors_who_type_one_letter_at_one_place_keep_both() {
    let mut journal = Journal::new("");
    let (mut first, mut second) = (journal.joined(), journal.joined());
    let edit = journal.edit(&mut first, "e");
    journal.store(edit, &mut [&mut second]);
    let edit = journal.edit(&mut second, "e");
    journal.store(edit, &mut [&mut first]);
    assert_eq!(journal.present.text(), "ee");
}

/// A gateway emits and receives the same in two histories: what a client shows when it types is not known. Taken
/// for the replacement, the text would in the first history delete what the client was never shown.
#[test]
fn a_text_that_is_an_insertion_or_a_replacement_is_taken_for_the_insertion() {
    let (shown_first, shown_then) = ("one two ", "one two three ");
    let inserts = format!("{shown_first}four ");
    let replaces = shown_then.replace("three", "four");
    assert_eq!(inserts, replaces);
    let mut journal = Journal::new("one ");
    let (mut first, mut second) = (journal.joined(), journal.joined());
    for text in [shown_first, shown_then] {
        let edit = journal.edit(&mut first, text);
        journal.store(edit, &mut [&mut second]);
    }
    let edit = journal.edit(&mut second, &inserts);
    journal.store(edit, &mut []);
    let text = journal.present.text();
    assert!(text.contains("three ") && text.contains("four "), "{text:?}");
}

#[test]
fn a_version_that_lacks_a_word_of_the_client_is_emitted_only_with_it() {
    let mut journal = Journal::new("one\n");
    let (mut first, mut second) = (journal.joined(), journal.joined());
    let word = journal.edit(&mut second, "one\ntwo\n");
    let edit = journal.edit(&mut first, "zero\none\n");
    journal.store(edit, &mut []);
    assert!(!second.emits(2, &journal.versions));
    assert!(!second.is_behind(&journal.versions));
    journal.store(word, &mut []);
    assert!(second.emits(3, &journal.versions));
    assert_eq!(&**journal.versions.text(), "zero\none\ntwo\n");
}

#[test]
fn a_deletion_that_a_version_after_the_basis_holds_is_not_published_for_ever() {
    let mut journal = Journal::new("one\ntwo\nthree\n");
    let (mut first, mut second) = (journal.joined(), journal.joined());
    let edit = journal.edit(&mut first, "one\nthree\n");
    journal.store(edit, &mut []);
    // The second editor was not emitted that yet.
    let edit = journal.edit(&mut second, "one\nthree\n");
    assert_eq!(edit.update, None);
    assert!(!second.emits(2, &journal.versions));
}

#[test]
fn a_lost_command_goes_with_the_next_one_and_a_repeated_one_changes_nothing() {
    let mut journal = Journal::new("one\n");
    let mut session = journal.joined();
    let lost = journal.edit(&mut session, "one\ntwo\n");
    let next = journal.edit(&mut session, "one\ntwo\nthree\n");
    journal.store(next, &mut []);
    assert_eq!(journal.present.text(), "one\ntwo\nthree\n");
    journal.store(lost, &mut []);
    assert_eq!(journal.present.text(), "one\ntwo\nthree\n");
    let again = journal.edit(&mut session, "one\ntwo\nthree\n");
    assert_eq!(
        again,
        WholeTextEdit {
            update: None,
            is_exact: true
        }
    );
}

#[test]
fn text_typed_through_an_outage_is_published_again() {
    let mut journal = Journal::new("one\n");
    let mut session = journal.joined();
    for text in ["one\nt", "one\ntw", "one\ntwo"] {
        journal.edit(&mut session, text);
    }
    let update = session.unstored().unwrap();
    journal.store(
        WholeTextEdit {
            update,
            is_exact: true,
        },
        &mut [&mut session],
    );
    assert_eq!(journal.present.text(), "one\ntwo");
}

#[test]
fn after_a_reconnect_nothing_is_deleted_that_the_client_may_not_have_seen() {
    let mut journal = Journal::new("one\n");
    let mut other = journal.joined();
    let edit = journal.edit(&mut other, "one\ntwo\n");
    journal.store(edit, &mut []);
    // The client was cut off before "two", and wrote on.
    let mut session = WholeTextSession::resumed(1);
    let edit = journal.edit(&mut session, "one\nmine\n");
    journal.store(edit, &mut []);
    let text = journal.present.text();
    assert!(
        ["one\n", "two\n", "mine\n"]
            .iter()
            .all(|line| text.matches(line).count() == 1),
        "{text:?}"
    );
}

#[test]
fn a_refused_edit_is_forgotten_and_its_text_sent_with_the_next_one() {
    let mut journal = Journal::new("one\n");
    let mut session = journal.joined();
    journal.edit(&mut session, "one\ntwo\n");
    session.refused();
    assert_eq!(session.unstored(), Ok(None));
    let edit = journal.edit(&mut session, "one\ntwo\nthree\n");
    journal.store(edit, &mut []);
    assert_eq!(journal.present.text(), "one\ntwo\nthree\n");
}

#[test]
fn versions_that_are_kept_no_more_still_merge() {
    let mut journal = Journal::new("");
    let (mut first, mut second) = (journal.joined(), journal.joined());
    let lost = journal.edit(&mut second, "second\n");
    let mut text = String::new();
    for n in 0..1_200 {
        text.push_str(&format!("{n}\n"));
        let edit = journal.edit(&mut first, &text);
        journal.store(edit, &mut []);
    }
    journal.store(lost, &mut []);
    let edit = journal.edit(&mut second, "second\nagain\n");
    journal.store(edit, &mut []);
    assert_eq!(**journal.versions.text(), journal.present.text());
    for line in text.lines().chain(["second", "again"]) {
        assert_eq!(
            journal
                .present
                .text()
                .lines()
                .filter(|other| *other == line)
                .count(),
            1,
            "{line}"
        );
    }
}

#[test]
fn many_edits_of_one_session_are_written_under_one_identity() {
    let mut journal = Journal::new("");
    let mut session = journal.joined();
    for length in 1..200 {
        let edit = journal.edit(&mut session, &"x".repeat(length));
        journal.store(edit, &mut [&mut session]);
    }
    let size = journal.present.checkpoint().len();
    assert!(size < 400, "{size}");
}
