#include "tools/ctl/typed_options.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <openssl/sha.h>

#include "tools/ctl/format.h"

namespace terrace::ctl {
namespace {

constexpr size_t kMaxKeyBytes = 64;
constexpr size_t kMinKeyBytes = 16;
constexpr size_t kDigestBytes = 16;
constexpr size_t kMaxSaltBytes = 256;

template <typename Value>
struct Choice {
  absl::string_view name;
  Value value;
};
constexpr std::array<Choice<v1::Rule>, 4> kRules = {{{"prefix", v1::RULE_PREFIX},
                                                     {"window", v1::RULE_WINDOW},
                                                     {"state", v1::RULE_STATE_AT_END},
                                                     {"independent", v1::RULE_INDEPENDENT}}};
constexpr std::array<Choice<v1::Level>, 5> kLevels = {{{"source-free", v1::LEVEL_SOURCE_FREE},
                                                       {"dram", v1::LEVEL_DRAM},
                                                       {"local-written", v1::LEVEL_LOCAL_WRITTEN},
                                                       {"local-synced", v1::LEVEL_LOCAL_SYNCED},
                                                       {"pool", v1::LEVEL_POOL}}};
constexpr std::array<Choice<v1::Priority>, 3> kPriorities = {
    {{"low", v1::PRIORITY_LOW}, {"normal", v1::PRIORITY_NORMAL}, {"high", v1::PRIORITY_HIGH}}};
constexpr std::array<Choice<v1::Sharding>, 3> kShardings = {
    {{"sharded", v1::SHARDING_SHARDED},
     {"canonical", v1::SHARDING_CANONICAL},
     {"replicated", v1::SHARDING_REPLICATED}}};

absl::Status WithOption(absl::string_view option, const absl::Status& status) {
  return absl::InvalidArgumentError(absl::StrCat(option, ": ", status.message()));
}

template <typename Value, size_t kCount>
absl::Status SetChoice(absl::string_view option,
                       const std::string& typed,
                       const std::array<Choice<Value>, kCount>& choices,
                       Value* out) {
  if (typed.empty()) {
    return absl::OkStatus();
  }
  std::string known;
  for (const Choice<Value>& choice : choices) {
    if (choice.name == typed) {
      *out = choice.value;
      return absl::OkStatus();
    }
    absl::StrAppend(&known, known.empty() ? "" : ", ", choice.name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat(option, ": '", Printable(typed), "' is not one of ", known));
}

absl::Status SetDuration(absl::string_view option, const std::string& typed, absl::Duration* out) {
  if (typed.empty()) {
    return absl::OkStatus();
  }
  absl::StatusOr<absl::Duration> duration = ParseDuration(typed);
  if (!duration.ok()) {
    return WithOption(option, duration.status());
  }
  *out = *duration;
  return absl::OkStatus();
}

absl::Status SetHex(absl::string_view option, const std::string& typed, std::string* out) {
  absl::StatusOr<std::string> bytes = ParseHex(typed);
  if (!bytes.ok()) {
    return WithOption(option, bytes.status());
  }
  *out = *std::move(bytes);
  return absl::OkStatus();
}

// The first that is not OK.
absl::Status FirstError(std::initializer_list<absl::Status> statuses) {
  for (const absl::Status& status : statuses) {
    if (!status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status SetRecord(const Typed& typed, v1::NamespaceRecord* record) {
  record->set_model(typed.text.model);
  record->set_weights_revision(typed.text.weights_revision);
  record->set_kv_dtype(typed.text.kv_dtype);
  record->set_quantization(typed.text.quantization);
  record->set_layout(typed.text.layout);
  record->set_engine_format(typed.text.engine_format);
  record->set_hash_algorithm(typed.text.hash_algorithm);
  record->set_hash_seed(typed.text.hash_seed);
  record->set_group_kind(typed.text.group_kind);
  record->set_parallel(typed.text.parallel);
  record->set_block_tokens(typed.block_tokens);
  record->set_group(typed.group);
  record->set_shard_count(typed.shard_count);
  record->set_shard_rank(typed.shard_rank);
  v1::Sharding sharding = v1::SHARDING_UNSPECIFIED;
  if (absl::Status status = SetChoice("--sharding", typed.sharding, kShardings, &sharding);
      !status.ok()) {
    return status;
  }
  record->set_sharding(sharding);
  if (!typed.block_bytes.empty()) {
    absl::StatusOr<uint64_t> bytes = ParseBytes(typed.block_bytes);
    if (!bytes.ok()) {
      return WithOption("--block-bytes", bytes.status());
    }
    record->set_block_bytes(*bytes);
  }
  if (absl::Status status = SetHex("--key-suffix", typed.key_suffix, record->mutable_key_suffix());
      !status.ok()) {
    return status;
  }
  for (const std::string& label : typed.labels) {
    const std::pair<std::string, std::string> pair = absl::StrSplit(label, absl::MaxSplits('=', 1));
    if (pair.first.empty() || !absl::StrContains(label, '=')) {
      return absl::InvalidArgumentError(
          absl::StrCat("--label: '", Printable(label), "' is not NAME=VALUE"));
    }
    (*record->mutable_labels())[pair.first] = pair.second;
  }
  return absl::OkStatus();
}

absl::Status FinishNamespace(const Typed& typed, NamespaceChoice* ns) {
  if (absl::Status status = FirstError(
          {SetHex("--namespace-digest", typed.digest, &ns->digest), SetRecord(typed, &ns->record)});
      !status.ok()) {
    return status;
  }
  const bool by_options = ns->record.ByteSizeLong() > 0;
  const int ways = int{!ns->digest.empty()} + int{!ns->record_file.empty()} + int{by_options};
  if (ways == 0) {
    return absl::InvalidArgumentError(
        "name a namespace: --namespace-digest HEX (`terracectl namespaces` lists them), --record "
        "FILE, or --model and "
        "the other options of a record");
  }
  if (ways > 1) {
    return absl::InvalidArgumentError(
        "name the namespace in one way only: --namespace-digest, --record or --model ...");
  }
  if (!typed.digest.empty() && ns->digest.size() != kDigestBytes) {
    return absl::InvalidArgumentError(absl::StrCat("--namespace-digest: ", typed.digest.size(),
                                                   " hexadecimal digits; a digest has 32"));
  }
  return absl::OkStatus();
}

absl::Status FinishKeys(const Typed& typed, std::vector<std::string>* keys) {
  for (const std::string& text : typed.keys) {
    std::string key;
    if (absl::Status status = SetHex("--key", text, &key); !status.ok()) {
      return status;
    }
    if (key.size() < kMinKeyBytes || key.size() > kMaxKeyBytes) {
      return absl::InvalidArgumentError(absl::StrCat("--key: ", key.size(), " bytes; a key has ",
                                                     kMinKeyBytes, " to ", kMaxKeyBytes,
                                                     " (--key-text makes one of any text)"));
    }
    keys->push_back(std::move(key));
  }
  for (const std::string& text : typed.key_texts) {
    keys->push_back(KeyOfText(text));
  }
  if (keys->empty()) {
    return absl::InvalidArgumentError("name at least one key: --key HEX or --key-text TEXT");
  }
  for (const std::string& key : *keys) {
    if (key.size() != keys->front().size()) {
      return absl::InvalidArgumentError(absl::StrCat("--key: keys of ", keys->front().size(),
                                                     " and of ", key.size(),
                                                     " bytes; all keys of a call have one length"));
    }
  }
  return absl::OkStatus();
}

absl::Status FinishBlocks(const Typed& typed, BlockChoice* blocks) {
  absl::Status status =
      FirstError({FinishNamespace(typed, &blocks->ns), FinishKeys(typed, &blocks->keys),
                  SetHex("--salt", typed.salt, &blocks->salt),
                  SetChoice("--rule", typed.rule, kRules, &blocks->rule)});
  if (!status.ok()) {
    return status;
  }
  if (!typed.salt_text.empty()) {
    if (!typed.salt.empty()) {
      return absl::InvalidArgumentError("give one of --salt and --salt-text");
    }
    blocks->salt = typed.salt_text;
  }
  if (blocks->salt.size() > kMaxSaltBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--salt: ", blocks->salt.size(), " bytes, the limit is ", kMaxSaltBytes));
  }
  if ((blocks->rule == v1::RULE_WINDOW) != (blocks->window_tokens > 0)) {
    return absl::InvalidArgumentError("--window TOKENS and --rule window belong together");
  }
  return absl::OkStatus();
}

absl::Status FinishPut(const Typed& typed, CommandLine* line) {
  PutOptions& put = line->put;
  if (absl::Status status =
          FirstError({SetHex("--parent", typed.parent, &put.parent),
                      SetChoice("--wait-for", typed.wait_for, kLevels, &put.wait_for)});
      !status.ok()) {
    return status;
  }
  if (!typed.parent_text.empty()) {
    put.parent = KeyOfText(typed.parent_text);
  }
  const size_t keys = line->blocks.keys.size();
  if (put.files.empty() ? keys != 1 : put.files.size() != keys) {
    return absl::InvalidArgumentError(
        absl::StrCat(keys, keys == 1 ? " key and " : " keys and ", put.files.size(),
                     " files: give --file once a key, in the same order (one key alone may read "
                     "standard input)"));
  }
  if (std::count(put.files.begin(), put.files.end(), "-") > 1) {
    return absl::InvalidArgumentError("--file: standard input (-) can be read once only");
  }
  return absl::OkStatus();
}

absl::Status FinishGet(const Typed& typed, CommandLine* line) {
  GetOptions& get = line->get;
  if (absl::Status status = FirstError({SetHex("--hold-id", typed.hold_id, &get.hold),
                                        SetDuration("--wait", typed.wait, &get.wait)});
      !status.ok()) {
    return status;
  }
  if (!get.hold.empty() && get.hold.size() != kDigestBytes) {
    return absl::InvalidArgumentError("--hold-id: a hold has 32 hexadecimal digits");
  }
  if (typed.json && get.out.empty()) {
    return absl::InvalidArgumentError(
        "get --json needs --out FILE: standard output carries the JSON object alone");
  }
  return absl::OkStatus();
}

absl::Status SetSize(absl::string_view option,
                     const std::string& typed,
                     std::optional<uint64_t>* out) {
  if (typed.empty()) {
    return absl::OkStatus();
  }
  absl::StatusOr<uint64_t> bytes = ParseBytes(typed);
  if (!bytes.ok()) {
    return WithOption(option, bytes.status());
  }
  *out = *bytes;
  return absl::OkStatus();
}

absl::Status FinishEvents(const Typed& typed, EventsOptions* events) {
  events->from = typed.snapshot ? EventsOptions::From::kSnapshot : EventsOptions::From::kNow;
  absl::Status status = SetHex("--namespace", typed.digest, &events->ns);
  if (status.ok() && !typed.digest.empty() && events->ns.size() != kDigestBytes) {
    return absl::InvalidArgumentError("--namespace: a digest has 32 hexadecimal digits");
  }
  return status;
}

absl::Status FinishVerb(const Typed& typed, CommandLine* line) {
  const std::string& verb = line->verb;
  constexpr std::array<absl::string_view, 8> kOnBlocks = {"probe",  "put",     "get", "prefetch",
                                                          "delete", "explain", "pin", "unpin"};
  if (std::find(kOnBlocks.begin(), kOnBlocks.end(), verb) != kOnBlocks.end()) {
    if (absl::Status status = FinishBlocks(typed, &line->blocks); !status.ok()) {
      return status;
    }
  }
  if (verb == "put") {
    return FinishPut(typed, line);
  }
  if (verb == "get") {
    return FinishGet(typed, line);
  }
  if (verb == "probe") {
    line->probe.prefetch =
        typed.prefetch ? ProbeOptions::Prefetch::kYes : ProbeOptions::Prefetch::kNo;
    return SetDuration("--hold", typed.hold, &line->probe.hold);
  }
  if (verb == "prefetch") {
    return FirstError(
        {SetChoice("--priority", typed.priority, kPriorities, &line->prefetch.priority),
         SetDuration("--deadline", typed.deadline, &line->prefetch.deadline),
         SetDuration("--hold", typed.hold, &line->prefetch.hold),
         SetDuration("--wait", typed.wait, &line->prefetch.wait)});
  }
  if (verb == "explain" && line->blocks.keys.size() != 1) {
    return absl::InvalidArgumentError("explain takes one key");
  }
  if (verb == "events") {
    return FinishEvents(typed, &line->events);
  }
  if (verb == "evict") {
    std::optional<uint64_t> target;
    absl::Status status = SetSize("--target", typed.evict_target, &target);
    line->evict_target_bytes = target.value_or(0);
    return status;
  }
  if (verb == "pool") {
    std::optional<uint64_t> bytes;
    absl::Status status = SetSize("--reclaim", typed.reclaim, &bytes);
    line->pool_reclaim_bytes = bytes.value_or(0);
    return status;
  }
  if (verb == "quota") {
    return FirstError({SetSize("--guaranteed", typed.guaranteed, &line->quota.guaranteed_bytes),
                       SetSize("--limit", typed.limit, &line->quota.limit_bytes)});
  }
  if (verb == "segment") {
    line->segment.verify = typed.verify_payloads ? SegmentOptions::Verify::kPayloads
                                                 : SegmentOptions::Verify::kHeaders;
    line->segment.list =
        typed.list_records ? SegmentOptions::List::kRecords : SegmentOptions::List::kDamaged;
    return absl::OkStatus();
  }
  if (verb == "pin") {
    return SetDuration("--ttl", typed.ttl, &line->pin_ttl);
  }
  if (verb == "top") {
    line->top.repeat =
        typed.once || typed.json ? TopOptions::Repeat::kOnce : TopOptions::Repeat::kUntilQuit;
    absl::Status status = SetDuration("--interval", typed.interval, &line->top.interval);
    if (status.ok() && line->top.interval < absl::Milliseconds(100)) {
      return absl::InvalidArgumentError("--interval: at least 100ms");
    }
    return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Finish(Typed* typed) {
  CommandLine& line = typed->line;
  line.output = typed->json ? CommandLine::Output::kJson : CommandLine::Output::kText;
  if (!typed->timeout.empty()) {
    absl::Duration timeout;
    absl::Status status = SetDuration("--timeout", typed->timeout, &timeout);
    if (!status.ok()) {
      return status;
    }
    if (timeout < absl::Milliseconds(1)) {
      return absl::InvalidArgumentError("--timeout: at least 1ms");
    }
    line.timeout = timeout;
  }
  return FinishVerb(*typed, &line);
}

std::string KeyOfText(absl::string_view text) {
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return digest;
}

}  // namespace terrace::ctl
