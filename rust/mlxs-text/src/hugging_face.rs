//! tokenizer.json files, through the `tokenizers` crate. Encoding goes there; decoding uses our own table, but for
//! kinds whose tokens do not simply stand one after the other (WordPiece).

use crate::error::{Result, TextError};
use crate::vocabulary::{Spelling, TokenType, Vocabulary, byte_token};
use std::sync::OnceLock;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::{DecoderWrapper, Tokenizer};

/// Immutable; used by all threads at once.
pub struct HuggingFace {
    tokenizer: Tokenizer,
    /// The same with control tokens read as plain characters; made when first asked for.
    plain: OnceLock<Tokenizer>,
    /// A text is more than its tokens' bytes in a row: decode() tells.
    pub joins: bool,
}

impl HuggingFace {
    /// The engine, the vocabulary, and whether encoding puts a space before the text.
    pub fn new(json: &[u8]) -> Result<(Self, Vocabulary, bool)> {
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| {
            TextError::model(format!("tokenizer.json: {error}"), "download the model again")
        })?;
        // Prompts are never cut or filled up: the files of some models ask for both.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| TextError::model(format!("tokenizer.json: {error}"), ""))?;
        let (spelling, space_prefix) = spelling_of(tokenizer.get_decoder());
        let joins = matches!(tokenizer.get_decoder(), Some(DecoderWrapper::WordPiece(_)));
        let vocabulary = vocabulary_of(&tokenizer, spelling)?;
        let engine = Self { tokenizer, plain: OnceLock::new(), joins };
        Ok((engine, vocabulary, space_prefix))
    }

    /// Appends the ids of a text.
    pub fn encode(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let tokenizer = if parse_special {
            &self.tokenizer
        } else {
            self.plain.get_or_init(|| {
                let mut plain = self.tokenizer.clone();
                plain.set_encode_special_tokens(true);
                plain
            })
        };
        let encoding = tokenizer
            .encode_fast(text, add_special)
            .map_err(|error| TextError::input(format!("the text cannot be tokenized: {error}"), ""))?;
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    /// The text of ids as the file's own decoder joins them, control tokens too if asked.
    pub fn decode(&self, ids: &[u32], include_special: bool) -> Result<String> {
        let decoded = self.tokenizer.decode(ids, !include_special);
        decoded.map_err(|error| TextError::input(format!("the tokens make no text: {error}"), ""))
    }
}

fn vocabulary_of(tokenizer: &Tokenizer, spelling: Spelling) -> Result<Vocabulary> {
    let ids = tokenizer.get_vocab(true);
    let count = ids.values().max().map_or(0, |&id| id as usize + 1);
    if count == 0 || count > 1 << 24 {
        return Err(TextError::model(
            format!("tokenizer.json numbers its tokens up to {count}"),
            "download the model again",
        ));
    }
    let mut tokens = vec![""; count];
    let mut types = vec![TokenType::Unused; count]; // numbers without a token
    for (token, &id) in &ids {
        tokens[id as usize] = token;
        types[id as usize] = match spelling {
            Spelling::SentencePiece if byte_token(token).is_some() => TokenType::Byte,
            _ => TokenType::Normal,
        };
    }
    for (id, token) in tokenizer.get_added_tokens_decoder() {
        types[id as usize] = match token.special {
            true => TokenType::Control,
            false => TokenType::UserDefined,
        };
    }
    Vocabulary::new(&tokens, &types, spelling)
}

/// How tokens are written, and whether decoding takes a leading space off.
fn spelling_of(decoder: Option<&DecoderWrapper>) -> (Spelling, bool) {
    match decoder {
        Some(DecoderWrapper::ByteLevel(_)) => (Spelling::ByteLevel, false),
        Some(DecoderWrapper::Metaspace(space)) => {
            (Spelling::SentencePiece, space.prepend_scheme != PrependScheme::Never)
        }
        Some(DecoderWrapper::Sequence(parts)) => {
            let parts = parts.get_decoders().iter().map(|part| match part {
                DecoderWrapper::Strip(strip) => (Spelling::Plain, strip.content == ' ' && strip.start > 0),
                DecoderWrapper::Replace(_) | DecoderWrapper::ByteFallback(_) => {
                    (Spelling::SentencePiece, false)
                }
                part => spelling_of(Some(part)),
            });
            parts.fold((Spelling::Plain, false), |(spelling, strips), (part, strip)| {
                let spelling = if part == Spelling::Plain { spelling } else { part };
                (spelling, strips || strip)
            })
        }
        _ => (Spelling::Plain, false),
    }
}
