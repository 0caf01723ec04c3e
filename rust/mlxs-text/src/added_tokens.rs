//! Finding added tokens ("<|im_start|>") in a text, before anything else looks at it: the leftmost, and of those the longest.

use crate::error::{Result, TextError};
use crate::vocabulary::{ADDED, SPECIAL, Vocabulary};
use aho_corasick::{AhoCorasick, MatchKind};

/// Part of a text.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Fragment<'t> {
    Text(&'t str),
    Token(u32),
}

#[derive(Default)]
struct Finder {
    automaton: Option<AhoCorasick>, // None: there are no such tokens
    ids: Vec<u32>,
}

impl Finder {
    fn new(vocabulary: &Vocabulary, ids: Vec<u32>) -> Result<Self> {
        if ids.is_empty() {
            return Ok(Self::default());
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(ids.iter().map(|&id| vocabulary.text(id)))
            .map_err(|error| TextError::model(format!("the added tokens cannot be searched: {error}"), ""))?;
        Ok(Self { automaton: Some(automaton), ids })
    }
}

/// Immutable; used by all threads at once.
pub struct AddedTokens {
    all: Finder,
    not_special: Finder,
}

impl AddedTokens {
    /// The vocabulary's tokens that are marked as added.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self> {
        let ids = |mask: u8, wanted: u8| {
            (0..vocabulary.len() as u32)
                .filter(|&id| vocabulary.flags(id) & mask == wanted && !vocabulary.text(id).is_empty())
                .collect()
        };
        Ok(Self {
            all: Finder::new(vocabulary, ids(ADDED, ADDED))?,
            not_special: Finder::new(vocabulary, ids(ADDED | SPECIAL, ADDED))?,
        })
    }

    /// Calls `fragment` with each token and each text between them, in order. Without `parse_special`, control
    /// tokens are plain text.
    pub fn split<'t>(&self, text: &'t str, parse_special: bool, mut fragment: impl FnMut(Fragment<'t>)) {
        let finder = if parse_special { &self.all } else { &self.not_special };
        let mut at = 0;
        for found in finder.automaton.iter().flat_map(|automaton| automaton.find_iter(text)) {
            if found.start() > at {
                fragment(Fragment::Text(&text[at..found.start()]));
            }
            fragment(Fragment::Token(finder.ids[found.pattern().as_usize()]));
            at = found.end();
        }
        if at < text.len() {
            fragment(Fragment::Text(&text[at..]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::{Spelling, TokenType};

    #[test]
    fn leftmost_longest() {
        let tokens = ["<a>", "<a>b", "\n\n", "x"];
        let types = [TokenType::Control, TokenType::Control, TokenType::UserDefined, TokenType::Normal];
        let vocabulary = Vocabulary::new(&tokens, &types, Spelling::ByteLevel).unwrap();
        let added = AddedTokens::new(&vocabulary).unwrap();
        let split = |text, parse_special| {
            let mut all = Vec::new();
            added.split(text, parse_special, |fragment| all.push(fragment));
            all
        };
        use Fragment::{Text, Token};
        assert_eq!(split("x<a>b\n\n\n", true), [Text("x"), Token(1), Token(2), Text("\n")]);
        assert_eq!(split("<a><a", true), [Token(0), Text("<a")]);
        assert_eq!(split("x<a>\n\n", false), [Text("x<a>"), Token(2)]);
        assert_eq!(split("", true), []);
    }
}
