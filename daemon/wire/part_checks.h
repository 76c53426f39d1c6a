// Envelope checks of what every batch call carries, and its move from protobuf into the store's own types.
//
// Two steps, so that nothing is allocated or moved before the whole request is known to be sound: Check... look,
// Take... move the large strings out of the message. Single keys are judged by the store, per key.
// Errors are INVALID_ARGUMENT naming field and limit. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "terrace/v1/cache.pb.h"

#include "daemon/block_store.h"

namespace terrace {

inline constexpr size_t kMaxRequestIdBytes = 64;
inline constexpr size_t kDigestBytes = 16;
inline constexpr uint32_t kDefaultKeyBytes = 32;
inline constexpr size_t kMaxReleases = 1024;
inline constexpr size_t kMaxMetadataBytes = size_t{12} << 10;
inline constexpr size_t kMaxStopReasonBytes = 32;
inline constexpr uint32_t kMaxPinSeconds = 2592000;

// Names "name", "name.inner", "name[3]" or "name[3].inner" only when there is something to complain of.
struct FieldPath {
  absl::string_view name;
  int index = -1;
  [[nodiscard]] std::string Text(absl::string_view inner = {}) const;
};

absl::Status CheckPart(const v1::Part& part, const FieldPath& path);
// 1 to 64 parts, 16,384 keys in all. *keys gets their number.
absl::Status CheckParts(const google::protobuf::RepeatedPtrField<v1::Part>& parts, uint32_t* keys);
// A single, required part.
absl::Status CheckOnlyPart(bool present, const v1::Part& part, uint32_t* keys);

// Of a part that passed its check.
uint32_t KeyCountOf(const v1::Part& part);
StorePart TakePart(v1::Part& part);
std::vector<StorePart> TakeParts(google::protobuf::RepeatedPtrField<v1::Part>& parts);

absl::Status CheckRegionBlocks(const v1::RegionBlocks& region, uint32_t keys, const FieldPath& path);
RegionBlocks TakeRegionBlocks(const v1::RegionBlocks& region);

absl::Status CheckRequestId(absl::string_view request_id);
// 16 bytes.
absl::Status CheckDigest(absl::string_view bytes, absl::string_view field);
// Of 16 bytes; zero for an empty string.
Digest128 DigestFrom(const std::string& bytes);

absl::Status CheckPriority(v1::Priority priority, absl::string_view field);
Priority PriorityFrom(v1::Priority priority);
// LEVEL_SOURCE_FREE and LEVEL_DRAM; UNIMPLEMENTED for what lies below DRAM.
// `highest`: of the levels that the store offers.
absl::Status CheckLevel(v1::Level level, Level highest, absl::string_view field);
Level LevelFrom(v1::Level level);

absl::Duration HoldFrom(uint32_t hold_ms);

// Sizes of strings and labels, before anything is copied; ValidateRecord says the rest.
absl::Status CheckRecord(const v1::NamespaceRecord& record);
NamespaceRecord RecordFrom(const v1::NamespaceRecord& record);
void FillRecord(const NamespaceRecord& record, v1::NamespaceRecord* out);

}  // namespace terrace
