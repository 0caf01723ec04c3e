// The open connections: how many there are, and a way to reach each. Thread-safe; does not keep them alive.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "serve/connection.h"

namespace mlxs {

class ConnectionSet {
 public:
  void add(const std::shared_ptr<Connection>& connection);
  void remove(const Connection* connection);
  std::size_t size() const;
  void for_each(const std::function<void(Connection&)>& visit) const;
  // True: there are none any more.
  bool wait_empty(std::chrono::duration<double> timeout) const;

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable emptied_;
  std::unordered_map<const Connection*, std::weak_ptr<Connection>> connections_;
};

}  // namespace mlxs
