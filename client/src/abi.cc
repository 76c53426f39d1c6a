// The functions of terrace.h: check the arguments, call the client, keep the text of the last
// failure. No exception leaves this file.
#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>
#include <utility>

#include "terrace/terrace.h"

#include "client/src/arguments.h"
#include "client/src/client.h"
#include "client/src/guarded.h"

struct terrace_client {
  terrace::client::Client client;
};

namespace terrace::client {
namespace {

template <typename Check>
terrace_status Submit(terrace_client* client, uint64_t* call_id, Check check) noexcept {
  return Guarded([&]() -> Verdict {
    if (client == nullptr) {
      return Verdict::Invalid("client: null");
    }
    Request request;
    Verdict verdict = check(&request);
    return verdict.ok() ? client->client.Submit(&request, call_id) : verdict;
  });
}

std::string_view IdBytes(const terrace_id128* ids, uint32_t count) {
  return count == 0
             ? std::string_view()
             : std::string_view(reinterpret_cast<const char*>(ids), size_t{count} * kDigestBytes);
}

}  // namespace
}  // namespace terrace::client

using terrace::client::Guarded;
using terrace::client::Method;
using terrace::client::Request;
using terrace::client::Submit;
using terrace::client::Verdict;

extern "C" {

terrace_status terrace_open(const terrace_options* options, terrace_client** out) {
  return Guarded([&]() -> Verdict {
    if (out == nullptr) {
      return Verdict::Invalid("out: null");
    }
    *out = nullptr;
    terrace::client::ClientOptions checked;
    Verdict verdict = terrace::client::CheckOptions(options, &checked);
    if (!verdict.ok()) {
      return verdict;
    }
    std::unique_ptr<terrace_client> opened(
        new terrace_client{terrace::client::Client(std::move(checked))});
    verdict = opened->client.Open();
    if (verdict.ok()) {
      *out = opened.release();
    }
    return verdict;
  });
}

void terrace_close(terrace_client* client) {
  const std::unique_ptr<terrace_client> owned(client);
}

const char* terrace_last_error(void) {
  return terrace::client::last_error;
}

const char* terrace_version(void) {
  return TERRACE_VERSION;
}

terrace_status terrace_state(terrace_client* client, terrace_client_state* out) {
  return Guarded([&]() -> Verdict {
    if (client == nullptr || out == nullptr || out->struct_bytes < sizeof(uint32_t)) {
      return Verdict::Invalid("out: null, or struct_bytes not set");
    }
    if (!client->client.SameProcess()) {
      return {TERRACE_FAILED_PRECONDITION, "a child of fork must open a client of its own"};
    }
    const uint32_t bytes = out->struct_bytes;
    terrace_client_state state = client->client.State();
    state.struct_bytes = bytes;
    std::memcpy(out, &state, std::min<size_t>(bytes, sizeof(state)));
    return {};
  });
}

terrace_status terrace_wait_connected(terrace_client* client, uint32_t timeout_ms) {
  return Guarded([&]() -> Verdict {
    return client == nullptr ? Verdict::Invalid("client: null")
                             : client->client.WaitConnected(timeout_ms);
  });
}

terrace_status terrace_open_namespace(terrace_client* client,
                                      const terrace_namespace_record* record,
                                      terrace_namespace* out) {
  return Guarded([&]() -> Verdict {
    if (client == nullptr || out == nullptr) {
      return Verdict::Invalid("client, out: null");
    }
    terrace_namespace_record checked;
    Verdict verdict = terrace::client::CheckRecord(record, &checked);
    return verdict.ok() ? client->client.OpenNamespace(checked, out) : verdict;
  });
}

terrace_status terrace_register_region(terrace_client* client,
                                       const terrace_region_spec* spec,
                                       terrace_region* out) {
  return Guarded([&]() -> Verdict {
    if (client == nullptr || out == nullptr) {
      return Verdict::Invalid("client, out: null");
    }
    terrace_region_spec checked;
    Verdict verdict = terrace::client::CheckRegion(spec, &checked);
    return verdict.ok() ? client->client.RegisterRegion(checked, {}, out) : verdict;
  });
}

terrace_status terrace_wait_layers(terrace_client* client,
                                   uint64_t call_id,
                                   terrace_region region,
                                   uint32_t progress_slot,
                                   uint32_t layers,
                                   uint32_t timeout_ms) {
  return Guarded([&]() -> Verdict {
    if (client == nullptr) {
      return Verdict::Invalid("client: null");
    }
    return client->client.WaitLayers(call_id, region, progress_slot, layers, timeout_ms);
  });
}

terrace_status terrace_progress_page(terrace_client* client, terrace_region region, int* fd) {
  return Guarded([&]() -> Verdict {
    if (client == nullptr || fd == nullptr) {
      return Verdict::Invalid("client, fd: null");
    }
    return client->client.ProgressPage(region, fd);
  });
}

terrace_status terrace_unregister_region(terrace_client* client,
                                         terrace_region region,
                                         uint32_t timeout_ms) {
  return Guarded([&]() -> Verdict {
    return client == nullptr ? Verdict::Invalid("client: null")
                             : client->client.UnregisterRegion(
                                   region, timeout_ms, terrace::client::Client::RegionKind::kAny);
  });
}

terrace_status terrace_staging_create(terrace_client* client,
                                      uint64_t block_bytes,
                                      uint32_t block_count,
                                      terrace_region* region,
                                      void** data,
                                      uint64_t* stride) {
  return Guarded([&]() -> Verdict {
    if (client == nullptr || region == nullptr || data == nullptr || stride == nullptr) {
      return Verdict::Invalid("client, region, data, stride: null");
    }
    Verdict verdict = terrace::client::CheckStaging(block_bytes, block_count);
    return verdict.ok()
               ? client->client.CreateStaging(block_bytes, block_count, region, data, stride)
               : verdict;
  });
}

terrace_status terrace_staging_destroy(terrace_client* client,
                                       terrace_region region,
                                       uint32_t timeout_ms) {
  return Guarded([&]() -> Verdict {
    return client == nullptr
               ? Verdict::Invalid("client: null")
               : client->client.UnregisterRegion(region, timeout_ms,
                                                 terrace::client::Client::RegionKind::kStaging);
  });
}

terrace_status terrace_submit_probe(terrace_client* client,
                                    const terrace_call* call,
                                    uint32_t hold_ms,
                                    int prefetch,
                                    uint64_t* call_id) {
  return Submit(client, call_id, [&](Request* request) {
    request->hold_ms = hold_ms;
    request->prefetch = prefetch != 0;
    return terrace::client::CheckCall(call, {Method::kProbe}, request);
  });
}

terrace_status terrace_submit_prefetch(terrace_client* client,
                                       const terrace_call* call,
                                       terrace_priority priority,
                                       uint32_t hold_ms,
                                       uint64_t* call_id) {
  return Submit(client, call_id, [&](Request* request) -> Verdict {
    constexpr uint32_t kMostPrefetchMs = 60000;
    if (terrace::client::NumberIn(priority) > TERRACE_PRIORITY_HIGH) {
      return Verdict::Invalid("priority: must be 0 to 3");
    }
    request->priority = priority;
    request->hold_ms = hold_ms;
    Verdict verdict = terrace::client::CheckCall(call, {Method::kPrefetch}, request);
    request->prefetch_deadline_ms = std::min(request->deadline_ms, kMostPrefetchMs);
    return verdict;
  });
}

terrace_status terrace_submit_ticket(
    terrace_client* client, uint64_t ticket, uint32_t wait_ms, uint64_t tag, uint64_t* call_id) {
  return Submit(client, call_id, [&](Request* request) -> Verdict {
    constexpr uint32_t kMostWaitMs = 10000;
    constexpr uint32_t kAnswerMs = 1000;
    if (ticket == 0 || wait_ms > kMostWaitMs) {
      return Verdict::Invalid("ticket: not 0; wait_ms: at most 10000");
    }
    request->method = Method::kTicket;
    request->tag = tag;
    request->ticket = ticket;
    request->wait_ms = wait_ms;
    request->deadline_ms = wait_ms + kAnswerMs;
    return {};
  });
}

terrace_status terrace_submit_get(terrace_client* client,
                                  const terrace_call* call,
                                  const terrace_get_options* options,
                                  uint64_t* call_id) {
  return Submit(client, call_id, [&](Request* request) {
    return terrace::client::CheckGet(call, options, request);
  });
}

terrace_status terrace_submit_put(terrace_client* client,
                                  const terrace_call* call,
                                  const terrace_put_options* options,
                                  const void* payload,
                                  uint64_t payload_bytes,
                                  uint64_t* call_id) {
  return Submit(client, call_id, [&](Request* request) {
    const std::string_view bytes(static_cast<const char*>(payload),
                                 payload == nullptr ? 0 : payload_bytes);
    return terrace::client::CheckPut(call, options, bytes, request);
  });
}

terrace_status terrace_submit_release(terrace_client* client,
                                      const terrace_id128* leases,
                                      uint32_t lease_count,
                                      const terrace_id128* holds,
                                      uint32_t hold_count,
                                      uint64_t tag,
                                      uint64_t* call_id) {
  return Guarded([&]() -> Verdict {
    if (client == nullptr) {
      return Verdict::Invalid("client: null");
    }
    Verdict verdict = terrace::client::CheckRelease(leases, lease_count, holds, hold_count);
    if (!verdict.ok()) {
      return verdict;
    }
    Request request;
    request.method = Method::kRelease;
    request.tag = tag;
    request.holds = terrace::client::IdBytes(holds, hold_count);
    return client->client.Release(leases, lease_count, &request, call_id);
  });
}

terrace_status terrace_submit_delete(terrace_client* client,
                                     const terrace_call* call,
                                     uint64_t* call_id) {
  return Submit(client, call_id, [&](Request* request) {
    return terrace::client::CheckCall(call, {Method::kDelete, 1}, request);
  });
}

terrace_status terrace_submit_clear_namespace(terrace_client* client,
                                              terrace_namespace ns,
                                              uint32_t deadline_ms,
                                              uint64_t tag,
                                              uint64_t* call_id) {
  return Submit(client, call_id, [&](Request* request) -> Verdict {
    request->method = Method::kClearNamespace;
    request->tag = tag;
    request->deadline_ms = deadline_ms;
    request->ns = ns;
    return {};
  });
}

terrace_status terrace_submit_pin(terrace_client* client,
                                  const terrace_call* call,
                                  uint32_t ttl_s,
                                  uint64_t* call_id) {
  return Submit(client, call_id, [&](Request* request) {
    request->ttl_s = ttl_s;
    return terrace::client::CheckCall(call, {Method::kPin, 1}, request);
  });
}

terrace_status terrace_submit_unpin(terrace_client* client,
                                    const terrace_call* call,
                                    uint64_t* call_id) {
  return Submit(client, call_id, [&](Request* request) {
    return terrace::client::CheckCall(call, {Method::kUnpin, 1}, request);
  });
}

terrace_status terrace_submit_cancel(terrace_client* client,
                                     uint64_t target_call_id,
                                     uint64_t ticket,
                                     uint64_t tag,
                                     uint64_t* call_id) {
  return Guarded([&]() -> Verdict {
    if (client == nullptr) {
      return Verdict::Invalid("client: null");
    }
    if ((target_call_id == 0) == (ticket == 0)) {
      return Verdict::Invalid("target_call_id, ticket: one of them must be given");
    }
    Request request;
    request.method = Method::kCancel;
    request.tag = tag;
    request.target_call_id = target_call_id;
    request.ticket = ticket;
    return client->client.Cancel(&request, call_id);
  });
}

int terrace_event_fd(terrace_client* client) {
  int fd = -1;
  Guarded([&]() -> Verdict {
    fd = client == nullptr ? -1 : client->client.EventDescriptor();
    return {};
  });
  return fd;
}

uint32_t terrace_drain(terrace_client* client,
                       terrace_completion** out,
                       uint32_t max,
                       uint32_t timeout_ms) {
  uint32_t taken = 0;
  Guarded([&]() -> Verdict {
    if (client == nullptr || (out == nullptr && max > 0)) {
      return Verdict::Invalid("client, out: null");
    }
    taken = client->client.Drain(out, max, timeout_ms);
    return {};
  });
  return taken;
}

void terrace_completion_free(terrace_completion* completion) {
  const std::unique_ptr<terrace::client::Completion> owned(
      static_cast<terrace::client::Completion*>(completion));
}

}  // extern "C"
