// What every verb asks for and brings back.
#include "tests/unit/client/client_case.h"

namespace terrace::testing {
namespace {

class Calls : public ClientCase {
 protected:
  void SetUp() override {
    ClientCase::SetUp();
    OpenConnected();
    ns_ = OpenNamespace();
  }
  terrace_namespace ns_ = 0;
};

TEST_F(Calls, PutBlocksAreProbedAndLeasedByteForByte) {
  const std::string keys = Keys("chain", 3);
  std::string payload(3 * kBlockBytes, '\0');
  for (size_t i = 0; i < payload.size(); ++i) {
    payload[i] = static_cast<char>(i * 7 + i / kBlockBytes);
  }
  const Completed put = Put(ns_, keys, payload);
  ASSERT_EQ(put->status, TERRACE_OK) << put->error;
  ASSERT_EQ(put->key_count, 3U);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(put->outcomes[i], TERRACE_PUT_STORED);
    EXPECT_EQ(put->reasons[i], TERRACE_REASON_NONE);
    EXPECT_EQ(put->levels[i], TERRACE_LEVEL_DRAM);
  }

  const Completed probe = Probe(ns_, keys + Keys("other", 1));
  ASSERT_EQ(probe->status, TERRACE_OK) << probe->error;
  ASSERT_EQ(probe->key_count, 4U);
  EXPECT_EQ(probe->states[2], TERRACE_KEY_READY);
  EXPECT_EQ(probe->states[3], TERRACE_KEY_MISS);
  ASSERT_EQ(probe->part_count, 1U);
  EXPECT_EQ(probe->part_hits[0], 3U);
  EXPECT_EQ(probe->part_boundary_keys[0], 3U);
  EXPECT_EQ(probe->boundary_tokens, 48U);

  const Completed get = LeaseGet(ns_, keys);
  ASSERT_EQ(get->status, TERRACE_OK) << get->error;
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(get->outcomes[i], TERRACE_GET_OK);
    ASSERT_EQ(get->payload_bytes[i], kBlockBytes);
    EXPECT_EQ(std::memcmp(get->data[i], payload.data() + i * kBlockBytes, kBlockBytes), 0);
  }
  EXPECT_EQ(State().leased_bytes, 3 * kBlockBytes);
  EXPECT_EQ(Release(get->lease), TERRACE_OK);
}

TEST_F(Calls, CompletionsCarryTheirTagAndCallId) {
  const std::string keys = Keys("k", 1);
  const uint64_t first = SubmitProbe(ns_, keys);
  const uint64_t second = SubmitProbe(ns_, keys);
  EXPECT_NE(first, second);
  const Completed one = Next();
  const Completed two = Next();
  EXPECT_EQ(one->call_id, first);
  EXPECT_EQ(one->tag, 1U);
  EXPECT_EQ(two->call_id, second);
  EXPECT_EQ(two->tag, 2U);
  EXPECT_EQ(two->verb, TERRACE_VERB_PROBE);
  EXPECT_EQ(Peek(), nullptr);
}

TEST_F(Calls, RepliesInAnotherOrderReachTheirCalls) {
  std::vector<ScriptedServer::Exchange> kept;
  server_->On(v1::METHOD_PROBE, [&](const ScriptedServer::Exchange& exchange) {
    kept.push_back(exchange);
    if (kept.size() == 3) {
      server_->Answer(kept[2]);
      server_->Answer(kept[0]);
      server_->Answer(kept[1]);
    }
  });
  const uint64_t first = SubmitProbe(ns_, Keys("a", 1));
  const uint64_t second = SubmitProbe(ns_, Keys("a", 2));
  const uint64_t third = SubmitProbe(ns_, Keys("a", 3));
  const uint64_t order[] = {third, first, second};
  const uint32_t keys[] = {3, 1, 2};
  for (int i = 0; i < 3; ++i) {
    const Completed probe = Next();
    EXPECT_EQ(probe->call_id, order[i]);
    EXPECT_EQ(probe->key_count, keys[i]);
    EXPECT_EQ(probe->status, TERRACE_OK);
  }
}

TEST_F(Calls, AProbeSaysHowFarLoadingIsWorthIt) {
  v1::ProbeReply reply;
  reply.set_states(std::string("\x01\x03", 2));
  reply.set_boundary_tokens(32);
  const auto probe = [&] {
    server_->On(v1::METHOD_PROBE, [&reply](const auto& exchange) { exchange.Reply(reply); });
    return Probe(ns_, Keys("k", 2));
  };
  EXPECT_EQ(probe()->worth_tokens, 32U) << "a daemon that does not say";
  reply.set_recompute_us(1'000);
  EXPECT_EQ(probe()->worth_tokens, 0U);
  reply.set_worth_tokens(16);
  const Completed worth = probe();
  EXPECT_EQ(worth->recompute_us, 1'000U);
  EXPECT_EQ(worth->worth_tokens, 16U);
  reply.set_worth_tokens(48);
  EXPECT_EQ(probe()->worth_tokens, 32U) << "never beyond what can be had";
}

TEST_F(Calls, AProbeAsksForAHoldAndGetsIt) {
  const std::string keys = Keys("k", 1);
  Put(ns_, keys, std::string(kBlockBytes, 'x'));
  const terrace_part part = PartOf(ns_, keys);
  terrace_call call = CallOf(part);
  call.request_id = "request";
  call.request_id_bytes = 7;
  ASSERT_EQ(terrace_submit_probe(client_, &call, 5000, 1, nullptr), TERRACE_OK);
  const Completed probe = Next();
  EXPECT_EQ(std::memcmp(probe->hold.bytes, "hold-of-16-bytes", 16), 0);
  EXPECT_EQ(probe->hold_ms, 5000U);
  v1::ProbeRequest sent;
  ASSERT_TRUE(sent.ParseFromString(server_->LastMessage(v1::METHOD_PROBE)));
  EXPECT_EQ(sent.request_id(), "request");
  EXPECT_EQ(sent.hold_ms(), 5000U);
  EXPECT_TRUE(sent.prefetch());

  terrace_get_options options = Delivery(TERRACE_DELIVER_LEASE);
  options.hold = probe->hold;
  options.wait_pending = 1;
  ASSERT_EQ(terrace_submit_get(client_, &call, &options, nullptr), TERRACE_OK);
  const Completed get = Next();
  v1::GetRequest asked;
  ASSERT_TRUE(asked.ParseFromString(server_->LastMessage(v1::METHOD_GET)));
  EXPECT_EQ(asked.hold_id(), "hold-of-16-bytes");
  EXPECT_EQ(asked.wait_pending(), 1U);

  ASSERT_EQ(terrace_submit_release(client_, &get->lease, 1, &probe->hold, 1, 77, nullptr),
            TERRACE_OK);
  const Completed release = Next();
  EXPECT_EQ(release->verb, TERRACE_VERB_RELEASE);
  EXPECT_EQ(release->tag, 77U);
  EXPECT_EQ(release->count, 2U);
  EXPECT_EQ(server_->live_leases(), 0U);
}

TEST_F(Calls, PutOptionsReachTheDaemon) {
  const std::string keys = Keys("k", 2);
  terrace_part part = PartOf(ns_, keys);
  part.salt = "salt";
  part.salt_bytes = 4;
  part.first_token = 32;
  const uint32_t ends[] = {40, 48};
  part.end_tokens = ends;
  const terrace_call call = CallOf(part, 5000);
  const uint32_t sizes[] = {100, 200};
  terrace_put_options options{};
  options.struct_bytes = sizeof(options);
  options.payload_bytes = sizes;
  options.parent = keys.data();
  options.parent_bytes = 32;
  options.wait_for = TERRACE_LEVEL_LOCAL_WRITTEN;
  options.output_tokens = 12;
  options.stop_reason = "stop";
  options.session_end = 1;
  options.expected_return_ms = 900;
  options.compute_us = uint64_t{1} << 33;
  const std::string payload(300, 'p');
  ASSERT_EQ(terrace_submit_put(client_, &call, &options, payload.data(), payload.size(), nullptr),
            TERRACE_OK);
  ASSERT_EQ(Next()->status, TERRACE_OK);
  v1::PutRequest sent;
  ASSERT_TRUE(sent.ParseFromString(server_->LastMessage(v1::METHOD_PUT)));
  EXPECT_EQ(sent.part().salt(), "salt");
  EXPECT_EQ(sent.part().first_token(), 32U);
  EXPECT_EQ(sent.part().keys(), keys);
  ASSERT_EQ(sent.part().end_tokens_size(), 2);
  EXPECT_EQ(sent.part().end_tokens(1), 48U);
  EXPECT_EQ(sent.parent(), keys.substr(0, 32));
  ASSERT_EQ(sent.payload_bytes_size(), 2);
  EXPECT_EQ(sent.payload_bytes(1), 200U);
  EXPECT_EQ(sent.payload(), payload);
  EXPECT_EQ(sent.wait_for(), v1::LEVEL_LOCAL_WRITTEN);
  EXPECT_EQ(sent.hints().output_tokens(), 12U);
  EXPECT_EQ(sent.hints().stop_reason(), "stop");
  EXPECT_TRUE(sent.hints().session_end());
  EXPECT_EQ(sent.hints().expected_return_ms(), 900U);
  EXPECT_EQ(sent.hints().compute_us(), uint64_t{1} << 33);
  const uint32_t given = server_->LastDeadlineMs(v1::METHOD_PUT);
  EXPECT_GT(given, 0U);
  EXPECT_LT(given, 5000U) << "the daemon has to answer before the caller's deadline";
}

TEST_F(Calls, PrefetchTicketAndCancelAreAnswered) {
  server_->On(v1::METHOD_PREFETCH, [](const ScriptedServer::Exchange& exchange) {
    const auto request = exchange.As<v1::PrefetchRequest>();
    EXPECT_EQ(request.priority(), v1::PRIORITY_HIGH);
    EXPECT_EQ(request.hold_ms(), 700U);
    EXPECT_EQ(request.deadline_ms(), 9000U);
    v1::PrefetchReply reply;
    reply.set_ticket(42);
    reply.set_keys_moving(2);
    reply.set_keys_ready(1);
    reply.set_keys_missing(3);
    reply.set_hold_id("0123456789abcdef");
    exchange.Reply(reply);
  });
  server_->On(v1::METHOD_TICKET, [](const ScriptedServer::Exchange& exchange) {
    EXPECT_EQ(exchange.As<v1::TicketRequest>().ticket(), 42U);
    EXPECT_EQ(exchange.As<v1::TicketRequest>().wait_ms(), 50U);
    v1::TicketReply reply;
    reply.set_state(v1::TICKET_STATE_DONE);
    reply.set_keys_total(6);
    reply.set_keys_arrived(5);
    reply.set_keys_failed(1);
    reply.set_bytes_arrived(1 << 20);
    exchange.Reply(reply);
  });
  server_->On(v1::METHOD_CANCEL, [](const ScriptedServer::Exchange& exchange) {
    EXPECT_EQ(exchange.As<v1::CancelRequest>().ticket(), 42U);
    v1::CancelReply reply;
    reply.set_found(true);
    exchange.Reply(reply);
  });
  const std::string keys = Keys("k", 6);
  const terrace_part part = PartOf(ns_, keys);
  const terrace_call call = CallOf(part, 9000);
  ASSERT_EQ(terrace_submit_prefetch(client_, &call, TERRACE_PRIORITY_HIGH, 700, nullptr),
            TERRACE_OK);
  const Completed prefetch = Next();
  ASSERT_EQ(prefetch->status, TERRACE_OK) << prefetch->error;
  EXPECT_EQ(prefetch->ticket, 42U);
  EXPECT_EQ(prefetch->keys_total, 6U);
  EXPECT_EQ(prefetch->keys_arrived, 1U);
  EXPECT_EQ(prefetch->keys_failed, 3U);
  EXPECT_EQ(std::memcmp(prefetch->hold.bytes, "0123456789abcdef", 16), 0);
  ASSERT_EQ(terrace_submit_ticket(client_, 42, 50, 5, nullptr), TERRACE_OK);
  const Completed ticket = Next();
  EXPECT_EQ(ticket->ticket_state, 2U);
  EXPECT_EQ(ticket->keys_arrived, 5U);
  EXPECT_EQ(ticket->bytes_arrived, 1U << 20);
  ASSERT_EQ(terrace_submit_cancel(client_, 0, 42, 6, nullptr), TERRACE_OK);
  EXPECT_EQ(Next()->count, 1U);
}

TEST_F(Calls, DeletePinUnpinAndClearAreAnswered) {
  server_->On(v1::METHOD_PIN, [](const ScriptedServer::Exchange& exchange) {
    EXPECT_EQ(exchange.As<v1::PinRequest>().ttl_s(), 60U);
    v1::PinReply reply;
    reply.set_reasons(std::string("\x00\x0b", 2));
    exchange.Reply(reply);
  });
  server_->On(v1::METHOD_UNPIN, [](const ScriptedServer::Exchange& exchange) {
    v1::UnpinReply reply;
    reply.set_unpinned(1);
    exchange.Reply(reply);
  });
  server_->On(v1::METHOD_CLEAR_NAMESPACE, [](const ScriptedServer::Exchange& exchange) {
    EXPECT_EQ(exchange.As<v1::ClearNamespaceRequest>().namespace_digest().size(), 16U);
    v1::ClearNamespaceReply reply;
    reply.set_generation(9);
    exchange.Reply(reply);
  });
  const std::string keys = Keys("k", 2);
  Put(ns_, keys, std::string(2 * kBlockBytes, 'x'));
  const terrace_part part = PartOf(ns_, keys);
  const terrace_call call = CallOf(part);
  ASSERT_EQ(terrace_submit_pin(client_, &call, 60, nullptr), TERRACE_OK);
  const Completed pin = Next();
  EXPECT_EQ(pin->reasons[0], TERRACE_REASON_NONE);
  EXPECT_EQ(pin->reasons[1], TERRACE_REASON_NOT_PRESENT);
  ASSERT_EQ(terrace_submit_unpin(client_, &call, nullptr), TERRACE_OK);
  EXPECT_EQ(Next()->count, 1U);
  ASSERT_EQ(terrace_submit_delete(client_, &call, nullptr), TERRACE_OK);
  EXPECT_EQ(Next()->count, 2U);
  ASSERT_EQ(terrace_submit_clear_namespace(client_, ns_, 0, 3, nullptr), TERRACE_OK);
  EXPECT_EQ(Next()->generation, 9U);
}

TEST_F(Calls, ARefusalNamesFieldAndLimitAndEveryKeyIsAMiss) {
  server_->On(v1::METHOD_GET, [](const ScriptedServer::Exchange& exchange) {
    exchange.Refuse(3, "parts: more than 64");
  });
  const Completed get = LeaseGet(ns_, Keys("k", 4));
  EXPECT_EQ(get->status, TERRACE_INVALID_ARGUMENT);
  EXPECT_STREQ(get->error, "parts: more than 64");
  ASSERT_EQ(get->key_count, 4U);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(get->outcomes[i], TERRACE_GET_MISS);
    EXPECT_EQ(get->data[i], nullptr);
  }
}

TEST_F(Calls, AFeatureThatTheDaemonLacksIsNotSent) {
  server_->SetHello([](v1::HelloReply* hello) { hello->clear_features(); });
  server_->DropConnections();
  ASSERT_TRUE(Advance([&] { return State().reconnects == 1; }));
  const Completed get = LeaseGet(ns_, Keys("k", 1));
  EXPECT_EQ(get->status, TERRACE_UNIMPLEMENTED);
  EXPECT_EQ(server_->Seen(v1::METHOD_GET), 0U);
  EXPECT_EQ(Probe(ns_, Keys("k", 1))->status, TERRACE_OK) << "needs no feature";
}

TEST_F(Calls, HelloCarriesTheNameAndTheProcess) {
  EXPECT_EQ(server_->last_client_name(), "libterrace");
  EXPECT_TRUE(server_->last_hello_had_own_pidfd());
  const terrace_client_state state = State();
  EXPECT_EQ(state.connection, TERRACE_CONNECTION_UP);
  EXPECT_EQ(state.boot_id, server_->boot_id());
  EXPECT_EQ(state.leases_allowed, 1);
  EXPECT_EQ(state.lease_limit_bytes, 1U << 20);
  EXPECT_EQ(state.reconnects, 0U);
  EXPECT_NE(state.features & (1U << v1::FEATURE_LEASES), 0U);
}

TEST_F(Calls, OutcomesOfANewerDaemonReadAsMissOrFailure) {
  const std::string keys = Keys("k", 2);
  server_->On(v1::METHOD_PUT, [](const ScriptedServer::Exchange& exchange) {
    v1::PutReply reply;
    reply.set_outcomes(std::string("\x01\x63", 2));
    reply.set_reasons(std::string("\x00\x63", 2));
    reply.set_levels(std::string("\x02\x63", 2));
    exchange.Reply(reply);
  });
  const Completed put = Put(ns_, keys, std::string(2 * kBlockBytes, 'x'));
  EXPECT_EQ(put->outcomes[0], TERRACE_PUT_STORED);
  EXPECT_EQ(put->outcomes[1], TERRACE_PUT_FAILED);
  EXPECT_EQ(put->levels[1], 0);
  server_->On(v1::METHOD_PROBE, [](const ScriptedServer::Exchange& exchange) {
    v1::ProbeReply reply;
    reply.set_states(std::string("\x11\x1e", 2));
    exchange.Reply(reply);
  });
  const Completed probe = Probe(ns_, keys);
  EXPECT_EQ(probe->states[0], 0x11) << "tier 1, ready";
  EXPECT_EQ(probe->states[1], TERRACE_KEY_MISS);
}

}  // namespace
}  // namespace terrace::testing
