// The envelope checks of cache.proto: what fails a whole call with INVALID_ARGUMENT naming field
// and limit. Pure; nothing here knows what is stored.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "terrace/v1/cache.pb.h"

namespace terrace::doubles {

inline constexpr int kPartsPerCall = 64;
inline constexpr size_t kKeysPerCall = 16384;
inline constexpr size_t kMessageBytes = size_t{4} << 20;
inline constexpr size_t kInlineBytes = size_t{3} << 20;
inline constexpr size_t kChunkBytes = size_t{1} << 20;
inline constexpr size_t kMetadataBytes = size_t{12} << 10;
inline constexpr uint64_t kPayloadBytes = uint64_t{64} << 20;
inline constexpr uint32_t kHoldMs = 600'000;

absl::Status Invalid(std::string_view field, std::string_view limit);

// Length of a part's keys with zero resolved, and the keys one by one.
uint32_t KeyBytes(const v1::Part& part);
std::vector<std::string> SplitKeys(const v1::Part& part);
size_t KeyCount(const google::protobuf::RepeatedPtrField<v1::Part>& parts);

absl::Status CheckRecord(const v1::NamespaceRecord& record);
absl::Status CheckPart(const v1::Part& part, std::string_view field);
absl::Status CheckParts(const google::protobuf::RepeatedPtrField<v1::Part>& parts);
absl::Status CheckProbe(const v1::ProbeRequest& request);
absl::Status CheckGet(const v1::GetRequest& request);
// Sizes of single payloads are checked per key, not here; the sum of inline payload is.
absl::Status CheckPut(const v1::PutRequest& request, uint64_t block_bytes);

// Per key, with "one value: the same for all" and "none: block_bytes" resolved.
std::vector<uint64_t> PayloadSizes(const v1::PutRequest& request, uint64_t block_bytes);

}  // namespace terrace::doubles
