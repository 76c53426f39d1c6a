#include "tiers/placement/eviction_policy.h"

#include <string>

#include "tiers/placement/lru.h"
#include "tiers/placement/phl.h"

namespace terrace {

StopReason StopReasonFrom(std::string_view text) {
  if (text.empty()) {
    return StopReason::kUnknown;
  }
  if (text == "stop" || text == "end_turn" || text == "stop_sequence") {
    return StopReason::kEndOfTurn;
  }
  if (text == "tool_calls" || text == "tool_use" || text == "function_call") {
    return StopReason::kToolCall;
  }
  if (text == "length" || text == "max_tokens") {
    return StopReason::kLength;
  }
  return StopReason::kOther;
}

absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakeEvictionPolicy(std::string_view name,
                                                                   RecencySource& recency) {
  if (name == "lru") {
    return MakeLruPolicy(recency);
  }
  if (name == "phl") {
    return MakePhlPolicy({});
  }
  std::string known;
  for (const std::string_view each : EvictionPolicyNames()) {
    known.append(known.empty() ? "" : ", ").append(each);
  }
  return absl::InvalidArgumentError("policy: unknown; there is: " + known);
}

bool PolicyLearns(std::string_view policy) {
  RecencySource recency;
  const auto made = MakeEvictionPolicy(policy, recency);
  return made.ok() && (*made)->learns();
}

absl::Status CheckLearnt(std::string_view policy, absl::string_view bytes) {
  RecencySource recency;
  const auto made = MakeEvictionPolicy(policy, recency);
  Lesson* lesson = made.ok() ? (*made)->BeginLesson() : nullptr;
  return lesson == nullptr ? absl::InvalidArgumentError("the policy does not learn")
                           : lesson->Load(bytes);
}

std::vector<std::string_view> EvictionPolicyNames() {
  return {"lru", "phl"};
}

}  // namespace terrace
