#include "client/src/reply.h"

#include <algorithm>

#include "client/src/field_reader.h"
#include "client/src/request.h"
#include "client/src/wire_fields.h"

namespace terrace::client {
namespace {

using protozero::pbf_reader;

template <typename Number>
bool TakePacked(pbf_reader& reader, PackedNumbers<Number>* out) {
  std::string_view bytes;
  if (!TakeBytes(reader, &bytes) || bytes.size() % sizeof(Number) != 0) {
    return false;
  }
  *out = PackedNumbers<Number>(bytes);
  return true;
}

// Exactly `count` varints of a packed field.
bool TakeCounts(pbf_reader& reader, uint32_t* out, uint32_t count) {
  if (!IsBytes(reader)) {
    return false;
  }
  uint32_t taken = 0;
  for (const uint32_t value : reader.get_packed_uint32()) {
    if (taken == count) {
      return false;
    }
    out[taken++] = value;
  }
  return taken == count;
}

// One byte a key; values above `most` become `otherwise`.
bool TakeKeyBytes(
    pbf_reader& reader, uint8_t* out, uint32_t count, uint8_t most, uint8_t otherwise) {
  std::string_view bytes;
  if (!TakeBytes(reader, &bytes) || bytes.size() != count) {
    return false;
  }
  for (uint32_t i = 0; i < count; ++i) {
    const auto value = static_cast<uint8_t>(bytes[i]);
    out[i] = value > most ? otherwise : value;
  }
  return true;
}

bool TakeStates(pbf_reader& reader, Completion* completion) {
  std::string_view bytes;
  if (!TakeBytes(reader, &bytes) || bytes.size() != completion->key_count) {
    return false;
  }
  for (uint32_t i = 0; i < completion->key_count; ++i) {
    const auto value = static_cast<uint8_t>(bytes[i]);
    completion->key_states[i] =
        (value & 15) > TERRACE_KEY_INVALID ? uint8_t{TERRACE_KEY_MISS} : value;
  }
  return true;
}

bool DecodeProbe(std::string_view message, Completion* completion) {
  bool states = completion->key_count == 0;
  const bool read = ReadFields(message, [&](pbf_reader& reader) {
    switch (reader.tag()) {
      case wire::probe_reply::kStates:
        states = TakeStates(reader, completion);
        return states;
      case wire::probe_reply::kPartHits:
        return TakeCounts(reader, completion->hits_of_parts, completion->part_count);
      case wire::probe_reply::kBoundaryTokens:
        return TakeNumber(reader, &completion->boundary_tokens);
      case wire::probe_reply::kPartBoundaryKeys:
        return TakeCounts(reader, completion->boundaries_of_parts, completion->part_count);
      case wire::probe_reply::kLoadUs:
        return TakeNumber(reader, &completion->load_us);
      case wire::probe_reply::kHitBytes:
        return TakeNumber(reader, &completion->hit_bytes);
      case wire::probe_reply::kHoldId:
        return TakeId(reader, &completion->hold);
      case wire::probe_reply::kHoldMs:
        return TakeNumber(reader, &completion->hold_ms);
      case wire::probe_reply::kTicket:
        return TakeNumber(reader, &completion->ticket);
      case wire::probe_reply::kRecomputeUs:
        return TakeNumber(reader, &completion->recompute_us);
      case wire::probe_reply::kWorthTokens:
        return TakeNumber(reader, &completion->worth_tokens);
      default:
        return Skip(reader);
    }
  });
  // A daemon from before these fields says neither.
  if (completion->recompute_us == 0 || completion->worth_tokens > completion->boundary_tokens) {
    completion->worth_tokens = completion->boundary_tokens;
  }
  return read && states;
}

bool DecodePrefetch(std::string_view message, Completion* completion) {
  uint32_t moving = 0;
  uint32_t ready = 0;
  uint32_t missing = 0;
  const bool read = ReadFields(message, [&](pbf_reader& reader) {
    switch (reader.tag()) {
      case wire::prefetch_reply::kTicket:
        return TakeNumber(reader, &completion->ticket);
      case wire::prefetch_reply::kKeysMoving:
        return TakeNumber(reader, &moving);
      case wire::prefetch_reply::kKeysReady:
        return TakeNumber(reader, &ready);
      case wire::prefetch_reply::kKeysMissing:
        return TakeNumber(reader, &missing);
      case wire::prefetch_reply::kHoldId:
        return TakeId(reader, &completion->hold);
      default:
        return Skip(reader);
    }
  });
  completion->keys_total = moving + ready + missing;
  completion->keys_arrived = ready;
  completion->keys_failed = missing;
  return read;
}

bool DecodeTicket(std::string_view message, Completion* completion) {
  return ReadFields(message, [&](pbf_reader& reader) {
    switch (reader.tag()) {
      case wire::ticket_reply::kState:
        return TakeNumber(reader, &completion->ticket_state);
      case wire::ticket_reply::kKeysTotal:
        return TakeNumber(reader, &completion->keys_total);
      case wire::ticket_reply::kKeysArrived:
        return TakeNumber(reader, &completion->keys_arrived);
      case wire::ticket_reply::kKeysFailed:
        return TakeNumber(reader, &completion->keys_failed);
      case wire::ticket_reply::kBytesArrived:
        return TakeNumber(reader, &completion->bytes_arrived);
      default:
        return Skip(reader);
    }
  });
}

bool DecodePut(std::string_view message, Completion* completion) {
  const uint32_t keys = completion->key_count;
  bool outcomes = keys == 0;
  const bool read = ReadFields(message, [&](pbf_reader& reader) {
    switch (reader.tag()) {
      case wire::put_reply::kOutcomes:
        outcomes = TakeKeyBytes(reader, completion->key_outcomes, keys, TERRACE_PUT_FAILED,
                                TERRACE_PUT_FAILED);
        return outcomes;
      case wire::put_reply::kReasons:
        return TakeKeyBytes(reader, completion->key_reasons, keys, UINT8_MAX, 0);
      case wire::put_reply::kLevels:
        return TakeKeyBytes(reader, completion->key_levels, keys, TERRACE_LEVEL_POOL, 0);
      default:
        return Skip(reader);
    }
  });
  return read && outcomes;
}

bool DecodePin(std::string_view message, Completion* completion) {
  bool reasons = completion->key_count == 0;
  const bool read = ReadFields(message, [&](pbf_reader& reader) {
    if (reader.tag() != wire::pin_reply::kReasons) {
      return Skip(reader);
    }
    reasons = TakeKeyBytes(reader, completion->key_reasons, completion->key_count, UINT8_MAX, 0);
    return reasons;
  });
  return read && reasons;
}

template <typename Number>
bool DecodeOneNumber(std::string_view message, wire::Field field, Number* out) {
  return ReadFields(message, [&](pbf_reader& reader) {
    return reader.tag() == field ? TakeNumber(reader, out) : Skip(reader);
  });
}

}  // namespace

bool DecodeHello(std::string_view message, HelloReply* reply) {
  const auto add_feature = [reply](uint64_t feature) {
    reply->features |= feature < 64 ? uint64_t{1} << feature : 0;
  };
  return ReadFields(message, [&](pbf_reader& reader) {
    switch (reader.tag()) {
      case wire::hello_reply::kBootId:
        if (reader.wire_type() != protozero::pbf_wire_type::fixed64) {
          return false;
        }
        reply->boot_id = reader.get_fixed64();
        return true;
      case wire::hello_reply::kFeatures:
        if (!IsBytes(reader)) {
          return false;
        }
        for (const int32_t feature : reader.get_packed_enum()) {
          add_feature(static_cast<uint64_t>(int64_t{feature}));
        }
        return true;
      case wire::hello_reply::kLeases:
        return TakeNumber(reader, &reply->leases);
      case wire::hello_reply::kLeaseLimitBytes:
        return TakeNumber(reader, &reply->lease_limit_bytes);
      case wire::hello_reply::kMaxKeys:
        return TakeNumber(reader, &reply->max_keys);
      case wire::hello_reply::kMaxMessageBytes:
        return TakeNumber(reader, &reply->max_message_bytes);
      case wire::hello_reply::kMaxCallsInFlight:
        return TakeNumber(reader, &reply->max_calls_in_flight);
      default:
        return Skip(reader);
    }
  });
}

bool DecodeOpenNamespace(std::string_view message, std::string_view* digest) {
  const bool read = ReadFields(message, [&](pbf_reader& reader) {
    return reader.tag() == wire::open_namespace_reply::kNamespaceDigest ? TakeBytes(reader, digest)
                                                                        : Skip(reader);
  });
  return read && digest->size() == kDigestBytes;
}

bool DecodeMapSlab(std::string_view message, uint64_t* slab_bytes) {
  return DecodeOneNumber(message, wire::map_slab_reply::kSlabBytes, slab_bytes);
}

bool DecodeSlabRetired(std::string_view message, uint32_t* slab_id) {
  return DecodeOneNumber(message, wire::slab_retired_notice::kSlabId, slab_id);
}

bool DecodeGpuWorker(std::string_view message, uint32_t* region_id) {
  return DecodeOneNumber(message, wire::gpu_worker_notice::kRegionId, region_id);
}

bool DecodeBackPressure(std::string_view message, uint32_t* retry_after_ms) {
  return DecodeOneNumber(message, wire::back_pressure_notice::kRetryAfterMs, retry_after_ms);
}

bool DecodeError(std::string_view message, ErrorDetail* detail) {
  return ReadFields(message, [&](pbf_reader& reader) {
    switch (reader.tag()) {
      case wire::error_detail::kMessage:
        return TakeBytes(reader, &detail->message);
      case wire::error_detail::kField:
        return TakeBytes(reader, &detail->field);
      case wire::error_detail::kRetryAfterMs:
        return TakeNumber(reader, &detail->retry_after_ms);
      default:
        return Skip(reader);
    }
  });
}

bool DecodeGet(std::string_view message, uint32_t key_count, GetReply* reply) {
  const bool read = ReadFields(message, [&](pbf_reader& reader) {
    switch (reader.tag()) {
      case wire::get_reply::kOutcomes:
        return TakeBytes(reader, &reply->outcomes);
      case wire::get_reply::kPayloadBytes:
        return TakePacked(reader, &reply->payload_bytes);
      case wire::get_reply::kLeaseId:
        return TakeBytes(reader, &reply->lease_id);
      case wire::get_reply::kSlabIds:
        return TakePacked(reader, &reply->slab_ids);
      case wire::get_reply::kSlabOffsets:
        return TakePacked(reader, &reply->slab_offsets);
      default:
        return Skip(reader);
    }
  });
  // A reply without a hit may leave the sizes out.
  const bool hits =
      reply->outcomes.find(static_cast<char>(TERRACE_GET_OK)) != std::string_view::npos;
  if (!read || reply->outcomes.size() != key_count ||
      (reply->payload_bytes.size() != key_count && (hits || reply->payload_bytes.size() != 0))) {
    return false;
  }
  if (reply->lease_id.empty()) {
    return true;
  }
  return reply->lease_id.size() == kDigestBytes && reply->slab_ids.size() == key_count &&
         reply->slab_offsets.size() == key_count;
}

std::string_view LeaseOf(std::string_view message) {
  std::string_view lease;
  const bool read = ReadFields(message, [&](pbf_reader& reader) {
    return reader.tag() == wire::get_reply::kLeaseId ? TakeBytes(reader, &lease) : Skip(reader);
  });
  return read && lease.size() == kDigestBytes ? lease : std::string_view();
}

bool DecodeInto(std::string_view message, Completion* completion) {
  switch (completion->verb) {
    case TERRACE_VERB_PROBE:
      return DecodeProbe(message, completion);
    case TERRACE_VERB_PREFETCH:
      return DecodePrefetch(message, completion);
    case TERRACE_VERB_TICKET:
      return DecodeTicket(message, completion);
    case TERRACE_VERB_PUT:
      return DecodePut(message, completion);
    case TERRACE_VERB_PIN:
      return DecodePin(message, completion);
    case TERRACE_VERB_RELEASE:
      return DecodeOneNumber(message, wire::release_reply::kReleased, &completion->count);
    case TERRACE_VERB_DELETE:
      return DecodeOneNumber(message, wire::delete_reply::kDeleted, &completion->count);
    case TERRACE_VERB_UNPIN:
      return DecodeOneNumber(message, wire::unpin_reply::kUnpinned, &completion->count);
    case TERRACE_VERB_CANCEL: {
      bool found = false;
      const bool read = DecodeOneNumber(message, wire::cancel_reply::kFound, &found);
      completion->count = found ? 1 : 0;
      return read;
    }
    case TERRACE_VERB_CLEAR_NAMESPACE:
      return DecodeOneNumber(message, wire::clear_namespace_reply::kGeneration,
                             &completion->generation);
    case TERRACE_VERB_GET:
      break;  // has slabs to map first, see DecodeGet
  }
  return false;
}

terrace_status StatusOfWire(uint32_t code) {
  switch (code) {
    case TERRACE_OK:
    case TERRACE_CANCELLED:
    case TERRACE_INVALID_ARGUMENT:
    case TERRACE_DEADLINE_EXCEEDED:
    case TERRACE_NOT_FOUND:
    case TERRACE_ALREADY_EXISTS:
    case TERRACE_PERMISSION_DENIED:
    case TERRACE_RESOURCE_EXHAUSTED:
    case TERRACE_FAILED_PRECONDITION:
    case TERRACE_UNIMPLEMENTED:
    case TERRACE_UNAVAILABLE:
      return static_cast<terrace_status>(code);
    default:
      return TERRACE_INTERNAL;
  }
}

uint8_t KnownGetOutcome(char wire) {
  const auto value = static_cast<uint8_t>(wire);
  return value > TERRACE_GET_CANCELLED ? uint8_t{TERRACE_GET_MISS} : value;
}

}  // namespace terrace::client
