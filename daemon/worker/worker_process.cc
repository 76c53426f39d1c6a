#include "daemon/worker/worker_process.h"

#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <semaphore>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "daemon/worker/worker_channel.h"
#include "daemon/worker/worker_frame.h"
#include "daemon/worker/worker_setup.h"
#include "tiers/os/descriptor.h"
#include "tiers/os/rooted_files.h"
#include "tiers/shared/pool_call.h"

namespace terrace {
namespace {

constexpr uint32_t kMaxThreads = 256;
// Transfers that the file system has at a time. The core sends more, so that whoever ends takes the
// next without asking: transfers that began side by side end side by side, and the way to the core
// and back is long while it checks what they brought.
constexpr ptrdiff_t kMaxTransfers = 8;
constexpr uint64_t kTransferBytes = uint64_t{256} << 10;  // and what is smaller waits for nobody

class Worker {
 public:
  Worker(WorkerChannel channel,
         Mapping memory,
         std::unique_ptr<RootedFiles> files,
         uint32_t threads)
      : channel_(std::move(channel)),
        memory_(std::move(memory)),
        files_(std::move(files)),
        max_threads_(std::clamp(threads, 1U, kMaxThreads)) {}

  [[noreturn]] void Serve() {
    std::string room(kMaxWorkerPacket, '\0');
    for (;;) {
      ++idle_;
      const absl::StatusOr<ReceivedPacket> packet =
          channel_.Receive(absl::MakeSpan(room), Waiting::kWait);
      if (--idle_ == 0) {
        StartAnother();
      }
      if (!packet.ok() || packet->bytes.empty()) {
        LeaveWorker(packet.ok() ? 0 : kWorkerBroken);
      }
      const std::optional<WorkerRequest> request = DecodeRequest(packet->bytes);
      if (!request.has_value()) {
        LeaveWorker(kWorkerBroken);
      }
      for (const std::string& part : EncodeReply(request->call, Answer(*request))) {
        if (!channel_.Send(part, Waiting::kWait).ok()) {
          LeaveWorker(0);
        }
      }
    }
  }

 private:
  void StartAnother() {
    if (threads_.fetch_add(1) >= max_threads_) {
      --threads_;
      return;
    }
    std::thread([this] { Serve(); }).detach();
  }

  PoolReply Answer(const WorkerRequest& request) {
    PoolCall call;
    call.op = request.op;
    call.path = request.path;
    call.offset = request.offset;
    call.length = request.length;
    call.how = request.how;
    PoolReply reply;
    reply.status = CheckPoolOperands(call);
    if (!reply.status.ok()) {
      return reply;
    }
    const bool within =
        request.memory_offset <= memory_.size() &&
        (!UsesBuffer(call.op) || call.length <= memory_.size() - request.memory_offset);
    if (!within) {
      reply.status = absl::InvalidArgumentError("buffer: beyond the memory");
      return reply;
    }
    char* const begin = memory_.data() + request.memory_offset;
    const absl::Span<char> buffer(begin, UsesBuffer(call.op) ? call.length : 0);
    if (buffer.size() < kTransferBytes) {
      return RunPoolCall(*files_, call, buffer);
    }
    transfers_.acquire();
    reply = RunPoolCall(*files_, call, buffer);
    transfers_.release();
    return reply;
  }

  const WorkerChannel channel_;
  const Mapping memory_;
  const std::unique_ptr<RootedFiles> files_;
  const uint32_t max_threads_;
  std::counting_semaphore<> transfers_{kMaxTransfers};
  std::atomic<uint32_t> threads_{1};
  std::atomic<uint32_t> idle_{0};
};

// Opens the root, and finds which folder that is.
absl::StatusOr<std::unique_ptr<RootedFiles>> OpenRoot(const std::string& root, uint64_t* inode) {
  absl::StatusOr<std::unique_ptr<RootedFiles>> files = OpenRootedFiles(root);
  if (!files.ok()) {
    return files.status();
  }
  struct stat status {};
  if (stat(root.c_str(), &status) != 0) {
    return absl::UnavailableError("the root is gone again");
  }
  *inode = status.st_ino;
  if (absl::Status same = (*files)->CheckRoot(); !same.ok()) {
    return same;
  }
  return files;
}

// Returns only what went wrong.
absl::Status Begin() {
  WorkerChannel channel{Descriptor(kWorkerSocket)};
  std::string room(kMaxWorkerPacket, '\0');
  absl::StatusOr<ReceivedPacket> packet = channel.Receive(absl::MakeSpan(room), Waiting::kWait);
  if (!packet.ok()) {
    return packet.status();
  }
  const std::optional<WorkerGreeting> greeting = DecodeGreeting(packet->bytes);
  if (!greeting.has_value() || !packet->passed.valid()) {
    return absl::InvalidArgumentError("the other side of the socket is not a core");
  }
  absl::StatusOr<Mapping> memory =
      Mapping::Map(packet->passed.get(), 0, greeting->memory_bytes, MapAccess::kReadWrite);
  if (!memory.ok()) {
    return memory.status();
  }
  packet->passed = Descriptor();
  LetGoOfWorkersLog();
  WorkerReady ready;
  absl::StatusOr<std::unique_ptr<RootedFiles>> files = OpenRoot(greeting->root, &ready.root_inode);
  ready.status = files.status();
  if (absl::Status sent = channel.Send(EncodeReady(ready), Waiting::kWait); !sent.ok()) {
    return sent;
  }
  if (!files.ok()) {
    LeaveWorker(0);  // the core knows, and says it
  }
  // Lives as long as the process, because its threads do.
  Worker* const worker =
      new Worker(std::move(channel), *std::move(memory), *std::move(files), greeting->max_calls);
  worker->Serve();
}

}  // namespace

int RunSharedWorker(const std::string& name) {
  if (!IsWorkerSocket()) {
    return SayWorkersAreStartedByTerraced();
  }
  SetUpWorker("pool " + name);
  const absl::Status begun = Begin();
  std::fprintf(stderr, "terraced: worker of shared tier %s: %s\n", name.c_str(),
               std::string(begun.message()).c_str());
  return kWorkerBroken;
}

}  // namespace terrace
