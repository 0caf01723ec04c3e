//! Grammars as token masks, by llguidance: a compiler a tokenizer, compiled grammars, and matchers that follow
//! one answer each. A compiled grammar is immutable; its matchers share nothing, so they run in parallel.

use crate::error::{Result, TextError};
use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher as TokenMatcher, ParserFactory};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// What a grammar's text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrammarKind {
    /// A JSON Schema.
    JsonSchema,
    /// A regular expression in the syntax of Rust's regex crate, for the whole answer.
    Regex,
    /// A JSON array of strings, one of which is the answer.
    Choice,
    /// A grammar in llguidance's variant of Lark.
    Lark,
}

/// One token as the grammar sees it.
pub struct TokenSpelling<'a> {
    /// What it stands for in a text.
    pub bytes: &'a [u8],
    /// A control token: text never matches it, only its name in a Lark grammar does.
    pub special: bool,
}

/// Compiles grammars for one tokenizer. Immutable; used by all threads at once.
pub struct GrammarCompiler {
    factory: ParserFactory,
    num_tokens: usize,
}

/// A compiled grammar: the state before the first token.
pub struct Grammar {
    start: Mutex<TokenMatcher>, // held for a copy only
    num_tokens: usize,
}

/// One answer's place in its grammar.
pub struct Matcher {
    state: TokenMatcher,
    num_tokens: usize,
}

/// Whitespace between JSON's parts: none, a space, or a line break with its indentation. Unbounded, a hot sampler
/// could go on with blanks for ever.
const JSON_WHITESPACE: &str = r"(?: |\r?\n[ \t]{0,40})";

const FIX_GRAMMAR: &str = "change or leave out what the message names";

impl GrammarCompiler {
    /// `ends`: the tokens that end an answer.
    pub fn new(tokens: &[TokenSpelling], ends: &[u32]) -> Result<Self> {
        let broken =
            |what: String| TextError::model(what, "the vocabulary is damaged: convert the model again");
        if let Some(id) = ends.iter().find(|&&id| id as usize >= tokens.len()) {
            return Err(broken(format!("end token {id}, but there are {} tokens", tokens.len())));
        }
        let mut words: Vec<Vec<u8>> = tokens.iter().map(spell).collect();
        let mut ends = ends.to_vec();
        if ends.is_empty() {
            // The trie wants one. It lies behind the vocabulary, where no mask reaches.
            ends.push(words.len() as u32);
            words.push(b"\xff<no end token>".to_vec());
        }
        let info = TokRxInfo::new(words.len() as u32, ends[0]);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&ends);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = SlicedBiasComputer::json_slices();
        let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
            .map_err(|error| broken(format!("the vocabulary cannot be used with grammars: {error:#}")))?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Self { factory, num_tokens: tokens.len() })
    }

    /// Fails with the keyword or the place that cannot be used.
    pub fn compile(&self, kind: GrammarKind, text: &str) -> Result<Grammar> {
        let parser = self.factory.create_parser(top_level(kind, text)?);
        let parser = parser.map_err(|error| refuse(kind, &format!("{error:#}")))?;
        let mut start = TokenMatcher::new(Ok(parser));
        // Now rather than in the first step of each request: most lexer states appear here.
        start.compute_mask_or_eos().map_err(|error| refuse(kind, &format!("{error:#}")))?;
        Ok(Grammar { start: Mutex::new(start), num_tokens: self.num_tokens })
    }
}

impl Grammar {
    /// At the start of an answer.
    pub fn matcher(&self) -> Matcher {
        let start = self.start.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Matcher { state: start.deep_clone(), num_tokens: self.num_tokens }
    }
}

impl Matcher {
    /// Bit i of the words: token i can come next. Words past the vocabulary become 0; when the grammar has ended,
    /// only end tokens are left.
    pub fn mask(&mut self, words: &mut [u32]) -> Result<()> {
        let mask = self.state.compute_mask_or_eos().map_err(too_complex)?;
        let mask = mask.as_slice();
        let copied = mask.len().min(words.len());
        words[..copied].copy_from_slice(&mask[..copied]);
        words[copied..].fill(0);
        let (last, bits) = (self.num_tokens / 32, self.num_tokens % 32);
        if let Some(word) = words.get_mut(last) {
            *word &= (1 << bits) - 1;
        }
        if let Some(behind) = words.get_mut(last + 1..) {
            behind.fill(0);
        }
        Ok(())
    }

    /// Takes a token that the mask allowed.
    pub fn commit(&mut self, token: u32) -> Result<()> {
        self.state.consume_token(token).map_err(too_complex)
    }

    /// The answer could end here.
    pub fn is_accepting(&mut self) -> bool {
        self.state.is_accepting().unwrap_or(false)
    }

    /// Nothing can follow.
    pub fn is_stopped(&self) -> bool {
        self.state.is_stopped()
    }
}

/// llguidance marks control tokens with a byte that no text holds.
fn spell(token: &TokenSpelling) -> Vec<u8> {
    match token.bytes {
        bytes if token.special => [b"\xff", bytes].concat(),
        [TokTrie::SPECIAL_TOKEN_MARKER, ..] => Vec::new(), // half a byte token: no text holds it either
        bytes => bytes.to_vec(),
    }
}

fn top_level(kind: GrammarKind, text: &str) -> Result<TopLevelGrammar> {
    let json = |text| {
        serde_json::from_str::<Value>(text)
            .map_err(|error| TextError::input(format!("not JSON: {error}"), "send valid JSON"))
    };
    match kind {
        GrammarKind::Regex => Ok(TopLevelGrammar::from_regex(text)),
        GrammarKind::Lark => Ok(TopLevelGrammar::from_lark(text.to_string())),
        GrammarKind::Choice => Ok(TopLevelGrammar::from_regex(&choice_regex(json(text)?)?)),
        GrammarKind::JsonSchema => {
            let mut schema = json(text)?;
            match &mut schema {
                Value::Object(fields) => {
                    // The compiler's own options; a client's could switch checks off.
                    let options = json!({"whitespace_flexible": true, "whitespace_pattern": JSON_WHITESPACE});
                    fields.insert("x-guidance".to_string(), options);
                }
                Value::Bool(_) => {}
                _ => return Err(TextError::input("a schema must be an object or a boolean", FIX_GRAMMAR)),
            }
            Ok(TopLevelGrammar::from_json_schema(schema))
        }
    }
}

fn choice_regex(choices: Value) -> Result<String> {
    let refuse =
        || TextError::input("choices must be an array of at least one text, none empty", FIX_GRAMMAR);
    let choices = choices.as_array().filter(|choices| !choices.is_empty()).ok_or_else(refuse)?;
    let mut regex = String::new();
    for choice in choices {
        let choice = choice.as_str().filter(|choice| !choice.is_empty()).ok_or_else(refuse)?;
        regex.push(if regex.is_empty() { '(' } else { '|' });
        for c in choice.chars() {
            match c {
                c if c.is_ascii() && !c.is_ascii_alphanumeric() => {
                    regex.push_str(&format!("\\x{:02X}", c as u32));
                }
                c => regex.push(c),
            }
        }
    }
    Ok(regex + ")")
}

fn refuse(kind: GrammarKind, reason: &str) -> TextError {
    let what = match kind {
        GrammarKind::JsonSchema => "the JSON schema",
        GrammarKind::Regex => "the regular expression",
        GrammarKind::Choice => "the list of choices",
        GrammarKind::Lark => "the grammar",
    };
    TextError::input(format!("{what} cannot be used: {reason}"), FIX_GRAMMAR)
}

fn too_complex(error: anyhow::Error) -> TextError {
    TextError::input(format!("the grammar cannot be followed any further: {error:#}"), "simplify it")
}
