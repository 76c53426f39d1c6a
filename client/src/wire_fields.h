// Field numbers of proto/terrace/v1, for protozero, which has no generated code. tests/unit/client
// compares every one of them with the descriptors that protoc makes.
#pragma once

#include <cstdint>

namespace terrace::client::wire {

using Field = uint32_t;

namespace namespace_record {
inline constexpr Field kModel = 1;
inline constexpr Field kWeightsRevision = 2;
inline constexpr Field kKvDtype = 3;
inline constexpr Field kQuantization = 4;
inline constexpr Field kLayout = 5;
inline constexpr Field kEngineFormat = 6;
inline constexpr Field kHashAlgorithm = 7;
inline constexpr Field kHashSeed = 8;
inline constexpr Field kBlockTokens = 9;
inline constexpr Field kBlockBytes = 10;
inline constexpr Field kGroup = 11;
inline constexpr Field kGroupKind = 12;
inline constexpr Field kShardCount = 13;
inline constexpr Field kShardRank = 14;
inline constexpr Field kSharding = 15;
inline constexpr Field kParallel = 16;
inline constexpr Field kKeySuffix = 17;
inline constexpr Field kLabels = 18;
}  // namespace namespace_record

namespace map_entry {
inline constexpr Field kKey = 1;
inline constexpr Field kValue = 2;
}  // namespace map_entry

namespace open_namespace_request {
inline constexpr Field kRecord = 1;
}  // namespace open_namespace_request
namespace open_namespace_reply {
inline constexpr Field kBootId = 1;
inline constexpr Field kNamespaceDigest = 2;
}  // namespace open_namespace_reply

namespace clear_namespace_request {
inline constexpr Field kNamespaceDigest = 1;
}  // namespace clear_namespace_request
namespace clear_namespace_reply {
inline constexpr Field kGeneration = 2;
}  // namespace clear_namespace_reply

namespace part {
inline constexpr Field kNamespaceDigest = 1;
inline constexpr Field kSalt = 2;
inline constexpr Field kRule = 3;
inline constexpr Field kKeyBytes = 4;
inline constexpr Field kKeys = 5;
inline constexpr Field kFirstToken = 6;
inline constexpr Field kEndTokens = 7;
inline constexpr Field kWindowTokens = 8;
}  // namespace part

namespace probe_request {
inline constexpr Field kParts = 1;
inline constexpr Field kRequestId = 2;
inline constexpr Field kHoldMs = 3;
inline constexpr Field kPrefetch = 4;
}  // namespace probe_request
namespace probe_reply {
inline constexpr Field kStates = 2;
inline constexpr Field kPartHits = 3;
inline constexpr Field kBoundaryTokens = 4;
inline constexpr Field kPartBoundaryKeys = 5;
inline constexpr Field kLoadUs = 6;
inline constexpr Field kHitBytes = 7;
inline constexpr Field kHoldId = 8;
inline constexpr Field kHoldMs = 9;
inline constexpr Field kTicket = 10;
inline constexpr Field kRecomputeUs = 11;
inline constexpr Field kWorthTokens = 12;
}  // namespace probe_reply

namespace prefetch_request {
inline constexpr Field kParts = 1;
inline constexpr Field kPriority = 2;
inline constexpr Field kDeadlineMs = 3;
inline constexpr Field kHoldMs = 4;
inline constexpr Field kRequestId = 5;
}  // namespace prefetch_request
namespace prefetch_reply {
inline constexpr Field kTicket = 2;
inline constexpr Field kKeysMoving = 3;
inline constexpr Field kKeysReady = 4;
inline constexpr Field kKeysMissing = 5;
inline constexpr Field kHoldId = 6;
}  // namespace prefetch_reply

namespace ticket_request {
inline constexpr Field kTicket = 1;
inline constexpr Field kWaitMs = 2;
}  // namespace ticket_request
namespace ticket_reply {
inline constexpr Field kState = 2;
inline constexpr Field kKeysTotal = 3;
inline constexpr Field kKeysArrived = 4;
inline constexpr Field kKeysFailed = 5;
inline constexpr Field kBytesArrived = 6;
}  // namespace ticket_reply

namespace region_blocks {
inline constexpr Field kRegionId = 1;
inline constexpr Field kBlockIndexes = 2;
inline constexpr Field kAfterEvent = 3;
inline constexpr Field kProgressSlot = 4;
}  // namespace region_blocks

namespace get_request {
inline constexpr Field kParts = 1;
inline constexpr Field kDelivery = 2;
inline constexpr Field kRegions = 3;
inline constexpr Field kHoldId = 4;
inline constexpr Field kRequestId = 5;
inline constexpr Field kWaitPending = 6;
}  // namespace get_request
namespace get_reply {
inline constexpr Field kOutcomes = 2;
inline constexpr Field kPayloadBytes = 3;
inline constexpr Field kLeaseId = 4;
inline constexpr Field kSlabIds = 5;
inline constexpr Field kSlabOffsets = 6;
}  // namespace get_reply

namespace lease_release {
inline constexpr Field kLeaseId = 1;
}  // namespace lease_release
namespace release_request {
inline constexpr Field kLeases = 1;
inline constexpr Field kHoldIds = 2;
}  // namespace release_request
namespace release_reply {
inline constexpr Field kReleased = 2;
}  // namespace release_reply

namespace hints {
inline constexpr Field kOutputTokens = 1;
inline constexpr Field kStopReason = 2;
inline constexpr Field kSessionEnd = 3;
inline constexpr Field kExpectedReturnMs = 4;
inline constexpr Field kComputeUs = 5;
}  // namespace hints
namespace put_request {
inline constexpr Field kPart = 1;
inline constexpr Field kParent = 2;
inline constexpr Field kPayloadBytes = 3;
inline constexpr Field kRegion = 4;
inline constexpr Field kPayload = 5;
inline constexpr Field kWaitFor = 6;
inline constexpr Field kHints = 8;
inline constexpr Field kRequestId = 9;
}  // namespace put_request
namespace put_reply {
inline constexpr Field kOutcomes = 2;
inline constexpr Field kReasons = 3;
inline constexpr Field kLevels = 4;
}  // namespace put_reply

namespace delete_request {
inline constexpr Field kPart = 1;
}  // namespace delete_request
namespace delete_reply {
inline constexpr Field kDeleted = 2;
}  // namespace delete_reply
namespace pin_request {
inline constexpr Field kPart = 1;
inline constexpr Field kTtlS = 2;
}  // namespace pin_request
namespace pin_reply {
inline constexpr Field kReasons = 2;
}  // namespace pin_reply
namespace unpin_request {
inline constexpr Field kPart = 1;
}  // namespace unpin_request
namespace unpin_reply {
inline constexpr Field kUnpinned = 2;
}  // namespace unpin_reply
namespace cancel_request {
inline constexpr Field kTicket = 1;
inline constexpr Field kCallId = 2;
}  // namespace cancel_request
namespace cancel_reply {
inline constexpr Field kFound = 2;
}  // namespace cancel_reply

namespace hello_request {
inline constexpr Field kProtocolMajor = 1;
inline constexpr Field kProtocolMinor = 2;
inline constexpr Field kClientName = 3;
inline constexpr Field kClientVersion = 4;
inline constexpr Field kPidfd = 5;
inline constexpr Field kFeatures = 6;
}  // namespace hello_request
namespace hello_reply {
inline constexpr Field kBootId = 1;
inline constexpr Field kFeatures = 5;
inline constexpr Field kLeases = 6;
inline constexpr Field kLeaseLimitBytes = 7;
inline constexpr Field kMaxKeys = 8;
inline constexpr Field kMaxMessageBytes = 9;
inline constexpr Field kMaxCallsInFlight = 10;
}  // namespace hello_reply

namespace plane {
inline constexpr Field kOffset = 1;
inline constexpr Field kBlockStride = 2;
inline constexpr Field kSegments = 3;
}  // namespace plane
namespace segment {
inline constexpr Field kOffset = 1;
inline constexpr Field kBytes = 2;
}  // namespace segment
namespace geometry {
inline constexpr Field kBlockCount = 1;
inline constexpr Field kPlanes = 2;
}  // namespace geometry
namespace register_region_request {
inline constexpr Field kRegionId = 1;
inline constexpr Field kKind = 2;
inline constexpr Field kOffset = 3;
inline constexpr Field kBytes = 4;
inline constexpr Field kGeometry = 5;
inline constexpr Field kReadOnly = 6;
inline constexpr Field kHandle = 7;
inline constexpr Field kDeviceUuid = 8;
inline constexpr Field kAllocationBytes = 9;
inline constexpr Field kPlanesPerLayer = 10;
inline constexpr Field kCanaryBlock = 11;
}  // namespace register_region_request
namespace unregister_region_request {
inline constexpr Field kRegionId = 1;
}  // namespace unregister_region_request

namespace map_slab_request {
inline constexpr Field kSlabId = 1;
}  // namespace map_slab_request
namespace map_slab_reply {
inline constexpr Field kSlabBytes = 2;
}  // namespace map_slab_reply

namespace drain_notice {
inline constexpr Field kGraceMs = 2;
}  // namespace drain_notice
namespace back_pressure_notice {
inline constexpr Field kRetryAfterMs = 2;
}  // namespace back_pressure_notice
namespace slab_retired_notice {
inline constexpr Field kSlabId = 2;
}  // namespace slab_retired_notice
namespace gpu_worker_notice {
inline constexpr Field kRegionId = 2;
}  // namespace gpu_worker_notice
namespace watch_request {
inline constexpr Field kPublisherId = 1;
inline constexpr Field kAfterSequence = 2;
inline constexpr Field kSnapshot = 3;
inline constexpr Field kNamespaces = 4;
inline constexpr Field kHeartbeatMs = 5;
}  // namespace watch_request
namespace watch_reply {
inline constexpr Field kPublisherId = 2;
inline constexpr Field kEvents = 3;
inline constexpr Field kCallId = 4;
inline constexpr Field kNamespaces = 5;
}  // namespace watch_reply
namespace watched_namespace {
inline constexpr Field kNamespaceDigest = 1;
inline constexpr Field kFamilyDigest = 2;
inline constexpr Field kRecord = 3;
}  // namespace watched_namespace
namespace event {
inline constexpr Field kKind = 1;
inline constexpr Field kSequence = 2;
inline constexpr Field kNamespaceDigest = 3;
inline constexpr Field kKeyBytes = 4;
inline constexpr Field kKeys = 5;
inline constexpr Field kParent = 6;
inline constexpr Field kFirstToken = 7;
inline constexpr Field kBlockTokens = 8;
inline constexpr Field kTier = 9;
inline constexpr Field kSalt = 11;
}  // namespace event
namespace error_detail {
inline constexpr Field kMessage = 2;
inline constexpr Field kField = 3;
inline constexpr Field kRetryAfterMs = 4;
}  // namespace error_detail

}  // namespace terrace::client::wire
