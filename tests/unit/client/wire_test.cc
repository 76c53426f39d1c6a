// The library's own encoding against what protoc generates from the contract.
#include <array>
#include <random>
#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "terrace/v1/cache.pb.h"
#include "terrace/v1/session.pb.h"
#include <gtest/gtest.h>

#include "client/src/frame.h"
#include "client/src/request.h"
#include "client/src/watch_messages.h"
#include "client/src/wire_fields.h"
#include "tests/doubles/scripted_server.h"

namespace terrace::client {
namespace {

using google::protobuf::Descriptor;

struct NumberedField {
  const Descriptor* message;
  const char* name;
  wire::Field number;
};

std::vector<NumberedField> RecordFields() {
  const Descriptor* record = v1::NamespaceRecord::descriptor();
  namespace r = wire::namespace_record;
  return {
      {record, "model", r::kModel},
      {record, "weights_revision", r::kWeightsRevision},
      {record, "kv_dtype", r::kKvDtype},
      {record, "quantization", r::kQuantization},
      {record, "layout", r::kLayout},
      {record, "engine_format", r::kEngineFormat},
      {record, "hash_algorithm", r::kHashAlgorithm},
      {record, "hash_seed", r::kHashSeed},
      {record, "block_tokens", r::kBlockTokens},
      {record, "block_bytes", r::kBlockBytes},
      {record, "group", r::kGroup},
      {record, "group_kind", r::kGroupKind},
      {record, "shard_count", r::kShardCount},
      {record, "shard_rank", r::kShardRank},
      {record, "sharding", r::kSharding},
      {record, "parallel", r::kParallel},
      {record, "key_suffix", r::kKeySuffix},
      {record, "labels", r::kLabels},
      {record->FindFieldByName("labels")->message_type(), "key", wire::map_entry::kKey},
      {record->FindFieldByName("labels")->message_type(), "value", wire::map_entry::kValue},
      {v1::OpenNamespaceRequest::descriptor(), "record", wire::open_namespace_request::kRecord},
      {v1::OpenNamespaceReply::descriptor(), "boot_id", wire::open_namespace_reply::kBootId},
      {v1::OpenNamespaceReply::descriptor(), "namespace_digest",
       wire::open_namespace_reply::kNamespaceDigest},
      {v1::ClearNamespaceRequest::descriptor(), "namespace_digest",
       wire::clear_namespace_request::kNamespaceDigest},
      {v1::ClearNamespaceReply::descriptor(), "generation",
       wire::clear_namespace_reply::kGeneration},
  };
}

std::vector<NumberedField> CacheFields() {
  const Descriptor* part = v1::Part::descriptor();
  const Descriptor* probe = v1::ProbeReply::descriptor();
  const Descriptor* get = v1::GetRequest::descriptor();
  const Descriptor* put = v1::PutRequest::descriptor();
  return {
      {part, "namespace_digest", wire::part::kNamespaceDigest},
      {part, "salt", wire::part::kSalt},
      {part, "rule", wire::part::kRule},
      {part, "key_bytes", wire::part::kKeyBytes},
      {part, "keys", wire::part::kKeys},
      {part, "first_token", wire::part::kFirstToken},
      {part, "end_tokens", wire::part::kEndTokens},
      {part, "window_tokens", wire::part::kWindowTokens},
      {v1::ProbeRequest::descriptor(), "parts", wire::probe_request::kParts},
      {v1::ProbeRequest::descriptor(), "request_id", wire::probe_request::kRequestId},
      {v1::ProbeRequest::descriptor(), "hold_ms", wire::probe_request::kHoldMs},
      {v1::ProbeRequest::descriptor(), "prefetch", wire::probe_request::kPrefetch},
      {probe, "states", wire::probe_reply::kStates},
      {probe, "part_hits", wire::probe_reply::kPartHits},
      {probe, "boundary_tokens", wire::probe_reply::kBoundaryTokens},
      {probe, "part_boundary_keys", wire::probe_reply::kPartBoundaryKeys},
      {probe, "load_us", wire::probe_reply::kLoadUs},
      {probe, "hit_bytes", wire::probe_reply::kHitBytes},
      {probe, "hold_id", wire::probe_reply::kHoldId},
      {probe, "hold_ms", wire::probe_reply::kHoldMs},
      {probe, "ticket", wire::probe_reply::kTicket},
      {probe, "recompute_us", wire::probe_reply::kRecomputeUs},
      {probe, "worth_tokens", wire::probe_reply::kWorthTokens},
      {get, "parts", wire::get_request::kParts},
      {get, "delivery", wire::get_request::kDelivery},
      {get, "regions", wire::get_request::kRegions},
      {get, "hold_id", wire::get_request::kHoldId},
      {get, "request_id", wire::get_request::kRequestId},
      {get, "wait_pending", wire::get_request::kWaitPending},
      {v1::GetReply::descriptor(), "outcomes", wire::get_reply::kOutcomes},
      {v1::GetReply::descriptor(), "payload_bytes", wire::get_reply::kPayloadBytes},
      {v1::GetReply::descriptor(), "lease_id", wire::get_reply::kLeaseId},
      {v1::GetReply::descriptor(), "slab_ids", wire::get_reply::kSlabIds},
      {v1::GetReply::descriptor(), "slab_offsets", wire::get_reply::kSlabOffsets},
      {put, "part", wire::put_request::kPart},
      {put, "parent", wire::put_request::kParent},
      {put, "payload_bytes", wire::put_request::kPayloadBytes},
      {put, "region", wire::put_request::kRegion},
      {put, "payload", wire::put_request::kPayload},
      {put, "wait_for", wire::put_request::kWaitFor},
      {put, "hints", wire::put_request::kHints},
      {put, "request_id", wire::put_request::kRequestId},
  };
}

std::vector<NumberedField> SmallFields() {
  const Descriptor* prefetch = v1::PrefetchRequest::descriptor();
  const Descriptor* prefetched = v1::PrefetchReply::descriptor();
  const Descriptor* ticket = v1::TicketReply::descriptor();
  const Descriptor* hints = v1::Hints::descriptor();
  return {
      {prefetch, "parts", wire::prefetch_request::kParts},
      {prefetch, "priority", wire::prefetch_request::kPriority},
      {prefetch, "deadline_ms", wire::prefetch_request::kDeadlineMs},
      {prefetch, "hold_ms", wire::prefetch_request::kHoldMs},
      {prefetch, "request_id", wire::prefetch_request::kRequestId},
      {prefetched, "ticket", wire::prefetch_reply::kTicket},
      {prefetched, "keys_moving", wire::prefetch_reply::kKeysMoving},
      {prefetched, "keys_ready", wire::prefetch_reply::kKeysReady},
      {prefetched, "keys_missing", wire::prefetch_reply::kKeysMissing},
      {prefetched, "hold_id", wire::prefetch_reply::kHoldId},
      {v1::TicketRequest::descriptor(), "ticket", wire::ticket_request::kTicket},
      {v1::TicketRequest::descriptor(), "wait_ms", wire::ticket_request::kWaitMs},
      {ticket, "state", wire::ticket_reply::kState},
      {ticket, "keys_total", wire::ticket_reply::kKeysTotal},
      {ticket, "keys_arrived", wire::ticket_reply::kKeysArrived},
      {ticket, "keys_failed", wire::ticket_reply::kKeysFailed},
      {ticket, "bytes_arrived", wire::ticket_reply::kBytesArrived},
      {v1::RegionBlocks::descriptor(), "region_id", wire::region_blocks::kRegionId},
      {v1::RegionBlocks::descriptor(), "block_indexes", wire::region_blocks::kBlockIndexes},
      {v1::RegionBlocks::descriptor(), "after_event", wire::region_blocks::kAfterEvent},
      {v1::RegionBlocks::descriptor(), "progress_slot", wire::region_blocks::kProgressSlot},
      {v1::LeaseRelease::descriptor(), "lease_id", wire::lease_release::kLeaseId},
      {v1::ReleaseRequest::descriptor(), "leases", wire::release_request::kLeases},
      {v1::ReleaseRequest::descriptor(), "hold_ids", wire::release_request::kHoldIds},
      {v1::ReleaseReply::descriptor(), "released", wire::release_reply::kReleased},
      {hints, "output_tokens", wire::hints::kOutputTokens},
      {hints, "stop_reason", wire::hints::kStopReason},
      {hints, "session_end", wire::hints::kSessionEnd},
      {hints, "expected_return_ms", wire::hints::kExpectedReturnMs},
      {hints, "compute_us", wire::hints::kComputeUs},
      {v1::PutReply::descriptor(), "outcomes", wire::put_reply::kOutcomes},
      {v1::PutReply::descriptor(), "reasons", wire::put_reply::kReasons},
      {v1::PutReply::descriptor(), "levels", wire::put_reply::kLevels},
      {v1::DeleteRequest::descriptor(), "part", wire::delete_request::kPart},
      {v1::DeleteReply::descriptor(), "deleted", wire::delete_reply::kDeleted},
      {v1::PinRequest::descriptor(), "part", wire::pin_request::kPart},
      {v1::PinRequest::descriptor(), "ttl_s", wire::pin_request::kTtlS},
      {v1::PinReply::descriptor(), "reasons", wire::pin_reply::kReasons},
      {v1::UnpinRequest::descriptor(), "part", wire::unpin_request::kPart},
      {v1::UnpinReply::descriptor(), "unpinned", wire::unpin_reply::kUnpinned},
      {v1::CancelRequest::descriptor(), "ticket", wire::cancel_request::kTicket},
      {v1::CancelRequest::descriptor(), "call_id", wire::cancel_request::kCallId},
      {v1::CancelReply::descriptor(), "found", wire::cancel_reply::kFound},
  };
}

std::vector<NumberedField> SessionFields() {
  const Descriptor* hello = v1::HelloRequest::descriptor();
  const Descriptor* greeted = v1::HelloReply::descriptor();
  const Descriptor* region = v1::RegisterRegionRequest::descriptor();
  const Descriptor* error = v1::ErrorDetail::descriptor();
  return {
      {hello, "protocol_major", wire::hello_request::kProtocolMajor},
      {hello, "protocol_minor", wire::hello_request::kProtocolMinor},
      {hello, "client_name", wire::hello_request::kClientName},
      {hello, "client_version", wire::hello_request::kClientVersion},
      {hello, "pidfd", wire::hello_request::kPidfd},
      {hello, "features", wire::hello_request::kFeatures},
      {greeted, "boot_id", wire::hello_reply::kBootId},
      {greeted, "features", wire::hello_reply::kFeatures},
      {greeted, "leases", wire::hello_reply::kLeases},
      {greeted, "lease_limit_bytes", wire::hello_reply::kLeaseLimitBytes},
      {greeted, "max_keys", wire::hello_reply::kMaxKeys},
      {greeted, "max_message_bytes", wire::hello_reply::kMaxMessageBytes},
      {greeted, "max_calls_in_flight", wire::hello_reply::kMaxCallsInFlight},
      {v1::Plane::descriptor(), "offset", wire::plane::kOffset},
      {v1::Plane::descriptor(), "block_stride", wire::plane::kBlockStride},
      {v1::Plane::descriptor(), "segments", wire::plane::kSegments},
      {v1::Segment::descriptor(), "offset", wire::segment::kOffset},
      {v1::Segment::descriptor(), "bytes", wire::segment::kBytes},
      {v1::Geometry::descriptor(), "block_count", wire::geometry::kBlockCount},
      {v1::Geometry::descriptor(), "planes", wire::geometry::kPlanes},
      {region, "region_id", wire::register_region_request::kRegionId},
      {region, "kind", wire::register_region_request::kKind},
      {region, "offset", wire::register_region_request::kOffset},
      {region, "bytes", wire::register_region_request::kBytes},
      {region, "geometry", wire::register_region_request::kGeometry},
      {region, "read_only", wire::register_region_request::kReadOnly},
      {region, "handle", wire::register_region_request::kHandle},
      {region, "device_uuid", wire::register_region_request::kDeviceUuid},
      {region, "allocation_bytes", wire::register_region_request::kAllocationBytes},
      {region, "planes_per_layer", wire::register_region_request::kPlanesPerLayer},
      {region, "canary_block", wire::register_region_request::kCanaryBlock},
      {v1::UnregisterRegionRequest::descriptor(), "region_id",
       wire::unregister_region_request::kRegionId},
      {v1::MapSlabRequest::descriptor(), "slab_id", wire::map_slab_request::kSlabId},
      {v1::MapSlabReply::descriptor(), "slab_bytes", wire::map_slab_reply::kSlabBytes},
      {v1::DrainNotice::descriptor(), "grace_ms", wire::drain_notice::kGraceMs},
      {v1::BackPressureNotice::descriptor(), "retry_after_ms",
       wire::back_pressure_notice::kRetryAfterMs},
      {v1::SlabRetiredNotice::descriptor(), "slab_id", wire::slab_retired_notice::kSlabId},
      {v1::GpuWorkerNotice::descriptor(), "region_id", wire::gpu_worker_notice::kRegionId},
      {error, "message", wire::error_detail::kMessage},
      {error, "field", wire::error_detail::kField},
      {error, "retry_after_ms", wire::error_detail::kRetryAfterMs},
  };
}

std::vector<NumberedField> WatchFields() {
  const Descriptor* request = v1::WatchRequest::descriptor();
  const Descriptor* reply = v1::WatchReply::descriptor();
  const Descriptor* named = v1::WatchedNamespace::descriptor();
  const Descriptor* event = v1::Event::descriptor();
  return {
      {request, "publisher_id", wire::watch_request::kPublisherId},
      {request, "after_sequence", wire::watch_request::kAfterSequence},
      {request, "snapshot", wire::watch_request::kSnapshot},
      {request, "namespaces", wire::watch_request::kNamespaces},
      {request, "heartbeat_ms", wire::watch_request::kHeartbeatMs},
      {reply, "publisher_id", wire::watch_reply::kPublisherId},
      {reply, "events", wire::watch_reply::kEvents},
      {reply, "call_id", wire::watch_reply::kCallId},
      {reply, "namespaces", wire::watch_reply::kNamespaces},
      {named, "namespace_digest", wire::watched_namespace::kNamespaceDigest},
      {named, "family_digest", wire::watched_namespace::kFamilyDigest},
      {named, "record", wire::watched_namespace::kRecord},
      {event, "kind", wire::event::kKind},
      {event, "sequence", wire::event::kSequence},
      {event, "namespace_digest", wire::event::kNamespaceDigest},
      {event, "key_bytes", wire::event::kKeyBytes},
      {event, "keys", wire::event::kKeys},
      {event, "parent", wire::event::kParent},
      {event, "first_token", wire::event::kFirstToken},
      {event, "block_tokens", wire::event::kBlockTokens},
      {event, "tier", wire::event::kTier},
      {event, "salt", wire::event::kSalt},
  };
}

TEST(Wire, EveryFieldNumberIsTheContracts) {
  for (const auto& fields :
       {RecordFields(), CacheFields(), SmallFields(), SessionFields(), WatchFields()}) {
    for (const NumberedField& field : fields) {
      const auto* found = field.message->FindFieldByName(field.name);
      ASSERT_NE(found, nullptr) << field.message->full_name() << "." << field.name;
      EXPECT_EQ(static_cast<uint32_t>(found->number()), field.number)
          << field.message->full_name() << "." << field.name;
    }
  }
}

TEST(Wire, EveryNamedNumberOfTheHeaderIsTested) {
  // As many rows above as there are constants: a new one without a row fails here.
  const size_t rows = RecordFields().size() + CacheFields().size() + SmallFields().size() +
                      SessionFields().size() + WatchFields().size();
  EXPECT_EQ(rows, static_cast<size_t>(TERRACE_WIRE_FIELD_COUNT));
}

TEST(Wire, EnumsOfTheAbiAreTheContracts) {
  EXPECT_EQ(int{TERRACE_EVENT_STORED}, int{v1::EVENT_KIND_STORED});
  EXPECT_EQ(int{TERRACE_EVENT_REMOVED}, int{v1::EVENT_KIND_REMOVED});
  EXPECT_EQ(int{TERRACE_EVENT_MOVED}, int{v1::EVENT_KIND_MOVED});
  EXPECT_EQ(int{TERRACE_EVENT_CLEARED}, int{v1::EVENT_KIND_CLEARED});
  EXPECT_EQ(int{TERRACE_EVENT_GAP}, int{v1::EVENT_KIND_GAP});
  EXPECT_EQ(int{TERRACE_EVENT_SNAPSHOT_END}, int{v1::EVENT_KIND_SNAPSHOT_END});
  EXPECT_EQ(int{kHeartbeatKind}, int{v1::EVENT_KIND_HEARTBEAT});
  EXPECT_LT(int{v1::EventKind_MAX}, int{TERRACE_EVENT_UP});
  EXPECT_EQ(int{TERRACE_RULE_INDEPENDENT}, int{v1::RULE_INDEPENDENT});
  EXPECT_EQ(int{TERRACE_RULE_STATE_AT_END}, int{v1::RULE_STATE_AT_END});
  EXPECT_EQ(int{TERRACE_RULE_WINDOW}, int{v1::RULE_WINDOW});
  EXPECT_EQ(int{TERRACE_KEY_LOWER}, int{v1::KEY_STATE_LOWER});
  EXPECT_EQ(int{TERRACE_KEY_INVALID}, int{v1::KeyState_MAX});
  EXPECT_EQ(int{TERRACE_GET_CANCELLED}, int{v1::GetOutcome_MAX});
  EXPECT_EQ(int{TERRACE_GET_TRIMMED}, int{v1::GET_OUTCOME_TRIMMED});
  EXPECT_EQ(int{TERRACE_PUT_FAILED}, int{v1::PutOutcome_MAX});
  EXPECT_EQ(int{TERRACE_REASON_TOO_LATE}, int{v1::Reason_MAX});
  EXPECT_EQ(int{TERRACE_REASON_NOT_PRESENT}, int{v1::REASON_NOT_PRESENT});
  EXPECT_EQ(int{TERRACE_LEVEL_POOL}, int{v1::Level_MAX});
  EXPECT_EQ(int{TERRACE_PRIORITY_HIGH}, int{v1::Priority_MAX});
  EXPECT_EQ(int{TERRACE_DELIVER_LEASE}, int{v1::DELIVERY_LEASE});
  EXPECT_EQ(int{TERRACE_DELIVER_REGION}, int{v1::DELIVERY_REGION});
  EXPECT_EQ(int{TERRACE_VERB_PROBE}, int{v1::METHOD_PROBE});
  EXPECT_EQ(int{TERRACE_VERB_PREFETCH}, int{v1::METHOD_PREFETCH});
  EXPECT_EQ(int{TERRACE_VERB_TICKET}, int{v1::METHOD_TICKET});
  EXPECT_EQ(int{TERRACE_VERB_GET}, int{v1::METHOD_GET});
  EXPECT_EQ(int{TERRACE_VERB_RELEASE}, int{v1::METHOD_RELEASE});
  EXPECT_EQ(int{TERRACE_VERB_PUT}, int{v1::METHOD_PUT});
  EXPECT_EQ(int{TERRACE_VERB_DELETE}, int{v1::METHOD_DELETE});
  EXPECT_EQ(int{TERRACE_VERB_PIN}, int{v1::METHOD_PIN});
  EXPECT_EQ(int{TERRACE_VERB_UNPIN}, int{v1::METHOD_UNPIN});
  EXPECT_EQ(int{TERRACE_VERB_CANCEL}, int{v1::METHOD_CANCEL});
  EXPECT_EQ(int{TERRACE_VERB_CLEAR_NAMESPACE}, int{v1::METHOD_CLEAR_NAMESPACE});
  EXPECT_EQ(static_cast<int>(Method::kMapSlab), int{v1::METHOD_MAP_SLAB});
  EXPECT_EQ(static_cast<int>(Method::kPing), int{v1::METHOD_PING});
  EXPECT_EQ(static_cast<int>(Method::kSlabRetiredNotice), int{v1::METHOD_SLAB_RETIRED_NOTICE});
  EXPECT_EQ(static_cast<int>(Method::kGpuWorkerNotice), int{v1::METHOD_GPU_WORKER_NOTICE});
  EXPECT_EQ(static_cast<int>(Method::kBackPressureNotice), int{v1::METHOD_BACK_PRESSURE_NOTICE});
  EXPECT_EQ(static_cast<int>(Method::kDrainNotice), int{v1::METHOD_DRAIN_NOTICE});
}

TEST(Wire, TheFrameHeaderHasItsGoldenBytes) {
  FrameHeader header;
  header.payload_bytes = 0x01020304;
  header.method = 0x0506;
  header.kind = 7;
  header.descriptor_count = 8;
  header.call_id = 0x090a0b0c0d0e0f10;
  header.deadline_ms = 0x11121314;
  header.status = 0x15161718;
  char bytes[kFrameHeaderBytes];
  EncodeFrameHeader(header, bytes);
  EXPECT_EQ(
      std::string(bytes, sizeof(bytes)),
      std::string("\x04\x03\x02\x01\x06\x05\x07\x08\x10\x0f\x0e\x0d\x0c\x0b\x0a\x09\x14\x13\x12\x11"
                  "\x18\x17\x16\x15",
                  24));
  const FrameHeader back = DecodeFrameHeader(bytes);
  EXPECT_EQ(back.call_id, header.call_id);
  EXPECT_EQ(back.status, header.status);
  EXPECT_EQ(testing::DecodeWireHeader(std::string(bytes, 24)).deadline_ms, header.deadline_ms);
}

TEST(Wire, HeadersThatBreakARuleAreNotReceivable) {
  FrameHeader reply;
  reply.kind = 2;
  reply.call_id = 1;
  EXPECT_TRUE(ReceivableHeader(reply));
  FrameHeader push;
  push.kind = 3;
  EXPECT_TRUE(ReceivableHeader(push));
  FrameHeader wrong = reply;
  wrong.payload_bytes = kMaxMessageBytes + 1;
  EXPECT_FALSE(ReceivableHeader(wrong));
  wrong = reply;
  wrong.descriptor_count = 9;
  EXPECT_FALSE(ReceivableHeader(wrong));
  wrong = reply;
  wrong.call_id = 0;
  EXPECT_FALSE(ReceivableHeader(wrong));
  wrong = push;
  wrong.call_id = 1;
  EXPECT_FALSE(ReceivableHeader(wrong));
  for (const uint8_t kind : {uint8_t{0}, uint8_t{1}, uint8_t{4}, uint8_t{255}}) {
    wrong = reply;
    wrong.kind = kind;
    EXPECT_FALSE(ReceivableHeader(wrong));
  }
}

// A get of random parts, and what its parts point at.
class RandomGet {
 public:
  explicit RandomGet(std::mt19937_64* random) : random_(*random) {
    request.method = Method::kGet;
    request.delivery = Below(2) == 0 ? TERRACE_DELIVER_LEASE : TERRACE_DELIVER_REGION;
    request.part_count = 1 + Below(4);
    for (uint32_t p = 0; p < request.part_count; ++p) {
      Fill(p);
    }
  }
  Request request;
  std::array<std::string, 4> keys;
  std::array<std::string, 4> salts;
  std::array<std::vector<uint32_t>, 4> ends;
  std::array<std::vector<uint32_t>, 4> blocks;
  const Id128 digest{'d', 'i', 'g'};

 private:
  uint32_t Below(uint64_t limit) { return static_cast<uint32_t>(random_() % limit); }
  void Fill(uint32_t p) {
    terrace_part part{};
    part.ns = p + 1;
    part.key_bytes = 16 + Below(49);
    part.key_count = Below(3) == 0 ? Below(3) : Below(300);
    keys[p].assign(size_t{part.key_bytes} * part.key_count, static_cast<char>('a' + p));
    part.keys = keys[p].data();
    salts[p].assign(Below(2) == 0 ? 0 : Below(257), 's');
    part.salt = salts[p].data();
    part.salt_bytes = static_cast<uint32_t>(salts[p].size());
    part.rule = static_cast<terrace_rule>(Below(5));
    part.first_token = Below(2) == 0 ? 0 : random_();
    part.window_tokens = Below(2) == 0 ? 0 : Below(UINT32_MAX);
    for (uint32_t k = 0; k < part.key_count; ++k) {
      ends[p].push_back(Below(2) == 0 ? k : UINT32_MAX - k);
      blocks[p].push_back(Below(UINT32_MAX));
    }
    part.end_tokens = Below(2) == 0 ? nullptr : ends[p].data();
    part.region = 1 + Below(1000);
    part.block_indexes = blocks[p].data();
    request.parts[p] = {part, Below(2) == 0 ? nullptr : &digest};
  }
  std::mt19937_64& random_;
};

void ExpectSame(const RandomGet& meant, int p, const v1::GetRequest& parsed) {
  const auto at = static_cast<size_t>(p);
  const terrace_part& part = meant.request.parts[at].part;
  const v1::Part& read = parsed.parts(p);
  const std::string digest(meant.digest.data(), meant.digest.size());
  EXPECT_EQ(read.namespace_digest(), meant.request.parts[at].digest == nullptr
                                         ? std::string(kDigestBytes, static_cast<char>(part.ns))
                                         : digest);
  EXPECT_EQ(read.keys(), meant.keys[at]);
  EXPECT_EQ(read.key_bytes(), part.key_bytes);
  EXPECT_EQ(read.salt(), meant.salts[at]);
  EXPECT_EQ(read.first_token(), part.first_token);
  EXPECT_EQ(read.window_tokens(), part.window_tokens);
  EXPECT_EQ(static_cast<int>(read.rule()), static_cast<int>(part.rule));
  const std::vector<uint32_t> read_ends(read.end_tokens().begin(), read.end_tokens().end());
  EXPECT_EQ(read_ends, part.end_tokens == nullptr ? std::vector<uint32_t>() : meant.ends[at]);
  if (meant.request.delivery == TERRACE_DELIVER_REGION) {
    const auto& indexes = parsed.regions(p).block_indexes();
    EXPECT_EQ(parsed.regions(p).region_id(), part.region);
    EXPECT_EQ(std::vector<uint32_t>(indexes.begin(), indexes.end()), meant.blocks[at]);
  }
}

// Parts of every size and shape: the sizes that are computed beforehand must be exact, or protobuf
// could not read it.
TEST(Wire, RandomRequestsReadBackAsTheyWereMeant) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 300; ++round) {
    const RandomGet meant(&random);
    std::string frame(kFrameHeaderBytes, '\0');
    std::vector<DigestSlot> missing;
    EncodeRequest(meant.request, &frame, &missing);
    for (const DigestSlot& slot : missing) {
      EXPECT_EQ(frame.substr(slot.offset, kDigestBytes), std::string(kDigestBytes, '\0'));
      frame.replace(slot.offset, kDigestBytes,
                    std::string(kDigestBytes, static_cast<char>(slot.ns)));
    }
    v1::GetRequest parsed;
    ASSERT_TRUE(parsed.ParseFromString(frame.substr(kFrameHeaderBytes)));
    EXPECT_EQ(parsed.ByteSizeLong(), frame.size() - kFrameHeaderBytes) << "nothing unknown or lost";
    ASSERT_EQ(parsed.parts_size(), static_cast<int>(meant.request.part_count));
    const bool in_regions = meant.request.delivery == TERRACE_DELIVER_REGION;
    EXPECT_EQ(parsed.regions_size(), in_regions ? parsed.parts_size() : 0);
    for (int p = 0; p < parsed.parts_size(); ++p) {
      ExpectSame(meant, p, parsed);
    }
  }
}

TEST(Wire, ANamespaceRecordReadsBackWithEveryField) {
  terrace_namespace_record record{};
  record.model = "m";
  record.weights_revision = "w";
  record.kv_dtype = "k";
  record.quantization = "q";
  record.layout = "l";
  record.engine_format = "e";
  record.hash_algorithm = "h";
  record.hash_seed = "s";
  record.block_tokens = 16;
  record.block_bytes = uint64_t{1} << 26;
  record.group = 3;
  record.group_kind = "sliding_window";
  record.shard_count = 8;
  record.shard_rank = 7;
  record.sharding = 1;
  record.parallel = "pp=2";
  const uint8_t suffix[] = {0, 0, 0, 1};
  record.key_suffix = suffix;
  record.key_suffix_bytes = 4;
  const terrace_label labels[] = {{"z", "1"}, {"a", "2"}};
  const terrace_label turned[] = {{"a", "2"}, {"z", "1"}};
  record.labels = labels;
  record.label_count = 2;
  std::string message;
  EncodeOpenNamespace(record, &message);
  v1::OpenNamespaceRequest parsed;
  ASSERT_TRUE(parsed.ParseFromString(message));
  const v1::NamespaceRecord& read = parsed.record();
  EXPECT_EQ(read.model() + read.weights_revision() + read.kv_dtype() + read.quantization() +
                read.layout() + read.engine_format() + read.hash_algorithm() + read.hash_seed(),
            "mwkqlehs");
  EXPECT_EQ(read.block_tokens(), 16U);
  EXPECT_EQ(read.block_bytes(), uint64_t{1} << 26);
  EXPECT_EQ(read.group(), 3U);
  EXPECT_EQ(read.group_kind(), "sliding_window");
  EXPECT_EQ(read.shard_count(), 8U);
  EXPECT_EQ(read.shard_rank(), 7U);
  EXPECT_EQ(read.sharding(), v1::SHARDING_SHARDED);
  EXPECT_EQ(read.parallel(), "pp=2");
  EXPECT_EQ(read.key_suffix(), std::string("\0\0\0\1", 4));
  EXPECT_EQ(read.labels().at("z"), "1");
  EXPECT_EQ(read.labels().at("a"), "2");
  record.labels = turned;
  std::string again;
  EncodeOpenNamespace(record, &again);
  EXPECT_EQ(again, message) << "the order of labels is not part of a record";
}

}  // namespace
}  // namespace terrace::client
