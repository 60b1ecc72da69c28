//! Whatever bytes a client sends as an update or a state vector: refused, or applied within what was announced.
//!
//! Begins with the updates in `tests/corpus` and changes them: as honest clients may, against the rules of Yjs, and byte by
//! byte. `JOURNAL_FUZZ_SECONDS` sets how long (5), `JOURNAL_FUZZ_SEED` the first seed (0); a failure names its seed.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod corpus;
mod mutate;
mod parts;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use parlance_journal::{Change, Document, Error, Writer};
use parts::{Block, Parts, Section, put};
use yrs::updates::decoder::Decode as _;
use yrs::updates::encoder::Encode as _;
use yrs::{StateVector, Update};

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place of these tests that reads the environment"
)]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[derive(Debug, Default)]
struct Counts {
    accepted: u64,
    refused: u64,
    circles: u64,
    orders: u64,
}

struct Fuzz {
    /// Documents that updates are applied to, as checkpoints.
    bases: Vec<Vec<u8>>,
    /// Updates that build on the second base and on each other.
    real: Vec<Parts>,
    /// All entries.
    all: Vec<Vec<u8>>,
    counts: Counts,
}

#[test]
fn any_update_is_refused_or_applied_within_what_was_announced() {
    let mut fuzz = Fuzz::new();
    let first = setting("JOURNAL_FUZZ_SEED").unwrap_or(0);
    let time = Duration::from_secs(setting("JOURNAL_FUZZ_SECONDS").unwrap_or(5));
    let begin = Instant::now();
    let mut seed = first;
    while begin.elapsed() < time || seed < first + 1_000 {
        let run = catch_unwind(AssertUnwindSafe(|| fuzz.run(seed)));
        assert!(run.is_ok(), "JOURNAL_FUZZ_SEED={seed} fails");
        seed += 1;
    }
    println!("{} executions: {:?}", seed - first, fuzz.counts);
    let Counts { accepted, orders, .. } = fuzz.counts;
    assert!(accepted > 100 && orders > 50, "{:?}", fuzz.counts);
    let mebibytes = peak_memory().unwrap_or(0) / 1024;
    assert!(mebibytes < 256, "{mebibytes} MiB were allocated at once");
}

/// In KiB.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().strip_suffix(" kB")?.parse().ok()
}

#[test]
fn the_corpus_decodes_into_the_parts_that_it_encodes() {
    let mut entries = corpus::read("real");
    entries.extend(corpus::read("base"));
    assert!(entries.len() > 20);
    for bytes in entries {
        assert_eq!(Parts::decode(&bytes).unwrap().encode(), bytes);
    }
}

#[test]
fn what_was_made_by_hand_to_be_refused_is_refused_or_keeps_to_the_limits() {
    let mut fuzz = Fuzz::new();
    let nasty = corpus::read("nasty");
    assert!(nasty.len() > 10);
    for base in 0..fuzz.bases.len() {
        for bytes in &nasty {
            fuzz.check_update(base, bytes);
        }
    }
}

impl Fuzz {
    fn new() -> Self {
        let (base, real) = (corpus::read("base"), corpus::read("real"));
        let empty = Document::new(Writer::NONE).checkpoint();
        let full = Document::load(base.iter().chain(&corpus::read("real-checkpoint")), Writer::NONE);
        let bases = vec![empty, base[0].clone(), full.unwrap().checkpoint()];
        let all = [base, real.clone(), corpus::read("nasty")].concat();
        Self {
            bases,
            real: real.iter().map(|bytes| Parts::decode(bytes).unwrap()).collect(),
            all,
            counts: Counts::default(),
        }
    }

    fn run(&mut self, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let base = random.usize(..self.bases.len());
        let bytes = match random.usize(0..3) {
            0 => {
                let bytes = self.honest(&mut random).encode();
                let other = self.honest(&mut random).encode();
                self.check_order(&bytes, &other);
                bytes
            }
            1 => {
                let entry = random.usize(..self.all.len());
                let mut parts = Parts::decode(&self.all[entry]).unwrap_or_default();
                for _ in 0..random.usize(1..4) {
                    mutate::forged(&mut random, &mut parts, &self.real);
                }
                parts.encode()
            }
            _ => {
                let entry = random.usize(..self.all.len());
                let mut bytes = self.all[entry].clone();
                for _ in 0..random.usize(1..4) {
                    let other = random.usize(..self.all.len());
                    mutate::damaged(&mut random, &mut bytes, &self.all[other]);
                }
                bytes
            }
        };
        self.check_update(base, &bytes);
        self.check_state_vector(&mut random, base, &bytes);
    }

    fn honest(&self, random: &mut fastrand::Rng) -> Parts {
        let mut parts = self.real[random.usize(..self.real.len())].clone();
        for _ in 0..random.usize(0..4) {
            mutate::honest(random, &mut parts, &self.real);
        }
        parts
    }

    fn load(&self, base: usize) -> Document {
        Document::load([&self.bases[base]], Writer::NONE).unwrap()
    }

    fn check_update(&mut self, base: usize, bytes: &[u8]) {
        let mut document = self.load(base);
        let (before, text) = (document.checkpoint(), document.text());
        let unchanged = |document: &Document| {
            assert_eq!(
                document.checkpoint(),
                before,
                "a refused update changed the document"
            );
            assert_eq!(document.text(), text);
        };
        let work = match document.price(bytes) {
            Ok(work) => work,
            Err(error) => {
                assert_ne!(error, Error::Broken);
                assert_eq!(document.apply(bytes, u64::MAX), Err(error));
                unchanged(&document);
                self.counts.refused += 1;
                return;
            }
        };
        let most = bytes.len() as u64;
        assert!(
            work <= most * (blocks(&document) + most),
            "{work} units for {most} bytes"
        );
        if let Some(limit) = work.checked_sub(1) {
            let refused = document.apply(bytes, limit);
            assert_eq!(refused, Err(Error::TooCostly { work, limit }));
            unchanged(&document);
        }
        let changes = match document.apply(bytes, work) {
            Ok(changes) => changes,
            Err(error) => {
                assert_eq!(
                    error,
                    Error::Malformed,
                    "only blocks in a circle are refused this late"
                );
                unchanged(&document);
                self.counts.circles += 1;
                return;
            }
        };
        self.counts.accepted += 1;
        let (after, checkpoint) = (document.text(), document.checkpoint());
        assert_eq!(changed(&text, &changes), after);
        assert_eq!(document.text_bytes(), after.len());
        let present = Parts::decode(&checkpoint).unwrap().blocks() as u64;
        assert!(
            present <= blocks(&document),
            "{present} blocks are more than were counted"
        );
        assert_eq!(document.apply(bytes, u64::MAX), Ok(Vec::new()));
        assert_eq!(
            document.checkpoint(),
            checkpoint,
            "the same update changed something again"
        );
        let encoded = Update::decode_v1(bytes).unwrap().encode_v1();
        let mut other = self.load(base);
        assert_eq!(other.apply(&encoded, u64::MAX), Ok(changes));
        assert_eq!(other.text(), after);
        // Where blocks are inserted between others in the wrong order, the order of the text depends on theirs.
        let loaded = Document::load([&checkpoint], Writer::NONE).unwrap();
        assert_eq!(loaded.text().len(), after.len());
    }

    /// Updates of honest clients make the same document in any order.
    fn check_order(&mut self, bytes: &[u8], other: &[u8]) {
        let mut first = self.load(1);
        let mut second = self.load(1);
        // What builds on the other one comes again.
        for update in [bytes, other, bytes] {
            let _ = first.apply(update, u64::MAX);
        }
        for update in [other, bytes, other] {
            let _ = second.apply(update, u64::MAX);
        }
        assert_eq!(first.text(), second.text());
        let known = |document: &Document| StateVector::decode_v1(&document.state_vector()).unwrap();
        assert_eq!(known(&first), known(&second));
        self.counts.orders += 1;
    }

    fn check_state_vector(&self, random: &mut fastrand::Rng, base: usize, bytes: &[u8]) {
        let document = self.load(base);
        let checkpoint = document.checkpoint();
        let mut state = document.state_vector();
        mutate::damaged(random, &mut state, bytes);
        for state in [bytes, &state] {
            match document.diff_since(state) {
                Ok(difference) => {
                    assert!(difference.len() <= 2 * checkpoint.len() + 16);
                }
                Err(error) => assert_eq!(error, Error::Malformed),
            }
        }
        assert_eq!(document.checkpoint(), checkpoint);
    }
}

/// How many blocks the document is taken to hold: one more is compared with each.
fn blocks(document: &Document) -> u64 {
    let probe = Parts {
        sections: vec![Section {
            client: (1 << 52) + 7,
            clock: 0,
            blocks: vec![Block::text(None, None, "x")],
            missing: 0,
        }],
        deleted: Vec::new(),
    };
    document.price(&probe.encode()).unwrap() - 1
}

fn changed(text: &str, changes: &[Change]) -> String {
    let mut text = text.to_owned();
    for change in changes.iter().rev() {
        text.replace_range(change.removed_range(), &change.inserted);
    }
    text
}

#[test]
fn a_state_vector_of_many_clients_is_refused_before_it_is_read() {
    let mut state = Vec::new();
    put(&mut state, u64::from(u32::MAX));
    let document = Document::new(Writer::NONE);
    assert_eq!(document.diff_since(&state), Err(Error::Malformed));
}
