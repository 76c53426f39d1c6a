// [[tier]] sections that must be refused, each with the whole line that the operator reads.
#pragma once

#include <string>
#include <vector>

namespace terrace {

struct BadConfig {
  std::string name;
  std::string text;
  std::string
      message;  // ends in "*": only the beginning is compared, because the rest is toml++'s wording
};

inline std::string DriveText(const std::string& path, const std::string& more = "") {
  return "[[tier]]\nkind = \"local\"\npath = \"" + path + "\"\ncapacity = \"2GiB\"\n" + more;
}

inline std::vector<BadConfig> BadTiers() {
  return {
      {"TierTable", "[tier]\nkind = \"local\"\n",
       "t.toml:1: tier: write [[tier]], once for each drive or shared folder"},
      {"TierValue", "tier = \"local\"\n",
       "t.toml:1: tier: write [[tier]], once for each drive or shared folder"},
      {"TierUnknownKey", "[[tier]]\ndir = \"/a\"\n", "t.toml:2: unknown key 'dir' in [[tier]]"},
      {"TierMisspeltKey", "[[tier]]\ncapasity = 1\n",
       "t.toml:2: unknown key 'capasity' in [[tier]]; did you mean capacity?"},
      {"TierWithoutKind", "[[tier]]\npath = \"/a\"\ncapacity = \"2GiB\"\n",
       "t.toml:1: tier: kind is missing"},
      {"TierWithoutPath", "[[tier]]\nkind = \"local\"\ncapacity = \"2GiB\"\n",
       "t.toml:1: tier: path is missing"},
      {"TierWithoutCapacity", DriveText("/a") + "[[tier]]\nkind = \"local\"\npath = \"/b\"\n",
       "t.toml:5: tier: capacity is missing"},
      {"TierKindDram", "[[tier]]\nkind = \"dram\"\n",
       "t.toml:2: tier.kind: must be local or shared, not 'dram'; DRAM is configured in [dram]"},
      {"TierKindUnknown", "[[tier]]\nkind = \"Local\"\n",
       "t.toml:2: tier.kind: must be local or shared, not 'Local'"},
      {"TierKindNoText", "[[tier]]\nkind = 3\n",
       "t.toml:2: tier.kind: must be a string, not an integer"},
      {"TierNameOfDram", "[[tier]]\nname = \"g2\"\n",
       "t.toml:2: tier.name: must not be g2, which is DRAM"},
      {"TierNameEmpty", "[[tier]]\nname = \"\"\n",
       "t.toml:2: tier.name: must be 1 to 32 letters, digits, '.' and '-', not ''"},
      {"TierNameWithSlash", "[[tier]]\nname = \"g/3\"\n",
       "t.toml:2: tier.name: must be 1 to 32 letters, digits, '.' and '-', not 'g/3'"},
      {"TierNameTooLong", "[[tier]]\nname = \"" + std::string(33, 'a') + "\"\n",
       "t.toml:2: tier.name: must be 1 to 32 letters, *"},
      {"TierPathRelative", "[[tier]]\npath = \"drive\"\n",
       "t.toml:2: tier.path: must be an absolute path, not 'drive'"},
      {"TierPathNoText", "[[tier]]\npath = [1]\n",
       "t.toml:2: tier.path: must be an absolute path, not an array"},
      {"TierCapacityNoSize", "[[tier]]\ncapacity = \"much\"\n",
       "t.toml:2: tier.capacity: must be *"},
      {"TierTooSmall", "[[tier]]\nkind = \"local\"\npath = \"/a\"\ncapacity = \"1GiB\"\n",
       "t.toml:1: tier.capacity: must be at least 1290MiB for blocks of 16MiB, not 1GiB"},
  };
}

inline std::string SharedText(const std::string& path, const std::string& more = "") {
  return "[[tier]]\nname = \"g4\"\nkind = \"shared\"\npath = \"" + path +
         "\"\ncapacity = \"2GiB\"\n" + more;
}

inline std::vector<BadConfig> BadProtection() {
  return {
      {"SharedAuthUnknown", SharedText("/a", "auth = \"tls\"\n"),
       "t.toml:6: tier.auth: must be none, mac or encrypt, not 'tls'"},
      {"SharedAuthNoText", SharedText("/a", "auth = true\n"),
       "t.toml:6: tier.auth: must be none, mac or encrypt, not true or false"},
      {"SharedAuthWithoutKey", SharedText("/a", "auth = \"mac\"\n"),
       "t.toml:1: tier.auth: mac needs key_file or key_credential, and has neither"},
      {"SharedAuthWithTwoKeys",
       SharedText("/a", "auth = \"encrypt\"\nkey_file = \"/k\"\nkey_credential = \"k\"\n"),
       "t.toml:1: tier.auth: encrypt needs key_file or key_credential, and not both"},
      {"SharedKeyWithoutAuth", SharedText("/a", "key_file = \"/k\"\n"),
       "t.toml:1: tier.key_file: protects nothing where tier.auth is none"},
      {"SharedCredentialWithoutAuth", SharedText("/a", "key_credential = \"k\"\n"),
       "t.toml:1: tier.key_credential: protects nothing where tier.auth is none"},
      {"SharedKeyInThePool", SharedText("/a", "auth = \"mac\"\nkey_file = \"/a/../a//pool.key\"\n"),
       "t.toml:1: tier.key_file: must not lie in the pool that it protects"},
      {"SharedKeyRelative", SharedText("/a", "key_file = \"pool.key\"\n"),
       "t.toml:6: tier.key_file: must be an absolute path, not 'pool.key'"},
      {"SharedCredentialAPath", SharedText("/a", "key_credential = \"../pool.key\"\n"),
       "t.toml:6: tier.key_credential: must be the name of a credential, 1 to 255 letters, "
       "digits, '.', '-' and '_', not '../pool.key'"},
      {"SharedCredentialDots", SharedText("/a", "key_credential = \"..\"\n"),
       "t.toml:6: tier.key_credential: must be the name of a credential, *"},
      {"SharedCredentialNoText", SharedText("/a", "key_credential = 1\n"),
       "t.toml:6: tier.key_credential: must be a string, not an integer"},
      {"SharedKeysInCoreDumps",
       SharedText("/a", "auth = \"mac\"\nkey_credential = \"k\"\n") +
           "[daemon]\ncore_dumps = true\n",
       "t.toml:1: tier.auth: cannot be mac while daemon.core_dumps is true: *"},
      {"LocalAuth", DriveText("/a", "auth = \"none\"\n"),
       "t.toml:5: tier.auth: only a shared tier has it"},
  };
}

inline std::vector<BadConfig> BadShared() {
  std::string many;
  for (int i = 0; i < 9; ++i) {
    std::string text = SharedText("/d/" + std::to_string(i));
    many += text.replace(text.find("g4"), 2, "g4." + std::to_string(i));
  }
  return {
      {"SharedWithoutName", "[[tier]]\nkind = \"shared\"\npath = \"/a\"\ncapacity = \"2GiB\"\n",
       "t.toml:1: tier: name is missing"},
      {"SharedKeyOnALocalTier", DriveText("/a", "publish = \"commit\"\n"),
       "t.toml:5: tier.publish: only a shared tier has it"},
      {"SharedNameTwice", SharedText("/a") + SharedText("/b"),
       "t.toml:1: tier.name: g4 is the name of another tier"},
      {"SharedNameOfTheDrives", DriveText("/a", "name = \"g4\"\n") + SharedText("/b"),
       "t.toml:6: tier.name: g4 is the name of another tier"},
      {"SharedNameOfTheLocalTier",
       "[[tier]]\nname = \"g3\"\nkind = \"shared\"\npath = \"/a\"\ncapacity = \"2GiB\"\n",
       "t.toml:1: tier.name: g3 is the name of the local tier"},
      {"SharedPathTwice", DriveText("/a") + SharedText("/a"),
       "t.toml:5: tier.path: '/a' is there twice"},
      {"SharedIsTheDataFolder", SharedText("/d") + "[daemon]\ndata_dir = \"/d\"\n",
       "t.toml:1: tier.path: must be a folder of its own, *"},
      {"SharedPublishUnknown", SharedText("/a", "publish = \"always\"\n"),
       "t.toml:6: tier.publish: must be commit, reuse, eviction or never, not 'always'"},
      {"SharedPublishNoText", SharedText("/a", "publish = 1\n"),
       "t.toml:6: tier.publish: must be commit, reuse, eviction or never, not an integer"},
      {"SharedSegmentTooSmall", SharedText("/a", "segment_size = \"16MiB\"\n"),
       "t.toml:1: tier.segment_size: must be a multiple of 4KiB from 32MiB (for blocks of 16MiB) "
       "to 16GiB, not 16MiB"},
      {"SharedSegmentUneven", SharedText("/a", "segment_size = 268435457\n"),
       "t.toml:1: tier.segment_size: must be a multiple of 4KiB from *"},
      {"SharedSegmentTooLarge", SharedText("/a", "segment_size = \"17GiB\"\n"),
       "t.toml:1: tier.segment_size: must be *"},
      {"SharedCapacityTooSmall", SharedText("/a", "segment_size = \"2GiB\"\n"),
       "t.toml:1: tier.capacity: must be at least two segments, 4GiB, not 2GiB"},
      {"SharedShareTooLarge", SharedText("/a", "node_share = \"3GiB\"\n"),
       "t.toml:1: tier.node_share: must be at most the capacity, 2GiB, not 3GiB"},
      {"SharedShareNoSize", SharedText("/a", "node_share = \"all\"\n"),
       "t.toml:6: tier.node_share: must be *"},
      {"SharedReserveNoSize", SharedText("/a", "free_reserve = \"all\"\n"),
       "t.toml:6: tier.free_reserve: must be *"},
      {"SharedGraceTooShort", SharedText("/a", "grace = \"10ms\"\n"),
       "t.toml:6: tier.grace: must be 1s to 24h, not 10ms"},
      {"SharedGraceNoTime", SharedText("/a", "grace = 60\n"),
       "t.toml:6: tier.grace: must be a time such as \"90s\", not an integer"},
      {"SharedDeadAfterTooShort", SharedText("/a", "dead_after = \"1s\"\n"),
       "t.toml:6: tier.dead_after: must be 10s to 720h, not 1s"},
      {"TooManyShared", many, "t.toml:41: tier: at most 8 shared tiers"},
      {"TenantPublishUnknown", "[[tenant]]\nalias = \"a\"\nuids = [1]\npublish = \"now\"\n",
       "t.toml:4: tenant.publish: must be commit, reuse, eviction or never, not 'now'"},
  };
}

inline std::vector<BadConfig> BadNamespaces() {
  return {
      {"NamespaceAsTable", "[namespace]\nmodel = \"*\"\n",
       "t.toml:1: namespace: write [[namespace]], once for each rule"},
      {"NamespaceAsKey", "namespace = 1\n",
       "t.toml:1: namespace: write [[namespace]], once for each rule"},
      {"NamespaceUnknownKey", "[[namespace]]\nmodle = \"*\"\n",
       "t.toml:2: unknown key 'modle' in [[namespace]]; did you mean model?"},
      {"NamespaceWithoutModel", "[[namespace]]\npublish = \"never\"\n",
       "t.toml:1: namespace: model is missing"},
      {"NamespaceWithoutPublish", "[[namespace]]\nmodel = \"*\"\n",
       "t.toml:1: namespace: publish or recompute is missing"},
      {"NamespaceModelEmpty", "[[namespace]]\nmodel = \"\"\n",
       "t.toml:2: namespace.model: must have 1 to 256 characters, not 0"},
      {"NamespaceModelNoText", "[[namespace]]\nmodel = 7\n",
       "t.toml:2: namespace.model: must be a string, not an integer"},
      {"NamespacePublishUnknown", "[[namespace]]\npublish = \"now\"\n",
       "t.toml:2: namespace.publish: must be commit, reuse, eviction or never, not 'now'"},
      {"NamespaceRecomputeNoText", "[[namespace]]\nrecompute = 7\n",
       "t.toml:2: namespace.recompute: must be one or two times of prompts such as "
       "\"8192: 600ms, 131072: 19s\", not an integer"},
      {"NamespaceRecomputeNoTime", "[[namespace]]\nrecompute = \"8192: soon\"\n",
       "t.toml:2: namespace.recompute: must be one or two times of prompts such as "
       "\"8192: 600ms, 131072: 19s\", not '8192: soon'"},
      {"NamespaceRecomputeNoTokens", "[[namespace]]\nrecompute = \"600ms\"\n",
       "t.toml:2: namespace.recompute: must be one or two times of prompts such as "
       "\"8192: 600ms, 131072: 19s\", not '600ms'"},
      {"NamespaceRecomputeThrice", "[[namespace]]\nrecompute = \"1: 1s, 2: 2s, 3: 3s\"\n",
       "t.toml:2: namespace.recompute: one or two points are needed"},
      {"NamespaceRecomputeFalls", "[[namespace]]\nrecompute = \"1000: 1s, 2000: 1500ms\"\n",
       "t.toml:2: namespace.recompute: the longer prompt must take as much a token as *"},
  };
}

}  // namespace terrace
