// What doctor says of machines that nobody here has.
#include "cli/health_checks.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace mlxs::cli {
namespace {

using Level = Finding::Level;

MachineFacts healthy() {
  MachineFacts f;
  f.processor = "Some CPU";
  f.processors = f.usable = 8;
  f.threads = 4;
  f.isa_possible = f.isa_used = "avx512";
  f.load = 0.5;
  f.memory_bytes = 32'000'000'000;
  f.available_bytes = 30'000'000'000;
  f.huge_pages = "madvise";
  f.open_files_soft = 1024;
  f.open_files_hard = 1 << 20;
  f.backends = {{.name = "cpu", .built = true, .device = "cpu (4 threads, avx512)"}, {.name = "cuda"}};
  f.cache = f.hub = {.path = "/c", .writable = true, .free_bytes = 100'000'000'000};
  f.hub_endpoint = "https://hub";
  f.port = {.address = "127.0.0.1", .port = 8000};
  return f;
}

// The one finding that is not good; fails if there are more or none.
Finding only_complaint(const MachineFacts& facts) {
  std::vector<Finding> findings = judge(facts);
  std::erase_if(findings, [](const Finding& f) { return f.level == Level::kGood; });
  EXPECT_EQ(findings.size(), 1U);
  if (findings.empty()) return {};
  EXPECT_FALSE(findings.front().remedy.empty()) << findings.front().subject;
  return findings.front();
}

TEST(Doctor, FindsNothingWrongWithAHealthyMachine) {
  for (const Finding& finding : judge(healthy())) {
    EXPECT_EQ(finding.level, Level::kGood) << finding.subject << ": " << finding.found;
    EXPECT_FALSE(finding.found.empty()) << finding.subject;
  }
}

TEST(Doctor, NamesEachComplaintWithItsRemedy) {
  struct Case {
    const char* subject;
    const char* remedy;  // part of it
    void (*spoil)(MachineFacts&);
  };
  const Case cases[] = {
      {"kernels", "unset MLXS_CPU_ISA", [](MachineFacts& f) { f.isa_used = f.isa_asked = "avx2"; }},
      {"kernels", "AVX2", [](MachineFacts& f) { f.isa_used = f.isa_possible = "portable"; }},
      {"clock", "performance", [](MachineFacts& f) { f.governor = "powersave"; }},
      {"load", "--threads", [](MachineFacts& f) { f.load = 8.5; }},
      {"memory", "plan", [](MachineFacts& f) { f.available_bytes = 900'000'000; }},
      {"swap", "smaller model", [](MachineFacts& f) { f.swap_used_bytes = 1'000'000'000; }},
      {"huge pages", "madvise", [](MachineFacts& f) { f.huge_pages = "never"; }},
      {"backend cuda", "--backend auto",
       [](MachineFacts& f) { f.backends[1] = {.name = "cuda", .built = true, .reason = "no driver"}; }},
      {"backend cuda", "make clean run", [](MachineFacts& f) { f.nvidia_driver = true; }},
      {"cache", "mlx-serving rm", [](MachineFacts& f) { f.cache.free_bytes = 1; }},
      {"hub", "pull", [](MachineFacts& f) { f.hub_offline = true; }},
      {"open files", "LimitNOFILE", [](MachineFacts& f) { f.open_files_soft = f.open_files_hard = 256; }},
      {"address space", "ulimit -v", [](MachineFacts& f) { f.address_space = 8'000'000'000; }},
      {"port", "--port", [](MachineFacts& f) { f.port.state = PortFacts::State::kTaken; }},
      {"configuration", "config --explain KEY",
       [](MachineFacts& f) { f.configuration = {.file = "/c.yaml", .warnings = {"a = 9: it is 5"}}; }},
      {"port", "1024", [](MachineFacts& f) { f.port.state = PortFacts::State::kForbidden; }},
  };
  for (const Case& c : cases) {
    MachineFacts facts = healthy();
    c.spoil(facts);
    const Finding finding = only_complaint(facts);
    EXPECT_EQ(finding.subject, c.subject);
    EXPECT_EQ(finding.level, Level::kWarning) << c.subject;
    EXPECT_NE(finding.remedy.find(c.remedy), std::string::npos) << finding.remedy;
  }
}

TEST(Doctor, AFolderThatCannotBeWrittenIsAFailure) {
  MachineFacts facts = healthy();
  facts.hub.writable = false;
  const Finding finding = only_complaint(facts);
  EXPECT_EQ(finding.level, Level::kFailure);
  EXPECT_EQ(finding.subject, "hub cache");
  EXPECT_NE(finding.remedy.find("HF_HOME"), std::string::npos);
}

TEST(Doctor, AConfigurationThatServeRefusesIsAFailure) {
  MachineFacts facts = healthy();
  facts.configuration.error = "MLXS_SERVER_PORT = 'x' is no integer";
  const Finding finding = only_complaint(facts);
  EXPECT_EQ(finding.level, Level::kFailure);
  EXPECT_EQ(finding.subject, "configuration");
  EXPECT_NE(finding.found.find("MLXS_SERVER_PORT"), std::string::npos);
}

TEST(Doctor, SaysTheDriverOfAGpuThatWorks) {
  MachineFacts facts = healthy();
  facts.backends[1] = {.name = "cuda", .built = true, .device = "Some GPU"};
  facts.nvidia_driver = true;
  facts.nvidia_version = "550.54.15";
  const std::vector<Finding> findings = judge(facts);
  EXPECT_TRUE(std::ranges::any_of(findings,
                                  [](const Finding& f) { return f.found == "Some GPU, driver 550.54.15"; }));
}

TEST(Doctor, AServerOfOursAtThePortIsNoComplaint) {
  MachineFacts facts = healthy();
  facts.port.state = PortFacts::State::kOurs;
  for (const Finding& finding : judge(facts)) EXPECT_EQ(finding.level, Level::kGood) << finding.subject;
}

}  // namespace
}  // namespace mlxs::cli
