// A hybrid model over the contract: full attention, a sliding window and a recurrent state, three
// parts of one request.
//
// The three groups have blocks of different sizes: 16 tokens, 32 tokens, and a state at every 64th
// token. Blocks are named by (group, the token at which they end), so that expectations can be read
// off.
#include <random>
#include <set>

#include <gtest/gtest.h>

#include "tests/contract/engines/contract_kit.h"

namespace terrace::contract {
namespace {

constexpr uint32_t kWindow = 64;

class HybridModel : public testing::Test {
 protected:
  struct Group {
    std::string digest;
    uint32_t tokens = 0;
    v1::Rule rule = v1::RULE_PREFIX;
  };

  HybridModel() {
    AddGroup("full", 16, v1::RULE_PREFIX);
    AddGroup("sliding_window", 32, v1::RULE_WINDOW);
    AddGroup("state", 64, v1::RULE_STATE_AT_END);
  }

  void AddGroup(const std::string& kind, uint32_t tokens, v1::Rule rule) {
    v1::NamespaceRecord record = PlainRecord();
    record.set_group(static_cast<uint32_t>(groups_.size()));
    record.set_group_kind(kind);
    record.set_block_tokens(tokens);
    record.set_block_bytes(uint64_t{64} * tokens);
    const std::string suffix = {'\0', '\0', '\0',
                                static_cast<char>(groups_.size())};  // vLLM's group index
    record.set_key_suffix(suffix);
    groups_.push_back({.digest = process_.Open(record), .tokens = tokens, .rule = rule});
  }

  // vLLM's OffloadKey: the hash of the prefix, then the group index.
  static std::string KeyAt(size_t group, uint32_t end) {
    return KeyOf("hybrid", end) + std::string{'\0', '\0', '\0', static_cast<char>(group)};
  }

  void Store(size_t group, const std::vector<uint32_t>& ends) {
    for (const uint32_t end : ends) {
      ASSERT_TRUE(
          process_.PutChain(groups_[group].digest, {KeyAt(group, end)}, groups_[group].tokens));
    }
  }
  void StoreUpTo(size_t group, uint32_t last) {
    for (uint32_t end = groups_[group].tokens; end <= last; end += groups_[group].tokens) {
      Store(group, {end});
    }
  }

  [[nodiscard]] v1::ProbeReply ProbeUpTo(uint32_t prompt_tokens, uint32_t hold_ms = 0) {
    v1::ProbeRequest request;
    for (size_t g = 0; g < groups_.size(); ++g) {
      std::vector<std::string> keys;
      for (uint32_t end = groups_[g].tokens; end <= prompt_tokens; end += groups_[g].tokens) {
        keys.push_back(KeyAt(g, end));
      }
      v1::Part* part = request.add_parts();
      *part = PartOf(groups_[g].digest, keys, groups_[g].rule);
      part->set_window_tokens(groups_[g].rule == v1::RULE_WINDOW ? kWindow : 0);
    }
    request.set_hold_ms(hold_ms);
    v1::ProbeReply reply;
    const absl::Status status = service_.Probe(process_.caller, request, &reply);
    EXPECT_TRUE(status.ok()) << status;
    return reply;
  }

  doubles::ManualClock clock_;
  doubles::ServiceDouble service_{clock_, {.dram_bytes = uint64_t{16} << 20}};
  EngineProcess process_ = EngineProcess::Start(service_, "vllm");
  std::vector<Group> groups_;
};

TEST_F(HybridModel, GroupsOfOneModelAreAFamily) {
  v1::OpenNamespaceRequest request;
  *request.mutable_record() = PlainRecord();
  v1::OpenNamespaceReply first;
  ASSERT_TRUE(service_.OpenNamespace(process_.caller, request, &first).ok());
  request.mutable_record()->set_group(2);
  request.mutable_record()->set_group_kind("state");
  request.mutable_record()->set_block_bytes(4096);
  v1::OpenNamespaceReply second;
  ASSERT_TRUE(service_.OpenNamespace(process_.caller, request, &second).ok());
  EXPECT_NE(first.namespace_digest(), second.namespace_digest());
  EXPECT_EQ(first.family_digest(), second.family_digest());
  request.mutable_record()->set_weights_revision("another");
  v1::OpenNamespaceReply third;
  ASSERT_TRUE(service_.OpenNamespace(process_.caller, request, &third).ok());
  EXPECT_NE(third.family_digest(), first.family_digest());
}

TEST_F(HybridModel, TheBoundaryIsLegalForAllThreeGroups) {
  StoreUpTo(0, 256);
  StoreUpTo(1, 256);
  Store(2, {128, 192});
  const v1::ProbeReply reply = ProbeUpTo(256);
  EXPECT_EQ(reply.boundary_tokens(), 192U);
  EXPECT_EQ(reply.part_hits(0), 16U);
  EXPECT_EQ(reply.part_hits(2), 2U);
  EXPECT_EQ(reply.part_boundary_keys(0), 12U);
  EXPECT_EQ(reply.part_boundary_keys(1), 6U);
  EXPECT_EQ(reply.part_boundary_keys(2), 3U);
}

TEST_F(HybridModel, AWindowNeedsOnlyItsLastBlocks) {
  StoreUpTo(0, 256);
  Store(1, {224, 256});
  StoreUpTo(2, 256);
  EXPECT_EQ(ProbeUpTo(256).boundary_tokens(), 256U);
}

TEST_F(HybridModel, AHoleInTheWindowMovesTheBoundaryBack) {
  StoreUpTo(0, 256);
  Store(1, {32, 64, 96, 128, 192, 256});
  StoreUpTo(2, 256);
  EXPECT_EQ(ProbeUpTo(256).boundary_tokens(), 128U);
}

TEST_F(HybridModel, WithoutAnyStateThereIsNothingUsable) {
  StoreUpTo(0, 256);
  StoreUpTo(1, 256);
  EXPECT_EQ(ProbeUpTo(256).boundary_tokens(), 0U);
  EXPECT_TRUE(ProbeUpTo(256, 1000).hold_id().empty());
}

TEST_F(HybridModel, AHoldCoversEveryGroupUpToTheBoundary) {
  StoreUpTo(0, 128);
  StoreUpTo(1, 128);
  Store(2, {64, 128});
  const v1::ProbeReply reply = ProbeUpTo(256, 1000);
  ASSERT_EQ(reply.boundary_tokens(), 128U);
  EXPECT_FALSE(service_.Evict(service_.NameOf(groups_[0].digest, "", KeyAt(0, 16))));
  EXPECT_FALSE(service_.Evict(service_.NameOf(groups_[1].digest, "", KeyAt(1, 128))));
  EXPECT_FALSE(service_.Evict(service_.NameOf(groups_[2].digest, "", KeyAt(2, 128))));
  clock_.Advance(absl::Milliseconds(1000));
  EXPECT_TRUE(service_.Evict(service_.NameOf(groups_[2].digest, "", KeyAt(2, 128))));
}

TEST_F(HybridModel, OnlyWhatTheBoundaryNeedsIsLoaded) {
  StoreUpTo(0, 128);
  Store(1, {96, 128});
  Store(2, {128});
  const v1::ProbeReply probe = ProbeUpTo(128, 1000);
  ASSERT_EQ(probe.boundary_tokens(), 128U);
  v1::GetRequest get;
  get.set_hold_id(probe.hold_id());
  std::vector<std::string> all_of_full;
  for (uint32_t end = 16; end <= 128; end += 16) {
    all_of_full.push_back(KeyAt(0, end));
  }
  *get.add_parts() = PartOf(groups_[0].digest, all_of_full);
  *get.add_parts() = PartOf(groups_[1].digest, {KeyAt(1, 96), KeyAt(1, 128)}, v1::RULE_INDEPENDENT);
  *get.add_parts() = PartOf(groups_[2].digest, {KeyAt(2, 128)}, v1::RULE_INDEPENDENT);
  v1::GetReply reply;
  ASSERT_TRUE(service_.Get(process_.caller, get, &reply).ok());
  EXPECT_EQ(reply.outcomes(), std::string(8 + 2 + 1, static_cast<char>(v1::GET_OUTCOME_OK)));
  EXPECT_EQ(reply.payload().substr(8 * 16 + 2 * 32),
            PayloadOf(groups_[2].digest, KeyAt(2, 128), 64));
}

TEST_F(HybridModel, AKeyWithoutItsGroupsSuffixIsInvalidAndItsNeighboursAreNot) {
  StoreUpTo(0, 32);
  v1::ProbeRequest request;
  *request.add_parts() =
      PartOf(groups_[0].digest, {KeyAt(0, 16), KeyAt(1, 32), KeyAt(0, 32)}, v1::RULE_INDEPENDENT);
  v1::ProbeReply reply;
  ASSERT_TRUE(service_.Probe(process_.caller, request, &reply).ok());
  EXPECT_EQ(StateAt(reply, 0), v1::KEY_STATE_READY);
  EXPECT_EQ(StateAt(reply, 1), v1::KEY_STATE_INVALID);
  EXPECT_EQ(StateAt(reply, 2), v1::KEY_STATE_READY);
}

TEST_F(HybridModel, StatesMayLieWhereTheEngineTookThem) {
  StoreUpTo(0, 128);
  Store(2, {96});
  v1::ProbeRequest request;
  std::vector<std::string> full;
  for (uint32_t end = 16; end <= 128; end += 16) {
    full.push_back(KeyAt(0, end));
  }
  *request.add_parts() = PartOf(groups_[0].digest, full);
  v1::Part* state = request.add_parts();
  *state =
      PartOf(groups_[2].digest, {KeyAt(2, 48), KeyAt(2, 96), KeyAt(2, 112)}, v1::RULE_STATE_AT_END);
  for (const uint32_t end : {48U, 96U, 112U}) {
    state->add_end_tokens(end);
  }
  v1::ProbeReply reply;
  ASSERT_TRUE(service_.Probe(process_.caller, request, &reply).ok());
  EXPECT_EQ(reply.boundary_tokens(), 96U);
}

// The definition again, from which blocks exist: full up to the boundary, window tokens before it,
// the state at it.
TEST_F(HybridModel, TheBoundaryIsTheLargestThatTheRulesAllow) {
  const uint32_t seed = 20260922;
  std::mt19937 random(seed);
  for (int round = 0; round < 200; ++round) {
    const std::string salt = std::to_string(round);
    std::vector<std::set<uint32_t>> there(3);
    v1::ProbeRequest request;
    for (size_t g = 0; g < 3; ++g) {
      std::vector<std::string> keys;
      std::vector<std::string> stored;
      for (uint32_t end = groups_[g].tokens; end <= 256; end += groups_[g].tokens) {
        keys.push_back(KeyAt(g, end));
        if (random() % 8 != 0) {
          there[g].insert(end);
          stored.push_back(keys.back());
        }
      }
      v1::PutRequest put;
      *put.mutable_part() = PartOf(groups_[g].digest, stored, v1::RULE_INDEPENDENT);
      put.mutable_part()->set_salt(salt);
      put.add_payload_bytes(1);
      put.set_payload(std::string(stored.size(), 'x'));
      v1::PutReply stored_reply;
      ASSERT_TRUE(service_.Put(process_.caller, put, &stored_reply).ok());
      v1::Part* part = request.add_parts();
      *part = PartOf(groups_[g].digest, keys, groups_[g].rule);
      part->set_salt(salt);
      part->set_window_tokens(groups_[g].rule == v1::RULE_WINDOW ? kWindow : 0);
    }
    uint32_t expected = 0;
    for (uint32_t boundary = 64; boundary <= 256;
         boundary += 64) {  // where all three groups end a block
      bool legal = there[2].contains(boundary);
      for (uint32_t end = 16; end <= boundary; end += 16) {
        legal = legal && there[0].contains(end);
      }
      for (uint32_t end = boundary - kWindow + 32; end <= boundary; end += 32) {
        legal = legal && there[1].contains(end);
      }
      expected = legal ? boundary : expected;
    }
    v1::ProbeReply reply;
    ASSERT_TRUE(service_.Probe(process_.caller, request, &reply).ok());
    ASSERT_EQ(reply.boundary_tokens(), expected) << "seed " << seed << " round " << round;
  }
}

}  // namespace
}  // namespace terrace::contract
