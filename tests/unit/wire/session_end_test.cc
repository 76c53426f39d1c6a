// What a client may rely on when the daemon ends its session: that it sees the end of its socket
// only when nothing can touch the memory of its regions any more, because that is when it gives the
// memory to somebody else.
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "daemon/wire/session.h"
#include "tests/doubles/front_room.h"
#include "tests/doubles/manual_clock.h"
#include "tests/doubles/step_executor.h"

namespace terrace::doubles {
namespace {

constexpr uint32_t kBlockBytes = 8192;
constexpr uint32_t kBlocks = 4;

// Holds one thread up at its next look at the time, which a copy takes when it has found that
// nobody has cancelled it: so it stands still in the middle of the copy.
class HoldingClock final : public Clock {
 public:
  [[nodiscard]] absl::Duration Now() const override {
    const absl::Duration now = time.Now();
    if (std::this_thread::get_id() == held_thread_.load() && !held_.HasBeenNotified()) {
      held_.Notify();
      let_go_.WaitForNotification();
    }
    return now;
  }
  void HoldThisThread() { held_thread_ = std::this_thread::get_id(); }
  void AwaitHeld() { held_.WaitForNotification(); }
  void LetGo() {
    if (!let_go_.HasBeenNotified()) {
      let_go_.Notify();
    }
  }

  ManualClock time;

 private:
  std::atomic<std::thread::id> held_thread_{};
  mutable absl::Notification held_;
  mutable absl::Notification let_go_;
};

int OpenSockets() {
  int sockets = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    sockets += std::filesystem::read_symlink(entry, gone).string().starts_with("socket:") ? 1 : 0;
  }
  return sockets;
}

class SessionEndTest : public ::testing::Test {
 protected:
  void Open(FrontRoomOptions options = {}) {
    options.clock = &clock_;
    options.executor = &executor_;
    absl::StatusOr<std::unique_ptr<FrontRoom>> room = FrontRoom::Open(std::move(options));
    ASSERT_TRUE(room.ok()) << room.status();
    room_ = *std::move(room);
    ASSERT_NO_FATAL_FAILURE(Connect());
    v1::OpenNamespaceRequest open;
    *open.mutable_record() = TestRecord(kBlockBytes);
    const auto opened = client_->Call<v1::OpenNamespaceReply>(v1::METHOD_OPEN_NAMESPACE, open);
    ASSERT_TRUE(opened.ok()) << opened.status();
    digest_ = opened->namespace_digest();
    v1::PutRequest put;
    *put.mutable_part() = PartOf(1);
    put.set_payload(TestPayload(1, kBlockBytes));
    const uint64_t call = client_->Send(v1::METHOD_PUT, put);
    ASSERT_TRUE(Eventually([&] { return executor_.Step(); }));
    ASSERT_TRUE(client_->Result<v1::PutReply>(client_->ReceiveReply(call)).ok());
    ASSERT_NO_FATAL_FAILURE(RegisterMemory());
  }
  ~SessionEndTest() override {
    LetGo();
    if (room_ != nullptr) {
      room_->StopFront();
    }
    executor_.RunAll();
  }

  void Connect() {
    absl::StatusOr<std::unique_ptr<FrameClient>> client = room_->NewSession();
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }
  v1::Part PartOf(uint64_t key) const {
    v1::Part part;
    part.set_namespace_digest(digest_);
    part.set_keys(TestKey(key));
    return part;
  }
  void RegisterMemory() {
    const Descriptor memory(memfd_create("region", MFD_CLOEXEC));
    ASSERT_EQ(ftruncate(memory.get(), kBlocks * kBlockBytes), 0);
    absl::StatusOr<Mapping> view =
        Mapping::Map(memory.get(), 0, kBlocks * kBlockBytes, MapAccess::kReadWrite);
    ASSERT_TRUE(view.ok());
    view_ = *std::move(view);
    v1::RegisterRegionRequest request;
    request.set_region_id(1);
    request.set_bytes(kBlocks * kBlockBytes);
    request.mutable_geometry()->set_block_count(kBlocks);
    v1::Plane* plane = request.mutable_geometry()->add_planes();
    plane->set_block_stride(kBlockBytes);
    plane->add_segments()->set_bytes(kBlockBytes);
    const auto registered =
        client_->Call<v1::RegisterRegionReply>(v1::METHOD_REGISTER_REGION, request, {memory.get()});
    ASSERT_TRUE(registered.ok()) << registered.status();
  }

  // A get into block 2 of the region that stands still in the middle of its copy.
  void HoldAGet() {
    v1::GetRequest get;
    *get.add_parts() = PartOf(1);
    get.set_delivery(v1::DELIVERY_REGION);
    get.add_regions()->set_region_id(1);
    get.mutable_regions(0)->add_block_indexes(2);
    held_call_ = client_->Send(v1::METHOD_GET, get);
    Hold();
  }
  void HoldAPut() {
    v1::PutRequest put;
    *put.mutable_part() = PartOf(2);
    put.mutable_region()->set_region_id(1);
    put.mutable_region()->add_block_indexes(3);
    held_call_ = client_->Send(v1::METHOD_PUT, put);
    Hold();
  }
  void Hold() {
    copier_ = std::thread([this] {
      clock_.HoldThisThread();
      EXPECT_TRUE(Eventually([this] { return executor_.Step(); }));
      executor_.RunAll();
    });
    clock_.AwaitHeld();
  }
  void LetGo() {
    clock_.LetGo();
    if (copier_.joinable()) {
      copier_.join();
    }
  }

  void BreakARule() { client_->SendBytes(std::string(24, '\xff')); }
  // Notices that the client does not read, until its socket takes no more or the session is over.
  void FillTheSocket(uint64_t notices) {
    for (uint64_t i = 0; i < notices && !IsOver(); ++i) {
      room_->front().SlabRetired(SessionId{1}, SlabId{1});
    }
  }
  [[nodiscard]] bool IsOver() {
    return room_->observer().Connections(Carrier::kSession, "closed") == 1;
  }
  // The daemon has ended the session; the client must not see it before the copy has ended.
  void ExpectTheEndWhenTheCopyHasEnded() {
    ASSERT_TRUE(Eventually([this] { return IsOver(); }));
    EXPECT_FALSE(client_->SeesEnd(absl::ZeroDuration())) << "while the copy is under way";
    LetGo();
    EXPECT_TRUE(client_->SeesEnd());
    EXPECT_EQ(client_->ReceiveReply(held_call_, absl::ZeroDuration()), std::nullopt);
  }
  // That it was a copy which could do harm.
  void ExpectCopied() {
    EXPECT_EQ(std::string(view_.data() + 2 * kBlockBytes, kBlockBytes),
              TestPayload(1, kBlockBytes));
  }

  HoldingClock clock_;
  StepExecutor executor_;
  std::unique_ptr<FrontRoom> room_;
  std::unique_ptr<FrameClient> client_;
  std::string digest_;
  Mapping view_;
  uint64_t held_call_ = 0;
  std::thread copier_;
};

TEST_F(SessionEndTest, AFrameThatBreaksARule) {
  ASSERT_NO_FATAL_FAILURE(Open());
  HoldAGet();
  BreakARule();
  ExpectTheEndWhenTheCopyHasEnded();
  ExpectCopied();
}

TEST_F(SessionEndTest, APutStillReadsTheMemory) {
  ASSERT_NO_FATAL_FAILURE(Open());
  HoldAPut();
  BreakARule();
  ExpectTheEndWhenTheCopyHasEnded();
}

TEST_F(SessionEndTest, TooManyRequestsThatCannotBeParsed) {
  ASSERT_NO_FATAL_FAILURE(Open());
  HoldAGet();
  for (int i = 0; i < 3; ++i) {
    client_->SendRequest(v1::METHOD_PING, "\xff\xff");
  }
  ExpectTheEndWhenTheCopyHasEnded();
  ExpectCopied();
}

TEST_F(SessionEndTest, ABacklogBeyondTwiceItsLimit) {
  FrontRoomOptions options;
  options.limits.reply_backlog_bytes = 4096;
  ASSERT_NO_FATAL_FAILURE(Open(std::move(options)));
  HoldAGet();
  FillTheSocket(10'000'000);
  ExpectTheEndWhenTheCopyHasEnded();
  ExpectCopied();
}

TEST_F(SessionEndTest, APeerThatTakesNothing) {
  ASSERT_NO_FATAL_FAILURE(Open());
  HoldAGet();
  FillTheSocket(20'000);
  ASSERT_FALSE(IsOver());
  ASSERT_TRUE(Eventually([this] {
    clock_.time.Advance(absl::Milliseconds(100));
    return IsOver();
  }));
  ExpectTheEndWhenTheCopyHasEnded();
  ExpectCopied();
}

TEST_F(SessionEndTest, AFrontThatStops) {
  ASSERT_NO_FATAL_FAILURE(Open());
  HoldAGet();
  room_->StopFront();  // and doesn't wait for the copy
  ExpectTheEndWhenTheCopyHasEnded();
  ExpectCopied();
}

TEST_F(SessionEndTest, ARegionThatIsBeingUnregistered) {
  ASSERT_NO_FATAL_FAILURE(Open());
  HoldAGet();
  v1::UnregisterRegionRequest unregister;
  unregister.set_region_id(1);
  client_->Send(v1::METHOD_UNREGISTER_REGION, unregister);
  BreakARule();
  ExpectTheEndWhenTheCopyHasEnded();
  ExpectCopied();
}

// What it has shut down is only its own way.
TEST_F(SessionEndTest, APeerThatSendsNoMore) {
  ASSERT_NO_FATAL_FAILURE(Open());
  HoldAGet();
  ASSERT_EQ(shutdown(client_->get(), SHUT_WR), 0);
  ExpectTheEndWhenTheCopyHasEnded();
  ExpectCopied();
}

TEST_F(SessionEndTest, NoCopyNoDelay) {
  ASSERT_NO_FATAL_FAILURE(Open());
  // One that has to do with no region of the session's waits meanwhile.
  v1::PutRequest put;
  *put.mutable_part() = PartOf(2);
  put.set_payload(TestPayload(2, kBlockBytes));
  client_->Send(v1::METHOD_PUT, put);
  BreakARule();
  EXPECT_TRUE(client_->SeesEnd());
}

TEST_F(SessionEndTest, APeerThatHasGoneLeavesNoSocketWhateverIsCopied) {
  ASSERT_NO_FATAL_FAILURE(Open());
  client_.reset();
  ASSERT_TRUE(Eventually([this] { return IsOver(); }));
  const int before = OpenSockets();
  ASSERT_NO_FATAL_FAILURE(Connect());
  ASSERT_NO_FATAL_FAILURE(RegisterMemory());
  HoldAGet();
  EXPECT_GT(OpenSockets(), before);
  client_.reset();
  EXPECT_TRUE(Eventually([&] { return OpenSockets() == before; }));
}

TEST_F(SessionEndTest, ASessionThatWasEndedLeavesNoSocketWhenTheCopyHasEnded) {
  ASSERT_NO_FATAL_FAILURE(Open());
  const int before = OpenSockets();  // with both ends of the session's socket
  HoldAGet();
  BreakARule();
  ExpectTheEndWhenTheCopyHasEnded();
  client_.reset();
  EXPECT_TRUE(Eventually([&] { return OpenSockets() == before - 2; }));
}

TEST_F(SessionEndTest, AConnectionIsGivenBackWhenItsSocketIs) {
  FrontRoomOptions options;
  options.limits.connections_per_uid = 1;
  ASSERT_NO_FATAL_FAILURE(Open(std::move(options)));
  HoldAGet();
  BreakARule();
  ASSERT_TRUE(Eventually([this] { return IsOver(); }));
  EXPECT_FALSE(room_->NewSession().ok());
  LetGo();
  EXPECT_TRUE(client_->SeesEnd());
  EXPECT_TRUE(Eventually([this] { return room_->NewSession().ok(); }));
}

// An event may say two things, and the session end with the first; its descriptor may be another's
// by then.
TEST_F(SessionEndTest, ASessionThatHasEndedReadsNothing) {
  ASSERT_NO_FATAL_FAILURE(Open());
  CountingObserver observer;
  PeerLedger ledger(PeerLimits{});
  int ends[2] = {-1, -1};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
  const Descriptor peer(ends[1]);
  const Descriptor epoll(epoll_create1(EPOLL_CLOEXEC));
  AcceptedSession accepted;
  accepted.socket = Descriptor(ends[0]);
  accepted.permit = ledger.Admit(getuid());
  const auto session = std::make_shared<Session>(
      Session::Options{std::make_shared<FrontShared>(room_->store(), nullptr, clock_, observer,
                                                     FrontLimits(), uint64_t{1}),
                       std::move(accepted), epoll.get(), 1});
  ASSERT_TRUE(session->Watch().ok());
  ASSERT_EQ(write(peer.get(), "frame", 5), 5);
  session->End();
  EXPECT_EQ(ledger.connections(), 0U);
  google::protobuf::Arena arena;
  std::vector<char> scratch(4096);
  EXPECT_EQ(session->OnReadable(absl::MakeSpan(scratch), arena), Session::Turn::kIdle);
  EXPECT_EQ(observer.Connections(Carrier::kSession, "protocol_error"), 0);
}

}  // namespace
}  // namespace terrace::doubles
