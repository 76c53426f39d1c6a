// A publisher over a real store and real ZeroMQ: what a router knows, replays, subscribers that do
// not read, endpoints that cannot be had, garbage.
#include "daemon/events/event_publisher.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>
#include <fstream>
#include <numeric>
#include <optional>

#include <gmock/gmock.h>
#include <zmq.h>

#include "tests/doubles/eventually.h"
#include "tests/doubles/private_folder.h"
#include "tests/doubles/router_double.h"
#include "tests/unit/block_store/store_fixture.h"
#include "tiers/os/descriptor.h"

namespace terrace::testing {
namespace {

using doubles::Eventually;
using doubles::RouterDouble;
using ::testing::HasSubstr;
using Media = std::set<std::string>;

constexpr uint32_t kSmall = 4096;

class EventPublisherTest : public StoreTest {
 protected:
  void Start(EventPublisherOptions options = {}) {
    options.tenant = "a";
    options.zmq_endpoint = Endpoint("events");
    options.zmq_replay_endpoint = Endpoint("replay");
    absl::StatusOr<std::unique_ptr<EventPublisher>> publisher =
        EventPublisher::Start(options, {store_.get(), &clock_});
    ASSERT_TRUE(publisher.ok()) << publisher.status();
    publisher_ = *std::move(publisher);
  }
  // Before the store of the fixture.
  void TearDown() override {
    router_.reset();
    publisher_.reset();
  }
  [[nodiscard]] std::string Endpoint(const std::string& name) const {
    return "ipc://" + folder_.path() + "/" + name;
  }
  void Listen(const std::string& topic = "", int high_water_mark = 0) {
    router_ = std::make_unique<RouterDouble>(
        RouterDouble::Options{Endpoint("events"), Endpoint("replay"), topic, high_water_mark});
  }
  // A router that has heard all so far, and is subscribed: it has heard something since.
  void ListenFromNowOn(const std::string& topic = "") {
    Listen(topic);
    uint64_t n = 1'000'000;
    ASSERT_TRUE(Eventually([&] {
      PutKeys({n++}, kSmall);
      return router_->Hear();
    }));
    ASSERT_TRUE(Delete(Part(Range(1'000'000, n - 1'000'000))).ok());
    ASSERT_TRUE(Becomes([&] { return router_->blocks().empty(); }));
    router_->ForgetEvents();
    gaps_ = router_->gaps();  // what was said before it was there
  }
  bool Becomes(const std::function<bool()>& holds) {
    return Eventually([&] {
      while (router_->Hear(absl::ZeroDuration())) {
      }
      return holds();
    });
  }
  static std::vector<uint64_t> Range(uint64_t first, uint64_t count) {
    std::vector<uint64_t> keys(count);
    std::iota(keys.begin(), keys.end(), first);
    return keys;
  }
  [[nodiscard]] Media At(uint64_t key) const {
    return router_->MediaOf(doubles::LowBitsOf(KeyOf(key)));
  }

  doubles::PrivateFolder folder_;
  std::unique_ptr<EventPublisher> publisher_;
  std::unique_ptr<RouterDouble> router_;
  uint64_t gaps_ = 0;
};

TEST_F(EventPublisherTest, ARouterHearsWhatIsStoredAndRemoved) {
  Start();
  ListenFromNowOn();
  PutCall call = InlinePut({1, 2}, kSmall);
  call.parent = KeyOf(77);
  call.metadata = {{std::vector<uint32_t>(16, 5), "sql", ""},
                   {std::vector<uint32_t>(16, 6), "sql", ""}};
  Put(std::move(call));
  ASSERT_TRUE(Becomes([&] { return At(2) == Media{"CPU"}; }));
  ASSERT_EQ(router_->events().size(), 1U) << "one prompt, one event";
  const doubles::HeardEvent& event = router_->events()[0];
  EXPECT_EQ(event.parent, doubles::LowBitsOf(KeyOf(77)));
  EXPECT_EQ(event.block_size, 16U);
  EXPECT_EQ(event.tokens.size(), 32U);
  EXPECT_EQ(event.tokens[16], 6U);
  EXPECT_EQ(event.lora_name, "sql");
  ASSERT_TRUE(Delete(Part({1})).ok());
  ASSERT_TRUE(Becomes([&] { return At(1).empty(); }));
  EXPECT_EQ(At(2), Media{"CPU"});
  ASSERT_TRUE(Clear().ok());
  ASSERT_TRUE(Becomes([&] { return router_->blocks().empty(); }));
  EXPECT_EQ(router_->events().back().type, "AllBlocksCleared");
  EXPECT_EQ(router_->gaps(), gaps_);
}

TEST_F(EventPublisherTest, WhoComesLateCatchesUpByReplay) {
  PutKeys(Range(0, 300), kSmall);  // before anybody published
  Start();
  Listen();
  ASSERT_TRUE(Eventually([&] {
    EXPECT_TRUE(router_->CatchUp());
    return router_->blocks().size() == 300;
  }));
  EXPECT_EQ(router_->events().front().type, "AllBlocksCleared");
  EXPECT_EQ(router_->lost(), 0U);
  const EventPublisherFigures figures = publisher_->figures();
  EXPECT_EQ(figures.endpoint, publisher_->endpoint());
  EXPECT_EQ(figures.replay_endpoint, publisher_->replay_endpoint());
  EXPECT_EQ(figures.stored, 300U);
  EXPECT_EQ(figures.clears, 1U);
  EXPECT_EQ(figures.snapshots, 1U);
  EXPECT_GT(figures.replays, 0U);
  EXPECT_GT(figures.replayed_batches, 0U);
  EXPECT_LE(figures.batches, 4U) << "a snapshot is few messages";
}

TEST_F(EventPublisherTest, BothFormatsAndWholeHashesAreUnderstood) {
  EventPublisherOptions options;
  options.format = EventFormat::kArray;
  options.hashes = EventHashes::kBytes;
  options.topic = "kv@node-1@model";
  Start(options);
  Listen(options.topic);
  PutKeys({1}, kSmall);
  ASSERT_TRUE(Eventually([&] {
    EXPECT_TRUE(router_->CatchUp());
    return router_->MediaOf(KeyOf(1)) == Media{"CPU"};
  }));
  uint64_t n = 2;
  ASSERT_TRUE(Eventually([&] {
    PutKeys({n++}, kSmall);
    return router_->Hear();
  })) << "by its topic";
}

TEST_F(EventPublisherTest, AReplayBeginsWhereItIsAskedToAndWithWhatIsKept) {
  EventPublisherOptions options;
  options.buffer_steps = 3;
  Start(options);
  ListenFromNowOn();
  // One look, one batch.
  for (uint64_t key = 0; key < 6; ++key) {
    PutKeys({key}, kSmall);
    ASSERT_TRUE(Becomes([&] { return At(key) == Media{"CPU"}; }));
  }
  const uint64_t next = router_->next();
  RouterDouble late({Endpoint("events"), Endpoint("replay"), "", 0});
  ASSERT_TRUE(late.CatchUp());
  EXPECT_EQ(late.next(), next);
  EXPECT_EQ(late.blocks().size(), 3U);
  EXPECT_EQ(late.events().size(), 4U);
  EXPECT_EQ(late.events().front().type, "AllBlocksCleared") << "what it knew is of no use";
  ASSERT_TRUE(late.CatchUp()) << "nothing is missed: the end alone";
  EXPECT_EQ(late.next(), next);
}

TEST_F(EventPublisherTest, WithoutABufferAReplaySaysThatNothingIsKnown) {
  EventPublisherOptions options;
  options.buffer_steps = 0;
  Start(options);
  ListenFromNowOn();
  RouterDouble late({Endpoint("events"), Endpoint("replay"), "", 0});
  ASSERT_TRUE(late.CatchUp());
  EXPECT_GE(late.next(), router_->next());
  ASSERT_EQ(late.events().size(), 1U);
  EXPECT_EQ(late.events()[0].type, "AllBlocksCleared");
}

TEST_F(EventPublisherTest, ASubscriberThatDoesNotReadHoldsUpNobody) {
  EventPublisherOptions options;
  options.high_water_mark = 32;  // of both: a round is five messages, which the reader takes
  options.buffer_steps = 1'000'000;
  Start(options);
  ListenFromNowOn();
  // Subscribed, and reads nothing: it takes 32 messages, the socket's buffers and no more.
  void* context = zmq_ctx_new();
  void* stuck = zmq_socket(context, ZMQ_SUB);
  const int one = 1;
  const int none = 0;
  zmq_setsockopt(stuck, ZMQ_RCVHWM, &one, sizeof(one));
  zmq_setsockopt(stuck, ZMQ_RCVBUF, &one, sizeof(one));
  zmq_setsockopt(stuck, ZMQ_LINGER, &none, sizeof(none));
  ASSERT_EQ(zmq_connect(stuck, Endpoint("events").c_str()), 0);
  ASSERT_EQ(zmq_setsockopt(stuck, ZMQ_SUBSCRIBE, "", 0), 0);
  for (uint64_t round = 0; round < 40; ++round) {
    PutCall call = InlinePut(Range(round * 64, 64), kSmall);
    // Tokens that take five bytes each: messages of 5 KiB a block.
    call.metadata.assign(64, {std::vector<uint32_t>(16, 4'000'000'000U), "", ""});
    Put(std::move(call));
    // The one that reads hears all of it, whatever the other does.
    ASSERT_TRUE(Becomes([&] { return At(round * 64 + 63) == Media{"CPU"}; })) << round;
  }
  EXPECT_EQ(router_->lost(), 0U);
  EXPECT_EQ(publisher_->figures().unsent, 0U);
  const absl::Time begin = absl::Now();
  publisher_.reset();
  EXPECT_LT(absl::Now() - begin, absl::Seconds(30)) << "a stop waits for nobody";
  zmq_close(stuck);
  zmq_ctx_term(context);
}

TEST_F(EventPublisherTest, WhatASubscriberLostItsSequenceShowsAndAReplayGives) {
  EventPublisherOptions options;
  options.high_water_mark = 1;
  options.buffer_steps = 1'000'000;
  Start(options);
  Listen("", 1);
  uint64_t key = 0;
  // Until messages were dropped: the router takes one at a time, long after they were sent.
  ASSERT_TRUE(Eventually(
      [&] {
        const uint64_t before = publisher_->figures().batches;
        for (int i = 0; i < 20; ++i) {
          PutCall call = InlinePut({key}, kSmall);
          // Large enough for the socket's buffers to fill.
          call.metadata = {{std::vector<uint32_t>(16, 1), std::string(60'000, 'l'), ""}};
          Put(std::move(call));
          ++key;
          EXPECT_TRUE(Eventually([&] { return publisher_->figures().stored >= key; }));
        }
        EXPECT_GT(publisher_->figures().batches, before);
        router_->Hear();
        return router_->gaps() > 0 && router_->heard() > 1;
      },
      absl::Minutes(2)));
  ASSERT_TRUE(Eventually([&] {
    EXPECT_TRUE(router_->CatchUp());
    return router_->next() == publisher_->figures().next_sequence;
  }));
  EXPECT_EQ(router_->lost(), 0U);
  for (uint64_t i = 0; i < key; ++i) {
    EXPECT_EQ(At(i), Media{"CPU"}) << i;
  }
}

TEST_F(EventPublisherTest, WhoAsksForReplaysAndReadsNothingHoldsUpNobody) {
  Start();
  ListenFromNowOn();
  for (uint64_t round = 1; round <= 10; ++round) {
    PutCall call = InlinePut(Range(round * 64, 64), kSmall);
    call.metadata.assign(64, {std::vector<uint32_t>(16, 1), std::string(60'000, 'l'), ""});
    Put(std::move(call));
    ASSERT_TRUE(Becomes([&] { return At(round * 64 + 63) == Media{"CPU"}; }));
  }
  void* context = zmq_ctx_new();
  std::vector<void*> sockets;
  const int one = 1;
  const int none = 0;
  for (int i = 0; i < 40; ++i) {
    void* const socket = sockets.emplace_back(zmq_socket(context, ZMQ_DEALER));
    zmq_setsockopt(socket, ZMQ_RCVHWM, &one, sizeof(one));
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof(none));
    ASSERT_EQ(zmq_connect(socket, Endpoint("replay").c_str()), 0);
    for (int times = 0; times < 3; ++times) {
      zmq_send(socket, "", 0, ZMQ_SNDMORE);
      zmq_send(socket, "\0\0\0\0\0\0\0\0", 8, 0);
    }
  }
  ASSERT_TRUE(Eventually([&] { return publisher_->figures().replays >= 120; }));
  RouterDouble late({Endpoint("events"), Endpoint("replay"), "", 0});
  ASSERT_TRUE(late.CatchUp());
  EXPECT_GE(late.next(), router_->next());
  EXPECT_EQ(late.lost(), 0U);
  EXPECT_EQ(late.blocks().size(), 640U);
  EXPECT_GE(publisher_->figures().replays_ended, 8U) << "there are 32 at a time";
  PutKeys({9'999}, kSmall);
  ASSERT_TRUE(Becomes([&] { return At(9'999) == Media{"CPU"}; }));
  clock_.Advance(absl::Seconds(11));
  ASSERT_TRUE(Eventually([&] { return publisher_->figures().replays_ended >= 40; }))
      << "nobody waits for them for ever";
  for (void* socket : sockets) {
    zmq_close(socket);
  }
  zmq_ctx_term(context);
}

TEST_F(EventPublisherTest, AfterAClearWhatOtherNamespacesHoldIsToldAnew) {
  Start();
  ListenFromNowOn();
  PutKeys(Range(0, 10), kSmall);
  ASSERT_TRUE(Becomes([&] { return router_->blocks().size() == 10; }));
  NamespaceRecord record = RecordOf(1 << 20);
  record.group = 1;
  const Digest128 other = Open(record);
  PutCall call = InlinePut({500}, kSmall);
  call.part.namespace_digest = other;
  Put(std::move(call));
  ASSERT_TRUE(Becomes([&] { return router_->blocks().size() == 11; }));
  EXPECT_EQ(router_->MediaOf(doubles::LowBitsOf(KeyOf(500)), 1), Media{"CPU"});
  ASSERT_TRUE(Clear().ok());
  ASSERT_TRUE(Becomes([&] { return router_->blocks().empty(); })) << "AllBlocksCleared says all";
  clock_.Advance(absl::Seconds(2));
  ASSERT_TRUE(Becomes([&] { return router_->blocks().size() == 1; })) << "and what is held again";
  EXPECT_EQ(router_->MediaOf(doubles::LowBitsOf(KeyOf(500)), 1), Media{"CPU"});
  EXPECT_TRUE(Eventually([&] { return publisher_->figures().snapshots == 2; }));
}

TEST_F(EventPublisherTest, TenantsHearNothingOfEachOther) {
  Start();
  ListenFromNowOn();
  const TenantId other = *store_->OpenTenant("b");
  const SessionId session = store_->OpenSession(other, BlockStore::LeaseRight::kProvenByPidfd);
  const Digest128 ns = store_->OpenNamespace(other, RecordOf(1 << 20))->digest;
  PutCall call = InlinePut({1}, kSmall);
  call.part.namespace_digest = ns;
  Put(std::move(call), Caller{other, session});
  PutKeys({2}, kSmall);
  ASSERT_TRUE(Becomes([&] { return At(2) == Media{"CPU"}; }));
  EXPECT_EQ(router_->blocks().size(), 1U);
  EXPECT_EQ(router_->events().size(), 1U);
  store_->CloseSession(session, [] {});
}

TEST_F(EventPublisherTest, TheNextLifeIsHeardFromItsBeginning) {
  PutKeys({1, 2}, kSmall);
  Start();
  Listen();
  ASSERT_TRUE(Eventually([&] {
    EXPECT_TRUE(router_->CatchUp());
    return router_->blocks().size() == 2;
  }));
  const uint64_t next = router_->next();
  publisher_.reset();
  Make({});  // another store
  Start();
  PutKeys({3}, kSmall);
  ASSERT_TRUE(Eventually([&] {
    EXPECT_TRUE(router_->CatchUp());
    return At(3) == Media{"CPU"};
  }));
  EXPECT_EQ(router_->blocks().size(), 1U);
  EXPECT_GT(router_->next(), next);
  EXPECT_EQ(router_->lost(), 0U);
}

TEST_F(EventPublisherTest, TheEndIsSaid) {
  Start();
  ListenFromNowOn();
  PutKeys({1}, kSmall);
  ASSERT_TRUE(Becomes([&] { return At(1) == Media{"CPU"}; }));
  publisher_.reset();
  ASSERT_TRUE(Becomes([&] { return router_->blocks().empty(); }));
  EXPECT_EQ(router_->events().back().type, "AllBlocksCleared");
  EXPECT_EQ(store_->Usage().watchers, 0U);
}

TEST_F(EventPublisherTest, WhileTooManyWatchItTriesAgain) {
  std::vector<std::unique_ptr<StoreWatcher>> watchers;
  for (uint32_t i = 0; i < kMaxWatchersPerTenant; ++i) {
    watchers.push_back(*store_->Watch(tenant_, {}));
  }
  PutKeys({1}, kSmall);
  Start();
  Listen();
  ASSERT_TRUE(Eventually([&] { return publisher_->figures().watch_refusals > 0; }));
  watchers.clear();
  ASSERT_TRUE(Eventually([&] {
    clock_.Advance(absl::Milliseconds(100));
    EXPECT_TRUE(router_->CatchUp());
    return At(1) == Media{"CPU"};
  }));
}

class EventEndpointsTest : public EventPublisherTest {
 protected:
  [[nodiscard]] absl::Status TryStart(const std::string& endpoint, const std::string& replay = "") {
    EventPublisherOptions options;
    options.tenant = "a";
    options.zmq_endpoint = endpoint;
    options.zmq_replay_endpoint = replay;
    absl::StatusOr<std::unique_ptr<EventPublisher>> publisher =
        EventPublisher::Start(options, {store_.get(), &clock_});
    if (publisher.ok()) {
      publisher_ = *std::move(publisher);
    }
    return publisher.status();
  }
};

TEST_F(EventEndpointsTest, AFreePortIsFound) {
  ASSERT_TRUE(TryStart("tcp://127.0.0.1:0", "tcp://127.0.0.1:0").ok());
  EXPECT_THAT(publisher_->endpoint(), ::testing::MatchesRegex("tcp://127\\.0\\.0\\.1:[1-9][0-9]*"));
  EXPECT_NE(publisher_->endpoint(), publisher_->replay_endpoint());
  PutKeys({1}, kSmall);
  router_ = std::make_unique<RouterDouble>(
      RouterDouble::Options{publisher_->endpoint(), publisher_->replay_endpoint(), "", 0});
  ASSERT_TRUE(Eventually([&] {
    EXPECT_TRUE(router_->CatchUp());
    return At(1) == Media{"CPU"};
  }));
}

TEST_F(EventEndpointsTest, WhatIsTakenOrNoEndpointIsAnErrorThatNamesIt) {
  ASSERT_TRUE(TryStart("tcp://127.0.0.1:0").ok());
  const std::string taken = publisher_->endpoint();
  const std::unique_ptr<EventPublisher> first = std::move(publisher_);
  absl::Status status = TryStart(taken);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(taken));
  status = TryStart(Endpoint("x"), taken);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(taken));
  status = TryStart("udp://127.0.0.1:1");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  status = TryStart("ipc://" + folder_.path() + "/absent/x");
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("/absent/x"));
  EXPECT_FALSE(store_->IsWatched() && publisher_ != nullptr);
}

TEST_F(EventEndpointsTest, ASocketFileIsTheOwnersAndReplacesNothingThatLives) {
  ASSERT_TRUE(TryStart(Endpoint("events")).ok());
  struct stat status = {};
  ASSERT_EQ(stat((folder_.path() + "/events").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
  const std::unique_ptr<EventPublisher> first = std::move(publisher_);
  EXPECT_EQ(TryStart(Endpoint("events")).code(), absl::StatusCode::kUnavailable);
  std::ofstream(folder_.path() + "/file") << "precious";
  EXPECT_EQ(TryStart(Endpoint("file")).code(), absl::StatusCode::kUnavailable);
  ASSERT_EQ(stat((folder_.path() + "/file").c_str(), &status), 0);
  EXPECT_TRUE(S_ISREG(status.st_mode));
  // What a daemon that was killed has left.
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string path = folder_.path() + "/dead";
  std::memcpy(address.sun_path, path.data(), path.size());
  {
    const Descriptor dead(socket(AF_UNIX, SOCK_STREAM, 0));
    ASSERT_EQ(bind(dead.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  EXPECT_TRUE(TryStart(Endpoint("dead")).ok());
}

}  // namespace
}  // namespace terrace::testing
