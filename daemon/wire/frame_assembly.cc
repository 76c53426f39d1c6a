#include "daemon/wire/frame_assembly.h"

#include <iterator>
#include <utility>

namespace terrace {
namespace {

// A buffer that once held a large frame is not kept for small ones.
constexpr size_t kKeptCapacityBytes = size_t{64} << 10;

}  // namespace

void FrameAssembly::Feed(std::string_view bytes, std::vector<Descriptor> descriptors) {
  if (view_.empty()) {
    view_ = bytes;
    view_in_kept_ = false;
  } else {
    Retain();
    kept_.append(bytes);
    view_ = kept_;
  }
  queue_.insert(queue_.end(),
                std::make_move_iterator(descriptors.begin()),
                std::make_move_iterator(descriptors.end()));
}

FrameAssembly::Step FrameAssembly::Break(std::string_view field) {
  broken_field_ = field;
  queue_.clear();
  descriptors_.clear();
  return Step::kBroken;
}

FrameAssembly::Step FrameAssembly::Next(Frame* out) {
  if (!broken_field_.empty()) {
    return Step::kBroken;
  }
  if (!header_read_ && view_.size() >= kFrameHeaderBytes) {
    header_ = DecodeFrameHeader(view_);
    out->header = header_;
    if (const char* field = BrokenRequestField(header_, max_payload_bytes_); field != nullptr) {
      return Break(field);
    }
    if (header_.descriptor_count > queue_.size()) {
      return Break("descriptor_count");
    }
    const auto end = queue_.begin() + header_.descriptor_count;
    descriptors_.assign(std::make_move_iterator(queue_.begin()), std::make_move_iterator(end));
    queue_.erase(queue_.begin(), end);
    header_read_ = true;
  }
  if (!HasWhole()) {
    // Descriptors come with a frame's first byte, so those left over can only belong to a header that is still short.
    const bool header_begun = !header_read_ && !view_.empty();
    if (!queue_.empty() && !header_begun) {
      out->header = header_read_ ? header_ : FrameHeader{};
      return Break("descriptor_count");
    }
    return Step::kNeedMore;
  }
  out->header = header_;
  out->payload = view_.substr(kFrameHeaderBytes, header_.payload_bytes);
  out->descriptors = std::exchange(descriptors_, {});
  view_.remove_prefix(kFrameHeaderBytes + header_.payload_bytes);
  header_read_ = false;
  return Step::kFrame;
}

bool FrameAssembly::HasWhole() const {
  if (header_read_) {
    return view_.size() >= kFrameHeaderBytes + size_t{header_.payload_bytes};
  }
  return view_.size() >= kFrameHeaderBytes;
}

void FrameAssembly::Retain() {
  if (view_.empty()) {
    if (kept_.capacity() > kKeptCapacityBytes) {
      kept_ = std::string();
    }
    kept_.clear();
    view_ = {};
    view_in_kept_ = true;
    return;
  }
  if (view_in_kept_) {
    kept_.erase(0, kept_.size() - view_.size());
  } else {
    kept_.assign(view_);
  }
  view_ = kept_;
  view_in_kept_ = true;
}

}  // namespace terrace
