// One connection to session.sock: sends frames without blocking and queues what the socket does not
// take, receives frames with their descriptors.
//
// Thread-compatible. Limits: what is queued is bounded by the caller, who asks backlog_bytes()
// first; a received frame by kMaxMessageBytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "client/src/descriptor.h"
#include "client/src/frame.h"

namespace terrace::client {

// A frame as it was received; `message` is valid until the next Receive.
struct ReceivedFrame {
  FrameHeader header;
  std::string_view message;
  std::array<Descriptor, kMaxFrameDescriptors> descriptors;  // the first header.descriptor_count
};

class Link {
 public:
  // Connects; returns 0 or an errno (EAGAIN: the daemon's accept queue is full). Never blocks.
  int Connect(const std::string& path);
  // Ends the connection; also wakes whoever polls it. Queued frames are dropped.
  void Close();
  // Ends it for this side alone: nothing more is sent, queued frames are dropped, and the socket
  // tells when the other end closes.
  Descriptor Part();

  [[nodiscard]] bool connected() const { return socket_.valid(); }
  // Receive has come to the other end's close.
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] int fd() const { return socket_.get(); }
  [[nodiscard]] size_t backlog_bytes() const { return backlog_bytes_; }

  // Sends one frame, or queues what the socket does not take. False: the connection is lost.
  //   passed   -1, or the descriptor that goes with it; borrowed
  bool Send(std::string_view frame, int passed);
  // Sends what is queued, as far as the socket takes it. False: the connection is lost.
  bool Flush();

  enum class Received { kSome, kNothing, kLost };
  // One recvmsg. *drained: the socket had no more than what was read.
  Received Receive(bool* drained);

  enum class Next { kFrame, kIncomplete, kGarbage };
  // Takes the next complete frame out of what was received.
  Next NextFrame(ReceivedFrame* frame);

 private:
  struct Queued {
    std::string bytes;
    size_t sent = 0;
    Descriptor passed;  // goes with the first byte; closed once that is sent
  };
  enum class Written { kAll, kPart, kLost };
  Written Write(std::string_view bytes, int passed, size_t* written);
  bool Enqueue(std::string_view bytes, int passed);
  void Forget();
  void MakeRoom();

  Descriptor socket_;
  bool ended_ = false;
  std::deque<Queued> queue_;
  size_t backlog_bytes_ = 0;
  std::vector<char> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  std::deque<Descriptor> arrived_;  // in order, not yet taken by a frame
};

}  // namespace terrace::client
