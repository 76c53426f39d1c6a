// Watch: events with resume, snapshot, heartbeat and gaps.
#include <algorithm>

#include "tests/doubles/request_limits.h"
#include "tests/doubles/service_double.h"

namespace terrace::doubles {
namespace {

constexpr uint32_t kHeartbeatMs = 1000;
constexpr uint32_t kMaxHeartbeatMs = 60'000;
constexpr int kEventsPerMessage = 256;

}  // namespace

v1::Event ServiceDouble::EventFor(const BlockName& name,
                                  const Block& block,
                                  v1::EventKind kind,
                                  std::string_view tier) const {
  v1::Event event;
  event.set_kind(kind);
  event.set_namespace_digest(name.namespace_digest);
  event.set_key_bytes(static_cast<uint32_t>(name.key.size()));
  event.set_keys(name.key);
  event.set_salt(name.salt);
  event.set_tier(std::string(tier));
  if (kind == v1::EVENT_KIND_STORED) {
    event.set_parent(block.parent);
    event.set_first_token(block.first_token);
    event.set_block_tokens(namespaces_.at(name.namespace_digest).record.block_tokens());
    if (block.metadata) {
      *event.add_metadata() = *block.metadata;
    }
  }
  return event;
}

void ServiceDouble::Publish(const BlockName& name,
                            const Block& block,
                            v1::EventKind kind,
                            std::string_view tier) {
  PublishEvent(block.tenant, EventFor(name, block, kind, tier));
}

void ServiceDouble::PublishEvent(const std::string& tenant, v1::Event event) {
  Tenant& publisher = tenants_[tenant];
  event.set_sequence(++publisher.newest);
  publisher.events.push_back(std::move(event));
  while (publisher.events.size() > options_.event_backlog) {
    publisher.events.pop_front();
  }
}

v1::Event ServiceDouble::GapUpTo(uint64_t sequence) {
  v1::Event gap;
  gap.set_kind(v1::EVENT_KIND_GAP);
  gap.set_sequence(sequence);
  return gap;
}

void ServiceDouble::AddSnapshot(Stream& stream) const {
  const auto tenant = tenants_.find(stream.tenant);
  const uint64_t as_of = tenant == tenants_.end() ? 0 : tenant->second.newest;
  std::vector<std::pair<uint64_t, v1::Event>> stored;
  for (const auto& [name, block] : blocks_) {
    const bool wanted =
        stream.namespaces.empty() || stream.namespaces.contains(name.namespace_digest);
    if (block.tenant == stream.tenant && wanted) {
      stored.emplace_back(block.first_token,
                          EventFor(name, block, v1::EVENT_KIND_STORED, block.slot ? "g2" : "g3"));
    }
  }
  // Parents first, so that a consumer can build its chains while it reads.
  std::stable_sort(stored.begin(), stored.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  for (auto& [first_token, event] : stored) {
    event.set_sequence(as_of);
    stream.first.push_back(event);
  }
  v1::Event end;
  end.set_kind(v1::EVENT_KIND_SNAPSHOT_END);
  end.set_sequence(as_of);
  stream.first.push_back(end);
}

absl::Status ServiceDouble::Watch(const Caller& caller,
                                  const v1::WatchRequest& request,
                                  uint64_t* stream) {
  if (absl::Status status = Admit(caller); !status.ok()) {
    return status;
  }
  if (absl::Status status = Require(v1::FEATURE_WATCH, "Watch"); !status.ok()) {
    return status;
  }
  if (request.heartbeat_ms() > kMaxHeartbeatMs) {
    return Invalid("heartbeat_ms", "at most 60000");
  }
  for (const std::string& digest : request.namespaces()) {
    if (digest.size() != 16) {
      return Invalid("namespaces", "16 bytes each");
    }
  }
  const Tenant& publisher = tenants_[caller.tenant];
  Stream opened;
  opened.tenant = caller.tenant;
  opened.session = caller.session;
  opened.call_id = caller.call_id;
  opened.namespaces.insert(request.namespaces().begin(), request.namespaces().end());
  opened.heartbeat =
      absl::Milliseconds(request.heartbeat_ms() == 0 ? kHeartbeatMs : request.heartbeat_ms());
  opened.sent = clock_.Now();
  opened.next = publisher.newest + 1;
  const bool resumes = request.publisher_id() != 0;
  if (request.snapshot()) {
    AddSnapshot(opened);
  } else if (resumes && request.publisher_id() == publisher_id_ &&
             request.after_sequence() <= publisher.newest) {
    opened.next = request.after_sequence() + 1;
  } else if (resumes) {
    opened.first.push_back(GapUpTo(publisher.newest));
  }
  *stream = next_id_++;
  streams_[*stream] = std::move(opened);
  return absl::OkStatus();
}

void ServiceDouble::Send(Stream& stream, const v1::Event& event, v1::WatchReply* reply) const {
  const std::string& digest = event.namespace_digest();
  if (!digest.empty() && stream.described.insert(digest).second) {
    const Namespace& known = namespaces_.at(digest);
    v1::WatchedNamespace* described = reply->add_namespaces();
    described->set_namespace_digest(digest);
    described->set_family_digest(known.family);
    *described->mutable_record() = known.record;
  }
  *reply->add_events() = event;
}

bool ServiceDouble::NextEvents(uint64_t id, v1::WatchReply* reply) {
  Settle();
  const auto it = streams_.find(id);
  if (it == streams_.end()) {
    return false;
  }
  Stream& stream = it->second;
  reply->Clear();
  reply->set_boot_id(boot_id_);
  reply->set_publisher_id(publisher_id_);
  reply->set_call_id(stream.session == 0 ? 0 : stream.call_id);
  while (!stream.first.empty() && reply->events_size() < kEventsPerMessage) {
    Send(stream, stream.first.front(), reply);
    stream.first.pop_front();
  }
  const Tenant& publisher = tenants_[stream.tenant];
  const uint64_t oldest = publisher.newest + 1 - publisher.events.size();
  if (stream.first.empty() && stream.next < oldest) {
    Send(stream, GapUpTo(oldest - 1), reply);
    stream.next = oldest;
  }
  while (stream.first.empty() && stream.next <= publisher.newest &&
         reply->events_size() < kEventsPerMessage) {
    const v1::Event& event = publisher.events[stream.next++ - oldest];
    if (stream.namespaces.empty() || stream.namespaces.contains(event.namespace_digest())) {
      Send(stream, event, reply);
    }
  }
  if (reply->events().empty() && stream.sent + stream.heartbeat <= clock_.Now()) {
    v1::Event heartbeat;
    heartbeat.set_kind(v1::EVENT_KIND_HEARTBEAT);
    heartbeat.set_sequence(publisher.newest);
    Send(stream, heartbeat, reply);
  }
  if (reply->events().empty()) {
    return false;
  }
  stream.sent = clock_.Now();
  return true;
}

}  // namespace terrace::doubles
