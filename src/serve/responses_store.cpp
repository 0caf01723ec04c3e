#include "serve/responses_store.h"

#include <iterator>
#include <utility>

namespace mlxs {

void ResponsesStore::drop(Entries::iterator entry) {
  bytes_ -= entry->bytes;
  by_id_.erase(entry->response->id);
  entries_.erase(entry);
}

void ResponsesStore::trim() {
  const TimePoint oldest = clock_.now() - limits_.age;
  while (!entries_.empty() &&
         (entries_.size() > limits_.count || bytes_ > limits_.bytes || entries_.front().made < oldest))
    drop(entries_.begin());
}

void ResponsesStore::put(StoredResponse response) {
  const std::size_t bytes =
      response.json.size() + response.input_items.size() + response.messages.dump().size();
  const std::lock_guard lock(mutex_);
  auto shared = std::make_shared<const StoredResponse>(std::move(response));
  entries_.push_back({.response = shared, .bytes = bytes, .made = clock_.now()});
  by_id_[shared->id] = std::prev(entries_.end());
  bytes_ += bytes;
  trim();
}

std::shared_ptr<const StoredResponse> ResponsesStore::find(std::string_view id, std::string_view tenant) {
  const std::lock_guard lock(mutex_);
  trim();
  const auto found = by_id_.find(id);
  if (found == by_id_.end() || found->second->response->tenant != tenant) return nullptr;
  return found->second->response;
}

bool ResponsesStore::remove(std::string_view id, std::string_view tenant) {
  const std::lock_guard lock(mutex_);
  trim();
  const auto found = by_id_.find(id);
  if (found == by_id_.end() || found->second->response->tenant != tenant) return false;
  drop(found->second);
  return true;
}

std::size_t ResponsesStore::size() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

}  // namespace mlxs
