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
  // kError: standard output carried payload, so `text` goes to standard error. kShown: all has been
  // shown, line by line.
  enum class Text : uint8_t { kOutput, kError, kShown } text_to = Text::kOutput;
};

}  // namespace terrace::ctl
