/* The C border of the Rust half of src/text: tokenizers, chat templates, grammars.
 * Handles are immutable (matchers are not) and may be used from any thread; each is freed once, after its
 * last use.
 * A call that can fail returns 0, or a code and fills the error; a Rust panic becomes MLXS_TEXT_PANIC. */
#ifndef MLXS_TEXT_H
#define MLXS_TEXT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes that the caller owns; not zero-terminated, UTF-8 where text is meant. */
typedef struct {
  const char* data;
  size_t size;
} mlxs_str;

/* Bytes that Rust allocated: free with mlxs_text_free. */
typedef struct {
  uint8_t* data;
  size_t size;
  size_t capacity;
} mlxs_text_bytes;

/* Token ids that Rust allocated: free with mlxs_text_free_ids. */
typedef struct {
  int32_t* data;
  size_t size;
  size_t capacity;
} mlxs_text_ids;

enum {
  MLXS_TEXT_OK = 0,
  MLXS_TEXT_BAD_MODEL = 1, /* a vocabulary, tokenizer.json or template that cannot be used */
  MLXS_TEXT_BAD_INPUT = 2, /* what was to be rendered is at fault */
  MLXS_TEXT_PANIC = 3      /* a bug */
};

typedef struct {
  mlxs_text_bytes message;
  mlxs_text_bytes hint;
} mlxs_text_error;

void mlxs_text_free(mlxs_text_bytes bytes);
void mlxs_text_free_ids(mlxs_text_ids ids);

/* ---- tokenizer ---- */

typedef struct mlxs_tokenizer mlxs_tokenizer;

enum { MLXS_TOKENIZER_BYTE_LEVEL = 0, MLXS_TOKENIZER_SENTENCEPIECE = 1 };

/* What a GGUF says of its tokenizer. Nothing is kept after the call. Ids: -1 is none. Flags: 0, 1, or -1 for
 * what the kind of tokenizer does by default. Arrays other than tokens may be empty. */
typedef struct {
  int32_t kind;
  mlxs_str pre;
  const mlxs_str* tokens;
  size_t num_tokens;
  const int64_t* token_types;
  size_t num_token_types;
  const double* scores;
  size_t num_scores;
  const mlxs_str* merges;
  size_t num_merges;
  int8_t add_bos;
  int8_t add_eos;
  int8_t add_space_prefix;
  int32_t bos;
  int32_t eos;
  int32_t eot;
  int32_t unknown;
} mlxs_tokenizer_spec;

int32_t mlxs_tokenizer_from_spec(const mlxs_tokenizer_spec* spec, mlxs_tokenizer** out,
                                 mlxs_text_error* error);
/* A Hugging Face tokenizer.json. */
int32_t mlxs_tokenizer_from_json(mlxs_str json, int32_t bos, int32_t eos, mlxs_tokenizer** out,
                                 mlxs_text_error* error);
void mlxs_tokenizer_free(mlxs_tokenizer* tokenizer);

enum {
  MLXS_TOKEN_SPECIAL = 1, /* not shown to users */
  MLXS_TOKEN_END = 2,     /* ends an answer */
  MLXS_TOKEN_ADDED = 4    /* found in the text before anything else is split */
};

/* Views into the tokenizer, valid as long as it is. Token i stands for bytes[offsets[i] .. offsets[i + 1]).
 */
typedef struct {
  const uint8_t* bytes;
  const uint32_t* offsets; /* num_tokens + 1 */
  const uint8_t* flags;
  size_t num_tokens;
  int32_t bos;
  int32_t eos;
  int32_t space_prefix; /* 1: encoding puts a space before the text, decoding takes it off */
} mlxs_token_table;

mlxs_token_table mlxs_tokenizer_table(const mlxs_tokenizer* tokenizer);
/* The id of an exact vocabulary entry, or -1. */
int32_t mlxs_tokenizer_find(const mlxs_tokenizer* tokenizer, mlxs_str token);
/* Invalid UTF-8 in text is read as U+FFFD. */
int32_t mlxs_tokenizer_encode(const mlxs_tokenizer* tokenizer, mlxs_str text, int32_t add_special,
                              int32_t parse_special, mlxs_text_ids* out, mlxs_text_error* error);

/* ---- chat template ---- */

typedef struct mlxs_template mlxs_template;

int32_t mlxs_template_new(mlxs_str source, mlxs_str bos_token, mlxs_str eos_token, mlxs_template** out,
                          mlxs_text_error* error);
void mlxs_template_free(mlxs_template* chat_template);
/* context: a JSON object. unix_seconds: the time that strftime_now shows, in the local time zone. */
int32_t mlxs_template_render(const mlxs_template* chat_template, mlxs_str context, int64_t unix_seconds,
                             mlxs_text_bytes* out, mlxs_text_error* error);

/* ---- grammar ---- */

typedef struct mlxs_grammar_compiler mlxs_grammar_compiler;
typedef struct mlxs_grammar mlxs_grammar;
/* One answer's place in its grammar: one thread at a time, independent of the grammar it came from. */
typedef struct mlxs_matcher mlxs_matcher;

/* tokens[i]: the bytes that token i stands for; special[i]: 1 if it is a control token. ends: the tokens that
 * end an answer. Nothing is kept after the call. */
int32_t mlxs_grammar_compiler_new(const mlxs_str* tokens, const uint8_t* special, size_t num_tokens,
                                  const int32_t* ends, size_t num_ends, mlxs_grammar_compiler** out,
                                  mlxs_text_error* error);
void mlxs_grammar_compiler_free(mlxs_grammar_compiler* compiler);

enum {
  MLXS_GRAMMAR_JSON_SCHEMA = 0,
  MLXS_GRAMMAR_REGEX = 1,
  MLXS_GRAMMAR_CHOICE = 2, /* a JSON array of strings */
  MLXS_GRAMMAR_LARK = 3
};
/* The error's message names what in the text cannot be used. */
int32_t mlxs_grammar_compile(const mlxs_grammar_compiler* compiler, int32_t kind, mlxs_str text,
                             mlxs_grammar** out, mlxs_text_error* error);
void mlxs_grammar_free(mlxs_grammar* grammar);

int32_t mlxs_matcher_new(const mlxs_grammar* grammar, mlxs_matcher** out, mlxs_text_error* error);
void mlxs_matcher_free(mlxs_matcher* matcher);
/* Bit i % 32 of words[i / 32]: token i can come next. Bits behind the vocabulary are 0. */
int32_t mlxs_matcher_mask(mlxs_matcher* matcher, uint32_t* words, size_t num_words, mlxs_text_error* error);

enum {
  MLXS_MATCHER_ACCEPTING = 1, /* the answer could end here */
  MLXS_MATCHER_STOPPED = 2    /* nothing can follow */
};
/* Takes a token that the mask allowed. */
int32_t mlxs_matcher_commit(mlxs_matcher* matcher, int32_t token, int32_t* state, mlxs_text_error* error);

#ifdef __cplusplus
}
#endif

#endif
