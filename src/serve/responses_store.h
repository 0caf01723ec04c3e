// Responses that clients may read back or go on from: bounded in number, bytes and age; the oldest go first.
// Kept in memory only. Any thread; a response belongs to the tenant who made it, others do not find it.
#pragma once

#include <chrono>
#include <cstddef>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "serve/tool_request.h"

namespace mlxs {

struct StoredResponse {
  std::string id;
  std::string tenant;
  std::string json;         // the response
  std::string input_items;  // a JSON array
  OrderedJson messages;     // the conversation with this answer, without instructions
};

struct ResponsesLimits {
  std::size_t count = 4096;
  std::size_t bytes = std::size_t{64} << 20;
  Duration age = std::chrono::hours(24);
};

class ResponsesStore {
 public:
  explicit ResponsesStore(const Clock& clock, ResponsesLimits limits = {}) : clock_(clock), limits_(limits) {}

  void put(StoredResponse response);
  // Null: there is none of that name, not any more, or it is somebody else's.
  std::shared_ptr<const StoredResponse> find(std::string_view id, std::string_view tenant);
  bool remove(std::string_view id, std::string_view tenant);  // false: as find
  std::size_t size() const;

 private:
  struct Entry {
    std::shared_ptr<const StoredResponse> response;
    std::size_t bytes;
    TimePoint made;
  };
  using Entries = std::list<Entry>;  // oldest first
  void drop(Entries::iterator entry);
  void trim();

  const Clock& clock_;
  ResponsesLimits limits_;
  mutable std::mutex mutex_;
  Entries entries_;
  std::map<std::string, Entries::iterator, std::less<>> by_id_;
  std::size_t bytes_ = 0;
};

}  // namespace mlxs
