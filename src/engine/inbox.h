// How other threads talk to the engine thread: closures, pushed lock-free from any thread, run in order
// between steps. The engine thread parks on it when there is nothing to do. Owned jointly by the engine and
// its generators, so that a late cancel after dispose() is harmless. Closures must not throw.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>

namespace mlxs {

class Inbox {
 public:
  using Task = std::function<void()>;

  Inbox() = default;
  ~Inbox() { discard(head_.exchange(nullptr)); }
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;

  // Any thread. After close() the task is dropped and false comes back.
  bool post(Task task) {
    if (closed_.load(std::memory_order_acquire)) return false;
    Node* node = new Node{std::move(task), head_.load(std::memory_order_relaxed)};
    while (!head_.compare_exchange_weak(node->next, node, std::memory_order_release,
                                        std::memory_order_relaxed)) {
    }
    signal_.fetch_add(1, std::memory_order_release);
    signal_.notify_one();
    return true;
  }

  // Engine thread: runs everything that was posted, oldest first. True if there was anything.
  bool drain() {
    seen_ = signal_.load(std::memory_order_acquire);
    Node* newest = head_.exchange(nullptr, std::memory_order_acquire);
    if (newest == nullptr) return false;
    Node* oldest = nullptr;
    while (newest != nullptr) {  // the stack holds the newest first
      Node* next = newest->next;
      newest->next = oldest;
      oldest = newest;
      newest = next;
    }
    while (oldest != nullptr) {
      Node* next = oldest->next;
      oldest->task();
      delete oldest;
      oldest = next;
    }
    return true;
  }

  // Engine thread: sleeps until something was posted since the last drain().
  void wait() { signal_.wait(seen_, std::memory_order_acquire); }

  void close() { closed_.store(true, std::memory_order_release); }

 private:
  struct Node {
    Task task;
    Node* next;
  };
  static void discard(Node* node) {
    while (node != nullptr) {
      Node* next = node->next;
      delete node;
      node = next;
    }
  }

  std::atomic<Node*> head_{nullptr};
  std::atomic<std::uint32_t> signal_{0};
  std::uint32_t seen_ = 0;  // engine thread only
  std::atomic<bool> closed_{false};
};

}  // namespace mlxs
