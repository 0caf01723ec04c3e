// Metrics of a server's connections and answers, of what is exported, and of the process.
#pragma once

#include "telemetry/family_builder.h"
#include "telemetry/server_counters.h"

namespace mlxs {

void add_server_families(FamilyBuilder& out, const ServerCounters& counters);
void add_export_families(FamilyBuilder& out, const ExportCounts& exports);
void add_process_families(FamilyBuilder& out);

}  // namespace mlxs
