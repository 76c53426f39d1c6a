#include "tools/ctl/cache_view.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "tools/ctl/proto_json.h"

namespace terrace::ctl {
namespace {

absl::Status Misfit(absl::string_view field, size_t got, size_t keys) {
  return absl::InternalError(
      absl::StrCat("the daemon's answer has ", got, " values of ", field, " for ", keys, " keys"));
}

// The value of an enum that travels as a byte a key.
int ByteAt(const std::string& packed, size_t i) {
  return static_cast<unsigned char>(packed[i]);
}

Table::Column Left(const char* title) {
  return {title, Table::Align::kLeft};
}
Table::Column Right(const char* title) {
  return {title, Table::Align::kRight};
}

Tone ToneOfState(int state) {
  switch (state) {
    case v1::KEY_STATE_READY:
      return Tone::kGood;
    case v1::KEY_STATE_MISS:
      return Tone::kDim;
    case v1::KEY_STATE_INVALID:
      return Tone::kBad;
    default:
      return Tone::kWarning;
  }
}

Tone ToneOfPut(int outcome) {
  return outcome == v1::PUT_OUTCOME_STORED || outcome == v1::PUT_OUTCOME_DUPLICATE ? Tone::kGood
                                                                                   : Tone::kBad;
}

}  // namespace

absl::StatusOr<Answer> ProbeAnswer(const std::vector<std::string>& keys,
                                   const v1::ProbeReply& reply,
                                   const Style& style) {
  if (reply.states().size() != keys.size()) {
    return Misfit("states", reply.states().size(), keys.size());
  }
  Answer answer;
  answer.json = JsonOf(reply);
  answer.json.erase("states");
  answer.json["keys"] = Json::array();
  Table table({Left("KEY"), Left("STATE"), Right("TIER")});
  for (size_t i = 0; i < keys.size(); ++i) {
    const int state = ByteAt(reply.states(), i) & 15;
    const int tier = ByteAt(reply.states(), i) >> 4;
    const bool held = state != v1::KEY_STATE_MISS && state != v1::KEY_STATE_INVALID;
    const std::string name = EnumName(v1::KeyState_descriptor(), state);
    answer.json["keys"].push_back(
        {{"key", Hex(keys[i])}, {"state", name}, {"tier_index", held ? Json(tier) : Json()}});
    table.Add(
        {Hex(keys[i]), Table::Cell(name, ToneOfState(state)), held ? absl::StrCat(tier) : "-"});
  }
  const uint32_t hits = reply.part_hits().empty() ? 0 : reply.part_hits(0);
  answer.text = absl::StrCat(table.Render(style), hits, " of ", keys.size(), " hit");
  if (reply.boundary_tokens() > 0) {
    absl::StrAppend(&answer.text, ", usable to token ", FormatCount(reply.boundary_tokens()));
  }
  absl::StrAppend(&answer.text, ", ", FormatBytes(reply.hit_bytes()));
  if (hits > 0) {
    absl::StrAppend(&answer.text, ", loads in about ",
                    FormatElapsed(absl::Microseconds(reply.load_us())));
  }
  answer.text += "\n";
  if (reply.recompute_us() > 0) {
    absl::StrAppend(
        &answer.text, "computed in about ", FormatElapsed(absl::Microseconds(reply.recompute_us())),
        reply.worth_tokens() == 0
            ? ", which is faster than loading any of it"
            : absl::StrCat(", worth loading to token ", FormatCount(reply.worth_tokens())),
        "\n");
  }
  if (!reply.hold_id().empty()) {
    absl::StrAppend(&answer.text, "held for ", FormatElapsed(absl::Milliseconds(reply.hold_ms())),
                    ", --hold-id ", Hex(reply.hold_id()), "\n");
  }
  if (reply.ticket() != 0) {
    absl::StrAppend(&answer.text, "prefetch ticket ", reply.ticket(), "\n");
  }
  return answer;
}

absl::StatusOr<Answer> PutAnswer(const std::vector<std::string>& keys,
                                 const v1::PutReply& reply,
                                 const Style& style) {
  for (const auto& [field, packed] :
       {std::pair("outcomes", &reply.outcomes()), std::pair("reasons", &reply.reasons()),
        std::pair("levels", &reply.levels())}) {
    if (packed->size() != keys.size()) {
      return Misfit(field, packed->size(), keys.size());
    }
  }
  Answer answer;
  answer.json = {{"boot_id", JsonOf(reply)["boot_id"]}, {"keys", Json::array()}};
  Table table({Left("KEY"), Left("OUTCOME"), Left("LEVEL"), Left("REASON")});
  for (size_t i = 0; i < keys.size(); ++i) {
    const int outcome = ByteAt(reply.outcomes(), i);
    const std::string name = EnumName(v1::PutOutcome_descriptor(), outcome);
    const std::string reason = EnumName(v1::Reason_descriptor(), ByteAt(reply.reasons(), i));
    const std::string level = EnumName(v1::Level_descriptor(), ByteAt(reply.levels(), i));
    answer.json["keys"].push_back(
        {{"key", Hex(keys[i])}, {"outcome", name}, {"reason", reason}, {"level", level}});
    table.Add({Hex(keys[i]), Table::Cell(name, ToneOfPut(outcome)), level,
               reason == "none" ? "" : reason});
    if (ToneOfPut(outcome) == Tone::kBad) {
      answer.exit_code = kExitFailed;
    }
  }
  answer.text = table.Render(style);
  return answer;
}

absl::StatusOr<Answer> GetAnswer(const std::vector<std::string>& keys,
                                 const v1::GetReply& reply,
                                 const Style& style) {
  if (reply.outcomes().size() != keys.size()) {
    return Misfit("outcomes", reply.outcomes().size(), keys.size());
  }
  if (static_cast<size_t>(reply.payload_bytes_size()) != keys.size()) {
    return Misfit("payload_bytes", static_cast<size_t>(reply.payload_bytes_size()), keys.size());
  }
  Answer answer;
  answer.json = {{"boot_id", JsonOf(reply)["boot_id"]}, {"keys", Json::array()}};
  uint64_t total = 0;
  Table table({Left("KEY"), Left("OUTCOME"), Right("PAYLOAD")});
  for (size_t i = 0; i < keys.size(); ++i) {
    const int outcome = ByteAt(reply.outcomes(), i);
    const uint32_t bytes = reply.payload_bytes(static_cast<int>(i));
    const std::string name = EnumName(v1::GetOutcome_descriptor(), outcome);
    answer.json["keys"].push_back(
        {{"key", Hex(keys[i])}, {"outcome", name}, {"payload_bytes", bytes}});
    const bool delivered = outcome == v1::GET_OUTCOME_OK;
    table.Add({Hex(keys[i]), Table::Cell(name, delivered ? Tone::kGood : Tone::kBad),
               delivered ? FormatBytes(bytes) : "-"});
    if (delivered) {
      total += bytes;
    } else {
      answer.exit_code = kExitFailed;
    }
  }
  answer.json["payload_bytes"] = total;
  answer.text = table.Render(style);
  return answer;
}

absl::StatusOr<Answer> PinAnswer(const std::vector<std::string>& keys,
                                 const v1::PinReply& reply,
                                 const Style& style) {
  if (reply.reasons().size() != keys.size()) {
    return Misfit("reasons", reply.reasons().size(), keys.size());
  }
  Answer answer;
  answer.json = JsonOf(reply);
  answer.json.erase("reasons");
  answer.json["keys"] = Json::array();
  Table table({Left("KEY"), Left("PINNED"), Left("REASON")});
  for (size_t i = 0; i < keys.size(); ++i) {
    const int reason = ByteAt(reply.reasons(), i);
    const bool pinned = reason == v1::REASON_NONE;
    const std::string name = EnumName(v1::Reason_descriptor(), reason);
    answer.json["keys"].push_back({{"key", Hex(keys[i])}, {"pinned", pinned}, {"reason", name}});
    table.Add({Hex(keys[i]), Table::Cell(pinned ? "yes" : "no", pinned ? Tone::kGood : Tone::kBad),
               pinned ? "" : name});
    if (!pinned) {
      answer.exit_code = kExitFailed;
    }
  }
  answer.text = absl::StrCat(table.Render(style), FormatBytes(reply.pinned_bytes()),
                             " pinned of a budget of ", FormatBytes(reply.budget_bytes()), "\n");
  return answer;
}

Answer PrefetchAnswer(const v1::PrefetchReply& reply,
                      const v1::TicketReply* ticket,
                      const Style& style) {
  Answer answer;
  answer.json = JsonOf(reply);
  answer.json["result"] = nullptr;
  answer.text = absl::StrCat(reply.keys_ready(), " in DRAM already, ", reply.keys_moving(),
                             " on their way, ", reply.keys_missing(), " on no tier\n");
  if (reply.ticket() != 0) {
    absl::StrAppend(&answer.text, "ticket ", reply.ticket(), "\n");
  }
  if (!reply.hold_id().empty()) {
    absl::StrAppend(&answer.text, "--hold-id ", Hex(reply.hold_id()), "\n");
  }
  if (ticket != nullptr) {
    answer.json["result"] = JsonOf(*ticket);
    const bool failed = ticket->keys_failed() > 0 ||
                        ticket->state() == v1::TICKET_STATE_CANCELLED ||
                        ticket->state() == v1::TICKET_STATE_EXPIRED;
    absl::StrAppend(&answer.text,
                    style.Paint(failed ? Tone::kBad : Tone::kGood,
                                EnumName(v1::TicketState_descriptor(), ticket->state())),
                    ": ", ticket->keys_arrived(), " of ", ticket->keys_total(), " arrived (",
                    FormatBytes(ticket->bytes_arrived()), "), ", ticket->keys_failed(),
                    " failed\n");
    answer.exit_code = failed ? kExitFailed : kExitOk;
  }
  return answer;
}

}  // namespace terrace::ctl
