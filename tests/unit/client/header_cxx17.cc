// The C++ headers alone, as a C++17 program without our flags sees them.
#include "terrace/terrace.hpp"
#include "terrace/watch.hpp"

terrace_status HeaderIsCxx17();

terrace_status HeaderIsCxx17() {
  return terrace::Completion().status();
}
