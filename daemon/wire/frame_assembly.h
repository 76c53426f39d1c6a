// Puts a session's byte stream and the descriptors that came with it together into frames.
//
// The kernel hands out descriptors with the first byte of the write that carried them, and never reads on past such a
// write; so they form a queue, in the order of the frames, from which each header takes as many as it announces.
// Anything else breaks the stream: too few, or some that no frame has asked for.
//
// Memory: bytes are kept as they arrive, never reserved by what a header claims; at most one frame and one read beyond.
// Thread-compatible: confined to the session's I/O thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/wire/frame.h"
#include "tiers/os/descriptor.h"

namespace terrace {

struct Frame {
  FrameHeader header;
  std::string_view payload;  // valid until the next call of Feed or Retain
  std::vector<Descriptor> descriptors;
};

class FrameAssembly {
 public:
  enum class Step : uint8_t { kFrame, kNeedMore, kBroken };

  explicit FrameAssembly(uint32_t max_payload_bytes) : max_payload_bytes_(max_payload_bytes) {}

  // What one read brought. `bytes` are borrowed until Retain.
  void Feed(std::string_view bytes, std::vector<Descriptor> descriptors);
  // The next complete frame. kBroken is final: broken_field() names what was wrong, *out then holds the header as far
  // as it was read.
  Step Next(Frame* out);
  // Keeps what Next has not consumed; to be called after each Feed before its bytes go away.
  void Retain();

  // True when Next may still have a frame although nothing new was fed.
  [[nodiscard]] bool HasWhole() const;
  // Bytes of a frame that has begun and is not complete.
  [[nodiscard]] size_t pending_bytes() const { return view_.size(); }
  [[nodiscard]] std::string_view broken_field() const { return broken_field_; }

 private:
  Step Break(std::string_view field);

  const uint32_t max_payload_bytes_;
  std::string kept_;
  std::string_view view_;  // what is to be read: in kept_ or in the bytes fed
  bool view_in_kept_ = true;
  std::vector<Descriptor> queue_;           // of frames whose header is still to be read
  bool header_read_ = false;                // of the frame at view_'s front
  FrameHeader header_;
  std::vector<Descriptor> descriptors_;     // of that frame
  std::string broken_field_;
};

}  // namespace terrace
