#include "tiers/gpu/transfer_state.h"

#include <algorithm>

namespace terrace {

uint64_t TransferState::NextBytes(uint64_t limit) const {
  const std::vector<cuda::CopyRange>& pieces = transfer_.plan.pieces;
  uint64_t bytes = 0;
  for (size_t i = piece_; i < pieces.size() && paths_[i] == paths_[piece_]; ++i) {
    bytes += pieces[i].bytes - (i == piece_ ? piece_offset_ : 0);
    if (bytes >= limit) {
      return limit;
    }
  }
  return bytes;
}

std::shared_ptr<TransferBatch> TransferState::TakeBatch(const BatchLimits& limits) {
  const std::vector<cuda::CopyRange>& pieces = transfer_.plan.pieces;
  auto batch = std::make_shared<TransferBatch>();
  batch->path = paths_[piece_];
  while (piece_ < pieces.size() && paths_[piece_] == batch->path && batch->bytes < limits.bytes &&
         batch->copies.size() < limits.copies) {
    const cuda::CopyRange& piece = pieces[piece_];
    const uint64_t bytes = std::min(piece.bytes - piece_offset_, limits.bytes - batch->bytes);
    batch->copies.push_back({piece.device + piece_offset_, piece.host + piece_offset_, bytes});
    batch->bytes += bytes;
    piece_offset_ += bytes;
    if (piece_offset_ == piece.bytes) {
      ++piece_;
      piece_offset_ = 0;
    }
  }
  batch->pieces_before_end = piece_;
  outstanding_.push_back(batch);
  ++not_enqueued_;
  return batch;
}

void TransferState::Landed(TransferBatch& batch) {
  batch.landed = true;
  size_t landed_pieces = 0;
  while (!outstanding_.empty() && outstanding_.front()->landed) {
    landed_pieces = outstanding_.front()->pieces_before_end;
    outstanding_.pop_front();
  }
  // What was abandoned has not arrived: a counter that stands still is right for it.
  if (abandoned_ || landed_pieces == 0) {
    return;
  }
  const std::vector<uint32_t>& ends = transfer_.plan.layer_ends;
  while (layers_ < ends.size() && ends[layers_] <= landed_pieces) {
    ++layers_;
  }
  if (transfer_.layers_landed != nullptr) {
    // Pairs with the acquiring load of whoever reads the layers.
    transfer_.layers_landed->store(layers_, std::memory_order_release);
  }
}

}  // namespace terrace
