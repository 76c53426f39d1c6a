#include "tools/bench/client_session.h"

#include <algorithm>
#include <array>

namespace terrace::bench {
namespace {

constexpr uint32_t kDeadlineMs = 60'000;
constexpr uint32_t kReconnectMs = 20;

absl::Status StatusOf(terrace_status status, const std::string& what) {
  return status == TERRACE_OK ? absl::OkStatus()
                              : absl::Status(static_cast<absl::StatusCode>(status), what);
}

absl::Status LastError(terrace_status status, const char* verb) {
  return StatusOf(status, std::string(verb) + ": " + terrace_last_error());
}

bool IsZero(const terrace_id128& id) {
  return std::all_of(std::begin(id.bytes), std::end(id.bytes),
                     [](uint8_t byte) { return byte == 0; });
}

terrace_part PartOf(const KeyChain& chain) {
  terrace_part part{};
  part.struct_bytes = sizeof(part);
  part.ns = chain.ns;
  part.rule = chain.rule;
  part.keys = chain.keys.data();
  part.key_bytes = chain.key_bytes;
  part.key_count = chain.count();
  part.first_token = chain.first_token;
  part.region = chain.region;
  part.block_indexes = chain.region == 0 ? nullptr : chain.block_indexes.data();
  return part;
}

}  // namespace

KeyChain KeyChain::Slice(uint32_t begin, uint32_t wanted, uint32_t block_tokens) const {
  const uint32_t taken = std::min(wanted, count() - begin);
  KeyChain part = *this;
  part.keys = keys.substr(size_t{begin} * key_bytes, size_t{taken} * key_bytes);
  part.first_token = first_token + uint64_t{begin} * block_tokens;
  if (region != 0) {
    part.block_indexes = block_indexes.subspan(begin, taken);
  }
  return part;
}

absl::StatusOr<std::unique_ptr<ClientSession>> ClientSession::Open(const std::string& runtime_dir) {
  terrace_options options{};
  options.struct_bytes = sizeof(options);
  options.runtime_dir = runtime_dir.c_str();
  options.client_name = "terrace-bench";
  options.default_deadline_ms = kDeadlineMs;
  options.reconnect_ms = kReconnectMs;
  terrace_client* client = nullptr;
  if (const terrace_status status = terrace_open(&options, &client); status != TERRACE_OK) {
    return LastError(status, "open");
  }
  return std::unique_ptr<ClientSession>(new ClientSession(client));
}

absl::StatusOr<std::unique_ptr<ClientSession>> ClientSession::Connect(
    const std::string& runtime_dir) {
  absl::StatusOr<std::unique_ptr<ClientSession>> session = Open(runtime_dir);
  if (session.ok() && !(*session)->WaitConnected(std::chrono::seconds(10))) {
    return absl::UnavailableError(runtime_dir + "/session.sock: no daemon answers");
  }
  return session;
}

ClientSession::~ClientSession() {
  terrace_close(client_);
}

bool ClientSession::WaitConnected(std::chrono::milliseconds limit) {
  return terrace_wait_connected(client_, static_cast<uint32_t>(limit.count())) == TERRACE_OK;
}

uint64_t ClientSession::LeaseLimitBytes() {
  terrace_client_state state{};
  state.struct_bytes = sizeof(state);
  terrace_state(client_, &state);
  return state.lease_limit_bytes;
}

absl::StatusOr<terrace_namespace> ClientSession::OpenNamespace(const std::string& model,
                                                               uint64_t block_bytes,
                                                               uint32_t block_tokens) {
  terrace_namespace_record record{};
  record.struct_bytes = sizeof(record);
  record.model = model.c_str();
  record.weights_revision = "0";
  record.kv_dtype = "bf16";
  record.layout = "terrace-bench/1";
  record.hash_algorithm = "terrace-bench";
  record.block_tokens = block_tokens;
  record.block_bytes = block_bytes;
  record.shard_count = 1;
  terrace_namespace ns = 0;
  if (const terrace_status status = terrace_open_namespace(client_, &record, &ns);
      status != TERRACE_OK) {
    return LastError(status, "open namespace");
  }
  return ns;
}

absl::StatusOr<terrace_region> ClientSession::RegisterRegion(int fd,
                                                             uint64_t block_bytes,
                                                             uint32_t block_count) {
  terrace_region_spec spec{};
  spec.struct_bytes = sizeof(spec);
  spec.fd = fd;
  spec.bytes = block_bytes * block_count;
  spec.block_count = block_count;
  spec.block_bytes = block_bytes;
  return RegisterRegion(spec);
}

absl::StatusOr<terrace_region> ClientSession::RegisterRegion(const terrace_region_spec& spec) {
  terrace_region region = 0;
  if (const terrace_status status = terrace_register_region(client_, &spec, &region);
      status != TERRACE_OK) {
    return LastError(status, "register region");
  }
  return region;
}

absl::Status ClientSession::UnregisterRegion(terrace_region region) {
  const terrace_status status = terrace_unregister_region(client_, region, kDeadlineMs);
  return status == TERRACE_OK ? absl::OkStatus() : LastError(status, "unregister region");
}

terrace_call ClientSession::CallOf(const terrace_part& part) {
  terrace_call call{};
  call.struct_bytes = sizeof(call);
  call.tag = ++tag_;
  call.parts = &part;
  call.part_count = 1;
  return call;
}

absl::StatusOr<Completion> ClientSession::Await(terrace_status submitted, const char* verb) {
  if (submitted != TERRACE_OK) {
    return LastError(submitted, verb);
  }
  for (;;) {
    terrace_completion* drained = nullptr;
    if (terrace_drain(client_, &drained, 1, 2 * kDeadlineMs) == 0) {
      return absl::DeadlineExceededError(std::string(verb) + ": no completion came");
    }
    Completion completion(drained);
    if (completion->tag != tag_) {
      continue;  // of a call that was given up
    }
    if (completion->status != TERRACE_OK) {
      return StatusOf(completion->status, std::string(verb) + ": " + completion->error);
    }
    return completion;
  }
}

absl::StatusOr<Completion> ClientSession::Probe(const KeyChain& chain,
                                                std::chrono::milliseconds hold) {
  const terrace_part part = PartOf(chain);
  const terrace_call call = CallOf(part);
  return Await(
      terrace_submit_probe(client_, &call, static_cast<uint32_t>(hold.count()), 0, nullptr),
      "probe");
}

terrace_status ClientSession::SubmitGet(const KeyChain& chain,
                                        const terrace_id128& hold,
                                        terrace_delivery delivery,
                                        Pending pending) {
  const terrace_part part = PartOf(chain);
  const terrace_call call = CallOf(part);
  terrace_get_options options{};
  options.struct_bytes = sizeof(options);
  options.delivery = delivery;
  options.hold = hold;
  options.wait_pending = pending == Pending::kWait ? 1 : 0;
  return terrace_submit_get(client_, &call, &options, nullptr);
}

absl::StatusOr<Completion> ClientSession::GetLease(const KeyChain& chain,
                                                   const terrace_id128& hold,
                                                   Pending pending) {
  return Await(SubmitGet(chain, hold, TERRACE_DELIVER_LEASE, pending), "get");
}

absl::Status ClientSession::BeginGetLease(const KeyChain& chain) {
  const terrace_status status = SubmitGet(chain, {}, TERRACE_DELIVER_LEASE, Pending::kMiss);
  return status == TERRACE_OK ? absl::OkStatus() : LastError(status, "get");
}

absl::StatusOr<Completion> ClientSession::AwaitLease() {
  return Await(TERRACE_OK, "get");
}

absl::StatusOr<Completion> ClientSession::GetIntoRegion(const KeyChain& chain,
                                                        const terrace_id128& hold,
                                                        Pending pending) {
  return Await(SubmitGet(chain, hold, TERRACE_DELIVER_REGION, pending), "get");
}

absl::StatusOr<Completion> ClientSession::Put(const KeyChain& chain,
                                              uint32_t payload_bytes,
                                              std::string_view parent,
                                              terrace_level wait_for) {
  return Put(chain, std::vector<uint32_t>(chain.count(), payload_bytes), parent, wait_for);
}

absl::StatusOr<Completion> ClientSession::Put(const KeyChain& chain,
                                              absl::Span<const uint32_t> payload_bytes,
                                              std::string_view parent,
                                              terrace_level wait_for,
                                              const Hints& hints) {
  const terrace_part part = PartOf(chain);
  const terrace_call call = CallOf(part);
  terrace_put_options options{};
  options.struct_bytes = sizeof(options);
  options.payload_bytes = payload_bytes.data();
  options.parent = parent.empty() ? nullptr : parent.data();
  options.parent_bytes = static_cast<uint32_t>(parent.size());
  options.wait_for = wait_for;
  options.output_tokens = hints.output_tokens;
  options.expected_return_ms = hints.return_ms;
  options.compute_us = hints.compute_us;
  options.stop_reason = hints.stop_reason.empty() ? nullptr : hints.stop_reason.c_str();
  return Await(terrace_submit_put(client_, &call, &options, nullptr, 0, nullptr), "put");
}

absl::Status ClientSession::Prefetch(const KeyChain& chain) {
  const terrace_part part = PartOf(chain);
  const terrace_call call = CallOf(part);
  return Await(terrace_submit_prefetch(client_, &call, TERRACE_PRIORITY_NORMAL, 0, nullptr),
               "prefetch")
      .status();
}

absl::Status ClientSession::Delete(const KeyChain& chain) {
  const terrace_part part = PartOf(chain);
  const terrace_call call = CallOf(part);
  return Await(terrace_submit_delete(client_, &call, nullptr), "delete").status();
}

absl::Status ClientSession::ClearNamespace(terrace_namespace ns) {
  return Await(terrace_submit_clear_namespace(client_, ns, 0, ++tag_, nullptr), "clear").status();
}

absl::Status ClientSession::Release(const terrace_id128& lease, const terrace_id128& hold) {
  const uint32_t leases = IsZero(lease) ? 0 : 1;
  const uint32_t holds = IsZero(hold) ? 0 : 1;
  if (leases + holds == 0) {
    return absl::OkStatus();
  }
  const terrace_status status =
      terrace_submit_release(client_, &lease, leases, &hold, holds, 0, nullptr);
  return status == TERRACE_OK ? absl::OkStatus() : LastError(status, "release");
}

uint32_t CountOutcomes(const terrace_completion& completion, uint8_t outcome) {
  return static_cast<uint32_t>(
      std::count(completion.outcomes, completion.outcomes + completion.key_count, outcome));
}

absl::Status AllOutcomes(const terrace_completion& completion, uint8_t outcome, const char* verb) {
  for (uint32_t i = 0; i < completion.key_count; ++i) {
    if (completion.outcomes[i] != outcome) {
      const bool put = completion.verb == TERRACE_VERB_PUT;
      return absl::InternalError(std::string(verb) + ": key " + std::to_string(i) + " of " +
                                 std::to_string(completion.key_count) + " got outcome " +
                                 std::to_string(completion.outcomes[i]) +
                                 (put ? ", reason " + std::to_string(completion.reasons[i]) : ""));
    }
  }
  return absl::OkStatus();
}

uint32_t DeliveredPrefix(const terrace_completion& completion) {
  uint32_t delivered = 0;
  while (delivered < completion.key_count && completion.outcomes[delivered] == TERRACE_GET_OK) {
    ++delivered;
  }
  return delivered;
}

}  // namespace terrace::bench
