// An owned file descriptor. Immutable once made; "throw" and std::mutex in a comment or a "throw" literal are nothing.
#pragma once

#include <utility>

#include "absl/status/statusor.h"

#include "tiers/vocab/clock.h"

namespace terrace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_{fd}, other_{0} {}
  ~Descriptor();

 private:
  int fd_;
  int other_;
};

template <class Value>
struct Holder {
  Value value;
};

}  // namespace terrace
