//! Structured output: grammars over a tokenizer's vocabulary, by llguidance. A `GrammarEngine` is made once a
//! tokenizer and shared; a `Matcher` follows one answer token by token and says which tokens may come next.

use crate::error::{Result, TextError};
use crate::tokenizer::Tokenizer;
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher as Parser, ParserFactory, TokenParser};
use serde_json::{Value, json};
use std::sync::Arc;

/// What the text of a grammar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrammarKind {
    /// A JSON schema, as JSON.
    JsonSchema,
    /// A regular expression in the syntax of the regex crate, for the whole answer.
    Regex,
    /// llguidance's variant of Lark.
    Lark,
    /// A JSON array of strings, one of which is the whole answer.
    Choice,
}

/// Space between JSON's tokens: enough for a pretty-printed answer, too little to ramble in.
const JSON_SPACE: &str = r"[\x20\x0A\x0D\x09]{0,24}";
const SPECIAL: u8 = 1; // MLXS_TOKEN_SPECIAL
const END: u8 = 2; // MLXS_TOKEN_END

/// The vocabulary as a trie, and what is precomputed of it.
pub struct GrammarEngine {
    factory: ParserFactory,
}

impl GrammarEngine {
    /// `ends`: the tokens that end an answer, the first of which is used where a grammar may end; at least one.
    pub fn new(tokenizer: &Tokenizer, ends: &[u32]) -> Result<Self> {
        let Some(&eos) = ends.first() else {
            return Err(TextError::model(
                "the tokenizer has no token that ends an answer",
                "structured output needs one: use a model whose tokenizer names it (eos_token)",
            ));
        };
        let (bytes, offsets, flags) = tokenizer.vocabulary().table();
        let words: Vec<Vec<u8>> = flags
            .iter()
            .enumerate()
            .map(|(id, flag)| {
                let word = &bytes[offsets[id] as usize..offsets[id + 1] as usize];
                let hidden = flag & (SPECIAL | END) != 0 || ends.contains(&(id as u32));
                if hidden { [&[TokTrie::SPECIAL_TOKEN_MARKER], word].concat() } else { word.to_vec() }
            })
            .collect();
        let mut info = TokRxInfo::new(words.len() as u32, eos);
        info.tok_end_of_turn = ends.get(1).copied();
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
        let mut factory = ParserFactory::new_simple(&env)
            .map_err(|error| TextError::model(format!("the vocabulary cannot be indexed: {error}"), ""))?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Self { factory })
    }

    /// Compiles a grammar; what is wrong with it is named.
    pub fn matcher(&self, kind: GrammarKind, text: &str) -> Result<Matcher> {
        let grammar = TopLevelGrammar::from_grammar(match kind {
            GrammarKind::JsonSchema => GrammarWithLexer::from_json_schema(with_options(parse(text)?)?),
            GrammarKind::Regex => GrammarWithLexer::from_regex(text),
            GrammarKind::Lark => GrammarWithLexer::from_lark(text.to_string()),
            GrammarKind::Choice => GrammarWithLexer::from_lark(choices(&parse(text)?)?),
        });
        let bad = |error: String| TextError::input(error, "");
        let start = self.factory.create_parser(grammar).map_err(|error| bad(format!("{error:#}")))?;
        let matcher = Matcher::at(start);
        match matcher.parser.get_error() {
            Some(error) => Err(bad(error)),
            None => Ok(matcher),
        }
    }
}

fn parse(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| TextError::input(format!("it is not JSON: {error}"), ""))
}

/// Our defaults for JSON, below those that the schema itself sets.
fn with_options(schema: Value) -> Result<Value> {
    match schema {
        Value::Object(mut schema) => {
            let options = schema.entry("x-guidance").or_insert_with(|| json!({}));
            let Value::Object(options) = options else {
                return Err(TextError::input("x-guidance is not an object", ""));
            };
            if !options.contains_key("whitespace_flexible") {
                options.entry("whitespace_pattern").or_insert_with(|| JSON_SPACE.into());
            }
            Ok(Value::Object(schema))
        }
        Value::Bool(true) => with_options(json!({})),
        Value::Bool(false) => Err(TextError::input("the schema `false` allows no answer at all", "")),
        _ => Err(TextError::input("a schema is an object or a boolean", "")),
    }
}

fn choices(list: &Value) -> Result<String> {
    let strings = list.as_array().filter(|list| !list.is_empty());
    let strings = strings.and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    match strings {
        Some(strings) if strings.iter().all(|text| !text.is_empty()) => {
            let quoted: Vec<String> = strings.iter().map(|text| json!(text).to_string()).collect();
            Ok(format!("start: {}", quoted.join(" | ")))
        }
        _ => Err(TextError::input("choices are a list of strings, none of them empty", "")),
    }
}

/// What a lexer may have learnt before it is worth starting from a fresh one. Of the schemas tried, whole answers
/// stay below a tenth of it.
const MOST_LEARNT_BYTES: usize = 1 << 20;

/// The state of one answer. What its lexer learns about the grammar on the way (its automaton is built as texts
/// need it, most of a short answer's cost) is there for the next answer that it is restarted for.
pub struct Matcher {
    start: TokenParser, // before the first token; shares the lexer
    parser: Parser,
}

// `another` is called of one matcher by many threads.
const _: fn() = || {
    fn shared<T: Sync + Send>() {}
    shared::<Matcher>();
};

impl Matcher {
    fn at(start: TokenParser) -> Self {
        Self { parser: Parser::new(Ok(start.clone())), start }
    }

    /// Back to the start of an answer. False: it cannot be used again, or is not worth it.
    pub fn restart(&mut self) -> bool {
        let lexer = &self.start.parser;
        if self.parser.is_error() || lexer.lexer_stats().num_bytes > MOST_LEARNT_BYTES {
            return false;
        }
        self.parser = Parser::new(Ok(self.start.clone()));
        true
    }

    /// Bit i of `bits` becomes 1 where token i may come next. Of an ended answer: its end token only.
    pub fn mask(&mut self, bits: &mut [u32]) -> Result<()> {
        let mask = self.parser.compute_mask_or_eos().map_err(too_complex)?;
        let words = mask.as_slice();
        let count = words.len().min(bits.len());
        bits[..count].copy_from_slice(&words[..count]);
        bits[count..].fill(0);
        Ok(())
    }

    /// Whether the mask would have `token`, without computing all of it.
    pub fn allows(&mut self, token: u32) -> Result<bool> {
        let env = self.parser.tok_env().map_err(too_complex)?;
        let trie = env.tok_trie();
        // One without bytes leads nowhere: no mask has it.
        if token as usize >= trie.vocab_size() || trie.token(token).is_empty() {
            return Ok(false);
        }
        Ok(self.parser.validate_tokens(&[token]).map_err(too_complex)? == 1)
    }

    /// The answer goes on with `token`, which the mask allowed. True: nothing can follow.
    pub fn commit(&mut self, token: u32) -> Result<bool> {
        self.parser.consume_token(token).map_err(too_complex)?;
        Ok(self.parser.is_stopped())
    }

    /// Another answer of the same grammar, at its start, independent of this one.
    pub fn another(&self) -> Self {
        Self::at(self.start.deep_clone())
    }
}

fn too_complex(error: impl std::fmt::Display) -> TextError {
    TextError::input(format!("the grammar failed while the answer was generated: {error}"), "simplify it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{Kind, Spec};

    fn tokenizer() -> Tokenizer {
        let mut names: Vec<String> = vec!["<|end|>".into()];
        names.extend((33u8..127).map(|byte| (byte as char).to_string()));
        names.push("\u{120}".into()); // space
        names.push("true".into());
        let types: Vec<i64> = names.iter().map(|name| if name == "<|end|>" { 3 } else { 1 }).collect();
        Tokenizer::from_spec(Spec {
            kind: Kind::ByteLevelBpe,
            pre: "gpt-2",
            tokens: names.iter().map(String::as_str).collect(),
            token_types: &types,
            scores: &[],
            merges: vec![],
            add_bos: None,
            add_eos: None,
            add_space_prefix: None,
            bos: None,
            eos: Some(0),
            eot: None,
            unknown: None,
        })
        .unwrap()
    }

    fn allowed(matcher: &mut Matcher, tokenizer: &Tokenizer) -> Vec<String> {
        let (bytes, offsets, flags) = tokenizer.vocabulary().table();
        let mut bits = vec![0u32; flags.len().div_ceil(32) + 1];
        matcher.mask(&mut bits).unwrap();
        let word = |id: usize| &bytes[offsets[id] as usize..offsets[id + 1] as usize];
        let set = (0..flags.len()).filter(|id| bits[id / 32] >> (id % 32) & 1 == 1);
        set.map(|id| String::from_utf8_lossy(word(id)).into_owned()).collect()
    }

    fn id(tokenizer: &Tokenizer, text: &str) -> u32 {
        tokenizer.vocabulary().find(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_choice_ends_by_itself() {
        let tokenizer = tokenizer();
        let engine = GrammarEngine::new(&tokenizer, &[0]).unwrap();
        let mut matcher = engine.matcher(GrammarKind::Choice, r#"["yes", "no"]"#).unwrap();
        assert_eq!(allowed(&mut matcher, &tokenizer), ["n", "y"]);
        assert!(!matcher.commit(id(&tokenizer, "n")).unwrap());
        assert_eq!(allowed(&mut matcher.another(), &tokenizer), ["n", "y"]);
        assert!(matcher.commit(id(&tokenizer, "o")).unwrap());
        assert_eq!(allowed(&mut matcher, &tokenizer), ["<|end|>"]);
        assert!(matcher.restart());
        assert_eq!(allowed(&mut matcher, &tokenizer), ["n", "y"]);
    }

    #[test]
    fn a_restarted_answer_is_as_a_new_one() {
        let tokenizer = tokenizer();
        let engine = GrammarEngine::new(&tokenizer, &[0]).unwrap();
        let schema = r#"{"type": "array", "items": {"enum": [true, "a", 12]}}"#;
        let mut used = engine.matcher(GrammarKind::JsonSchema, schema).unwrap();
        for round in 0..6 {
            let mut fresh = engine.matcher(GrammarKind::JsonSchema, schema).unwrap();
            for step in 0..12 {
                let expected = allowed(&mut fresh, &tokenizer);
                assert_eq!(allowed(&mut used, &tokenizer), expected, "round {round}, step {step}");
                let token =
                    id(&tokenizer, &expected[(step * 7 + round) % expected.len()].replace(' ', "\u{120}"));
                let ended = fresh.commit(token).unwrap();
                assert_eq!(used.commit(token).unwrap(), ended);
                if ended {
                    break;
                }
            }
            assert!(used.restart());
        }
        assert!(used.commit(id(&tokenizer, "x")).is_err());
        assert!(!used.restart());
    }

    #[test]
    fn a_schema_allows_tokens_of_several_characters() {
        let tokenizer = tokenizer();
        let engine = GrammarEngine::new(&tokenizer, &[0]).unwrap();
        let mut matcher = engine.matcher(GrammarKind::JsonSchema, r#"{"type": "boolean"}"#).unwrap();
        let first = allowed(&mut matcher, &tokenizer);
        assert!(first.contains(&"true".to_string()) && first.contains(&"f".to_string()), "{first:?}");
        assert!(!first.contains(&"1".to_string()));
        assert!(matcher.commit(id(&tokenizer, "true")).unwrap());
    }

    #[test]
    fn a_token_is_allowed_as_the_mask_says() {
        let tokenizer = tokenizer();
        let engine = GrammarEngine::new(&tokenizer, &[0]).unwrap();
        let count = tokenizer.vocabulary().len() as u32;
        for (kind, text) in [
            (GrammarKind::JsonSchema, r#"{"type": "array", "items": {"enum": [true, "a", 12]}}"#),
            (GrammarKind::Regex, "[a-c]{2,5}(true)?"),
            (GrammarKind::Choice, r#"["yes", "no", "nobody"]"#),
        ] {
            let mut matcher = engine.matcher(kind, text).unwrap();
            for step in 0..12 {
                let mut bits = vec![0u32; count as usize / 32 + 1];
                matcher.mask(&mut bits).unwrap();
                let masked: Vec<u32> =
                    (0..count).filter(|&t| bits[t as usize / 32] >> (t % 32) & 1 == 1).collect();
                let single: Vec<u32> = (0..count).filter(|&t| matcher.allows(t).unwrap()).collect();
                assert_eq!(masked, single, "{text}, step {step}");
                assert!(!matcher.allows(count + 5).unwrap());
                if matcher.commit(masked[step * 7 % masked.len()]).unwrap() {
                    break;
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let tokenizer = tokenizer();
        let engine = GrammarEngine::new(&tokenizer, &[0]).unwrap();
        let error = |kind, text| engine.matcher(kind, text).err().unwrap().message;
        assert!(error(GrammarKind::JsonSchema, "{").contains("not JSON"));
        assert!(
            error(GrammarKind::JsonSchema, r#"{"type": "array", "uniqueItems": true}"#)
                .contains("uniqueItems")
        );
        assert!(error(GrammarKind::Regex, "(").len() > 5);
        assert!(error(GrammarKind::Choice, "[]").contains("none of them empty"));
        assert!(error(GrammarKind::Lark, "start: nothing_here").contains("nothing_here"));
    }
}
