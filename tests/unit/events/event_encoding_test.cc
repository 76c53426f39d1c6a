// Batches of events byte for byte as an independent encoder writes them, at every size of length,
// and which texts are a value in msgpack.
#include "daemon/events/event_encoding.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include <gtest/gtest.h>

#include "tests/doubles/msgpack_value.h"
#include "tests/doubles/router_double.h"
#include "tests/doubles/seeded.h"

namespace terrace {
namespace {

using doubles::HeardEvent;
using doubles::HeardIn;

constexpr absl::Duration kAt = absl::Milliseconds(1234567250);

// Written by msgpack-python 1.0.3: packb([1234567.25, [event...], rank], use_bin_type=True).
constexpr char kMap[] =
    "93cb4132d68740000000938ba474797065ab426c6f636b53746f726564ac626c6f636b5f68617368"
    "657392cf18191a1b1c1d1e1fcf7c7d7e7f80818283b1706172656e745f626c6f636b5f68617368cf"
    "e0e1e2e3e4e5e6e7a9746f6b656e5f69647398007fcc80ccffcd0100cdffffce00010000ceffffff"
    "ffaa626c6f636b5f73697a6504a76c6f72615f6964c0a66d656469756da3435055a96c6f72615f6e"
    "616d65a373716caa65787472615f6b6579739292a3696d6707c0a967726f75705f69647803b26b76"
    "5f63616368655f737065635f6b696e64ae736c6964696e675f77696e646f7784a474797065ac426c"
    "6f636b52656d6f766564ac626c6f636b5f68617368657391cf18191a1b1c1d1e1fa66d656469756d"
    "a753544f52414745a967726f75705f6964780081a474797065b0416c6c426c6f636b73436c656172"
    "656400";
constexpr char kArray[] =
    "93cb4132d68740000000939bab426c6f636b53746f72656492c420000102030405060708090a0b0c"
    "0d0e0f101112131415161718191a1b1c1d1e1fc4206465666768696a6b6c6d6e6f70717273747576"
    "7778797a7b7c7d7e7f80818283c420c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0"
    "e1e2e3e4e5e6e798007fcc80ccffcd0100cdffffce00010000ceffffffff04c0a3435055a373716c"
    "9292a3696d6707c003ae736c6964696e675f77696e646f7794ac426c6f636b52656d6f76656491c4"
    "20000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1fa753544f524147"
    "450091b0416c6c426c6f636b73436c6561726564cd012c";
constexpr char kBareArray[] =
    "93cb4132d68740000000919bab426c6f636b53746f72656491cf18191a1b1c1d1e1fc09000c0a343"
    "5055c0c000ae66756c6c5f617474656e74696f6e00";
constexpr char kBareMap[] =
    "93cb4132d68740000000918aa474797065ab426c6f636b53746f726564ac626c6f636b5f68617368"
    "657391cf18191a1b1c1d1e1fb1706172656e745f626c6f636b5f68617368c0a9746f6b656e5f6964"
    "7390aa626c6f636b5f73697a6500a76c6f72615f6964c0a66d656469756da3435055a96c6f72615f"
    "6e616d65c0a967726f75705f69647800b26b765f63616368655f737065635f6b696e64ae66756c6c"
    "5f617474656e74696f6e00";

std::string BytesFrom(int first, size_t count = 32) {
  std::string bytes(count, '\0');
  std::iota(bytes.begin(), bytes.end(), static_cast<char>(first));
  return bytes;
}

std::vector<RouterEvent> AllKinds() {
  std::vector<RouterEvent> events(3);
  RouterEvent& stored = events[0];
  stored.kind = RouterEvent::Kind::kStored;
  stored.hashes = {BytesFrom(0), BytesFrom(100)};
  stored.parent = BytesFrom(200);
  stored.token_ids = {0, 127, 128, 255, 256, 65535, 65536, 4294967295};
  stored.block_tokens = 4;
  stored.medium = "CPU";
  stored.lora_name = "sql";
  stored.extra_keys = {"\x92\xa3img\x07", ""};
  stored.group = 3;
  stored.spec_kind = "sliding_window";
  events[1].kind = RouterEvent::Kind::kRemoved;
  events[1].hashes = {BytesFrom(0)};
  events[1].medium = "STORAGE";
  events[2].kind = RouterEvent::Kind::kAllCleared;
  return events;
}

RouterEvent Bare() {
  RouterEvent event;
  event.kind = RouterEvent::Kind::kStored;
  event.hashes = {BytesFrom(0)};
  event.medium = "CPU";
  event.spec_kind = "full_attention";
  return event;
}

std::string Written(const std::vector<RouterEvent>& events,
                    EventFormat format,
                    EventHashes hashes = EventHashes::kInt,
                    uint32_t rank = 0) {
  EventBatchWriter writer(format, hashes, rank);
  for (const RouterEvent& event : events) {
    writer.Add(event);
  }
  return writer.Finish(kAt);
}

std::string Hex(const std::string& bytes) {
  return absl::BytesToHexString(bytes);
}

TEST(EventEncoding, IsThatOfAnIndependentEncoder) {
  EXPECT_EQ(Hex(Written(AllKinds(), EventFormat::kMap)), kMap);
  EXPECT_EQ(Hex(Written(AllKinds(), EventFormat::kArray, EventHashes::kBytes, 300)), kArray);
  EXPECT_EQ(Hex(Written({Bare()}, EventFormat::kArray)), kBareArray);
  EXPECT_EQ(Hex(Written({Bare()}, EventFormat::kMap)), kBareMap);
}

TEST(EventEncoding, AWriterBeginsAnewWithEachBatch) {
  EventBatchWriter writer(EventFormat::kMap, EventHashes::kInt, 0);
  EXPECT_TRUE(writer.empty());
  writer.Add(Bare());
  EXPECT_GT(writer.bytes(), 0U);
  EXPECT_EQ(Hex(writer.Finish(kAt)), kBareMap);
  EXPECT_TRUE(writer.empty());
  EXPECT_EQ(writer.bytes(), 0U);
  writer.Add(Bare());
  EXPECT_EQ(Hex(writer.Finish(kAt)), kBareMap);
}

// Each length that has a form of its own in msgpack, and its neighbours.
TEST(EventEncoding, LengthsOfEverySizeAreReadBack) {
  for (const size_t size : {1U, 15U, 16U, 31U, 32U, 255U, 256U, 65535U, 65536U}) {
    for (const EventFormat format : {EventFormat::kMap, EventFormat::kArray}) {
      RouterEvent event = Bare();
      event.medium = std::string(size, 'm');
      event.lora_name = std::string(size, 'l');
      event.hashes.clear();
      for (size_t i = 0; i < size; ++i) {
        event.hashes.push_back(doubles::Seeded(i).Bytes(32));
      }
      event.hashes[0] = std::string(size, 'h');
      event.block_tokens = 1;
      event.token_ids.resize(size);
      std::iota(event.token_ids.begin(), event.token_ids.end(), 70'000);
      const std::vector<HeardEvent> heard = HeardIn(Written({event}, format, EventHashes::kBytes));
      ASSERT_EQ(heard.size(), 1U);
      EXPECT_EQ(heard[0].medium, event.medium);
      EXPECT_EQ(heard[0].lora_name, event.lora_name);
      EXPECT_TRUE(heard[0].hashes == event.hashes);
      EXPECT_TRUE(heard[0].tokens == event.token_ids);
    }
  }
}

TEST(EventEncoding, BatchesOfEveryLengthAreReadBack) {
  for (const size_t size : {0U, 1U, 15U, 16U, 65535U, 65536U}) {
    const std::vector<RouterEvent> clears(size);
    EXPECT_EQ(HeardIn(Written(clears, EventFormat::kArray)).size(), size);
  }
}

TEST(EventEncoding, NumbersAreTheLowBitsOfAHashHoweverLong) {
  RouterEvent event = Bare();
  event.hashes = {std::string("\x01\x02", 2), BytesFrom(1, 8), BytesFrom(0, 36)};
  const std::vector<HeardEvent> heard = HeardIn(Written({event}, EventFormat::kMap));
  ASSERT_EQ(heard.size(), 1U);
  EXPECT_EQ(heard[0].hashes[0], "258");
  EXPECT_EQ(heard[0].hashes[1], std::to_string(0x0102030405060708));
  EXPECT_EQ(heard[0].hashes[2], std::to_string(0x1c1d1e1f20212223));
}

TEST(MsgpackValues, AreToldFromWhatIsNone) {
  using std::string_literals::operator""s;
  for (const std::string& value :
       {"\xc0"s, "\x7f"s, "\xe0"s, "\x92\x01\xa1x"s, "\x81\xa1k\x90"s, "\xc4\x02\x00\x00"s,
        "\xcb\0\0\0\0\0\0\0\0"s, "\xca\0\0\0\0"s, "\xcf\0\0\0\0\0\0\0\0"s, "\xd3\0\0\0\0\0\0\0\0"s,
        "\xd9\x01x"s, "\xdc\0\x01\xc0"s, "\xdf\0\0\0\0"s, "\xd4\x01\0"s, "\xc7\x01\x05z"s,
        "\xc2"s}) {
    EXPECT_TRUE(IsMsgpackValue(value)) << Hex(value);
    EXPECT_FALSE(IsMsgpackValue(value + "\xc0")) << "two values: " << Hex(value);
    EXPECT_FALSE(IsMsgpackValue(value.substr(0, value.size() - 1))) << Hex(value);
  }
  EXPECT_FALSE(IsMsgpackValue("\xc1")) << "never used";
  EXPECT_FALSE(IsMsgpackValue("\xdd\xff\xff\xff\xff")) << "an array of four thousand million";
  EXPECT_FALSE(IsMsgpackValue("\xdf\xff\xff\xff\xff\xc0"));
  EXPECT_FALSE(IsMsgpackValue("\xc6\xff\xff\xff\xff"));
  EXPECT_TRUE(IsMsgpackValue(std::string(15, '\x91') + "\xc0"));
  EXPECT_FALSE(IsMsgpackValue(std::string(4096, '\x91') + "\xc0")) << "too deep";
}

TEST(MsgpackValues, OfRandomBytesAreThoseThatAReaderReads) {
  doubles::Seeded random(7);
  int values = 0;
  for (int i = 0; i < 200'000; ++i) {
    std::string bytes = random.Bytes(random.Below(6) + 1);
    // Of the kinds that the reader knows.
    for (char& c : bytes) {
      const auto head = static_cast<uint8_t>(c);
      if (head == 0xca || (head >= 0xc7 && head <= 0xc9) || (head >= 0xd0 && head <= 0xd8) ||
          head >= 0xe0 || head == 0xc1) {
        c = '\x01';
      }
    }
    const auto read = doubles::ReadMsgpack(bytes);
    if (read.has_value()) {
      ++values;
      EXPECT_TRUE(IsMsgpackValue(bytes)) << Hex(bytes);
    } else if (IsMsgpackValue(bytes)) {
      // The reader alone wants texts as keys of maps.
      const bool has_map = std::any_of(bytes.begin(), bytes.end(), [](char c) {
        const auto head = static_cast<uint8_t>(c);
        return (head >= 0x80 && head <= 0x8f) || head == 0xde || head == 0xdf;
      });
      EXPECT_TRUE(has_map) << Hex(bytes);
    }
  }
  EXPECT_GT(values, 1000);
}

}  // namespace
}  // namespace terrace
