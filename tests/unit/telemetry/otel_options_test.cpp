// The OTEL_* variables as the OpenTelemetry specification defines them.
#include "telemetry/otel_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "mlxs/error.h"

namespace mlxs {
namespace {

using testing::ElementsAre;
using testing::Pair;

OtelOptions read(std::map<std::string, std::string> variables) {
  return otel_from_environment([&](const char* name) { return variables[name]; });
}

TEST(OtelOptions, NothingGoesOutWithoutAnEndpoint) {
  EXPECT_FALSE(read({}).any());
  EXPECT_FALSE(read({{"OTEL_SERVICE_NAME", "x"}}).any());
}

TEST(OtelOptions, TheSignalsPathsAreAddedToTheCommonEndpointOnly) {
  const OtelOptions options = read({{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/"},
                                    {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://m/own"}});
  EXPECT_EQ(options.traces_url, "http://c:4318/v1/traces");
  EXPECT_EQ(options.metrics_url, "https://m/own");
}

TEST(OtelOptions, HeadersAreDecodedAndASignalsOwnReplaceTheCommonOnes) {
  const OtelOptions options = read({{"OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b%3D, x = y "},
                                    {"OTEL_EXPORTER_OTLP_METRICS_HEADERS", "only=m"}});
  EXPECT_THAT(options.traces_headers, ElementsAre(Pair("api-key", "a b="), Pair("x", "y")));
  EXPECT_THAT(options.metrics_headers, ElementsAre(Pair("only", "m")));
}

TEST(OtelOptions, ASignalAndAllOfItCanBeTurnedOff) {
  const std::string endpoint = "http://c:4318";
  EXPECT_EQ(read({{"OTEL_EXPORTER_OTLP_ENDPOINT", endpoint}, {"OTEL_METRICS_EXPORTER", "none"}}).metrics_url,
            "");
  EXPECT_FALSE(read({{"OTEL_EXPORTER_OTLP_ENDPOINT", endpoint}, {"OTEL_SDK_DISABLED", "True"}}).any());
}

TEST(OtelOptions, ASignalsOwnCompressionGoesBeforeTheCommonOne) {
  EXPECT_FALSE(read({}).traces_gzip);
  const OtelOptions options =
      read({{"OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"}, {"OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "none"}});
  EXPECT_TRUE(options.traces_gzip);
  EXPECT_FALSE(options.metrics_gzip);
}

TEST(OtelOptions, Samplers) {
  EXPECT_DOUBLE_EQ(read({}).sample_share, 0.1);
  EXPECT_TRUE(read({}).follow_parent);
  EXPECT_DOUBLE_EQ(read({{"OTEL_TRACES_SAMPLER_ARG", "0.25"}}).sample_share, 0.25);
  const OtelOptions ratio =
      read({{"OTEL_TRACES_SAMPLER", "traceidratio"}, {"OTEL_TRACES_SAMPLER_ARG", "0.5"}});
  EXPECT_DOUBLE_EQ(ratio.sample_share, 0.5);
  EXPECT_FALSE(ratio.follow_parent);
  const OtelOptions on = read({{"OTEL_TRACES_SAMPLER", "parentbased_always_on"}});
  EXPECT_DOUBLE_EQ(on.sample_share, 1);
  EXPECT_TRUE(on.follow_parent);
  const OtelOptions off = read({{"OTEL_TRACES_SAMPLER", "always_off"}});
  EXPECT_DOUBLE_EQ(off.sample_share, 0);
  EXPECT_FALSE(off.keep_failures);
}

TEST(OtelOptions, TheResource) {
  const OtelOptions options =
      read({{"OTEL_RESOURCE_ATTRIBUTES", "service.name=a,deployment.environment=prod"},
            {"OTEL_SERVICE_NAME", "b"}});
  EXPECT_EQ(options.service_name, "b");
  EXPECT_THAT(options.resource_attributes, ElementsAre(Pair("deployment.environment", "prod")));
}

TEST(OtelOptions, WhatCannotBeHonouredIsRefusedByName) {
  const auto field = [](std::map<std::string, std::string> variables) -> std::string {
    variables.emplace("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
    try {
      validate(read(variables));
    } catch (const Error& error) {
      EXPECT_FALSE(error.hint().empty());
      return error.field();
    }
    return "";
  };
  EXPECT_EQ(field({}), "");
  EXPECT_EQ(field({{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"}}), "");
  EXPECT_EQ(field({{"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"}}), "OTEL_EXPORTER_OTLP_PROTOCOL");
  EXPECT_EQ(field({{"OTEL_TRACES_SAMPLER", "jaeger_remote"}}), "OTEL_TRACES_SAMPLER");
  EXPECT_EQ(field({{"OTEL_EXPORTER_OTLP_TIMEOUT", "10s"}}), "OTEL_EXPORTER_OTLP_TIMEOUT");
  EXPECT_EQ(field({{"OTEL_EXPORTER_OTLP_HEADERS", "secret"}}), "OTEL_EXPORTER_OTLP_HEADERS");
  EXPECT_EQ(field({{"OTEL_TRACES_SAMPLER_ARG", "2"}}), "trace sample share");
  EXPECT_EQ(field({{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "c:4318"}}), "OTLP traces endpoint");
}

}  // namespace
}  // namespace mlxs
