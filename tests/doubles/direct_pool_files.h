// PoolFiles that make a call at once, on the thread that submits it: everything moves only when the
// test says so.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"

#include "tiers/os/file_system.h"
#include "tiers/os/rooted_files.h"
#include "tiers/shared/pool_call.h"
#include "tiers/shared/pool_files.h"

namespace terrace::doubles {

// Confined to one thread, which runs everything else as well.
class DirectPoolFiles final : public PoolFiles {
 public:
  explicit DirectPoolFiles(RootedFiles& files, uint64_t buffer_bytes = uint64_t{64} << 20)
      : files_(files), room_(std::make_shared<uint64_t>(buffer_bytes)), bytes_(buffer_bytes) {}

  std::shared_ptr<PoolBuffer> TakeBuffer(uint64_t bytes) override {
    const uint64_t rounded = (std::max<uint64_t>(bytes, 1) + 4095) / 4096 * 4096;
    if (rounded > *room_) {
      return nullptr;
    }
    *room_ -= rounded;
    return std::make_shared<Buffer>(rounded, room_);
  }
  [[nodiscard]] uint64_t max_buffer_bytes() const override { return bytes_; }

  void Submit(PoolCall call, std::function<void(PoolReply)> done) override {
    PoolReply reply;
    reply.status = CheckPoolCall(call);
    if (stopped_) {
      reply.status = absl::CancelledError("stopped");
    } else if (!answer_.ok()) {
      reply.status = answer_;
    } else if (reply.status.ok()) {
      ++figures_.calls[static_cast<size_t>(call.op)];
      reply = RunPoolCall(files_, call,
                          call.buffer == nullptr ? absl::Span<char>() : call.buffer->memory());
    }
    call.buffer.reset();
    done(std::move(reply));
  }
  void Stop() override { stopped_ = true; }
  [[nodiscard]] PoolFilesFigures figures() const override { return figures_; }

  // What every call answers without being made; OK: they are made.
  void Answer(absl::Status status) { answer_ = std::move(status); }

 private:
  class Buffer final : public PoolBuffer {
   public:
    Buffer(uint64_t bytes, std::shared_ptr<uint64_t> room)
        : memory_(bytes), room_(std::move(room)) {}
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() override { *room_ += memory_.size(); }
    [[nodiscard]] absl::Span<char> memory() const override { return memory_.span(); }

   private:
    const AlignedBuffer memory_;
    const std::shared_ptr<uint64_t> room_;  // owners: the files and their buffers
  };

  RootedFiles& files_;
  const std::shared_ptr<uint64_t> room_;
  const uint64_t bytes_;
  bool stopped_ = false;
  absl::Status answer_;
  PoolFilesFigures figures_;
};

}  // namespace terrace::doubles
