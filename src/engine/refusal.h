// What a client is told when the scheduler does not take its request. Pure.
#pragma once

#include <string>

#include "engine/request.h"
#include "mlxs/error.h"
#include "sched/step_plan.h"

namespace mlxs {

Error refusal_error(const Refusal& refusal, const Request& request, const std::string& model,
                    int context_limit);

}  // namespace mlxs
