// Where one transfer of the copy engine stands: what of it has been begun, in which batches, and
// what has landed. Pure: no driver, no thread. Confined to the engine's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "tiers/gpu/copy_engine.h"

namespace terrace {

// How much a batch may hold.
struct BatchLimits {
  uint64_t bytes = 0;
  size_t copies = 0;
};

// A share of a transfer that goes to the driver as one.
struct TransferBatch {
  std::vector<cuda::CopyRange> copies;
  uint64_t bytes = 0;
  HostPath path = HostPath::kDirect;
  size_t pieces_before_end = 0;  // that lie wholly in this batch or earlier ones
  bool landed = false;
};

class TransferState {
 public:
  // `paths`: of every piece.
  TransferState(uint64_t token,
                DeviceTransfer transfer,
                std::vector<HostPath> paths,
                std::function<void(absl::Status)> done)
      : token_(token),
        transfer_(std::move(transfer)),
        paths_(std::move(paths)),
        done_(std::move(done)) {}

  [[nodiscard]] uint64_t token() const { return token_; }
  [[nodiscard]] const DeviceTransfer& transfer() const { return transfer_; }

  [[nodiscard]] bool AllBegun() const { return piece_ == transfer_.plan.pieces.size(); }
  // Of the next batch; there is one.
  [[nodiscard]] HostPath NextPath() const { return paths_[piece_]; }
  // What is left to begin, up to `limit` bytes.
  [[nodiscard]] uint64_t NextBytes(uint64_t limit) const;
  // Takes the next pieces that are reached alike; a piece that does not fit is split.
  std::shared_ptr<TransferBatch> TakeBatch(const BatchLimits& limits);

  // A batch of it has landed, or will not be copied any more. Tells the client's counter.
  void Landed(TransferBatch& batch);
  // A batch has been given to the driver; whether it was the last.
  bool Enqueued() { return --not_enqueued_ == 0 && AllBegun(); }
  [[nodiscard]] bool NothingOutstanding() const { return outstanding_.empty(); }

  // Nothing more of it is begun, and what lands of it is not counted.
  void Abandon() { abandoned_ = true; }
  [[nodiscard]] bool abandoned() const { return abandoned_; }
  // As Abandon, for a reason of its own.
  void Refuse(absl::Status why) {
    abandoned_ = true;
    refusal_ = std::move(why);
  }
  [[nodiscard]] const absl::Status& refusal() const { return refusal_; }
  // Its small pieces are.
  void Gather() { gathers_ = true; }
  [[nodiscard]] bool gathers() const { return gathers_; }
  [[nodiscard]] bool gate_open() const { return gate_open_; }
  void OpenGate() { gate_open_ = true; }
  std::function<void(absl::Status)> TakeDone() { return std::move(done_); }

 private:
  const uint64_t token_;
  const DeviceTransfer transfer_;
  const std::vector<HostPath> paths_;
  std::function<void(absl::Status)> done_;

  size_t piece_ = 0;  // the next to begin, and how far it has been begun
  uint64_t piece_offset_ = 0;
  std::deque<std::shared_ptr<TransferBatch>> outstanding_;  // in their order
  size_t not_enqueued_ = 0;                                 // of them
  uint32_t layers_ = 0;                                     // landed
  bool abandoned_ = false;
  absl::Status refusal_;
  bool gate_open_ = false;
  bool gathers_ = false;
};

}  // namespace terrace
