// TERRACE_CHECK: a broken invariant ends the process, in release builds too. Never for input,
// hardware or peers. (The distributions' Abseil, 20220623, has no public CHECK.)
#pragma once

#include <cstdio>
#include <cstdlib>

namespace terrace {

[[noreturn]] inline void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: invariant broken: %s\n", file, line, condition);
  std::abort();
}

}  // namespace terrace

#define TERRACE_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::terrace::CheckFailed(#condition, __FILE__, __LINE__))
