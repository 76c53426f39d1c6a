// A service with a small DRAM and a lower tier, one engine process and one namespace: the room in
// which single statements of the contract are tried.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/contract/engines/contract_kit.h"

namespace terrace::contract {

class ServiceRoom : public testing::Test {
 protected:
  static constexpr uint64_t kSlot = 8192;  // of a payload of 4096: one header page and one page

  ServiceRoom() : digest_(process_.Open(PlainRecord())) {}

  v1::GetReply Get(const EngineProcess& who,
                   const std::vector<std::string>& keys,
                   v1::Delivery delivery,
                   const std::string& salt = "") {
    v1::GetRequest request;
    *request.add_parts() = PartOf(digest_, keys, v1::RULE_INDEPENDENT);
    request.mutable_parts(0)->set_salt(salt);
    request.set_delivery(delivery);
    v1::GetReply reply;
    const absl::Status status = service_.Get(who.caller, request, &reply);
    EXPECT_TRUE(status.ok()) << status;
    return reply;
  }

  v1::PutReply Put(const std::vector<std::string>& keys,
                   const std::string& payload,
                   v1::Level level = v1::LEVEL_DRAM) {
    v1::PutRequest request;
    *request.mutable_part() = PartOf(digest_, keys);
    request.add_payload_bytes(static_cast<uint32_t>(payload.size() / keys.size()));
    request.set_payload(payload);
    request.set_wait_for(level);
    v1::PutReply reply;
    const absl::Status status = service_.Put(process_.caller, request, &reply);
    EXPECT_TRUE(status.ok()) << status;
    return reply;
  }

  static std::string AllOk(size_t keys) {
    return std::string(keys, static_cast<char>(v1::GET_OUTCOME_OK));
  }

  doubles::ManualClock clock_;
  doubles::ServiceDouble service_{
      clock_,
      {.dram_bytes = 64 * kSlot, .local_tier = true, .lower_read_time = absl::Milliseconds(5)}};
  EngineProcess process_ = EngineProcess::Start(service_, "team");
  std::string digest_;
  std::vector<std::string> keys_ = Chain("prompt", 4);
};

}  // namespace terrace::contract
