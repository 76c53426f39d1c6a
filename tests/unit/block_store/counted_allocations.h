// Counts every allocation of the program that links it.
#pragma once

#include <cstdint>

namespace terrace::testing {

// By operator new, since the program began. Thread-safe.
uint64_t CountedAllocations();

}  // namespace terrace::testing
