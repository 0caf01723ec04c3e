//! Byte-level BPE: the bytes of a piece are merged pair by pair, the pair learnt first going first.
//! No cache and no lock: a word takes a few hash look-ups, so threads never meet.

use crate::byte_level;
use crate::error::{Result, TextError};
use crate::pre_tokenizer::PreTokenizer;
use crate::vocabulary::Vocabulary;
use hashbrown::HashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const NONE: u32 = u32::MAX;
/// Up to this many symbols, scanning for the best pair beats a heap.
const SCAN_LIMIT: usize = 48;

#[derive(Clone, Copy)]
struct Merge {
    rank: u32, // NONE: the pair does not merge
    id: u32,   // what it becomes
}

const NO_MERGE: Merge = Merge { rank: NONE, id: NONE };

/// Reused from piece to piece of one encode() call.
#[derive(Default)]
pub struct Scratch {
    spelled: String,
    symbols: Vec<u32>,
    merges: Vec<Merge>,
}

/// Immutable; used by all threads at once.
pub struct ByteLevelBpe {
    merges: HashMap<u64, Merge>,
    byte_ids: [u32; 256], // NONE: the model has no token for that byte
    pre_tokenizer: PreTokenizer,
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl ByteLevelBpe {
    /// `merges`: "left right", first learnt first.
    pub fn new(vocabulary: &Vocabulary, merges: &[&[u8]], pre_tokenizer: PreTokenizer) -> Result<Self> {
        let mut table = HashMap::with_capacity(merges.len());
        let mut joined = Vec::new();
        let mut expected = 0; // merges are listed as their results are: no look-up where the guess is right
        for (rank, merge) in merges.iter().enumerate() {
            let unusable = |why: &str| {
                let merge = String::from_utf8_lossy(merge);
                TextError::model(
                    format!("tokenizer.ggml.merges[{rank}] = '{merge}' {why}"),
                    "the vocabulary is damaged: convert the model again",
                )
            };
            let space =
                merge.iter().position(|&byte| byte == b' ').ok_or_else(|| unusable("has no space"))?;
            let (left, right) = (&merge[..space], &merge[space + 1..]);
            joined.clear();
            joined.extend_from_slice(left);
            joined.extend_from_slice(right);
            let id = match vocabulary.is(expected, &joined) {
                true => Some(expected),
                false => vocabulary.find(&joined),
            };
            let (Some(left), Some(right), Some(id)) = (vocabulary.find(left), vocabulary.find(right), id)
            else {
                return Err(unusable("names a token that is not in the vocabulary"));
            };
            expected = id + 1;
            let merge = Merge { rank: rank as u32, id };
            table.entry(pair(left, right)).or_insert(merge);
        }
        let byte_ids = std::array::from_fn(|byte| {
            let mut buffer = [0; 4];
            let spelled = byte_level::char_of(byte as u8).encode_utf8(&mut buffer);
            vocabulary.find(spelled.as_bytes()).unwrap_or(NONE)
        });
        Ok(Self { merges: table, byte_ids, pre_tokenizer })
    }

    /// Appends the ids of a text without added tokens. Bytes that the model has no token for are left out, as
    /// every implementation of such a vocabulary does.
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        self.pre_tokenizer
            .split(text, &mut |piece| self.encode_piece(vocabulary, piece.as_bytes(), scratch, ids));
    }

    fn encode_piece(&self, vocabulary: &Vocabulary, piece: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) {
        if self.pre_tokenizer.whole_words {
            scratch.spelled.clear();
            byte_level::encode_into(piece, &mut scratch.spelled);
            if let Some(id) = vocabulary.find(scratch.spelled.as_bytes()) {
                ids.push(id);
                return;
            }
        }
        let symbols = &mut scratch.symbols;
        symbols.clear();
        symbols.extend(piece.iter().map(|&byte| self.byte_ids[usize::from(byte)]));
        if symbols.len() <= SCAN_LIMIT {
            self.merge_by_scan(symbols, &mut scratch.merges);
        } else {
            self.merge_by_heap(symbols);
        }
        ids.extend(symbols.iter().filter(|&&id| id != NONE));
    }

    fn merge_of(&self, left: u32, right: u32) -> Merge {
        self.merges.get(&pair(left, right)).copied().unwrap_or(NO_MERGE)
    }

    fn merge_by_scan(&self, symbols: &mut Vec<u32>, merges: &mut Vec<Merge>) {
        merges.clear();
        merges.extend(symbols.windows(2).map(|two| self.merge_of(two[0], two[1])));
        loop {
            let best = merges.iter().enumerate().min_by_key(|(_, merge)| merge.rank);
            let Some((at, &Merge { rank, id })) = best else { return };
            if rank == NONE {
                return;
            }
            symbols[at] = id;
            symbols.remove(at + 1);
            merges.remove(at);
            if at > 0 {
                merges[at - 1] = self.merge_of(symbols[at - 1], id);
            }
            if at < merges.len() {
                merges[at] = self.merge_of(id, symbols[at + 1]);
            }
        }
    }

    fn merge_by_heap(&self, symbols: &mut Vec<u32>) {
        const DEAD: u32 = NONE - 1; // merged into the symbol before
        let count = symbols.len();
        let mut next: Vec<usize> = (1..=count).collect();
        let mut previous: Vec<usize> = (0..count).map(|i| i.wrapping_sub(1)).collect();
        let mut heap = BinaryHeap::new(); // (rank, position, pair): the lowest rank, then the leftmost
        let push = |heap: &mut BinaryHeap<_>, symbols: &[u32], left: usize, right: usize| {
            let merge = self.merge_of(symbols[left], symbols[right]);
            if merge.rank != NONE {
                heap.push(Reverse((merge.rank, left, pair(symbols[left], symbols[right]), merge.id)));
            }
        };
        for left in 0..count - 1 {
            push(&mut heap, symbols, left, left + 1);
        }
        while let Some(Reverse((_, left, expected, id))) = heap.pop() {
            let right = next[left];
            if right >= count || pair(symbols[left], symbols[right]) != expected {
                continue; // one of the two has been merged since
            }
            symbols[left] = id;
            symbols[right] = DEAD;
            next[left] = next[right];
            if next[left] < count {
                previous[next[left]] = left;
                push(&mut heap, symbols, left, next[left]);
            }
            if previous[left] < count {
                push(&mut heap, symbols, previous[left], left);
            }
        }
        symbols.retain(|&id| id != DEAD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::{Spelling, TokenType};

    fn tiny(merges: &[&str]) -> (Vocabulary, ByteLevelBpe) {
        let mut tokens: Vec<String> = (b'a'..=b'd').map(|b| char::from(b).to_string()).collect();
        tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let types = vec![TokenType::Normal; tokens.len()];
        let vocabulary = Vocabulary::new(&tokens, &types, Spelling::ByteLevel).unwrap();
        let merges: Vec<&[u8]> = merges.iter().map(|merge| merge.as_bytes()).collect();
        let bpe = ByteLevelBpe::new(&vocabulary, &merges, PreTokenizer::new("gpt-2").unwrap()).unwrap();
        (vocabulary, bpe)
    }

    fn texts(vocabulary: &Vocabulary, bpe: &ByteLevelBpe, text: &str) -> Vec<String> {
        let mut ids = Vec::new();
        bpe.encode(vocabulary, text, &mut Scratch::default(), &mut ids);
        ids.iter().map(|&id| vocabulary.text(id).to_owned()).collect()
    }

    #[test]
    fn lowest_rank_first_then_leftmost() {
        let (vocabulary, bpe) = tiny(&["b c", "a b", "a a", "aa a"]);
        assert_eq!(texts(&vocabulary, &bpe, "abc"), ["a", "bc"]);
        assert_eq!(texts(&vocabulary, &bpe, "abd"), ["ab", "d"]);
        assert_eq!(texts(&vocabulary, &bpe, "aaaaa"), ["aa", "aaa"]);
        assert_eq!(texts(&vocabulary, &bpe, "a"), ["a"]);
    }

    #[test]
    fn bytes_without_a_token_are_left_out_and_never_merged_over() {
        let (vocabulary, bpe) = tiny(&["a b"]);
        assert_eq!(texts(&vocabulary, &bpe, "aXb"), ["a", "b"]);
    }

    #[test]
    fn heap_and_scan_agree() {
        let (_, bpe) = tiny(&["b c", "a b", "a a", "aa a", "d a", "bc d", "aa aa", "da bc", "d d"]);
        let mut state = 1u64;
        for length in (2..200).cycle().take(2000) {
            let mut scanned: Vec<u32> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    match state >> 61 {
                        7 => NONE,
                        high => (high % 4) as u32,
                    }
                })
                .collect();
            let mut heaped = scanned.clone();
            bpe.merge_by_scan(&mut scanned, &mut Vec::new());
            bpe.merge_by_heap(&mut heaped);
            assert_eq!(scanned, heaped);
        }
    }

    #[test]
    fn merges_outside_the_vocabulary_are_refused() {
        let tokens = ["a", "b"];
        let vocabulary = Vocabulary::new(&tokens, &[TokenType::Normal; 2], Spelling::ByteLevel).unwrap();
        for merges in [[b"a b".as_slice()], [b"a"], [b"c a"], [b"a \xff"]] {
            let pre_tokenizer = PreTokenizer::new("gpt-2").unwrap();
            let error = ByteLevelBpe::new(&vocabulary, &merges, pre_tokenizer).err().unwrap();
            assert!(error.message.contains("merges[0]"), "{}", error.message);
        }
    }
}
