#include "cli/health_checks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/format.h"

namespace mlxs::cli {
namespace {

using Level = Finding::Level;

constexpr std::uint64_t kGB = 1'000'000'000;
constexpr std::uint64_t kLittleMemory = 1 * kGB;  // a small model and its KV cache
constexpr std::uint64_t kLittleDisk = 5 * kGB;    // one 8B model in 4 bits
constexpr std::uint64_t kFewFiles = 16384 + 64;   // as many as connections by default, and model files
constexpr std::uint64_t kNoticeableSwap = 256'000'000;

class Findings {
 public:
  void add(Level level, std::string subject, std::string found, std::string remedy = {}) {
    list_.push_back({level, std::move(subject), std::move(found), std::move(remedy)});
  }
  void good(std::string subject, std::string found) {
    add(Level::kGood, std::move(subject), std::move(found));
  }
  std::vector<Finding> take() { return std::move(list_); }

 private:
  std::vector<Finding> list_;
};

void judge_processor(const MachineFacts& f, Findings& out) {
  out.good("processor", fmt::format("{}, {} of {} logical processors usable, {} compute threads",
                                    f.processor.empty() ? "unknown model" : f.processor, f.usable,
                                    f.processors, f.threads));
  const std::string kernels =
      fmt::format("{} kernels{}", f.isa_used,
                  f.features.empty() ? "" : fmt::format(" (it has {})", fmt::join(f.features, ", ")));
  if (f.isa_used != f.isa_possible) {
    out.add(Level::kWarning, "kernels", kernels,
            fmt::format("{} would run here: unset MLXS_CPU_ISA (it is '{}')", f.isa_possible, f.isa_asked));
  } else if (f.isa_used == "portable") {
    out.add(Level::kWarning, "kernels", kernels,
            "the portable kernels are several times slower than AVX2's; a virtual machine may hide AVX2: ask "
            "for the host's processor type");
  } else {
    out.good("kernels", kernels);
  }
  if (f.governor == "powersave") {
    out.add(Level::kWarning, "clock", "the 'powersave' governor may hold the processor at a low clock",
            "sudo cpupower frequency-set -g performance");
  }
  if (f.usable > 0 && f.load > f.usable) {
    out.add(Level::kWarning, "load", fmt::format("{:.1f} processes want the {} processors", f.load, f.usable),
            "others compete for them: decode slows down first; stop them or lower --threads");
  }
}

void judge_memory(const MachineFacts& f, Findings& out) {
  const std::string memory =
      fmt::format("{}, {} available", format_bytes(f.memory_bytes), format_bytes(f.available_bytes));
  if (f.available_bytes < kLittleMemory) {
    out.add(Level::kWarning, "memory", memory,
            "only the smallest models fit; `mlx-serving plan MODEL` says what does");
  } else {
    out.good("memory", memory);
  }
  if (f.swap_used_bytes > kNoticeableSwap) {
    out.add(Level::kWarning, "swap", fmt::format("{} are swapped out", format_bytes(f.swap_used_bytes)),
            "weights or KV pages on disk cost seconds a token: free memory, or use a smaller model");
  }
  if (f.huge_pages == "never") {
    out.add(Level::kWarning, "huge pages", "switched off",
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled");
  } else if (!f.huge_pages.empty()) {
    out.good("huge pages", f.huge_pages);
  }
}

void judge_backends(const MachineFacts& f, Findings& out) {
  for (const BackendFacts& backend : f.backends) {
    if (!backend.device.empty()) {
      const bool driver = backend.name == "cuda" && !f.nvidia_version.empty();
      out.good("backend " + backend.name,
               backend.device + (driver ? fmt::format(", driver {}", f.nvidia_version) : ""));
    } else if (backend.built) {
      out.add(Level::kWarning, "backend " + backend.name, backend.reason,
              "--backend auto uses the next best one");
    } else if (backend.name == "cuda" && f.nvidia_driver) {
      out.add(Level::kWarning, "backend cuda", "an NVIDIA driver is here, but this binary has no CUDA",
              "`make run` builds it with CUDA where nvidia-smi finds a GPU: make clean run");
    }
  }
}

void judge_folder(const char* subject, const FolderFacts& folder, const char* variable, Findings& out) {
  const std::string found = fmt::format("{}, {} free", folder.path, format_bytes(folder.free_bytes));
  if (!folder.writable) {
    out.add(Level::kFailure, subject, folder.path + " cannot be written",
            fmt::format("give yourself the folder, or set {} to one that is yours", variable));
  } else if (folder.free_bytes < kLittleDisk) {
    out.add(Level::kWarning, subject, found, "`mlx-serving rm MODEL` makes room");
  } else {
    out.good(subject, found);
  }
}

void judge_configuration(const ConfigurationFacts& f, Findings& out) {
  const std::string from = f.file.empty() ? "no file" : f.file;
  const std::string remedy = "correct what it names: `mlx-serving config --explain KEY` says what is right";
  if (!f.error.empty()) {
    out.add(Level::kFailure, "configuration", fmt::format("{}: {}", from, f.error), remedy);
  } else if (!f.warnings.empty()) {
    out.add(Level::kWarning, "configuration", fmt::format("{}: {}", from, fmt::join(f.warnings, "; ")),
            remedy);
  } else {
    out.good("configuration", from);
  }
}

void judge_surroundings(const MachineFacts& f, Findings& out) {
  judge_folder("cache", f.cache, "MLXS_CACHE_DIR", out);
  judge_folder("hub cache", f.hub, "HF_HOME", out);
  if (f.hub_offline) {
    out.add(Level::kWarning, "hub", "HF_HUB_OFFLINE is set: nothing will be downloaded", "unset it to pull");
  } else {
    out.good("hub", f.hub_endpoint);
  }
  out.good("models", fmt::format("{} in the caches", f.models));

  const std::string files = fmt::format("{} (at most {})", f.open_files_soft, f.open_files_hard);
  if (f.open_files_hard < kFewFiles) {
    out.add(Level::kWarning, "open files", files,
            "each connection needs one, and serve takes what it may have: raise the hard limit "
            "(/etc/security/limits.conf, LimitNOFILE of a service) to 65536");
  } else {
    out.good("open files", files);
  }

  if (f.address_space) {
    out.add(Level::kWarning, "address space", format_bytes(*f.address_space),
            "files of models are mapped, and caches reserved, as address space first: ulimit -v unlimited");
  }

  const std::string port = fmt::format("{}:{}", f.port.address, f.port.port);
  switch (f.port.state) {
    case PortFacts::State::kFree:
      return out.good("port", port + " is free");
    case PortFacts::State::kOurs:
      return out.good("port", port + ": mlx-serving runs there");
    case PortFacts::State::kTaken:
      return out.add(Level::kWarning, "port", port + " is taken by another program",
                     "serve with --port, or stop the other one");
    case PortFacts::State::kForbidden:
      return out.add(Level::kWarning, "port", port + " needs rights that this user lacks",
                     "serve with --port 1024 or above");
  }
}

}  // namespace

std::vector<Finding> judge(const MachineFacts& facts) {
  Findings out;
  judge_processor(facts, out);
  judge_memory(facts, out);
  judge_backends(facts, out);
  judge_configuration(facts.configuration, out);
  judge_surroundings(facts, out);
  return out.take();
}

}  // namespace mlxs::cli
