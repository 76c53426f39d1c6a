// The client behind terrace.h: calls in flight, namespaces, regions, leases and the session that
// carries them.
//
// One mutex guards everything; it is held over non-blocking system calls, never over a wait. There
// is no thread: work moves on in Submit and Drain. A call is in exactly one of three places: kept
// until its namespaces' digests are known (kWaitingForNamespace), on its way (kSent), or waiting
// for slabs to map (kWaitingForSlabs). Its completion exists from the submit on, so that ending it
// cannot fail. When its session is over, one whose memory may still be touched is kept until that
// has an end (kOutlived): a daemon that dies takes the workers of its GPUs with it, but a moment
// later; and where this side has given a session up, the daemon copies on until it has noticed.
//
// Functions that end in Locked need mutex_. What throws (std::bad_alloc alone) says so; the ABI
// catches it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "terrace/terrace.h"

#include "client/src/completion.h"
#include "client/src/copying_process.h"
#include "client/src/instant.h"
#include "client/src/jitter.h"
#include "client/src/link.h"
#include "client/src/parted_sessions.h"
#include "client/src/patience.h"
#include "client/src/process_mark.h"
#include "client/src/reply.h"
#include "client/src/request.h"
#include "client/src/slab.h"
#include "client/src/verdict.h"
#include "client/src/wakeup.h"

namespace terrace::client {

inline constexpr uint32_t kMaxNamespaces = 1024;
inline constexpr uint32_t kMaxRegions = 1024;
inline constexpr uint32_t kDefaultCallsInFlight = 256;
// Encoded requests that wait for a digest or for the socket.
inline constexpr size_t kMaxBacklogBytes = size_t{16} << 20;

struct ClientOptions {
  std::string socket_path;
  std::string client_name;
  uint32_t default_deadline_ms = 1000;
  uint32_t reconnect_ms = 1000;
  uint32_t spin_us = 0;  // 0: waits sleep at once
  terrace_slab_watch slabs{};
};

class Client {
 public:
  // Throws std::bad_alloc.
  explicit Client(ClientOptions options);
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  // Gives everything back, waiting at most 100 ms for the socket to take it. In a forked child it
  // only frees memory.
  ~Client();

  // Makes the event descriptor and tries to connect once. RESOURCE_EXHAUSTED: out of descriptors.
  Verdict Open();
  // False in a forked child, which must not use the client.
  [[nodiscard]] bool SameProcess() const { return mark_.SameProcess(); }

  terrace_client_state State();
  Verdict WaitConnected(uint32_t timeout_ms);

  // The record has been checked. Throws.
  Verdict OpenNamespace(const terrace_namespace_record& record, terrace_namespace* out);
  // The spec has been checked. Throws.
  Verdict RegisterRegion(const terrace_region_spec& spec, Mapping staging, terrace_region* out);
  // RegisterRegion of memory made here. Throws.
  Verdict CreateStaging(uint64_t block_bytes,
                        uint32_t block_count,
                        terrace_region* region,
                        void** memory,
                        uint64_t* stride);
  // As terrace_wait_layers.
  Verdict WaitLayers(uint64_t call_id,
                     terrace_region region,
                     uint32_t progress_slot,
                     uint32_t layers,
                     uint32_t timeout_ms);
  Verdict ProgressPage(terrace_region region, int* fd);
  enum class RegionKind { kAny, kStaging };
  Verdict UnregisterRegion(terrace_region region, uint32_t timeout_ms, RegionKind kind);

  // Fills the request's digests in and sends or keeps it. Throws, then nothing was submitted.
  Verdict Submit(Request* request, uint64_t* call_id);
  // Ends leases here and at the daemon. Throws, then nothing was released.
  Verdict Release(const terrace_id128* leases,
                  uint32_t lease_count,
                  Request* request,
                  uint64_t* call_id);
  Verdict Cancel(Request* request, uint64_t* call_id);

  int EventDescriptor();
  uint32_t Drain(terrace_completion** out, uint32_t max, uint32_t timeout_ms);

 private:
  struct Refusal {
    terrace_status status = TERRACE_OK;
    std::string text;
    Instant retry_at = kNever;  // when it may be asked again; kNever: not in this session
  };
  struct NamespaceEntry {
    std::string opening;  // message OpenNamespaceRequest
    Id128 digest{};
    bool digest_known = false;
    bool asked = false;  // in this session
    Refusal refusal;
  };
  struct RegionEntry {
    Descriptor fd;  // not of a legacy GPU handle
    bool is_gpu = false;
    std::string registration;        // message RegisterRegionRequest
    std::string registration_again;  // after the first that succeeded: without a canary
    Descriptor page_fd;              // of the counters of a GPU's region, in this session
    Mapping page;
    std::vector<CopyingProcess> workers;  // of a GPU's region, that may touch it
    uint64_t parted_before = 0;           // sessions that had been given up when it was made
    Mapping staging;
    bool is_staging = false;
    enum class State { kActive, kUnregistering, kGone } state = State::kActive;
    bool unregister_asked = false;
    Instant unregister_again_at = kNever;
    Refusal refusal;
  };
  enum class Stage { kWaitingForNamespace, kSent, kWaitingForSlabs, kOutlived };
  struct Call {
    Method method = Method::kPing;
    Stage stage = Stage::kSent;
    Instant deadline = kNever;
    std::unique_ptr<Completion> completion;  // nullptr: the library's own call, or a silent release
    bool by_lease = false;
    bool brings_descriptor = false;  // its reply, when it is OK
    [[nodiscard]] bool copies() const {
      return method == Method::kPut || (method == Method::kGet && !by_lease);
    }
    std::vector<terrace_region> regions;  // that it copies from or into
    bool confirms = false;                // a cancel of a call, which without regions is for all
    uint64_t session = 0;                 // kOutlived: which was lost
    // kWaitingForNamespace: the whole frame and where digests go.
    std::string frame;
    std::vector<DigestSlot> missing;
    // kWaitingForSlabs: the message GetReply, and its slabs. MapSlab: the one slab.
    std::string reply;
    std::vector<SlabPtr> slabs;
    // The library's own: the namespace or region that it is about. A release: what it gives back,
    // sixteen bytes each, to be said again when the daemon has no room for it, and how many leases
    // had ended here already.
    uint32_t subject = 0;
    std::string leases;
    std::string holds;
  };
  using Calls = std::unordered_map<uint64_t, Call>;

  // ---- client.cc: submits
  Verdict SubmitLocked(Request* request, Call call, uint64_t* call_id);
  Verdict ResolveLocked(Request* request, Call* call) const;
  Verdict AdmitLocked(const Request& request) const;
  // OK, or why the call completes at once without being sent.
  Verdict ObstacleLocked(const Request& request, const Call& call, Instant now) const;
  Verdict FeatureObstacleLocked(const Request& request) const;
  void SendCallLocked(
      std::string* frame, Method method, uint64_t id, Instant deadline, Instant now);
  // Ends a call that is in calls_ no longer, or never was.
  void CompleteLocked(Call* call);
  void FailLocked(Call* call, terrace_status status, std::string_view text);
  // Takes a call out of calls_.
  Call TakeCallLocked(Calls::iterator found);
  // Sends them without a completion; at most 1,024 of each in a frame. Sixteen bytes each, end to
  // end.
  void SendReleasesLocked(std::string_view leases, std::string_view holds);
  void OweLeaseLocked(std::string_view lease);

  // ---- client_resources.cc: namespaces, regions, staging
  Verdict UnregisterLocked(terrace_region region,
                           std::unique_lock<std::mutex>* lock,
                           Instant until);
  void RetryRefusedLocked(const Request& request, const Call& call, Instant now);
  void OpenNamespaceLocked(terrace_namespace ns);
  void RegisterRegionLocked(terrace_region region);
  void TakeNamespaceLocked(const Call& call, const ReceivedFrame& frame, Instant now);
  void TakeRegionLocked(const Call& call, ReceivedFrame* frame, Instant now);
  // The counter of a slot, from 1; nullptr: there is none now.
  std::atomic<uint32_t>* CounterLocked(terrace_region region, uint32_t progress_slot);
  void ResetProgressLocked(const Request& request);
  void TakeUnregisteredLocked(const Call& call, const ReceivedFrame& frame, Instant now);
  void SendWaitingLocked(Instant now);

  // ---- client_workers.cc: who may still touch memory for a session that is over, and its calls
  bool TakeWorkerLocked(ReceivedFrame* frame);
  // Whether a worker or daemon of the session, or of an earlier one, may still touch the region.
  [[nodiscard]] bool MayBeTouchedLocked(terrace_region region, uint64_t session) const;
  [[nodiscard]] bool OutlivesLocked(const Call& call) const;
  // After the session is lost: which calls are kept. Needs no memory.
  void KeepOutlivedLocked();
  void EndLostLocked(Call* call, bool was_with_daemon, std::string_view text);
  void EndOutlivedLocked();
  void RegisterAgainLocked(Instant now);
  // A cancel that no daemon has to be asked for: ends when nothing touches the call's memory.
  void CancelOutlivedLocked(Request* request, Call call, uint64_t* call_id);
  // Nothing of the sessions up to `session` with this daemon touches the region any more.
  void LetGoLocked(RegionEntry* entry, uint64_t session);
  template <typename Which>
  void DropWorkersLocked(RegionEntry* entry, Which which);
  // Whether their ends wake whoever waits.
  void WatchWorkersLocked(bool watch);

  // ---- client_session.cc: connection, greeting, replies
  void EnsureConnectedLocked(Instant now);
  void GreetLocked();
  // A call of the library's own; `passed` is a descriptor or -1.
  void SendOwnLocked(Method method, Call call, std::string_view message, int passed);
  // The link is of no use any more: noted, and acted on by SettleLocked, where nothing is in the
  // middle of the tables.
  void GiveUpLocked(std::string_view why);
  // The other end takes nothing any more; what it said before may still be there.
  void GiveUpSendingLocked();
  void LoseLocked(Instant now);
  void EndLinkLocked();
  void HearOutLocked(Instant now);
  void ReceiveLocked(Instant now);
  // False: garbage.
  bool TakeFramesLocked(Instant now);
  bool TakeReplyLocked(ReceivedFrame* frame, Instant now);
  bool TakeCallersReplyLocked(Calls::iterator found, const ReceivedFrame& frame);
  bool TakeOwnReplyLocked(const Call& call, ReceivedFrame* frame, Instant now);
  bool TakePushLocked(ReceivedFrame* frame, Instant now);
  bool TakeHelloLocked(const ReceivedFrame& frame, Instant now);
  bool TakeReleaseLocked(Calls::iterator found, const ReceivedFrame& frame, Instant now);
  static Refusal RefusalOf(const ReceivedFrame& frame, Instant now);

  // ---- client_lease.cc: gets, slabs
  bool TakeGetLocked(Calls::iterator found, std::string_view message);
  bool TakeLeaseGetLocked(Calls::iterator found, const GetReply& reply, std::string_view message);
  void FinishLeaseGetLocked(Call call, std::string_view message);
  SlabPtr SlabLocked(uint32_t slab_id);
  void TakeSlabLocked(const Call& call, ReceivedFrame* frame);
  void FinishReadyGetsLocked();
  void ReleaseLateLocked(std::string_view get_reply);

  // ---- client_drain.cc: time and waiting
  void AdvanceLocked(Instant now);
  void ExpireLocked(Instant now);
  void ExpireCallLocked(uint64_t id, Call call, Instant now);
  void RetryOwedLocked(Instant now);
  [[nodiscard]] Instant NextWakeLocked() const;
  // To be called at the end of every public function and before every wait.
  void SettleLocked();
  void WaitLocked(std::unique_lock<std::mutex>* lock, Instant now, Instant until);
  void WaitInSlice(std::unique_lock<std::mutex>* lock, Instant until);

  const ClientOptions options_;
  const ProcessMark mark_;
  std::mutex mutex_;
  SlabsOfClient all_slabs_;

  // The session.
  Link link_;
  PartedSessions parted_;
  Wakeup wakeup_;
  bool greeted_ = false;  // Hello was answered
  bool draining_ = false;
  bool lost_ = false;                // see GiveUpLocked
  bool may_have_said_more_ = false;  // with lost_
  std::array<char, 160> trouble_{};  // why there is no session; zero-terminated
  uint64_t boot_id_ = 0;             // of the last Hello
  uint64_t sessions_ = 0;            // that were greeted
  HelloReply server_;
  Instant next_attempt_ = 0;
  Jitter jitter_;
  // A daemon that reads nothing and says nothing: since when it owes an answer; calls are misses at
  // once while silent_.
  Instant owes_since_ = kNever;
  bool silent_ = false;
  Instant back_pressure_until_ = 0;

  // Calls.
  Calls calls_;
  uint64_t next_call_id_ = 1;
  uint64_t first_call_of_session_ = 1;
  uint32_t callers_in_flight_ = 0;      // of them with a completion
  std::deque<uint64_t> waiting_calls_;  // kWaitingForNamespace, in order of submission
  size_t waiting_bytes_ = 0;
  std::string scratch_;
  std::vector<DigestSlot> missing_;
  Instant next_expiry_ = kNever;  // no call expires before
  // Releases that could not be said yet, sixteen bytes each; leases are those of boot_id_.
  std::string owed_leases_;
  std::string owed_holds_;
  Instant owed_at_ = kNever;

  // What outlives sessions.
  std::vector<NamespaceEntry> namespaces_;  // namespace n at n - 1
  std::map<std::string, terrace_namespace, std::less<>> namespace_by_record_;
  std::unordered_map<terrace_region, RegionEntry> regions_;
  terrace_region next_region_ = 1;
  LeaseTable leases_;
  std::unordered_map<uint32_t, SlabPtr> slabs_;  // of this session, not retired
  std::vector<SlabPtr> to_populate_;

  CompletionQueue ready_;
  bool watched_ = false;  // somebody has asked for the event descriptor
  uint32_t waiters_ = 0;  // threads in Drain's wait
  Patience patience_;
  Patience patience_with_copies_;
  uint32_t copying_calls_ = 0;  // of callers_in_flight_, those for which the daemon copies payload
  uint32_t outlived_calls_ = 0;  // of callers_in_flight_
  bool watches_workers_ = false;
  Instant register_again_at_ = kNever;  // regions that another session had
};

}  // namespace terrace::client
