//! The tokens of a model: their texts, the bytes they stand for, and which are special. Compact: two blobs and
//! a hash table of ids, because a vocabulary has up to a few hundred thousand entries.

use crate::byte_level;
use crate::error::{Result, TextError};
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// Not shown to users.
pub const SPECIAL: u8 = 1;
/// Ends an answer.
pub const END: u8 = 2;
/// Found in the text before anything else is split.
pub const ADDED: u8 = 4;

/// Control tokens with these texts end an answer in every model that has them.
const END_TEXTS: [&str; 20] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<turn|>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "</s>",
    "<eos>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
];

/// tokenizer.ggml.token_type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TokenType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl TokenType {
    /// The GGUF number of a type.
    pub fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// How the text of a normal token is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// In the GPT-2 byte alphabet.
    ByteLevel,
    /// As itself, with U+2581 for a space.
    SentencePiece,
    /// As itself.
    Plain,
}

/// Texts joined in one blob.
#[derive(Default)]
struct Blob {
    bytes: Vec<u8>,
    offsets: Vec<u32>, // one more than entries
}

impl Blob {
    fn with_capacity(entries: usize, bytes: usize) -> Self {
        let mut offsets = Vec::with_capacity(entries + 1);
        offsets.push(0);
        Self { bytes: Vec::with_capacity(bytes), offsets }
    }

    fn end_entry(&mut self) -> Result<()> {
        let end = u32::try_from(self.bytes.len()).map_err(|_| {
            TextError::model(
                "the token texts exceed 4 GiB",
                "the vocabulary is damaged: convert the model again",
            )
        })?;
        self.offsets.push(end);
        Ok(())
    }

    fn get(&self, index: usize) -> &[u8] {
        &self.bytes[self.offsets[index] as usize..self.offsets[index + 1] as usize]
    }
}

/// Immutable after construction, shared by all threads.
pub struct Vocabulary {
    texts: Blob,
    bytes: Blob,
    flags: Vec<u8>,
    ids: HashTable<u32>,
    hasher: DefaultHashBuilder,
    has_duplicates: bool, // two tokens have the same text
}

impl Vocabulary {
    /// `tokens` and `types` have the same length. Of equal texts the last wins, as in llama.cpp.
    pub fn new(tokens: &[&str], types: &[TokenType], spelling: Spelling) -> Result<Self> {
        let total = tokens.iter().map(|token| token.len()).sum();
        let mut vocabulary = Self {
            texts: Blob::with_capacity(tokens.len(), total),
            bytes: Blob::with_capacity(tokens.len(), total),
            flags: Vec::with_capacity(tokens.len()),
            ids: HashTable::with_capacity(tokens.len()),
            hasher: DefaultHashBuilder::default(),
            has_duplicates: false,
        };
        for (id, (&token, &kind)) in tokens.iter().zip(types).enumerate() {
            vocabulary.texts.bytes.extend_from_slice(token.as_bytes());
            vocabulary.texts.end_entry()?;
            decode_token(token, kind, spelling, &mut vocabulary.bytes.bytes);
            vocabulary.bytes.end_entry()?;
            vocabulary.flags.push(match kind {
                TokenType::Normal | TokenType::Byte => 0,
                TokenType::Control | TokenType::Unknown => SPECIAL | ADDED,
                TokenType::UserDefined => ADDED,
                TokenType::Unused => SPECIAL,
            });
            vocabulary.insert(id as u32);
        }
        vocabulary.has_duplicates = vocabulary.ids.len() < tokens.len();
        Ok(vocabulary)
    }

    fn insert(&mut self, id: u32) {
        let texts = &self.texts;
        let hasher = &self.hasher;
        let text = texts.get(id as usize);
        self.ids
            .entry(
                hasher.hash_one(text),
                |&other| texts.get(other as usize) == text,
                |&other| hasher.hash_one(texts.get(other as usize)),
            )
            .insert(id);
    }

    /// The id of an exact text, as the vocabulary spells it.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        self.ids.find(self.hasher.hash_one(text), |&id| self.texts.get(id as usize) == text).copied()
    }

    /// Whether `id` is what `find` says of a text.
    pub fn is(&self, id: u32, text: &[u8]) -> bool {
        (id as usize) < self.len() && self.texts.get(id as usize) == text && !self.has_duplicates
    }

    /// Marks a control token, whatever type the file gives it.
    pub fn mark_control(&mut self, id: u32) {
        self.flags[id as usize] |= SPECIAL | ADDED;
    }

    /// Marks a control token that ends an answer.
    pub fn mark_end(&mut self, id: u32) {
        self.flags[id as usize] |= END | SPECIAL | ADDED;
    }

    /// Marks the well-known end tokens that were added to the vocabulary as such.
    pub fn mark_known_ends(&mut self) {
        // In the Harmony format <|end|> closes a message, not the answer.
        let harmony = self.find(b"<|return|>").is_some() && self.find(b"<|call|>").is_some();
        for text in END_TEXTS {
            if harmony && text == "<|end|>" {
                continue;
            }
            match self.find(text.as_bytes()) {
                Some(id) if self.flags(id) & ADDED != 0 => self.mark_end(id),
                _ => {}
            }
        }
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.flags.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    /// The token as the vocabulary spells it.
    pub fn text(&self, id: u32) -> &str {
        std::str::from_utf8(self.texts.get(id as usize)).unwrap_or_default()
    }

    /// The bytes that the token stands for.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize)
    }

    /// `SPECIAL | END | ADDED`.
    pub fn flags(&self, id: u32) -> u8 {
        self.flags[id as usize]
    }

    /// All bytes, the offsets of each token in them (one more than tokens), and all flags.
    pub fn table(&self) -> (&[u8], &[u32], &[u8]) {
        (&self.bytes.bytes, &self.bytes.offsets, &self.flags)
    }
}

fn decode_token(token: &str, kind: TokenType, spelling: Spelling, out: &mut Vec<u8>) {
    match (spelling, kind) {
        (Spelling::ByteLevel, TokenType::Normal | TokenType::Byte) => byte_level::decode_into(token, out),
        (Spelling::SentencePiece, TokenType::Byte) => match byte_token(token) {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(token.as_bytes()),
        },
        (Spelling::SentencePiece, TokenType::Normal | TokenType::UserDefined) => {
            for (i, part) in token.split('\u{2581}').enumerate() {
                if i > 0 {
                    out.push(b' ');
                }
                out.extend_from_slice(part.as_bytes());
            }
        }
        _ => out.extend_from_slice(token.as_bytes()),
    }
}

/// The byte of a SentencePiece byte token, `<0x0A>`.
pub fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None; // from_str_radix alone would take "+1"
    }
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_and_decodes() {
        let tokens = ["Ġhi", "<|im_end|>", "▁a▁", "é", "Ġhi"];
        let types = [
            TokenType::Normal,
            TokenType::Control,
            TokenType::UserDefined,
            TokenType::Normal,
            TokenType::Normal,
        ];
        let mut vocabulary = Vocabulary::new(&tokens, &types, Spelling::ByteLevel).unwrap();
        assert_eq!(vocabulary.find("Ġhi".as_bytes()), Some(4), "the last wins");
        assert_eq!(vocabulary.find(b"hi"), None);
        assert_eq!(vocabulary.bytes(0), b" hi");
        assert_eq!(vocabulary.bytes(2), "▁a▁".as_bytes());
        assert_eq!(vocabulary.bytes(3), b"\xe9");
        vocabulary.mark_known_ends();
        assert_eq!(vocabulary.flags(1), SPECIAL | END | ADDED);

        let pieces = Vocabulary::new(
            &["▁a▁b", "<0x0A>", "<0x0A>"],
            &[TokenType::Normal, TokenType::Byte, TokenType::Control],
            Spelling::SentencePiece,
        )
        .unwrap();
        assert_eq!(pieces.bytes(0), b" a b");
        assert_eq!(pieces.bytes(1), b"\n");
        assert_eq!(pieces.bytes(2), b"<0x0A>");
    }

    #[test]
    fn harmony_messages_do_not_end_the_answer() {
        let tokens = ["<|end|>", "<|return|>", "<|call|>"];
        let mut vocabulary = Vocabulary::new(&tokens, &[TokenType::Control; 3], Spelling::ByteLevel).unwrap();
        vocabulary.mark_known_ends();
        assert_eq!(vocabulary.flags(0) & END, 0);
        assert_ne!(vocabulary.flags(1) & END, 0);
        let mut alone = Vocabulary::new(&tokens[..1], &[TokenType::Control], Spelling::ByteLevel).unwrap();
        alone.mark_known_ends();
        assert_ne!(alone.flags(0) & END, 0);
    }

    #[test]
    fn byte_tokens() {
        assert_eq!(byte_token("<0xAf>"), Some(0xaf));
        assert_eq!(byte_token("<0x+1>"), None);
        assert_eq!(byte_token("<0xABC>"), None);
        assert_eq!(byte_token("0xAB"), None);
    }
}
