//! What one writer's text area holds, change by change.

/// Texts that input methods, autocorrection and emoji pickers go through for one word.
const WORDS: &[&[&str]] = &[
    &["t", "te", "teh", "the", "the "],
    &["n", "ni", "你"],
    &["k", "か", "かn", "かん", "かんj", "かんじ", "漢字"],
    &["ㅎ", "하", "한", "한ㄱ", "한그", "한글"],
    &[":", ":s", ":smi", ":smile", ":smile:", "😄"],
    &["👍", "👍🏽"],
    &["e", "e\u{301}"],
    &["o", "on", "one", "one ", "one t", "one tw", "one two"],
    &["\n"],
];

/// The texts in their order; neighbours differ.
pub struct Trace(Vec<String>);

impl Trace {
    pub fn random(random: &mut fastrand::Rng, actions: usize) -> Self {
        let mut texts = vec![String::new()];
        for _ in 0..actions {
            let text = texts.last().cloned().unwrap_or_default();
            let cut = |random: &mut fastrand::Rng| {
                let places: Vec<usize> = text
                    .char_indices()
                    .map(|(at, _)| at)
                    .chain([text.len()])
                    .collect();
                places[random.usize(..places.len())]
            };
            match random.usize(0..10) {
                // Undo.
                0 => {
                    let back = random.usize(0..texts.len().min(6));
                    texts.push(texts[texts.len() - 1 - back].clone());
                }
                // Cut.
                1 => {
                    let (a, b) = (cut(random), cut(random));
                    texts.push([&text[..a.min(b)], &text[a.max(b)..]].concat());
                }
                // Paste, also what is there already, over a selection.
                2 => {
                    let (a, b, c, d) = (cut(random), cut(random), cut(random), cut(random));
                    let pasted = &text[a.min(b)..a.max(b)];
                    texts.push([&text[..c.min(d)], pasted, &text[c.max(d)..]].concat());
                }
                // Backspaces at the end.
                3 => {
                    let mut text = text.clone();
                    for _ in 0..random.usize(1..4) {
                        text.pop();
                        texts.push(text.clone());
                    }
                }
                _ => {
                    let at = if random.bool() { text.len() } else { cut(random) };
                    let word = WORDS[random.usize(..WORDS.len())];
                    texts.extend(
                        word.iter()
                            .map(|typed| [&text[..at], typed, &text[at..]].concat()),
                    );
                }
            }
        }
        texts.dedup();
        Self(texts.split_off(1))
    }

    pub fn texts(&self) -> &[String] {
        &self.0
    }

    pub fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }
}
