// The handlers of the data contract: one function a verb, in which both carriers end. Each checks the request, hands it
// to the BlockStore and turns the result into the reply.
//
// Order in each: check everything, then move the large strings out of the request, then call. A refused request has had
// no effect. `done` runs exactly once, on the calling thread or on one of the store's; with a status other than OK the
// reply is empty. The request may be reused when the function has returned. Nothing here blocks.
//
// Thread-safe. Callbacks given to the store hold no reference to this object, so that a late completion may outlive it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "terrace/v1/cache.pb.h"
#include "terrace/v1/session.pb.h"

#include "daemon/block_store.h"
#include "daemon/call_observer.h"
#include "daemon/front.h"
#include "daemon/gpu_handoff.h"
#include "daemon/wire/watch_feed.h"

namespace terrace {

// Payload of one PutStream in all: the largest block, or several smaller ones.
inline constexpr uint64_t kMaxStreamBytes = uint64_t{64} << 20;
inline constexpr uint64_t kMaxChunkBytes = uint64_t{1} << 20;

// Who calls and until when; lives until `done` has run.
struct CallContext {
  Caller caller;
  Carrier carrier = Carrier::kSession;
  absl::Duration arrived;                              // on the clock
  absl::Duration timeout = absl::InfiniteDuration();   // as the caller wants it; from arrival
  uint64_t call_id = 0;                                // of the session's frame; 0: cannot be cancelled
  uint32_t keys = 0;                                   // set by the handler once it has checked the request
  uint64_t max_inline_bytes = kMaxInlineBytes;         // of a put's payload
  bool alone = false;                                  // no other call was in flight when it arrived

  [[nodiscard]] absl::Duration Deadline(absl::Duration cap) const {
    return arrived + (timeout < cap ? timeout : cap);
  }
};

template <typename Reply>
using CallDone = std::function<void(const absl::Status& status, Reply& reply)>;

template <typename Reply>
void Refuse(const absl::Status& status, const CallDone<Reply>& done) {
  Reply empty;
  done(status, empty);
}

// Payloads where they lie in the arena, verified, in the order of the keys and empty where a key was not OK. They stay
// while `reading` lives (owners: whoever reads them), which must end before the store does.
struct PayloadInPlace {
  std::vector<absl::Span<const char>> payloads;
  std::shared_ptr<const void> reading;
};
// The reply is the header of a stream: everything but the payload.
using InPlaceDone =
    std::function<void(const absl::Status& status, v1::GetReply& header, PayloadInPlace payload)>;

class Calls {
 public:
  // `gpu`: nullable; borrowed like the store.
  Calls(BlockStore& store, GpuHandoff* gpu, const FrontLimits& limits, uint64_t boot_id)
      : store_(store), gpu_(gpu), limits_(limits), boot_id_(boot_id) {}

  void OpenNamespace(CallContext& context,
                     v1::OpenNamespaceRequest& request,
                     const CallDone<v1::OpenNamespaceReply>& done);
  void ClearNamespace(CallContext& context,
                      v1::ClearNamespaceRequest& request,
                      CallDone<v1::ClearNamespaceReply> done);
  void Probe(CallContext& context, v1::ProbeRequest& request, CallDone<v1::ProbeReply> done);
  void Prefetch(CallContext& context, v1::PrefetchRequest& request, CallDone<v1::PrefetchReply> done);
  void Ticket(CallContext& context, v1::TicketRequest& request, CallDone<v1::TicketReply> done);
  void Get(CallContext& context, v1::GetRequest& request, CallDone<v1::GetReply> done);
  // As Get with inline delivery, but of any size, because nothing is copied.
  void GetInPlace(CallContext& context, v1::GetRequest& request, InPlaceDone done);
  void Release(CallContext& context, v1::ReleaseRequest& request, const CallDone<v1::ReleaseReply>& done);
  void Put(CallContext& context, v1::PutRequest& request, CallDone<v1::PutReply> done);
  // What Put will check of a request whose payload is still to come, in pieces. *payload_bytes gets how much that must be.
  absl::Status CheckPutStream(const CallContext& context,
                              const v1::PutRequest& request,
                              uint64_t* payload_bytes);
  void Flush(CallContext& context, v1::FlushRequest& request, CallDone<v1::FlushReply> done);
  void Delete(CallContext& context, v1::DeleteRequest& request, CallDone<v1::DeleteReply> done);
  void Pin(CallContext& context, v1::PinRequest& request, const CallDone<v1::PinReply>& done);
  void Unpin(CallContext& context, v1::UnpinRequest& request, const CallDone<v1::UnpinReply>& done);
  void Cancel(CallContext& context, v1::CancelRequest& request, CallDone<v1::CancelReply> done);
  // What the carrier asks for messages from then on. INVALID_ARGUMENT, RESOURCE_EXHAUSTED.
  absl::StatusOr<std::unique_ptr<WatchFeed>> Watch(const CallContext& context,
                                                   const v1::WatchRequest& request,
                                                   const Clock& clock);

  [[nodiscard]] uint64_t boot_id() const { return boot_id_; }
  // The server-side cap of the verb's deadline.
  [[nodiscard]] absl::Duration CapOf(v1::Method method) const;

 private:
  absl::Status CheckPut(const CallContext& context, const v1::PutRequest& request, uint32_t* keys);
  // What the request says of its payload's size: of each key where all are alike, and of all keys together. NOT_FOUND when
  // block_bytes is needed and the namespace is not open.
  struct PayloadSize {
    uint64_t each = 0;
    uint64_t total = 0;
  };
  absl::StatusOr<PayloadSize> PayloadSizeOf(const CallContext& context,
                                            const v1::PutRequest& request,
                                            uint32_t keys);
  // Per key, once the payload is there.
  absl::Status PayloadBytesOf(const CallContext& context,
                              const v1::PutRequest& request,
                              uint32_t keys,
                              std::vector<uint32_t>* out);

  // Whether all of the request's regions are of GPUs, and what it says of them; empty: none is.
  absl::StatusOr<std::vector<GpuOrder>> GpuOrdersOf(const CallContext& context,
                                                    const v1::GetRequest& request) const;
  // Of a call that is cut into pieces every piece has to know where it begins.
  void SayTokens(const CallContext& context, StorePart& part);

  BlockStore& store_;
  GpuHandoff* const gpu_;
  const FrontLimits limits_;
  const uint64_t boot_id_;

  // What the store has forgotten is forgotten here when as much as it had last time has come to it.
  void DropForgottenLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(opened_mutex_);

  // What was opened, for puts that name no payload_bytes. At most twice as large as the store lets
  // namespaces be, and kLeastOpened.
  using OpenedKey = std::pair<TenantId, Digest128>;
  struct OpenedBlocks {
    uint64_t bytes = 0;
    uint32_t tokens = 0;
  };
  absl::Mutex opened_mutex_;
  absl::flat_hash_map<OpenedKey, OpenedBlocks> opened_ ABSL_GUARDED_BY(opened_mutex_);
  static constexpr size_t kLeastOpened = 1024;
  size_t look_at_ ABSL_GUARDED_BY(opened_mutex_) = kLeastOpened;
};

// What the server does, for Hello and Status.
std::vector<v1::Feature> ServedFeatures(const BlockStore& store, bool gpu);

}  // namespace terrace
