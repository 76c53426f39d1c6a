// What a pool whose mount hangs costs those who hit DRAM and the local tier. Not a test: run by
// hand, where there is FUSE, as
//
//   hung_pool_bench [seconds a window [pairs [operation]]]
//
// One daemon with all three tiers. For each operation of the file system windows in which it hangs
// alternate with windows in which the pool is well; in both, one client gets blocks that lie in
// DRAM, and now and then one that lies on the local tier, while another puts what is published at
// once, and a third gets what only the pool has, fifty times a second. Printed: the median of the
// pairs' ratios of p99 (hanging over well), with minimum and maximum; the longest get of the first
// client; how long after its healing the pool was back; the most workers that were stuck; what the
// third got.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/doubles/sick_mount/sick_mount.h"
#include "tests/e2e/daemon/started_daemon.h"
#include "tests/e2e/shared_tier/pool_node.h"
#include "tools/bench/block_set.h"

namespace terrace {
namespace {

using Clock = std::chrono::steady_clock;
using doubles::SickMount;
using doubles::SickOp;

constexpr SickOp kOps[] = {SickOp::kOpen,  SickOp::kStat,  SickOp::kRead,    SickOp::kWrite,
                           SickOp::kFsync, SickOp::kClose, SickOp::kReaddir, SickOp::kUnlink};
constexpr uint64_t kBytes = uint64_t{256} << 10;
constexpr uint32_t kHot = 64;
constexpr uint32_t kCold = 1500;  // three times the DRAM
constexpr uint32_t kHotPerCold = 20;
// Of a neighbour. What has been got once lies on the local tier soon, so there are enough for ten
// minutes.
constexpr uint32_t kTheirs = 32'000;
constexpr uint64_t kTheirBytes = uint64_t{16} << 10;

double Microseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

double P99(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() * 99 / 100];
}

void Require(const absl::Status& status, const char* what) {
  if (!status.ok()) {
    std::fprintf(stderr, "%s: %s\n", what, status.ToString().c_str());
    std::exit(1);
  }
}

struct Window {
  std::vector<double> dram;   // microseconds of each get
  std::vector<double> local;  // likewise
  uint64_t missed = 0;        // of blocks that have to be there
};

class Bench {
 public:
  Bench(const std::string& pool, absl::Duration window) : window_(window) {
    PublishTheirs(pool);
    absl::StatusOr<std::unique_ptr<StartedDaemon>> daemon =
        StartedDaemon::Start({.dram = "128MiB", .more_config = PoolText(pool, "1300MiB")});
    Require(daemon.status(), "terraced");
    daemon_ = *std::move(daemon);
    session_ = ConnectTo(*daemon_);
    hot_ = Make(*session_, "hot", kHot);
    cold_ = Make(*session_, "cold", kCold);
    Require(hot_->Put(0, kHot, TERRACE_LEVEL_LOCAL_WRITTEN), "put");
    for (uint32_t begin = 0; begin < kCold; begin += 100) {
      Require(cold_->Put(begin, 100, TERRACE_LEVEL_LOCAL_WRITTEN), "put");
    }
    others_ = std::thread([this] { Others(); });
    reader_ = std::thread([this] { ReadTheirs(); });
  }
  ~Bench() {
    stop_ = true;
    others_.join();
    reader_.join();
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  Window Measure() {
    Window window;
    const Clock::time_point until = Clock::now() + absl::ToChronoMilliseconds(window_);
    for (uint32_t i = 0; Clock::now() < until; ++i) {
      Get(*hot_, i % kHot, window.dram, window.missed);
      if (i % kHotPerCold == 0) {
        Get(*cold_, next_cold_++ % kCold, window.local, window.missed);
      }
    }
    return window;
  }

  v1::PoolStatus Pool() {
    v1::PoolReply reply;
    grpc::ClientContext context;
    const grpc::Status status =
        v1::Admin::NewStub(daemon_->AdminChannel())->Pool(&context, {}, &reply);
    return status.ok() && reply.pools_size() == 1 ? reply.pools(0) : v1::PoolStatus();
  }

 private:
  static std::unique_ptr<bench::ClientSession> ConnectTo(const StartedDaemon& daemon) {
    auto session = bench::ClientSession::Connect(daemon.runtime_dir());
    Require(session.status(), "session");
    return *std::move(session);
  }
  static std::unique_ptr<bench::BlockSet> Make(bench::ClientSession& session,
                                               const char* name,
                                               uint32_t count,
                                               uint64_t bytes = kBytes) {
    auto set = bench::BlockSet::Create(session, {name, 1, 0, count, bytes});
    Require(set.status(), "blocks");
    return *std::move(set);
  }

  void Get(bench::BlockSet& set, uint32_t i, std::vector<double>& times, uint64_t& missed) {
    const Clock::time_point begin = Clock::now();
    absl::StatusOr<bench::Completion> got =
        session_->GetLease(set.Chain(i, 1), {}, bench::ClientSession::Pending::kWait);
    times.push_back(Microseconds(Clock::now() - begin));
    Require(got.status(), "get");
    missed += (*got)->outcomes[0] == TERRACE_GET_OK ? 0 : 1;
    Require(session_->Release((*got)->lease, {}), "release");
  }

  // By a daemon that is gone afterwards.
  static void PublishTheirs(const std::string& pool) {
    absl::StatusOr<std::unique_ptr<StartedDaemon>> daemon =
        StartedDaemon::Start({.dram = "512MiB", .more_config = PoolText(pool, "0B")});
    Require(daemon.status(), "the neighbour");
    const std::unique_ptr<bench::ClientSession> session = ConnectTo(**daemon);
    const std::unique_ptr<bench::BlockSet> theirs = Make(*session, "theirs", kTheirs, kTheirBytes);
    for (uint32_t begin = 0; begin < kTheirs; begin += 1000) {
      absl::Status put = theirs->Put(begin, 1000, TERRACE_LEVEL_POOL);
      for (int i = 0; i < 100 && !put.ok(); ++i) {  // until the pool is open
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        put = theirs->Put(begin, 1000, TERRACE_LEVEL_POOL);
      }
      Require(put, "publish");
    }
    Require((*daemon)->Stop() == 0 ? absl::OkStatus() : absl::InternalError("no clean end"),
            "stop");
  }

  // Misses while the pool hangs: that is what is measured against.
  void ReadTheirs() {
    const std::unique_ptr<bench::ClientSession> session = ConnectTo(*daemon_);
    const std::unique_ptr<bench::BlockSet> theirs = Make(*session, "theirs", kTheirs, kTheirBytes);
    for (uint32_t i = 0; !stop_; i = (i + 1) % kTheirs) {
      const absl::StatusOr<bench::Completion> got =
          session->GetLease(theirs->Chain(i, 1), {}, bench::ClientSession::Pending::kWait);
      if (got.ok() && (*got)->outcomes[0] == TERRACE_GET_OK) {
        Require(session->Release((*got)->lease, {}), "release");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  // Blocks that are published as they come.
  void Others() {
    const std::unique_ptr<bench::ClientSession> session = ConnectTo(*daemon_);
    const std::unique_ptr<bench::BlockSet> fresh = Make(*session, "fresh", 8);
    for (uint64_t turn = 1; !stop_; ++turn) {
      fresh->Renew(turn * 8);
      // Refused while nothing can be written: that is what is measured against.
      static_cast<void>(fresh->Put(0, 8));
      static_cast<void>(fresh->Delete(0, 8));
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }

  const absl::Duration window_;
  std::unique_ptr<StartedDaemon> daemon_;
  std::unique_ptr<bench::ClientSession> session_;
  std::unique_ptr<bench::BlockSet> hot_;
  std::unique_ptr<bench::BlockSet> cold_;
  uint32_t next_cold_ = 0;
  std::atomic<bool> stop_{false};
  std::thread others_;
  std::thread reader_;
};

struct Ratios {
  std::vector<double> of_pairs;
  void Print(const char* name) {
    std::sort(of_pairs.begin(), of_pairs.end());
    std::printf("  %s %.2f (%.2f to %.2f)", name, of_pairs[of_pairs.size() / 2], of_pairs.front(),
                of_pairs.back());
  }
};

void RunOp(Bench& bench, SickMount& mount, SickOp op, int pairs) {
  Ratios dram;
  Ratios local;
  double longest = 0;
  double back = 0;
  uint64_t missed = 0;
  uint64_t stuck = 0;
  const uint64_t hits_before = bench.Pool().hits();
  for (int pair = 0; pair < pairs; ++pair) {
    const Window well = bench.Measure();
    mount.Hang(op);
    const Window hung = bench.Measure();
    stuck = std::max<uint64_t>(stuck, bench.Pool().worker().stuck());
    mount.Heal();
    const Clock::time_point healed = Clock::now();
    while (bench.Pool().state() != "ready") {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    back = std::max(back, Microseconds(Clock::now() - healed) / 1e6);
    dram.of_pairs.push_back(P99(hung.dram) / P99(well.dram));
    local.of_pairs.push_back(P99(hung.local) / P99(well.local));
    longest = std::max(longest, *std::max_element(hung.dram.begin(), hung.dram.end()));
    longest = std::max(longest, *std::max_element(hung.local.begin(), hung.local.end()));
    missed += hung.missed + well.missed;
  }
  std::printf("%-8s p99 hanging over well:", std::string(NameOf(op)).c_str());
  dram.Print("DRAM");
  local.Print("local");
  std::printf(
      ";  longest get %.1f ms, missed %llu, back after %.1f s, stuck %llu, %llu got from the "
      "pool\n",
      longest / 1e3, static_cast<unsigned long long>(missed), back,
      static_cast<unsigned long long>(stuck),
      static_cast<unsigned long long>(bench.Pool().hits() - hits_before));
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 3;
  const int pairs = argc > 2 ? std::max(std::atoi(argv[2]), 1) : 20;
  const std::string only = argc > 3 ? argv[3] : "";
  absl::StatusOr<std::unique_ptr<SickMount>> mount = SickMount::Mount();
  Require(mount.status(), "mount");
  Bench bench((*mount)->path(), absl::Seconds(seconds));
  while (bench.Pool().state() != "ready") {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  static_cast<void>(bench.Measure());  // warms up
  for (const SickOp op : kOps) {
    if (only.empty() || only == NameOf(op)) {
      RunOp(bench, **mount, op, pairs);
    }
  }
  return 0;
}

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) {
  return terrace::Main(argc, argv);
}
