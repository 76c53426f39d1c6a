#include "tools/ctl/proto_json.h"

#include "terrace/v1/admin.pb.h"
#include <gtest/gtest.h>

namespace terrace::ctl {
namespace {

TEST(JsonOf, ShowsEveryFieldAlsoWhenZero) {
  const Json json = JsonOf(v1::StatusReply());
  EXPECT_EQ(static_cast<int>(json.size()), v1::StatusReply::descriptor()->field_count());
  EXPECT_EQ(json["sessions"], 0);
  EXPECT_EQ(json["draining"], false);
  EXPECT_EQ(json["features"], Json::array());
  EXPECT_EQ(json["boot_id"], "0000000000000000");
}

TEST(JsonOf, WritesIdentitiesBytesAndEnumsAsText) {
  v1::NamespacesReply reply;
  reply.set_boot_id(0xfedcba9876543210);
  v1::NamespaceStatus* ns = reply.add_namespaces();
  ns->set_namespace_digest(std::string("\x00\xff", 2));
  ns->mutable_record()->set_sharding(v1::SHARDING_REPLICATED);
  ns->mutable_record()->set_block_bytes(uint64_t{1} << 60);
  (*ns->mutable_record()->mutable_labels())["b"] = "2";
  (*ns->mutable_record()->mutable_labels())["a"] = "1";
  EXPECT_EQ(DumpJson(JsonOf(reply)).find('\n'), std::string::npos);
  const Json json = JsonOf(reply);
  EXPECT_EQ(json["boot_id"], "fedcba9876543210");
  EXPECT_EQ(json["namespaces"][0]["namespace_digest"], "00ff");
  EXPECT_EQ(json["namespaces"][0]["record"]["sharding"], "replicated");
  EXPECT_EQ(json["namespaces"][0]["record"]["block_bytes"], uint64_t{1} << 60);
  EXPECT_EQ(DumpJson(json["namespaces"][0]["record"]["labels"]), R"({"a":"1","b":"2"})");
}

TEST(JsonOf, ShowsAbsentMessagesAsNullAndUnknownEnumsAsNumbers) {
  v1::NamespaceStatus ns;
  EXPECT_TRUE(JsonOf(ns)["record"].is_null());
  EXPECT_EQ(EnumName(v1::KeyState_descriptor(), v1::KEY_STATE_READY), "ready");
  EXPECT_EQ(EnumName(v1::GetOutcome_descriptor(), v1::GET_OUTCOME_REGION_FAILED), "region_failed");
  EXPECT_EQ(EnumName(v1::KeyState_descriptor(), 77), "77");
}

TEST(MessageFromJson, ReadsWhatJsonOfWrites) {
  v1::NamespaceRecord record;
  record.set_model("m");
  record.set_block_bytes(65536);
  record.set_group(3);
  record.set_sharding(v1::SHARDING_CANONICAL);
  record.set_key_suffix(std::string("\x00\x01", 2));
  (*record.mutable_labels())["quant"] = "none";
  v1::NamespaceRecord again;
  ASSERT_TRUE(MessageFromJson(JsonOf(record), &again).ok())
      << MessageFromJson(JsonOf(record), &again);
  EXPECT_EQ(again.SerializeAsString(), record.SerializeAsString());
}

TEST(MessageFromJson, NamesTheFieldThatDoesNotFit) {
  const auto message = [](const char* text) {
    v1::NamespaceRecord record;
    return std::string(MessageFromJson(*ParseJson(text), &record).message());
  };
  EXPECT_EQ(message(R"({"modle": "x"})"), "NamespaceRecord has no field 'modle'");
  EXPECT_EQ(message(R"({"model": 7})"), "field 'model' must be a string");
  EXPECT_EQ(message(R"({"group": -1})"),
            "field 'group' must be a whole number from 0 to 4294967295");
  EXPECT_EQ(message(R"({"group": 4294967296})"),
            "field 'group' must be a whole number from 0 to 4294967295");
  EXPECT_EQ(message(R"({"block_bytes": "64K"})"),
            "field 'block_bytes' must be a whole number from 0 to 18446744073709551615");
  EXPECT_EQ(message(R"({"sharding": "odd"})"),
            "field 'sharding' must be one of unspecified, sharded, canonical, replicated");
  EXPECT_EQ(message(R"({"key_suffix": "0g"})").substr(0, 41),
            "field 'key_suffix' must be hexadecimal: c");
  EXPECT_EQ(message(R"({"labels": {"a": 1}})"), "field 'labels' must be an object of strings");
  EXPECT_EQ(message(R"([])"), "a JSON object is needed");
}

TEST(ParseJson, RefusesWhatIsNoJsonWithoutThrowing) {
  EXPECT_FALSE(ParseJson("{").ok());
  EXPECT_FALSE(ParseJson("").ok());
  EXPECT_TRUE(ParseJson("{}").ok());
}

TEST(DumpJson, ReplacesBytesThatAreNotUtf8) {
  const std::string text = DumpJson(Json(std::string("a\xff")));
  EXPECT_EQ(text, "\"a\xef\xbf\xbd\"");
}

}  // namespace
}  // namespace terrace::ctl
