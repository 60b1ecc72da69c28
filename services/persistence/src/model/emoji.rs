//! When two emoji are one reaction. Pure.
//!
//! Keyboards write many emoji with the variation selector U+FE0F, which asks for the coloured form, and others write the
//! same ones without it. A message keeps the form that came first; the other is the same reaction.

/// The selector of the coloured form.
pub const SELECTOR: char = '\u{FE0F}';

/// An emoji without its selectors.
pub fn bare(emoji: &str) -> String {
    emoji.replace(SELECTOR, "")
}

/// Whether two emoji differ in selectors at most.
pub fn is_same(one: &str, other: &str) -> bool {
    let selects = |c: &char| *c == SELECTOR;
    let (one, other) = (one.chars(), other.chars());
    one.filter(|c| !selects(c)).eq(other.filter(|c| !selects(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_alone_make_no_other_emoji() {
        for (one, other, same) in [
            ("❤", "❤\u{FE0F}", true),
            ("1\u{20E3}", "1\u{FE0F}\u{20E3}", true),
            ("👁\u{FE0F}\u{200D}🗨\u{FE0F}", "👁\u{200D}🗨", true),
            ("👍", "👍🏽", false),
            ("❤", "💙", false),
        ] {
            assert_eq!(is_same(one, other), same, "{one} {other}");
            assert_eq!(bare(one) == bare(other), same, "{one} {other}");
        }
    }
}
