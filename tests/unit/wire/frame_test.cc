#include "daemon/wire/frame.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

namespace terrace {
namespace {

constexpr uint32_t kMaxPayload = 4U << 20;

TEST(FrameHeader, HasTheBytesThatTheContractDraws) {
  const FrameHeader header{
      0x01020304, 0x0506, FrameKind::kReply, 7, 0x08090a0b0c0d0e0f, 0x10111213, 0x14151617};
  std::array<char, kFrameHeaderBytes> bytes;
  EncodeFrameHeader(header, absl::MakeSpan(bytes));
  EXPECT_EQ(std::string(bytes.data(), bytes.size()),
            std::string("\x04\x03\x02\x01\x06\x05\x02\x07\x0f\x0e\x0d\x0c\x0b\x0a\x09\x08"
                        "\x13\x12\x11\x10\x17\x16\x15\x14",
                        24));
  EXPECT_EQ(DecodeFrameHeader(bytes), header);
}

TEST(FrameHeader, RulesOfARequestAreNamed) {
  FrameHeader good;
  good.call_id = 1;
  EXPECT_EQ(BrokenRequestField(good, kMaxPayload), nullptr);
  FrameHeader bad = good;
  bad.payload_bytes = kMaxPayload + 1;
  EXPECT_STREQ(BrokenRequestField(bad, kMaxPayload), "payload_bytes");
  bad = good;
  bad.kind = FrameKind::kPush;
  EXPECT_STREQ(BrokenRequestField(bad, kMaxPayload), "kind");
  bad.kind = static_cast<FrameKind>(0);
  EXPECT_STREQ(BrokenRequestField(bad, kMaxPayload), "kind");
  bad = good;
  bad.descriptor_count = 9;
  EXPECT_STREQ(BrokenRequestField(bad, kMaxPayload), "descriptor_count");
  bad = good;
  bad.call_id = 0;
  EXPECT_STREQ(BrokenRequestField(bad, kMaxPayload), "call_id");
  bad = good;
  bad.status = 3;
  EXPECT_STREQ(BrokenRequestField(bad, kMaxPayload), "status");
}

}  // namespace
}  // namespace terrace
