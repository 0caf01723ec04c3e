//! The Rust half of mlx-serving's `src/text`: tokenizers and chat templates. C++ reaches it through
//! `include/mlxs_text.h` (module `ffi`), the only place with unsafe code.

pub mod added_tokens;
pub mod bpe;
pub mod byte_level;
pub mod chat_template;
pub mod error;
pub mod ffi;
pub mod grammar;
pub mod hugging_face;
pub mod pre_tokenizer;
pub mod python;
pub mod sentencepiece;
pub mod tokenizer;
pub mod vocabulary;
