// Numbers that whoever runs a test by hand may set: how long, from which seed.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace terrace::doubles {

// `otherwise` where the variable is not set or is empty.
inline uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr || *text == '\0' ? otherwise : std::strtoull(text, nullptr, 10);
}

}  // namespace terrace::doubles
