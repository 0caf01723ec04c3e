// Where a program's log goes that only uses the library.
#include "base/log.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/null_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include <memory>

namespace mlxs {
namespace {

class DefaultLogger : public ::testing::Test {
 protected:
  void TearDown() override { spdlog::set_default_logger(before_); }
  std::shared_ptr<spdlog::logger> before_ = spdlog::default_logger();
};

TEST_F(DefaultLogger, LeavesStdoutForAnswers) {
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("", std::make_shared<spdlog::sinks::stdout_color_sink_mt>()));
  log::leave_stdout();
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  log::warn("seen");
  spdlog::default_logger()->flush();
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("seen"), std::string::npos);
}

TEST_F(DefaultLogger, OfTheProgramStays) {
  const auto own = std::make_shared<spdlog::logger>("own", std::make_shared<spdlog::sinks::null_sink_mt>());
  spdlog::set_default_logger(own);
  log::leave_stdout();
  EXPECT_EQ(spdlog::default_logger(), own);
}

}  // namespace
}  // namespace mlxs
