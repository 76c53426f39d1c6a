// One call over gRPC: bytes in, a handler, bytes out, finished exactly once: by its result, by its safety deadline or by the
// end of the front, whichever comes first. Streams (grpc_streams.h) are calls too.
//
// The services take raw bytes and parse here, so that both carriers count fields, answer what cannot be decoded with
// INVALID_ARGUMENT, and hand the handlers a request that they may take apart.
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/service_type.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "daemon/wire/fault_rate.h"
#include "daemon/wire/front_shared.h"
#include "daemon/wire/peer_budget.h"
#include "tiers/os/descriptor.h"

namespace terrace {

// A connection that gRPC serves. Owners: the peers' table and calls being begun. Thread-safe.
class GrpcPeer {
 public:
  // number: of gRPC's own descriptor; socket: a duplicate of it.
  GrpcPeer(ConnectionPermit permit, Descriptor socket, int number)
      : permit_(std::move(permit)), socket_(std::move(socket)), number_(number) {}
  [[nodiscard]] const std::shared_ptr<PeerBudget>& budget() const { return permit_.budget(); }
  [[nodiscard]] int socket() const { return socket_.get(); }
  [[nodiscard]] int number() const { return number_; }
  // Ends the connection under gRPC's feet.
  void HangUp() const;
  bool Paused(absl::Duration now) {
    absl::MutexLock lock(&mutex_);
    return faults_.Paused(now);
  }
  // True when the connection has used up its patience.
  bool CountFault(absl::Duration now, bool undecodable);

 private:
  const ConnectionPermit permit_;
  const Descriptor socket_;
  const int number_;
  absl::Mutex mutex_;
  FaultRate faults_ ABSL_GUARDED_BY(mutex_);
};

// Connections by the descriptor number that gRPC calls them by ("fd:N"). A number is reused only after gRPC has closed
// it, and the next connection of that number enters here before gRPC learns of it. Thread-safe.
class GrpcPeers {
 public:
  void Add(std::shared_ptr<GrpcPeer> peer);
  // Does nothing when the number belongs to another connection by now.
  void Remove(const GrpcPeer& peer);
  // Of CallbackServerContext::peer(); nullptr: unknown.
  std::shared_ptr<GrpcPeer> Find(const std::string& peer_name);

 private:
  absl::Mutex mutex_;
  absl::flat_hash_map<int, std::shared_ptr<GrpcPeer>> peers_ ABSL_GUARDED_BY(mutex_);
};

class GrpcCallTable;

// Where a call comes from and what it is.
struct GrpcCallSite {
  grpc::CallbackServerContext* context = nullptr;
  const grpc::ByteBuffer* bytes = nullptr;
  grpc::ByteBuffer* response = nullptr;
  TenantId tenant{0};
  std::string_view verb = {};
  absl::Duration cap = {};
  bool endless = false;  // goes on until somebody ends it: no work that the front waits for
  // Tells gRPC how the call has ended. Runs once, on any thread; the reply is empty unless the
  // status is OK.
  std::function<void(const grpc::Status& status, grpc::ByteBuffer reply)> end = {};
};

// Owners: the table until it is answered, and the callback or the stream that will answer.
class GrpcCall : public std::enable_shared_from_this<GrpcCall> {
 public:
  GrpcCall(std::shared_ptr<FrontShared> shared, GrpcCallTable& table, const GrpcCallSite& site)
      : shared_(std::move(shared)),
        table_(table),
        context_(site.context),
        end_(site.end),
        endless_(site.endless) {}

  // Any thread. The first of these answers, the others do nothing. Finish is for who was to do the work: it also gives
  // back the call's place among those of its uid.
  void Finish(const absl::Status& status, const google::protobuf::MessageLite& reply);
  void FinishEarly(const absl::Status& status) { FinishOnce(status, v1::PingReply(), 0); }
  // For a stream, which keeps the call's place for as long as it lives itself.
  void FinishStream(const absl::Status& status) { FinishOnce(status, v1::PingReply(), call.keys); }

  CallContext call;
  std::string_view verb;
  absl::Duration answer_by = absl::InfiniteDuration();
  CallPermit permit;
  std::shared_ptr<GrpcPeer> peer;

  [[nodiscard]] bool answered() const { return answered_.load(); }
  [[nodiscard]] bool endless() const { return endless_; }

 private:
  void FinishOnce(const absl::Status& status,
                  const google::protobuf::MessageLite& reply,
                  uint32_t keys);

  const std::shared_ptr<FrontShared> shared_;
  GrpcCallTable& table_;  // only inside the gate
  grpc::CallbackServerContext* const context_;  // these two: only by who answers
  const std::function<void(const grpc::Status& status, grpc::ByteBuffer reply)> end_;
  const bool endless_;
  std::atomic<bool> answered_{false};
};

// The calls that wait for their answer. Thread-safe.
class GrpcCallTable {
 public:
  explicit GrpcCallTable(std::shared_ptr<FrontShared> shared) : shared_(std::move(shared)) {}

  // A call that was admitted, or one that has been refused and is answered() already.
  std::shared_ptr<GrpcCall> Begin(const GrpcCallSite& site);
  void Forget(const std::shared_ptr<GrpcCall>& call);
  // Answers what is a second beyond its deadline.
  void Tick(absl::Duration now);
  void FinishEndless(const absl::Status& status);
  // Answers everything, and whatever still comes.
  void FinishAll(const absl::Status& status);

  GrpcPeers& peers() { return peers_; }
  [[nodiscard]] const std::shared_ptr<FrontShared>& shared() const { return shared_; }

 private:
  const std::shared_ptr<FrontShared> shared_;
  GrpcPeers peers_;
  absl::Mutex mutex_;
  absl::flat_hash_set<std::shared_ptr<GrpcCall>> calls_ ABSL_GUARDED_BY(mutex_);
  absl::Status stopped_ ABSL_GUARDED_BY(mutex_);
};

grpc::ByteBuffer GrpcBytesOf(const google::protobuf::MessageLite& message);

// Bytes of gRPC to message; INVALID_ARGUMENT.
absl::Status ParseGrpcMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message* out);

// Runs verb(CallContext&, Request&, CallDone<Reply>); what it returns is what the service returns.
template <typename Request, typename Reply, typename Verb>
grpc::ServerUnaryReactor* RunGrpcCall(GrpcCallTable& table, GrpcCallSite site, Verb verb) {
  // Once the call is answered only the pointer's value may be used.
  grpc::ServerUnaryReactor* const reactor = site.context->DefaultReactor();
  site.end = [reactor, response = site.response](const grpc::Status& status, grpc::ByteBuffer reply) {
    response->Swap(&reply);
    reactor->Finish(status);
  };
  const std::shared_ptr<GrpcCall> call = table.Begin(site);
  if (call->answered()) {
    return reactor;
  }
  Request request;
  if (absl::Status status = ParseGrpcMessage(*site.bytes, &request); !status.ok()) {
    call->Finish(status, request);
    return reactor;
  }
  CallDone<Reply> done = [call](const absl::Status& status, Reply& reply) {
    call->Finish(status, reply);
  };
  verb(call->call, request, std::move(done));
  return reactor;
}

}  // namespace terrace
