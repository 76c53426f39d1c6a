// The result of a function of the ABI: a status and the text of terrace_last_error.
#pragma once

#include <string>
#include <utility>

#include "terrace/terrace.h"

namespace terrace::client {

struct [[nodiscard]] Verdict {
  terrace_status status = TERRACE_OK;
  std::string text;

  [[nodiscard]] bool ok() const { return status == TERRACE_OK; }
  static Verdict Invalid(std::string text) { return {TERRACE_INVALID_ARGUMENT, std::move(text)}; }
};

}  // namespace terrace::client
