#include "text/grammar.h"

#include <algorithm>
#include <vector>

#include "text/rust_call.h"

namespace mlxs {
namespace {

constexpr std::size_t kKept = 32;  // compiled grammars; one takes some 100 KB

}  // namespace

void GrammarMatcher::Free::operator()(mlxs_matcher* matcher) const { mlxs_matcher_free(matcher); }
void GrammarEngine::Free::operator()(mlxs_grammar_engine* engine) const { mlxs_grammar_engine_free(engine); }

void GrammarMatcher::mask(std::span<std::uint32_t> allowed) {
  call_rust([&](mlxs_text_error* error) {
    return mlxs_matcher_mask(handle_.get(), allowed.data(), allowed.size(), error);
  });
}

bool GrammarMatcher::allows(TokenId token) {
  std::int32_t allowed = 0;
  call_rust(
      [&](mlxs_text_error* error) { return mlxs_matcher_allows(handle_.get(), token, &allowed, error); });
  return allowed != 0;
}

bool GrammarMatcher::commit(TokenId token) {
  std::int32_t ended = 0;
  call_rust([&](mlxs_text_error* error) { return mlxs_matcher_commit(handle_.get(), token, &ended, error); });
  return ended != 0;
}

std::unique_ptr<GrammarMatcher> GrammarMatcher::copy() const {
  mlxs_matcher* copied = mlxs_matcher_copy(handle_.get());
  if (copied == nullptr) throw Error(ErrorCode::kInternal, "a grammar could not be copied");
  return std::make_unique<GrammarMatcher>(copied);
}

GrammarEngine::GrammarEngine(const Tokenizer& tokenizer) {
  const std::vector<std::uint32_t> ends(tokenizer.end_tokens().begin(), tokenizer.end_tokens().end());
  mlxs_grammar_engine* handle = nullptr;
  call_rust([&](mlxs_text_error* error) {
    return mlxs_grammar_engine_new(tokenizer.handle(), ends.data(), ends.size(), &handle, error);
  });
  handle_.reset(handle);
}

std::unique_ptr<GrammarMatcher> GrammarEngine::matcher(GrammarKind kind, std::string_view text) const {
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::ranges::find_if(
        recent_, [&](const Compiled& entry) { return entry.kind == kind && entry.text == text; });
    if (found != recent_.end()) {
      recent_.splice(recent_.begin(), recent_, found);
      return found->fresh->copy();
    }
  }
  // Compiled outside the lock: a large schema takes a while, and two at once are no harm.
  mlxs_matcher* handle = nullptr;
  call_rust([&](mlxs_text_error* error) {
    return mlxs_matcher_new(handle_.get(), static_cast<std::int32_t>(kind), to_rust(text), &handle, error);
  });
  auto fresh = std::make_unique<GrammarMatcher>(handle);
  auto result = fresh->copy();
  const std::lock_guard lock(mutex_);
  recent_.push_front({kind, std::string(text), std::move(fresh)});
  if (recent_.size() > kKept) recent_.pop_back();
  return result;
}

}  // namespace mlxs
