// A router over the contract: it knows which blocks this publisher holds, from events alone, across
// gaps and restarts.
#include <map>

#include <gtest/gtest.h>

#include "tests/contract/engines/contract_kit.h"

namespace terrace::contract {
namespace {

class RouterIndex {
 public:
  explicit RouterIndex(EngineProcess process) : process_(std::move(process)) {}

  // Begins, or goes on where the index stands.
  void Connect() {
    v1::WatchRequest request;
    if (publisher_id_ == 0) {
      request.set_snapshot(true);
    } else {
      request.set_publisher_id(publisher_id_);
      request.set_after_sequence(sequence_);
    }
    Open(request);
  }

  // Takes what is due; after a gap begins anew with a snapshot.
  void Poll() {
    v1::WatchReply reply;
    while (process_.service.NextEvents(stream_, &reply)) {
      publisher_id_ = reply.publisher_id();
      for (const v1::WatchedNamespace& known : reply.namespaces()) {
        models_[known.namespace_digest()] = known.record().model();
      }
      for (const v1::Event& event : reply.events()) {
        if (event.kind() == v1::EVENT_KIND_GAP) {
          ++gaps_;
          where_.clear();
          v1::WatchRequest request;
          request.set_snapshot(true);
          Open(request);
          break;
        }
        Apply(event);
      }
    }
  }

  void UseNewSession() { process_.Reconnect(); }

  // Leading blocks of the chain that this publisher holds in any tier.
  [[nodiscard]] uint32_t PrefixOf(const std::string& digest,
                                  const std::vector<std::string>& keys) const {
    uint32_t run = 0;
    while (run < keys.size() && where_.contains(digest + keys[run])) {
      ++run;
    }
    return run;
  }
  [[nodiscard]] std::string TierOf(const std::string& digest, const std::string& key) const {
    const auto it = where_.find(digest + key);
    return it == where_.end() ? "" : it->second;
  }
  [[nodiscard]] std::string ModelOf(const std::string& digest) const {
    const auto it = models_.find(digest);
    return it == models_.end() ? "" : it->second;
  }
  [[nodiscard]] int gaps() const { return gaps_; }
  [[nodiscard]] int heartbeats() const { return heartbeats_; }
  [[nodiscard]] bool in_sync() const { return in_sync_; }
  [[nodiscard]] const std::vector<v1::Event>& stored() const { return stored_; }

 private:
  void Open(const v1::WatchRequest& request) {
    in_sync_ = !request.snapshot();
    stream_ = 0;
    const absl::Status status = process_.service.Watch(process_.caller, request, &stream_);
    ASSERT_TRUE(status.ok()) << status;
  }

  void Apply(const v1::Event& event) {
    sequence_ = event.sequence();
    switch (event.kind()) {
      case v1::EVENT_KIND_STORED:
        stored_.push_back(event);
        [[fallthrough]];
      case v1::EVENT_KIND_MOVED:
        for (size_t at = 0; at < event.keys().size(); at += event.key_bytes()) {
          where_[event.namespace_digest() + event.keys().substr(at, event.key_bytes())] =
              event.tier();
        }
        break;
      case v1::EVENT_KIND_REMOVED:
        for (size_t at = 0; at < event.keys().size(); at += event.key_bytes()) {
          where_.erase(event.namespace_digest() + event.keys().substr(at, event.key_bytes()));
        }
        break;
      case v1::EVENT_KIND_CLEARED:
        std::erase_if(where_, [&](const auto& held) {
          return held.first.starts_with(event.namespace_digest());
        });
        break;
      case v1::EVENT_KIND_SNAPSHOT_END:
        in_sync_ = true;
        break;
      case v1::EVENT_KIND_HEARTBEAT:
        ++heartbeats_;
        break;
      default:
        ADD_FAILURE() << "unknown event kind " << event.kind();
    }
  }

  EngineProcess process_;
  uint64_t stream_ = 0;
  uint64_t publisher_id_ = 0;
  uint64_t sequence_ = 0;
  std::map<std::string, std::string> where_;  // namespace digest + key -> tier
  std::map<std::string, std::string> models_;
  int gaps_ = 0;
  int heartbeats_ = 0;
  bool in_sync_ = false;
  std::vector<v1::Event> stored_;
};

class Router : public testing::Test {
 protected:
  Router() : digest_(engine_.Open(PlainRecord())) {}

  void Store(uint32_t from, uint32_t to) {
    v1::PutRequest request;
    *request.mutable_part() = PartOf(digest_, {keys_.begin() + from, keys_.begin() + to});
    request.mutable_part()->set_first_token(uint64_t{from} * 16);
    request.set_parent(from == 0 ? "" : keys_[from - 1]);
    request.add_payload_bytes(64);
    request.set_payload(std::string(size_t{64} * (to - from), 'k'));
    for (uint32_t i = from; i < to; ++i) {
      v1::BlockMetadata* metadata = request.add_metadata();
      metadata->add_token_ids(i);
      metadata->set_lora_name("sql");
    }
    v1::PutReply reply;
    ASSERT_TRUE(service_.Put(engine_.caller, request, &reply).ok());
  }

  doubles::ManualClock clock_;
  doubles::ServiceDouble service_{
      clock_, {.dram_bytes = uint64_t{1} << 20, .local_tier = true, .event_backlog = 8}};
  EngineProcess engine_ = EngineProcess::Start(service_, "team");
  std::string digest_;
  std::vector<std::string> keys_ = Chain("chat", 64);
  RouterIndex router_{EngineProcess::Start(service_, "team")};
};

TEST_F(Router, ASnapshotTellsWhatIsHeldAndThenComesWhatIsNew) {
  Store(0, 3);
  router_.Connect();
  EXPECT_FALSE(router_.in_sync());
  router_.Poll();
  EXPECT_TRUE(router_.in_sync());
  EXPECT_EQ(router_.PrefixOf(digest_, keys_), 3U);
  Store(3, 5);
  router_.Poll();
  EXPECT_EQ(router_.PrefixOf(digest_, keys_), 5U);
}

TEST_F(Router, AStoredEventTellsEverythingThatARoutersIndexNeeds) {
  router_.Connect();
  Store(0, 2);
  router_.Poll();
  ASSERT_EQ(router_.stored().size(), 2U);
  const v1::Event& second = router_.stored()[1];
  EXPECT_EQ(second.parent(), keys_[0]);
  EXPECT_EQ(second.first_token(), 16U);
  EXPECT_EQ(second.block_tokens(), 16U);
  EXPECT_EQ(second.tier(), "g2");
  ASSERT_EQ(second.metadata_size(), 1);
  EXPECT_EQ(second.metadata(0).token_ids(0), 1U);
  EXPECT_EQ(second.metadata(0).lora_name(), "sql");
  EXPECT_EQ(router_.ModelOf(digest_), "llama-3.1-8b") << "the digest alone would say nothing";
}

TEST_F(Router, ParentsComeBeforeTheirChildrenInASnapshot) {
  Store(0, 4);
  router_.Connect();
  router_.Poll();
  ASSERT_EQ(router_.stored().size(), 4U);
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(router_.stored()[i].keys(), keys_[i]);
  }
}

TEST_F(Router, AResumedStreamMissesNothing) {
  router_.Connect();
  Store(0, 2);
  router_.Poll();
  router_.UseNewSession();
  Store(2, 4);
  ASSERT_TRUE(service_.MoveLower(service_.NameOf(digest_, "", keys_[0])));
  router_.Connect();
  router_.Poll();
  EXPECT_EQ(router_.gaps(), 0);
  EXPECT_EQ(router_.PrefixOf(digest_, keys_), 4U);
  EXPECT_EQ(router_.TierOf(digest_, keys_[0]), "g3");
  EXPECT_EQ(router_.stored().size(), 4U) << "and repeats nothing";
}

TEST_F(Router, WhatIsNoLongerKeptIsAGapAndHealedByASnapshot) {
  router_.Connect();
  Store(0, 2);
  router_.Poll();
  router_.UseNewSession();
  Store(2, 20);
  router_.Connect();
  router_.Poll();
  EXPECT_EQ(router_.gaps(), 1);
  EXPECT_TRUE(router_.in_sync());
  EXPECT_EQ(router_.PrefixOf(digest_, keys_), 20U);
}

TEST_F(Router, AReaderThatFallsBehindIsToldSo) {
  router_.Connect();
  router_.Poll();
  Store(0, 20);
  router_.Poll();
  EXPECT_EQ(router_.gaps(), 1);
  EXPECT_EQ(router_.PrefixOf(digest_, keys_), 20U);
}

TEST_F(Router, ARestartIsANewPublisherAndAGap) {
  router_.Connect();
  Store(0, 4);
  router_.Poll();
  ASSERT_TRUE(service_.MoveLower(service_.NameOf(digest_, "", keys_[0])));
  service_.Restart(doubles::ServiceDouble::Survives::kWritten);
  router_.UseNewSession();
  router_.Connect();
  router_.Poll();
  EXPECT_EQ(router_.gaps(), 1);
  EXPECT_EQ(router_.PrefixOf(digest_, keys_), 1U)
      << "only the block written to the local tier is still there";
  EXPECT_EQ(router_.TierOf(digest_, keys_[0]), "g3");
}

TEST_F(Router, SilenceIsBrokenByHeartbeats) {
  router_.Connect();
  router_.Poll();
  clock_.Advance(absl::Milliseconds(999));
  router_.Poll();
  EXPECT_EQ(router_.heartbeats(), 0);
  clock_.Advance(absl::Milliseconds(1));
  router_.Poll();
  EXPECT_EQ(router_.heartbeats(), 1);
}

TEST_F(Router, RemovedAndClearedBlocksAreForgotten) {
  router_.Connect();
  Store(0, 4);
  v1::DeleteRequest request;
  *request.mutable_part() = PartOf(digest_, {keys_[2]});
  v1::DeleteReply deleted;
  ASSERT_TRUE(service_.Delete(engine_.caller, request, &deleted).ok());
  router_.Poll();
  EXPECT_EQ(router_.PrefixOf(digest_, keys_), 2U);
  v1::ClearNamespaceRequest clear;
  clear.set_namespace_digest(digest_);
  v1::ClearNamespaceReply cleared;
  ASSERT_TRUE(service_.ClearNamespace(engine_.caller, clear, &cleared).ok());
  router_.Poll();
  EXPECT_EQ(router_.PrefixOf(digest_, keys_), 0U);
}

TEST_F(Router, AnotherTenantsEventsAreNotHeard) {
  const EngineProcess other = EngineProcess::Start(service_, "stranger");
  const std::string foreign = other.Open(PlainRecord());
  router_.Connect();
  ASSERT_TRUE(other.PutChain(foreign, keys_, 64));
  Store(0, 1);
  router_.Poll();
  EXPECT_EQ(router_.stored().size(), 1U);
  EXPECT_EQ(router_.stored()[0].sequence(), 1U) << "not even by holes in the sequence";
  EXPECT_EQ(router_.gaps(), 0);
}

TEST_F(Router, TwoWatchesOfASessionAreToldApart) {
  v1::WatchRequest request;
  doubles::Caller caller = engine_.caller;
  uint64_t first = 0;
  uint64_t second = 0;
  caller.call_id = 11;
  ASSERT_TRUE(service_.Watch(caller, request, &first).ok());
  caller.call_id = 12;
  request.add_namespaces(std::string(16, '\0'));
  ASSERT_TRUE(service_.Watch(caller, request, &second).ok());
  Store(0, 1);
  v1::WatchReply reply;
  ASSERT_TRUE(service_.NextEvents(first, &reply));
  EXPECT_EQ(reply.call_id(), 11U);
  EXPECT_FALSE(service_.NextEvents(second, &reply)) << "filtered out";
  v1::CancelRequest cancel;
  cancel.set_call_id(11);
  v1::CancelReply cancelled;
  ASSERT_TRUE(service_.Cancel(engine_.caller, cancel, &cancelled).ok());
  EXPECT_TRUE(cancelled.found());
  Store(1, 2);
  EXPECT_FALSE(service_.NextEvents(first, &reply));
}

}  // namespace
}  // namespace terrace::contract
