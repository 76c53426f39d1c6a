// The whole service in memory, at the level of the messages of proto/terrace/v1: every verb of
// cache.proto, and of session.proto Hello, RegisterRegion, UnregisterRegion and MapSlab, as plain
// methods.
//
// It is written from the contract alone and shares no code with daemon/ or tiers/, so that programs
// can be proven against the contract before there is a daemon, and so that it can serve as an
// oracle for the daemon afterwards. Plain maps and linear searches throughout.
//
//   Payload    delivered from slab memory and compared with what was put; a difference is CORRUPT.
//   Eviction   least recently touched first, within one touch the last of a chain first, a family's
//   blocks of one
//              key together; leased, held and pinned blocks never, nor what the same call has
//              touched.
//   Lower tier off by default. When on, an evicted block stays readable as LOWER, and a read up
//   takes
//              lower_read_time, during which it is PENDING.
//   Waiting    a call that would wait (Ticket, a get with wait_pending) moves the clock on to where
//   the wait ends. Not here   GPU regions, wire frames, gRPC, metrics, call limits per uid, time
//   that work takes.
//
// Thread-compatible. Callbacks of submitted calls run inside Step, Cancel, Disconnect or Restart.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "terrace/v1/cache.pb.h"
#include "terrace/v1/session.pb.h"

#include "tests/doubles/manual_clock.h"
#include "tests/doubles/part_rules.h"
#include "tests/doubles/region_double.h"

namespace terrace::doubles {

// What a carrier knows of a call beside its message.
struct Caller {
  std::string tenant;
  uint64_t session = 0;       // 0: over gRPC
  uint64_t call_id = 0;       // of the frame; 0: cannot be cancelled
  absl::Duration deadline{};  // from arrival; zero: the server's cap of 30 s
};

// A block's identity; the tenant is part of the namespace's digest.
struct BlockName {
  std::string namespace_digest;
  uint64_t generation = 0;
  std::string salt;
  std::string key;

  friend auto operator<=>(const BlockName&, const BlockName&) = default;
};

class ServiceDouble {
 public:
  struct Options {
    uint64_t dram_bytes = uint64_t{64} << 20;
    bool local_tier = false;  // evicted blocks go one tier down; LEVEL_LOCAL_* can be reached
    bool pool_tier = false;   // LEVEL_POOL can be reached
    absl::Duration lower_read_time{};         // from the start of a read up to its arrival
    size_t event_backlog = 1024;             // events kept for resume, a tenant
    std::set<v1::Feature> missing_features{};  // verbs that answer UNIMPLEMENTED
  };
  ServiceDouble(ManualClock& clock, Options options);

  // ---- peers
  // A new connection to the session socket; Hello must be its first verb.
  Caller Connect(std::string tenant);
  static Caller OverGrpc(std::string tenant) { return {.tenant = std::move(tenant)}; }
  // The socket is closed: holds, regions and calls end, leases stay until ProcessGone.
  void Disconnect(const Caller& caller);
  void ProcessGone(const Caller& caller);

  // ---- session.proto
  absl::Status Hello(const Caller& caller, const v1::HelloRequest& request, v1::HelloReply* reply);
  absl::Status RegisterRegion(const Caller& caller,
                              const v1::RegisterRegionRequest& request,
                              SharedBytes memory,
                              v1::RegisterRegionReply* reply);
  absl::Status UnregisterRegion(const Caller& caller,
                                const v1::UnregisterRegionRequest& request,
                                v1::UnregisterRegionReply* reply);
  absl::Status MapSlab(const Caller& caller,
                       const v1::MapSlabRequest& request,
                       v1::MapSlabReply* reply,
                       std::shared_ptr<const std::vector<char>>* memory);

  // ---- cache.proto
  absl::Status OpenNamespace(const Caller& caller,
                             const v1::OpenNamespaceRequest& request,
                             v1::OpenNamespaceReply* reply);
  absl::Status ClearNamespace(const Caller& caller,
                              const v1::ClearNamespaceRequest& request,
                              v1::ClearNamespaceReply* reply);
  absl::Status Probe(const Caller& caller, const v1::ProbeRequest& request, v1::ProbeReply* reply);
  absl::Status Prefetch(const Caller& caller,
                        const v1::PrefetchRequest& request,
                        v1::PrefetchReply* reply);
  absl::Status Ticket(const Caller& caller,
                      const v1::TicketRequest& request,
                      v1::TicketReply* reply);
  absl::Status Get(const Caller& caller, const v1::GetRequest& request, v1::GetReply* reply);
  absl::Status Release(const Caller& caller,
                       const v1::ReleaseRequest& request,
                       v1::ReleaseReply* reply);
  absl::Status Put(const Caller& caller, const v1::PutRequest& request, v1::PutReply* reply);
  absl::Status PutStream(const Caller& caller,
                         const std::vector<v1::PutStreamRequest>& stream,
                         v1::PutReply* reply);
  absl::Status GetStream(const Caller& caller,
                         const v1::GetRequest& request,
                         std::vector<v1::GetStreamReply>* stream);
  absl::Status Flush(const Caller& caller, const v1::FlushRequest& request, v1::FlushReply* reply);
  absl::Status Delete(const Caller& caller,
                      const v1::DeleteRequest& request,
                      v1::DeleteReply* reply);
  absl::Status Pin(const Caller& caller, const v1::PinRequest& request, v1::PinReply* reply);
  absl::Status Unpin(const Caller& caller, const v1::UnpinRequest& request, v1::UnpinReply* reply);
  absl::Status Cancel(const Caller& caller,
                      const v1::CancelRequest& request,
                      v1::CancelReply* reply);
  // Begins a stream; its messages are taken with NextEvents.
  absl::Status Watch(const Caller& caller, const v1::WatchRequest& request, uint64_t* stream);
  // False: nothing is due now, or the stream is over.
  bool NextEvents(uint64_t stream, v1::WatchReply* reply);

  // ---- calls in flight: submitted now, run by Step in the order of submission. While a put waits,
  // its keys are PENDING.
  void SubmitPut(const Caller& caller,
                 v1::PutRequest request,
                 std::function<void(absl::Status, const v1::PutReply&)> done);
  void SubmitGet(const Caller& caller,
                 v1::GetRequest request,
                 std::function<void(absl::Status, const v1::GetReply&)> done);
  // Runs the oldest submitted call; false: there is none.
  bool Step();

  // ---- test verbs: what operators, other clients and bad luck do
  void SetTenantLimit(const std::string& tenant, uint64_t bytes) { tenants_[tenant].limit = bytes; }
  void SetDraining(bool draining) { draining_ = draining; }
  // Puts a block one tier down, as eviction with a lower tier would. False: not in DRAM, leased or
  // held.
  bool MoveLower(const BlockName& name);
  // Flips a byte of the block's copy in DRAM. False: not there.
  bool Corrupt(const BlockName& name);
  bool Evict(const BlockName& name);
  void FailNextGet(const BlockName& name, v1::GetOutcome outcome) { get_faults_[name] = outcome; }
  void FailNextPut(const BlockName& name, v1::Reason reason) {
    put_faults_[name] = {v1::PUT_OUTCOME_FAILED, reason};
  }
  void DeclineNextPut(const BlockName& name, v1::Reason reason) {
    put_faults_[name] = {v1::PUT_OUTCOME_DECLINED, reason};
  }
  // The next record opened is taken to have this one's digest.
  void CollideNextOpenWith(const std::string& digest) { collide_with_ = digest; }
  enum class Survives { kWritten, kSynced };  // kill -9, power loss
  // Sessions, holds, leases, regions, tickets and opened namespaces are gone; boot id and publisher
  // id change.
  void Restart(Survives level);

  // ---- what a test may look at
  [[nodiscard]] uint64_t boot_id() const { return boot_id_; }
  [[nodiscard]] BlockName NameOf(const std::string& digest,
                                 std::string_view salt,
                                 std::string_view key) const;
  [[nodiscard]] uint64_t dram_used_bytes() const;
  [[nodiscard]] uint64_t tenant_used_bytes(const std::string& tenant) const;
  [[nodiscard]] size_t hold_count() const { return holds_.size(); }
  [[nodiscard]] size_t leased_slot_count() const;
  [[nodiscard]] size_t block_count() const { return blocks_.size(); }
  [[nodiscard]] uint64_t probed_keys() const {
    return probed_keys_;
  }  // repeats of a request counted once

 private:
  struct Slot {
    bool holds_block = false;
    uint32_t leases = 0;
  };
  struct Slab {
    std::string tenant;
    uint64_t slot_bytes = 0;
    SharedBytes memory;  // also owned by whoever maps it
    std::vector<Slot> slots;
  };
  struct SlotRef {
    uint32_t slab = 0;
    uint32_t slot = 0;
  };
  struct Block {
    std::string tenant;
    std::string payload;  // as put; what delivery is compared with
    std::string parent;
    uint64_t first_token = 0;
    std::optional<v1::BlockMetadata> metadata;
    std::optional<SlotRef> slot;            // in DRAM
    std::optional<absl::Duration> arrives;  // being read up
    v1::Level level = v1::LEVEL_DRAM;
    uint64_t touch = 0;
    std::optional<absl::Duration> pinned_until;
  };
  struct Namespace {
    std::string tenant;
    v1::NamespaceRecord record;
    std::string family;
    uint64_t generation = 1;
    bool open = false;
  };
  struct Hold {
    std::string tenant;
    uint64_t session = 0;
    absl::Duration until;
    std::set<BlockName> names;
    std::map<BlockName, absl::Duration> from_arrival;  // prefetch: how long to hold once there
  };
  struct Lease {
    std::string tenant;
    uint64_t session = 0;
    std::vector<std::optional<SlotRef>> slots;  // by position in the reply
    std::vector<uint64_t> bytes;
  };
  struct TicketRecord {
    std::string tenant;
    v1::TicketState state = v1::TICKET_STATE_RUNNING;
    absl::Duration deadline;
    std::optional<absl::Duration> ended;
    std::set<BlockName> waiting;
    uint32_t total = 0;
    uint32_t arrived = 0;
    uint32_t failed = 0;
    uint64_t bytes = 0;
  };
  struct Session {
    std::string tenant;
    bool greeted = false;
    bool leases = false;
    bool connected = true;
    std::map<uint32_t, RegionDouble> regions;
  };
  struct Tenant {
    uint64_t limit = 0;  // 0: none
    std::deque<v1::Event> events;
    uint64_t newest = 0;  // sequence of the newest event
  };
  struct Stream {
    std::string tenant;
    uint64_t session = 0;
    uint64_t call_id = 0;
    std::set<std::string> namespaces;
    std::deque<v1::Event> first;  // gap and snapshot
    uint64_t next = 0;            // sequence to send next
    absl::Duration heartbeat;
    absl::Duration sent;
    std::set<std::string> described;
  };
  struct PendingCall {
    uint64_t number = 0;
    Caller caller;
    absl::Duration deadline;  // on the clock
    std::optional<v1::PutRequest> put;
    std::optional<v1::GetRequest> get;
    uint64_t generation = 0;     // put: of the namespace at submission
    std::set<BlockName> mine;    // put: keys that this call stores
    std::set<BlockName> joined;  // put: keys that an earlier call in flight stores
    std::function<void(absl::Status, const v1::PutReply&)> put_done;
    std::function<void(absl::Status, const v1::GetReply&)> get_done;
  };
  struct PutFault {
    v1::PutOutcome outcome;
    v1::Reason reason;
  };
  // A part with everything about its keys looked up.
  struct Looked {
    std::vector<std::string> keys;
    std::vector<BlockName> names;
    std::vector<v1::KeyState> states;
    std::vector<uint32_t> tiers;
    RuledKeys ruled;
  };
  struct GetRun;
  struct PutRun;
  struct PutAnswer;

  // session.proto and namespaces
  [[nodiscard]] bool Has(v1::Feature feature) const {
    return !options_.missing_features.contains(feature);
  }
  absl::Status Require(v1::Feature feature, std::string_view verb) const;
  absl::Status Admit(const Caller& caller);  // first in every verb
  Session* SessionOf(const Caller& caller);
  Namespace* OpenedBy(const Caller& caller, const std::string& digest);
  void EndCallsOf(uint64_t session);
  std::string NewId();

  // time
  void Settle();  // makes everything happen that is due by now, in the order of time
  void Expire(absl::Duration now);
  void Arrive(const BlockName& name, Block& block);
  void ReportToTickets(const BlockName& name, std::optional<uint64_t> arrived_bytes);
  void WaitUntil(absl::Duration time);

  // probe and prefetch
  absl::Status LookUp(const Caller& caller, const v1::Part& part, Looked* looked);
  v1::KeyState StateOf(const BlockName& name, uint32_t* tier) const;
  bool BeginRead(const BlockName& name);
  std::string GrantHold(const Caller& caller, const std::set<BlockName>& names, uint32_t hold_ms);
  uint64_t OpenTicket(const Caller& caller,
                      const std::set<BlockName>& moving,
                      absl::Duration deadline);
  void CountProbe(const Caller& caller, const v1::ProbeRequest& request);
  void FillProbe(const std::vector<Looked>& parts, uint64_t boundary, v1::ProbeReply* reply) const;

  // get and leases
  absl::Status CheckDelivery(const Caller& caller, const v1::GetRequest& request);
  absl::Status RunGet(const Caller& caller,
                      const v1::GetRequest& request,
                      absl::Duration deadline,
                      v1::GetReply* reply);
  void AwaitKeys(const std::vector<BlockName>& names, absl::Duration deadline);
  v1::GetOutcome Verify(const BlockName& name, const GetRun& run);
  v1::GetOutcome Deliver(GetRun& run, const BlockName& name, const v1::RegionBlocks* into, int key);
  static v1::GetOutcome DeliverInto(const RegionDouble& region,
                                    uint32_t index,
                                    const std::string& payload);
  [[nodiscard]] uint64_t LeaseLimit(const std::string& tenant) const;
  [[nodiscard]] uint64_t LeasedBytes(uint64_t session) const;
  bool EndLease(Lease& lease, size_t position);
  bool ReleaseLease(const Caller& caller, const v1::LeaseRelease& release);

  // calls in flight
  void AnswerAll(const v1::GetRequest& request, v1::GetOutcome outcome, v1::GetReply* reply) const;
  void AbandonPut(const PendingCall& call, v1::Reason reason, v1::PutReply* reply);
  bool CancelCall(const Caller& caller);  // the one with the caller's call id
  void CancelTicket(TicketRecord& ticket);

  // put
  absl::Status PreparePut(PendingCall& call);
  absl::Status RunPut(const PendingCall& call, v1::PutReply* reply);
  PutAnswer PutKey(const PutRun& run, size_t index);
  static bool ReadSource(const PutRun& run, size_t index, std::string* payload, v1::Reason* reason);
  [[nodiscard]] v1::Level HighestLevel() const;
  absl::Status NamesOf(const Caller& caller, const v1::Part& part, std::vector<BlockName>* names);

  // DRAM
  static uint64_t SlotBytes(uint64_t payload_bytes) {
    return (payload_bytes + 4095) / 4096 * 4096 + 4096;
  }
  bool MakeRoom(const std::string& tenant, uint64_t slot_bytes, v1::Reason* reason);
  SlotRef TakeSlot(const std::string& tenant, uint64_t slot_bytes);
  void FreeSlot(Block& block);
  char* Bytes(const SlotRef& ref);
  [[nodiscard]] uint64_t OffsetOf(const SlotRef& ref) const;
  bool IsHeld(const BlockName& name) const;
  bool IsEvictable(const BlockName& name, const Block& block) const;
  bool EvictOne(const std::string& only_tenant);
  void EvictBlock(const BlockName& name);
  void Remove(const BlockName& name);
  std::string StemOf(const BlockName& name) const;

  // events
  void Publish(const BlockName& name,
               const Block& block,
               v1::EventKind kind,
               std::string_view tier);
  void PublishEvent(const std::string& tenant, v1::Event event);
  [[nodiscard]] v1::Event EventFor(const BlockName& name,
                                   const Block& block,
                                   v1::EventKind kind,
                                   std::string_view tier) const;
  void AddSnapshot(Stream& stream) const;
  static v1::Event GapUpTo(uint64_t sequence);
  void Send(Stream& stream, const v1::Event& event, v1::WatchReply* reply) const;

  ManualClock& clock_;
  const Options options_;
  uint64_t boot_id_ = 0x7e44ace000000001;
  uint64_t publisher_id_ = 0x9b00000000000001;
  uint64_t next_id_ = 1;
  uint64_t next_session_ = 1;
  uint64_t next_touch_ = 1;
  uint32_t next_slab_ = 1;
  bool draining_ = false;
  std::string collide_with_;
  std::map<BlockName, Block> blocks_;
  std::map<uint32_t, Slab> slabs_;
  std::map<std::string, Namespace> namespaces_;  // by digest
  std::map<std::string, Tenant> tenants_;
  std::map<uint64_t, Session> sessions_;
  std::map<std::string, Hold> holds_;
  std::map<std::string, Lease> leases_;
  std::map<uint64_t, TicketRecord> tickets_;
  std::map<uint64_t, Stream> streams_;
  std::deque<PendingCall> calls_;
  std::map<BlockName, uint64_t>
      storing_;  // keys that a put in flight stores -> number of that call
  std::map<BlockName, v1::GetOutcome> get_faults_;
  std::map<BlockName, PutFault> put_faults_;
  std::map<std::pair<std::string, std::string>, absl::Duration>
      counted_;  // (tenant, request id) -> last counted
  uint64_t probed_keys_ = 0;
};

}  // namespace terrace::doubles
