#include "daemon/wire/message_bytes.h"

#include <gtest/gtest.h>

#include <string>

#include "terrace/v1/cache.pb.h"
#include "terrace/v1/session.pb.h"

namespace terrace {
namespace {

TEST(MessageBytes, WhatIsSerialisedIsParsed) {
  v1::ProbeRequest request;
  request.add_parts()->set_keys("keys");
  request.mutable_parts(0)->add_end_tokens(300);
  request.set_hold_ms(77);
  v1::ProbeRequest parsed;
  ASSERT_TRUE(ParseMessage(request.SerializeAsString(), &parsed).ok());
  EXPECT_EQ(parsed.SerializeAsString(), request.SerializeAsString());
}

TEST(MessageBytes, UnknownFieldsAreIgnored) {
  v1::ProbeRequest parsed;
  EXPECT_TRUE(ParseMessage("\xa2\x06\x03xyz\xf8\x06\x05", &parsed).ok());
}

TEST(MessageBytes, EveryTruncationIsUndecodableOrShorter) {
  v1::GetRequest request;
  request.add_parts()->set_namespace_digest(std::string(16, 'd'));
  request.mutable_parts(0)->set_salt("salt");
  request.add_regions()->add_block_indexes(7);
  request.set_hold_id(std::string(16, 'h'));
  const std::string whole = request.SerializeAsString();
  for (size_t length = 0; length < whole.size(); ++length) {
    v1::GetRequest parsed;
    const absl::Status status = ParseMessage(whole.substr(0, length), &parsed);
    EXPECT_TRUE(status.ok() || IsUndecodable(status)) << length;
  }
}

TEST(MessageBytes, FieldsAreCountedOverAllDepths) {
  v1::ProbeRequest request;
  for (int part = 0; part < 4; ++part) {
    for (int i = 0; i < 10; ++i) {
      request.add_parts()->set_salt("s");
    }
  }
  const std::string bytes = request.SerializeAsString();
  EXPECT_TRUE(CheckFieldCount(bytes, *v1::ProbeRequest::descriptor(), 80).ok());
  const absl::Status status = CheckFieldCount(bytes, *v1::ProbeRequest::descriptor(), 79);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_FALSE(IsUndecodable(status));
}

TEST(MessageBytes, GroupsMustBalance) {
  v1::ProbeRequest parsed;
  EXPECT_TRUE(ParseMessage("\xfb\x01\xfc\x01", &parsed).ok());
  EXPECT_TRUE(IsUndecodable(ParseMessage("\xfb\x01", &parsed)));
  EXPECT_TRUE(IsUndecodable(ParseMessage("\xfc\x01", &parsed)));
  EXPECT_TRUE(IsUndecodable(ParseMessage(std::string(2000, '\x0b'), &parsed)));
}

TEST(MessageBytes, TheLargestGeometryIsWithinItsLimit) {
  v1::RegisterRegionRequest request;
  for (int p = 0; p < 1024; ++p) {
    v1::Plane* plane = request.mutable_geometry()->add_planes();
    for (int s = 0; s < 512; ++s) {
      plane->add_segments()->set_bytes(1);
    }
  }
  const std::string bytes = request.SerializeAsString();
  ASSERT_LE(bytes.size(), 4U << 20);
  v1::RegisterRegionRequest parsed;
  EXPECT_TRUE(ParseMessage(bytes, &parsed).ok());
}

}  // namespace
}  // namespace terrace
