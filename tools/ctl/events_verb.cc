// terracectl events: a line an event, as it comes.
#include <map>
#include <string>

#include "absl/strings/str_cat.h"

#include "tools/ctl/format.h"
#include "tools/ctl/verbs.h"

namespace terrace::ctl {
namespace {

constexpr size_t kShownBytes = 4;  // of keys and digests

std::string Short(absl::string_view bytes) {
  return Hex(bytes.substr(0, kShownBytes));
}

class EventLines {
 public:
  explicit EventLines(const Run& run) : run_(run) {}

  Connection::Enough Show(const v1::WatchReply& message) {
    for (const v1::WatchedNamespace& ns : message.namespaces()) {
      models_[ns.namespace_digest()] = ns.record().model();
    }
    for (const v1::Event& event : message.events()) {
      if (event.kind() == v1::EVENT_KIND_HEARTBEAT) {
        continue;
      }
      if (run_.line.output == CommandLine::Output::kJson) {
        ShowJson(message.publisher_id(), event);
      } else {
        run_.terminal.out << TextOf(event) << "\n";
      }
      if (++shown_ == run_.line.events.count) {
        return Connection::Enough::kYes;
      }
    }
    run_.terminal.out << std::flush;
    return run_.terminal.out ? Connection::Enough::kNo : Connection::Enough::kYes;
  }

 private:
  void ShowJson(uint64_t publisher, const v1::Event& event) {
    Json json;
    json["publisher_id"] = absl::StrCat(absl::Hex(publisher, absl::kZeroPad16));
    const auto model = models_.find(event.namespace_digest());
    json["model"] = model == models_.end() ? "" : model->second;
    json.update(JsonOf(event));
    run_.terminal.out << DumpJson(json) << "\n";
  }

  std::string TextOf(const v1::Event& event) {
    std::string text = absl::StrCat(event.sequence(), " ");
    switch (event.kind()) {
      case v1::EVENT_KIND_STORED:
        absl::StrAppend(&text, "stored in ", Printable(event.tier()), ": ", KeysOf(event));
        if (!event.parent().empty()) {
          absl::StrAppend(&text, " behind ", Short(event.parent()), "...");
        }
        absl::StrAppend(&text, " from token ", event.first_token());
        break;
      case v1::EVENT_KIND_MOVED:
        absl::StrAppend(&text, "moved to ", Printable(event.tier()), ": ", KeysOf(event));
        break;
      case v1::EVENT_KIND_REMOVED:
        absl::StrAppend(&text, "removed from ", Printable(event.tier()), ": ", KeysOf(event));
        break;
      case v1::EVENT_KIND_CLEARED:
        absl::StrAppend(&text, "cleared");
        break;
      case v1::EVENT_KIND_GAP:
        return text + "gap: events up to here were lost";
      case v1::EVENT_KIND_SNAPSHOT_END:
        return text + "snapshot ends";
      default:
        return absl::StrCat(text, "event of kind ", static_cast<int>(event.kind()));
    }
    absl::StrAppend(&text, ", of ", Printable(models_[event.namespace_digest()]), " (",
                    Short(event.namespace_digest()), ")");
    return text;
  }

  static std::string KeysOf(const v1::Event& event) {
    const size_t keys = event.key_bytes() == 0 ? 0 : event.keys().size() / event.key_bytes();
    return absl::StrCat(keys, keys == 1 ? " key " : " keys ", Short(event.keys()), "...");
  }

  const Run& run_;
  uint64_t shown_ = 0;
  std::map<std::string, std::string> models_;  // by digest
};

}  // namespace

absl::StatusOr<Answer> RunEvents(const Run& run) {
  v1::WatchRequest request;
  request.set_snapshot(run.line.events.from == EventsOptions::From::kSnapshot);
  if (!run.line.events.ns.empty()) {
    request.add_namespaces(run.line.events.ns);
  }
  EventLines lines(run);
  absl::Status status = run.daemon.Watch(
      request, [&lines](const v1::WatchReply& message) { return lines.Show(message); });
  if (!status.ok()) {
    return status;
  }
  Answer answer;
  answer.text_to = Answer::Text::kShown;
  return answer;
}

}  // namespace terrace::ctl
