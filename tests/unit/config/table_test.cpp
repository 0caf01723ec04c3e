// The table itself: names that are free, defaults that are values, and every key and any value through all
// sources.
#include "config/table.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "config/layers.h"
#include "config/show.h"
#include "given.h"
#include "mlxs/error.h"

namespace mlxs::config {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

TEST(Table, NamesAreGivenOnce) {
  std::set<std::string> paths, variables, flags;
  for (const Key& key : keys()) {
    EXPECT_TRUE(paths.insert(key.path).second) << key.path;
    for (const Alias& alias : key.aliases) EXPECT_TRUE(paths.insert(alias.path).second) << alias.path;
    EXPECT_TRUE(variables.insert(key.own_variable()).second) << key.own_variable();
    if (!key.variable.empty() && key.variable != key.own_variable()) {
      EXPECT_TRUE(variables.insert(key.variable).second) << key.variable;
    }
    if (!key.flag_name.empty()) {
      EXPECT_TRUE(flags.insert(key.flag_name).second) << key.flag_name;
    }
  }
  for (const std::string& path : paths) {
    EXPECT_FALSE(is_section(path) && find_name(path).key == nullptr) << path << " is a key and a section";
  }
  for (const Absent& absent : absent_keys()) {
    EXPECT_TRUE(paths.insert(std::string(absent.path)).second)
        << absent.path << " acts: take it off the list";
    EXPECT_FALSE(absent.reason.empty()) << absent.path;
  }
  for (const Absent& absent : absent_variables()) {
    EXPECT_TRUE(variables.insert(std::string(absent.path)).second) << absent.path;
  }
}

TEST(Table, EveryKeyIsDescribedAndItsDefaultIsAValueOfIt) {
  for (const Key& key : keys()) {
    EXPECT_THAT(key.meaning, testing::Not(IsEmpty())) << key.path;
    EXPECT_THAT(explain(key.path), HasSubstr(key.own_variable()));
    const Value value = key.get(Settings{});
    if (key.has_range()) {
      const double number = std::holds_alternative<double>(value) ? std::get<double>(value)
                            : std::holds_alternative<std::int64_t>(value)
                                ? static_cast<double>(std::get<std::int64_t>(value))
                                : key.low;
      EXPECT_TRUE((number >= key.low && number <= key.high) || (number == 0 && !key.zero.empty()))
          << key.path;
    }
    if (!key.choices.empty()) {
      EXPECT_THAT(key.choices, testing::Contains(std::get<std::string>(value))) << key.path;
    }
  }
}

TEST(Table, ADifferentValueReachesTheField) {
  for (const Key& key : keys()) {
    Settings settings;
    const Value before = key.get(settings);
    Value other = before;
    if (auto* flag = std::get_if<bool>(&other)) *flag = !*flag;
    if (auto* whole = std::get_if<std::int64_t>(&other))
      *whole = *whole == static_cast<std::int64_t>(key.high) ? *whole - 1 : *whole + 1;
    if (auto* number = std::get_if<double>(&other)) *number = *number == key.high ? key.low : key.high;
    if (auto* text = std::get_if<std::string>(&other))
      *text = key.choices.empty()           ? "other"
              : key.choices.back() == *text ? key.choices.front()
                                            : key.choices.back();
    if (auto* list = std::get_if<std::vector<std::string>>(&other)) list->emplace_back("other");
    if (auto* integers = std::get_if<Integers>(&other)) integers->push_back(7);
    if (auto* weights = std::get_if<Weights>(&other)) weights->emplace_back("other", 2.0);
    ASSERT_NE(other, before) << key.path;
    key.set(settings, other);
    EXPECT_EQ(key.get(settings), other) << key.path;
    std::size_t changed = 0;
    for (const Key& any : keys()) changed += any.get(settings) != any.get(Settings{}) ? 1 : 0;
    EXPECT_EQ(changed, 1u) << key.path << " sets another key's field";
  }
}

TEST(Table, TheDefaultFileIsTheDefaultsWhetherCommentedOutOrNot) {
  const std::string commented = default_file();
  EXPECT_THAT(load_given({.file = commented}).warnings, IsEmpty());
  std::string all;
  std::size_t at = 0;
  while (at < commented.size()) {
    const std::size_t end = commented.find('\n', at);
    std::string line = commented.substr(at, end - at + 1);
    const auto hash = line.find("# ");
    const std::string rest = hash == std::string::npos ? "" : line.substr(hash + 2);
    // "port: 8000", not a sentence.
    if (hash != std::string::npos && hash > 0 && rest.find(": ") == rest.find_first_of(" :"))
      line.erase(hash, 2);
    all += line;
    at = end + 1;
  }
  const Config config = load_given({.file = all});
  EXPECT_THAT(config.warnings, IsEmpty());
  for (const Effective& effective : config.effective) {
    EXPECT_EQ(effective.from, Effective::From::kFile) << effective.key->path << "\n" << all;
    EXPECT_EQ(effective.value, effective.key->get(Settings{})) << effective.key->path;
  }
}

// Whatever is written for a key, in a file or a variable, is taken, moved inside its range with a warning, or
// refused with a message that names the key or variable. Never taken as something else, never a crash.
TEST(AnyValue, IsTakenClampedOrRefusedByName) {
  const std::vector<std::string> interesting = {"",
                                                "0",
                                                "1",
                                                "-1",
                                                "4",
                                                "0.75",
                                                "1e3",
                                                "1e400",
                                                "-1e308",
                                                "nan",
                                                ".inf",
                                                "true",
                                                "off",
                                                "null",
                                                "~",
                                                "[]",
                                                "{}",
                                                "[1, 2]",
                                                "{a: 1}",
                                                "{a: b}",
                                                "[[1]]",
                                                "auto",
                                                "2GiB",
                                                "2XiB",
                                                "a=1",
                                                "a=1,b=x",
                                                "\"\"",
                                                "\"4\"",
                                                "9223372036854775808",
                                                "99999999999999999999999",
                                                "0x10",
                                                "'x: y'",
                                                "balanced",
                                                "cpu",
                                                "\"\\u0000\"",
                                                "\"\\n\""};
  std::mt19937_64 random(7);
  const auto noise = [&random] {
    std::string text;
    for (std::uint64_t i = random() % 12; i > 0; --i) text += static_cast<char>(' ' + random() % 95);
    return text;
  };
  int taken = 0, clamped = 0, refused = 0;
  for (const Key& key : keys()) {
    std::vector<std::string> values = interesting;
    for (int i = 0; i < 10; ++i)
      values.push_back(
          i % 2 == 0 ? noise()
                     : fmt::format("{}", static_cast<double>(static_cast<std::int64_t>(random())) / 1e12));
    for (const std::string& value : values) {
      for (const bool file : {true, false}) {
        if (!file && value.find('\0') != std::string::npos) continue;
        const std::string name = file ? key.path : key.own_variable();
        Given given;
        if (file) {
          given.file = key.path + ": " + value + "\n";
        } else {
          given.variables[name] = value;
        }
        SCOPED_TRACE(name + " = " + value);
        try {
          const Config config = load_given(given);
          const Effective& effective = config.of(key.path);
          if (!config.warnings.empty()) {
            ++clamped;
            EXPECT_TRUE(config.warnings.front().find(key.path.substr(0, key.path.find('.'))) !=
                            std::string::npos ||
                        config.warnings.front().find(name) != std::string::npos)
                << config.warnings.front();
          } else {
            ++taken;
          }
          EXPECT_EQ(effective.key->get(config.settings), effective.value);
          if (key.has_range() && std::holds_alternative<double>(effective.value)) {
            const double number = std::get<double>(effective.value);
            EXPECT_TRUE((number >= key.low && number <= key.high) || (number == 0 && !key.zero.empty()));
          }
          if (key.has_range() && std::holds_alternative<std::int64_t>(effective.value)) {
            const auto number = static_cast<double>(std::get<std::int64_t>(effective.value));
            EXPECT_TRUE((number >= key.low && number <= key.high) || (number == 0 && !key.zero.empty()));
          }
        } catch (const Error& error) {
          ++refused;
          const std::string text = error.full();
          EXPECT_TRUE(text.find(name) != std::string::npos || text.find("runtime.yaml:") != std::string::npos)
              << text;
        }
      }
    }
  }
  EXPECT_GT(taken, 1000);
  EXPECT_GT(clamped, 200);
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace mlxs::config
