// Messages between core and worker: what goes in comes out, and what is none is not taken for one.
#include "daemon/worker/worker_frame.h"

#include <string>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "tests/doubles/seeded.h"

namespace terrace {
namespace {

WorkerRequest AnyRequest() {
  return {0x0102030405060708U, PoolOp::kRead, ReadHow::kFresh, "nodes/a/head", 11, 22, 4096};
}

PoolReply AnyListing(size_t entries) {
  PoolReply reply;
  for (size_t i = 0; i < entries; ++i) {
    reply.entries.push_back({absl::StrCat(std::string(50, 'n'), i), EntryKind::kFile, i});
  }
  return reply;
}

TEST(WorkerFrame, EveryMessageComesOutAsItWentIn) {
  const WorkerGreeting greeting{"/mnt/pool", 1 << 20, 16};
  EXPECT_EQ(DecodeGreeting(EncodeGreeting(greeting)), greeting);
  EXPECT_EQ(DecodeRequest(EncodeRequest(AnyRequest())), AnyRequest());

  const std::optional<WorkerReady> ready =
      DecodeReady(EncodeReady({absl::NotFoundError("no folder"), 77}));
  ASSERT_TRUE(ready.has_value());
  EXPECT_EQ(ready->status, absl::NotFoundError("no folder"));
  EXPECT_EQ(ready->root_inode, 77U);

  PoolReply answer = AnyListing(3);
  answer.bytes = 9;
  answer.space = {100, 50};
  answer.entries[1].kind = EntryKind::kFolder;
  const std::vector<std::string> packets = EncodeReply(5, answer);
  ASSERT_EQ(packets.size(), 1U);
  const std::optional<WorkerReply> reply = DecodeReply(packets.front());
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->call, 5U);
  EXPECT_FALSE(reply->more);
  EXPECT_TRUE(reply->reply.status.ok());
  EXPECT_EQ(reply->reply.bytes, 9U);
  EXPECT_EQ(reply->reply.space.available_bytes, 50U);
  ASSERT_EQ(reply->reply.entries.size(), 3U);
  EXPECT_EQ(reply->reply.entries[1].kind, EntryKind::kFolder);
  EXPECT_EQ(reply->reply.entries[2].name, answer.entries[2].name);
  EXPECT_EQ(reply->reply.entries[2].bytes, 2U);
}

TEST(WorkerFrame, ARequestHasTheseBytes) {
  const std::string expected(
      "TRWK\x01\x00\x02\x00"
      "\x08\x07\x06\x05\x04\x03\x02\x01"
      "\x01\x01\x0c\x00\x00\x00\x00\x00"
      "\x0b\x00\x00\x00\x00\x00\x00\x00"
      "\x16\x00\x00\x00\x00\x00\x00\x00"
      "\x00\x10\x00\x00\x00\x00\x00\x00"
      "nodes/a/head",
      60);
  EXPECT_EQ(EncodeRequest(AnyRequest()), expected);
}

TEST(WorkerFrame, ALongListingComesInPackets) {
  const PoolReply all = AnyListing(RootedFiles::kMaxEntries);
  const std::vector<std::string> packets = EncodeReply(1, all);
  EXPECT_GT(packets.size(), 1U);
  size_t entries = 0;
  for (size_t i = 0; i < packets.size(); ++i) {
    EXPECT_LE(packets[i].size(), kMaxWorkerPacket);
    const std::optional<WorkerReply> part = DecodeReply(packets[i]);
    ASSERT_TRUE(part.has_value());
    EXPECT_EQ(part->more, i + 1 < packets.size());
    for (const FolderEntry& entry : part->reply.entries) {
      EXPECT_EQ(entry.name, all.entries[entries++].name);
    }
  }
  EXPECT_EQ(entries, all.entries.size());
}

TEST(WorkerFrame, LongMessagesAreCut) {
  const std::vector<std::string> packets =
      EncodeReply(1, {absl::InternalError(std::string(100000, 'x')), 0, {}, {}});
  EXPECT_EQ(DecodeReply(packets.front())->reply.status.message().size(), kMaxWorkerMessage);
}

TEST(WorkerFrame, OneMessageIsNotTakenForAnother) {
  const std::string greeting = EncodeGreeting({"/", 4096, 1});
  const std::string request = EncodeRequest(AnyRequest());
  const std::string ready = EncodeReady({});
  const std::string reply = EncodeReply(1, {}).front();
  for (const std::string* packet : {&request, &ready, &reply}) {
    EXPECT_FALSE(DecodeGreeting(*packet).has_value());
  }
  for (const std::string* packet : {&greeting, &ready, &reply}) {
    EXPECT_FALSE(DecodeRequest(*packet).has_value());
  }
  for (const std::string* packet : {&greeting, &request, &reply}) {
    EXPECT_FALSE(DecodeReady(*packet).has_value());
  }
  for (const std::string* packet : {&greeting, &request, &ready}) {
    EXPECT_FALSE(DecodeReply(*packet).has_value());
  }
}

TEST(WorkerFrame, WhatIsCutOrHasATailIsNotDecoded) {
  const std::string greeting = EncodeGreeting({"/mnt", 4096, 1});
  const std::string request = EncodeRequest(AnyRequest());
  const std::string ready = EncodeReady({absl::InternalError("x"), 1});
  const std::string reply = EncodeReply(1, AnyListing(2)).front();
  for (size_t bytes = 0; bytes < reply.size(); ++bytes) {
    EXPECT_FALSE(DecodeGreeting(greeting.substr(0, std::min(bytes, greeting.size() - 1))));
    EXPECT_FALSE(DecodeRequest(request.substr(0, std::min(bytes, request.size() - 1))));
    EXPECT_FALSE(DecodeReady(ready.substr(0, std::min(bytes, ready.size() - 1))));
    EXPECT_FALSE(DecodeReply(reply.substr(0, bytes)));
  }
  EXPECT_FALSE(DecodeGreeting(greeting + "x"));
  EXPECT_FALSE(DecodeRequest(request + "x"));
  EXPECT_FALSE(DecodeReady(ready + "x"));
  EXPECT_FALSE(DecodeReply(reply + "x"));
}

TEST(WorkerFrame, ValuesThatDoNotExistAreNotDecoded) {
  const auto with = [](std::string packet, size_t at, char value) {
    packet[at] = value;
    return packet;
  };
  const std::string request = EncodeRequest(AnyRequest());
  EXPECT_FALSE(DecodeRequest(with(request, 4, 2)));   // version
  EXPECT_FALSE(DecodeRequest(with(request, 16, 0)));  // op
  EXPECT_FALSE(DecodeRequest(with(request, 16, kPoolOps + 1)));
  EXPECT_FALSE(DecodeRequest(with(request, 17, 3)));  // how
  EXPECT_FALSE(DecodeRequest(with(request, 20, 1)));  // padding
  EXPECT_FALSE(DecodeRequest(EncodeRequest(
      {1, PoolOp::kSync, ReadHow::kKept, std::string(kMaxPathBytes + 1, 'x'), 0, 0, 0})));
  EXPECT_FALSE(DecodeGreeting(EncodeGreeting({"", 4096, 1})));
  EXPECT_FALSE(DecodeGreeting(EncodeGreeting({std::string(kMaxRootBytes + 1, '/'), 4096, 1})));
  EXPECT_FALSE(DecodeReady(with(EncodeReady({}), 16, 17)));  // status
  EXPECT_FALSE(DecodeReady(with(EncodeReady({}), 17, 1)));   // padding
  const std::string reply = EncodeReply(1, AnyListing(1)).front();
  EXPECT_FALSE(DecodeReply(with(reply, 16, 17)));    // status
  EXPECT_FALSE(DecodeReply(with(reply, 17, 2)));     // more
  EXPECT_FALSE(DecodeReply(with(reply, 48, 3)));     // kind of an entry
  EXPECT_FALSE(DecodeReply(with(reply, 58, '/')));   // its name
  EXPECT_FALSE(DecodeReply(with(reply, 23, 0x7f)));  // entries without end
  EXPECT_TRUE(DecodeReply(reply));
}

TEST(WorkerFrame, GarbageIsNeverDecodedIntoWhatBreaksTheRules) {
  doubles::Seeded seeded(20);
  const std::string models[] = {EncodeGreeting({"/mnt", 4096, 1}), EncodeRequest(AnyRequest()),
                                EncodeReady({absl::InternalError("x"), 1}),
                                EncodeReply(1, AnyListing(4)).front()};
  for (int i = 0; i < 200000; ++i) {
    std::string packet = models[seeded.Below(4)];
    for (uint64_t flips = 1 + seeded.Below(4); flips > 0; --flips) {
      packet[seeded.Below(packet.size())] = static_cast<char>(seeded.Next());
    }
    DecodeGreeting(packet);
    DecodeReady(packet);
    if (const std::optional<WorkerRequest> request = DecodeRequest(packet)) {
      EXPECT_EQ(EncodeRequest(*request), packet);
    }
    if (const std::optional<WorkerReply> reply = DecodeReply(packet)) {
      for (const FolderEntry& entry : reply->reply.entries) {
        EXPECT_FALSE(entry.name.empty());
        EXPECT_EQ(entry.name.find('/'), std::string::npos);
      }
    }
  }
}

}  // namespace
}  // namespace terrace
