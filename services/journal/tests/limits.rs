//! What an edit may cost, in counted steps.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use parlance_journal::{Budget, Document, Versions, WholeTextSession, Writer};

/// A journal with these texts as versions, the first one of which a session joined, and was emitted all others.
fn emitted(texts: &[String]) -> (Versions, WholeTextSession) {
    let mut document = Document::new(Writer::new(1 << 20));
    let mut write = |text| {
        document
            .rewrite(text, &mut Budget::EDIT.clone())
            .unwrap()
            .unwrap()
    };
    let mut versions = Versions::new(1, &write(&texts[0]).update).unwrap();
    let mut session = WholeTextSession::joined(1);
    for (number, text) in (2..).zip(&texts[1..]) {
        versions.push(number, &write(text).update).unwrap();
        assert!(session.emits(number, &versions));
    }
    (versions, session)
}

/// The steps that an edit takes.
fn spent(sent: &str, versions: &Versions, session: &mut WholeTextSession) -> u64 {
    let mut budget = Budget::EDIT;
    session
        .edit(sent, versions, Writer::new(5 << 20), &mut budget)
        .unwrap();
    Budget::EDIT.left() - budget.left()
}

#[test]
fn walking_back_to_an_old_version_takes_steps_for_the_bytes_that_it_moves() {
    let line = format!("{}\n", "x".repeat(63));
    let grown = |version: usize| format!("{}{}", "new\n".repeat(version), line.repeat(1_500));
    let texts: Vec<_> = (0..300).map(grown).collect();
    let (versions, mut session) = emitted(&texts);
    let sent = format!("{}x", texts[0]);
    let moved = 300 * texts[0].len() as u64;
    let spent = spent(&sent, &versions, &mut session);
    assert!(spent > moved / 256, "{spent} steps for {moved} bytes");
}

#[test]
fn what_is_new_in_many_versions_takes_at_most_half_of_the_steps() {
    // Each version changes 200 lines; to know what is new in each takes 200 ranges for each version before it.
    let grown = |version: usize| -> String {
        (0..400)
            .map(|line| format!("{line}{}\n", "x".repeat(version * (line % 2))))
            .collect()
    };
    let texts: Vec<_> = (0..80).map(grown).collect();
    let (versions, mut session) = emitted(&texts);
    let sent = format!("{}end\n", texts[79]);
    let spent = spent(&sent, &versions, &mut session);
    assert!(spent > Budget::EDIT.left() / 2, "{spent}");
    assert!(
        spent < Budget::EDIT.left(),
        "nothing is left to compare the newest version with"
    );
    let mut present = Document::load([versions.document().checkpoint()], Writer::NONE).unwrap();
    present
        .apply(&session.unstored().unwrap().unwrap(), u64::MAX)
        .unwrap();
    assert_eq!(present.text(), sent);
}

#[test]
fn where_not_all_bases_can_be_looked_at_nothing_of_others_is_removed() {
    let line = |n: usize| format!("line {n} {}\n", "x".repeat(50));
    let text = |versions: usize| -> String {
        let others = (0..versions).map(|n| format!("of others {n}\n"));
        (0..1_000).map(line).chain(others).collect()
    };
    let texts: Vec<_> = (0..200).map(text).collect();
    for budget in [0, 200, 2_000, 20_000, 200_000] {
        for shown in [0, 100, 198] {
            let (versions, mut session) = emitted(&texts);
            let sent = texts[shown].replacen("line 500", "mine\nline 500", 1);
            let writer = Writer::new(5 << 20);
            session
                .edit(&sent, &versions, writer, &mut Budget::steps(budget))
                .unwrap();
            let mut present = Document::load([versions.document().checkpoint()], Writer::NONE).unwrap();
            present
                .apply(&session.unstored().unwrap().unwrap(), u64::MAX)
                .unwrap();
            let text = present.text();
            let lost = (0..199)
                .filter(|n| !text.contains(&format!("of others {n}\n")))
                .count();
            assert_eq!(
                (lost, text.matches("mine").count()),
                (0, 1),
                "budget {budget}, shown {shown}"
            );
        }
    }
}
