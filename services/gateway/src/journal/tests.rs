//! Clients that know only whole texts, with every message between them and the server late.

mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Arrivals, Document, History, Shadow, WINDOW};
use world::{Habit, World};

/// A journal with one client, and a server that answers when the test says so.
struct Desk {
    server: Document,
    version: u64,
    history: Arc<History>,
    shadow: Shadow,
    now: Instant,
}

impl Desk {
    fn new(text: &str) -> Self {
        let mut server = Document::from_state(&[]).unwrap();
        if !text.is_empty() {
            server.apply(&from_elsewhere(&server, text)).unwrap();
        }
        let now = Instant::now();
        let copy = Document::from_state(&server.state()).unwrap();
        let history = Arc::new(History::new(copy, 1, now));
        Self {
            server,
            version: 1,
            shadow: Shadow::new(Arc::clone(&history), true),
            history,
            now,
        }
    }

    fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    fn edit(&mut self, content: &str) -> Option<Vec<u8>> {
        self.wait(10);
        self.shadow.edit(content, self.now).unwrap()
    }

    /// The server takes an update and sends the version.
    fn commit(&mut self, update: &[u8]) -> String {
        self.server.apply(update).unwrap();
        self.version += 1;
        let text = self.server.text();
        self.history.push(self.version, &text, update, self.now).unwrap();
        text
    }

    /// Somebody elsewhere makes the text into this one.
    fn elsewhere(&mut self, text: &str) {
        let update = from_elsewhere(&self.server, text);
        assert_eq!(self.commit(&update), text);
    }
}

fn from_elsewhere(document: &Document, text: &str) -> Vec<u8> {
    let now = Instant::now();
    let copy = Document::from_state(&document.state()).unwrap();
    let history = Arc::new(History::new(copy, 1, now));
    Shadow::new(history, true).edit(text, now).unwrap().unwrap()
}

#[test]
fn what_came_meanwhile_is_kept_by_an_edit_of_an_older_text() {
    let mut desk = Desk::new("one\n");
    desk.elsewhere("one\ntwo\n");
    let update = desk.edit("zero\none\n").unwrap();
    assert_eq!(desk.commit(&update), "zero\none\ntwo\n");
}

#[test]
fn a_client_types_on_before_it_is_answered() {
    let mut desk = Desk::new("");
    let typed: Vec<_> = ["h", "he", "hey"]
        .iter()
        .filter_map(|text| desk.edit(text))
        .collect();
    for update in &typed {
        desk.commit(update);
    }
    assert_eq!(desk.server.text(), "hey");
}

#[test]
fn whoever_goes_back_a_character_means_it() {
    let mut desk = Desk::new("");
    let typed: Vec<_> = ["a", "ab"].iter().filter_map(|text| desk.edit(text)).collect();
    for update in &typed {
        desk.commit(update);
    }
    // The text of a version just sent, but the client had typed on since.
    let update = desk.edit("a").unwrap();
    assert_eq!(desk.commit(&update), "a");
    let update = desk.edit("").unwrap();
    assert_eq!(desk.commit(&update), "");
    let update = desk.edit("a").unwrap();
    assert_eq!(desk.commit(&update), "a");
}

#[test]
fn a_text_that_took_the_place_of_the_clients_own_is_what_it_types_on() {
    let mut desk = Desk::new("");
    let first = desk.edit("a").unwrap();
    let second = desk.edit("ab").unwrap();
    desk.commit(&first);
    // "b" vanished from the screen for a moment, and in that moment "c" was typed.
    let third = desk.edit("ac").unwrap();
    desk.commit(&second);
    let text = desk.commit(&third);
    assert!(text == "abc" || text == "acb", "{text}");
}

#[test]
fn deleting_what_just_came_keeps_it_and_later_deletes_it() {
    let mut desk = Desk::new("one\n");
    desk.elsewhere("one\ntwo\n");
    assert_eq!(desk.edit("one\n"), None);
    desk.elsewhere("one\ntwo\nthree\n");
    desk.now += WINDOW;
    let update = desk.edit("one\nthree\n").unwrap();
    assert_eq!(desk.commit(&update), "one\nthree\n");
}

#[test]
fn an_edit_that_waited_for_its_turn_is_judged_as_of_its_arrival() {
    let mut desk = Desk::new("");
    let arrivals = Arc::new(Arrivals::default());
    desk.history.wait_for(&arrivals);
    let update = desk.edit("a\n").unwrap();
    assert_eq!(desk.commit(&update), "a\n");
    // Typed on what is there now, but the line before it has no answer yet.
    let arrived = desk.now;
    arrivals.push(arrived);
    for text in ["a\nx\n", "a\nx\ny\n", "a\nx\ny\nz\n"] {
        desk.now += WINDOW * 2;
        desk.elsewhere(text);
    }
    let update = desk.shadow.edit("b\na\n", arrived).unwrap().unwrap();
    arrivals.pop();
    assert_eq!(desk.commit(&update), "b\na\nx\ny\nz\n");
    // Once nothing waits, what has come long ago is taken for seen.
    desk.now += WINDOW * 2;
    let update = desk.edit("b\na\n").unwrap();
    assert_eq!(desk.commit(&update), "b\na\n");
}

#[test]
fn similar_paragraphs_do_not_replace_each_other() {
    let mut desk = Desk::new("");
    desk.elsewhere("paragraph 12\n");
    let update = desk.edit("paragraph 13\n").unwrap();
    let text = desk.commit(&update);
    assert!(
        text.contains("paragraph 12\n") && text.contains("paragraph 13\n"),
        "{text}"
    );
}

#[test]
fn a_lost_edit_goes_with_the_next_one() {
    let mut desk = Desk::new("");
    let lost = desk.edit("a").unwrap();
    assert_ne!(lost, Vec::<u8>::new());
    let update = desk.edit("ab").unwrap();
    assert_eq!(desk.commit(&update), "ab");
    assert_eq!(desk.edit("ab"), None);
    let mut desk = Desk::new("ab");
    desk.edit("a").unwrap();
    let update = desk.edit("a").unwrap();
    assert_eq!(desk.commit(&update), "a");
}

#[test]
fn many_edits_are_written_under_one_name() {
    let mut desk = Desk::new("");
    for length in 1..200 {
        let update = desk.edit(&"x".repeat(length)).unwrap();
        desk.commit(&update);
        desk.wait(100);
    }
    assert!(desk.server.state().len() < 400, "{}", desk.server.state().len());
    assert_eq!(desk.history.current(desk.now).content.len(), 199);
}

#[test]
fn whoever_is_sent_nothing_types_on_their_own_text() {
    let mut desk = Desk::new("one\n");
    desk.shadow.leave(desk.now).unwrap();
    desk.elsewhere("one\ntwo\n");
    desk.now += WINDOW * 3;
    let update = desk.edit("zero\none\n").unwrap();
    assert_eq!(desk.commit(&update), "zero\none\ntwo\n");
    desk.now += WINDOW * 3;
    let update = desk.edit("zero\none\nmore\n").unwrap();
    let text = desk.commit(&update);
    assert!(
        ["zero", "one", "two", "more"]
            .iter()
            .all(|line| text.matches(line).count() == 1),
        "{text}"
    );
}

#[test]
fn another_document_voids_what_was_known() {
    let mut desk = Desk::new("one\n");
    desk.edit("one\nmine\n").unwrap();
    let mut restored = Document::from_state(&[]).unwrap();
    restored.apply(&from_elsewhere(&restored, "old\n")).unwrap();
    desk.server = Document::from_state(&restored.state()).unwrap();
    desk.history.reset(restored, 1, desk.now);
    let update = desk.edit("old\nnew\n").unwrap();
    assert_eq!(desk.commit(&update), "old\nnew\n");
}

#[test]
fn the_present_state_makes_the_present_text() {
    let mut desk = Desk::new("one\n");
    desk.elsewhere("one\ntwo\n");
    desk.now += WINDOW * 2;
    desk.elsewhere("two\n");
    let current = desk.history.current(desk.now);
    assert_eq!((current.version, &*current.content), (3, "two\n"));
    assert_eq!(Document::from_state(&current.state).unwrap().text(), "two\n");
}

#[test]
fn versions_beyond_the_bound_are_merged() {
    let mut desk = Desk::new("");
    let mut text = String::new();
    for n in 0..600 {
        text.push_str(&format!("{n}\n"));
        desk.elsewhere(&text);
    }
    assert_eq!(&*desk.history.current(desk.now).content, text);
    let update = desk.edit(&format!("mine\n{text}")).unwrap();
    assert_eq!(desk.commit(&update), format!("mine\n{text}"));
}

#[test]
fn bytes_that_are_no_update_are_noticed() {
    let desk = Desk::new("one");
    assert!(Document::from_state(&[9, 9, 9]).is_err());
    assert!(desk.history.push(2, "x", &[9, 9, 9], desk.now).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn every_paragraph_stands_there_once(seed: u64, clients in 2usize..6) {
        let mut world = World::new(seed, clients, Habit::Paragraphs);
        world.run(40);
        let text = world.text();
        for paragraph in world.inserted() {
            prop_assert_eq!(text.matches(paragraph.as_str()).count(), 1, "{:?} in {:?}", paragraph, text);
        }
        prop_assert_eq!(text.len(), world.inserted().iter().map(String::len).sum::<usize>());
        prop_assert!(world.all_show(&text));
    }

    #[test]
    fn every_character_stands_there_once_wherever_it_was_put(seed: u64, clients in 2usize..6) {
        let mut world = World::new(seed, clients, Habit::Anywhere);
        world.run(30);
        let text = world.text();
        for (client, sign) in world.written() {
            prop_assert_eq!(text.matches(*sign).count(), 1, "{:?} of {} in {:?}", sign, client, text);
        }
        prop_assert_eq!(text.len(), world.inserted().iter().map(String::len).sum::<usize>());
        prop_assert!(world.all_show(&text));
    }

    #[test]
    fn whoever_takes_back_their_own_takes_nothing_of_others(seed: u64, clients in 2usize..6) {
        let mut world = World::new(seed, clients, Habit::FirstDeletesToo);
        world.run(80);
        let text = world.text();
        for (client, char) in world.written() {
            let count = text.matches(*char).count();
            prop_assert!(count == 1 || (count == 0 && *client == 0), "{char:?} of {client} in {text:?}");
        }
        prop_assert!(world.all_show(&text));
    }

    #[test]
    fn alone_at_a_desk_the_text_is_what_was_typed(seed: u64) {
        let mut world = World::new(seed, 1, Habit::FirstDeletesToo);
        world.run_slowly(80);
        let text = world.text();
        prop_assert!(world.all_show(&text));
        prop_assert_eq!(world.typed(0), &text);
    }
}
