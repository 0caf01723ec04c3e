//! The Rust half of mlx-serving's `src/text`: tokenizers, chat templates and grammars. C++ reaches it through
//! `include/mlxs_text.h` (modules `ffi`, `ffi_grammar`), the only places with unsafe code.

pub mod added_tokens;
pub mod bpe;
pub mod byte_level;
pub mod chat_template;
pub mod error;
pub mod ffi;
pub mod ffi_grammar;
pub mod grammar;
pub mod hugging_face;
pub mod pre_tokenizer;
pub mod python;
pub mod sentencepiece;
pub mod tokenizer;
pub mod vocabulary;
