#include "blocks.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

namespace mlxs::emulated {
namespace {

constexpr std::size_t kStack = std::size_t{96} << 10, kShared = std::size_t{228} << 10;

// x86-64: what a called function must preserve goes to the stack, whose pointer is all that is kept.
extern "C" void mlxs_switch_fiber(void** from, void* to);
asm(R"(
.text
.globl mlxs_switch_fiber
.type mlxs_switch_fiber, @function
mlxs_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

struct Fiber {
  std::unique_ptr<char[]> stack{new char[kStack]};
  void* at = nullptr;
  bool done = true;
  Thread thread;
};

std::vector<std::unique_ptr<Fiber>> fibers;
Fiber* current = nullptr;
void* scheduler = nullptr;
Block running;
int waiting = 0, alive = 0;  // of the block
unsigned barrier = 0;
const std::function<void()>* kernel_now = nullptr;
std::size_t grids = 0;

// The block's other barriers: those of a number, and those in its memory.
struct Meeting {
  int waiting = 0;
  unsigned turn = 0;
};
std::map<int, Meeting> meetings;
struct Phases {
  int arrivals = 0, missing = 0;
  int ended = 0;
  std::size_t expected = 0, coming = 0;
  std::vector<std::function<void()>> copies;
};
std::map<const void*, Phases> phases;
std::uint64_t progress = 0;

void yield() { mlxs_switch_fiber(&current->at, scheduler); }

void body() {
  (*kernel_now)();
  current->done = true;
  --alive;
  --current->thread.warp->alive;
  ++progress;
  yield();
  std::abort();
}

void prepare(Fiber& fiber) {
  fiber.done = false;
  auto top = reinterpret_cast<std::uintptr_t>(fiber.stack.get() + kStack) & ~std::uintptr_t{15};
  auto* slots = reinterpret_cast<void**>(top) - 8;  // six registers, the entry, and an unused return address
  for (int i = 0; i < 6; ++i) slots[i] = nullptr;
  slots[6] = reinterpret_cast<void*>(&body);
  slots[7] = nullptr;
  fiber.at = slots;
}

char* shared_memory() {
  static char* memory = static_cast<char*>(std::aligned_alloc(1024, kShared));
  return memory;
}

// Which of a block's threads runs first must not matter.
bool backwards() {
  static const bool chosen = std::getenv("MLXS_EMULATED_BACKWARDS") != nullptr;
  return chosen;
}

}  // namespace

Thread& self() { return current->thread; }
const Block& block() { return running; }

void sync_block() {
  const unsigned mine = barrier;
  ++progress;
  if (++waiting >= alive) {
    waiting = 0;
    ++barrier;
    return;
  }
  while (barrier == mine) {
    yield();
    if (barrier == mine && waiting >= alive) {  // the others have left
      waiting = 0;
      ++barrier;
    }
  }
}

void arrive_some(int number, int threads) {
  Meeting& meeting = meetings[number];
  ++progress;
  if (++meeting.waiting < threads) return;
  meeting.waiting = 0;
  ++meeting.turn;
}

void sync_some(int number, int threads) {
  const Meeting& meeting = meetings[number];
  const unsigned mine = meeting.turn;
  arrive_some(number, threads);
  while (meeting.turn == mine) yield();
}

namespace {

Phases& phases_at(const void* at) {
  const auto found = phases.find(at);
  if (found == phases.end()) {
    std::fprintf(stderr, "a barrier that nobody began\n");
    std::abort();
  }
  return found->second;
}

void end_phase(Phases& own) {
  if (own.missing > 0 || own.expected != own.coming) return;
  for (const auto& copy : own.copies) copy();
  own.copies.clear();
  own.expected = own.coming = 0;
  own.missing = own.arrivals;
  ++own.ended;
  ++progress;
}

}  // namespace

void begin_barrier(const void* at, int arrivals) { phases[at] = {.arrivals = arrivals, .missing = arrivals}; }

void arrive_at(const void* at, std::size_t expected_bytes) {
  Phases& own = phases_at(at);
  if (own.missing == 0) {
    std::fprintf(stderr, "more arrivals than a barrier's phase has\n");
    std::abort();
  }
  --own.missing;
  own.expected += expected_bytes;
  ++progress;
  if (own.expected == 0) end_phase(own);
}

void copy_towards(const void* at, std::size_t bytes, std::function<void()> copy) {
  Phases& own = phases_at(at);
  own.coming += bytes;
  own.copies.push_back(std::move(copy));
  ++progress;
}

void wait_for(const void* at, int parity) {
  Phases& own = phases_at(at);
  while (own.ended % 2 == parity) {
    end_phase(own);
    if (own.ended % 2 == parity) yield();
  }
}

const std::array<std::array<std::uint64_t, 4>, kLanes>& exchange(const void* value, std::size_t bytes) {
  Thread& me = current->thread;
  Warp& warp = *me.warp;
  const unsigned mine = warp.turn;
  auto& given = warp.given[mine % 2];
  std::memcpy(given[static_cast<std::size_t>(me.lane)].data(), value, bytes);
  ++progress;
  if (++warp.arrived >= warp.alive) {
    warp.arrived = 0;
    ++warp.turn;
  } else {
    while (warp.turn == mine) yield();
  }
  return given;
}

namespace {

std::mutex allowed_lock;  // weights are loaded by several threads
std::map<const void*, std::size_t> allowed;

[[noreturn]] void refuse(const char* why) {
  std::fprintf(stderr, "%s\n", why);
  std::abort();
}

}  // namespace

std::size_t most_shared() {
  const char* chosen = std::getenv("MLXS_EMULATED_SM");
  const int sm = chosen != nullptr ? std::atoi(chosen) : 90;
  return std::size_t{sm == 80 ? 163u : sm / 10 == 9 || sm / 10 == 10 ? 227u : 99u} << 10;
}
void allow_shared(const void* kernel, std::size_t bytes) {
  if (bytes > most_shared()) refuse("a kernel asks for more shared memory than there is");
  const std::lock_guard lock(allowed_lock);
  allowed[kernel] = bytes;
}
void check_shared(const void* kernel, std::size_t bytes) {
  const std::lock_guard lock(allowed_lock);
  const auto found = allowed.find(kernel);
  if (bytes > (found != allowed.end() ? found->second : std::size_t{48} << 10))
    refuse("a launch with more shared memory than its kernel may have");
}

std::size_t launched() { return grids; }

void run_grid(dim3 grid, unsigned threads, std::size_t shared_bytes, const std::function<void()>& kernel) {
  while (fibers.size() < threads) fibers.push_back(std::make_unique<Fiber>());
  if (shared_bytes > kShared || threads % kLanes != 0 || threads > 1024 || grid.x == 0 || grid.y == 0 ||
      grid.z == 0 || grid.y > 65535 || grid.z > 65535)
    refuse("a launch that a GPU would refuse");
  std::vector<Warp> warps(threads / kLanes);
  ++grids;
  kernel_now = &kernel;
  running.size = dim3(threads);
  running.grid = grid;
  running.shared = shared_memory();
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        running.index = {x, y, z};
        std::memset(running.shared, 0xff, shared_bytes);  // nobody may count on zeros
        meetings.clear();
        phases.clear();
        waiting = 0;
        alive = static_cast<int>(threads);
        for (Warp& warp : warps) warp = Warp{.alive = kLanes};
        for (unsigned i = 0; i < threads; ++i) {
          Fiber& fiber = *fibers[i];
          fiber.thread =
              Thread{.index = {i, 0, 0}, .lane = static_cast<int>(i % kLanes), .warp = &warps[i / kLanes]};
          prepare(fiber);
        }
        while (alive > 0) {
          const std::uint64_t before = progress;
          for (unsigned i = 0; i < threads; ++i) {
            current = fibers[backwards() ? threads - 1 - i : i].get();
            if (!current->done) mlxs_switch_fiber(&scheduler, current->at);
          }
          if (progress == before && waiting < alive) {
            std::fprintf(stderr, "threads of a block wait for each other\n");
            std::abort();
          }
        }
      }
    }
  }
}

}  // namespace mlxs::emulated
