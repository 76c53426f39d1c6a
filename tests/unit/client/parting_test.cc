// Calls whose session the library gives up by itself: those that name blocks of a region are over
// when the daemon has closed its end, because until then it may be copying.
#include <atomic>
#include <thread>
#include <utility>

#include "client/src/parted_sessions.h"
#include "tests/unit/client/client_case.h"

namespace terrace::testing {
namespace {

class Parting : public ClientCase {
 protected:
  void SetUp() override {
    ClientCase::SetUp();
    server_->KeepEnds();
    // They are told, and say nothing: they copy.
    server_->On(v1::METHOD_GET, [](const ScriptedServer::Exchange&) {});
    server_->On(v1::METHOD_PUT, [](const ScriptedServer::Exchange&) {});
    OpenConnected();
    ns_ = OpenNamespace();
    region_ = MakeStaging();
    ASSERT_EQ(Probe(ns_, keys_)->status, TERRACE_OK);
  }
  terrace_region MakeStaging() {
    terrace_region region = 0;
    uint64_t stride = 0;
    EXPECT_EQ(terrace_staging_create(client_, kBlockBytes, 4, &region, &memory_, &stride),
              TERRACE_OK)
        << terrace_last_error();
    return region;
  }
  uint64_t BeginGet(uint32_t deadline_ms = 0) {
    const size_t before = server_->Seen(v1::METHOD_GET);
    terrace_part part = PartOf(ns_, keys_);
    part.region = region_;
    part.block_indexes = &block_;
    const terrace_call call = CallOf(part, deadline_ms);
    const terrace_get_options options = Delivery(TERRACE_DELIVER_REGION);
    uint64_t id = 0;
    EXPECT_EQ(terrace_submit_get(client_, &call, &options, &id), TERRACE_OK)
        << terrace_last_error();
    EXPECT_TRUE(ScriptedServer::Eventually([&] { return server_->Seen(v1::METHOD_GET) > before; }));
    return id;
  }
  uint64_t BeginPut() {
    terrace_part part = PartOf(ns_, keys_);
    part.region = region_;
    part.block_indexes = &block_;
    const terrace_call call = CallOf(part);
    uint64_t id = 0;
    EXPECT_EQ(terrace_submit_put(client_, &call, nullptr, nullptr, 0, &id), TERRACE_OK)
        << terrace_last_error();
    EXPECT_TRUE(ScriptedServer::Eventually([this] { return server_->Seen(v1::METHOD_PUT) > 0; }));
    return id;
  }
  // The daemon answers the next probe with what is no frame, behind what `before` sends, and the
  // library gives the session up; the probe, which touches no memory, is a miss at once.
  void LoseSession(const ScriptedServer::Script& before = nullptr) {
    const size_t kept = server_->connections_kept();
    server_->On(v1::METHOD_PROBE, [before](const ScriptedServer::Exchange& exchange) {
      if (before) {
        before(exchange);
      }
      exchange.Raw(std::string(24, '\xff'));
    });
    const uint64_t probe = SubmitProbe(ns_, keys_);
    const Completed done = Next();
    ASSERT_EQ(done->call_id, probe);
    EXPECT_EQ(done->status, TERRACE_UNAVAILABLE);
    server_->On(v1::METHOD_PROBE, nullptr);
    ASSERT_TRUE(ScriptedServer::Eventually([&] {
      terrace_drain(client_, nullptr, 0, 0);  // what is still said, so that the daemon gets on
      return server_->connections_kept() == kept + 1;
    }));
  }
  void ExpectMissOf(uint64_t call) {
    const Completed done = Next();
    EXPECT_EQ(done->call_id, call);
    EXPECT_EQ(done->status, TERRACE_UNAVAILABLE);
    EXPECT_EQ(done->outcomes[0], TERRACE_GET_MISS);
  }
  uint64_t Cancel(uint64_t call) {
    uint64_t cancel = 0;
    EXPECT_EQ(terrace_submit_cancel(client_, call, 0, 5, &cancel), TERRACE_OK);
    return cancel;
  }
  void ExpectCancelled(uint64_t cancel) {
    const Completed done = Next();
    EXPECT_EQ(done->call_id, cancel);
    EXPECT_EQ(done->status, TERRACE_OK) << done->error;
    EXPECT_EQ(done->count, 0U);
  }
  terrace_status Unregister(uint32_t timeout_ms) {
    return terrace_unregister_region(client_, region_, timeout_ms);
  }

  const std::string keys_ = Keys("k", 1);
  const uint32_t block_ = 1;
  terrace_namespace ns_ = 0;
  terrace_region region_ = 0;
  void* memory_ = nullptr;
};

TEST_F(Parting, AGetIsOverWhenTheDaemonHasClosedItsEnd) {
  const uint64_t get = BeginGet();
  ASSERT_NO_FATAL_FAILURE(LoseSession());
  EXPECT_EQ(Peek(), nullptr) << "its block may be written yet";
  EXPECT_EQ(State().calls_in_flight, 1U);
  server_->LetGo();
  ExpectMissOf(get);
  EXPECT_EQ(State().calls_in_flight, 0U);
}

TEST_F(Parting, APutIsOverWhenTheDaemonHasClosedItsEnd) {
  const uint64_t put = BeginPut();
  ASSERT_NO_FATAL_FAILURE(LoseSession());
  EXPECT_EQ(Peek(), nullptr) << "its block may be read yet";
  server_->LetGo();
  const Completed done = Next();
  EXPECT_EQ(done->call_id, put);
  EXPECT_EQ(done->status, TERRACE_UNAVAILABLE);
}

TEST_F(Parting, ADaemonThatDiesHasClosedItsEnd) {
  const uint64_t get = BeginGet();
  ASSERT_NO_FATAL_FAILURE(LoseSession());
  EXPECT_EQ(Peek(), nullptr);
  server_->Stop();
  ExpectMissOf(get);
}

TEST_F(Parting, ADeadlineEndsTheCallAndACancelTellsWhenTheMemoryIsFree) {
  const uint64_t get = BeginGet(1000);
  ASSERT_NO_FATAL_FAILURE(LoseSession());
  const Completed expired = Next();
  EXPECT_EQ(expired->call_id, get);
  EXPECT_EQ(expired->status, TERRACE_DEADLINE_EXCEEDED);
  const uint64_t cancel = Cancel(get);
  EXPECT_EQ(Peek(), nullptr) << "its block may be written yet";
  server_->LetGo();
  ExpectCancelled(cancel);
}

TEST_F(Parting, ACancelThatWasOnItsWayTellsWhenTheMemoryIsFree) {
  server_->On(v1::METHOD_CANCEL, [](const ScriptedServer::Exchange&) {});
  const uint64_t get = BeginGet(50);
  EXPECT_EQ(Next()->status, TERRACE_DEADLINE_EXCEEDED);
  const uint64_t cancel = Cancel(get);
  ASSERT_NO_FATAL_FAILURE(LoseSession());
  EXPECT_EQ(Peek(), nullptr) << "its block may be written yet";
  server_->LetGo();
  ExpectCancelled(cancel);
}

TEST_F(Parting, ACancelOfACallThatOutlivesItsSessionEndsWithIt) {
  const uint64_t get = BeginGet();
  ASSERT_NO_FATAL_FAILURE(LoseSession());
  const uint64_t cancel = Cancel(get);
  EXPECT_EQ(Peek(), nullptr);
  server_->LetGo();
  ExpectMissOf(get);
  ExpectCancelled(cancel);
}

TEST_F(Parting, ACancelInALaterSessionWaitsForTheEarlierOne) {
  const uint64_t get = BeginGet(50);
  EXPECT_EQ(Next()->status, TERRACE_DEADLINE_EXCEEDED);
  ASSERT_NO_FATAL_FAILURE(LoseSession());
  ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
  const uint64_t cancel = Cancel(get);
  EXPECT_EQ(Probe(ns_, keys_)->verb, TERRACE_VERB_PROBE) << "its block may be written yet";
  server_->LetGo();
  ExpectCancelled(cancel);
}

// The daemon has to be told, whatever goes on elsewhere.
TEST_F(Parting, ACancelOfALaterSessionsCallIsSent) {
  ASSERT_NO_FATAL_FAILURE(LoseSession());
  ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
  const size_t before = server_->Seen(v1::METHOD_CANCEL);
  const uint64_t get = BeginGet();
  Cancel(get);
  EXPECT_TRUE(Advance([&] { return server_->Seen(v1::METHOD_CANCEL) == before + 1; }));
}

TEST_F(Parting, ACancelIsOverAtOnceWhereNothingCanTouchTheMemory) {
  const uint64_t get = BeginGet(50);
  EXPECT_EQ(Next()->status, TERRACE_DEADLINE_EXCEEDED);
  server_->Stop();
  ASSERT_TRUE(Advance([this] { return State().connection == TERRACE_CONNECTION_DOWN; }));
  ExpectCancelled(Cancel(get));
}

TEST_F(Parting, AnUnregisterWaitsForTheEnd) {
  ASSERT_NO_FATAL_FAILURE(LoseSession());
  EXPECT_EQ(Unregister(20), TERRACE_DEADLINE_EXCEEDED);
  ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
  EXPECT_EQ(Unregister(20), TERRACE_DEADLINE_EXCEEDED) << "the session before may copy";
  server_->LetGo();
  EXPECT_EQ(Unregister(kPatienceMs), TERRACE_OK);
}

TEST_F(Parting, ARegionThatIsMadeAfterwardsIsNotWaitedFor) {
  ASSERT_NO_FATAL_FAILURE(LoseSession());
  ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
  region_ = MakeStaging();
  EXPECT_EQ(Unregister(kPatienceMs), TERRACE_OK);
}

TEST_F(Parting, AnotherSessionIsUsedMeanwhile) {
  const uint64_t get = BeginGet();
  ASSERT_NO_FATAL_FAILURE(LoseSession());
  ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
  EXPECT_EQ(Probe(ns_, keys_)->status, TERRACE_OK);
  EXPECT_EQ(State().calls_in_flight, 1U);
  server_->LetGo();
  ExpectMissOf(get);
  EXPECT_EQ(State().connection, TERRACE_CONNECTION_UP);
}

TEST_F(Parting, WhatTheDaemonStillSaysIsDropped) {
  const size_t before = OpenDescriptors();
  const uint64_t get = BeginGet();
  // More than a socket holds, so that the daemon is done only when it is read.
  std::thread talker;
  ASSERT_NO_FATAL_FAILURE(LoseSession([&](const ScriptedServer::Exchange& exchange) {
    talker = std::thread([exchange] {
      WireHeader header;
      header.method = v1::METHOD_DRAIN_NOTICE;
      header.kind = 3;
      for (int i = 0; i < 4096; ++i) {
        exchange.Frame(header, std::string(1000, 'x'), {STDIN_FILENO});
      }
    });
  }));
  EXPECT_TRUE(Advance([&] { return server_->connections_kept() == 1; }));
  std::atomic<bool> said{false};
  std::thread joiner([&] {
    talker.join();
    said = true;
  });
  EXPECT_TRUE(ScriptedServer::Eventually([&] {
    EXPECT_EQ(Peek(), nullptr);
    return said.load();
  }));
  joiner.join();
  server_->LetGo();
  ExpectMissOf(get);
  ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
  EXPECT_TRUE(Advance([&] { return OpenDescriptors() == before; }));
}

TEST_F(Parting, SessionsThatEndAreBounded) {
  std::vector<uint64_t> gets;
  for (size_t i = 0; i < client::PartedSessions::kMost; ++i) {
    ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
    gets.push_back(BeginGet());
    ASSERT_NO_FATAL_FAILURE(LoseSession());
  }
  EXPECT_EQ(terrace_wait_connected(client_, 100), TERRACE_DEADLINE_EXCEEDED);
  EXPECT_EQ(server_->connections_accepted(), client::PartedSessions::kMost);
  EXPECT_EQ(Probe(ns_, keys_)->status, TERRACE_UNAVAILABLE);
  server_->LetGo();
  for (size_t i = 0; i < gets.size(); ++i) {
    EXPECT_EQ(Next()->status, TERRACE_UNAVAILABLE);
  }
  EXPECT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
}

TEST_F(Parting, WhoeverWatchesTheEventDescriptorHearsOfTheEnd) {
  terrace_close(std::exchange(client_, nullptr));
  server_->LetGo();
  server_->KeepEnds();
  client_ = Open(1'000'000);  // it does not try again for as long as this test lasts
  ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
  ns_ = OpenNamespace();
  region_ = MakeStaging();
  ASSERT_EQ(Probe(ns_, keys_)->status, TERRACE_OK);
  const int watched = terrace_event_fd(client_);
  const uint64_t get = BeginGet();
  ASSERT_NO_FATAL_FAILURE(LoseSession());
  EXPECT_FALSE(Readable(watched, 0));
  server_->LetGo();
  EXPECT_TRUE(Readable(watched, kPatienceMs));
  ExpectMissOf(get);
  EXPECT_FALSE(Readable(watched, 0)) << "nothing is left to be done";
}

}  // namespace
}  // namespace terrace::testing
