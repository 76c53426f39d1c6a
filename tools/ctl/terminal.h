// Where a run reads and writes. Tests give strings.
#pragma once

#include <istream>
#include <ostream>

#include "tools/ctl/format.h"

namespace terrace::ctl {

// Borrowed streams and what is known of them. Confined to the main thread.
struct Terminal {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  enum class Kind : uint8_t { kStream, kTerminal };
  Kind in_kind = Kind::kStream;
  Kind out_kind = Kind::kStream;
  Kind err_kind = Kind::kStream;
  // Of `out`: kAnsi on a terminal unless $NO_COLOR is set and not empty.
  Style style{Style::Colour::kNever};
};

}  // namespace terrace::ctl
