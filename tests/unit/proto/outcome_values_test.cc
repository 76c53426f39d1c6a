// The enums of tiers/vocab/outcome.h travel as bytes in packed answers: their values are those of
// the contract.
#include <map>
#include <string>

#include "terrace/v1/cache.pb.h"
#include "terrace/v1/session.pb.h"
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include "tiers/vocab/namespace_record.h"
#include "tiers/vocab/outcome.h"

namespace terrace {
namespace {

template <typename Enum>
using Values = std::map<std::string, Enum>;

// Every value of the contract but "unspecified" has one of the same number here, and there is none
// besides.
template <typename Enum>
void ExpectSame(const google::protobuf::EnumDescriptor& contract,
                const std::string& prefix,
                const Values<Enum>& ours) {
  size_t specified = 0;
  for (int i = 0; i < contract.value_count(); ++i) {
    const google::protobuf::EnumValueDescriptor& value = *contract.value(i);
    ASSERT_EQ(value.name().substr(0, prefix.size()), prefix);
    const std::string name = value.name().substr(prefix.size());
    if (name == "UNSPECIFIED") {
      continue;
    }
    ++specified;
    const auto it = ours.find(name);
    ASSERT_NE(it, ours.end()) << value.full_name() << " is missing in tiers/vocab";
    EXPECT_EQ(static_cast<int>(it->second), value.number()) << value.full_name();
  }
  EXPECT_EQ(specified, ours.size())
      << contract.full_name() << " lacks a value that tiers/vocab has";
}

TEST(OutcomeValues, KeyStatesAreThoseOfTheContract) {
  ExpectSame<KeyState>(*v1::KeyState_descriptor(), "KEY_STATE_",
                       {{"MISS", KeyState::kMiss},
                        {"READY", KeyState::kReady},
                        {"PENDING", KeyState::kPending},
                        {"LOWER", KeyState::kLower},
                        {"INVALID", KeyState::kInvalid}});
}

TEST(OutcomeValues, RulesAreThoseOfTheContract) {
  ExpectSame<Rule>(*v1::Rule_descriptor(), "RULE_",
                   {{"PREFIX", Rule::kPrefix},
                    {"WINDOW", Rule::kWindow},
                    {"STATE_AT_END", Rule::kStateAtEnd},
                    {"INDEPENDENT", Rule::kIndependent}});
}

TEST(OutcomeValues, GetOutcomesAreThoseOfTheContract) {
  ExpectSame<GetOutcome>(*v1::GetOutcome_descriptor(), "GET_OUTCOME_",
                         {{"MISS", GetOutcome::kMiss},
                          {"OK", GetOutcome::kOk},
                          {"CORRUPT", GetOutcome::kCorrupt},
                          {"BUSY", GetOutcome::kBusy},
                          {"DEADLINE", GetOutcome::kDeadline},
                          {"INVALID", GetOutcome::kInvalid},
                          {"REGION_FAILED", GetOutcome::kRegionFailed},
                          {"TRIMMED", GetOutcome::kTrimmed},
                          {"CANCELLED", GetOutcome::kCancelled}});
}

TEST(OutcomeValues, PutOutcomesAreThoseOfTheContract) {
  ExpectSame<PutOutcome>(*v1::PutOutcome_descriptor(), "PUT_OUTCOME_",
                         {{"STORED", PutOutcome::kStored},
                          {"DUPLICATE", PutOutcome::kDuplicate},
                          {"DECLINED", PutOutcome::kDeclined},
                          {"FAILED", PutOutcome::kFailed}});
}

TEST(OutcomeValues, ReasonsAreThoseOfTheContract) {
  ExpectSame<Reason>(*v1::Reason_descriptor(), "REASON_",
                     {{"NONE", Reason::kNone},
                      {"NO_SPACE", Reason::kNoSpace},
                      {"QUOTA", Reason::kQuota},
                      {"ADMISSION", Reason::kAdmission},
                      {"DRAINING", Reason::kDraining},
                      {"INVALID", Reason::kInvalid},
                      {"REGION_FAILED", Reason::kRegionFailed},
                      {"DEADLINE", Reason::kDeadline},
                      {"CANCELLED", Reason::kCancelled},
                      {"CLEARED", Reason::kCleared},
                      {"TIER_FAULT", Reason::kTierFault},
                      {"NOT_PRESENT", Reason::kNotPresent},
                      {"BUSY", Reason::kBusy},
                      {"TOO_LATE", Reason::kTooLate}});
}

TEST(OutcomeValues, LevelsAreThoseOfTheContract) {
  ExpectSame<Level>(*v1::Level_descriptor(), "LEVEL_",
                    {{"SOURCE_FREE", Level::kSourceFree},
                     {"DRAM", Level::kDram},
                     {"LOCAL_WRITTEN", Level::kLocalWritten},
                     {"LOCAL_SYNCED", Level::kLocalSynced},
                     {"POOL", Level::kPool}});
}

TEST(OutcomeValues, PrioritiesAreThoseOfTheContract) {
  ExpectSame<Priority>(
      *v1::Priority_descriptor(), "PRIORITY_",
      {{"LOW", Priority::kLow}, {"NORMAL", Priority::kNormal}, {"HIGH", Priority::kHigh}});
}

TEST(OutcomeValues, ShardingsAreThoseOfTheContract) {
  ExpectSame<Sharding>(*v1::Sharding_descriptor(), "SHARDING_",
                       {{"SHARDED", Sharding::kSharded},
                        {"CANONICAL", Sharding::kCanonical},
                        {"REPLICATED", Sharding::kReplicated}});
}

}  // namespace
}  // namespace terrace
