#include "daemon/wire/frame_assembly.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

namespace terrace {
namespace {

constexpr uint32_t kMaxPayload = 4U << 20;

std::string FrameBytes(uint64_t call_id, const std::string& payload, uint8_t descriptors = 0) {
  FrameHeader header;
  header.payload_bytes = static_cast<uint32_t>(payload.size());
  header.method = 6;
  header.descriptor_count = descriptors;
  header.call_id = call_id;
  std::array<char, kFrameHeaderBytes> bytes;
  EncodeFrameHeader(header, absl::MakeSpan(bytes));
  return std::string(bytes.data(), bytes.size()) + payload;
}

std::vector<Descriptor> Descriptors(size_t count) {
  std::vector<Descriptor> out;
  for (size_t i = 0; i < count; ++i) {
    out.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
  }
  return out;
}

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) != -1; }

struct Got {
  uint64_t call_id = 0;
  std::string payload;
  size_t descriptors = 0;
  friend bool operator==(const Got&, const Got&) = default;
};

// All frames that are complete now; false: the stream broke.
bool Drain(FrameAssembly& assembly, std::vector<Got>* out) {
  while (true) {
    Frame frame;
    switch (assembly.Next(&frame)) {
      case FrameAssembly::Step::kBroken:
        return false;
      case FrameAssembly::Step::kNeedMore:
        assembly.Retain();
        return true;
      case FrameAssembly::Step::kFrame:
        out->push_back({frame.header.call_id, std::string(frame.payload), frame.descriptors.size()});
        break;
    }
  }
}

TEST(FrameAssembly, EverySplitOfTheStreamGivesTheSameFrames) {
  const std::string stream = FrameBytes(1, "one") + FrameBytes(2, "") + FrameBytes(3, std::string(100, 'x'));
  const std::vector<Got> expected{{1, "one", 0}, {2, "", 0}, {3, std::string(100, 'x'), 0}};
  for (size_t first = 0; first <= stream.size(); ++first) {
    for (size_t second = first; second <= stream.size(); second += 7) {
      FrameAssembly assembly(kMaxPayload);
      std::vector<Got> got;
      for (const std::string& piece : {stream.substr(0, first), stream.substr(first, second - first), stream.substr(second)}) {
        // A copy that goes away, as the I/O thread's buffer does.
        const auto borrowed = std::make_unique<std::string>(piece);
        assembly.Feed(*borrowed, {});
        ASSERT_TRUE(Drain(assembly, &got));
      }
      ASSERT_EQ(got, expected) << "split at " << first << " and " << second;
      EXPECT_EQ(assembly.pending_bytes(), 0U);
    }
  }
}

TEST(FrameAssembly, ByteByByteWithDescriptorsAtTheFirstByte) {
  const std::string stream = FrameBytes(1, "a", 2) + FrameBytes(2, "b", 1);
  FrameAssembly assembly(kMaxPayload);
  std::vector<Got> got;
  for (size_t i = 0; i < stream.size(); ++i) {
    const std::string byte = stream.substr(i, 1);
    assembly.Feed(byte, Descriptors(i == 0 ? 2 : i == kFrameHeaderBytes + 1 ? 1 : 0));
    ASSERT_TRUE(Drain(assembly, &got)) << i;
  }
  EXPECT_EQ(got, (std::vector<Got>{{1, "a", 2}, {2, "b", 1}}));
}

TEST(FrameAssembly, FramesLeftByOneTurnAreThereInTheNext) {
  FrameAssembly assembly(kMaxPayload);
  const std::string stream = FrameBytes(1, "one") + FrameBytes(2, "two");
  assembly.Feed(stream, {});
  Frame frame;
  ASSERT_EQ(assembly.Next(&frame), FrameAssembly::Step::kFrame);
  EXPECT_TRUE(assembly.HasWhole());
  assembly.Retain();
  const std::string more = FrameBytes(3, "three");
  assembly.Feed(more, {});
  std::vector<Got> got;
  ASSERT_TRUE(Drain(assembly, &got));
  EXPECT_EQ(got, (std::vector<Got>{{2, "two", 0}, {3, "three", 0}}));
}

TEST(FrameAssembly, TooFewDescriptorsBreakTheStream) {
  FrameAssembly assembly(kMaxPayload);
  const std::string stream = FrameBytes(1, "a", 2);
  assembly.Feed(stream, Descriptors(1));
  Frame frame;
  EXPECT_EQ(assembly.Next(&frame), FrameAssembly::Step::kBroken);
  EXPECT_EQ(assembly.broken_field(), "descriptor_count");
  EXPECT_EQ(frame.header.call_id, 1U);
}

TEST(FrameAssembly, DescriptorsThatNobodyAskedForBreakTheStreamAndAreClosed) {
  for (const std::string& stream : {FrameBytes(1, "a", 0), FrameBytes(1, std::string(50, 'a'), 0).substr(0, 40)}) {
    FrameAssembly assembly(kMaxPayload);
    std::vector<Descriptor> passed = Descriptors(1);
    const int fd = passed.front().get();
    assembly.Feed(stream, std::move(passed));
    std::vector<Got> got;
    EXPECT_FALSE(Drain(assembly, &got));
    EXPECT_FALSE(IsOpen(fd));
  }
}

TEST(FrameAssembly, DescriptorsInTheMiddleOfAFrameBreakTheStream) {
  FrameAssembly assembly(kMaxPayload);
  const std::string stream = FrameBytes(1, std::string(50, 'a'), 0);
  assembly.Feed(std::string_view(stream).substr(0, 30), {});
  std::vector<Got> got;
  ASSERT_TRUE(Drain(assembly, &got));
  assembly.Feed(std::string_view(stream).substr(30, 5), Descriptors(1));
  EXPECT_FALSE(Drain(assembly, &got));
}

TEST(FrameAssembly, OversizedFramesAreRefusedByTheirHeader) {
  FrameAssembly assembly(100);
  const std::string stream = FrameBytes(7, std::string(101, 'a')).substr(0, kFrameHeaderBytes);
  assembly.Feed(stream, {});
  Frame frame;
  EXPECT_EQ(assembly.Next(&frame), FrameAssembly::Step::kBroken);
  EXPECT_EQ(assembly.broken_field(), "payload_bytes");
  EXPECT_EQ(assembly.Next(&frame), FrameAssembly::Step::kBroken);
}

TEST(FrameAssembly, GarbageBreaksTheStream) {
  FrameAssembly assembly(kMaxPayload);
  const std::string garbage(1000, '\xee');
  assembly.Feed(garbage, {});
  Frame frame;
  EXPECT_EQ(assembly.Next(&frame), FrameAssembly::Step::kBroken);
}

}  // namespace
}  // namespace terrace
