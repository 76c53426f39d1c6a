// Outcomes that rooms hand to each other. An outcome is not an error: it is counted, never logged
// as a fault. The numeric values equal those of the enums of the same name in
// proto/terrace/v1/cache.proto (a test compares them).
#pragma once

#include <cstdint>

namespace terrace {

enum class KeyState : uint8_t { kMiss = 0, kReady = 1, kPending = 2, kLower = 3, kInvalid = 4 };

enum class Rule : uint8_t { kPrefix = 1, kWindow = 2, kStateAtEnd = 3, kIndependent = 4 };

enum class GetOutcome : uint8_t {
  kMiss = 0,
  kOk = 1,
  kCorrupt = 2,
  kBusy = 3,
  kDeadline = 4,
  kInvalid = 5,
  kRegionFailed = 6,
  kTrimmed = 7,
  kCancelled = 8,
};

enum class PutOutcome : uint8_t { kStored = 1, kDuplicate = 2, kDeclined = 3, kFailed = 4 };

enum class Reason : uint8_t {
  kNone = 0,
  kNoSpace = 1,
  kQuota = 2,
  kAdmission = 3,
  kDraining = 4,
  kInvalid = 5,
  kRegionFailed = 6,
  kDeadline = 7,
  kCancelled = 8,
  kCleared = 9,
  kTierFault = 10,
  kNotPresent = 11,
  kBusy = 12,
  kTooLate = 13,
};

enum class Level : uint8_t {
  kSourceFree = 1,
  kDram = 2,
  kLocalWritten = 3,
  kLocalSynced = 4,
  kPool = 5
};

enum class Priority : uint8_t { kLow = 1, kNormal = 2, kHigh = 3 };

}  // namespace terrace
