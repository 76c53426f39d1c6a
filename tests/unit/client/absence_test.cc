// A daemon that is absent, dies, comes back, hangs, drains or pushes back.
#include <sys/resource.h>
#include <sys/syscall.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "tests/unit/client/client_case.h"

namespace terrace::testing {
namespace {

using Absence = LonelyClientCase;
using Trouble = ClientCase;

TEST_F(Absence, AnAbsentDaemonIsAMissAtOnce) {
  client_ = Open();
  const terrace_namespace ns = OpenNamespace();
  SubmitProbe(ns, Keys("k", 2));
  const Completed probe = Peek();
  ASSERT_NE(probe, nullptr) << "the completion must be there without waiting";
  EXPECT_EQ(probe->status, TERRACE_UNAVAILABLE);
  EXPECT_STRNE(probe->error, "");
  ASSERT_EQ(probe->key_count, 2U);
  EXPECT_EQ(probe->states[0], TERRACE_KEY_MISS);
  EXPECT_EQ(probe->part_hits[0], 0U);
  SubmitPut(ns, Keys("k", 1), "payload");
  const Completed put = Peek();
  ASSERT_NE(put, nullptr);
  EXPECT_EQ(put->status, TERRACE_UNAVAILABLE);
  EXPECT_EQ(put->outcomes[0], TERRACE_PUT_NONE);
  EXPECT_EQ(State().connection, TERRACE_CONNECTION_DOWN);
  EXPECT_EQ(State().boot_id, 0U);
}

TEST_F(Absence, AFailedPinSaysSoForEveryKey) {
  client_ = Open();
  const std::string keys = Keys("k", 2);
  const terrace_part part = PartOf(OpenNamespace(), keys);
  const terrace_call call = CallOf(part);
  ASSERT_EQ(terrace_submit_pin(client_, &call, 0, nullptr), TERRACE_OK);
  const Completed pin = Peek();
  EXPECT_EQ(pin->status, TERRACE_UNAVAILABLE);
  EXPECT_NE(pin->reasons[0], TERRACE_REASON_NONE);
  EXPECT_NE(pin->reasons[1], TERRACE_REASON_NONE);
}

TEST_F(Absence, TheEventDescriptorIsReadableForAMissAtOnce) {
  client_ = Open();
  const int fd = terrace_event_fd(client_);
  ASSERT_GE(fd, 0);
  EXPECT_FALSE(Readable(fd, 0));
  const terrace_namespace ns = OpenNamespace();
  SubmitProbe(ns, Keys("k", 1));
  EXPECT_TRUE(Readable(fd, 0));
  EXPECT_NE(Peek(), nullptr);
  EXPECT_FALSE(Readable(fd, 0)) << "nothing is left to do";
}

TEST_F(Absence, ThousandsOfMissesMakeOneAttemptToConnect) {
  client_ = Open(/*reconnect_ms=*/600'000);
  const terrace_namespace ns = OpenNamespace();
  server_ = std::make_unique<ScriptedServer>(folder_.path());
  for (int i = 0; i < 5000; ++i) {
    SubmitProbe(ns, Keys("k", 1));
    ASSERT_EQ(Peek()->status, TERRACE_UNAVAILABLE);
  }
  EXPECT_EQ(server_->connections_accepted(), 0U) << "the next attempt is ten minutes away";
}

TEST_F(Absence, ADaemonThatStartsLaterIsFound) {
  client_ = Open();
  const terrace_namespace ns = OpenNamespace();
  server_ = std::make_unique<ScriptedServer>(folder_.path());
  ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK) << terrace_last_error();
  EXPECT_EQ(Probe(ns, Keys("k", 1))->status, TERRACE_OK);
}

TEST_F(Absence, WaitingForAnAbsentDaemonEndsInTime) {
  client_ = Open();
  EXPECT_EQ(terrace_wait_connected(client_, 30), TERRACE_DEADLINE_EXCEEDED);
  EXPECT_NE(std::string(terrace_last_error()).find("session.sock"), std::string::npos);
  terrace_completion* none = nullptr;
  EXPECT_EQ(terrace_drain(client_, &none, 1, 30), 0U);
}

TEST_F(Trouble, ADyingDaemonEndsEveryCallAndTheNextOneServes) {
  OpenConnected();
  const terrace_namespace ns = OpenNamespace();
  ASSERT_EQ(Probe(ns, Keys("k", 1))->status, TERRACE_OK);
  server_->On(v1::METHOD_PROBE, [](const ScriptedServer::Exchange&) {});
  server_->On(v1::METHOD_PUT, [](const ScriptedServer::Exchange&) {});
  SubmitProbe(ns, Keys("k", 3));
  SubmitPut(ns, Keys("k", 1), "x");
  ASSERT_TRUE(ScriptedServer::Eventually([&] { return server_->Seen(v1::METHOD_PUT) == 1; }));
  const uint64_t boot_id = State().boot_id;
  server_->Stop();
  for (int i = 0; i < 2; ++i) {
    const Completed ended = Next();
    EXPECT_EQ(ended->status, TERRACE_UNAVAILABLE);
    if (ended->verb == TERRACE_VERB_PROBE) {
      EXPECT_EQ(ended->states[2], TERRACE_KEY_MISS);
    } else {
      EXPECT_EQ(ended->outcomes[0], TERRACE_PUT_NONE);
    }
  }
  EXPECT_EQ(State().calls_in_flight, 0U);
  EXPECT_EQ(State().connection, TERRACE_CONNECTION_DOWN);
  server_->On(v1::METHOD_PROBE, nullptr);
  server_->Start();
  ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
  EXPECT_NE(State().boot_id, boot_id);
  EXPECT_EQ(State().reconnects, 1U);
  EXPECT_EQ(Probe(ns, Keys("k", 1))->status, TERRACE_OK);
}

TEST_F(Trouble, WaitingForAConnectionIsNotContentWithADeadOne) {
  OpenConnected();
  const terrace_namespace ns = OpenNamespace();
  server_->Stop();
  server_->Start();
  // The first call since: that the old daemon is gone is found out by it.
  ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
  EXPECT_EQ(State().reconnects, 1U);
  EXPECT_EQ(Probe(ns, Keys("k", 1))->status, TERRACE_OK);
}

TEST_F(Trouble, TheEventDescriptorTellsOfADeadDaemon) {
  OpenConnected();
  const int fd = terrace_event_fd(client_);
  ASSERT_TRUE(Advance([&] { return !Readable(fd, 0); }));
  server_->Stop();
  EXPECT_TRUE(Readable(fd, kPatienceMs));
  Peek();
  EXPECT_EQ(State().connection, TERRACE_CONNECTION_DOWN);
}

TEST_F(Trouble, NamespacesAndRegionsAreSaidAgainBeforeRequests) {
  OpenConnected();
  const terrace_namespace first = OpenNamespace("first");
  const terrace_namespace second = OpenNamespace("second");
  terrace_region region = 0;
  void* memory = nullptr;
  uint64_t stride = 0;
  ASSERT_EQ(terrace_staging_create(client_, kBlockBytes, 2, &region, &memory, &stride), TERRACE_OK);
  ASSERT_EQ(Probe(first, Keys("k", 1))->status, TERRACE_OK);
  const size_t before = server_->Order().size();
  server_->Stop();
  ASSERT_TRUE(Advance([&] { return State().connection == TERRACE_CONNECTION_DOWN; }));
  server_->Start();
  ASSERT_TRUE(Advance([&] { return State().connection != TERRACE_CONNECTION_DOWN; }));
  EXPECT_EQ(Probe(second, Keys("k", 1))->status, TERRACE_OK);
  const std::vector<v1::Method> all = server_->Order();
  const std::vector<v1::Method> after(all.begin() + static_cast<std::ptrdiff_t>(before), all.end());
  EXPECT_EQ(after, (std::vector<v1::Method>{v1::METHOD_HELLO, v1::METHOD_OPEN_NAMESPACE,
                                            v1::METHOD_OPEN_NAMESPACE, v1::METHOD_REGISTER_REGION,
                                            v1::METHOD_PROBE}));
  EXPECT_EQ(server_->live_regions(), 1U);
}

TEST_F(Trouble, RequestsDoNotWaitForTheGreeting) {
  client_ = Open();
  ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
  const terrace_namespace ns = OpenNamespace();
  ASSERT_EQ(Probe(ns, Keys("k", 1))->status, TERRACE_OK);
  std::atomic<bool> probed{false};
  std::vector<ScriptedServer::Exchange> hellos;
  server_->On(v1::METHOD_HELLO,
              [&](const ScriptedServer::Exchange& exchange) { hellos.push_back(exchange); });
  server_->On(v1::METHOD_PROBE, [&](const ScriptedServer::Exchange& exchange) {
    probed = true;
    server_->Answer(hellos.back());
    server_->Answer(exchange);
  });
  server_->DropConnections();
  ASSERT_TRUE(Advance([&] { return State().connection == TERRACE_CONNECTION_CONNECTING; }));
  SubmitProbe(ns, Keys("k", 1));
  EXPECT_EQ(Next()->status, TERRACE_OK);
  EXPECT_TRUE(probed);
}

TEST_F(Trouble, RequestsAreKeptUntilTheDigestIsKnown) {
  OpenConnected();
  std::vector<ScriptedServer::Exchange> kept;
  std::atomic<int> opens{0};
  server_->On(v1::METHOD_OPEN_NAMESPACE, [&](const ScriptedServer::Exchange& exchange) {
    kept.push_back(exchange);
    ++opens;
  });
  const terrace_namespace ns = OpenNamespace();
  SubmitProbe(ns, Keys("a", 1));
  SubmitPut(ns, Keys("a", 1), "payload");
  ASSERT_TRUE(Advance([&] { return opens == 1; }));
  EXPECT_EQ(server_->Seen(v1::METHOD_PROBE), 0U);
  EXPECT_EQ(State().calls_in_flight, 2U);
  server_->Answer(kept[0]);
  EXPECT_EQ(Next()->verb, TERRACE_VERB_PROBE);
  const Completed put = Next();
  EXPECT_EQ(put->outcomes[0], TERRACE_PUT_STORED);
  v1::PutRequest sent;
  ASSERT_TRUE(sent.ParseFromString(server_->LastMessage(v1::METHOD_PUT)));
  EXPECT_EQ(sent.part().namespace_digest()[15], 'n');
}

TEST_F(Trouble, AKeptRequestEndsAtItsDeadline) {
  OpenConnected();
  server_->On(v1::METHOD_OPEN_NAMESPACE, [](const ScriptedServer::Exchange&) {});
  const terrace_namespace ns = OpenNamespace();
  SubmitProbe(ns, Keys("a", 1), 20);
  const Completed probe = Next();
  EXPECT_EQ(probe->status, TERRACE_DEADLINE_EXCEEDED);
  EXPECT_EQ(server_->Seen(v1::METHOD_PROBE), 0U);
}

TEST_F(Trouble, ARefusedNamespaceRefusesItsCalls) {
  OpenConnected();
  server_->On(v1::METHOD_OPEN_NAMESPACE, [](const ScriptedServer::Exchange& exchange) {
    exchange.Refuse(9, "kv_dtype: differs");
  });
  const terrace_namespace ns = OpenNamespace();
  for (int i = 0; i < 2; ++i) {  // one that was kept, and one that comes later
    const Completed probe = Probe(ns, Keys("a", 1));
    EXPECT_EQ(probe->status, TERRACE_FAILED_PRECONDITION);
    EXPECT_STREQ(probe->error, "kv_dtype: differs");
  }
  EXPECT_EQ(server_->Seen(v1::METHOD_OPEN_NAMESPACE), 1U);
}

TEST_F(Trouble, ANamespaceRefusedForNowIsAskedAgain) {
  OpenConnected();
  std::atomic<int> asked{0};
  server_->On(v1::METHOD_OPEN_NAMESPACE, [&](const ScriptedServer::Exchange& exchange) {
    if (++asked == 1) {
      exchange.Refuse(8, "later", 1);
    } else {
      server_->Answer(exchange);
    }
  });
  const terrace_namespace ns = OpenNamespace();
  EXPECT_EQ(Probe(ns, Keys("a", 1))->status, TERRACE_RESOURCE_EXHAUSTED);
  EXPECT_TRUE(
      ScriptedServer::Eventually([&] { return Probe(ns, Keys("a", 1))->status == TERRACE_OK; }));
  EXPECT_EQ(asked, 2);
}

TEST_F(Trouble, AHungDaemonCostsOneDeadlineAndThenNothing) {
  OpenConnected();
  const terrace_namespace ns = OpenNamespace();
  ASSERT_EQ(Probe(ns, Keys("k", 1))->status, TERRACE_OK);
  server_->Hang();
  SubmitProbe(ns, Keys("k", 1), 1000);
  EXPECT_EQ(Next()->status, TERRACE_DEADLINE_EXCEEDED);
  SubmitProbe(ns, Keys("k", 1), 3'600'000);
  const Completed next = Peek();
  ASSERT_NE(next, nullptr) << "a silent daemon must not be waited for";
  EXPECT_EQ(next->status, TERRACE_UNAVAILABLE);
  server_->Resume();
  EXPECT_TRUE(Advance([&] { return Probe(ns, Keys("k", 1))->status == TERRACE_OK; }));
  EXPECT_EQ(State().reconnects, 0U) << "it kept its session";
}

TEST_F(Trouble, ADaemonThatHangsFromTheStartCostsNoMore) {
  server_->Hang();
  client_ = Open();
  const terrace_namespace ns = OpenNamespace();
  SubmitProbe(ns, Keys("k", 1), 1000);
  EXPECT_EQ(Next()->status, TERRACE_DEADLINE_EXCEEDED);
  SubmitProbe(ns, Keys("k", 1), 3'600'000);
  const Completed next = Peek();
  ASSERT_NE(next, nullptr);
  EXPECT_EQ(next->status, TERRACE_UNAVAILABLE);
  server_->Resume();
  EXPECT_TRUE(Advance([&] { return Probe(ns, Keys("k", 1))->status == TERRACE_OK; }));
}

TEST_F(Trouble, ALateReplyIsDropped) {
  OpenConnected();
  const terrace_namespace ns = OpenNamespace();
  std::vector<ScriptedServer::Exchange> kept;
  std::atomic<int> arrived{0};
  server_->On(v1::METHOD_PROBE, [&](const ScriptedServer::Exchange& exchange) {
    kept.push_back(exchange);
    ++arrived;
  });
  const uint64_t first = SubmitProbe(ns, Keys("k", 1), 20);
  const Completed expired = Next();
  EXPECT_EQ(expired->call_id, first);
  EXPECT_EQ(expired->status, TERRACE_DEADLINE_EXCEEDED);
  ASSERT_TRUE(ScriptedServer::Eventually([&] { return arrived == 1; }));
  server_->Answer(kept[0]);
  server_->On(v1::METHOD_PROBE, nullptr);
  const uint64_t second = SubmitProbe(ns, Keys("k", 1));
  EXPECT_EQ(Next()->call_id, second);
  EXPECT_EQ(Peek(), nullptr);
}

TEST_F(Trouble, ADeadlineWakesTheEventDescriptor) {
  OpenConnected();
  const int fd = terrace_event_fd(client_);
  const terrace_namespace ns = OpenNamespace();
  ASSERT_EQ(Probe(ns, Keys("k", 1))->status, TERRACE_OK);
  server_->On(v1::METHOD_PROBE, [](const ScriptedServer::Exchange&) {});
  ASSERT_TRUE(Advance([&] { return !Readable(fd, 0); }));
  SubmitProbe(ns, Keys("k", 1), 50);
  ASSERT_TRUE(Readable(fd, kPatienceMs));
  Completed expired;
  ASSERT_TRUE(ScriptedServer::Eventually([&] { return (expired = Peek()) != nullptr; }));
  EXPECT_EQ(expired->status, TERRACE_DEADLINE_EXCEEDED);
  EXPECT_TRUE(Advance([&] { return !Readable(fd, 0); })) << "an expired timer must not spin";
}

TEST_F(Trouble, ADrainingDaemonShowsInTheState) {
  OpenConnected();
  v1::DrainNotice notice;
  notice.set_grace_ms(1000);
  server_->PushAll(v1::METHOD_DRAIN_NOTICE, notice);
  EXPECT_TRUE(Advance([&] { return State().connection == TERRACE_CONNECTION_DRAINING; }));
}

TEST_F(Trouble, BackPressureHoldsPutsBackAndLetsProbesPass) {
  OpenConnected();
  const terrace_namespace ns = OpenNamespace();
  server_->On(v1::METHOD_PROBE, [&](const ScriptedServer::Exchange& exchange) {
    v1::BackPressureNotice notice;
    notice.set_retry_after_ms(9000);
    exchange.Push(v1::METHOD_BACK_PRESSURE_NOTICE, notice);
    server_->Answer(exchange);
  });
  ASSERT_EQ(Probe(ns, Keys("k", 1))->status, TERRACE_OK);
  SubmitPut(ns, Keys("k", 1), "payload");
  const Completed put = Peek();
  ASSERT_NE(put, nullptr);
  EXPECT_EQ(put->status, TERRACE_RESOURCE_EXHAUSTED);
  EXPECT_EQ(server_->Seen(v1::METHOD_PUT), 0U);
  EXPECT_EQ(Probe(ns, Keys("k", 1))->status, TERRACE_OK);
}

TEST_F(Trouble, ARefusedHelloIsUnavailableWithItsReason) {
  server_->On(v1::METHOD_HELLO, [](const ScriptedServer::Exchange& exchange) {
    exchange.Refuse(9, "protocol_major: speaks 2 to 3");
    exchange.Disconnect();
  });
  client_ = Open(/*reconnect_ms=*/600'000);
  EXPECT_EQ(terrace_wait_connected(client_, 200), TERRACE_DEADLINE_EXCEEDED);
  const Completed probe = Probe(OpenNamespace(), Keys("k", 1));
  EXPECT_EQ(probe->status, TERRACE_UNAVAILABLE);
  EXPECT_NE(std::string(probe->error).find("protocol_major"), std::string::npos) << probe->error;
}

TEST_F(Trouble, WithoutRoomInTheSocketRequestsWaitUpToALimit) {
  OpenConnected();
  const terrace_namespace ns = OpenNamespace();
  ASSERT_EQ(Probe(ns, Keys("k", 1))->status, TERRACE_OK);
  server_->Hang();
  const std::string payload(3 << 20, 'p');
  const std::string keys = Keys("big", 1);
  const terrace_part part = PartOf(ns, keys);
  terrace_put_options options{};
  options.struct_bytes = sizeof(options);
  const auto bytes = static_cast<uint32_t>(payload.size());
  options.payload_bytes = &bytes;
  int submitted = 0;
  terrace_status status = TERRACE_OK;
  while (status == TERRACE_OK && submitted < 100) {
    const terrace_call call = CallOf(part);
    status = terrace_submit_put(client_, &call, &options, payload.data(), payload.size(), nullptr);
    submitted += status == TERRACE_OK ? 1 : 0;
  }
  EXPECT_EQ(status, TERRACE_RESOURCE_EXHAUSTED);
  EXPECT_GE(submitted, 4);
  EXPECT_LE(submitted, 8) << "16 MiB of backlog at most";
  server_->Resume();
  for (int i = 0; i < submitted; ++i) {
    EXPECT_EQ(Next()->status, TERRACE_OK);
  }
}

TEST_F(Trouble, MoreCallsThanTheDaemonTakesAreTurnedAway) {
  server_->SetHello([](v1::HelloReply* hello) { hello->set_max_calls_in_flight(3); });
  OpenConnected();
  const terrace_namespace ns = OpenNamespace();
  server_->On(v1::METHOD_PROBE, [](const ScriptedServer::Exchange&) {});
  for (int i = 0; i < 3; ++i) {
    SubmitProbe(ns, Keys("k", 1));
  }
  const std::string keys = Keys("k", 1);
  const terrace_part part = PartOf(ns, keys);
  const terrace_call call = CallOf(part);
  EXPECT_EQ(terrace_submit_probe(client_, &call, 0, 0, nullptr), TERRACE_RESOURCE_EXHAUSTED);
  EXPECT_STREQ(terrace_last_error(), "more than 3 calls in flight");
  EXPECT_EQ(State().calls_in_flight, 3U);
}

}  // namespace
}  // namespace terrace::testing
