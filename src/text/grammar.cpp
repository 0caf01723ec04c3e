#include "text/grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <list>
#include <mutex>
#include <vector>

#include "text/rust_call.h"

namespace mlxs {
namespace {

std::int32_t to_rust(GrammarKind kind) {
  switch (kind) {
    case GrammarKind::kJsonSchema:
      return MLXS_GRAMMAR_JSON_SCHEMA;
    case GrammarKind::kRegex:
      return MLXS_GRAMMAR_REGEX;
    case GrammarKind::kChoice:
      return MLXS_GRAMMAR_CHOICE;
    case GrammarKind::kLark:
      return MLXS_GRAMMAR_LARK;
  }
  return -1;
}

}  // namespace

// ---------------------------------------------------------------- matcher

struct GrammarMatcher::Impl {
  mlxs_matcher* handle = nullptr;
  std::vector<std::uint32_t> words;
  bool current = false;  // words belong to this state

  explicit Impl(std::int32_t vocabulary) : words((static_cast<std::size_t>(vocabulary) + 31) / 32) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { mlxs_matcher_free(handle); }
};

GrammarMatcher::GrammarMatcher(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GrammarMatcher::~GrammarMatcher() = default;

std::span<const std::uint32_t> GrammarMatcher::mask() {
  if (!impl_->current) {
    call_rust([&](mlxs_text_error* error) {
      return mlxs_matcher_mask(impl_->handle, impl_->words.data(), impl_->words.size(), error);
    });
    impl_->current = true;
  }
  return impl_->words;
}

void GrammarMatcher::commit(TokenId token) {
  std::int32_t state = 0;
  impl_->current = false;
  call_rust([&](mlxs_text_error* error) { return mlxs_matcher_commit(impl_->handle, token, &state, error); });
  accepting_ = (state & MLXS_MATCHER_ACCEPTING) != 0;
  stopped_ = (state & MLXS_MATCHER_STOPPED) != 0;
}

// ---------------------------------------------------------------- grammar

struct Grammar::Impl {
  mlxs_grammar* handle = nullptr;
  std::int32_t vocabulary = 0;

  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { mlxs_grammar_free(handle); }
};

Grammar::Grammar(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Grammar::~Grammar() = default;

std::unique_ptr<GrammarMatcher> Grammar::matcher() const {
  auto impl = std::make_unique<GrammarMatcher::Impl>(impl_->vocabulary);
  call_rust([&](mlxs_text_error* error) { return mlxs_matcher_new(impl_->handle, &impl->handle, error); });
  return std::unique_ptr<GrammarMatcher>(new GrammarMatcher(std::move(impl)));
}

// ---------------------------------------------------------------- compiler

struct GrammarCompiler::Impl {
  struct Kept {
    GrammarKind kind;
    std::string text;
    std::shared_ptr<const Grammar> grammar;
  };

  mlxs_grammar_compiler* handle = nullptr;
  std::int32_t vocabulary = 0;
  std::mutex mutex;      // guards kept; not held while something compiles
  std::list<Kept> kept;  // the last used first

  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { mlxs_grammar_compiler_free(handle); }

  std::shared_ptr<const Grammar> find(GrammarKind kind, std::string_view text) {
    const std::lock_guard lock(mutex);
    const auto found =
        std::ranges::find_if(kept, [&](const Kept& k) { return k.kind == kind && k.text == text; });
    if (found == kept.end()) return nullptr;
    kept.splice(kept.begin(), kept, found);
    return found->grammar;
  }

  void keep(GrammarKind kind, std::string_view text, std::shared_ptr<const Grammar> grammar) {
    const std::lock_guard lock(mutex);
    kept.push_front({kind, std::string(text), std::move(grammar)});
    if (kept.size() > kKept) kept.pop_back();
  }
};

GrammarCompiler::GrammarCompiler(const Tokenizer& tokenizer) : impl_(std::make_unique<Impl>()) {
  impl_->vocabulary = tokenizer.vocabulary_size();
  const auto count = static_cast<std::size_t>(impl_->vocabulary);
  std::vector<mlxs_str> tokens(count);
  std::vector<std::uint8_t> special(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto id = static_cast<TokenId>(i);
    const std::string_view bytes = tokenizer.token_bytes(id);
    tokens[i] = {bytes.data(), bytes.size()};
    special[i] = tokenizer.is_special(id) || tokenizer.is_end(id);
  }
  const std::span<const TokenId> ends = tokenizer.end_tokens();
  call_rust([&](mlxs_text_error* error) {
    return mlxs_grammar_compiler_new(tokens.data(), special.data(), count, ends.data(), ends.size(),
                                     &impl_->handle, error);
  });
}

GrammarCompiler::~GrammarCompiler() = default;

std::shared_ptr<const Grammar> GrammarCompiler::compile(GrammarKind kind, std::string_view text) {
  if (text.size() > kMaxTextBytes) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("the grammar has {} bytes", text.size()),
                fmt::format("at most {} bytes are allowed", kMaxTextBytes));
  }
  if (auto found = impl_->find(kind, text)) return found;
  auto impl = std::make_unique<Grammar::Impl>();
  impl->vocabulary = impl_->vocabulary;
  call_rust([&](mlxs_text_error* error) {
    return mlxs_grammar_compile(impl_->handle, to_rust(kind), mlxs_str{text.data(), text.size()},
                                &impl->handle, error);
  });
  const std::shared_ptr<const Grammar> grammar(new Grammar(std::move(impl)));
  impl_->keep(kind, text, grammar);
  return grammar;
}

}  // namespace mlxs
