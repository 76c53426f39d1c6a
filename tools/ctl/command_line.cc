#include "tools/ctl/command_line.h"

#include <algorithm>
#include <array>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <CLI/CLI.hpp>

#include "tools/ctl/format.h"
#include "tools/ctl/typed_options.h"

namespace terrace::ctl {
namespace {

// "/admin.sock" and "/terrace.sock" have to fit into sockaddr_un behind it.
constexpr size_t kMaxRuntimeBytes = 107 - 13;

constexpr absl::string_view kRecordExample =
    "--model llama-3.1-8b --weights-revision r1 --kv-dtype bf16 --layout by-hand/1 "
    "--hash-algorithm sha256 "
    "--block-bytes 64KiB";

CLI::App* AddVerb(CLI::App& app,
                  absl::string_view name,
                  absl::string_view purpose,
                  absl::string_view example) {
  CLI::App* verb = app.add_subcommand(std::string(name), std::string(purpose));
  verb->footer(absl::StrCat("\nExample:\n  terracectl ", example));
  return verb;
}

void AddNamespaceOptions(CLI::App* verb, Typed& typed) {
  NamespaceChoice& ns = typed.line.blocks.ns;
  const auto* group = "Namespace (one of --namespace-digest, --record, --model ...)";
  const auto add = [&](const char* name, auto& target, const char* text) {
    return verb->add_option(name, target, text)->group(group);
  };
  add("--namespace-digest", typed.digest,
      "32 hexadecimal digits, as `terracectl namespaces` shows them");
  add("--record", ns.record_file,
      "file with the record as JSON, as `namespaces --json` shows it under \"record\"");
  add("--model", typed.text.model, "model id");
  add("--weights-revision", typed.text.weights_revision, "commit or digest of the weights");
  add("--kv-dtype", typed.text.kv_dtype, "bf16, fp8_e4m3, ...");
  add("--quantization", typed.text.quantization, "scheme and digest of the scales");
  add("--layout", typed.text.layout, "layout id with version");
  add("--engine-format", typed.text.engine_format, "engine and format version");
  add("--hash-algorithm", typed.text.hash_algorithm, "of the keys");
  add("--hash-seed", typed.text.hash_seed, "of a chain's first key");
  add("--block-tokens", typed.block_tokens, "tokens a block covers");
  add("--block-bytes", typed.block_bytes, "largest payload of a block, e.g. 2MiB");
  add("--group", typed.group, "KV-cache group");
  add("--group-kind", typed.text.group_kind, "full, sliding_window, state, ...");
  add("--shard-count", typed.shard_count, "ranks that hold different bytes");
  add("--shard-rank", typed.shard_rank, "this rank");
  add("--sharding", typed.sharding, "sharded, canonical or replicated");
  add("--parallel", typed.text.parallel, "further parallel sizes, e.g. pp=2");
  add("--key-suffix", typed.key_suffix, "hexadecimal end of every key");
  add("--label", typed.labels, "NAME=VALUE; repeatable")->allow_extra_args(false);
}

void AddBlockOptions(CLI::App* verb, Typed& typed) {
  AddNamespaceOptions(verb, typed);
  BlockChoice& blocks = typed.line.blocks;
  const auto* group = "Keys";
  verb->add_option("--key", typed.keys,
                   "hexadecimal, 16 to 64 bytes; repeatable, in the order of the chain")
      ->allow_extra_args(false)
      ->group(group);
  verb->add_option("--key-text", typed.key_texts, "any text: its SHA-256 is the key; repeatable")
      ->allow_extra_args(false)
      ->group(group);
  verb->add_option("--salt", typed.salt,
                   "hexadecimal, at most 256 bytes; part of the blocks' identity")
      ->group(group);
  verb->add_option("--salt-text", typed.salt_text, "the salt as text")->group(group);
  verb->add_option("--rule", typed.rule, "prefix (default), window, state or independent")
      ->group(group);
  verb->add_option("--first-token", blocks.first_token, "position at which the first block begins")
      ->group(group);
  verb->add_option("--window", blocks.window_tokens, "tokens of the window, with --rule window")
      ->group(group);
}

void AddWatchingVerbs(CLI::App& app, Typed& typed) {
  AddVerb(app, "status", "what the daemon holds and does", "status --json");
  CLI::App* top = AddVerb(app, "top", "the same, live; q quits", "top --interval 2s");
  top->add_flag("--once", typed.once, "one screen, averages since the daemon's start");
  top->add_option("--interval", typed.interval, "between screens, default 1s");
  AddVerb(app, "tiers", "media, their size and use", "tiers");
  CLI::App* pool = AddVerb(
      app, "pool", "shared tiers: nodes, use, lag, what was dropped, the worker", "pool g4");
  pool->add_option("NAME", typed.line.tier, "as `terracectl tiers` shows it; default: all of them");
  pool->add_option("--reclaim", typed.reclaim,
                   "also which files this node would give up for so much room, e.g. 10GiB; nothing "
                   "is done");
  AddVerb(app, "tenants", "who uses how much", "tenants");
  AddVerb(app, "namespaces", "namespaces with the digests that other verbs take", "namespaces");
  CLI::App* explain =
      AddVerb(app, "explain", "why a key is where it is",
              "explain --namespace-digest 00112233445566778899aabbccddeeff --key-text hello");
  AddBlockOptions(explain, typed);
  explain->add_option("--tenant", typed.line.tenant, "whose block; needed when there are several");
  CLI::App* doctor = AddVerb(app, "doctor", "what on this host would hurt; needs no daemon",
                             "doctor --data /var/lib/terrace");
  doctor
      ->add_option("--data", typed.line.doctor_dirs,
                   "folder of a tier, tried with real writes; repeatable")
      ->allow_extra_args(false);
  CLI::App* segment =
      AddVerb(app, "segment", "what lies in a disk tier's files; needs no daemon, writes nothing",
              "segment /var/lib/terrace/g3 --verify");
  segment->add_option("PATH", typed.line.segment.path, "a segment's file, or a tier's folder")
      ->required();
  segment->add_flag("--verify", typed.verify_payloads, "read and check the payloads as well");
  segment->add_flag("--records", typed.list_records,
                    "of a folder, too, list every record and not only damaged ones");
}

void AddBlockVerbs(CLI::App& app, Typed& typed) {
  const std::string by_hand = absl::StrCat(kRecordExample, " --key-text hello");
  CLI::App* probe =
      AddVerb(app, "probe", "which blocks could be delivered", absl::StrCat("probe ", by_hand));
  AddBlockOptions(probe, typed);
  probe->add_option("--hold", typed.hold, "keep the hits for this long, e.g. 30s; at most 10m");
  probe->add_flag("--prefetch", typed.prefetch, "also move hits of lower tiers up");
  CLI::App* put =
      AddVerb(app, "put", "store blocks", absl::StrCat("put ", by_hand, " --file payload.bin"));
  AddBlockOptions(put, typed);
  put->add_option("--file", typed.line.put.files,
                  "payload of a key, - is standard input; once a key")
      ->allow_extra_args(false);
  put->add_option("--parent", typed.parent, "key before the first one, hexadecimal");
  put->add_option("--parent-text", typed.parent_text, "the same, by text");
  put->add_option("--wait-for", typed.wait_for,
                  "source-free, dram (default), local-written, local-synced or pool");
  CLI::App* get = AddVerb(app, "get", "read blocks, end to end",
                          absl::StrCat("get ", by_hand, " --out payload.bin"));
  AddBlockOptions(get, typed);
  get->add_option("--out", typed.line.get.out,
                  "file to write; else standard output, which must not be a terminal");
  get->add_option("--hold-id", typed.hold_id, "a hold of an earlier probe, 32 hexadecimal digits");
  get->add_option("--wait", typed.wait, "wait so long for blocks that are on their way, e.g. 5s");
  CLI::App* prefetch = AddVerb(app, "prefetch", "move blocks of lower tiers up to DRAM",
                               absl::StrCat("prefetch ", by_hand, " --wait 10s"));
  AddBlockOptions(prefetch, typed);
  prefetch->add_option("--priority", typed.priority, "low, normal (default) or high");
  prefetch->add_option("--deadline", typed.deadline,
                       "give up after this, default 10s, at most 60s");
  prefetch->add_option("--hold", typed.hold, "hold what has arrived for this long");
  prefetch->add_option("--wait", typed.wait, "wait so long for the result, at most 10s");
  AddBlockOptions(AddVerb(app, "delete", "remove blocks", absl::StrCat("delete ", by_hand)), typed);
  CLI::App* pin =
      AddVerb(app, "pin", "keep blocks from eviction", absl::StrCat("pin ", by_hand, " --ttl 1h"));
  AddBlockOptions(pin, typed);
  pin->add_option("--ttl", typed.ttl, "for this long, at most 30d; default: until unpin");
  AddBlockOptions(
      AddVerb(app, "unpin", "allow their eviction again", absl::StrCat("unpin ", by_hand)), typed);
}

void AddOperatingVerbs(CLI::App& app, Typed& typed) {
  CLI::App* evict = AddVerb(app, "evict", "evict down to a size, in the order of placement",
                            "evict --target 512MiB");
  evict
      ->add_option("--target", typed.evict_target,
                   "bytes that may stay in use, e.g. 512MiB; 0 empties")
      ->required();
  evict->add_option("--tenant", typed.line.tenant, "of this tenant alone");
  evict->add_option("--tier", typed.line.tier, "default g2");
  CLI::App* drain = AddVerb(app, "drain", "stop admitting new blocks", "drain");
  drain->add_flag("--resume", typed.line.drain_resume, "admit again");
  CLI::App* verify =
      AddVerb(app, "verify", "recompute every checksum; exit 1 if one is wrong", "verify");
  verify->add_option("--tier", typed.line.tier, "default g2");
  CLI::App* quota = AddVerb(app, "quota", "show or set a tenant's share",
                            "quota default --guaranteed 1GiB --limit 8GiB");
  quota->add_option("TENANT", typed.line.quota.tenant, "alias, as `terracectl tenants` shows it")
      ->required();
  quota->add_option("--guaranteed", typed.guaranteed,
                    "bytes that others cannot displace; left out: unchanged");
  quota->add_option("--limit", typed.limit, "bytes at most, 0: none; left out: unchanged");
  AddVerb(app, "reload", "read the configuration again", "reload");
  CLI::App* scrub = AddVerb(app, "scrub", "read a disk tier back within its budget and check it",
                            "scrub --tier g3");
  scrub->add_option("--tier", typed.line.tier, "which");
  CLI::App* events = AddVerb(
      app, "events",
      "what is stored, moved and removed, until it is interrupted; with --json one object a line",
      "events --snapshot --count 10");
  events->add_flag("--snapshot", typed.snapshot, "begin with all that is held");
  events->add_option(
      "--namespace,--namespace-digest", typed.digest,
      "of this one alone: 32 hexadecimal digits, as `terracectl namespaces` has them");
  events->add_option("--count", typed.line.events.count, "end after so many events");
}

void AddEverything(CLI::App& app, Typed& typed) {
  app.name("terracectl");
  app.footer(
      "\n`terracectl VERB --help` has the options of a verb and an example.\n"
      "Exit status: 0 done, 1 it failed, 2 wrong usage, 78 configuration.");
  app.add_option("--runtime", typed.line.runtime_dir,
                 "folder of the daemon's sockets ($TERRACE_RUNTIME, /run/terrace)");
  app.add_flag("--json", typed.json, "one JSON object on standard output, nothing else");
  app.add_option("--timeout", typed.timeout, "give up on the daemon after this, default 10s");
  app.set_version_flag("--version", absl::StrCat("terracectl ", Version()));
  app.fallthrough();  // global options may stand behind the verb
  AddWatchingVerbs(app, typed);
  AddBlockVerbs(app, typed);
  AddOperatingVerbs(app, typed);
  app.require_subcommand(1);
}

EarlyEnd Usage(std::string text) {
  return {kExitUsage, std::move(text), "usage", CommandLine::Output::kText};
}

std::string WithoutLastNewlines(std::string text) {
  while (!text.empty() && text.back() == '\n') {
    text.pop_back();
  }
  return text;
}

// CLI11's exceptions end here.
std::optional<EarlyEnd> RunCli(CLI::App& app, absl::Span<const std::string> args) {
  try {
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));
    return std::nullopt;
  } catch (const CLI::CallForHelp&) {
    const std::vector<CLI::App*> verbs = app.get_subcommands();
    const std::string help =
        verbs.empty() ? app.help() : verbs.front()->help("terracectl [--runtime DIR]");
    return EarlyEnd{kExitOk, WithoutLastNewlines(help), "help", CommandLine::Output::kText};
  } catch (const CLI::CallForVersion&) {
    return EarlyEnd{kExitOk, absl::StrCat("terracectl ", Version()), "version",
                    CommandLine::Output::kText};
  } catch (const CLI::ParseError& error) {
    const std::vector<CLI::App*> verbs = app.get_subcommands();
    if (!verbs.empty()) {
      return Usage(absl::StrCat(Printable(error.what()), "; see terracectl ",
                                verbs.front()->get_name(), " --help"));
    }
    for (const std::string& arg : app.remaining(true)) {
      if (!absl::StartsWith(arg, "-")) {
        return Usage(
            absl::StrCat("there is no verb '", Printable(arg), "'; terracectl --help lists them"));
      }
    }
    if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr) {
      return Usage("name a verb; terracectl --help lists them");
    }
    return Usage(absl::StrCat(Printable(error.what()), "; see terracectl --help"));
  }
}

}  // namespace

absl::string_view Version() {
  return TERRACE_CTL_VERSION;
}

std::variant<CommandLine, EarlyEnd> ParseCommandLine(absl::Span<const std::string> args,
                                                     absl::string_view runtime_from_environment) {
  Typed typed;
  typed.line.runtime_dir =
      runtime_from_environment.empty() ? "/run/terrace" : std::string(runtime_from_environment);
  CLI::App app("Looks into a Terrace daemon and operates it.");
  AddEverything(app, typed);
  const CommandLine::Output output = std::find(args.begin(), args.end(), "--json") != args.end()
                                         ? CommandLine::Output::kJson
                                         : CommandLine::Output::kText;
  if (std::optional<EarlyEnd> end = RunCli(app, args)) {
    end->output = output;
    return *std::move(end);
  }
  typed.line.verb = app.get_subcommands().front()->get_name();
  if (absl::Status status = Finish(&typed); !status.ok()) {
    EarlyEnd end = Usage(std::string(status.message()));
    end.output = output;
    return end;
  }
  if (typed.line.runtime_dir.empty() || typed.line.runtime_dir.size() > kMaxRuntimeBytes) {
    return EarlyEnd{
        kExitConfiguration,
        absl::StrCat("runtime folder: ", typed.line.runtime_dir.size(),
                     " characters; a Unix socket's path leaves room for 1 to ", kMaxRuntimeBytes),
        "configuration", output};
  }
  return std::move(typed.line);
}

}  // namespace terrace::ctl
