#include "daemon/wire/peer_budget.h"

#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace terrace {
namespace {

TEST(PeerLedger, AdmitsSoManyOfAUidAndSoManyInAll) {
  PeerLedger ledger({2, 3, 1});
  std::vector<ConnectionPermit> permits;
  permits.push_back(ledger.Admit(7));
  permits.push_back(ledger.Admit(7));
  EXPECT_FALSE(ledger.Admit(7).valid());
  permits.push_back(ledger.Admit(8));
  EXPECT_TRUE(permits.back().valid());
  EXPECT_FALSE(ledger.Admit(9).valid());
  permits.front().Return();
  EXPECT_TRUE(ledger.Admit(9).valid());
}

TEST(PeerLedger, CallsOfAUidAreCountedOverItsConnections) {
  PeerLedger ledger({4, 4, 2});
  const ConnectionPermit first = ledger.Admit(7);
  const ConnectionPermit second = ledger.Admit(7);
  CallPermit a = CallPermit::Take(first.budget());
  CallPermit b = CallPermit::Take(second.budget());
  EXPECT_TRUE(a.valid());
  EXPECT_TRUE(b.valid());
  EXPECT_FALSE(CallPermit::Take(first.budget()).valid());
  a.Return();
  a.Return();
  EXPECT_TRUE(CallPermit::Take(second.budget()).valid());
}

TEST(PeerLedger, CallsThatOutliveTheirConnectionStillCount) {
  PeerLedger ledger({1, 1, 1});
  ConnectionPermit connection = ledger.Admit(7);
  CallPermit call = CallPermit::Take(connection.budget());
  connection.Return();
  ConnectionPermit next = ledger.Admit(7);
  ASSERT_TRUE(next.valid());
  EXPECT_FALSE(CallPermit::Take(next.budget()).valid());
  call.Return();
  EXPECT_TRUE(CallPermit::Take(next.budget()).valid());
}

TEST(PeerLedger, PermitsMayOutliveTheLedger) {
  ConnectionPermit permit;
  {
    PeerLedger ledger({1, 1, 1});
    permit = ledger.Admit(7);
  }
  permit.Return();
  EXPECT_FALSE(permit.valid());
}

TEST(PeerLedger, StreamsShareTheirUidsBytesAndThoseOfAll) {
  PeerLedger ledger({2, 4, 4, 10, 15});
  const ConnectionPermit seven = ledger.Admit(7);
  const ConnectionPermit eight = ledger.Admit(8);
  StreamPermit first = StreamPermit::Take(seven.budget(), 6);
  ASSERT_TRUE(first.valid());
  EXPECT_FALSE(StreamPermit::Take(seven.budget(), 5).valid());
  EXPECT_FALSE(StreamPermit::Take(eight.budget(), 10).valid());
  StreamPermit second = StreamPermit::Take(eight.budget(), 9);
  EXPECT_TRUE(second.valid());
  EXPECT_FALSE(StreamPermit::Take(seven.budget(), 1).valid()) << "all of them together have 15";
  first.Return();
  first.Return();
  EXPECT_TRUE(StreamPermit::Take(seven.budget(), 6).valid());
  EXPECT_FALSE(StreamPermit::Take(seven.budget(), UINT64_MAX).valid());
}

TEST(PeerLedger, AStreamsPermitMovesAndIsGivenBackOnce) {
  PeerLedger ledger({1, 1, 1, 10, 10});
  const ConnectionPermit connection = ledger.Admit(7);
  {
    StreamPermit held = StreamPermit::Take(connection.budget(), 10);
    StreamPermit moved = std::move(held);
    EXPECT_TRUE(moved.valid());
    EXPECT_FALSE(StreamPermit::Take(connection.budget(), 1).valid());
    moved = StreamPermit();
    EXPECT_TRUE(StreamPermit::Take(connection.budget(), 10).valid());
  }
  EXPECT_TRUE(StreamPermit::Take(connection.budget(), 10).valid());
}

}  // namespace
}  // namespace terrace
