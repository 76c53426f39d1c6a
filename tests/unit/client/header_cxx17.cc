// The C++ header alone, as a C++17 program without our flags sees it.
#include "terrace/terrace.hpp"

terrace_status HeaderIsCxx17();

terrace_status HeaderIsCxx17() {
  return terrace::Completion().status();
}
