// What a teller remembers and says, and who is one.
#include "tiers/shared/pool_bulletin.h"

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace terrace {
namespace {

constexpr NodeLife kLife{{1, 2}, 3};

SegmentName Name(uint32_t number) {
  return {kLife, number};
}

ReportedSegment Segment(uint32_t number,
                        uint32_t end_page,
                        uint32_t listed_from,
                        ReportedState state = ReportedState::kOpen) {
  return {Name(number), state, 100, end_page, listed_from, (end_page - 1) / 2};
}

PoolReport Head(uint64_t serial) {
  PoolReport head;
  head.pool = {9, 9};
  head.life = kLife;
  head.serial = serial;
  head.manifest = 1;
  return head;
}

// Two pages each, from `first` on.
void List(PoolReport* head, uint32_t position, uint32_t first, uint32_t end) {
  for (uint32_t page = first; page < end; page += 2) {
    ReportedRecord record;
    record.position = position;
    record.record.page = page;
    record.record.payload_bytes = 4096;
    record.record.kind = 1;
    record.record.fingerprint = {page, head->segments[position].name.number};
    head->records.push_back(record);
  }
}

PoolReport OnlyExcerpt(const PoolChronicle& chronicle) {
  PoolReport title;
  title.kind = ReportKind::kTitle;
  title.life = {{5, 6}, 7};
  const std::string bytes = chronicle.Compose(title);
  PoolReport read;
  std::vector<PoolReport> excerpts;
  EXPECT_TRUE(ReadBulletin(bytes, &read, &excerpts));
  EXPECT_EQ(read.life, title.life);
  EXPECT_EQ(excerpts.size(), 1U);
  return excerpts.empty() ? PoolReport() : excerpts.front();
}

TEST(PoolBulletin, GroupsHaveATellerEachWhileThereAreNodes) {
  std::vector<Digest128> nodes;
  for (uint64_t n = 1; n <= 100; ++n) {
    nodes.push_back({n, n * 7});
  }
  const std::vector<Digest128> tellers = ChooseTellers(nodes, 32);
  EXPECT_EQ(std::set<Digest128>(tellers.begin(), tellers.end()).size(), 32U);
  // Without one of them the others stay, but for those that stood behind it.
  std::vector<Digest128> fewer = nodes;
  std::erase(fewer, tellers[10]);
  const std::vector<Digest128> then = ChooseTellers(fewer, 32);
  int moved = 0;
  for (size_t group = 0; group < 32; ++group) {
    moved += tellers[group] == then[group] ? 0 : 1;
  }
  EXPECT_GE(moved, 1);
  EXPECT_LE(moved, 12);
  EXPECT_EQ(ChooseTellers({nodes[0]}, 3), std::vector<Digest128>(3, nodes[0]));
  EXPECT_EQ(ChooseTellers({}, 2), std::vector<Digest128>(2));
  for (const Digest128& node : nodes) {
    EXPECT_LT(GroupOf(node, 32), 32U);
  }
}

TEST(PoolBulletin, AnExcerptSaysWhatChangedAndNothingElse) {
  PoolChronicle chronicle(absl::Seconds(20));
  PoolReport head = Head(10);
  head.segments = {Segment(1, 21, 1), Segment(2, 5, 1)};
  List(&head, 0, 1, 21);
  List(&head, 1, 1, 5);
  chronicle.Note(nullptr, head, absl::Seconds(100));
  PoolReport excerpt = OnlyExcerpt(chronicle);
  EXPECT_EQ(excerpt.serial, 10U);
  EXPECT_EQ(excerpt.since, 10U);
  EXPECT_TRUE(excerpt.segments.empty());

  head = Head(12);
  head.segments = {Segment(1, 21, 1), Segment(2, 9, 1), Segment(3, 3, 1)};
  List(&head, 0, 1, 21);
  List(&head, 1, 1, 9);
  List(&head, 2, 1, 3);
  chronicle.Note(nullptr, head, absl::Seconds(103));
  head = Head(13);
  head.segments = {Segment(1, 21, 1, ReportedState::kGone),
                   Segment(2, 11, 1, ReportedState::kSealed), Segment(3, 3, 1)};
  List(&head, 1, 1, 11);
  List(&head, 2, 1, 3);
  chronicle.Note(nullptr, head, absl::Seconds(106));
  excerpt = OnlyExcerpt(chronicle);
  EXPECT_EQ(excerpt.since, 10U);
  EXPECT_EQ(excerpt.serial, 13U);
  ASSERT_EQ(excerpt.segments.size(), 3U);
  EXPECT_EQ(excerpt.segments[0], Segment(2, 11, 5, ReportedState::kSealed));
  EXPECT_EQ(excerpt.segments[1], Segment(3, 3, 1));
  EXPECT_EQ(excerpt.segments[2].name, Name(1));
  EXPECT_EQ(excerpt.segments[2].state, ReportedState::kGone);
  std::vector<uint32_t> pages;
  for (const ReportedRecord& record : excerpt.records) {
    pages.push_back(record.position * 100 + record.record.page);
  }
  EXPECT_EQ(pages, (std::vector<uint32_t>{5, 7, 9, 101}));

  // Behind the window only what is new within it is said.
  chronicle.Seen(kLife, absl::Seconds(125));
  chronicle.Forget(absl::Seconds(125));
  excerpt = OnlyExcerpt(chronicle);
  EXPECT_EQ(excerpt.since, 12U);
  EXPECT_EQ(excerpt.serial, 13U);
}

TEST(PoolBulletin, AManifestLosesNothing) {
  PoolChronicle chronicle(absl::Seconds(20));
  PoolReport manifest = Head(1);
  manifest.kind = ReportKind::kManifest;
  manifest.segments = {Segment(1, 21, 21, ReportedState::kSealed)};
  manifest.kills = {{{1, 1}, Name(1), 3}};
  PoolReport head = Head(2);
  head.segments = {Segment(2, 5, 1)};
  List(&head, 0, 1, 5);
  chronicle.Note(&manifest, head, absl::Seconds(1));
  // The next manifest has one segment no more, and one kill that no head of before has said.
  manifest.serial = 3;
  manifest.manifest = 2;
  manifest.segments = {Segment(2, 7, 7, ReportedState::kSealed)};
  manifest.kills.push_back({{2, 2}, Name(2), 1});
  manifest.generations = {{{3, 3}, 4}};
  head = Head(4);
  head.manifest = 2;
  head.kills = {{{5, 5}, Name(2), 3}};
  head.generations = {{{3, 3}, 5}};
  chronicle.Note(&manifest, head, absl::Seconds(2));
  const PoolReport excerpt = OnlyExcerpt(chronicle);
  EXPECT_EQ(excerpt.since, 2U);
  EXPECT_EQ(excerpt.manifest, 2U);
  ASSERT_EQ(excerpt.segments.size(), 2U);
  // Its records are not listed: who does not know them reads the segment.
  EXPECT_EQ(excerpt.segments[0], Segment(2, 7, 7, ReportedState::kSealed));
  EXPECT_EQ(excerpt.segments[1].name, Name(1));
  EXPECT_EQ(excerpt.segments[1].state, ReportedState::kGone);
  ASSERT_EQ(excerpt.kills.size(), 2U);
  EXPECT_EQ(excerpt.kills[0].fingerprint, (Digest128{2, 2}));
  EXPECT_EQ(excerpt.kills[1].fingerprint, (Digest128{5, 5}));
  EXPECT_EQ(excerpt.generations.size(), 2U);
}

TEST(PoolBulletin, WhoseBeginIsNotKnownIsNotTold) {
  PoolChronicle chronicle(absl::Seconds(20));
  chronicle.Note(nullptr, Head(2), absl::Seconds(1));
  chronicle.Note(nullptr, Head(3), absl::Seconds(2));
  PoolReport manifest = Head(4);
  manifest.kills = {{{1, 1}, Name(1), 3}};
  PoolReport head = Head(5);
  head.manifest = 2;
  chronicle.Note(&manifest, head, absl::Seconds(3));  // which of the kills are new?
  PoolReport excerpt = OnlyExcerpt(chronicle);
  EXPECT_EQ(excerpt.since, 5U);
  // Another life begins anew.
  head.life.epoch = 4;
  head.serial = 1;
  chronicle.Note(nullptr, head, absl::Seconds(4));
  excerpt = OnlyExcerpt(chronicle);
  EXPECT_EQ(excerpt.life.epoch, 4U);
  EXPECT_EQ(excerpt.since, 1U);
  // And who was not looked at for long is not told of.
  chronicle.Forget(absl::Seconds(30));
  PoolReport title = Head(1);
  title.kind = ReportKind::kTitle;
  std::vector<PoolReport> excerpts;
  EXPECT_TRUE(ReadBulletin(chronicle.Compose(title), &title, &excerpts));
  EXPECT_TRUE(excerpts.empty());
}

TEST(PoolBulletin, RecordsThatAreNotListedInBetweenLeaveAGap) {
  PoolReport first = Head(2);
  first.kind = ReportKind::kExcerpt;
  first.since = 1;
  first.segments = {Segment(1, 9, 5)};
  List(&first, 0, 5, 9);
  PoolReport second = Head(3);
  second.kind = ReportKind::kExcerpt;
  second.since = 2;
  second.segments = {Segment(1, 41, 31)};
  List(&second, 0, 31, 41);
  const PoolReport merged = MergeExcerpts({first, second});
  ASSERT_EQ(merged.segments.size(), 1U);
  EXPECT_EQ(merged.segments[0].listed_from_page, 31U);
  EXPECT_EQ(merged.records.size(), 5U);
  EXPECT_EQ(merged.since, 1U);
}

TEST(PoolBulletin, WhatIsDamagedEndsIt) {
  PoolChronicle chronicle(absl::Seconds(20));
  chronicle.Note(nullptr, Head(2), absl::Seconds(1));
  PoolReport title = Head(1);
  title.kind = ReportKind::kTitle;
  std::string bytes = chronicle.Compose(title);
  std::vector<PoolReport> excerpts;
  PoolReport read;
  bytes[bytes.size() - 40] ^= 1;
  EXPECT_TRUE(ReadBulletin(bytes, &read, &excerpts));
  EXPECT_TRUE(excerpts.empty());
  bytes[20] ^= 1;
  EXPECT_FALSE(ReadBulletin(bytes, &read, &excerpts));
  EXPECT_FALSE(ReadBulletin(EncodeReport(Head(1)), &read, &excerpts));
  EXPECT_FALSE(ReadBulletin("", &read, &excerpts));
}

}  // namespace
}  // namespace terrace
