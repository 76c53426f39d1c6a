#include "tests/doubles/router_double.h"

#include <algorithm>
#include <optional>

#include "absl/time/clock.h"
#include <gtest/gtest.h>
#include <zmq.h>

namespace terrace::doubles {
namespace {

using Kind = MsgpackValue::Kind;

// The frames of one message; none: there is none within `wait_ms`.
std::vector<std::string> Receive(void* socket, int wait_ms) {
  zmq_pollitem_t item = {socket, 0, ZMQ_POLLIN, 0};
  std::vector<std::string> frames;
  if (zmq_poll(&item, 1, wait_ms) <= 0) {
    return frames;
  }
  int more = 1;
  while (more != 0) {
    zmq_msg_t message;
    zmq_msg_init(&message);
    EXPECT_GE(zmq_msg_recv(&message, socket, 0), 0);
    frames.emplace_back(static_cast<const char*>(zmq_msg_data(&message)), zmq_msg_size(&message));
    more = zmq_msg_more(&message);
    zmq_msg_close(&message);
  }
  return frames;
}

uint64_t SequenceOf(const std::string& frame) {
  EXPECT_EQ(frame.size(), 8U);
  uint64_t sequence = 0;
  for (const char c : frame) {
    sequence = sequence << 8 | static_cast<uint8_t>(c);
  }
  return sequence;
}

std::string NameOf(const MsgpackValue& hash) {
  EXPECT_TRUE(hash.kind == Kind::kNumber || hash.kind == Kind::kBytes);
  return hash.kind == Kind::kNumber ? std::to_string(hash.number) : hash.bytes;
}

std::string TextOrNone(const MsgpackValue& value) {
  EXPECT_TRUE(value.kind == Kind::kText || value.kind == Kind::kNil);
  return value.bytes;
}

// An event of either format as a map of its fields.
std::map<std::string, MsgpackValue> FieldsOf(const MsgpackValue& event) {
  if (event.kind == Kind::kMap) {
    return event.fields;
  }
  EXPECT_EQ(event.kind, Kind::kArray);
  EXPECT_FALSE(event.items.empty());
  std::vector<std::string> names = {"type"};
  if (event.items.front().bytes == "BlockStored") {
    names = {
        "type",   "block_hashes", "parent_block_hash", "token_ids", "block_size",        "lora_id",
        "medium", "lora_name",    "extra_keys",        "group_idx", "kv_cache_spec_kind"};
  } else if (event.items.front().bytes == "BlockRemoved") {
    names = {"type", "block_hashes", "medium", "group_idx"};
  }
  EXPECT_EQ(event.items.size(), names.size());
  std::map<std::string, MsgpackValue> fields;
  for (size_t i = 0; i < std::min(names.size(), event.items.size()); ++i) {
    fields[names[i]] = event.items[i];
  }
  return fields;
}

HeardEvent HeardOf(const MsgpackValue& written) {
  std::map<std::string, MsgpackValue> fields = FieldsOf(written);
  HeardEvent event;
  event.type = fields["type"].bytes;
  for (const MsgpackValue& hash : fields["block_hashes"].items) {
    event.hashes.push_back(NameOf(hash));
  }
  event.medium = TextOrNone(fields["medium"]);
  event.group = fields["group_idx"].number;
  if (event.type != "BlockStored") {
    EXPECT_TRUE(event.type == "BlockRemoved" || event.type == "AllBlocksCleared") << event.type;
    EXPECT_EQ(event.type == "BlockRemoved", !event.hashes.empty());
    return event;
  }
  for (const char* name :
       {"parent_block_hash", "token_ids", "block_size", "lora_id", "lora_name"}) {
    EXPECT_TRUE(fields.contains(name)) << name;
  }
  event.parent =
      fields["parent_block_hash"].kind == Kind::kNil ? "" : NameOf(fields["parent_block_hash"]);
  for (const MsgpackValue& token : fields["token_ids"].items) {
    event.tokens.push_back(static_cast<uint32_t>(token.number));
  }
  event.block_size = fields["block_size"].number;
  event.lora_name = TextOrNone(fields["lora_name"]);
  event.extra_keys = fields["extra_keys"];
  event.spec_kind = fields["kv_cache_spec_kind"].bytes;
  // What makes Dynamo drop an event, or cut tokens that are not there.
  std::set<std::string> names(event.hashes.begin(), event.hashes.end());
  names.insert(event.parent);
  EXPECT_EQ(names.size(), event.hashes.size() + 1) << "a hash twice, or as its own parent";
  EXPECT_EQ(event.tokens.size(), event.hashes.size() * event.block_size);
  EXPECT_FALSE(event.medium.empty());
  return event;
}

}  // namespace

std::vector<HeardEvent> HeardIn(std::string_view batch) {
  std::vector<HeardEvent> events;
  const std::optional<MsgpackValue> value = ReadMsgpack(batch);
  EXPECT_TRUE(value.has_value()) << "no msgpack";
  if (!value.has_value() || value->kind != Kind::kArray || value->items.size() != 3) {
    ADD_FAILURE() << "no batch";
    return events;
  }
  EXPECT_EQ(value->items[0].kind, Kind::kFloat);
  EXPECT_EQ(value->items[1].kind, Kind::kArray);
  EXPECT_EQ(value->items[2].kind, Kind::kNumber);
  for (const MsgpackValue& event : value->items[1].items) {
    events.push_back(HeardOf(event));
  }
  return events;
}

std::string LowBitsOf(std::string_view hash) {
  uint64_t low = 0;
  for (const char c : hash.substr(hash.size() - 8)) {
    low = low << 8 | static_cast<uint8_t>(c);
  }
  return std::to_string(low);
}

RouterDouble::RouterDouble(const Options& options)
    : options_(options),
      context_(zmq_ctx_new()),
      subscription_(zmq_socket(context_, ZMQ_SUB)),
      replay_(options.replay_endpoint.empty() ? nullptr : zmq_socket(context_, ZMQ_DEALER)) {
  const int none = 0;
  zmq_setsockopt(subscription_, ZMQ_RCVHWM, &options.high_water_mark, sizeof(int));
  zmq_setsockopt(subscription_, ZMQ_LINGER, &none, sizeof(none));
  EXPECT_EQ(zmq_connect(subscription_, options.endpoint.c_str()), 0);
  EXPECT_EQ(
      zmq_setsockopt(subscription_, ZMQ_SUBSCRIBE, options.topic.data(), options.topic.size()), 0);
  if (replay_ != nullptr) {
    zmq_setsockopt(replay_, ZMQ_LINGER, &none, sizeof(none));
    EXPECT_EQ(zmq_connect(replay_, options.replay_endpoint.c_str()), 0);
  }
}

RouterDouble::~RouterDouble() {
  zmq_close(subscription_);
  if (replay_ != nullptr) {
    zmq_close(replay_);
  }
  zmq_ctx_term(context_);
}

bool RouterDouble::Hear(absl::Duration wait) {
  const std::vector<std::string> frames =
      Receive(subscription_, static_cast<int>(absl::ToInt64Milliseconds(wait)));
  if (frames.empty()) {
    return false;
  }
  EXPECT_EQ(frames.size(), 3U);
  if (frames.size() != 3) {
    return true;
  }
  EXPECT_EQ(frames[0], options_.topic);
  ++heard_;
  const uint64_t sequence = SequenceOf(frames[1]);
  EXPECT_GT(sequence, last_heard_) << "numbers rise, over all lives of the publisher";
  last_heard_ = sequence;
  if (sequence > next_) {
    ++gaps_;
    if (replay_ != nullptr) {
      EXPECT_TRUE(CatchUp());
    }
  }
  Apply(sequence, frames[2]);
  return true;
}

bool RouterDouble::CatchUp() {
  std::string first;
  for (int shift = 56; shift >= 0; shift -= 8) {
    first.push_back(static_cast<char>(next_ >> shift));
  }
  zmq_send(replay_, "", 0, ZMQ_SNDMORE);
  zmq_send(replay_, first.data(), first.size(), 0);
  while (true) {
    const std::vector<std::string> frames = Receive(replay_, 60'000);
    EXPECT_EQ(frames.size(), 3U);
    if (frames.size() != 3) {
      return false;
    }
    EXPECT_EQ(frames[0], "");
    if (frames[1] == std::string(8, '\xff')) {
      EXPECT_EQ(frames[2], "");
      return true;
    }
    Apply(SequenceOf(frames[1]), frames[2]);
  }
}

std::set<std::string> RouterDouble::MediaOf(const std::string& hash, uint64_t group) const {
  const auto found = blocks_.find({group, hash});
  return found == blocks_.end() ? std::set<std::string>() : found->second;
}

void RouterDouble::Apply(uint64_t sequence, std::string_view batch) {
  if (sequence < next_) {
    return;  // known
  }
  std::vector<HeardEvent> events = HeardIn(batch);
  if (events.empty() || events.front().type != "AllBlocksCleared") {
    lost_ += sequence - next_;
  }
  next_ = sequence + 1;
  for (HeardEvent& event : events) {
    if (event.type == "AllBlocksCleared") {
      blocks_.clear();
    }
    for (const std::string& hash : event.hashes) {
      std::set<std::string>& media = blocks_[{event.group, hash}];
      if (event.type == "BlockStored") {
        media.insert(event.medium);
      } else {
        media.erase(event.medium);
      }
      if (media.empty()) {
        blocks_.erase({event.group, hash});
      }
    }
    events_.push_back(std::move(event));
  }
}

}  // namespace terrace::doubles
