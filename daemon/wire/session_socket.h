// The socket of one session: reading by its I/O thread, sending by whoever has an answer.
//
// A reply is written at once by the thread that made it. What the kernel does not take stays in a
// backlog, and the epoll set of the I/O thread says when to go on. The lock is held over sends,
// which never wait: the socket is non-blocking. While the I/O thread works through a batch of
// requests it corks the socket, so that their replies leave together.
//
// Limits: beyond backlog_limit bytes, what is being made included, no more requests are read; when
// twice that waits, and on any error, the socket has failed, and is of no more use. The peer does
// not see that: what it takes for the end of its session is for the session to say, by letting go
// of the descriptor.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "google/protobuf/message_lite.h"

#include "daemon/wire/frame.h"
#include "tiers/os/descriptor.h"
#include "tiers/vocab/clock.h"

namespace terrace {

class SessionSocket {
 public:
  struct Options {
    Descriptor socket;  // connected, non-blocking
    int epoll = -1;     // of the I/O thread; outlives Leave
    uint64_t epoll_key = 0;
    uint64_t backlog_limit = 0;
    const Clock* clock = nullptr;
  };
  explicit SessionSocket(Options options);

  // ---- I/O thread
  // Enters the epoll set.
  absl::Status Watch();
  enum class ReadResult : uint8_t { kBytes, kNothing, kEnd, kBroken };
  // One read of at most buffer.size() bytes. kEnd: the peer has closed. kBroken: an error, or descriptors beyond
  // kMaxFrameDescriptors, all of which are closed.
  ReadResult Read(absl::Span<char> buffer, size_t* bytes, std::vector<Descriptor>* descriptors);
  void Cork();
  void Uncork();
  void OnWritable();
  // Whether requests may be read now: not while more than backlog_limit bytes wait or are being
  // made, for when that changes OnWritable is called; and never again when it has failed.
  bool MayRead();
  // Leaves the epoll set. The peer sees the end when the descriptor goes; sends do nothing from now
  // on. Invalid the second time.
  Descriptor Leave();
  // The peer has closed, or has shut down both ways. Until the descriptor goes.
  [[nodiscard]] bool PeerHasGone() const;
  [[nodiscard]] int get() const { return socket_number_; }

  // ---- any thread
  // Serialises `message` behind `header` (whose payload_bytes and descriptor_count are set here) and sends.
  void Send(FrameHeader header, const google::protobuf::MessageLite& message, Descriptor descriptor);
  // A reply of up to so many bytes is being made; the same number goes to Made when it has been sent or given up.
  void Expect(uint64_t bytes);
  void Made(uint64_t bytes);
  // The session is to be ended; nobody wakes the I/O thread to say so.
  [[nodiscard]] bool failed() const;
  // Bytes that the peer has not taken.
  [[nodiscard]] uint64_t backlog() const;
  // For how long the peer has taken nothing although something waits for it.
  [[nodiscard]] absl::Duration StalledFor(absl::Duration now) const;

 private:
  struct Attached {
    uint64_t offset;  // in out_, of the first byte of its frame
    Descriptor descriptor;
  };

  void FlushLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Bytes sent; 0: would block; negative: failed.
  ssize_t SendSomeLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropSentLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetBlockedLocked(bool blocked) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ArmLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FailLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] uint32_t WantedLocked() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] uint64_t BacklogLocked() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return out_.size() - sent_;
  }

  const int epoll_;
  const uint64_t epoll_key_;
  const uint64_t backlog_limit_;
  const Clock& clock_;
  const int socket_number_;

  mutable absl::Mutex mutex_;
  // Taken by the I/O thread alone, which may thus read without the lock.
  Descriptor socket_ ABSL_GUARDED_BY(mutex_);
  std::string out_ ABSL_GUARDED_BY(mutex_);
  uint64_t sent_ ABSL_GUARDED_BY(mutex_) = 0;  // of out_
  uint64_t expected_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<Attached> attached_ ABSL_GUARDED_BY(mutex_);
  bool corked_ ABSL_GUARDED_BY(mutex_) = false;
  bool blocked_ ABSL_GUARDED_BY(mutex_) = false;
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;
  bool nudged_ ABSL_GUARDED_BY(mutex_) = false;  // EPOLLOUT is wanted although nothing waits
  bool failed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration progress_at_ ABSL_GUARDED_BY(mutex_);  // while blocked_: when the peer last took something
};

}  // namespace terrace
