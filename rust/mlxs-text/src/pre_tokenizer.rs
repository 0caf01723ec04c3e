//! Cutting text into the pieces that byte-level BPE merges within, by the `tokenizer.ggml.pre` names.
//!
//! The patterns are those of the models' own tokenizer.json files. A splitting stage is applied to each piece of
//! the stage before; what a pattern does not match is a piece too. Regexes run in linear time: their only
//! look-ahead, `\s+(?!\S)`, is done by hand (a run of spaces leaves its last one to the word that follows).

use crate::error::{Result, TextError};
use regex_automata::{Input, meta::Regex};

/// Ends most patterns: white space, but for its last character if a word follows.
const SPACES: [&str; 2] = [r"|\s+(?!\S)|\s+", r"|\s+(?!\S)"];

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const MINICPM5: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED_CODER: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const BAILING: &str = r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const EXAONE_MOE: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT_4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const ONE_DIGIT: &str = r"\p{N}";
const THREE_DIGITS: &str = r"\p{N}{1,3}";
const HAN_KANA: &str = r"[一-龥\x{3040}-ゟ゠-ヿ]+";
const HAN_HANGUL: &str = r"[一-龥ࠀ-一가-\x{d7ff}]+";
// DeepSeek LLM's own list of letters that have case.
const CASED_LETTERS: &str = concat!(
    r"\s?[",
    r"A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}",
    r"\x{295}-\x{2af}\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}",
    r"\x{38e}-\x{3a1}\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}",
    r"\x{13a0}-\x{13f5}\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}",
    r"\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d}\x{1f20}-\x{1f45}",
    r"\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}\x{1f5d}\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}",
    r"\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc}\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}",
    r"\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107}\x{210a}-\x{2113}\x{2115}",
    r"\x{2119}-\x{211d}\x{2124}\x{2126}\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}\x{2139}",
    r"\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}",
    r"\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}",
    r"\x{a771}-\x{a787}\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}",
    r"\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}",
    r"\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2}\x{118a0}-\x{118df}\x{1e900}-\x{1e943}",
    "]+"
);

/// What a `tokenizer.ggml.pre` name stands for.
struct Recipe {
    names: &'static [&'static str],
    stages: &'static [&'static str],
    /// A piece that is a token is taken as it is, whatever the merges say.
    whole_words: bool,
    /// The text starts with BOS unless the file says otherwise.
    add_bos: bool,
}

const fn recipe(names: &'static [&'static str], stages: &'static [&'static str]) -> Recipe {
    Recipe { names, stages, whole_words: false, add_bos: false }
}

const fn whole_words(recipe: Recipe) -> Recipe {
    Recipe { whole_words: true, ..recipe }
}

const fn with_bos(recipe: Recipe) -> Recipe {
    Recipe { add_bos: true, ..recipe }
}

#[rustfmt::skip]
const RECIPES: &[Recipe] = &[
    recipe(&["default"], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    recipe(&["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "gigachat", "a.x-4.0", "mellum"], &[GPT2]),
    recipe(&["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"], &[ONE_DIGIT, GPT2]),
    with_bos(whole_words(recipe(&["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"], &[LLAMA3]))),
    recipe(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[LLAMA3]),
    whole_words(recipe(&["glm4", "glm5"], &[LLAMA3])),
    recipe(&["qwen2", "deepseek-r1-qwen", "kormo", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"], &[QWEN2]),
    recipe(&["qwen35"], &[QWEN35]),
    whole_words(recipe(&["minicpm5"], &[THREE_DIGITS, MINICPM5])),
    recipe(&["laguna"], &[r"[^\n]+|[\n]+", QWEN2]),
    with_bos(whole_words(recipe(&["tekken"], &[TEKKEN]))),
    recipe(&["gpt-4o", "llama4", "kanana2", "minimax-m2"], &[GPT_4O]),
    recipe(&["deepseek-llm"], &[r"[\r\n]", CASED_LETTERS, r"\s?[!-/:-~！-／：-～‘-‟\x{3000}-。]+", r"\s+$", HAN_HANGUL, r"\p{N}+"]),
    recipe(&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", HAN_HANGUL, ONE_DIGIT]),
    recipe(&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], &[THREE_DIGITS, HAN_KANA, DEEPSEEK3]),
    recipe(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
    recipe(&["bloom", "poro-chat", "gpt3-finnish"], &[BLOOM]),
    recipe(&["viking"], &[BLOOM, ONE_DIGIT]),
    recipe(&["seed-coder"], &[SEED_CODER]),
    recipe(&["bailingmoe", "bailingmoe2", "llada-moe"], &[BAILING]),
    recipe(&["exaone-moe"], &[EXAONE_MOE]),
];

struct Stage {
    regex: Regex,
}

const SPACE_RUN: usize = 1; // pattern index in a stage's regex

impl Stage {
    fn new(pattern: &str) -> Result<Self> {
        let regex = match SPACES.iter().find_map(|end| pattern.strip_suffix(end)) {
            Some(rest) => Regex::new_many(&[rest, r"\s+"]),
            None => Regex::new(pattern),
        };
        Ok(Self {
            regex: regex.map_err(|error| {
                TextError::model(format!("the pattern {pattern} is not valid: {error}"), "")
            })?,
        })
    }

    /// Calls `piece` with what the pattern matches and with what lies between.
    fn split<'t>(&self, text: &'t str, mut piece: impl FnMut(&'t str)) {
        let mut at = 0;
        while at < text.len() {
            let Some(found) = self.regex.search(&Input::new(text).range(at..)) else {
                return piece(&text[at..]);
            };
            let mut end = found.end();
            if found.pattern().as_usize() == SPACE_RUN && end < text.len() {
                let last = text[found.start()..end].char_indices().next_back();
                end = match last {
                    Some((index, _)) if index > 0 => found.start() + index,
                    _ => end,
                };
            }
            debug_assert!(end > at, "a pattern matched nothing");
            if found.start() > at {
                piece(&text[at..found.start()]);
            }
            piece(&text[found.start()..end]);
            at = end;
        }
    }
}

/// Immutable; used by all threads at once.
pub struct PreTokenizer {
    stages: Vec<Stage>,
    /// A piece that is a token is taken as it is, whatever the merges say.
    pub whole_words: bool,
    /// The text starts with BOS unless the file says otherwise.
    pub add_bos: bool,
}

impl PreTokenizer {
    /// `name`: tokenizer.ggml.pre; empty is "default".
    pub fn new(name: &str) -> Result<Self> {
        let name = if name.is_empty() { "default" } else { name };
        let recipe = RECIPES.iter().find(|recipe| recipe.names.contains(&name)).ok_or_else(|| {
            let mut known: Vec<&str> = RECIPES.iter().flat_map(|r| r.names).copied().collect();
            known.sort_unstable();
            TextError::model(
                format!("tokenizer.ggml.pre = '{name}' is not supported"),
                format!("supported: {}", known.join(", ")),
            )
        })?;
        let stages = recipe.stages.iter().map(|pattern| Stage::new(pattern));
        Ok(Self {
            stages: stages.collect::<Result<_>>()?,
            whole_words: recipe.whole_words,
            add_bos: recipe.add_bos,
        })
    }

    /// Calls `piece` with each piece of the text, in order; joined they are the text.
    pub fn split<'t>(&self, text: &'t str, piece: &mut dyn FnMut(&'t str)) {
        split_from(&self.stages, text, piece);
    }
}

fn split_from<'t>(stages: &[Stage], text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    match stages.split_first() {
        Some((stage, rest)) => stage.split(text, |part| split_from(rest, part, piece)),
        None => piece(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        let mut all = Vec::new();
        PreTokenizer::new(name).unwrap().split(text, &mut |piece| all.push(piece));
        all
    }

    #[test]
    fn every_recipe_compiles_and_loses_nothing() {
        let text = "I'll  pay €1234.50\r\n\n \t to Ünïcode\u{301}, 東京2024 กขค नमस्ते שלום 🦀🦀!?  \n";
        for name in RECIPES.iter().flat_map(|recipe| recipe.names) {
            assert_eq!(pieces(name, text).concat(), text, "{name}");
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = RECIPES.iter().flat_map(|recipe| recipe.names).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn spaces_leave_one_to_the_word() {
        assert_eq!(pieces("gpt-2", "  a   b \n"), [" ", " a", "  ", " b", " \n"]);
        assert_eq!(pieces("gpt-2", "\u{3000}\u{3000}a"), ["\u{3000}", "\u{3000}", "a"]);
        assert_eq!(pieces("gpt-2", "\ta"), ["\t", "a"]);
        assert_eq!(pieces("gpt-2", ""), [""; 0]);
    }

    #[test]
    fn digits() {
        assert_eq!(pieces("smollm", "a  12"), ["a", "  ", "1", "2"]);
        assert_eq!(pieces("gpt-2", " 12345"), [" 12345"]);
        assert_eq!(pieces("llama-bpe", " 12345"), [" ", "123", "45"]);
        assert_eq!(pieces("qwen2", "12"), ["1", "2"]);
    }

    #[test]
    fn case_splits_words() {
        assert_eq!(pieces("gpt-4o", "helloWorld's HTTPServer"), ["hello", "World's", " HTTPServer"]);
        assert_eq!(pieces("tekken", "приветМир"), ["привет", "Мир"]);
        assert_eq!(pieces("llama-bpe", "I'LL you'ſ"), ["I", "'LL", " you", "'ſ"]);
    }

    #[test]
    fn an_unknown_name_lists_the_known() {
        let error = PreTokenizer::new("nonsense").err().unwrap();
        assert!(error.message.contains("'nonsense'"));
        assert!(error.hint.contains("smollm") && error.hint.contains("tekken"));
    }
}
