// Whatever the daemon sends, the client neither crashes nor hangs nor leaks, and every call
// completes once. TERRACE_FUZZ_ITERATIONS: replies to mutate, 20,000 unless said otherwise.
#include <cstdlib>
#include <random>

#include "client/src/reply.h"
#include "client/src/request.h"
#include "tests/doubles/scripted_store.h"
#include "tests/unit/client/client_case.h"

namespace terrace::testing {
namespace {

uint64_t Iterations() {
  const char* given = std::getenv("TERRACE_FUZZ_ITERATIONS");
  return given == nullptr ? 20'000 : std::strtoull(given, nullptr, 10);
}

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}
  uint64_t Below(uint64_t limit) { return random_() % limit; }

  std::string Mutate(std::string bytes) {
    for (uint64_t edits = 1 + Below(4); edits > 0; --edits) {
      const size_t at = bytes.empty() ? 0 : Below(bytes.size());
      switch (Below(6)) {
        case 0:
          if (!bytes.empty()) {
            bytes[at] = static_cast<char>(Below(256));
          }
          break;
        case 1:
          if (!bytes.empty()) {
            bytes[at] = static_cast<char>(bytes[at] ^ (1 << Below(8)));
          }
          break;
        case 2:
          bytes.insert(at, 1 + Below(9), static_cast<char>(Below(256)));
          break;
        case 3:
          bytes.erase(at, 1 + Below(9));
          break;
        case 4:
          bytes += bytes.substr(at, Below(40));
          break;
        default:
          bytes.resize(at);
      }
    }
    return bytes;
  }

 private:
  std::mt19937_64 random_;
};

v1::GetReply LeaseReply() {
  v1::GetReply reply;
  reply.set_boot_id(7);
  reply.set_outcomes(std::string("\x01\x01\x00", 3));
  for (uint32_t i = 0; i < 3; ++i) {
    reply.add_payload_bytes(i < 2 ? 4096 : 0);
    reply.add_slab_ids(ScriptedStore::kSlabId);
    reply.add_slab_offsets(4096 * i);
  }
  reply.set_lease_id("0123456789abcdef");
  return reply;
}

v1::ProbeReply HitReply() {
  v1::ProbeReply reply;
  reply.set_states(std::string("\x01\x01\x00", 3));
  reply.add_part_hits(2);
  reply.add_part_boundary_keys(2);
  reply.set_boundary_tokens(32);
  reply.set_load_us(1000);
  reply.set_recompute_us(9000);
  reply.set_worth_tokens(16);
  reply.set_hold_id("0123456789abcdef");
  return reply;
}

v1::PutReply StoredReply() {
  v1::PutReply reply;
  reply.set_outcomes(std::string("\x01\x02\x03", 3));
  reply.set_reasons(std::string("\x00\x00\x01", 3));
  reply.set_levels(std::string("\x02\x02\x00", 3));
  return reply;
}

// Every decoder on mutations of every reply: ASan watches the reads, the asserts the bounds.
TEST(Garbage, DecodersSurviveMutatedMessages) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Mutator mutator(seed);
  v1::HelloReply hello;
  hello.set_boot_id(1);
  hello.add_features(v1::FEATURE_LEASES);
  hello.set_max_keys(5);
  v1::ErrorDetail error;
  error.set_message("message");
  error.set_field("field");
  const std::string seeds[] = {LeaseReply().SerializeAsString(), HitReply().SerializeAsString(),
                               StoredReply().SerializeAsString(), hello.SerializeAsString(),
                               error.SerializeAsString()};
  const terrace_verb verbs[] = {
      TERRACE_VERB_PROBE,   TERRACE_VERB_PREFETCH,       TERRACE_VERB_TICKET, TERRACE_VERB_PUT,
      TERRACE_VERB_RELEASE, TERRACE_VERB_DELETE,         TERRACE_VERB_PIN,    TERRACE_VERB_UNPIN,
      TERRACE_VERB_CANCEL,  TERRACE_VERB_CLEAR_NAMESPACE};
  const uint64_t rounds = Iterations();
  uint64_t accepted = 0;
  for (uint64_t i = 0; i < rounds; ++i) {
    const std::string message = mutator.Mutate(seeds[mutator.Below(std::size(seeds))]);
    for (const terrace_verb verb : verbs) {
      const auto completion = client::Completion::Create(verb, 3, 1);
      accepted += client::DecodeInto(message, completion.get()) ? 1 : 0;
    }
    client::GetReply get;
    if (client::DecodeGet(message, 3, &get)) {
      ++accepted;
      ASSERT_EQ(get.outcomes.size(), 3U);
    }
    client::HelloReply greeted;
    client::DecodeHello(message, &greeted);
    client::ErrorDetail detail;
    client::DecodeError(message, &detail);
    std::string_view digest;
    if (client::DecodeOpenNamespace(message, &digest)) {
      ASSERT_EQ(digest.size(), 16U);
    }
    const std::string_view lease = client::LeaseOf(message);
    ASSERT_TRUE(lease.empty() || lease.size() == 16);
  }
  EXPECT_GT(accepted, 0U) << "some mutations leave a message that can be read";
}

class GarbageSession : public ClientCase {
 protected:
  // A reply to `exchange`, with its frame or its message mutated.
  void Answer(const ScriptedServer::Exchange& exchange,
              const google::protobuf::MessageLite& reply) {
    WireHeader header;
    header.method = exchange.header.method;
    header.kind = 2;
    header.call_id = exchange.header.call_id;
    if (mutator_.Below(10) > 0) {
      exchange.Frame(header, mutator_.Mutate(reply.SerializeAsString()));
      exchange.Frame(header, reply.SerializeAsString());  // should the first have been dropped
      return;
    }
    const std::string message = reply.SerializeAsString();
    header.payload_bytes = static_cast<uint32_t>(message.size());
    exchange.Raw(mutator_.Mutate(EncodeWireHeader(header) + message));
    exchange.Disconnect();
  }
  Mutator mutator_{std::random_device{}()};
};

TEST_F(GarbageSession, EveryCallCompletesOnceWhateverComes) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  mutator_ = Mutator(seed);
  Mutator choices(seed + 1);
  client_ = Open(/*reconnect_ms=*/1);
  ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
  const terrace_namespace ns = OpenNamespace();
  const std::string keys = Keys("k", 3);
  ASSERT_EQ(Probe(ns, keys)->status, TERRACE_OK);
  server_->On(v1::METHOD_GET, [&](const auto& exchange) { Answer(exchange, LeaseReply()); });
  server_->On(v1::METHOD_PROBE, [&](const auto& exchange) { Answer(exchange, HitReply()); });
  server_->On(v1::METHOD_PUT, [&](const auto& exchange) { Answer(exchange, StoredReply()); });

  const uint64_t rounds = (Iterations() + 3) / 4;  // each costs a round trip, many a new session
  uint64_t served = 0;
  uint64_t lost = 0;
  while (served + lost < rounds) {
    if (State().connection != TERRACE_CONNECTION_UP) {
      ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
    }
    const uint64_t choice = choices.Below(3);
    const uint64_t id = choice == 0   ? SubmitLeaseGet(ns, keys)
                        : choice == 1 ? SubmitProbe(ns, keys)
                                      : SubmitPut(ns, keys, std::string(3, 'p'));
    const Completed completion = Next();
    ASSERT_NE(completion, nullptr);
    ASSERT_EQ(completion->call_id, id);
    ASSERT_EQ(completion->key_count, 3U);
    (completion->status == TERRACE_UNAVAILABLE ? lost : served) += 1;
    if (choice != 0) {
      continue;
    }
    for (uint32_t k = 0; k < 3; ++k) {
      ASSERT_EQ(completion->outcomes[k] == TERRACE_GET_OK, completion->data[k] != nullptr);
      if (completion->data[k] != nullptr && completion->payload_bytes[k] > 0) {
        const volatile char* bytes = static_cast<const char*>(completion->data[k]);
        (void)bytes[0];
        (void)bytes[completion->payload_bytes[k] - 1];
      }
    }
    Release(completion->lease);
  }
  EXPECT_GT(served, 0U);
  EXPECT_GT(lost, 0U);
  EXPECT_EQ(State().leased_bytes, 0U);
  EXPECT_EQ(State().calls_in_flight, 0U);
}

class GarbageFrames : public ClientCase {
 protected:
  void SetUp() override {
    ClientCase::SetUp();
    OpenConnected();
    ns_ = OpenNamespace();
    ASSERT_EQ(Probe(ns_, keys_)->status, TERRACE_OK);
  }
  // Sends what `script` does in answer to a probe: the session must end, and the next one serve.
  void ExpectEndOfSession(const ScriptedServer::Script& script) {
    server_->On(v1::METHOD_PROBE, script);
    EXPECT_EQ(Probe(ns_, keys_)->status, TERRACE_UNAVAILABLE);
    server_->On(v1::METHOD_PROBE, nullptr);
    EXPECT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
    EXPECT_EQ(Probe(ns_, keys_)->status, TERRACE_OK);
  }
  terrace_namespace ns_ = 0;
  const std::string keys_ = Keys("k", 3);
};

TEST_F(GarbageFrames, AnswersThatDoNotFitTheCallEndTheSession) {
  v1::ProbeReply reply = HitReply();
  reply.set_states("\x01\x01");
  ExpectEndOfSession([&](const auto& exchange) { exchange.Reply(reply); });
  reply = HitReply();
  reply.add_part_hits(1);
  ExpectEndOfSession([&](const auto& exchange) { exchange.Reply(reply); });
  reply = HitReply();
  reply.set_hold_id("short");
  ExpectEndOfSession([&](const auto& exchange) { exchange.Reply(reply); });
}

TEST_F(GarbageFrames, HeadersThatBreakARuleEndTheSession) {
  ExpectEndOfSession([](const auto& exchange) { exchange.Raw(std::string(24, '\xff')); });
  ExpectEndOfSession([](const auto& exchange) {
    WireHeader header;
    header.method = v1::METHOD_GET;  // another method than the call's
    header.kind = 2;
    header.call_id = exchange.header.call_id;
    exchange.Frame(header, HitReply().SerializeAsString());
  });
  ExpectEndOfSession([](const auto& exchange) {
    WireHeader header;
    header.payload_bytes = (4U << 20) + 1;
    header.method = exchange.header.method;
    header.kind = 2;
    header.call_id = exchange.header.call_id;
    exchange.Raw(EncodeWireHeader(header));
  });
}

TEST_F(GarbageFrames, DescriptorsThatNobodyAskedForAreClosed) {
  const size_t before = OpenDescriptors();
  ExpectEndOfSession([](const auto& exchange) { exchange.Reply(HitReply(), STDIN_FILENO); });
  ExpectEndOfSession([](const auto& exchange) {
    WireHeader header;
    header.method = v1::METHOD_DRAIN_NOTICE;
    header.kind = 3;
    exchange.Frame(header, "", {STDIN_FILENO, STDIN_FILENO});
  });
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(GarbageFrames, MoreDescriptorsThanAFrameMayHaveEndTheSession) {
  const size_t before = OpenDescriptors();
  ExpectEndOfSession([](const auto& exchange) {
    WireHeader header;
    header.method = v1::METHOD_DRAIN_NOTICE;
    header.kind = 3;
    exchange.Frame(header, "", std::vector<int>(40, STDIN_FILENO));
  });
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(GarbageFrames, AFrameThatIsCutShortEndsWithItsSession) {
  ExpectEndOfSession([](const auto& exchange) {
    WireHeader header;
    header.payload_bytes = 100;
    header.method = exchange.header.method;
    header.kind = 2;
    header.call_id = exchange.header.call_id;
    exchange.Raw(EncodeWireHeader(header) + "not a hundred bytes");
    exchange.Disconnect();
  });
}

TEST_F(GarbageFrames, AFrameInPiecesIsPutTogether) {
  server_->On(v1::METHOD_PROBE, [](const auto& exchange) {
    const std::string message = HitReply().SerializeAsString();
    WireHeader header;
    header.payload_bytes = static_cast<uint32_t>(message.size());
    header.method = exchange.header.method;
    header.kind = 2;
    header.call_id = exchange.header.call_id;
    for (const char byte : EncodeWireHeader(header) + message) {
      exchange.Raw(std::string_view(&byte, 1));
    }
  });
  EXPECT_EQ(Probe(ns_, keys_)->status, TERRACE_OK);
}

TEST_F(GarbageFrames, PushesOfANewerDaemonAreSkipped) {
  server_->On(v1::METHOD_PROBE, [&](const auto& exchange) {
    WireHeader header;
    header.method = 999;
    header.kind = 3;
    exchange.Frame(header, "whatever");
    server_->Answer(exchange);
  });
  EXPECT_EQ(Probe(ns_, keys_)->status, TERRACE_OK);
}

TEST_F(GarbageFrames, AStrayReplyIsDropped) {
  server_->On(v1::METHOD_PROBE, [&](const auto& exchange) {
    WireHeader header;
    header.method = v1::METHOD_GET;
    header.kind = 2;
    header.call_id = 0x7fffffffffff;
    exchange.Frame(header, LeaseReply().SerializeAsString());
    server_->Answer(exchange);
  });
  EXPECT_EQ(Probe(ns_, keys_)->status, TERRACE_OK);
  EXPECT_TRUE(Advance([&] { return server_->Seen(v1::METHOD_RELEASE) == 1; }))
      << "its lease belongs to nobody";
}

TEST_F(GarbageFrames, LargeRepliesAreReceivedWhole) {
  const std::string keys = Keys("many", 16384, 16);
  terrace_part part = PartOf(ns_, keys, 16);
  const terrace_call call = CallOf(part);
  server_->On(v1::METHOD_PROBE, [](const auto& exchange) {
    v1::ProbeReply reply;
    reply.set_states(std::string(16384, '\x01'));
    exchange.Reply(reply);
  });
  ASSERT_EQ(terrace_submit_probe(client_, &call, 0, 0, nullptr), TERRACE_OK)
      << terrace_last_error();
  const Completed probe = Next();
  ASSERT_EQ(probe->status, TERRACE_OK);
  EXPECT_EQ(probe->states[16383], TERRACE_KEY_READY);

  const terrace_get_options options = Delivery(TERRACE_DELIVER_LEASE);
  server_->On(v1::METHOD_GET, [](const auto& exchange) {
    v1::GetReply reply;
    reply.set_outcomes(std::string(16384, '\x01'));
    for (int i = 0; i < 16384; ++i) {
      reply.add_payload_bytes(1);
      reply.add_slab_ids(ScriptedStore::kSlabId);
      reply.add_slab_offsets(static_cast<uint64_t>(i));
    }
    reply.set_lease_id("0123456789abcdef");
    exchange.Reply(reply);
  });
  ASSERT_EQ(terrace_submit_get(client_, &call, &options, nullptr), TERRACE_OK);
  const Completed get = Next();
  ASSERT_EQ(get->status, TERRACE_OK);
  EXPECT_EQ(static_cast<const char*>(get->data[16383]) - static_cast<const char*>(get->data[0]),
            16383);
  Release(get->lease);
}

}  // namespace
}  // namespace terrace::testing
