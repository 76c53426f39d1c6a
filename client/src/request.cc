#include "client/src/request.h"

#include <algorithm>
#include <cstring>

#include <protozero/pbf_writer.hpp>
#include <protozero/varint.hpp>

#include "client/src/wire_fields.h"

namespace terrace::client {
namespace {

using protozero::pbf_writer;

std::string_view Bytes(const void* data, size_t size) {
  return {static_cast<const char*>(data), data == nullptr ? 0 : size};
}

// Zero and empty are what an absent field means, so they are left out.
void AddNumber(pbf_writer& writer, wire::Field field, uint64_t value) {
  if (value != 0) {
    writer.add_uint64(field, value);
  }
}
void AddFlag(pbf_writer& writer, wire::Field field, bool value) {
  if (value) {
    writer.add_bool(field, true);
  }
}
void AddBytes(pbf_writer& writer, wire::Field field, std::string_view bytes) {
  if (!bytes.empty()) {
    writer.add_bytes(field, bytes.data(), bytes.size());
  }
}
void AddText(pbf_writer& writer, wire::Field field, const char* text) {
  AddBytes(writer, field, text == nullptr ? std::string_view() : std::string_view(text));
}

// All fields used here are below 16: a tag is one byte.
size_t NumberSize(uint64_t value) {
  return value == 0 ? 0 : 1 + static_cast<size_t>(protozero::length_of_varint(value));
}
size_t BytesSize(size_t bytes) {
  return bytes == 0 ? 0 : 1 + static_cast<size_t>(protozero::length_of_varint(bytes)) + bytes;
}

size_t VarintsSize(const uint32_t* values, size_t count) {
  size_t size = 0;
  for (size_t i = 0; values != nullptr && i < count; ++i) {
    size += static_cast<size_t>(protozero::length_of_varint(values[i]));
  }
  return size;
}

size_t PartSize(const terrace_part& part) {
  return BytesSize(kDigestBytes) + BytesSize(part.salt_bytes) +
         NumberSize(static_cast<uint64_t>(part.rule)) + NumberSize(part.key_bytes) +
         BytesSize(size_t{part.key_bytes} * part.key_count) + NumberSize(part.first_token) +
         BytesSize(VarintsSize(part.end_tokens, part.key_count)) + NumberSize(part.window_tokens);
}

// The sizes of submessages are known beforehand, so that protozero moves nothing and offsets into
// the frame stay good.
class Encoder {
 public:
  Encoder(std::string* frame, std::vector<DigestSlot>* missing)
      : frame_(frame), missing_(missing), writer_(*frame) {}

  std::string& frame() { return *frame_; }
  pbf_writer& writer() { return writer_; }

  void Digest(pbf_writer& writer, wire::Field field, const Id128* digest, terrace_namespace ns) {
    static constexpr Id128 kUnknown{};
    const Id128& bytes = digest == nullptr ? kUnknown : *digest;
    writer.add_bytes(field, bytes.data(), bytes.size());
    if (digest == nullptr) {
      missing_->push_back({frame_->size() - kDigestBytes, ns});
    }
  }

  void AddPart(wire::Field field, const PartSpec& spec) {
    const terrace_part& part = spec.part;
    pbf_writer parent(*frame_);
    pbf_writer writer(parent, field, PartSize(part));
    Digest(writer, wire::part::kNamespaceDigest, spec.digest, part.ns);
    AddBytes(writer, wire::part::kSalt, Bytes(part.salt, part.salt_bytes));
    AddNumber(writer, wire::part::kRule, static_cast<uint64_t>(part.rule));
    AddNumber(writer, wire::part::kKeyBytes, part.key_bytes);
    AddBytes(writer, wire::part::kKeys, Bytes(part.keys, size_t{part.key_bytes} * part.key_count));
    AddNumber(writer, wire::part::kFirstToken, part.first_token);
    if (part.end_tokens != nullptr && part.key_count > 0) {
      writer.add_packed_uint32(wire::part::kEndTokens, part.end_tokens,
                               part.end_tokens + part.key_count);
    }
    AddNumber(writer, wire::part::kWindowTokens, part.window_tokens);
  }

  void AddParts(wire::Field field, const Request& request) {
    for (uint32_t i = 0; i < request.part_count; ++i) {
      AddPart(field, request.parts[i]);
    }
  }

  void AddRegion(wire::Field field, const terrace_part& part) {
    pbf_writer parent(*frame_);
    const size_t event_bytes = part.after_event == nullptr ? 0 : TERRACE_CUDA_HANDLE_BYTES;
    pbf_writer writer(parent, field,
                      NumberSize(part.region) + BytesSize(sizeof(uint32_t) * part.key_count) +
                          BytesSize(event_bytes) + NumberSize(part.progress_slot));
    AddNumber(writer, wire::region_blocks::kRegionId, part.region);
    if (part.key_count > 0) {
      writer.add_packed_fixed32(wire::region_blocks::kBlockIndexes, part.block_indexes,
                                part.block_indexes + part.key_count);
    }
    AddBytes(writer, wire::region_blocks::kAfterEvent, Bytes(part.after_event, event_bytes));
    AddNumber(writer, wire::region_blocks::kProgressSlot, part.progress_slot);
  }

 private:
  std::string* frame_;
  std::vector<DigestSlot>* missing_;
  pbf_writer writer_;
};

void EncodeProbe(const Request& request, Encoder& encoder) {
  encoder.AddParts(wire::probe_request::kParts, request);
  pbf_writer& writer = encoder.writer();
  AddBytes(writer, wire::probe_request::kRequestId, request.request_id);
  AddNumber(writer, wire::probe_request::kHoldMs, request.hold_ms);
  AddFlag(writer, wire::probe_request::kPrefetch, request.prefetch);
}

void EncodePrefetch(const Request& request, Encoder& encoder) {
  encoder.AddParts(wire::prefetch_request::kParts, request);
  pbf_writer& writer = encoder.writer();
  AddNumber(writer, wire::prefetch_request::kPriority, static_cast<uint64_t>(request.priority));
  AddNumber(writer, wire::prefetch_request::kDeadlineMs, request.prefetch_deadline_ms);
  AddNumber(writer, wire::prefetch_request::kHoldMs, request.hold_ms);
  AddBytes(writer, wire::prefetch_request::kRequestId, request.request_id);
}

void EncodeGet(const Request& request, Encoder& encoder) {
  encoder.AddParts(wire::get_request::kParts, request);
  pbf_writer& writer = encoder.writer();
  AddNumber(writer, wire::get_request::kDelivery, static_cast<uint64_t>(request.delivery));
  for (uint32_t i = 0; request.delivery == TERRACE_DELIVER_REGION && i < request.part_count; ++i) {
    encoder.AddRegion(wire::get_request::kRegions, request.parts[i].part);
  }
  AddBytes(writer, wire::get_request::kHoldId, request.hold);
  AddBytes(writer, wire::get_request::kRequestId, request.request_id);
  AddNumber(writer, wire::get_request::kWaitPending, request.wait_pending ? 1 : 0);
}

void EncodePut(const Request& request, Encoder& encoder) {
  const terrace_part& part = request.parts[0].part;
  encoder.AddPart(wire::put_request::kPart, request.parts[0]);
  pbf_writer& writer = encoder.writer();
  AddBytes(writer, wire::put_request::kParent, request.parent);
  if (request.payload_bytes != nullptr && part.key_count > 0) {
    writer.add_packed_fixed32(wire::put_request::kPayloadBytes, request.payload_bytes,
                              request.payload_bytes + part.key_count);
  }
  if (part.region != 0) {
    encoder.AddRegion(wire::put_request::kRegion, part);
  }
  AddBytes(writer, wire::put_request::kPayload, request.payload);
  AddNumber(writer, wire::put_request::kWaitFor, request.wait_for);
  const size_t hints = NumberSize(request.output_tokens) + BytesSize(request.stop_reason.size()) +
                       NumberSize(request.session_end ? 1 : 0) +
                       NumberSize(request.expected_return_ms) + NumberSize(request.compute_us);
  if (hints > 0) {
    pbf_writer parent(encoder.frame());
    pbf_writer hint_writer(parent, wire::put_request::kHints, hints);
    AddNumber(hint_writer, wire::hints::kOutputTokens, request.output_tokens);
    AddBytes(hint_writer, wire::hints::kStopReason, request.stop_reason);
    AddFlag(hint_writer, wire::hints::kSessionEnd, request.session_end);
    AddNumber(hint_writer, wire::hints::kExpectedReturnMs, request.expected_return_ms);
    AddNumber(hint_writer, wire::hints::kComputeUs, request.compute_us);
  }
  AddBytes(writer, wire::put_request::kRequestId, request.request_id);
}

void EncodeRelease(const Request& request, Encoder& encoder) {
  pbf_writer& writer = encoder.writer();
  for (size_t i = 0; i < request.leases.size(); i += kDigestBytes) {
    pbf_writer parent(encoder.frame());
    pbf_writer lease(parent, wire::release_request::kLeases, BytesSize(kDigestBytes));
    AddBytes(lease, wire::lease_release::kLeaseId, request.leases.substr(i, kDigestBytes));
  }
  for (size_t i = 0; i < request.holds.size(); i += kDigestBytes) {
    AddBytes(writer, wire::release_request::kHoldIds, request.holds.substr(i, kDigestBytes));
  }
}

void EncodePlanes(const terrace_region_spec& spec, pbf_writer& geometry) {
  const terrace_segment whole{0, spec.block_bytes};
  const terrace_plane plain{0, spec.block_bytes, &whole, 1};
  const terrace_plane* planes = spec.planes == nullptr ? &plain : spec.planes;
  const uint32_t count = spec.planes == nullptr ? 1 : spec.plane_count;
  for (uint32_t i = 0; i < count; ++i) {
    pbf_writer plane(geometry, wire::geometry::kPlanes);
    AddNumber(plane, wire::plane::kOffset, planes[i].offset);
    AddNumber(plane, wire::plane::kBlockStride, planes[i].block_stride);
    for (uint32_t k = 0; k < planes[i].segment_count; ++k) {
      pbf_writer segment(plane, wire::plane::kSegments);
      AddNumber(segment, wire::segment::kOffset, planes[i].segments[k].offset);
      AddNumber(segment, wire::segment::kBytes, planes[i].segments[k].bytes);
    }
  }
}

void EncodeLabels(const terrace_namespace_record& record, pbf_writer& writer) {
  std::vector<terrace_label> labels(record.labels, record.labels + record.label_count);
  std::sort(labels.begin(), labels.end(), [](const terrace_label& a, const terrace_label& b) {
    return std::strcmp(a.key, b.key) < 0;
  });
  for (const terrace_label& label : labels) {
    pbf_writer entry(writer, wire::namespace_record::kLabels);
    entry.add_string(wire::map_entry::kKey, label.key);
    entry.add_string(wire::map_entry::kValue, label.value);
  }
}

}  // namespace

void EncodeRequest(const Request& request, std::string* frame, std::vector<DigestSlot>* missing) {
  Encoder encoder(frame, missing);
  pbf_writer& writer = encoder.writer();
  switch (request.method) {
    case Method::kProbe:
      return EncodeProbe(request, encoder);
    case Method::kPrefetch:
      return EncodePrefetch(request, encoder);
    case Method::kGet:
      return EncodeGet(request, encoder);
    case Method::kPut:
      return EncodePut(request, encoder);
    case Method::kRelease:
      return EncodeRelease(request, encoder);
    case Method::kTicket:
      AddNumber(writer, wire::ticket_request::kTicket, request.ticket);
      AddNumber(writer, wire::ticket_request::kWaitMs, request.wait_ms);
      return;
    case Method::kDelete:
      return encoder.AddPart(wire::delete_request::kPart, request.parts[0]);
    case Method::kPin:
      encoder.AddPart(wire::pin_request::kPart, request.parts[0]);
      return AddNumber(writer, wire::pin_request::kTtlS, request.ttl_s);
    case Method::kUnpin:
      return encoder.AddPart(wire::unpin_request::kPart, request.parts[0]);
    case Method::kCancel:
      AddNumber(writer, wire::cancel_request::kTicket, request.ticket);
      return AddNumber(writer, wire::cancel_request::kCallId, request.target_call_id);
    case Method::kClearNamespace:
      return encoder.Digest(writer, wire::clear_namespace_request::kNamespaceDigest, request.digest,
                            request.ns);
    default:
      return;  // the messages of other methods are empty or have an encoder of their own
  }
}

void EncodeHello(const Greeting& greeting, std::string* frame) {
  // What the library can make use of; numbers of enum Feature.
  static constexpr std::array<int32_t, 12> kFeatures = {1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15};
  pbf_writer writer(*frame);
  writer.add_uint32(wire::hello_request::kProtocolMajor, 1);
  AddNumber(writer, wire::hello_request::kProtocolMinor, 0);
  AddBytes(writer, wire::hello_request::kClientName, greeting.client_name);
  AddBytes(writer, wire::hello_request::kClientVersion, greeting.client_version);
  AddFlag(writer, wire::hello_request::kPidfd, greeting.pidfd);
  writer.add_packed_enum(wire::hello_request::kFeatures, kFeatures.begin(), kFeatures.end());
}

void EncodeOpenNamespace(const terrace_namespace_record& record, std::string* frame) {
  pbf_writer request(*frame);
  pbf_writer writer(request, wire::open_namespace_request::kRecord);
  AddText(writer, wire::namespace_record::kModel, record.model);
  AddText(writer, wire::namespace_record::kWeightsRevision, record.weights_revision);
  AddText(writer, wire::namespace_record::kKvDtype, record.kv_dtype);
  AddText(writer, wire::namespace_record::kQuantization, record.quantization);
  AddText(writer, wire::namespace_record::kLayout, record.layout);
  AddText(writer, wire::namespace_record::kEngineFormat, record.engine_format);
  AddText(writer, wire::namespace_record::kHashAlgorithm, record.hash_algorithm);
  AddText(writer, wire::namespace_record::kHashSeed, record.hash_seed);
  AddNumber(writer, wire::namespace_record::kBlockTokens, record.block_tokens);
  AddNumber(writer, wire::namespace_record::kBlockBytes, record.block_bytes);
  AddNumber(writer, wire::namespace_record::kGroup, record.group);
  AddText(writer, wire::namespace_record::kGroupKind, record.group_kind);
  AddNumber(writer, wire::namespace_record::kShardCount, record.shard_count);
  AddNumber(writer, wire::namespace_record::kShardRank, record.shard_rank);
  AddNumber(writer, wire::namespace_record::kSharding, record.sharding);
  AddText(writer, wire::namespace_record::kParallel, record.parallel);
  AddBytes(writer, wire::namespace_record::kKeySuffix,
           Bytes(record.key_suffix, record.key_suffix_bytes));
  EncodeLabels(record, writer);
}

void EncodeRegisterRegion(uint32_t region_id, const terrace_region_spec& spec, std::string* frame) {
  constexpr uint64_t kHostRegion = 1;
  const bool is_host = spec.memory == TERRACE_MEMORY_HOST;
  pbf_writer writer(*frame);
  AddNumber(writer, wire::register_region_request::kRegionId, region_id);
  AddNumber(writer, wire::register_region_request::kKind,
            is_host ? kHostRegion : static_cast<uint64_t>(spec.memory));
  AddNumber(writer, wire::register_region_request::kOffset, spec.offset);
  AddNumber(writer, wire::register_region_request::kBytes, spec.bytes);
  {
    pbf_writer geometry(writer, wire::register_region_request::kGeometry);
    AddNumber(geometry, wire::geometry::kBlockCount, spec.block_count);
    EncodePlanes(spec, geometry);
  }
  AddFlag(writer, wire::register_region_request::kReadOnly, spec.read_only != 0);
  if (is_host) {
    return;
  }
  if (spec.memory == TERRACE_MEMORY_CUDA_IPC) {
    AddBytes(writer, wire::register_region_request::kHandle,
             Bytes(spec.handle, TERRACE_CUDA_HANDLE_BYTES));
  }
  AddBytes(writer, wire::register_region_request::kDeviceUuid,
           Bytes(spec.device_uuid, sizeof(spec.device_uuid)));
  AddNumber(writer, wire::register_region_request::kAllocationBytes, spec.allocation_bytes);
  AddNumber(writer, wire::register_region_request::kPlanesPerLayer, spec.planes_per_layer);
  AddNumber(writer, wire::register_region_request::kCanaryBlock, spec.canary_block);
}

void EncodeUnregisterRegion(uint32_t region_id, std::string* frame) {
  pbf_writer writer(*frame);
  AddNumber(writer, wire::unregister_region_request::kRegionId, region_id);
}

void EncodeMapSlab(uint32_t slab_id, std::string* frame) {
  pbf_writer writer(*frame);
  AddNumber(writer, wire::map_slab_request::kSlabId, slab_id);
}

}  // namespace terrace::client
