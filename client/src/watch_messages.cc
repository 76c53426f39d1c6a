#include "client/src/watch_messages.h"

#include <protozero/pbf_writer.hpp>

#include "client/src/field_reader.h"
#include "client/src/request.h"
#include "client/src/wire_fields.h"

namespace terrace::client {
namespace {

using protozero::pbf_reader;
using protozero::pbf_wire_type;

constexpr uint32_t kMostKeyBytes = 64;

bool TakeFixed64(pbf_reader& reader, uint64_t* out) {
  if (reader.wire_type() != pbf_wire_type::fixed64) {
    return false;
  }
  *out = reader.get_fixed64();
  return true;
}

bool HasWholeKeys(const WatchEvent& event) {
  if (event.keys.empty()) {
    return true;
  }
  return event.key_bytes > 0 && event.key_bytes <= kMostKeyBytes &&
         event.keys.size() % event.key_bytes == 0;
}

bool DecodeEvent(std::string_view message, WatchEvent* event) {
  const bool read = ReadFields(message, [&](pbf_reader& reader) {
    switch (reader.tag()) {
      case wire::event::kKind:
        return TakeNumber(reader, &event->kind);
      case wire::event::kSequence:
        return TakeNumber(reader, &event->sequence);
      case wire::event::kNamespaceDigest:
        return TakeId(reader, &event->ns);
      case wire::event::kKeyBytes:
        return TakeNumber(reader, &event->key_bytes);
      case wire::event::kKeys:
        return TakeBytes(reader, &event->keys);
      case wire::event::kParent:
        return TakeBytes(reader, &event->parent);
      case wire::event::kFirstToken:
        return TakeNumber(reader, &event->first_token);
      case wire::event::kBlockTokens:
        return TakeNumber(reader, &event->block_tokens);
      case wire::event::kTier:
        return TakeBytes(reader, &event->tier);
      case wire::event::kSalt:
        return TakeBytes(reader, &event->salt);
      default:
        return Skip(reader);
    }
  });
  return read && HasWholeKeys(*event);
}

bool DecodeNamespace(std::string_view message, WatchedNamespaceMessage* out) {
  return ReadFields(message, [&](pbf_reader& reader) {
    switch (reader.tag()) {
      case wire::watched_namespace::kNamespaceDigest:
        return TakeId(reader, &out->digest);
      case wire::watched_namespace::kFamilyDigest:
        return TakeId(reader, &out->family);
      case wire::watched_namespace::kRecord:
        return TakeBytes(reader, &out->record);
      default:
        return Skip(reader);
    }
  });
}

template <typename Element, typename Decode>
bool TakeElement(pbf_reader& reader, std::vector<Element>* out, Decode decode) {
  std::string_view message;
  return TakeBytes(reader, &message) && decode(message, &out->emplace_back());
}

}  // namespace

void EncodeWatch(const WatchRequest& request, std::string* frame) {
  protozero::pbf_writer writer(*frame);
  if (request.publisher_id != 0) {
    writer.add_fixed64(wire::watch_request::kPublisherId, request.publisher_id);
    writer.add_uint64(wire::watch_request::kAfterSequence, request.after_sequence);
  }
  if (request.snapshot) {
    writer.add_bool(wire::watch_request::kSnapshot, true);
  }
  for (size_t at = 0; at < request.namespaces.size(); at += kDigestBytes) {
    writer.add_bytes(wire::watch_request::kNamespaces, request.namespaces.data() + at,
                     kDigestBytes);
  }
  writer.add_uint32(wire::watch_request::kHeartbeatMs, request.heartbeat_ms);
}

bool DecodeWatch(std::string_view message, WatchReply* reply) {
  return ReadFields(message, [&](pbf_reader& reader) {
    switch (reader.tag()) {
      case wire::watch_reply::kPublisherId:
        return TakeFixed64(reader, &reply->publisher_id);
      case wire::watch_reply::kCallId:
        return TakeNumber(reader, &reply->call_id);
      case wire::watch_reply::kEvents:
        return TakeElement(reader, &reply->events, DecodeEvent);
      case wire::watch_reply::kNamespaces:
        return TakeElement(reader, &reply->namespaces, DecodeNamespace);
      default:
        return Skip(reader);
    }
  });
}

}  // namespace terrace::client
