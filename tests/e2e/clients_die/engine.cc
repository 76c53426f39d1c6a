#include "tests/e2e/clients_die/engine.h"

#include <algorithm>
#include <chrono>
#include <numeric>

namespace terrace {
namespace {

// Beyond any deadline that a test names.
constexpr std::chrono::seconds kNeverLimit(60);

template <typename T>
std::vector<T> Copy(const T* from, uint32_t count) {
  return from == nullptr ? std::vector<T>() : std::vector<T>(from, from + count);
}

Engine::Reply Take(const terrace_completion& completion) {
  Engine::Reply reply;
  reply.status = completion.status;
  reply.error = completion.error == nullptr ? "" : completion.error;
  reply.states = Copy(completion.states, completion.key_count);
  reply.outcomes = Copy(completion.outcomes, completion.key_count);
  reply.reasons = Copy(completion.reasons, completion.key_count);
  reply.payload_bytes = Copy(completion.payload_bytes, completion.key_count);
  reply.payload = Copy(completion.data, completion.key_count);
  reply.lease = completion.lease;
  reply.hold = completion.hold;
  return reply;
}

}  // namespace

bool IsZero(const terrace_id128& id) {
  return std::all_of(std::begin(id.bytes), std::end(id.bytes),
                     [](uint8_t byte) { return byte == 0; });
}

struct Engine::Batch {
  Batch(const Engine& engine, const std::vector<uint32_t>& ids, terrace_region region)
      : indexes(ids.size()) {
    for (const uint32_t id : ids) {
      keys += KeyOf(id);
    }
    std::iota(indexes.begin(), indexes.end(), 0);
    part.struct_bytes = sizeof(part);
    part.ns = engine.ns_;
    part.rule = TERRACE_RULE_INDEPENDENT;
    part.keys = keys.data();
    part.key_bytes = kKeyBytes;
    part.key_count = static_cast<uint32_t>(ids.size());
    part.region = region;
    part.block_indexes = region == 0 ? nullptr : indexes.data();
    call.struct_bytes = sizeof(call);
    call.tag = engine.tag_;
    call.deadline_ms = engine.deadline_ms_;
    call.parts = &part;
    call.part_count = 1;
  }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;
  ~Batch() = default;

  std::string keys;
  std::vector<uint32_t> indexes;
  terrace_part part{};
  terrace_call call{};
};

std::unique_ptr<Engine> Engine::Open(const std::string& runtime_dir,
                                     const std::string& name,
                                     uint32_t deadline_ms) {
  std::unique_ptr<Engine> engine(new Engine());
  terrace_options options{};
  options.struct_bytes = sizeof(options);
  options.runtime_dir = runtime_dir.c_str();
  options.client_name = name.c_str();
  options.reconnect_ms = 20;
  options.default_deadline_ms = deadline_ms;  // releases name none of their own
  engine->deadline_ms_ = deadline_ms;
  if (terrace_open(&options, &engine->client_) != TERRACE_OK) {
    return nullptr;
  }
  terrace_namespace_record record{};
  record.struct_bytes = sizeof(record);
  record.model = "clients-die";
  record.weights_revision = "r1";
  record.kv_dtype = "bf16";
  record.layout = "test/1";
  record.hash_algorithm = "splitmix";
  record.block_bytes = kBlockBytes;
  void* memory = nullptr;
  if (terrace_open_namespace(engine->client_, &record, &engine->ns_) != TERRACE_OK ||
      terrace_staging_create(engine->client_, kBlockBytes, kStagingBlocks, &engine->staging_,
                             &memory, &engine->stride_) != TERRACE_OK) {
    return nullptr;
  }
  engine->staging_memory_ = static_cast<char*>(memory);
  return engine;
}

Engine::~Engine() {
  terrace_close(client_);
}

Engine::Reply Engine::Wait(terrace_status submitted) {
  if (submitted != TERRACE_OK) {
    Reply reply;
    reply.status = submitted;
    reply.error = terrace_last_error();
    return reply;
  }
  const auto until = std::chrono::steady_clock::now() + kNeverLimit;
  while (std::chrono::steady_clock::now() < until) {
    terrace_completion* completion = nullptr;
    if (terrace_drain(client_, &completion, 1, 1000) == 0) {
      continue;
    }
    const bool mine = completion->tag == tag_;
    Reply reply = Take(*completion);
    terrace_completion_free(completion);
    if (mine) {
      return reply;
    }
  }
  return {};
}

Engine::Reply Engine::Put(terrace_region region,
                          const std::vector<uint32_t>& ids,
                          const std::vector<uint32_t>& payload_bytes) {
  ++tag_;
  const Batch batch(*this, ids, region);
  terrace_put_options options{};
  options.struct_bytes = sizeof(options);
  options.payload_bytes = payload_bytes.data();
  return Wait(terrace_submit_put(client_, &batch.call, &options, nullptr, 0, nullptr));
}

Engine::Reply Engine::Put(const std::vector<uint32_t>& ids) {
  std::vector<uint32_t> payload_bytes;
  for (size_t k = 0; k < ids.size(); ++k) {
    FillPayload(ids[k], staging_memory_ + k * stride_);
    payload_bytes.push_back(PayloadBytesOf(ids[k]));
  }
  return Put(staging_, ids, payload_bytes);
}

Engine::Reply Engine::PutFrom(terrace_region region,
                              const std::vector<uint32_t>& ids,
                              uint32_t payload_bytes) {
  return Put(region, ids, std::vector<uint32_t>(ids.size(), payload_bytes));
}

Engine::Reply Engine::LoadInto(terrace_region region, const std::vector<uint32_t>& ids) {
  ++tag_;
  const Batch batch(*this, ids, region);
  terrace_get_options options{};
  options.struct_bytes = sizeof(options);
  options.delivery = TERRACE_DELIVER_REGION;
  return Wait(terrace_submit_get(client_, &batch.call, &options, nullptr));
}

Engine::Reply Engine::Load(const std::vector<uint32_t>& ids) {
  return LoadInto(staging_, ids);
}

bool Engine::Loaded(uint32_t k, uint32_t id, uint32_t payload_bytes) const {
  return IsPayload(id, staging_memory_ + k * stride_, payload_bytes);
}

Engine::Reply Engine::Probe(const std::vector<uint32_t>& ids, uint32_t hold_ms) {
  ++tag_;
  const Batch batch(*this, ids, 0);
  return Wait(terrace_submit_probe(client_, &batch.call, hold_ms, 0, nullptr));
}

Engine::Reply Engine::Lease(const std::vector<uint32_t>& ids) {
  ++tag_;
  const Batch batch(*this, ids, 0);
  terrace_get_options options{};
  options.struct_bytes = sizeof(options);
  options.delivery = TERRACE_DELIVER_LEASE;
  return Wait(terrace_submit_get(client_, &batch.call, &options, nullptr));
}

Engine::Reply Engine::Release(const std::vector<terrace_id128>& leases,
                              const std::vector<terrace_id128>& holds) {
  ++tag_;
  return Wait(terrace_submit_release(client_, leases.data(), static_cast<uint32_t>(leases.size()),
                                     holds.data(), static_cast<uint32_t>(holds.size()), tag_,
                                     nullptr));
}

terrace_client_state Engine::State() const {
  terrace_client_state state{};
  state.struct_bytes = sizeof(state);
  (void)terrace_state(client_, &state);
  return state;
}

}  // namespace terrace
