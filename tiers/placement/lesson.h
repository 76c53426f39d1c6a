// What a policy that learns has seen and not learnt from yet, apart from the policy itself: so that
// its owner's lock need not be held over the learning.
//
// From BeginLesson until EndLesson of the policy a lesson belongs to whoever began it, who uses it
// without the lock; confined to one thread at a time.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace terrace {

class Lesson {
 public:
  virtual ~Lesson() = default;

  // Learns from all that was seen. Bounded by what a policy keeps for one lesson: tens of
  // milliseconds.
  virtual void Study() = 0;

  // What is known after Study, for Load in a later life of the process. At most 2.1 MiB; a few
  // milliseconds.
  [[nodiscard]] virtual std::string Save() const = 0;

  // Takes over what was saved, instead of what is known. INVALID_ARGUMENT: these are no such bytes,
  // or of another version; nothing has changed then.
  virtual absl::Status Load(absl::string_view bytes) = 0;
};

}  // namespace terrace
