// The registry: every metric with its name, type, meaning and labels, filled from what was observed and from
// the levels of a moment. Private to telemetry/.
#pragma once

#include <prometheus/metric_family.h>

#include <span>
#include <vector>

#include "telemetry/metrics.h"
#include "telemetry/series.h"

namespace mlxs {

std::vector<prometheus::MetricFamily> metric_families(const SeriesList<ModelSeries>& models,
                                                      const SeriesList<TenantSeries>& tenants,
                                                      std::span<const ThroughputNow> rates,
                                                      const MetricsNow& now);

}  // namespace mlxs
