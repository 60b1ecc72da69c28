//! Models of writers, gateways and persistence, with every message late and some lost: what must hold of the final
//! text. `JOURNAL_MODEL_CASES` sets the number of cases of each model, `JOURNAL_MODEL_SEED` the first seed.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod typing;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use typing::Trace;
use world::{Settings, World};

/// Runs a model for many seeds; a failure names them.
fn for_seeds(check: impl Fn(u64)) {
    let cases = setting("JOURNAL_MODEL_CASES").unwrap_or(100);
    let first = setting("JOURNAL_MODEL_SEED").unwrap_or(0);
    let fails = |seed: &u64| catch_unwind(AssertUnwindSafe(|| check(*seed))).is_err();
    let failed: Vec<u64> = (first..first + cases).filter(fails).collect();
    assert_eq!(failed, Vec::<u64>::new(), "seeds of {cases} cases failed");
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place of the tests that reads the environment"
)]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn one_writers_text_is_the_text_last_sent_at_any_speed() {
    for_seeds(|seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(Settings::one_writer(&mut random), seed);
        let trace = Trace::random(&mut random, 30);
        for text in trace.texts() {
            world.show(0, text);
            world.run(random.usize(0..6));
        }
        world.settle();
        assert_eq!(world.text(), trace.last());
    });
}

#[test]
fn every_paragraph_is_in_the_final_text_once() {
    for_seeds(|seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(Settings::calm(&mut random), seed);
        for _ in 0..40 {
            world.insert_paragraph();
            world.run(random.usize(0..8));
        }
        world.settle();
        world.check();
    });
}

#[test]
fn every_paragraph_is_in_the_final_text_once_with_losses_reconnects_and_takeovers() {
    for_seeds(|seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(Settings::faulty(&mut random), seed);
        for _ in 0..40 {
            match random.usize(0..20) {
                0 => world.reconnect(),
                1 => world.crash_gateway(),
                2 => world.lose_commands(),
                _ => world.insert_paragraph(),
            }
            world.run(random.usize(0..8));
        }
        world.settle();
        world.check();
    });
}

#[test]
fn a_deletion_of_text_that_nobody_else_touched_stays() {
    for_seeds(|seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(Settings::calm(&mut random), seed);
        for _ in 0..40 {
            match random.bool() {
                true => world.delete_old_paragraph(),
                false => world.insert_paragraph(),
            }
            world.run(random.usize(0..8));
        }
        world.settle();
        world.check();
    });
}

#[test]
fn every_character_typed_anywhere_is_in_the_final_text_once() {
    for_seeds(|seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(Settings::calm(&mut random), seed);
        for _ in 0..40 {
            world.type_character();
            world.run(random.usize(0..8));
        }
        world.settle();
        world.check();
    });
}

#[test]
fn words_and_corrections_of_two_writers_in_different_places_are_all_kept() {
    for_seeds(|seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(Settings::two_writers(&mut random), seed);
        for _ in 0..40 {
            world.type_word_in_own_paragraph();
            world.run(random.usize(0..8));
        }
        world.settle();
        world.check();
    });
}
