#include "cli/machine_facts.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>
#include <string_view>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include "backend/cpu/isa.h"
#include "backend/cpu/machine.h"
#include "backend/registry.h"
#include "config/config.h"
#include "formats/catalog.h"
#include "mlxs/error.h"

namespace mlxs::cli {
namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// "always [madvise] never" → "madvise"
std::string chosen_of(const std::string& choices) {
  const std::size_t begin = choices.find('['), end = choices.find(']');
  return begin == std::string::npos || end <= begin ? choices : choices.substr(begin + 1, end - begin - 1);
}

// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue …" → "550.54.15"
std::string driver_version(const std::string& line) {
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    if (std::isdigit(static_cast<unsigned char>(word.front())) != 0) return word;
  }
  return {};
}

void read_processor(MachineFacts& facts) {
  static constexpr std::array<std::string_view, 17> kFeatures{
      "avx2",        "fma",         "f16c",     "avx_vnni", "avx512f",  "avx512_vnni",
      "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "asimd",
      "asimddp",     "i8mm",        "bf16",     "sve",      "sve2"};
  facts.processors = static_cast<int>(std::thread::hardware_concurrency());
  facts.usable = facts.processors;
  facts.threads = cpu::default_threads();
  facts.isa_possible = cpu::isa_name(cpu::detect_isa().best);
  facts.isa_used = cpu::isa_name(cpu::choose_isa());
  facts.isa_asked = variable("MLXS_CPU_ISA");
  std::array<double, 1> load{};
  if (::getloadavg(load.data(), 1) == 1) facts.load = load[0];
#if defined(__linux__)
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) facts.usable = CPU_COUNT(&set);
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    const std::string_view key(line.data(), line.find_first_of("\t:"));
    if (key == "model name" && facts.processor.empty()) facts.processor = line.substr(colon + 2);
    if (key != "flags" && key != "Features") continue;
    std::istringstream words(line.substr(colon + 2));
    for (std::string word; words >> word;) {
      if (std::ranges::find(kFeatures, word) != kFeatures.end()) facts.features.push_back(word);
    }
    break;
  }
  facts.governor = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
#elif defined(__APPLE__)
  std::array<char, 256> brand{};
  std::size_t size = brand.size() - 1;
  if (::sysctlbyname("machdep.cpu.brand_string", brand.data(), &size, nullptr, 0) == 0)
    facts.processor = brand.data();
#endif
}

void read_memory(MachineFacts& facts) {
  const cpu::MemoryInfo memory = cpu::memory_info();
  facts.memory_bytes = memory.total;
  facts.available_bytes = memory.available;
#if defined(__linux__)
  std::uint64_t swap_total = 0, swap_free = 0;
  std::ifstream file("/proc/meminfo");
  for (std::string name, line; file >> name; std::getline(file, line)) {
    if (name == "SwapTotal:") file >> swap_total;
    if (name == "SwapFree:") file >> swap_free;
  }
  facts.swap_used_bytes = (swap_total - swap_free) * 1024;
  facts.huge_pages = chosen_of(first_line("/sys/kernel/mm/transparent_hugepage/enabled"));
#endif
}

FolderFacts folder_facts(const fs::path& path) {
  FolderFacts facts{.path = path.string()};
  std::error_code ignored;
  fs::path existing = path;
  while (!fs::exists(existing, ignored) && existing.has_parent_path() && existing != existing.parent_path())
    existing = existing.parent_path();
  facts.writable = fs::is_directory(existing, ignored) && ::access(existing.c_str(), W_OK | X_OK) == 0;
  const fs::space_info space = fs::space(existing, ignored);
  facts.writable = facts.writable && space.capacity > 0;  // not of a system of files that are none: /proc
  facts.free_bytes = space.available == static_cast<std::uintmax_t>(-1) ? 0 : space.available;
  return facts;
}

// Whether this program's health page answers at the port.
bool is_ours(const PortFacts& port) {
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> handle(curl_easy_init(), curl_easy_cleanup);
  if (!handle) return false;
  std::string body;
  const std::string url = fmt::format("http://{}:{}/health/live", port.address, port.port);
  const auto append = +[](char* data, std::size_t size, std::size_t count, void* to) -> std::size_t {
    auto& text = *static_cast<std::string*>(to);
    if (text.size() + size * count > 4096) return 0;
    text.append(data, size * count);
    return size * count;
  };
  curl_easy_setopt(handle.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(handle.get(), CURLOPT_NOPROXY, "*");
  curl_easy_setopt(handle.get(), CURLOPT_TIMEOUT_MS, 2000L);
  curl_easy_setopt(handle.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle.get(), CURLOPT_WRITEFUNCTION, append);
  curl_easy_setopt(handle.get(), CURLOPT_WRITEDATA, &body);
  return curl_easy_perform(handle.get()) == CURLE_OK &&
         body.find("\"last_step_age_seconds\"") != std::string::npos;
}

PortFacts port_facts(int port) {
  PortFacts facts{.address = "127.0.0.1", .port = port};
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  if (socket < 0) return facts;
  const int yes = 1;  // as the server does: connections in TIME_WAIT are no obstacle
  ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int failed = ::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  const int reason = failed != 0 ? errno : 0;
  ::close(socket);
  if (reason == EACCES) facts.state = PortFacts::State::kForbidden;
  if (reason == EADDRINUSE) facts.state = is_ours(facts) ? PortFacts::State::kOurs : PortFacts::State::kTaken;
  return facts;
}

void read_backends(MachineFacts& facts) {
  const std::vector<std::string_view> built = backend_names();
  for (const std::string_view name : {"cpu", "cuda", "mlx"}) {
    BackendFacts backend{.name = std::string(name)};
    backend.built = std::ranges::find(built, name) != built.end();
    if (backend.built) {
      try {
        backend.device = make_backend(name)->device().description;
      } catch (const Error& error) {
        backend.reason = error.full();
      }
    }
    facts.backends.push_back(std::move(backend));
  }
  std::error_code ignored;
  facts.nvidia_driver = fs::exists("/dev/nvidiactl", ignored);
  facts.nvidia_version = driver_version(first_line("/proc/driver/nvidia/version"));
}

ConfigurationFacts configuration_facts() {
  ConfigurationFacts facts;
  config::Sources sources = config::process_sources();
  facts.file = sources.file = config::find_config_file();
  try {
    facts.warnings = config::load(sources).warnings;
  } catch (const Error& error) {
    facts.error = error.full();
  }
  return facts;
}

void read_environment(MachineFacts& facts) {
  static constexpr std::array<const char*, 13> kNames{
      "MLXS_CACHE_DIR",  "MLXS_CPU_ISA",   "MLXS_LOG_LEVEL",      "MLXS_ARENA_BITS", "HF_HOME",
      "HF_HUB_CACHE",    "HF_ENDPOINT",    "HF_HUB_OFFLINE",      "HTTPS_PROXY",     "NO_PROXY",
      "OMP_NUM_THREADS", "XDG_CACHE_HOME", "CUDA_VISIBLE_DEVICES"};
  static constexpr std::array<const char*, 2> kSecrets{"HF_TOKEN", "MLXS_API_KEY"};
  for (const char* name : kNames) {
    if (std::string value = variable(name); !value.empty()) {
      const std::size_t at = value.find('@');  // a proxy's password
      if (at != std::string::npos) value = "(hidden)" + value.substr(at);
      facts.environment.emplace_back(name, std::move(value));
    }
  }
  for (const char* name : kSecrets) {
    if (!variable(name).empty()) facts.environment.emplace_back(name, "(set)");
  }
}

}  // namespace

MachineFacts gather_facts(int port) {
  MachineFacts facts;
  facts.version = MLXS_VERSION;
#if defined(__clang__)
  facts.compiler = fmt::format("clang {}.{}", __clang_major__, __clang_minor__);
#elif defined(__GNUC__)
  facts.compiler = fmt::format("gcc {}.{}", __GNUC__, __GNUC_MINOR__);
#endif
  utsname name{};
  if (::uname(&name) == 0) {
    facts.kernel = fmt::format("{} {} {}", name.sysname, name.release, name.machine);
    facts.system = name.sysname;
  }
  std::ifstream release("/etc/os-release");
  for (std::string line; std::getline(release, line);) {
    if (!line.starts_with("PRETTY_NAME=")) continue;
    facts.system = line.substr(line.find('=') + 1);
    std::erase(facts.system, '"');
  }
  read_processor(facts);
  read_memory(facts);
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    facts.open_files_soft = files.rlim_cur;
    facts.open_files_hard = files.rlim_max;
  }
  rlimit space{};
  if (::getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY) {
    facts.address_space = space.rlim_cur;
  }
  read_backends(facts);
  facts.cache = folder_facts(cache_directory());
  facts.hub = folder_facts(hub_cache_directory());
  facts.hub_offline = !variable("HF_HUB_OFFLINE").empty() && variable("HF_HUB_OFFLINE") != "0";
  facts.hub_endpoint = variable("HF_ENDPOINT").empty() ? "https://huggingface.co" : variable("HF_ENDPOINT");
  facts.models = static_cast<int>(Catalog().list().size());
  facts.port = port_facts(port);
  facts.configuration = configuration_facts();
  read_environment(facts);
  return facts;
}

}  // namespace mlxs::cli
