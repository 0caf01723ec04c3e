// Mapped memory finds its file, and a file that became shorter is an error.
#include "base/file_ranges.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <vector>

#include "mlxs/error.h"
#include "support/temp_dir.h"

namespace mlxs {
namespace {

class FileRanges : public ::testing::Test {
 protected:
  FileRanges() {
    std::ofstream file(path_, std::ios::binary);
    for (int i = 0; i < 1000; ++i) file.put(static_cast<char>(i % 251));
  }
  int open() const { return ::open(path_.c_str(), O_RDONLY | O_CLOEXEC); }

  const test::TempDir dir_;
  const std::filesystem::path path_ = dir_.path() / "file";
  std::vector<std::byte> memory_ = std::vector<std::byte>(1000);  // as if the file were mapped there
  std::span<const std::byte> all_{memory_};
};

TEST_F(FileRanges, KnowsWhereAMappedRangeLies) {
  EXPECT_FALSE(file_of(all_));
  {
    const FileRange range(all_, open());
    const FilePlace place = file_of(all_.subspan(300, 700));
    ASSERT_TRUE(place);
    EXPECT_EQ(place.offset, 300u);
    std::vector<std::byte> out(700);
    read_file(place, out);
    EXPECT_EQ(out.front(), std::byte{300 % 251});
    EXPECT_EQ(out.back(), std::byte{999 % 251});
    EXPECT_FALSE(file_of({all_.data() + 300, 701})) << "reaches behind it";
    EXPECT_FALSE(file_of({all_.data() - 1, 10}));
  }
  EXPECT_FALSE(file_of(all_));
}

TEST_F(FileRanges, AShorterFileIsAnError) {
  const FileRange range(all_, open());
  std::filesystem::resize_file(path_, 400);
  std::vector<std::byte> out(700);
  try {
    read_file(file_of(all_.subspan(300)), out);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
  }
}

}  // namespace
}  // namespace mlxs
