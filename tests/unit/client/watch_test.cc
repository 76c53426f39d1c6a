// A watch against a scripted daemon: order, resumption, gaps, silence, garbage, and ends of both
// sides.
#include "terrace/watch.hpp"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/client/client_case.h"

namespace terrace::testing {
namespace {

constexpr uint64_t kPublisher = 0x1122334455667788;
const std::string kDigest(16, 'n');

v1::Event EventOf(v1::EventKind kind, uint64_t sequence, const std::string& keys = "") {
  v1::Event event;
  event.set_kind(kind);
  event.set_sequence(sequence);
  if (!keys.empty()) {
    event.set_namespace_digest(kDigest);
    event.set_key_bytes(32);
    event.set_keys(keys);
    event.set_tier("g2");
  }
  return event;
}

// What a test looks at of an event; keys by their first bytes.
struct Seen {
  int kind = 0;
  uint64_t sequence = 0;
  std::string keys;
  std::string tier;
};

class WatchTest : public ClientCase {
 protected:
  void SetUp() override {
    ClientCase::SetUp();
    server_->SetHello([](v1::HelloReply* hello) { hello->add_features(v1::FEATURE_WATCH); });
    server_->On(v1::METHOD_WATCH,
                [this](const ScriptedServer::Exchange& exchange) { Subscribed(exchange); });
  }
  void TearDown() override {
    server_->Stop();
    terrace_watch_close(watch_);
    ClientCase::TearDown();
  }

  void Subscribed(const ScriptedServer::Exchange& exchange) {
    requests_.push_back(exchange.As<v1::WatchRequest>());
    exchange.Reply(v1::WatchReply());
    if (script_) {
      script_(exchange);
    }
  }
  static void Tell(const ScriptedServer::Exchange& exchange,
                   const std::vector<v1::Event>& events,
                   uint64_t publisher = kPublisher) {
    v1::WatchReply told;
    told.set_publisher_id(publisher);
    told.set_call_id(exchange.header.call_id);
    for (const v1::Event& event : events) {
      *told.add_events() = event;
    }
    exchange.Push(v1::METHOD_WATCH, told);
  }

  terrace_watch_options Options() {
    terrace_watch_options options{};
    options.struct_bytes = sizeof(options);
    options.runtime_dir = folder_.path().c_str();
    options.reconnect_ms = 20;
    return options;
  }
  void OpenWatch(const terrace_watch_options& options) {
    ASSERT_EQ(terrace_watch_open(&options, &watch_), TERRACE_OK) << terrace_last_error();
  }
  void OpenWatch(int32_t snapshots) {
    terrace_watch_options options = Options();
    options.snapshots = snapshots;
    OpenWatch(options);
  }

  // Up to the next of this kind; what came together with it and behind it is for the next time.
  std::vector<Seen> Until(int kind) {
    std::vector<Seen> seen;
    const bool came = ScriptedServer::Eventually([&] {
      while (!waiting_.empty()) {
        seen.push_back(waiting_.front());
        waiting_.pop_front();
        if (seen.back().kind == kind) {
          return true;
        }
      }
      const terrace_event* events = nullptr;
      const uint32_t count = terrace_watch_next(watch_, &events, 10);
      for (uint32_t i = 0; i < count; ++i) {
        const auto* keys = static_cast<const char*>(events[i].keys);
        waiting_.push_back({int{events[i].kind}, events[i].sequence,
                            keys == nullptr ? "" : std::string(keys, 3), events[i].tier});
      }
      return false;
    });
    EXPECT_TRUE(came) << "not among " << seen.size();
    return seen;
  }
  static std::vector<int> KindsOf(const std::vector<Seen>& seen) {
    std::vector<int> kinds;
    for (const Seen& one : seen) {
      kinds.push_back(one.kind);
    }
    return kinds;
  }
  terrace_watch_state State() {
    terrace_watch_state state{};
    state.struct_bytes = sizeof(state);
    EXPECT_EQ(terrace_watch_get_state(watch_, &state), TERRACE_OK);
    return state;
  }

  std::vector<v1::WatchRequest> requests_;  // of the server's thread, read when it has answered
  std::function<void(const ScriptedServer::Exchange&)> script_;
  terrace_watch* watch_ = nullptr;
  std::deque<Seen> waiting_;
};

using Kinds = std::vector<int>;

TEST_F(WatchTest, ASnapshotComesFirstAndThenWhatChanges) {
  script_ = [](const ScriptedServer::Exchange& exchange) {
    v1::Event stored = EventOf(v1::EVENT_KIND_STORED, 7, Keys("abc", 3));
    stored.set_parent(Keys("top", 1));
    stored.set_salt("salt");
    stored.set_first_token(48);
    stored.set_block_tokens(16);
    Tell(exchange, {stored, EventOf(v1::EVENT_KIND_SNAPSHOT_END, 7)});
    Tell(exchange, {EventOf(v1::EVENT_KIND_HEARTBEAT, 9)});
    Tell(exchange, {EventOf(v1::EVENT_KIND_REMOVED, 10, Keys("xyz", 1))});
  };
  OpenWatch(1);
  const std::vector<Seen> seen = Until(TERRACE_EVENT_REMOVED);
  EXPECT_EQ(KindsOf(seen),
            (Kinds{TERRACE_EVENT_UP, TERRACE_EVENT_SNAPSHOT_BEGIN, TERRACE_EVENT_STORED,
                   TERRACE_EVENT_SNAPSHOT_END, TERRACE_EVENT_REMOVED}));
  EXPECT_EQ(seen[2].keys, "abc");
  EXPECT_EQ(seen[2].tier, "g2");
  EXPECT_EQ(seen[4].sequence, 10U);
  EXPECT_TRUE(requests_.at(0).snapshot());
  EXPECT_EQ(requests_.at(0).heartbeat_ms(), 1000U);
  const terrace_watch_state state = State();
  EXPECT_EQ(state.connection, TERRACE_CONNECTION_UP);
  EXPECT_EQ(state.publisher_id, kPublisher);
  EXPECT_EQ(state.sequence, 10U);
  EXPECT_EQ(state.complete, 1);
  EXPECT_STREQ(state.error, "");
}

TEST_F(WatchTest, EveryFieldOfAnEventIsHandedOut) {
  script_ = [](const ScriptedServer::Exchange& exchange) {
    v1::Event stored = EventOf(v1::EVENT_KIND_STORED, 7, Keys("abc", 3));
    stored.set_parent(Keys("top", 1));
    stored.set_salt("salt");
    stored.set_first_token(48);
    stored.set_block_tokens(16);
    v1::WatchReply told;
    told.set_publisher_id(kPublisher);
    told.set_call_id(exchange.header.call_id);
    v1::WatchedNamespace* named = told.add_namespaces();
    named->set_namespace_digest(kDigest);
    named->set_family_digest(std::string(16, 'f'));
    named->mutable_record()->set_model("llama");
    named->mutable_record()->set_block_bytes(uint64_t{5} << 32);
    named->mutable_record()->set_key_suffix(std::string("a\0b", 3));
    (*named->mutable_record()->mutable_labels())["team"] = "search";
    *told.add_events() = stored;
    exchange.Push(v1::METHOD_WATCH, told);
  };
  OpenWatch(0);
  bool named = false;
  bool stored = false;
  ASSERT_TRUE(ScriptedServer::Eventually([&] {
    const terrace_event* events = nullptr;
    const uint32_t count = terrace_watch_next(watch_, &events, 10);
    for (uint32_t i = 0; i < count; ++i) {
      const terrace_event& event = events[i];
      if (event.kind == TERRACE_EVENT_NAMESPACE) {
        named = true;
        EXPECT_FALSE(stored);
        EXPECT_EQ(std::memcmp(event.ns.bytes, kDigest.data(), 16), 0);
        EXPECT_EQ(event.family.bytes[15], 'f');
        EXPECT_STREQ(event.record->model, "llama");
        EXPECT_STREQ(event.record->layout, "");
        EXPECT_EQ(event.record->block_bytes, uint64_t{5} << 32);
        EXPECT_EQ(std::string(reinterpret_cast<const char*>(event.record->key_suffix),
                              event.record->key_suffix_bytes),
                  std::string("a\0b", 3));
        EXPECT_EQ(event.record->label_count, 1U);
        EXPECT_STREQ(event.record->labels[0].value, "search");
      } else if (event.kind == TERRACE_EVENT_STORED) {
        stored = true;
        EXPECT_EQ(event.key_count, 3U);
        EXPECT_EQ(event.key_bytes, 32U);
        EXPECT_EQ(std::string(static_cast<const char*>(event.keys), size_t{3} * 32),
                  Keys("abc", 3));
        EXPECT_EQ(std::string(static_cast<const char*>(event.parent), event.parent_bytes),
                  Keys("top", 1));
        EXPECT_EQ(std::string(static_cast<const char*>(event.salt), event.salt_bytes), "salt");
        EXPECT_EQ(event.first_token, 48U);
        EXPECT_EQ(event.block_tokens, 16U);
        EXPECT_EQ(event.publisher_id, kPublisher);
        EXPECT_EQ(event.sequence, 7U);
        EXPECT_EQ(std::memcmp(event.ns.bytes, kDigest.data(), 16), 0);
      }
    }
    return stored;
  }));
  EXPECT_TRUE(named);
}

TEST_F(WatchTest, AConnectionThatWasLostGoesOnBehindTheLastEvent) {
  script_ = [this](const ScriptedServer::Exchange& exchange) {
    const uint64_t next = requests_.size() == 1 ? 5 : 6;
    Tell(exchange, {EventOf(v1::EVENT_KIND_STORED, next, Keys("abc", 1))});
    if (next == 5) {
      exchange.Disconnect();
    }
  };
  OpenWatch(0);
  EXPECT_EQ(KindsOf(Until(TERRACE_EVENT_DOWN)),
            (Kinds{TERRACE_EVENT_UP, TERRACE_EVENT_STORED, TERRACE_EVENT_DOWN}));
  EXPECT_EQ(KindsOf(Until(TERRACE_EVENT_STORED)), (Kinds{TERRACE_EVENT_UP, TERRACE_EVENT_STORED}));
  EXPECT_EQ(requests_.at(0).publisher_id(), 0U);
  EXPECT_EQ(requests_.at(1).publisher_id(), kPublisher);
  EXPECT_EQ(requests_.at(1).after_sequence(), 5U);
  EXPECT_FALSE(requests_.at(1).snapshot());
  EXPECT_EQ(State().reconnects, 1U);
}

TEST_F(WatchTest, AConnectionThatSaidNothingToGoOnFromBeginsWithAGap) {
  script_ = [this](const ScriptedServer::Exchange& exchange) {
    if (requests_.size() == 1) {
      exchange.Disconnect();
    }
  };
  OpenWatch(0);
  EXPECT_EQ(KindsOf(Until(TERRACE_EVENT_GAP)),
            (Kinds{TERRACE_EVENT_UP, TERRACE_EVENT_DOWN, TERRACE_EVENT_UP, TERRACE_EVENT_GAP}));
}

TEST_F(WatchTest, AfterAGapASnapshotComesByItselfAndNothingOfTheOldWatchAfterIt) {
  script_ = [this](const ScriptedServer::Exchange& exchange) {
    if (requests_.size() == 1) {
      Tell(exchange, {EventOf(v1::EVENT_KIND_SNAPSHOT_END, 3)});
      Tell(exchange,
           {EventOf(v1::EVENT_KIND_GAP, 8), EventOf(v1::EVENT_KIND_STORED, 9, Keys("old", 1))});
      Tell(exchange, {EventOf(v1::EVENT_KIND_STORED, 10, Keys("old", 1))});
    } else {
      Tell(exchange, {EventOf(v1::EVENT_KIND_STORED, 12, Keys("new", 1)),
                      EventOf(v1::EVENT_KIND_SNAPSHOT_END, 12)});
    }
  };
  OpenWatch(1);
  Until(TERRACE_EVENT_SNAPSHOT_END);
  const std::vector<Seen> seen = Until(TERRACE_EVENT_SNAPSHOT_END);
  EXPECT_EQ(KindsOf(seen), (Kinds{TERRACE_EVENT_GAP, TERRACE_EVENT_SNAPSHOT_BEGIN,
                                  TERRACE_EVENT_STORED, TERRACE_EVENT_SNAPSHOT_END}))
      << "no DOWN: the daemon was never away";
  EXPECT_EQ(seen[2].keys, "new");
  EXPECT_TRUE(requests_.at(1).snapshot());
  EXPECT_EQ(State().complete, 1);
}

TEST_F(WatchTest, ASnapshotThatIsCutOffBeginsAnew) {
  script_ = [this](const ScriptedServer::Exchange& exchange) {
    Tell(exchange, {EventOf(v1::EVENT_KIND_STORED, 3, Keys("abc", 1))});
    if (requests_.size() == 1) {
      exchange.Disconnect();
    } else {
      Tell(exchange, {EventOf(v1::EVENT_KIND_SNAPSHOT_END, 3)});
    }
  };
  OpenWatch(1);
  EXPECT_EQ(KindsOf(Until(TERRACE_EVENT_SNAPSHOT_END)),
            (Kinds{TERRACE_EVENT_UP, TERRACE_EVENT_SNAPSHOT_BEGIN, TERRACE_EVENT_STORED,
                   TERRACE_EVENT_DOWN, TERRACE_EVENT_UP, TERRACE_EVENT_SNAPSHOT_BEGIN,
                   TERRACE_EVENT_STORED, TERRACE_EVENT_SNAPSHOT_END}));
  EXPECT_TRUE(requests_.at(1).snapshot());
}

TEST_F(WatchTest, AnEarlierWatchIsGoneOnFromWhereItWas) {
  script_ = [](const ScriptedServer::Exchange& exchange) {
    Tell(exchange, {EventOf(v1::EVENT_KIND_REMOVED, 42, Keys("abc", 1))});
  };
  terrace_watch_options options = Options();
  options.snapshots = 1;
  options.publisher_id = kPublisher;
  options.after_sequence = 41;
  const std::string two = kDigest + std::string(16, 'm');
  options.namespaces = reinterpret_cast<const uint8_t*>(two.data());
  options.namespace_count = 2;
  options.heartbeat_ms = 250;
  OpenWatch(options);
  EXPECT_EQ(KindsOf(Until(TERRACE_EVENT_REMOVED)),
            (Kinds{TERRACE_EVENT_UP, TERRACE_EVENT_REMOVED}));
  const v1::WatchRequest& request = requests_.at(0);
  EXPECT_EQ(request.publisher_id(), kPublisher);
  EXPECT_EQ(request.after_sequence(), 41U);
  EXPECT_FALSE(request.snapshot());
  EXPECT_EQ(request.heartbeat_ms(), 250U);
  ASSERT_EQ(request.namespaces_size(), 2);
  EXPECT_EQ(request.namespaces(1), std::string(16, 'm'));
}

TEST_F(WatchTest, ADaemonThatIsAwayIsFoundWhenItComes) {
  server_->Stop();
  OpenWatch(1);
  const terrace_event* events = nullptr;
  EXPECT_EQ(terrace_watch_next(watch_, &events, 50), 0U);
  EXPECT_EQ(State().connection, TERRACE_CONNECTION_DOWN);
  EXPECT_NE(std::string(State().error).find("session.sock"), std::string::npos);
  EXPECT_EQ(State().publisher_id, 0U);
  server_->Start();
  Until(TERRACE_EVENT_SNAPSHOT_BEGIN);
  server_->Stop();
  EXPECT_EQ(KindsOf(Until(TERRACE_EVENT_DOWN)), Kinds{TERRACE_EVENT_DOWN});
  server_->Start();
  EXPECT_EQ(KindsOf(Until(TERRACE_EVENT_SNAPSHOT_BEGIN)),
            (Kinds{TERRACE_EVENT_UP, TERRACE_EVENT_SNAPSHOT_BEGIN}));
}

TEST_F(WatchTest, ADaemonThatSaysNothingAnyMoreCountsAsGone) {
  terrace_watch_options options = Options();
  options.heartbeat_ms = 1;
  OpenWatch(options);
  Until(TERRACE_EVENT_UP);
  server_->Hang();
  EXPECT_EQ(KindsOf(Until(TERRACE_EVENT_DOWN)), Kinds{TERRACE_EVENT_DOWN});
  EXPECT_STREQ(State().error, "terraced says nothing");
  server_->Resume();
  Until(TERRACE_EVENT_UP);
}

TEST_F(WatchTest, ARefusalIsSaidAndTriedAgain) {
  int refusals = 0;
  server_->On(v1::METHOD_WATCH, [&](const ScriptedServer::Exchange& exchange) {
    if (++refusals <= 3) {
      exchange.Refuse(TERRACE_RESOURCE_EXHAUSTED, "16 watches are enough");
    } else {
      Subscribed(exchange);
    }
  });
  OpenWatch(0);
  ASSERT_TRUE(ScriptedServer::Eventually([&] {
    const terrace_event* events = nullptr;
    terrace_watch_next(watch_, &events, 1);
    return std::string(State().error).find("16 watches are enough") != std::string::npos;
  }));
  EXPECT_EQ(KindsOf(Until(TERRACE_EVENT_UP)), Kinds{TERRACE_EVENT_UP}) << "it was never up before";
}

TEST_F(WatchTest, ADaemonWithoutWatchIsNotAsked) {
  server_->SetHello([](v1::HelloReply* hello) { hello->clear_features(); });
  OpenWatch(0);
  ASSERT_TRUE(ScriptedServer::Eventually([&] {
    const terrace_event* events = nullptr;
    EXPECT_EQ(terrace_watch_next(watch_, &events, 1), 0U);
    return std::string(State().error) == "this terraced has no Watch";
  }));
  EXPECT_EQ(server_->Seen(v1::METHOD_WATCH), 0U);
}

TEST_F(WatchTest, GarbageEndsTheConnectionAndNothingElse) {
  v1::WatchReply half_a_key;
  half_a_key.set_publisher_id(kPublisher);
  *half_a_key.add_events() = EventOf(v1::EVENT_KIND_STORED, 1, Keys("abc", 1) + "?");
  v1::WatchReply no_digest;
  no_digest.set_publisher_id(kPublisher);
  no_digest.add_events()->set_namespace_digest("short");
  const std::string wrong[] = {"\xff\xff\xff", half_a_key.SerializeAsString(),
                               no_digest.SerializeAsString(), "\x1a\x7f"};
  size_t turn = 0;
  script_ = [&](const ScriptedServer::Exchange& exchange) {
    Tell(exchange, {EventOf(v1::EVENT_KIND_STORED, 1 + turn, Keys("abc", 1))});
    if (turn < std::size(wrong)) {
      exchange.Frame({0, static_cast<uint16_t>(v1::METHOD_WATCH), 3, 0, 0, 0, 0}, wrong[turn]);
    } else if (turn == std::size(wrong)) {
      exchange.Raw(std::string(24, '\xee'));
    }
    ++turn;
  };
  OpenWatch(0);
  for (size_t i = 0; i <= std::size(wrong); ++i) {
    EXPECT_EQ(KindsOf(Until(TERRACE_EVENT_DOWN)),
              (Kinds{TERRACE_EVENT_UP, TERRACE_EVENT_STORED, TERRACE_EVENT_DOWN}))
        << i;
    EXPECT_STREQ(State().error, "terraced sent a malformed frame");
    EXPECT_EQ(State().sequence, 1 + i);
  }
  Until(TERRACE_EVENT_STORED);
}

TEST_F(WatchTest, FramesMayComeInAnyPieces) {
  script_ = [](const ScriptedServer::Exchange& exchange) {
    v1::WatchReply told;
    told.set_publisher_id(kPublisher);
    told.set_call_id(exchange.header.call_id);
    *told.add_events() = EventOf(v1::EVENT_KIND_STORED, 5, Keys("abc", 2));
    const std::string message = told.SerializeAsString();
    WireHeader header;
    header.payload_bytes = static_cast<uint32_t>(message.size());
    header.method = static_cast<uint16_t>(v1::METHOD_WATCH);
    header.kind = 3;
    for (const char byte : EncodeWireHeader(header) + message) {
      exchange.Raw(std::string_view(&byte, 1));
    }
  };
  OpenWatch(0);
  EXPECT_EQ(KindsOf(Until(TERRACE_EVENT_STORED)), (Kinds{TERRACE_EVENT_UP, TERRACE_EVENT_STORED}));
}

TEST_F(WatchTest, EventsOfAnotherWatchOrKindAreNotHandedOut) {
  script_ = [](const ScriptedServer::Exchange& exchange) {
    v1::WatchReply told;
    told.set_publisher_id(99);
    told.set_call_id(exchange.header.call_id + 1);
    *told.add_events() = EventOf(v1::EVENT_KIND_STORED, 77, Keys("abc", 1));
    exchange.Push(v1::METHOD_WATCH, told);
    exchange.Push(v1::METHOD_DRAIN_NOTICE, v1::DrainNotice());
    Tell(exchange, {EventOf(static_cast<v1::EventKind>(33), 3),
                    EventOf(v1::EVENT_KIND_MOVED, 4, Keys("abc", 1))});
  };
  OpenWatch(0);
  EXPECT_EQ(KindsOf(Until(TERRACE_EVENT_MOVED)), (Kinds{TERRACE_EVENT_UP, TERRACE_EVENT_MOVED}));
  EXPECT_EQ(State().publisher_id, kPublisher);
}

TEST_F(WatchTest, ManyEventsComeWholeAndInOrder) {
  constexpr uint64_t kEvents = 20'000;
  script_ = [](const ScriptedServer::Exchange& exchange) {
    for (uint64_t sequence = 1; sequence <= kEvents;) {
      std::vector<v1::Event> some;
      for (int i = 0; i < 500; ++i, ++sequence) {
        some.push_back(EventOf(v1::EVENT_KIND_STORED, sequence,
                               Keys("abc", 1 + static_cast<uint32_t>(sequence % 7))));
      }
      Tell(exchange, some);
    }
    Tell(exchange, {EventOf(v1::EVENT_KIND_CLEARED, kEvents + 1)});
  };
  OpenWatch(0);
  const std::vector<Seen> seen = Until(TERRACE_EVENT_CLEARED);
  ASSERT_EQ(seen.size(), kEvents + 2);
  for (uint64_t i = 1; i <= kEvents; ++i) {
    ASSERT_EQ(seen[i].sequence, i);
    ASSERT_EQ(seen[i].keys, "abc");
  }
}

TEST_F(WatchTest, ItsDescriptorTellsOfEventsAndOfADaemonThatComes) {
  server_->Stop();
  OpenWatch(0);
  server_->Start();
  bool up = false;
  ASSERT_TRUE(ScriptedServer::Eventually([&] {
    pollfd readable{terrace_watch_event_fd(watch_), POLLIN, 0};
    if (::poll(&readable, 1, static_cast<int>(kPatienceMs)) != 1) {
      return false;
    }
    const terrace_event* events = nullptr;
    const uint32_t count = terrace_watch_next(watch_, &events, 0);
    up = count > 0 && events[0].kind == TERRACE_EVENT_UP;
    return up;
  }));
}

TEST_F(WatchTest, AChildOfForkGetsNothingAndLeavesTheParentsSessionAlone) {
  OpenWatch(0);
  Until(TERRACE_EVENT_UP);
  const pid_t child = ::fork();
  if (child == 0) {
    const terrace_event* events = nullptr;
    terrace_watch_state state{};
    state.struct_bytes = sizeof(state);
    const bool nothing = terrace_watch_next(watch_, &events, 0) == 0 &&
                         terrace_watch_event_fd(watch_) == -1 &&
                         terrace_watch_get_state(watch_, &state) == TERRACE_FAILED_PRECONDITION;
    terrace_watch_close(watch_);
    ::_exit(nothing ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(server_->connections_open(), 1U);
  EXPECT_EQ(State().connection, TERRACE_CONNECTION_UP);
}

TEST_F(WatchTest, TheSameInCpp) {
  script_ = [](const ScriptedServer::Exchange& exchange) {
    Tell(exchange, {EventOf(v1::EVENT_KIND_STORED, 7, Keys("abc", 3)),
                    EventOf(v1::EVENT_KIND_SNAPSHOT_END, 7)});
  };
  WatchOptions options;
  options.runtime_dir = folder_.path();
  options.reconnect = Milliseconds(20);
  options.namespaces.resize(2);
  options.namespaces[1].bytes[0] = 'x';
  Watch watch = Watch::Open(options);
  ASSERT_TRUE(watch) << watch.error();
  std::vector<std::string> keys;
  ASSERT_TRUE(ScriptedServer::Eventually([&] {
    for (const terrace_event& event : watch.Next(Milliseconds(10))) {
      for (uint32_t i = 0; i < event.key_count; ++i) {
        keys.emplace_back(KeyOf(event, i));
      }
    }
    return watch.State().complete == 1;
  }));
  EXPECT_EQ(keys.size(), 3U);
  EXPECT_EQ(keys[2], Keys("abc", 3).substr(64));
  EXPECT_EQ(requests_.at(0).namespaces(1)[0], 'x');
  EXPECT_GE(watch.event_fd(), 0);
  Watch moved = std::move(watch);
  EXPECT_EQ(moved.State().sequence, 7U);

  options.client_name = "a b";
  Watch none = Watch::Open(options);
  EXPECT_FALSE(none);
  EXPECT_EQ(none.status(), TERRACE_INVALID_ARGUMENT);
  EXPECT_NE(std::string(none.error()).find("client_name"), std::string::npos);
  EXPECT_TRUE(none.Next().empty());
  EXPECT_EQ(none.State().connection, TERRACE_CONNECTION_DOWN);
}

TEST_F(WatchTest, WrongArgumentsAreNamed) {
  const auto refused = [&](const std::function<void(terrace_watch_options*)>& change) {
    terrace_watch_options options = Options();
    change(&options);
    EXPECT_EQ(terrace_watch_open(&options, &watch_), TERRACE_INVALID_ARGUMENT);
    EXPECT_EQ(watch_, nullptr);
    return std::string(terrace_last_error());
  };
  EXPECT_NE(refused([](auto* o) { o->struct_bytes = 0; }).find("struct_bytes"), std::string::npos);
  EXPECT_NE(refused([](auto* o) { o->heartbeat_ms = 60'001; }).find("heartbeat_ms"),
            std::string::npos);
  EXPECT_NE(refused([](auto* o) { o->namespace_count = 1025; }).find("namespace_count"),
            std::string::npos);
  EXPECT_NE(refused([](auto* o) { o->namespace_count = 1; }).find("namespaces"), std::string::npos);
  EXPECT_NE(refused([](auto* o) { o->client_name = "a b"; }).find("client_name"),
            std::string::npos);
  EXPECT_EQ(terrace_watch_open(nullptr, nullptr), TERRACE_INVALID_ARGUMENT);
  const terrace_event* events = nullptr;
  EXPECT_EQ(terrace_watch_next(nullptr, &events, 0), 0U);
  EXPECT_EQ(terrace_watch_event_fd(nullptr), -1);
  terrace_watch_close(nullptr);
}

}  // namespace
}  // namespace terrace::testing
