// A router as far as KV events go: it subscribes to a publisher, asks for what it missed, and knows
// which blocks are where. Understands both formats of vLLM, and insists on what vLLM promises.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"

#include "tests/doubles/msgpack_value.h"

namespace terrace::doubles {

// A BlockStored, BlockRemoved or AllBlocksCleared as it came.
struct HeardEvent {
  std::string type;
  std::vector<std::string> hashes;  // numbers in decimal, bytes as they are
  std::string parent;               // likewise; "": nil
  std::vector<uint32_t> tokens;
  uint64_t block_size = 0;
  std::string medium;
  std::string lora_name;
  uint64_t group = 0;
  std::string spec_kind;
  MsgpackValue extra_keys;
};

// Of a message: nullopt and a failure of the test where it is not as vLLM would write it.
std::vector<HeardEvent> HeardIn(std::string_view batch);
// As a router names the hash of an event that tells numbers.
std::string LowBitsOf(std::string_view hash);

// Thread-compatible.
class RouterDouble {
 public:
  struct Options {
    std::string endpoint;
    std::string replay_endpoint;  // "": it cannot ask
    std::string topic;
    int high_water_mark = 0;  // of its own queue, messages; 0: no limit
  };
  explicit RouterDouble(const Options& options);
  RouterDouble(const RouterDouble&) = delete;
  RouterDouble& operator=(const RouterDouble&) = delete;
  ~RouterDouble();

  // One message, if one comes within `wait`. A gap before it is closed by a replay.
  bool Hear(absl::Duration wait = absl::Milliseconds(20));
  // Asks for everything from the next sequence on. False: no end within a minute.
  bool CatchUp();

  // By (group, hash): the media at which it is.
  using Blocks = std::map<std::pair<uint64_t, std::string>, std::set<std::string>>;
  [[nodiscard]] const Blocks& blocks() const { return blocks_; }
  [[nodiscard]] std::set<std::string> MediaOf(const std::string& hash, uint64_t group = 0) const;
  [[nodiscard]] uint64_t next() const { return next_; }    // sequence
  [[nodiscard]] uint64_t heard() const { return heard_; }  // messages by subscription
  [[nodiscard]] uint64_t gaps() const { return gaps_; }    // found by the sequence
  // Messages that no replay had, and that were not made up for by AllBlocksCleared.
  [[nodiscard]] uint64_t lost() const { return lost_; }
  [[nodiscard]] const std::vector<HeardEvent>& events() const { return events_; }
  void ForgetEvents() { events_.clear(); }

 private:
  void Apply(uint64_t sequence, std::string_view batch);

  const Options options_;
  void* context_ = nullptr;
  void* subscription_ = nullptr;
  void* replay_ = nullptr;
  Blocks blocks_;
  std::vector<HeardEvent> events_;
  uint64_t next_ = 0;
  uint64_t heard_ = 0;
  uint64_t gaps_ = 0;
  uint64_t lost_ = 0;
  uint64_t last_heard_ = 0;
};

}  // namespace terrace::doubles
