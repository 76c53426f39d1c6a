// Included before everything else in C++ of builds with TERRACE_SANITIZE=thread.
//
// Protobuf's headers lay MapField out with a member more when the compiler says that it instruments
// for ThreadSanitizer, and the distribution's libprotobuf was built without: its functions would
// then read beside what they look for. So the compiler's word is taken back, once those have seen it
// who are right to act on it.
#pragma once

#include <cstddef>

#include "absl/base/config.h"

#define TERRACE_UNDER_TSAN 1
#undef __SANITIZE_THREAD__
