//! A model's tokenizer: from what a GGUF says of it, or from a tokenizer.json.

use crate::added_tokens::{AddedTokens, Fragment};
use crate::bpe::{ByteLevelBpe, Scratch};
use crate::error::{Result, TextError};
use crate::hugging_face::HuggingFace;
use crate::pre_tokenizer::PreTokenizer;
use crate::sentencepiece::SentencePiece;
use crate::vocabulary::{Spelling, TokenType, Vocabulary};

/// tokenizer.ggml.model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// "gpt2"
    ByteLevelBpe,
    /// "llama"
    SentencePieceBpe,
}

/// tokenizer.ggml.*. `None`: the file does not say.
pub struct Spec<'a> {
    /// Which algorithm.
    pub kind: Kind,
    /// The name of the pre-tokenizer.
    pub pre: &'a str,
    /// One text a token.
    pub tokens: Vec<&'a str>,
    /// One a token, or empty: all normal.
    pub token_types: &'a [i64],
    /// One a token; SentencePiece only.
    pub scores: &'a [f64],
    /// "left right"; byte-level only.
    pub merges: Vec<&'a [u8]>,
    /// Whether a text starts with BOS.
    pub add_bos: Option<bool>,
    /// Whether a text ends with EOS.
    pub add_eos: Option<bool>,
    /// Whether a text starts as if a space stood before it; SentencePiece only.
    pub add_space_prefix: Option<bool>,
    /// Begin of text.
    pub bos: Option<u32>,
    /// End of text.
    pub eos: Option<u32>,
    /// End of turn.
    pub eot: Option<u32>,
    /// Stands for what the vocabulary lacks.
    pub unknown: Option<u32>,
}

enum Model {
    ByteLevel(Box<ByteLevelBpe>, AddedTokens),
    SentencePiece(Box<SentencePiece>, AddedTokens),
    HuggingFace(Box<HuggingFace>),
}

/// Immutable; used by all threads at once.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    model: Model,
    first: Option<u32>, // added before a text
    last: Option<u32>,  // added after it
    /// Begin of text.
    pub bos: Option<u32>,
    /// End of text.
    pub eos: Option<u32>,
    /// Encoding puts a space before a text (and after added tokens), decoding takes it off.
    pub space_prefix: bool,
}

impl Tokenizer {
    /// From a GGUF's metadata.
    pub fn from_spec(spec: Spec) -> Result<Self> {
        let types = token_types(&spec)?;
        match spec.kind {
            Kind::ByteLevelBpe => {
                let vocabulary = vocabulary(&spec, &types, Spelling::ByteLevel, (spec.bos, spec.eos))?;
                let pre_tokenizer = PreTokenizer::new(spec.pre)?;
                let add_bos = pre_tokenizer.add_bos && spec.bos.is_some();
                let added = AddedTokens::new(&vocabulary)?;
                let bpe = ByteLevelBpe::new(&vocabulary, &spec.merges, pre_tokenizer)?;
                let model = Model::ByteLevel(Box::new(bpe), added);
                Self::finish(&spec, vocabulary, model, (spec.bos, spec.eos), add_bos, false)
            }
            Kind::SentencePieceBpe => {
                expect_one_a_token("scores", spec.scores.len(), spec.tokens.len())?;
                // Old files leave out what every SentencePiece model of their time had.
                let known = |id: u32| (spec.tokens.len() > 2).then_some(id);
                let (bos, eos) = (spec.bos.or(known(1)), spec.eos.or(known(2)));
                let vocabulary = vocabulary(&spec, &types, Spelling::SentencePiece, (bos, eos))?;
                let added = AddedTokens::new(&vocabulary)?;
                let unknown = spec.unknown.or(known(0));
                let pieces = SentencePiece::new(&vocabulary, spec.scores, &types, unknown)?;
                let model = Model::SentencePiece(Box::new(pieces), added);
                Self::finish(&spec, vocabulary, model, (bos, eos), true, true)
            }
        }
    }

    /// From a tokenizer.json.
    pub fn from_json(json: &[u8], bos: Option<u32>, eos: Option<u32>) -> Result<Self> {
        let (engine, mut vocabulary, space_prefix) = HuggingFace::new(json)?;
        check_id("bos_token_id", bos, vocabulary.len())?;
        check_id("eos_token_id", eos, vocabulary.len())?;
        vocabulary.mark_known_ends();
        if let Some(id) = eos {
            vocabulary.mark_end(id);
        }
        Ok(Self {
            vocabulary,
            model: Model::HuggingFace(Box::new(engine)),
            first: None, // the file's own post-processor does it
            last: None,
            bos,
            eos,
            space_prefix,
        })
    }

    fn finish(
        spec: &Spec,
        vocabulary: Vocabulary,
        model: Model,
        (bos, eos): (Option<u32>, Option<u32>),
        add_bos: bool,
        space_prefix: bool,
    ) -> Result<Self> {
        let added = |wanted: bool, id: Option<u32>, name: &str| match (wanted, id) {
            (false, _) => Ok(None),
            (true, Some(id)) => Ok(Some(id)),
            (true, None) => Err(TextError::model(
                format!("tokenizer.ggml.add_{name}_token is true, but there is no {name}_token_id"),
                "convert the model again",
            )),
        };
        Ok(Self {
            first: added(spec.add_bos.unwrap_or(add_bos), bos, "bos")?,
            last: added(spec.add_eos.unwrap_or(false), eos, "eos")?,
            vocabulary,
            model,
            bos,
            eos,
            space_prefix: space_prefix && spec.add_space_prefix.unwrap_or(true),
        })
    }

    /// The tokens.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// Whether the table does not tell a text from its tokens: decode() does.
    pub fn joins(&self) -> bool {
        matches!(&self.model, Model::HuggingFace(engine) if engine.joins)
    }

    /// The text of ids, where joins().
    pub fn decode(&self, ids: &[u32], include_special: bool) -> Result<String> {
        match &self.model {
            Model::HuggingFace(engine) => engine.decode(ids, include_special),
            _ => Err(TextError::input("this tokenizer's tokens are their own text", "")),
        }
    }

    /// `add_special`: with BOS and EOS as the model asks. `parse_special`: control tokens written out in the text
    /// become these tokens; else they are plain characters.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        if add_special {
            ids.extend(self.first);
        }
        match &self.model {
            Model::ByteLevel(bpe, added) => {
                let mut scratch = Scratch::default();
                added.split(text, parse_special, |fragment| match fragment {
                    Fragment::Text(text) => bpe.encode(&self.vocabulary, text, &mut scratch, &mut ids),
                    Fragment::Token(id) => ids.push(id),
                });
            }
            Model::SentencePiece(pieces, added) => {
                let mut prefix = self.space_prefix;
                added.split(text, parse_special, |fragment| match fragment {
                    Fragment::Text(text) => {
                        pieces.encode(&self.vocabulary, text, prefix, &mut ids);
                        prefix = false;
                    }
                    Fragment::Token(id) => {
                        ids.push(id);
                        prefix = self.space_prefix;
                    }
                });
            }
            Model::HuggingFace(engine) => engine.encode(text, add_special, parse_special, &mut ids)?,
        }
        if add_special {
            ids.extend(self.last);
        }
        Ok(ids)
    }
}

fn vocabulary(
    spec: &Spec,
    types: &[TokenType],
    spelling: Spelling,
    (bos, eos): (Option<u32>, Option<u32>),
) -> Result<Vocabulary> {
    let ids = [
        ("bos_token_id", spec.bos),
        ("eos_token_id", spec.eos),
        ("eot_token_id", spec.eot),
        ("unknown_token_id", spec.unknown),
    ];
    for (name, id) in ids {
        check_id(name, id, spec.tokens.len())?;
    }
    let mut vocabulary = Vocabulary::new(&spec.tokens, types, spelling)?;
    vocabulary.mark_known_ends();
    if let Some(id) = bos {
        vocabulary.mark_control(id); // old files type it as normal
    }
    for id in [eos, spec.eot].into_iter().flatten() {
        vocabulary.mark_end(id);
    }
    Ok(vocabulary)
}

fn token_types(spec: &Spec) -> Result<Vec<TokenType>> {
    let count = spec.tokens.len();
    if count == 0 || count > i32::MAX as usize {
        return Err(TextError::model(
            format!("tokenizer.ggml.tokens has {count} entries"),
            "the file holds no usable tokenizer: convert the model again",
        ));
    }
    if spec.token_types.is_empty() {
        return Ok(vec![TokenType::Normal; count]);
    }
    expect_one_a_token("token_type", spec.token_types.len(), count)?;
    let types = spec.token_types.iter().enumerate();
    types
        .map(|(id, &number)| {
            TokenType::from_number(number).ok_or_else(|| {
                TextError::model(
                    format!("tokenizer.ggml.token_type[{id}] = {number} is not a type"),
                    "types are 1 to 6: the vocabulary is damaged, convert the model again",
                )
            })
        })
        .collect()
}

fn expect_one_a_token(name: &str, entries: usize, tokens: usize) -> Result<()> {
    if entries == tokens {
        return Ok(());
    }
    Err(TextError::model(
        format!("tokenizer.ggml.{name} has {entries} entries for {tokens} tokens"),
        "the vocabulary is damaged: convert the model again",
    ))
}

fn check_id(name: &str, id: Option<u32>, tokens: usize) -> Result<()> {
    match id {
        Some(id) if id as usize >= tokens => Err(TextError::model(
            format!("{name} = {id}, but there are {tokens} tokens"),
            "the vocabulary is damaged: convert the model again",
        )),
        _ => Ok(()),
    }
}
