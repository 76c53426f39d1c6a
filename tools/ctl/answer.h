// What a verb has to say: the same twice, for scripts and for people.
#pragma once

#include <string>

#include "tools/ctl/command_line.h"
#include "tools/ctl/proto_json.h"

namespace terrace::ctl {

struct Answer {
  Json json = Json::object();
  std::string text;         // ends with a newline, or is empty
  int exit_code = kExitOk;  // kExitFailed: it was answered, and the answer is bad news
  // kPayload: standard output carried payload, so `text` goes to standard error.
  enum class Text : uint8_t { kOutput, kError } text_to = Text::kOutput;
};

}  // namespace terrace::ctl
