#include <gtest/gtest.h>

#include "tools/ctl/admin_view.h"
#include "tools/ctl/cache_view.h"

namespace terrace::ctl {
namespace {

const Style kPlainStyle(Style::Colour::kNever);
const std::vector<std::string> kTwoKeys = {std::string(16, 'a'), std::string(16, 'b')};

TEST(TiersText, SaysWhatMayBeWrittenToALocalTier) {
  v1::TiersReply reply;
  v1::TierStatus* tier = reply.add_tiers();
  tier->set_name("g3");
  tier->set_kind("local");
  const auto text = [&reply] { return TiersText(reply, kPlainStyle); };
  EXPECT_EQ(text().find("may be written"), std::string::npos) << "there is no limit";
  tier->set_endurance_per_day(uint64_t{55} << 40);
  tier->set_saved_up_bytes(int64_t{3} << 30);
  EXPECT_NE(text().find("may be written: 55 TiB a day, 3 GiB saved up; no price; 0 blocks"),
            std::string::npos)
      << text();
  tier->set_saved_up_bytes(-(int64_t{1} << 30));
  tier->set_price_us_per_mib(250);
  tier->set_declined_blocks(17);
  EXPECT_NE(text().find("1 GiB beyond that already; worth from 250 us a MiB on; 17 blocks"),
            std::string::npos)
      << text();
}

TEST(StatusText, SaysWhatOutlivedARestartAndWhoPublishes) {
  v1::StatusReply reply;
  const auto text = [&reply] { return StatusText(reply, kPlainStyle); };
  EXPECT_EQ(text().find("recovered"), std::string::npos) << "there was nothing";
  EXPECT_EQ(text().find("PUBLISHES"), std::string::npos);
  reply.set_recovered_blocks(1200);
  reply.set_recovered_bytes(uint64_t{3} << 30);
  reply.set_unrecovered_blocks(7);
  reply.set_held_bytes(uint64_t{64} << 20);
  v1::PublisherStatus* publisher = reply.add_publishers();
  publisher->set_tenant("search");
  publisher->set_endpoint("tcp://127.0.0.1:5557");
  publisher->set_next_sequence(1764590000000123);
  publisher->set_batches(45);
  EXPECT_NE(text().find("1,200 (3 GiB) of the life before; 7 lost"), std::string::npos) << text();
  EXPECT_NE(text().find("64 MiB that clients of the life before"), std::string::npos) << text();
  EXPECT_NE(text().find("search     tcp://127.0.0.1:5557  -       1764590000000123    45"),
            std::string::npos)
      << text();
}

TEST(ProbeAnswer, SplitsStateAndTier) {
  v1::ProbeReply reply;
  reply.set_states(std::string("\x01\x13", 2));  // ready on tier 0, lower on tier 1
  reply.add_part_hits(2);
  reply.set_boundary_tokens(512);
  reply.set_load_us(1500);
  reply.set_hold_id(std::string(16, '\x11'));
  reply.set_hold_ms(30000);
  const absl::StatusOr<Answer> answer = ProbeAnswer(kTwoKeys, reply, kPlainStyle);
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->exit_code, kExitOk);
  EXPECT_EQ(answer->json["keys"][0]["state"], "ready");
  EXPECT_EQ(answer->json["keys"][1]["state"], "lower");
  EXPECT_EQ(answer->json["keys"][1]["tier_index"], 1);
  EXPECT_FALSE(answer->json.contains("states"));
  EXPECT_NE(answer->text.find("2 of 2 hit, usable to token 512"), std::string::npos)
      << answer->text;
  EXPECT_NE(answer->text.find("held for 30 s, --hold-id 11111111111111111111111111111111"),
            std::string::npos);
}

TEST(ProbeAnswer, SaysHowFarLoadingIsWorthIt) {
  v1::ProbeReply reply;
  reply.set_states(std::string("\x01\x13", 2));
  reply.add_part_hits(2);
  reply.set_boundary_tokens(512);
  reply.set_worth_tokens(512);
  const auto text = [&reply] { return ProbeAnswer(kTwoKeys, reply, kPlainStyle)->text; };
  EXPECT_EQ(text().find("computed"), std::string::npos) << "what is not known is not said";
  reply.set_recompute_us(250000);
  EXPECT_NE(text().find("\ncomputed in about 250 ms, worth loading to token 512\n"),
            std::string::npos)
      << text();
  reply.set_worth_tokens(0);
  EXPECT_NE(text().find("computed in about 250 ms, which is faster than loading any of it\n"),
            std::string::npos)
      << text();
  EXPECT_TRUE(ProbeAnswer(kTwoKeys, reply, kPlainStyle)->json.contains("recompute_us"));
}

TEST(ProbeAnswer, OfAMissSucceeds) {
  v1::ProbeReply reply;
  reply.set_states(std::string(2, '\0'));
  const absl::StatusOr<Answer> answer = ProbeAnswer(kTwoKeys, reply, kPlainStyle);
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->exit_code, kExitOk);
  EXPECT_TRUE(answer->json["keys"][0]["tier_index"].is_null());
  EXPECT_NE(answer->text.find("0 of 2 hit, 0 B\n"), std::string::npos) << answer->text;
}

TEST(PutAnswer, FailsWhenAKeyWasNotStored) {
  v1::PutReply reply;
  reply.set_outcomes(std::string("\x02\x03", 2));
  reply.set_reasons(std::string("\x00\x02", 2));
  reply.set_levels(std::string("\x02\x00", 2));
  const absl::StatusOr<Answer> answer = PutAnswer(kTwoKeys, reply, kPlainStyle);
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->exit_code, kExitFailed);
  EXPECT_EQ(answer->json["keys"][0]["outcome"], "duplicate");
  EXPECT_EQ(answer->json["keys"][0]["level"], "dram");
  EXPECT_EQ(answer->json["keys"][1]["outcome"], "declined");
  EXPECT_EQ(answer->json["keys"][1]["reason"], "quota");
  reply.set_outcomes(std::string("\x01\x02", 2));
  EXPECT_EQ(PutAnswer(kTwoKeys, reply, kPlainStyle)->exit_code, kExitOk);
}

TEST(GetAnswer, FailsUnlessEveryKeyWasDelivered) {
  v1::GetReply reply;
  reply.set_outcomes(std::string("\x01\x00", 2));
  reply.add_payload_bytes(5);
  reply.add_payload_bytes(0);
  const absl::StatusOr<Answer> answer = GetAnswer(kTwoKeys, reply, kPlainStyle);
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->exit_code, kExitFailed);
  EXPECT_EQ(answer->json["payload_bytes"], 5);
  EXPECT_EQ(answer->json["keys"][1]["outcome"], "miss");
}

TEST(PinAnswer, ShowsTheBudgetAndFailsWhenAKeyIsNotPinned) {
  v1::PinReply reply;
  reply.set_reasons(std::string("\x00\x0b", 2));
  reply.set_pinned_bytes(4096);
  reply.set_budget_bytes(1 << 20);
  const absl::StatusOr<Answer> answer = PinAnswer(kTwoKeys, reply, kPlainStyle);
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->exit_code, kExitFailed);
  EXPECT_EQ(answer->json["keys"][0]["pinned"], true);
  EXPECT_EQ(answer->json["keys"][1]["reason"], "not_present");
  EXPECT_NE(answer->text.find("4 KiB pinned of a budget of 1 MiB"), std::string::npos);
}

TEST(PrefetchAnswer, ReportsTheTicketThatWasWaitedFor) {
  v1::PrefetchReply reply;
  reply.set_ticket(9);
  reply.set_keys_moving(3);
  v1::TicketReply ticket;
  ticket.set_state(v1::TICKET_STATE_DONE);
  ticket.set_keys_total(3);
  ticket.set_keys_arrived(3);
  EXPECT_EQ(PrefetchAnswer(reply, &ticket, kPlainStyle).exit_code, kExitOk);
  EXPECT_TRUE(PrefetchAnswer(reply, nullptr, kPlainStyle).json["result"].is_null());
  ticket.set_keys_failed(1);
  const Answer failed = PrefetchAnswer(reply, &ticket, kPlainStyle);
  EXPECT_EQ(failed.exit_code, kExitFailed);
  EXPECT_EQ(failed.json["result"]["state"], "done");
  ticket.set_keys_failed(0);
  ticket.set_state(v1::TICKET_STATE_EXPIRED);
  EXPECT_EQ(PrefetchAnswer(reply, &ticket, kPlainStyle).exit_code, kExitFailed);
}

TEST(Answers, ThatDoNotFitTheKeysAreRefused) {
  v1::ProbeReply probe;
  probe.set_states("\x01");
  EXPECT_EQ(ProbeAnswer(kTwoKeys, probe, kPlainStyle).status().code(), absl::StatusCode::kInternal);
  v1::PutReply put;
  put.set_outcomes("\x01\x01");
  put.set_reasons(std::string(2, '\0'));
  EXPECT_EQ(PutAnswer(kTwoKeys, put, kPlainStyle).status().message(),
            "the daemon's answer has 0 values of levels for 2 keys");
  v1::GetReply get;
  get.set_outcomes(std::string(2, '\0'));
  EXPECT_FALSE(GetAnswer(kTwoKeys, get, kPlainStyle).ok());
  EXPECT_FALSE(PinAnswer(kTwoKeys, v1::PinReply(), kPlainStyle).ok());
}

TEST(StatusText, NeverShowsControlCharactersOfTheDaemon) {
  v1::StatusReply reply;
  reply.set_version("0.1\x1b[2J");
  reply.set_metrics_address("127.0.0.1:9464\n");
  const std::string text = StatusText(reply, kPlainStyle);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_NE(text.find("127.0.0.1:9464?\n"), std::string::npos);
}

TEST(StatusText, ShowsWhatIsHeldAndWhatIsServed) {
  v1::StatusReply reply;
  reply.set_version("0.1.0");
  reply.set_leases(3);
  reply.set_leased_bytes(6 << 20);
  reply.set_hits(3);
  reply.set_misses(1);
  reply.set_draining(true);
  reply.add_features(v1::FEATURE_LEASES);
  reply.add_features(v1::FEATURE_HOST_REGIONS);
  const std::string text = StatusText(reply, kPlainStyle);
  for (const char* piece :
       {"terraced 0.1.0", "draining", "leases       3 (6 MiB)", "3 hits, 1 misses (75.0%)",
        "leases host_regions", "metrics      off"}) {
    EXPECT_NE(text.find(piece), std::string::npos) << piece << "\n" << text;
  }
}

TEST(NamespacesText, ShowsWholeDigests) {
  v1::NamespacesReply reply;
  EXPECT_EQ(NamespacesText(reply, kPlainStyle), "no namespace is open\n");
  v1::NamespaceStatus* ns = reply.add_namespaces();
  ns->set_namespace_digest(std::string(16, '\xab'));
  ns->mutable_record()->set_model("llama");
  const std::string text = NamespacesText(reply, kPlainStyle);
  EXPECT_NE(text.find("\nabababababababababababababababab  "), std::string::npos) << text;
}

TEST(VerifyText, SaysWhatToDoAboutCorruption) {
  v1::VerifyReply reply;
  reply.set_blocks(10);
  EXPECT_NE(VerifyText(reply, kPlainStyle).find("all checksums hold"), std::string::npos);
  reply.set_corrupt(2);
  EXPECT_NE(VerifyText(reply, kPlainStyle).find("2 corrupt, dropped"), std::string::npos);
}

TEST(ReloadText, ListsBothKinds) {
  v1::ReloadReply reply;
  EXPECT_EQ(ReloadText(reply, kPlainStyle), "nothing differs\n");
  reply.add_changed("log.level");
  reply.add_needs_restart("dram.bytes");
  EXPECT_EQ(ReloadText(reply, kPlainStyle),
            "changed        log.level\nneeds restart  dram.bytes\n");
}

TEST(ExplainText, OfAMissShowsNoPlace) {
  v1::ExplainReply reply;
  reply.set_text("never stored");
  const std::string text = ExplainText(reply, kPlainStyle);
  EXPECT_EQ(text, "state  miss\nnever stored\n");
  reply.set_state(v1::KEY_STATE_READY);
  EXPECT_NE(ExplainText(reply, kPlainStyle).find("slab 0, offset 0"), std::string::npos);
}

}  // namespace
}  // namespace terrace::ctl
