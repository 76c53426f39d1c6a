// One session: a connection to session.sock, from Hello to the end of its socket.
//
// Confined to its I/O thread, except for what is said to be for any thread: an answer comes on
// whatever thread the store completes on, and is sent from there. Owners: the I/O thread's table,
// and the calls in flight.
//
// The first frame must be Hello. A frame that breaks a rule of session.proto ends the session after
// one last reply that says why. The peer sees the end of its socket when nothing can touch the
// memory of its regions any more, for then it gives that memory to somebody else; until then, what
// copies there keeps the socket. A call whose answer does not come is answered DEADLINE_EXCEEDED a
// second after its deadline, unless it may still touch the caller's memory: then only the store can
// say that it is over.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "google/protobuf/arena.h"

#include "daemon/wire/fault_rate.h"
#include "daemon/wire/frame_assembly.h"
#include "daemon/wire/front_shared.h"
#include "daemon/wire/peer_budget.h"
#include "daemon/wire/session_socket.h"
#include "tiers/os/descriptor.h"

namespace terrace {

// A connection as the acceptor hands it over.
struct AcceptedSession {
  Descriptor socket;
  PeerCredentials credentials;
  TenantId tenant{0};
  std::string tenant_alias;
  ConnectionPermit permit;
};

class Session;

// A request that has been read and not answered. Owner: the callback that will answer.
struct SessionCall {
  std::shared_ptr<Session> session;
  CallContext context;
  v1::Method method = v1::METHOD_UNSPECIFIED;
  uint64_t call_id = 0;
  uint64_t sequence = 0;
  CallPermit permit;
  uint64_t expected_bytes = 0;  // what Session::Expect was told
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  struct Options {
    std::shared_ptr<FrontShared> shared;
    AcceptedSession accepted;
    int epoll = -1;
    uint64_t epoll_key = 0;
  };
  explicit Session(Options options);

  // ---- I/O thread
  absl::Status Watch() { return socket_.Watch(); }
  enum class Turn : uint8_t { kIdle, kMore, kOver };
  // Reads once and answers a bounded number of frames. kMore: frames are left, call Continue when the others have had
  // their turn. kOver: the session is to be ended.
  Turn OnReadable(absl::Span<char> scratch, google::protobuf::Arena& arena);
  Turn Continue(google::protobuf::Arena& arena);
  void OnWritable() {
    socket_.OnWritable();
    PushEvents();
  }
  // Time passes: kOver when a limit on silence or stalling has been reached.
  Turn Tick(absl::Duration now);
  // Gives back what the session held, but for leases, which wait for the process to end; for the
  // peer's eyes the socket ends when no copy can touch its memory, which is not waited for here.
  void End();
  [[nodiscard]] const PidDescriptor& process() const { return process_; }
  PidDescriptor TakeProcess() { return std::move(process_); }
  [[nodiscard]] SessionId id() const { return id_; }
  // True once after Hello brought a process to watch.
  bool TakeNewProcess() { return std::exchange(new_process_, false); }

  // ---- any thread
  void Finish(SessionCall& call,
              const absl::Status& status,
              const google::protobuf::MessageLite& reply,
              Descriptor descriptor = {});
  void Push(v1::Method method,
            const google::protobuf::MessageLite& message,
            Descriptor descriptor = {});

 private:
  struct InFlight {
    uint64_t sequence = 0;
    absl::Duration answer_by;  // infinite while the call may touch the caller's memory
    std::shared_ptr<SessionCall> call;
  };

  Turn Process(google::protobuf::Arena& arena);
  // False: the session is over.
  bool OnFrame(Frame& frame, google::protobuf::Arena& arena);
  // One verb each; session_verbs.cc. False: the session is over.
  bool Dispatch(Frame& frame, google::protobuf::Arena& arena);
  bool Hello(Frame& frame, google::protobuf::Arena& arena);
  bool AcceptHello(Frame& frame, const v1::HelloRequest& request);
  v1::HelloReply HelloReplyNow() const;
  bool RegisterRegion(Frame& frame, google::protobuf::Arena& arena);
  // Answers when the worker of the GPU has opened it.
  void RegisterGpuRegion(Frame& frame, v1::RegisterRegionRequest& request);
  // Pushes the worker's pidfd; for any thread.
  std::function<void(Descriptor)> TellerOfWorkers(uint32_t region_id);
  bool UnregisterRegion(Frame& frame, google::protobuf::Arena& arena);
  bool MapSlab(Frame& frame, google::protobuf::Arena& arena);
  bool Ping(Frame& frame, google::protobuf::Arena& arena);
  bool WatchEvents(Frame& frame, google::protobuf::Arena& arena);
  // Of this session's watches, as much as the peer takes.
  void PushEvents();
  template <typename Request, typename Reply, typename Verb>
  bool Run(Frame& frame, google::protobuf::Arena& arena, Verb verb);
  absl::Status Parse(const Frame& frame, google::protobuf::Message* out);

  // nullptr: refused, and the refusal has been sent.
  std::shared_ptr<SessionCall> Begin(const Frame& frame);
  bool IsInFlight(uint64_t call_id);
  // The call may touch the client's memory: only the store ends it.
  void Unbound(const SessionCall& call);
  // Its reply may be as large as that: counts like a backlog until it is there.
  void Expect(SessionCall& call, uint64_t bytes);
  // Forgets the call; false when it has been answered already.
  bool Forget(const SessionCall& call);
  void ReplyNow(const FrameHeader& request,
                const absl::Status& status,
                const google::protobuf::MessageLite& reply,
                Descriptor descriptor = {});
  void SendAnswer(uint16_t method,
                  uint64_t call_id,
                  const absl::Status& status,
                  const google::protobuf::MessageLite& reply,
                  Descriptor descriptor);
  void Observe(v1::Method method, const CallContext& context, const absl::Status& status);
  // One last reply that names the field, then the end: false.
  bool Break(const FrameHeader& header, absl::string_view field);

  const std::shared_ptr<FrontShared> shared_;
  const PeerCredentials credentials_;
  const TenantId tenant_;
  const std::string tenant_alias_;
  ConnectionPermit permit_;
  SessionSocket socket_;
  FrameAssembly assembly_;
  FaultRate faults_;
  const absl::Duration opened_at_;
  absl::Duration frame_began_;        // of the incomplete frame
  absl::Duration frame_arrived_;      // of the one being answered
  SessionId id_ = kNoSession;         // from Hello on
  bool ended_ = false;
  bool leases_ = false;
  bool new_process_ = false;
  bool knows_workers_ = false;        // the client understands GPU_WORKER_NOTICE
  bool reading_ = true;
  std::string hello_;                 // as it was said, to compare with a second one
  PidDescriptor process_;
  std::set<uint32_t> host_regions_;  // ids, for those of GPUs are kept elsewhere
  std::map<uint64_t, std::unique_ptr<WatchFeed>> watches_;  // by call id
  uint64_t next_sequence_ = 1;
  std::atomic<uint32_t> refused_{0};  // answers that were the caller's fault, since the last frame

  absl::Mutex mutex_;
  absl::flat_hash_map<uint64_t, InFlight> in_flight_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace terrace
