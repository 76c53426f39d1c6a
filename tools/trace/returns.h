// When the conversations of a trace come back: what an engine that knew could tell.
#pragma once

#include <vector>

#include "tools/trace/request_trace.h"

namespace terrace {

// One a request: milliseconds from its time to that of the next request which asks for at least
// half of its blocks, from the first on; 0: none does.
std::vector<double> ReturnsOf(const RequestTrace& trace);

}  // namespace terrace
