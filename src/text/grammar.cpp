#include "text/grammar.h"

#include <algorithm>
#include <vector>

#include "text/rust_call.h"

namespace mlxs {
namespace {

constexpr std::size_t kKept = 32;  // compiled grammars; one takes some 100 KB

}  // namespace

void FreeMatcher::operator()(mlxs_matcher* matcher) const { mlxs_matcher_free(matcher); }
void GrammarEngine::Free::operator()(mlxs_grammar_engine* engine) const { mlxs_grammar_engine_free(engine); }

MatcherHandle SpareMatchers::take(std::uint64_t grammar) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(spares_.rbegin(), spares_.rend(), grammar, &Spare::grammar);
  if (found == spares_.rend()) return nullptr;
  MatcherHandle taken = std::move(found->matcher);
  spares_.erase(std::next(found).base());
  return taken;
}

void SpareMatchers::give(std::uint64_t grammar, MatcherHandle used) {
  if (mlxs_matcher_restart(used.get()) == 0) return;
  MatcherHandle oldest;  // freed without the lock
  const std::lock_guard lock(mutex_);
  if (spares_.size() == kMost) {
    oldest = std::move(spares_.front().matcher);
    spares_.erase(spares_.begin());
  }
  spares_.push_back({grammar, std::move(used)});
}

GrammarMatcher::~GrammarMatcher() { spares_->give(grammar_, std::move(handle_)); }

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

GrammarEngine::GrammarEngine(const Tokenizer& tokenizer) {
  const std::vector<std::uint32_t> ends(tokenizer.end_tokens().begin(), tokenizer.end_tokens().end());
  mlxs_grammar_engine* handle = nullptr;
  call_rust([&](mlxs_text_error* error) {
    return mlxs_grammar_engine_new(tokenizer.handle(), ends.data(), ends.size(), &handle, error);
  });
  handle_.reset(handle);
}

std::optional<GrammarEngine::Compiled> GrammarEngine::known(GrammarKind kind, std::string_view text) const {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find_if(
      recent_, [&](const Recent& entry) { return entry.kind == kind && entry.text == text; });
  if (found == recent_.end()) return std::nullopt;
  recent_.splice(recent_.begin(), recent_, found);
  return found->compiled;
}

GrammarEngine::Compiled GrammarEngine::compile(GrammarKind kind, std::string_view text) const {
  // Compiled outside the lock: a large schema takes a while, and two at once are no harm.
  mlxs_matcher* handle = nullptr;
  call_rust([&](mlxs_text_error* error) {
    return mlxs_matcher_new(handle_.get(), static_cast<std::int32_t>(kind), to_rust(text), &handle, error);
  });
  std::shared_ptr<const mlxs_matcher> fresh(handle, FreeMatcher{});
  const std::lock_guard lock(mutex_);
  recent_.push_front({kind, std::string(text), {++last_id_, std::move(fresh)}});
  if (recent_.size() > kKept) recent_.pop_back();
  return recent_.front().compiled;
}

std::unique_ptr<GrammarMatcher> GrammarEngine::matcher(GrammarKind kind, std::string_view text) const {
  std::optional<Compiled> grammar = known(kind, text);
  if (!grammar) grammar = compile(kind, text);
  MatcherHandle handle = spares_->take(grammar->id);
  if (!handle) handle.reset(mlxs_matcher_another(grammar->fresh.get()));
  if (!handle) throw Error(ErrorCode::kInternal, "a grammar could not be copied");
  return std::make_unique<GrammarMatcher>(std::move(handle), grammar->id, spares_);
}

}  // namespace mlxs
