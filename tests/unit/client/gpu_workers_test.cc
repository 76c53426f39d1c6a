// Calls into the memory of a GPU whose daemon dies: they are over when the process that copies for
// it is, and not when its socket closes.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <csignal>
#include <utility>

#include "tests/unit/client/client_case.h"

namespace terrace::testing {
namespace {

// Stands for a worker: does nothing, until it is killed.
class IdleProcess {
 public:
  IdleProcess() : pid_(::fork()) {
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // it does not outlive a test that is killed
      for (;;) {
        ::pause();
      }
    }
    pidfd_ = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
  }
  IdleProcess(const IdleProcess&) = delete;
  IdleProcess& operator=(const IdleProcess&) = delete;
  ~IdleProcess() {
    Kill();
    ::close(pidfd_);
  }
  void Kill() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(std::exchange(pid_, 0), nullptr, 0);
    }
  }
  [[nodiscard]] int pidfd() const { return pidfd_; }

 private:
  pid_t pid_;
  int pidfd_ = -1;
};

class GpuWorkers : public ClientCase {
 protected:
  void SetUp() override {
    ClientCase::SetUp();
    page_ = ::memfd_create("page", MFD_CLOEXEC);
    ASSERT_EQ(::ftruncate(page_, 4096), 0);
    server_->On(v1::METHOD_REGISTER_REGION,
                [this](const ScriptedServer::Exchange& exchange) { Register(exchange); });
    // Is told, and says nothing: the worker copies.
    server_->On(v1::METHOD_GET, [](const ScriptedServer::Exchange&) {});
    OpenConnected();
    ns_ = OpenNamespace();
    region_ = RegisterMemory();
    ASSERT_EQ(Probe(ns_, Keys("k", 1))->status, TERRACE_OK);
  }
  void TearDown() override {
    ClientCase::TearDown();
    ::close(page_);
  }

  void Register(const ScriptedServer::Exchange& exchange) {
    if (refusals_ > 0) {
      --refusals_;
      return exchange.Refuse(TERRACE_ALREADY_EXISTS, "handle: registered by another session");
    }
    TellWorker(exchange);
    v1::RegisterRegionReply reply;
    reply.set_boot_id(server_->boot_id());
    reply.set_progress_slots(1024);
    exchange.Reply(reply, page_);
  }
  // Of the region that was registered first.
  void TellWorker(const ScriptedServer::Exchange& exchange) {
    v1::GpuWorkerNotice notice;
    notice.set_region_id(1);
    WireHeader header;
    header.method = v1::METHOD_GPU_WORKER_NOTICE;
    header.kind = 3;
    header.descriptor_count = with_pidfd_ ? 1 : 0;
    exchange.Frame(header, notice.SerializeAsString(),
                   with_pidfd_ ? std::vector<int>{worker_->pidfd()} : std::vector<int>{});
  }
  terrace_region RegisterMemory() {
    const char handle[TERRACE_CUDA_HANDLE_BYTES] = {};
    terrace_region_spec spec{};
    spec.struct_bytes = sizeof(spec);
    spec.fd = -1;
    spec.bytes = 8 * kBlockBytes;
    spec.block_count = 8;
    spec.block_bytes = kBlockBytes;
    spec.memory = TERRACE_MEMORY_CUDA_IPC;
    spec.handle = handle;
    spec.allocation_bytes = spec.bytes;
    terrace_region region = 0;
    EXPECT_EQ(terrace_register_region(client_, &spec, &region), TERRACE_OK) << terrace_last_error();
    return region;
  }
  uint64_t SubmitLoad(uint32_t deadline_ms = 0) {
    const std::string keys = Keys("k", 1);
    const uint32_t block = 0;
    terrace_part part = PartOf(ns_, keys);
    part.region = region_;
    part.block_indexes = &block;
    const terrace_call call = CallOf(part, deadline_ms);
    const terrace_get_options options = Delivery(TERRACE_DELIVER_REGION);
    uint64_t id = 0;
    EXPECT_EQ(terrace_submit_get(client_, &call, &options, &id), TERRACE_OK)
        << terrace_last_error();
    return id;
  }
  // A load that the daemon knows of.
  uint64_t BeginLoad(uint32_t deadline_ms = 0) {
    const size_t before = server_->Seen(v1::METHOD_GET);
    const uint64_t id = SubmitLoad(deadline_ms);
    EXPECT_TRUE(
        ScriptedServer::Eventually([&] { return server_->Seen(v1::METHOD_GET) == before + 1; }));
    return id;
  }
  void LoseDaemon() {
    server_->Stop();
    ASSERT_TRUE(ScriptedServer::Eventually([this] {
      EXPECT_EQ(Peek(), nullptr) << "the worker lives";
      return State().connection == TERRACE_CONNECTION_DOWN || HasFailure();
    }));
  }
  terrace_status Unregister(uint32_t timeout_ms) {
    return terrace_unregister_region(client_, region_, timeout_ms);
  }

  std::unique_ptr<IdleProcess> worker_ = std::make_unique<IdleProcess>();
  int page_ = -1;
  std::atomic<int> refusals_{0};
  std::atomic<bool> with_pidfd_{true};
  terrace_namespace ns_ = 0;
  terrace_region region_ = 0;
};

TEST_F(GpuWorkers, ACallIsOverWhenTheWorkerOfADaemonThatDiedIs) {
  const uint64_t call = BeginLoad();
  ASSERT_NO_FATAL_FAILURE(LoseDaemon());
  EXPECT_EQ(State().calls_in_flight, 1U);
  EXPECT_EQ(Peek(), nullptr);
  worker_->Kill();
  const Completed done = Next();
  EXPECT_EQ(done->call_id, call);
  EXPECT_EQ(done->status, TERRACE_UNAVAILABLE);
  EXPECT_EQ(done->outcomes[0], TERRACE_GET_MISS);
  EXPECT_EQ(State().calls_in_flight, 0U);
}

TEST_F(GpuWorkers, WhoeverWatchesTheEventDescriptorHearsOfTheWorkersEnd) {
  const int fd = terrace_event_fd(client_);
  terrace_close(std::exchange(client_, nullptr));
  client_ = Open(1'000'000);  // it does not try again for as long as this test lasts
  ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK);
  ns_ = OpenNamespace();
  region_ = RegisterMemory();
  ASSERT_EQ(Probe(ns_, Keys("k", 1))->status, TERRACE_OK);
  EXPECT_GE(fd, 0);
  const int watched = terrace_event_fd(client_);
  BeginLoad();
  ASSERT_NO_FATAL_FAILURE(LoseDaemon());
  EXPECT_FALSE(Readable(watched, 0));
  worker_->Kill();
  EXPECT_TRUE(Readable(watched, kPatienceMs));
  EXPECT_EQ(Next()->status, TERRACE_UNAVAILABLE);
  EXPECT_FALSE(Readable(watched, 0)) << "nothing is left to be done";
}

TEST_F(GpuWorkers, ADeadlineEndsTheCallAndACancelTellsWhenTheMemoryIsFree) {
  const uint64_t call = BeginLoad(300);
  server_->Stop();
  const Completed expired = Next();  // wherever the client was with the daemon's end by then
  ASSERT_NO_FATAL_FAILURE(LoseDaemon());
  EXPECT_EQ(expired->call_id, call);
  EXPECT_EQ(expired->status, TERRACE_DEADLINE_EXCEEDED);
  uint64_t cancel = 0;
  ASSERT_EQ(terrace_submit_cancel(client_, call, 0, 5, &cancel), TERRACE_OK);
  EXPECT_EQ(Peek(), nullptr) << "the worker lives";
  worker_->Kill();
  const Completed cancelled = Next();
  EXPECT_EQ(cancelled->call_id, cancel);
  EXPECT_EQ(cancelled->tag, 5U);
  EXPECT_EQ(cancelled->status, TERRACE_OK);
  EXPECT_EQ(cancelled->count, 0U);
}

TEST_F(GpuWorkers, ACancelOfACallThatOutlivesItsDaemonEndsWithIt) {
  const uint64_t call = BeginLoad();
  ASSERT_NO_FATAL_FAILURE(LoseDaemon());
  ASSERT_EQ(terrace_submit_cancel(client_, call, 0, 5, nullptr), TERRACE_OK);
  EXPECT_EQ(Peek(), nullptr);
  worker_->Kill();
  EXPECT_EQ(Next()->call_id, call);
  EXPECT_EQ(Next()->verb, TERRACE_VERB_CANCEL);
}

TEST_F(GpuWorkers, AnUnregisterWaitsForTheWorkerOfADaemonThatDied) {
  ASSERT_NO_FATAL_FAILURE(LoseDaemon());
  EXPECT_EQ(Unregister(20), TERRACE_DEADLINE_EXCEEDED);
  worker_->Kill();
  EXPECT_EQ(Unregister(kPatienceMs), TERRACE_OK);
}

TEST_F(GpuWorkers, WhatTouchesNoGpuIsOverAtOnce) {
  server_->On(v1::METHOD_PROBE, [](const ScriptedServer::Exchange&) {});
  SubmitProbe(ns_, Keys("k", 1));
  server_->Stop();
  EXPECT_EQ(Next()->status, TERRACE_UNAVAILABLE);
}

TEST_F(GpuWorkers, AnotherDaemonIsUsedWhileTheWorkerOfTheFirstLives) {
  const uint64_t call = BeginLoad();
  ASSERT_NO_FATAL_FAILURE(LoseDaemon());
  const std::unique_ptr<IdleProcess> first =
      std::exchange(worker_, std::make_unique<IdleProcess>());
  server_->Start();
  ASSERT_TRUE(Advance([this] { return State().connection == TERRACE_CONNECTION_UP; }));
  EXPECT_EQ(Probe(ns_, Keys("k", 1))->status, TERRACE_OK);
  EXPECT_EQ(State().calls_in_flight, 1U);
  EXPECT_EQ(Unregister(20), TERRACE_DEADLINE_EXCEEDED) << "the first daemon's worker may copy";
  first->Kill();
  EXPECT_EQ(Next()->call_id, call) << "although the second's worker lives";
  EXPECT_EQ(Unregister(kPatienceMs), TERRACE_OK);
}

// The daemon goes on, and its worker with it: that the handle could be registered again says that
// what copied for the session before has ended.
TEST_F(GpuWorkers, ACallOfALostSessionIsOverWhenItsRegionIsRegisteredAgain) {
  const uint64_t call = BeginLoad();
  refusals_ = 3;
  server_->DropConnections();
  const Completed done = Next();
  EXPECT_EQ(done->call_id, call);
  EXPECT_EQ(done->status, TERRACE_UNAVAILABLE);
}

TEST_F(GpuWorkers, AHandleThatTheSessionBeforeStillHasIsTriedAgain) {
  refusals_ = 3;
  server_->DropConnections();
  server_->On(v1::METHOD_GET, [](const ScriptedServer::Exchange& exchange) {
    v1::GetReply reply;
    reply.set_outcomes(std::string(1, static_cast<char>(v1::GET_OUTCOME_OK)));
    reply.add_payload_bytes(kBlockBytes);
    exchange.Reply(reply);
  });
  EXPECT_TRUE(ScriptedServer::Eventually([this] {
    SubmitLoad();
    return Next()->status == TERRACE_OK && refusals_ == 0;
  }));
}

// A send that fails is the first that the client hears of the end; what the daemon said before is
// still in the socket.
TEST_F(GpuWorkers, ADaemonIsHeardOutBeforeItsSessionIsGivenUp) {
  const IdleProcess next;
  server_->On(v1::METHOD_GET, [this](const ScriptedServer::Exchange& exchange) {
    TellWorker(exchange);
    exchange.Disconnect();
  });
  const std::unique_ptr<IdleProcess> first =
      std::exchange(worker_, std::make_unique<IdleProcess>());
  first->Kill();
  BeginLoad();
  ASSERT_TRUE(ScriptedServer::Eventually([this] { return server_->connections_open() == 0; }));
  server_->Stop();
  SubmitLoad();  // which cannot be sent
  EXPECT_EQ(Peek(), nullptr) << "the worker that it told of lives";
  worker_->Kill();
  EXPECT_EQ(Next()->status, TERRACE_UNAVAILABLE);
  EXPECT_EQ(Next()->status, TERRACE_UNAVAILABLE);
}

TEST_F(GpuWorkers, ANoticeWithoutAProcessEndsTheSession) {
  with_pidfd_ = false;
  server_->DropConnections();
  EXPECT_TRUE(Advance([this] { return server_->connections_accepted() > 3; }))
      << "garbage again and again";
  with_pidfd_ = true;
}

}  // namespace
}  // namespace terrace::testing
