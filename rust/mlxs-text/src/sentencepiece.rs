//! SentencePiece BPE ("llama" in GGUF): characters are joined to the vocabulary entry with the best score, bytes
//! of characters that the vocabulary lacks become byte tokens. The vocabulary itself is the merge table.

use crate::error::{Result, TextError};
use crate::vocabulary::{TokenType, Vocabulary};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

const SPACE: &str = "\u{2581}";

/// Immutable; used by all threads at once.
pub struct SentencePiece {
    scores: Vec<f32>, // NaN: never the result of joining
    byte_ids: [Option<u32>; 256],
    unknown: Option<u32>,
}

/// Two neighbours that may be joined.
struct Candidate {
    score: f32,
    left: usize,
    right: usize,
    size: usize, // bytes of both; differs if one has been joined since
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = self.score.total_cmp(&other.score);
        by_score.then_with(|| other.left.cmp(&self.left)) // of equal scores the leftmost
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

/// A span of the text; joined into its left neighbour: size 0.
struct Symbol {
    start: usize,
    size: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

impl SentencePiece {
    /// `scores` and `types`: one a token.
    pub fn new(
        vocabulary: &Vocabulary,
        scores: &[f64],
        types: &[TokenType],
        unknown: Option<u32>,
    ) -> Result<Self> {
        if let Some(id) = scores.iter().position(|score| score.is_nan()) {
            return Err(TextError::model(
                format!("tokenizer.ggml.scores[{id}] is not a number"),
                "the vocabulary is damaged: convert the model again",
            ));
        }
        let joinable = |kind| matches!(kind, TokenType::Normal | TokenType::UserDefined | TokenType::Unused);
        let scores = scores.iter().zip(types);
        Ok(Self {
            scores: scores
                .map(|(&score, &kind)| if joinable(kind) { score as f32 } else { f32::NAN })
                .collect(),
            byte_ids: std::array::from_fn(|byte| vocabulary.find(format!("<0x{byte:02X}>").as_bytes())),
            unknown,
        })
    }

    /// Appends the ids of a text without added tokens. `prefix`: as if a space stood before it.
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, prefix: bool, ids: &mut Vec<u32>) {
        let mut escaped = String::with_capacity(text.len() + text.len() / 2 + SPACE.len());
        if prefix {
            escaped.push_str(SPACE);
        }
        for (i, part) in text.split(' ').enumerate() {
            if i > 0 {
                escaped.push_str(SPACE);
            }
            escaped.push_str(part);
        }
        let mut symbols = characters(&escaped);
        self.join(vocabulary, &escaped, &mut symbols);
        for symbol in symbols.iter().filter(|symbol| symbol.size > 0) {
            let piece = &escaped[symbol.start..symbol.start + symbol.size];
            match self.find(vocabulary, piece) {
                Some((id, _)) => ids.push(id),
                None => self.spell_in_bytes(piece, ids),
            }
        }
    }

    fn find(&self, vocabulary: &Vocabulary, piece: &str) -> Option<(u32, f32)> {
        let id = vocabulary.find(piece.as_bytes())?;
        let score = self.scores[id as usize];
        (!score.is_nan()).then_some((id, score))
    }

    fn join(&self, vocabulary: &Vocabulary, text: &str, symbols: &mut [Symbol]) {
        let mut heap = BinaryHeap::new();
        let consider = |heap: &mut BinaryHeap<Candidate>, symbols: &[Symbol], left: usize, right: usize| {
            let size = symbols[left].size + symbols[right].size;
            let start = symbols[left].start;
            if let Some((_, score)) = self.find(vocabulary, &text[start..start + size]) {
                heap.push(Candidate { score, left, right, size });
            }
        };
        for right in 1..symbols.len() {
            consider(&mut heap, symbols, right - 1, right);
        }
        while let Some(Candidate { left, right, size, .. }) = heap.pop() {
            let alive = symbols[left].size > 0 && symbols[right].size > 0;
            if !alive || symbols[left].size + symbols[right].size != size {
                continue;
            }
            symbols[left].size = size;
            symbols[right].size = 0;
            symbols[left].next = symbols[right].next;
            if let Some(next) = symbols[left].next {
                symbols[next].previous = Some(left);
                consider(&mut heap, symbols, left, next);
            }
            if let Some(previous) = symbols[left].previous {
                consider(&mut heap, symbols, previous, left);
            }
        }
    }

    fn spell_in_bytes(&self, piece: &str, ids: &mut Vec<u32>) {
        let bytes = piece.bytes().map(|byte| self.byte_ids[usize::from(byte)]);
        if bytes.clone().all(|id| id.is_some()) {
            ids.extend(bytes.flatten());
        } else {
            ids.extend(self.unknown);
        }
    }
}

fn characters(text: &str) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = Vec::with_capacity(text.len());
    for (start, character) in text.char_indices() {
        let index = symbols.len();
        symbols.push(Symbol {
            start,
            size: character.len_utf8(),
            previous: index.checked_sub(1),
            next: Some(index + 1),
        });
    }
    if let Some(last) = symbols.last_mut() {
        last.next = None;
    }
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::Spelling;

    const TOKENS: [&str; 9] = ["<unk>", "<s>", "▁", "a", "b", "▁a", "ab", "<", "s"];
    const SCORES: [f64; 9] = [0.0, 0.0, -5.0, -6.0, -7.0, -2.0, -1.0, -8.0, -9.0];

    fn encode(extra: &[&str], text: &str, prefix: bool) -> Vec<String> {
        let tokens: Vec<&str> = TOKENS.iter().chain(extra).copied().collect();
        let mut types = vec![TokenType::Normal; tokens.len()];
        types[0] = TokenType::Unknown;
        types[1] = TokenType::Control;
        let mut scores = SCORES.to_vec();
        scores.resize(tokens.len(), -10.0);
        let vocabulary = Vocabulary::new(&tokens, &types, Spelling::SentencePiece).unwrap();
        let model = SentencePiece::new(&vocabulary, &scores, &types, Some(0)).unwrap();
        let mut ids = Vec::new();
        model.encode(&vocabulary, text, prefix, &mut ids);
        ids.iter().map(|&id| vocabulary.text(id).to_owned()).collect()
    }

    #[test]
    fn the_best_score_joins_first() {
        assert_eq!(encode(&[], "ab", true), ["▁", "ab"]);
        assert_eq!(encode(&[], "a b", true), ["▁a", "▁", "b"]);
        assert_eq!(encode(&[], "ab", false), ["ab"]);
        assert_eq!(encode(&[], "", false), [""; 0]);
    }

    #[test]
    fn what_is_missing_is_spelled_in_bytes_or_unknown() {
        assert_eq!(encode(&["<0xC3>", "<0xA9>"], "aé", false), ["a", "<0xC3>", "<0xA9>"]);
        assert_eq!(encode(&["<0xC3>"], "aé", false), ["a", "<unk>"]);
    }

    #[test]
    fn control_tokens_are_never_joined() {
        assert_eq!(encode(&["<s", ">"], "<s>", false), ["<s", ">"]);
    }
}
