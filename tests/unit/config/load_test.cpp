// What flags, variables and a file make together: who wins, what is clamped, what is refused and how it says
// so.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "given.h"
#include "mlxs/error.h"

namespace mlxs::config {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

std::string refusal(const Given& given) {
  try {
    load_given(given);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.full();
  }
  return "nothing was refused";
}

TEST(Load, WithoutSourcesIsTheDefaults) {
  const Config config = load_given({});
  EXPECT_THAT(config.warnings, IsEmpty());
  EXPECT_EQ(config.effective.size(), keys().size());
  for (const Effective& effective : config.effective) {
    EXPECT_EQ(effective.value, effective.key->get(Settings{})) << effective.key->path;
  }
}

TEST(Load, AFlagWinsOverAVariableOverAFileOverTheDefault) {
  const std::string file = "server:\n  port: 9001\n";
  EXPECT_EQ(load_given({}).settings.server.port, 8000);
  EXPECT_EQ(load_given({.file = file}).settings.server.port, 9001);
  EXPECT_EQ(load_given({.file = file, .variables = {{"MLXS_SERVER_PORT", "9002"}}}).settings.server.port,
            9002);
  const Config all = load_given(
      {.file = file, .variables = {{"MLXS_SERVER_PORT", "9002"}}, .flags = {{"server.port", "9003"}}});
  EXPECT_EQ(all.settings.server.port, 9003);
  EXPECT_EQ(all.of("server.port").where, "--port");
}

TEST(Load, SaysWhereAValueComesFrom) {
  const Config config =
      load_given({.file = "# first line\nserver:\n  port: 9001\n", .variables = {{"MLX_FAST_PATH", "off"}}});
  EXPECT_THAT(config.of("server.port").where, HasSubstr("runtime.yaml:3"));
  EXPECT_EQ(config.of("gpu_scheduler.fast_path.enabled").where, "MLX_FAST_PATH");
  EXPECT_EQ(config.of("server.host").where, "");
}

TEST(Load, ClampsFilesAndVariablesAndSaysSo) {
  const Config config = load_given({.file = "gpu_scheduler:\n  batch_window_ms: 99\n",
                                    .variables = {{"MLX_GPU_SCHEDULER_BATCH_SIZE", "99"}}});
  EXPECT_EQ(config.settings.engine.admission_window.window_ms, 5);
  EXPECT_EQ(config.settings.engine.admission_window.batch_size, 16);
  EXPECT_THAT(config.warnings,
              ElementsAre(AllOf(HasSubstr("runtime.yaml:2: gpu_scheduler.batch_window_ms = 99"),
                                HasSubstr("outside 0.75 … 5 ms: 5 is used")),
                          HasSubstr("MLX_GPU_SCHEDULER_BATCH_SIZE = 99 is outside 1 … 16: 16 is used")));
}

// The scheduler's own: each is moved inside its range, with a warning, and reaches the engine.
TEST(Load, ClampsTheSchedulersKeys) {
  struct Case {
    const char *path, *given;
    double EngineOptions::*number;
    int EngineOptions::*whole;
    double taken;
  };
  constexpr Case kCases[] = {
      {"mlx.concurrency_limit", "0", nullptr, &EngineOptions::max_running, 1},
      {"mlx.concurrency_limit", "100000", nullptr, &EngineOptions::max_running, 4096},
      {"scheduling.priority_scheduler.max_queue_depth", "0", nullptr, &EngineOptions::max_queue_depth, 1},
      {"scheduling.priority_scheduler.aging_interval_ms", "5", nullptr, &EngineOptions::aging_interval_ms,
       100},
      {"scheduling.target_itl_ms", "99999999", &EngineOptions::target_itl_ms, nullptr, 60e3},
      {"prompt_cache.pinning.max_share", "3", &EngineOptions::prefix_cache_pin_share, nullptr, 0.9},
      {"prompt_cache.pinning.ttl_ms", "1", nullptr, &EngineOptions::prefix_cache_pin_ttl_ms, 1000},
      {"prompt_cache.max_entries", "0", nullptr, &EngineOptions::prefix_cache_max_entries, 1},
  };
  for (const Case& c : kCases) {
    const Config config = load_given({.variables = {{find_key(c.path)->own_variable(), c.given}}});
    const EngineOptions& engine = config.settings.engine;
    EXPECT_EQ(c.number != nullptr ? engine.*c.number : engine.*c.whole, c.taken) << c.path;
    EXPECT_THAT(config.warnings, ElementsAre(HasSubstr("is outside"))) << c.path;
  }
  const Config large = load_given({.file = "mlx:\n  large_models_alone: on\n"});
  EXPECT_TRUE(large.settings.engine.large_models_alone);
}

TEST(Load, ThresholdsOfTheWindowStandInOrder) {
  const Config config = load_given({.variables = {{"MLX_ADAPTIVE_WINDOW_MEDIUM_THRESHOLD", "9"}}});
  EXPECT_EQ(config.settings.engine.admission_window.adaptive.high_threshold, 9);
  EXPECT_THAT(config.warnings, ElementsAre(HasSubstr("high_load_threshold = 6 is below")));
}

TEST(Load, RefusesAFlagOutsideItsRange) {
  EXPECT_THAT(refusal({.flags = {{"server.port", "70000"}}}),
              HasSubstr("--port = 70000 is outside 0 … 65535"));
  EXPECT_THAT(refusal({.flags = {{"prompt_cache.ttl_ms", "100000"}}}),
              HasSubstr("--prefix-cache-ttl = 100000 is outside 1 … 86400 s; 0: never"));
  EXPECT_THAT(refusal({.flags = {{"server.idle_timeout_ms", "soon"}}}),
              HasSubstr("--idle-timeout = 'soon' is not a number, 0.1 … 86400 s"));
}

TEST(Load, NamesEveryProblemAtOnceWithLineAndRemedy) {
  const std::string text = refusal({.file = "server:\n"
                                            "  prot: 9001\n"
                                            "  host: [a, b]\n"
                                            "mlx:\n"
                                            "  concurrency_limit: many\n"
                                            "engine:\n"
                                            "  backend: cdua\n"
                                            "  kv_cache_bytes: 2XiB\n"
                                            "batch_window_ms: 1\n",
                                    .variables = {{"MLX_AUTO_TUNE", "perhaps"}}});
  EXPECT_THAT(text, testing::StartsWith("Configuration validation failed:\n"));
  EXPECT_THAT(text, HasSubstr("runtime.yaml:2: no key 'server.prot' (did you mean server.port"));
  EXPECT_THAT(text, HasSubstr("runtime.yaml:3: server.host = '[a, b]' is not one text"));
  EXPECT_THAT(text,
              HasSubstr("runtime.yaml:5: mlx.concurrency_limit = 'many' is not a whole number, 1 … 4096"));
  EXPECT_THAT(text,
              HasSubstr("runtime.yaml:7: engine.backend = 'cdua' is not one of auto, cpu, mlx or cuda"));
  EXPECT_THAT(text, HasSubstr("did you mean cuda?"));
  EXPECT_THAT(text, HasSubstr("runtime.yaml:8: engine.kv_cache_bytes = '2XiB' is not bytes such as 2GiB"));
  EXPECT_THAT(
      text,
      HasSubstr("runtime.yaml:9: no key 'batch_window_ms' (did you mean gpu_scheduler.batch_window_ms"));
  EXPECT_THAT(text, HasSubstr("MLX_AUTO_TUNE = 'perhaps' is not on or off"));
  EXPECT_THAT(text, HasSubstr("7 problems"));
}

TEST(Load, ReadsListsMapsBytesAndSeconds) {
  const Config config = load_given({.file = "server:\n"
                                            "  cors_origins: [https://a.example, https://b.example]\n"
                                            "  max_body_bytes: 20MiB\n"
                                            "scheduling:\n"
                                            "  tenant_weights: {alice: 2, b=c: 0.5}\n"
                                            "model:\n  memory_cache:\n    warmup_on_start: smollm2\n"
                                            "kv_cache_pool:\n  ttl_seconds: 1.5\n",
                                    .flags = {{"server.drain_timeout_ms", "0.25"}}});
  EXPECT_THAT(config.warnings, IsEmpty());
  EXPECT_THAT(config.settings.server.cors_origins, ElementsAre("https://a.example", "https://b.example"));
  EXPECT_EQ(config.settings.server.max_body_bytes, 20u << 20);
  EXPECT_THAT(config.settings.engine.tenant_weights,
              ElementsAre(testing::Pair("alice", 2.0), testing::Pair("b=c", 0.5)));
  EXPECT_THAT(config.settings.models, ElementsAre("smollm2"));
  EXPECT_EQ(config.settings.engine.prefix_cache_ttl_ms, 1500);
  EXPECT_EQ(config.settings.drain_timeout_ms, 250);
}

TEST(Load, OnAndOffAreReadInAnyCase) {
  for (const char* on : {"on", "ON", "True", "yes", "1"}) {
    EXPECT_TRUE(
        load_given({.variables = {{"MLX_GPU_SCHEDULER", on}}}).settings.engine.admission_window.enabled)
        << on;
  }
  for (const char* off : {"off", "Off", "FALSE", "no", "0"}) {
    EXPECT_FALSE(
        load_given({.variables = {{"MLX_FAST_PATH", off}}}).settings.engine.admission_window.fast_path)
        << off;
  }
}

TEST(Load, NullAndCommentedOutSectionsSayNothing) {
  const Config config = load_given({.file = "server:\n  # port: 1\ngpu_scheduler:\n  preset: null\n"});
  EXPECT_THAT(config.warnings, IsEmpty());
  EXPECT_EQ(config.settings.server.port, 8000);
}

TEST(Load, WhatIsNotInThisBuildIsSaidByName) {
  const Config config = load_given({.file = "python_runtime:\n  max_restarts: 3\n  python_path: python\n"
                                            "mlx:\n  force_metal_sync: true\n  concurrency_limit: 2\n",
                                    .variables = {{"MLX_METAL_SYNC_INTERVAL", "3"}}});
  EXPECT_THAT(
      config.warnings,
      ElementsAre(AllOf(HasSubstr("runtime.yaml:2: python_runtime.max_restarts and 1 more of python_runtime"),
                        HasSubstr("not in this build")),
                  HasSubstr("runtime.yaml:5: mlx.force_metal_sync: not in this build"),
                  HasSubstr("MLX_METAL_SYNC_INTERVAL: not in this build")));
  EXPECT_EQ(config.settings.engine.max_running, 2);
}

TEST(Load, AMistypedVariableIsSaid) {
  EXPECT_THAT(load_given({.variables = {{"MLX_GPU_SHEDULER", "on"}, {"MLX_SOMEBODY_ELSES", "x"}}}).warnings,
              ElementsAre(HasSubstr("did you mean MLX_GPU_SCHEDULER?")));
}

TEST(Load, TheOwnNameCountsAndADifferenceIsSaid) {
  const std::string file = "kv_cache_pool:\n  enabled: false\nprompt_cache:\n  enabled: true\n";
  const Config config = load_given({.file = file});
  EXPECT_TRUE(config.settings.engine.prefix_cache);
  EXPECT_THAT(config.warnings, ElementsAre(HasSubstr("both set prompt_cache.enabled, differently")));
}

TEST(Environments, ABlockIsLaidOverTheFileWhereItIsNamed) {
  const std::string file =
      "server:\n  port: 9001\n  keep_requests: 5\n"
      "environments:\n"
      "  production:\n    server:\n      port: 9002\n"
      "  test:\n    server:\n      port: 9003\n";
  EXPECT_EQ(load_given({.file = file}).settings.server.port, 9001);
  const Config production = load_given({.file = file, .variables = {{"NODE_ENV", "production"}}});
  EXPECT_EQ(production.settings.server.port, 9002);
  EXPECT_EQ(production.settings.server.keep_requests, 5);
  EXPECT_EQ(production.environment, "production");
  const Given both{.file = file, .variables = {{"NODE_ENV", "production"}, {"MLXS_ENV", "test"}}};
  EXPECT_EQ(load_given(both).settings.server.port, 9003);
  EXPECT_EQ(load_given({.file = file, .variables = {{"NODE_ENV", "staging"}}}).settings.server.port, 9001);
  EXPECT_THAT(refusal({.file = file, .variables = {{"MLXS_ENV", "staging"}}}),
              HasSubstr("has no environments.staging (it has production, test)"));
}

TEST(Environments, BlocksThatDoNotApplyAreCheckedToo) {
  EXPECT_THAT(refusal({.file = "environments:\n  test:\n    server:\n      prot: 1\n"}),
              HasSubstr(":4: no key 'environments.test.server.prot' (did you mean server.port"));
}

TEST(Presets, AreTheOnesOfTheGpuScheduler) {
  const auto preset = [](const char* name) {
    return load_given({.flags = {{"gpu_scheduler.preset", name}}}).settings.engine.admission_window;
  };
  const AdmissionWindowOptions latency = preset("latency_sensitive");
  EXPECT_TRUE(latency.enabled);
  EXPECT_EQ(latency.window_ms, 0.75);
  EXPECT_EQ(latency.batch_size, 2);
  EXPECT_FALSE(latency.adaptive.enabled);
  EXPECT_FALSE(latency.auto_tune.enabled);
  EXPECT_TRUE(preset("balanced").auto_tune.enabled);
  EXPECT_TRUE(preset("balanced").adaptive.enabled);
  EXPECT_EQ(preset("throughput_optimized").auto_tune.max_batch, 16);
  EXPECT_EQ(preset("throughput_optimized").window_ms, 2);
  EXPECT_THAT(refusal({.flags = {{"gpu_scheduler.preset", "balance"}}}), HasSubstr("did you mean balanced?"));
}

TEST(Presets, YieldToWhatNamesOneValueAndToTheirOwnDefinition) {
  const Given given{.file =
                        "gpu_scheduler:\n  enabled: false\n  max_batch_size: 5\n"
                        "  presets:\n    latency_sensitive:\n      batch_window_ms: 1.5\n",
                    .variables = {{"MLX_FAST_PATH", "off"}},
                    .flags = {{"gpu_scheduler.preset", "latency_sensitive"}}};
  const AdmissionWindowOptions window = load_given(given).settings.engine.admission_window;
  EXPECT_TRUE(window.enabled) << "the flag's preset wins over the file";
  EXPECT_EQ(window.batch_size, 2);
  EXPECT_EQ(window.window_ms, 1.5) << "the file says what the preset is";
  EXPECT_FALSE(window.fast_path) << "a variable names one value";
  const Config file = load_given({.file = "gpu_scheduler:\n  preset: balanced\n  max_batch_size: 5\n"});
  EXPECT_EQ(file.settings.engine.admission_window.batch_size, 5);
  EXPECT_TRUE(file.settings.engine.admission_window.auto_tune.enabled);
  EXPECT_EQ(file.of("gpu_scheduler.enabled").from, Effective::From::kPreset);
}

TEST(Presets, ThatAreTurnedOffAreSaid) {
  EXPECT_THAT(load_given({.file = "gpu_scheduler:\n  preset: balanced\n  enabled: off\n"}).warnings,
              ElementsAre(HasSubstr("nothing is held back")));
}

TEST(Together, ALeastBatchAboveTheMostIsLowered) {
  const Config config =
      load_given({.variables = {{"MLX_AUTO_TUNE_MIN_BATCH", "8"}, {"MLX_AUTO_TUNE_MAX_BATCH", "4"}}});
  EXPECT_EQ(config.settings.engine.admission_window.auto_tune.min_batch, 4);
  EXPECT_EQ(config.of("gpu_scheduler.auto_tune.min_batch").value, Value(std::int64_t{4}));
  EXPECT_THAT(config.warnings, ElementsAre(HasSubstr("exceeds max_batch")));
}

TEST(Together, AFolderTurnsTheDiskTierOn) {
  const auto folder = [](const Given& given) { return load_given(given).settings.engine.prefix_cache_dir; };
  EXPECT_EQ(folder({.flags = {{"prompt_cache.persistence.path", "/tmp/p"}}}), "/tmp/p");
  EXPECT_EQ(folder({.file = "prompt_cache:\n  persistence:\n    enabled: false\n    path: /tmp/p\n"}), "");
  EXPECT_EQ(
      folder({.file = "cache:\n  cache_dir: /tmp/c\nprompt_cache:\n  persistence:\n    enabled: true\n"}),
      "/tmp/c/prompts");
  EXPECT_THAT(refusal({.file = "prompt_cache:\n  enabled: off\n  persistence:\n    path: /tmp/p\n"}),
              HasSubstr("prompt_cache.enabled is off"));
}

TEST(Together, ACertificateNeedsItsKey) {
  EXPECT_THAT(refusal({.flags = {{"server.tls.cert_file", "a.pem"}}}), HasSubstr("--tls-key"));
}

TEST(Together, AUnixSocketTakesThePortsPlaceUnlessOneIsAskedFor) {
  EXPECT_TRUE(load_given({}).settings.server.listen_tcp);
  EXPECT_FALSE(load_given({.flags = {{"server.unix_socket", "/s"}}}).settings.server.listen_tcp);
  EXPECT_TRUE(load_given({.flags = {{"server.unix_socket", "/s"}, {"server.port", "8000"}}})
                  .settings.server.listen_tcp);
  EXPECT_TRUE(load_given({.file = "server: {unix_socket: /s, host: 127.0.0.1}"}).settings.server.listen_tcp);
}

TEST(Together, ASocketsModeIsOctal) {
  EXPECT_EQ(load_given({}).settings.server.unix_socket_mode, 0600);
  EXPECT_EQ(load_given({.file = "server: {unix_socket_mode: 0660}"}).settings.server.unix_socket_mode, 0660);
  for (const char* wrong : {"9", "1000", "-1", "rw", "60 "}) {
    EXPECT_THAT(refusal({.flags = {{"server.unix_socket_mode", wrong}}}),
                AllOf(HasSubstr("--unix-socket-mode"), HasSubstr("permission bits")));
  }
}

TEST(Together, TheServersFlagsReachItsOptions) {
  const ServerOptions server = load_given({.flags = {{"server.slow_reader", "cancel"},
                                                     {"server.slow_reader_timeout_ms", "0.5"},
                                                     {"server.keep_alive_ms", "0"},
                                                     {"server.rate_limits.tokens_per_minute", "40"},
                                                     {"server.trusted_proxies", "10.0.0.0/8,unix"}}})
                                   .settings.server;
  EXPECT_EQ(server.slow_reader, SlowReader::kCancel);
  EXPECT_EQ(server.slow_reader_timeout_ms, 500);
  EXPECT_EQ(server.keep_alive_ms, 0);
  EXPECT_EQ(server.rate_limits.tokens_per_minute, 40);
  EXPECT_THAT(server.trusted_proxies, ElementsAre("10.0.0.0/8", "unix"));
  EXPECT_EQ(load_given({}).settings.server.slow_reader, SlowReader::kPause);
}

TEST(Files, ThatAreNoYamlAreRefusedWithTheirLine) {
  EXPECT_THAT(refusal({.file = "server:\n  port: 1\n bad"}), HasSubstr("runtime.yaml:3: no YAML"));
  EXPECT_THAT(refusal({.file = "- a\n- b\n"}), HasSubstr("no map of keys"));
  EXPECT_THAT(refusal({.file = "server:\n  port: 1\n  port: 2\n"}),
              HasSubstr(":3: server.port is given twice"));
  EXPECT_THAT(refusal({.file = "a: &a {port: 1}\nserver:\n  <<: *a\n"}), HasSubstr(":3: merge keys"));
}

TEST(Files, ThatAreNotThereAreNamed) {
  try {
    load({.file = "/nowhere/runtime.yaml", .text = {}, .env = {}, .variables = {}, .flags = {}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_THAT(error.full(), AllOf(HasSubstr("/nowhere/runtime.yaml"), HasSubstr("--config")));
  }
}

TEST(Secrets, AreNeverShown) {
  const Config config = load_given({.variables = {{"MLXS_API_KEY", "very-secret"}}});
  EXPECT_EQ(config.settings.api_key, "very-secret");
  EXPECT_THAT(config.of("server.api_key").shown(), Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace mlxs::config
