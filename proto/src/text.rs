//! Names and titles as they are shown: text that leaves its surroundings as they are. Pure.

use std::borrow::Cow;

/// A name or title without control characters, line breaks among them, and without the characters that turn the
/// direction of writing, which would reorder the text around it; white space at its ends goes too. Empty where nothing
/// in it can be seen.
pub fn shown(text: &str) -> Cow<'_, str> {
    let trimmed = text.trim();
    if !trimmed.chars().any(is_visible) {
        return Cow::Borrowed("");
    }
    if !trimmed.chars().any(is_removed) {
        return Cow::Borrowed(trimmed);
    }
    let kept: String = trimmed.chars().filter(|c| !is_removed(*c)).collect();
    Cow::Owned(kept.trim().to_owned())
}

/// Leaves a mark of its own. Bidi controls and zero-width characters would let two different users look the same.
pub(crate) fn is_visible(c: char) -> bool {
    let invisible = matches!(c,
        '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
        | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}'
        | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{E0000}'..='\u{E0FFF}');
    !c.is_whitespace() && !c.is_control() && !invisible
}

/// Control characters, separators of lines and paragraphs; marks, embeddings, overrides and isolates of the
/// bidirectional algorithm.
fn is_removed(c: char) -> bool {
    let turns = matches!(c,
        '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_holds_nothing_that_reorders_or_breaks_what_is_around_it() {
        for (text, expected) in [
            ("Ada Lovelace", "Ada Lovelace"),
            ("  Ada L.\n\u{7} ", "Ada L."),
            ("gpj.\u{202E}exe\u{202C}", "gpj.exe"),
            ("\u{2067}דנה\u{2069}", "דנה"),
            ("a\0b\u{9f}c", "abc"),
            // Families and Persian need their joiners.
            ("👩\u{200D}👧", "👩\u{200D}👧"),
            ("می\u{200C}خواهم", "می\u{200C}خواهم"),
        ] {
            assert_eq!(shown(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_no_name() {
        for text in [
            "",
            " ",
            "\u{200B}",
            "\u{200D}\u{FE0F}\u{2060} \n",
            "\u{202E}",
            "\u{3164}\0",
        ] {
            assert_eq!(shown(text), "", "{text:?}");
        }
    }
}
