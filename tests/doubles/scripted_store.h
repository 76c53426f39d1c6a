// The blocks behind a ScriptedServer: one sealed slab, leases, and regions that are mapped and
// copied from and into. Everything of one boot; answers all methods but Hello.
//
// Threads: Answer on the server's thread; the counts from any.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "tests/doubles/scripted_server.h"

namespace terrace::testing {

class ScriptedStore {
 public:
  static constexpr uint64_t kSlabBytes = uint64_t{8} << 20;
  static constexpr uint32_t kSlabId = 7;

  explicit ScriptedStore(uint64_t boot_id);
  ScriptedStore(const ScriptedStore&) = delete;
  ScriptedStore& operator=(const ScriptedStore&) = delete;
  ~ScriptedStore();

  void Answer(const ScriptedServer::Exchange& exchange);
  void EndOfSession(const void* session);
  [[nodiscard]] size_t leases() const;
  [[nodiscard]] size_t regions() const;

 private:
  struct Region {
    char* memory = nullptr;
    uint64_t bytes = 0;
    v1::Geometry geometry;
  };
  struct Block {
    uint64_t offset = 0;
    uint32_t bytes = 0;
  };

  void OpenNamespace(const ScriptedServer::Exchange& exchange) const;
  void RegisterRegion(const ScriptedServer::Exchange& exchange);
  void UnregisterRegion(const ScriptedServer::Exchange& exchange);
  void Probe(const ScriptedServer::Exchange& exchange) const;
  void Get(const ScriptedServer::Exchange& exchange);
  void Put(const ScriptedServer::Exchange& exchange);
  void Release(const ScriptedServer::Exchange& exchange);
  void Delete(const ScriptedServer::Exchange& exchange);
  // The bytes of one block of a region, segment by segment.
  void CopyBlock(const Region& region, uint32_t index, char* slot, uint32_t bytes, bool out) const;

  const uint64_t boot_id_;
  int slab_fd_ = -1;
  char* slab_ = nullptr;
  uint64_t slab_used_ = 0;
  std::map<std::string, Block> blocks_;  // digest + salt + key
  uint64_t next_lease_ = 1;
  mutable std::mutex mutex_;
  std::set<std::pair<const void*, std::string>> leases_;
  std::map<std::pair<const void*, uint32_t>, Region> regions_;
};

}  // namespace terrace::testing
