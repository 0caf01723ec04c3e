/* The C border of the Rust half of src/text: tokenizers, chat templates and grammars.
 * Handles are immutable and may be used from any thread, but for matchers, which one thread uses at a time;
 * each is freed once, after its last use.
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
  int32_t joins;        /* 1: a text is more than its tokens' bytes in a row: mlxs_tokenizer_decode tells */
} mlxs_token_table;

mlxs_token_table mlxs_tokenizer_table(const mlxs_tokenizer* tokenizer);
/* The id of an exact vocabulary entry, or -1. */
int32_t mlxs_tokenizer_find(const mlxs_tokenizer* tokenizer, mlxs_str token);
/* Invalid UTF-8 in text is read as U+FFFD. */
int32_t mlxs_tokenizer_encode(const mlxs_tokenizer* tokenizer, mlxs_str text, int32_t add_special,
                              int32_t parse_special, mlxs_text_ids* out, mlxs_text_error* error);

/* The text of ids, control tokens too if asked; where `joins` only. */
int32_t mlxs_tokenizer_decode(const mlxs_tokenizer* tokenizer, const uint32_t* ids, size_t num_ids,
                              int32_t include_special, mlxs_text_bytes* out, mlxs_text_error* error);

/* ---- chat template ---- */

typedef struct mlxs_template mlxs_template;

int32_t mlxs_template_new(mlxs_str source, mlxs_str bos_token, mlxs_str eos_token, mlxs_template** out,
                          mlxs_text_error* error);
void mlxs_template_free(mlxs_template* chat_template);
/* context: a JSON object. unix_seconds: the time that strftime_now shows, in the local time zone. */
int32_t mlxs_template_render(const mlxs_template* chat_template, mlxs_str context, int64_t unix_seconds,
                             mlxs_text_bytes* out, mlxs_text_error* error);

/* ---- grammars ---- */

typedef struct mlxs_grammar_engine mlxs_grammar_engine;
typedef struct mlxs_matcher mlxs_matcher;

/* ends: the tokens that end an answer, at least one. The tokenizer may be freed before the engine. */
int32_t mlxs_grammar_engine_new(const mlxs_tokenizer* tokenizer, const uint32_t* ends, size_t num_ends,
                                mlxs_grammar_engine** out, mlxs_text_error* error);
void mlxs_grammar_engine_free(mlxs_grammar_engine* engine);

enum { MLXS_GRAMMAR_JSON_SCHEMA = 0, MLXS_GRAMMAR_REGEX = 1, MLXS_GRAMMAR_LARK = 2, MLXS_GRAMMAR_CHOICE = 3 };

int32_t mlxs_matcher_new(const mlxs_grammar_engine* engine, int32_t kind, mlxs_str text, mlxs_matcher** out,
                         mlxs_text_error* error);
/* Another answer of the same grammar, at its start: any thread. Null: a bug. */
mlxs_matcher* mlxs_matcher_another(const mlxs_matcher* matcher);
/* Back to the start, with what it learnt about its grammar. 0: it can only be freed. */
int32_t mlxs_matcher_restart(mlxs_matcher* matcher);
void mlxs_matcher_free(mlxs_matcher* matcher);
/* Bit i: token i may come next. All `words` are written. */
int32_t mlxs_matcher_mask(mlxs_matcher* matcher, uint32_t* bits, size_t words, mlxs_text_error* error);
/* allowed becomes 1 if the mask would have the token, else 0. */
int32_t mlxs_matcher_allows(mlxs_matcher* matcher, int32_t token, int32_t* allowed, mlxs_text_error* error);
/* ended becomes 1 if nothing can follow the token, else 0. */
int32_t mlxs_matcher_commit(mlxs_matcher* matcher, int32_t token, int32_t* ended, mlxs_text_error* error);

#ifdef __cplusplus
}
#endif

#endif
