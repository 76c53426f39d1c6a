// rpc: the smallest calls. A probe of one absent key over a session and over gRPC, each beside an
// empty unary gRPC call.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tools/bench/block_set.h"
#include "tools/bench/daemon_process.h"
#include "tools/bench/empty_call.h"
#include "tools/bench/scenario.h"
#include "tools/bench/stopwatch.h"

namespace terrace::bench {
namespace {

constexpr uint64_t kDramBytes = uint64_t{64} << 20;
constexpr uint32_t kCallsAPair = 300;

using Call = std::function<absl::Status()>;

// Median time of a call, us.
absl::StatusOr<double> MedianOf(const Call& call) {
  std::vector<double> times;
  for (uint32_t i = 0; i < kCallsAPair; ++i) {
    const Stopwatch watch;
    if (absl::Status status = call(); !status.ok()) {
      return status;
    }
    times.push_back(watch.microseconds());
  }
  return Percentile(times, 0.5);
}

}  // namespace

absl::Status RunRpc(const BenchOptions& options, Report& report, Progress& progress) {
  absl::StatusOr<std::unique_ptr<DaemonProcess>> daemon = DaemonProcess::Start(options, kDramBytes);
  if (!daemon.ok()) {
    return daemon.status();
  }
  const std::string model = "bench/rpc/" + std::to_string(options.seed);
  absl::StatusOr<std::unique_ptr<EmptyCaller>> empty = EmptyCaller::Start();
  absl::StatusOr<std::unique_ptr<GrpcProber>> grpc =
      GrpcProber::Connect((*daemon)->runtime_dir(), model);
  absl::StatusOr<std::unique_ptr<ClientSession>> session =
      ClientSession::Connect((*daemon)->runtime_dir());
  for (const absl::Status& status : {empty.status(), grpc.status(), session.status()}) {
    if (!status.ok()) {
      return status;
    }
  }
  absl::StatusOr<terrace_namespace> ns = (*session)->OpenNamespace(model, 4096, kBenchBlockTokens);
  if (!ns.ok()) {
    return ns.status();
  }
  const std::string key = PayloadSource(options.seed).Key(0, kBenchKeyBytes);
  KeyChain chain;
  chain.ns = *ns;
  chain.keys = key;
  chain.key_bytes = kBenchKeyBytes;
  const Call calls[] = {
      [&] { return (*empty)->Call(); },
      [&] { return (*session)->Probe(chain, std::chrono::milliseconds(0)).status(); },
      [&] { return (*grpc)->Probe(key); },
  };
  std::vector<Pair> over_session;
  std::vector<Pair> over_grpc;
  progress.Begin("calling", options.pairs);
  for (uint32_t i = 0; i <= options.pairs; ++i) {
    double medians[3] = {};
    for (size_t k = 0; k < std::size(calls); ++k) {
      if (Interrupted()) {
        return absl::CancelledError("interrupted");
      }
      const absl::StatusOr<double> median = MedianOf(calls[k]);
      if (!median.ok()) {
        return median.status();
      }
      medians[k] = *median;
    }
    if (i > 0) {  // the first turn warms up
      over_session.push_back({medians[1], medians[0]});
      over_grpc.push_back({medians[2], medians[0]});
    }
    progress.Advance(i);
  }
  report.AddPairs("session_probe", "probe of one key over a session, against an empty gRPC call",
                  "us", over_session);
  report.AddPairs("grpc_probe", "probe of one key over gRPC, against an empty gRPC call", "us",
                  over_grpc);
  return absl::OkStatus();
}

}  // namespace terrace::bench
