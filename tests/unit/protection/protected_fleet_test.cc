// A fleet on a protected pool, and a foreign hand in its folder that knows every format and can
// compute every checksum.
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "daemon/protection/sealed_protection.h"
#include "tests/doubles/pool_fleet.h"
#include "tests/doubles/seeded.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/segment/sealed_record_format.h"
#include "tiers/segment/segment_format.h"
#include "tiers/shared/pool_bulletin.h"
#include "tiers/shared/pool_format.h"
#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

using doubles::FleetBlock;
using doubles::PoolFleet;
using doubles::Seeded;

std::unique_ptr<PoolSecret> SecretOf(PoolAuth auth, uint64_t seed) {
  SecretBytes bytes(kMinSecretBytes);
  const std::string random = Seeded(seed).Bytes(kMinSecretBytes);
  std::copy(random.begin(), random.end(), bytes.span().begin());
  absl::StatusOr<std::unique_ptr<PoolSecret>> secret = MakePoolSecret(auth, std::move(bytes));
  EXPECT_TRUE(secret.ok()) << secret.status();
  return *std::move(secret);
}

std::vector<std::string> PathsIn(const PoolFleet& fleet, const std::string& part) {
  std::vector<std::string> paths;
  for (const std::string& path : fleet.mount.Paths()) {
    if (path.find(part) != std::string::npos) {
      paths.push_back(path);
    }
  }
  return paths;
}

class ProtectedFleet : public testing::TestWithParam<PoolAuth> {
 protected:
  static constexpr size_t kNodes = 3;

  ProtectedFleet() : secret_(SecretOf(GetParam(), 1)), fleet_(kNodes) {
    fleet_.secret = secret_.get();
  }

  [[nodiscard]] std::vector<std::string> PathsWith(const std::string& part) const {
    return PathsIn(fleet_, part);
  }
  // Segments of a node, in the order of their lives and numbers.
  [[nodiscard]] std::vector<std::string> SegmentsOf(size_t i) const {
    std::vector<std::string> segments;
    for (const std::string& path : PathsWith(PoolFleet::NameOf(i).ToHex())) {
      if (path.find("/s") != std::string::npos) {
        segments.push_back(path);
      }
    }
    return segments;
  }
  // Where records begin in a segment.
  [[nodiscard]] std::vector<uint64_t> RecordsIn(const std::string& segment) const {
    std::vector<uint64_t> offsets;
    const std::string content = fleet_.mount.Content(segment);
    SealedHeader header;
    for (uint64_t at = kPageBytes; at + kPageBytes <= content.size();
         at += RecordPages(header.payload_bytes, header.metadata_bytes) * uint64_t{kPageBytes}) {
      if (DecodeSealedHeader({content.data() + at, kPageBytes}, &header) != HeaderFault::kNone) {
        break;
      }
      offsets.push_back(at);
    }
    return offsets;
  }
  SealedHeader HeaderAt(const std::string& segment, uint64_t at) const {
    SealedHeader header;
    const std::string content = fleet_.mount.Content(segment);
    EXPECT_EQ(DecodeSealedHeader({content.data() + at, kPageBytes}, &header), HeaderFault::kNone);
    return header;
  }
  // Puts the record at `from` into the place of the one at `to`, with everything that says where it
  // lies, and which block it is to be, and all checksums as they would have to be.
  void Substitute(const std::string& from_segment,
                  uint64_t from,
                  const std::string& to_segment,
                  uint64_t to) {
    const SealedHeader victim = HeaderAt(to_segment, to);
    SealedHeader header = HeaderAt(from_segment, from);
    const uint64_t bytes = RecordPages(header.payload_bytes, 0) * uint64_t{kPageBytes};
    std::string record = fleet_.mount.Content(from_segment).substr(from, bytes);
    header.tier_uuid = victim.tier_uuid;
    header.segment_epoch = victim.segment_epoch;
    header.segment = victim.segment;
    header.page = victim.page;
    header.payload_bytes = victim.payload_bytes;
    header.fingerprint = victim.fingerprint;
    header.listed_checksum = victim.listed_checksum;
    record.resize(RecordPages(victim.payload_bytes, 0) * uint64_t{kPageBytes});
    header.stored_checksum = PayloadChecksum({record.data() + kPageBytes, victim.payload_bytes});
    EncodeSealedHeader(header, absl::MakeSpan(record).first(kPageBytes));
    std::string content = fleet_.mount.Content(to_segment);
    content.replace(to, record.size(), record);
    fleet_.mount.Plant(to_segment, content);
  }
  void PublishOn(size_t i, uint64_t first, uint64_t count) {
    for (uint64_t n = first; n < first + count; ++n) {
      ASSERT_EQ(fleet_.Publish(i, FleetBlock(n)), WriteOutcome::kWritten) << n;
    }
  }

  const std::unique_ptr<PoolSecret> secret_;
  PoolFleet fleet_;
};

TEST_P(ProtectedFleet, WhatAFewTellOfManyIsSealedToo) {
  PoolFleet fleet(7);
  fleet.secret = secret_.get();
  fleet.options.bulletins_from = 3;
  fleet.StartAll();
  fleet.Pass(absl::Seconds(20));
  const FleetBlock block(1);
  ASSERT_EQ(fleet.Publish(0, block), WriteOutcome::kWritten);
  fleet.Pass(absl::Seconds(20));
  const std::vector<std::string> bulletins = PathsIn(fleet, "/bulletin");
  EXPECT_EQ(bulletins.size(), 7U);
  const std::unique_ptr<PoolProtection> protection = secret_->ProtectionOf(fleet.node(0).pool);
  size_t told = 0;
  for (const std::string& path : bulletins) {
    const std::string content = fleet.mount.Content(path);
    EXPECT_EQ(content.find("TRRCRPT"), std::string::npos) << path;
    const absl::StatusOr<std::string> opened = protection->OpenReport(content);
    ASSERT_TRUE(opened.ok()) << path << opened.status();
    PoolReport title;
    std::vector<PoolReport> excerpts;
    EXPECT_TRUE(ReadBulletin(*opened, &title, &excerpts)) << path;
    told += excerpts.size();
  }
  EXPECT_GE(told, 6U) << "of all nodes but those whose teller is new";
  for (size_t node = 0; node < 7; ++node) {
    EXPECT_EQ(fleet.Read(node, block), ReadOutcome::kVerified) << node;
  }
}

INSTANTIATE_TEST_SUITE_P(Auth,
                         ProtectedFleet,
                         testing::Values(PoolAuth::kMac, PoolAuth::kEncrypt),
                         [](const auto& its) { return std::string(AuthText(its.param)); });

TEST_P(ProtectedFleet, WhatOneNodePublishedEveryNodeFindsAlsoAfterRestartsAndWithoutAnIndex) {
  fleet_.StartAll();
  for (size_t i = 0; i < kNodes; ++i) {
    PublishOn(i, i * 30, 30);
  }
  fleet_.Pass(absl::Seconds(3));
  for (int restarts = 0; restarts < 3; ++restarts) {
    for (uint64_t n = 0; n < kNodes * 30; ++n) {
      ASSERT_EQ(fleet_.Read(n % 2, FleetBlock(n)), ReadOutcome::kVerified) << n << " " << restarts;
      ASSERT_TRUE(fleet_.tier(2).Holds(FleetBlock(n).identity()));
    }
    fleet_.Stop(0);
    fleet_.Kill(1);
    for (size_t i = 0; i < 2; ++i) {
      fleet_.node(i).with_index = restarts == 0;
      fleet_.Start(i);
    }
    fleet_.Pass(absl::Seconds(12));
  }
  EXPECT_GT(fleet_.tier(0).figures().footers_read, 0U);
  EXPECT_GT(fleet_.tier(0).figures().segments_scanned, 0U);
  EXPECT_EQ(fleet_.tier(0).figures().corrupt, 0U);
  EXPECT_EQ(fleet_.tier(0).figures().auth, GetParam());
}

TEST_P(ProtectedFleet, DeletionsGenerationsAndAdoptionGoOnAsInAnyPool) {
  fleet_.options.dead_after = absl::Minutes(2);
  fleet_.StartAll();
  PublishOn(0, 0, 10);
  fleet_.Pass(absl::Seconds(2));
  EXPECT_EQ(fleet_.Delete(1, FleetBlock(3)), WriteOutcome::kWritten);
  EXPECT_TRUE(fleet_.Raise(1, {{5, 6}, 2}).ok());
  fleet_.Pass(absl::Seconds(3));
  EXPECT_FALSE(fleet_.Finds(2, FleetBlock(3)));
  EXPECT_EQ(fleet_.node(2).learned, std::vector<RaisedGeneration>({{{5, 6}, 2}}));
  fleet_.Kill(0);
  fleet_.Pass(absl::Minutes(5));
  EXPECT_EQ(fleet_.tier(1).figures().adopted_nodes + fleet_.tier(2).figures().adopted_nodes, 1U);
  for (uint64_t n = 0; n < 10; ++n) {
    EXPECT_EQ(fleet_.Finds(1, FleetBlock(n)), n != 3) << n;
    EXPECT_EQ(fleet_.Finds(2, FleetBlock(n)), n != 3) << n;
  }
}

TEST_P(ProtectedFleet, TheFolderTellsNothingButWhatItMay) {
  fleet_.StartAll();
  PublishOn(0, 0, 40);
  fleet_.Raise(0, {{0x7365637265742121, 0x6e616d6573706163}, 2}).IgnoreError();
  fleet_.Pass(absl::Seconds(3));
  fleet_.Stop(0);
  for (const std::string& path : fleet_.mount.Paths()) {
    const std::string content = fleet_.mount.Content(path);
    const auto holds = [&](absl::string_view text) {
      return content.find(std::string(text)) != std::string::npos ||
             path.find(std::string(text)) != std::string::npos;
    };
    EXPECT_FALSE(holds("!!terces") || holds("capseman")) << path;
    for (uint64_t n = 0; n < 40; ++n) {
      const FleetBlock block(n);
      std::string digests(48, '\0');
      FieldWriter writer(absl::MakeSpan(digests));
      writer.Digest(block.space);
      writer.Digest(PayloadChecksum(block.payload));
      writer.Digest(IdentityFingerprint(block.space, block.generation, "salt", block.key,
                                        fleet_.node(0).pool.lo));
      EXPECT_FALSE(holds(digests.substr(0, 16)) || holds(digests.substr(32))) << path;
      EXPECT_FALSE(holds(block.key)) << path;
      if (GetParam() == PoolAuth::kEncrypt) {
        EXPECT_FALSE(holds(digests.substr(16, 16))) << path;
        EXPECT_FALSE(holds(block.payload.substr(64, 16))) << path;
      }
    }
  }
}

// ---------------------------------------------------------------- records that are not genuine

TEST_P(ProtectedFleet, ARecordInThePlaceOfAnotherIsAMissWhateverItSays) {
  fleet_.StartAll();
  PublishOn(0, 0, 60);  // several segments
  PublishOn(1, 100, 2);
  fleet_.Kill(0);
  fleet_.Start(0);
  fleet_.Pass(absl::Seconds(8));
  PublishOn(0, 200, 2);  // of a later life
  fleet_.Pass(absl::Seconds(3));
  const std::vector<std::string> own = SegmentsOf(0);
  const std::vector<std::string> others = SegmentsOf(1);
  ASSERT_GE(own.size(), 3U);
  const std::vector<uint64_t> first = RecordsIn(own.front());
  ASSERT_GE(first.size(), 6U);
  // Another of the same segment, of another segment, of another life, of another node.
  Substitute(own[0], first[1], own[0], first[0]);
  Substitute(own[1], RecordsIn(own[1])[0], own[0], first[2]);
  Substitute(own.back(), RecordsIn(own.back())[0], own[0], first[3]);
  Substitute(others[0], RecordsIn(others[0])[0], own[0], first[4]);
  for (const uint64_t n : {0U, 2U, 3U, 4U}) {
    EXPECT_EQ(fleet_.Read(2, FleetBlock(n)), ReadOutcome::kCorrupt) << n;
    EXPECT_FALSE(fleet_.Finds(2, FleetBlock(n))) << n;
  }
  EXPECT_EQ(fleet_.tier(2).figures().forged, 4U);
  EXPECT_EQ(fleet_.Read(2, FleetBlock(1)), ReadOutcome::kVerified);
  EXPECT_EQ(fleet_.Read(2, FleetBlock(5)), ReadOutcome::kVerified);
}

// A record of an older generation, put where one of the generation that counts lies.
TEST_P(ProtectedFleet, ARecordOfAnotherGenerationOrTenantIsAMiss) {
  fleet_.StartAll();
  FleetBlock now(1, 2);
  FleetBlock foreign(2);
  foreign.space = {991, 992};
  FleetBlock wanted(2);
  ASSERT_EQ(fleet_.Publish(0, FleetBlock(1, 1)), WriteOutcome::kWritten);
  ASSERT_EQ(fleet_.Publish(0, now), WriteOutcome::kWritten);
  ASSERT_EQ(fleet_.Publish(0, foreign), WriteOutcome::kWritten);
  ASSERT_EQ(fleet_.Publish(0, wanted), WriteOutcome::kWritten);
  fleet_.Pass(absl::Seconds(2));
  const std::string segment = SegmentsOf(0).front();
  const std::vector<uint64_t> records = RecordsIn(segment);
  ASSERT_EQ(records.size(), 4U);
  Substitute(segment, records[0], segment, records[1]);
  Substitute(segment, records[2], segment, records[3]);
  EXPECT_EQ(fleet_.Read(1, now), ReadOutcome::kCorrupt);
  EXPECT_EQ(fleet_.Read(1, wanted), ReadOutcome::kCorrupt);
  EXPECT_EQ(fleet_.Read(1, foreign), ReadOutcome::kVerified);
}

TEST_P(ProtectedFleet, ChangedPayloadsWithChecksumsToMatchAreMisses) {
  fleet_.StartAll();
  PublishOn(0, 0, 8);
  fleet_.Pass(absl::Seconds(2));
  const std::string segment = SegmentsOf(0).front();
  const std::vector<uint64_t> records = RecordsIn(segment);
  std::string content = fleet_.mount.Content(segment);
  for (const uint64_t at : records) {
    SealedHeader header = HeaderAt(segment, at);
    content[at + kPageBytes + header.payload_bytes / 2] ^= 1;
    header.stored_checksum =
        PayloadChecksum({content.data() + at + kPageBytes, header.payload_bytes});
    EncodeSealedHeader(header, absl::MakeSpan(content).subspan(at, kPageBytes));
  }
  fleet_.mount.Plant(segment, content);
  for (uint64_t n = 0; n < 8; ++n) {
    EXPECT_EQ(fleet_.Read(1, FleetBlock(n)), ReadOutcome::kCorrupt) << n;
  }
  EXPECT_EQ(fleet_.tier(1).figures().forged, 8U);
  EXPECT_EQ(fleet_.tier(1).figures().corrupt, 8U);
}

TEST_P(ProtectedFleet, DamageThatNobodyRecomputedIsNotCalledAForgery) {
  fleet_.StartAll();
  PublishOn(0, 0, 1);
  fleet_.Pass(absl::Seconds(2));
  fleet_.mount.FlipBit(SegmentsOf(0).front(), 2 * kPageBytes + 100, 3);
  EXPECT_EQ(fleet_.Read(1, FleetBlock(0)), ReadOutcome::kCorrupt);
  EXPECT_EQ(fleet_.tier(1).figures().corrupt, 1U);
  EXPECT_EQ(fleet_.tier(1).figures().forged, 0U);
}

// What the attacker sealed himself, with a key of his own, and listed in reports and footers.
TEST_P(ProtectedFleet, WhatAStrangerSealedIsNeverFound) {
  fleet_.StartAll();
  PublishOn(0, 0, 5);
  fleet_.Pass(absl::Seconds(2));
  const auto stranger = SecretOf(GetParam(), 2);
  PoolFleet theirs(1);
  theirs.secret = stranger.get();
  PoolSuperblock superblock{fleet_.node(0).pool, GetParam(),
                            stranger->ProofOf(fleet_.node(0).pool)};
  std::string page(kPageBytes, '\0');
  EncodePoolSuperblock(superblock, absl::MakeSpan(page));
  theirs.mount.Plant("terrace.pool", page);
  theirs.mount.Plant("members/none", "");
  theirs.mount.Plant("nodes/none", "");
  theirs.StartAll();
  FleetBlock poison(7);
  poison.payload.assign(poison.payload.size(), 'x');
  ASSERT_EQ(theirs.Publish(0, poison), WriteOutcome::kWritten);
  theirs.Pass(absl::Seconds(3));
  // As another member of the pool, and as node 0, in the place of its head.
  for (const std::string& path : theirs.mount.Paths()) {
    if (path != "terrace.pool") {
      std::string as_another = path;
      const std::string name = PoolFleet::NameOf(0).ToHex();
      if (const size_t at = as_another.find(name); at != std::string::npos) {
        as_another.replace(at, name.size(), PoolFleet::NameOf(7).ToHex());
      }
      fleet_.mount.Plant(as_another, theirs.mount.Content(path));
    }
  }
  const std::string head = theirs.mount.Content(PathsIn(theirs, "/head").front());
  for (const std::string& path : PathsWith(PoolFleet::NameOf(0).ToHex())) {
    if (path.find("/head") != std::string::npos) {
      fleet_.mount.Plant(path, head);
    }
  }
  fleet_.Pass(absl::Seconds(10));
  for (size_t i = 0; i < kNodes; ++i) {
    EXPECT_FALSE(fleet_.Finds(i, poison)) << i;
    EXPECT_EQ(fleet_.Read(i, FleetBlock(1)), ReadOutcome::kVerified) << i;
    EXPECT_EQ(fleet_.tier(i).figures().state, PoolState::kOnline);
  }
}

TEST_P(ProtectedFleet, APlainReportIsNoneHere) {
  fleet_.StartAll();
  PublishOn(0, 0, 5);
  fleet_.Pass(absl::Seconds(2));
  const NodeLife life{{1, 1}, 5};
  PoolReport report;
  report.pool = fleet_.node(0).pool;
  report.life = life;
  report.serial = 100;
  report.manifest = 1;
  report.generations = {{{77, 78}, 9}};
  fleet_.mount.Plant(MemberPath(life), "");
  fleet_.mount.Plant(HeadPath(life), EncodeReport(report));
  report.kind = ReportKind::kManifest;
  fleet_.mount.Plant(ManifestPath(life, 1), EncodeReport(report));
  fleet_.Pass(absl::Seconds(15));
  EXPECT_TRUE(fleet_.node(1).learned.empty());
  EXPECT_EQ(fleet_.Read(1, FleetBlock(1)), ReadOutcome::kVerified);
}

TEST_P(ProtectedFleet, AnOldHeadPutBackTakesNothingBackFromWhoHeardOfIt) {
  fleet_.StartAll();
  PublishOn(0, 0, 5);
  fleet_.Pass(absl::Seconds(2));
  std::vector<std::pair<std::string, std::string>> old;
  for (const std::string& path : PathsWith("/head")) {
    old.emplace_back(path, fleet_.mount.Content(path));
  }
  ASSERT_EQ(fleet_.Delete(0, FleetBlock(2)), WriteOutcome::kWritten);
  PublishOn(0, 50, 1);
  fleet_.Pass(absl::Seconds(3));
  for (const auto& [path, content] : old) {
    fleet_.mount.Plant(path, content);
  }
  fleet_.Pass(absl::Seconds(3));
  for (size_t i = 0; i < kNodes; ++i) {
    EXPECT_FALSE(fleet_.Finds(i, FleetBlock(2))) << i;
    EXPECT_TRUE(fleet_.Finds(i, FleetBlock(50))) << i;
  }
}

TEST_P(ProtectedFleet, ForgedFootersCostMissesAndNoBytes) {
  fleet_.StartAll();
  PublishOn(0, 0, 60);
  fleet_.Pass(absl::Seconds(3));
  fleet_.Stop(0);
  fleet_.Start(0);  // whose head does not list what lies in its segments
  fleet_.Pass(absl::Seconds(8));
  const std::string segment = SegmentsOf(0).front();
  std::string content = fleet_.mount.Content(segment);
  SegmentTrailer trailer;
  ASSERT_EQ(DecodeTrailer({content.data() + content.size() - kPageBytes, kPageBytes}, &trailer),
            HeaderFault::kNone);
  const absl::Span<char> entries =
      absl::MakeSpan(content).subspan(uint64_t{trailer.entries_page} * kPageBytes,
                                      uint64_t{FooterPages(trailer.entries) - 1} * kPageBytes);
  std::vector<IndexedRecord> records;
  ASSERT_TRUE(DecodeEntries(entries, trailer, &records));
  // Each block is said to lie where the next one does.
  for (size_t i = 0; i + 1 < records.size(); ++i) {
    std::swap(records[i].fingerprint, records[i + 1].fingerprint);
  }
  EncodeEntries(records, entries);
  trailer.entries_checksum = PayloadChecksum(entries);
  EncodeTrailer(trailer, absl::MakeSpan(content).last(kPageBytes));
  fleet_.mount.Plant(segment, content);
  fleet_.Kill(1);
  fleet_.node(1).with_index = false;
  fleet_.Start(1);
  fleet_.Pass(absl::Seconds(12));
  uint64_t genuine = 0;
  for (uint64_t n = 0; n < 60; ++n) {
    genuine += fleet_.Read(1, FleetBlock(n)) == ReadOutcome::kVerified ? 1 : 0;  // wrong bytes fail
  }
  EXPECT_GT(genuine, 0U);
  EXPECT_LE(genuine, 60 - records.size());
}

// ---------------------------------------------------------------- pools of others

TEST_P(ProtectedFleet, WhoHasAnotherKeyOrAnotherAuthLeavesThePoolAlone) {
  fleet_.StartAll();
  PublishOn(0, 0, 3);
  fleet_.Stop(0);
  fleet_.Stop(1);
  fleet_.Kill(2);
  const auto stranger = SecretOf(GetParam(), 2);
  const auto other_auth =
      SecretOf(GetParam() == PoolAuth::kMac ? PoolAuth::kEncrypt : PoolAuth::kMac, 1);
  std::vector<std::string> before;
  for (const std::string& path : fleet_.mount.Paths()) {
    before.push_back(path + fleet_.mount.Content(path));
  }
  const std::vector<std::pair<const PoolSecret*, std::string>> others = {
      {stranger.get(), "another key"},
      {other_auth.get(), "auth = " + std::string(AuthText(GetParam()))},
      {nullptr, "configured with auth = none"}};
  for (const auto& [secret, said] : others) {
    fleet_.node(2).secret = secret;
    fleet_.Start(2);
    fleet_.Pass(absl::Seconds(20));
    EXPECT_EQ(fleet_.tier(2).figures().state, PoolState::kForeign) << said;
    EXPECT_NE(fleet_.tier(2).figures().last_fault.find(said), std::string::npos)
        << fleet_.tier(2).figures().last_fault;
    EXPECT_FALSE(fleet_.Finds(2, FleetBlock(1)));
    EXPECT_EQ(fleet_.Publish(2, FleetBlock(9)), WriteOutcome::kFault);
    fleet_.Kill(2);
  }
  std::vector<std::string> after;
  for (const std::string& path : fleet_.mount.Paths()) {
    after.push_back(path + fleet_.mount.Content(path));
  }
  EXPECT_EQ(before, after);
}

TEST_P(ProtectedFleet, WhoHasAKeyLeavesAnUnprotectedPoolAlone) {
  fleet_.secret = nullptr;
  fleet_.StartAll();
  PublishOn(0, 0, 1);
  fleet_.Kill(2);
  fleet_.node(2).secret = secret_.get();
  fleet_.Start(2);
  fleet_.Pass(absl::Seconds(10));
  EXPECT_EQ(fleet_.tier(2).figures().state, PoolState::kForeign);
  EXPECT_FALSE(fleet_.Finds(2, FleetBlock(0)));
}

// Otherwise a node would begin to write in plain text.
TEST_P(ProtectedFleet, ASuperblockThatIsReplacedMakesThePoolForeign) {
  fleet_.StartAll();
  PublishOn(0, 0, 1);
  const std::string right = fleet_.mount.Content("terrace.pool");
  const auto stranger = SecretOf(GetParam(), 2);
  std::string page(kPageBytes, '\0');
  for (const PoolSuperblock& forged :
       {PoolSuperblock{fleet_.node(0).pool}, PoolSuperblock{fleet_.node(0).pool, GetParam()},
        PoolSuperblock{fleet_.node(0).pool, GetParam(), stranger->ProofOf(fleet_.node(0).pool)},
        PoolSuperblock{{8, 8}, GetParam(), secret_->ProofOf(fleet_.node(0).pool)}}) {
    EncodePoolSuperblock(forged, absl::MakeSpan(page));
    fleet_.mount.Plant("terrace.pool", page);
    fleet_.Pass(absl::Seconds(20));
    EXPECT_EQ(fleet_.tier(0).figures().state, PoolState::kForeign);
    EXPECT_EQ(fleet_.Publish(0, FleetBlock(9)), WriteOutcome::kFault);
    fleet_.mount.Plant("terrace.pool", right);
    fleet_.Pass(absl::Seconds(10));
    EXPECT_EQ(fleet_.tier(0).figures().state, PoolState::kOnline);
    EXPECT_EQ(fleet_.Read(1, FleetBlock(0)), ReadOutcome::kVerified);
  }
}

}  // namespace
}  // namespace terrace
