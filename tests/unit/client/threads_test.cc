// Several threads submit and drain at once; a forked child keeps its hands off.
#include <sys/wait.h>

#include <atomic>
#include <mutex>
#include <set>
#include <thread>

#include "tests/unit/client/client_case.h"

namespace terrace::testing {
namespace {

class Threads : public ClientCase {
 protected:
  void SetUp() override {
    ClientCase::SetUp();
    OpenConnected();
    ns_ = OpenNamespace();
    ASSERT_EQ(Put(ns_, keys_, std::string(kBlockBytes, 'P'))->status, TERRACE_OK);
  }
  terrace_namespace ns_ = 0;
  const std::string keys_ = Keys("k", 1);
};

TEST_F(Threads, EveryCallSubmittedByOneOfThemCompletesOnceInOne) {
  constexpr int kThreads = 4;
  constexpr uint32_t kCallsEach = 500;
  std::mutex mutex;
  std::multiset<uint64_t> tags;
  std::atomic<uint32_t> completed{0};
  std::atomic<int> wrong{0};
  const auto work = [&](uint64_t number) {
    uint32_t submitted = 0;
    while (submitted < kCallsEach || completed < kThreads * kCallsEach) {
      if (submitted < kCallsEach) {
        terrace_part part = PartOf(ns_, keys_);
        terrace_call call{};
        call.struct_bytes = sizeof(call);
        call.tag = number * kCallsEach + submitted + 1;
        call.parts = &part;
        call.part_count = 1;
        const terrace_get_options options = Delivery(TERRACE_DELIVER_LEASE);
        const terrace_status status = submitted % 2 == 0
                                          ? terrace_submit_get(client_, &call, &options, nullptr)
                                          : terrace_submit_probe(client_, &call, 0, 0, nullptr);
        submitted += status == TERRACE_OK ? 1 : 0;
      }
      terrace_completion* done[3];
      const uint32_t count = terrace_drain(client_, done, 3, submitted < kCallsEach ? 0 : 1);
      for (uint32_t i = 0; i < count; ++i) {
        wrong += done[i]->status == TERRACE_OK ? 0 : 1;
        if (done[i]->verb == TERRACE_VERB_GET) {
          wrong += done[i]->outcomes[0] == TERRACE_GET_OK &&
                           static_cast<const char*>(done[i]->data[0])[kBlockBytes - 1] == 'P'
                       ? 0
                       : 1;
          terrace_submit_release(client_, &done[i]->lease, 1, nullptr, 0, 0, nullptr);
        }
        {
          const std::lock_guard<std::mutex> lock(mutex);
          tags.insert(done[i]->tag);
        }
        terrace_completion_free(done[i]);
        ++completed;
      }
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back(work, static_cast<uint64_t>(i));
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(tags.size(), kThreads * kCallsEach);
  EXPECT_EQ(std::set<uint64_t>(tags.begin(), tags.end()).size(), tags.size());
  EXPECT_TRUE(Advance([&] { return server_->live_leases() == 0; }));
}

TEST_F(Threads, AWaitingDrainGetsWhatAnotherThreadLeaves) {
  // Two answers come in one packet; the thread that reads them takes one, the other must wake for
  // the rest.
  std::vector<ScriptedServer::Exchange> kept;
  server_->On(v1::METHOD_PROBE, [&](const ScriptedServer::Exchange& exchange) {
    kept.push_back(exchange);
    if (kept.size() == 2) {
      v1::ProbeReply reply;
      reply.set_states(std::string(1, '\0'));
      const std::string message = reply.SerializeAsString();
      std::string packet;
      for (const auto& one : kept) {
        WireHeader header;
        header.payload_bytes = static_cast<uint32_t>(message.size());
        header.method = one.header.method;
        header.kind = 2;
        header.call_id = one.header.call_id;
        packet += EncodeWireHeader(header) + message;
      }
      exchange.Raw(packet);
    }
  });
  std::atomic<int> drained{0};
  const auto wait = [&] {
    terrace_completion* completion = nullptr;
    drained += static_cast<int>(terrace_drain(client_, &completion, 1, kPatienceMs));
    terrace_completion_free(completion);
  };
  std::thread first(wait);
  std::thread second(wait);
  SubmitProbe(ns_, keys_);
  SubmitProbe(ns_, keys_);
  first.join();
  second.join();
  EXPECT_EQ(drained, 2);
}

TEST_F(Threads, AnEarlierDeadlineWakesAWaitingDrain) {
  server_->On(v1::METHOD_PROBE, [](const ScriptedServer::Exchange&) {});
  Completed expired;
  std::thread waiter([&] { expired = Next(); });
  SubmitProbe(ns_, keys_, 50);
  waiter.join();
  ASSERT_NE(expired, nullptr);
  EXPECT_EQ(expired->status, TERRACE_DEADLINE_EXCEEDED);
}

TEST_F(Threads, AMissAtOnceWakesAWaitingDrain) {
  server_->Stop();
  ASSERT_TRUE(Advance([&] { return State().connection == TERRACE_CONNECTION_DOWN; }));
  Completed missed;
  std::thread waiter([&] { missed = Next(); });
  SubmitProbe(ns_, keys_);
  waiter.join();
  ASSERT_NE(missed, nullptr);
  EXPECT_EQ(missed->status, TERRACE_UNAVAILABLE);
}

TEST_F(Threads, RestartsUnderLoadLoseNoCompletion) {
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> submitted{0};
  std::atomic<uint64_t> completed{0};
  std::atomic<int> wrong{0};
  const auto work = [&] {
    while (!stop || completed < submitted) {
      if (!stop) {
        const terrace_part part = PartOf(ns_, keys_);
        terrace_call call{};
        call.struct_bytes = sizeof(call);
        call.parts = &part;
        call.part_count = 1;
        const terrace_get_options options = Delivery(TERRACE_DELIVER_LEASE);
        submitted += terrace_submit_get(client_, &call, &options, nullptr) == TERRACE_OK ? 1 : 0;
      }
      terrace_completion* done[4];
      const uint32_t count = terrace_drain(client_, done, 4, 1);
      for (uint32_t i = 0; i < count; ++i) {
        if (done[i]->status == TERRACE_OK && done[i]->outcomes[0] == TERRACE_GET_OK) {
          wrong += static_cast<const char*>(done[i]->data[0])[0] == 'P' ? 0 : 1;
          terrace_submit_release(client_, &done[i]->lease, 1, nullptr, 0, 0, nullptr);
        }
        terrace_completion_free(done[i]);
      }
      completed += count;
    }
  };
  std::thread first(work);
  std::thread second(work);
  for (int i = 0; i < 10; ++i) {
    const uint64_t goal = completed + 20;
    EXPECT_TRUE(ScriptedServer::Eventually([&] { return completed >= goal; }));
    if (i % 2 == 0) {
      server_->DropConnections();
    } else {
      server_->Start();
    }
  }
  stop = true;
  first.join();
  second.join();
  EXPECT_EQ(completed, submitted);
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(State().leased_bytes, 0U);
}

TEST_F(Threads, AForkedChildIsRefusedAndDoesNotDisturbItsParent) {
  const Completed get = LeaseGet(ns_, keys_);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const terrace_part part = PartOf(ns_, keys_);
    const terrace_call call = CallOf(part);
    const terrace_get_options options = Delivery(TERRACE_DELIVER_LEASE);
    const terrace_namespace_record record = Record("child");
    terrace_namespace ns = 0;
    terrace_client_state state{};
    state.struct_bytes = sizeof(state);
    terrace_completion* none = nullptr;
    const bool refused =
        terrace_submit_get(client_, &call, &options, nullptr) == TERRACE_FAILED_PRECONDITION &&
        terrace_submit_probe(client_, &call, 0, 0, nullptr) == TERRACE_FAILED_PRECONDITION &&
        terrace_submit_release(client_, &get->lease, 1, nullptr, 0, 0, nullptr) ==
            TERRACE_FAILED_PRECONDITION &&
        terrace_submit_cancel(client_, 1, 0, 0, nullptr) == TERRACE_FAILED_PRECONDITION &&
        terrace_open_namespace(client_, &record, &ns) == TERRACE_FAILED_PRECONDITION &&
        terrace_unregister_region(client_, 1, 0) == TERRACE_FAILED_PRECONDITION &&
        terrace_state(client_, &state) == TERRACE_FAILED_PRECONDITION &&
        terrace_wait_connected(client_, 0) == TERRACE_FAILED_PRECONDITION &&
        terrace_drain(client_, &none, 1, 0) == 0 && terrace_event_fd(client_) == -1;
    terrace_close(client_);
    ::_exit(refused ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << terrace_last_error();
  EXPECT_EQ(server_->live_leases(), 1U);
  EXPECT_EQ(static_cast<const char*>(get->data[0])[0], 'P');
  EXPECT_EQ(Probe(ns_, keys_)->status, TERRACE_OK);
  EXPECT_EQ(State().reconnects, 0U);
  EXPECT_EQ(Release(get->lease), TERRACE_OK);
}

}  // namespace
}  // namespace terrace::testing
