// What every function of the ABI does: no exception leaves it, and the text of a failure is kept
// for terrace_last_error.
#pragma once

#include <algorithm>
#include <cstring>
#include <new>
#include <string_view>

#include "client/src/verdict.h"

namespace terrace::client {

// Of the calling thread; zero-terminated.
inline thread_local char last_error[256] = "";

inline terrace_status Report(terrace_status status, std::string_view text) {
  const size_t length = std::min(text.size(), sizeof(last_error) - 1);
  std::memcpy(last_error, text.data(), length);
  last_error[length] = '\0';
  return status;
}

// Runs a function that returns a Verdict; what it throws becomes a status.
template <typename Function>
terrace_status Guarded(Function function) noexcept {
  try {
    const Verdict verdict = function();
    return verdict.ok() ? TERRACE_OK : Report(verdict.status, verdict.text);
  } catch (const std::bad_alloc&) {
    return Report(TERRACE_RESOURCE_EXHAUSTED, "no memory");
  } catch (...) {
    return Report(TERRACE_INTERNAL, "an unexpected failure inside libterrace");
  }
}

}  // namespace terrace::client
