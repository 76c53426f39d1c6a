// A stand-in for terraced's session socket, for tests of libterrace: a thread on a Unix socket that
// speaks frames of session.proto and keeps blocks in one sealed slab. A script may take any method
// over, to delay, refuse, reorder, answer garbage, pass descriptors or end the connection; the
// server itself can hang, stop and come back with a new boot id.
//
// Threads: all public functions may be called from any thread; scripts run on the server's thread,
// and an Exchange may be kept and answered later from any other.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "google/protobuf/message_lite.h"
#include "terrace/v1/cache.pb.h"
#include "terrace/v1/session.pb.h"

namespace terrace::testing {

// The 24 bytes before every message.
struct WireHeader {
  uint32_t payload_bytes = 0;
  uint16_t method = 0;
  uint8_t kind = 0;
  uint8_t descriptor_count = 0;
  uint64_t call_id = 0;
  uint32_t deadline_ms = 0;
  uint32_t status = 0;
};
std::string EncodeWireHeader(const WireHeader& header);
WireHeader DecodeWireHeader(std::string_view bytes);

class ScriptedStore;

class ScriptedServer {
 public:
  class Connection;

  // One request and the means to answer it.
  class Exchange {
   public:
    WireHeader header;
    std::string message;
    std::vector<int> descriptors;  // owned by the connection, closed when the script returns

    template <typename Message>
    [[nodiscard]] Message As() const {
      Message parsed;
      parsed.ParseFromString(message);
      return parsed;
    }
    // `passed`: a descriptor to go along, or -1.
    void Reply(const google::protobuf::MessageLite& reply, int passed = -1) const;
    void Refuse(uint32_t status, const std::string& why, uint32_t retry_after_ms = 0) const;
    void Push(v1::Method method, const google::protobuf::MessageLite& notice) const;
    // Bytes as they are, not even a frame.
    void Raw(std::string_view bytes) const;
    // Frames of the server's own making; payload_bytes is filled in.
    void Frame(WireHeader frame,
               std::string_view payload,
               const std::vector<int>& passed = {}) const;
    void Disconnect() const;
    // Names the session; valid as long as it lives.
    [[nodiscard]] const void* session() const { return connection_.get(); }

   private:
    friend class ScriptedServer;
    std::shared_ptr<Connection> connection_;
  };
  using Script = std::function<void(const Exchange&)>;

  // Listens on `folder`/session.sock.
  explicit ScriptedServer(std::string folder);
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;
  ~ScriptedServer();

  // ---- the process
  // Closes listener and connections and removes the socket, as a killed daemon's kernel would.
  void Stop();
  // Listens again with another boot id; blocks, sessions and slabs are gone.
  void Start();
  // Reads nothing any more, and accepts nothing, until Resume; sockets stay open.
  void Hang();
  void Resume();
  // Ends all connections and goes on with the same boot id.
  void DropConnections();
  // From now on, and until LetGo, keeps its end of a connection whose client has shut down its own,
  // as a daemon does while a copy is under way.
  void KeepEnds();
  void LetGo();

  // ---- scripts
  void On(v1::Method method, Script script);
  // What the server would do without a script.
  void Answer(const Exchange& exchange);
  void SetHello(std::function<void(v1::HelloReply*)> change);
  // To every connection.
  void PushAll(v1::Method method, const google::protobuf::MessageLite& notice);

  // ---- what was seen
  [[nodiscard]] uint64_t boot_id() const { return boot_id_; }
  // Requests of this method so far.
  [[nodiscard]] size_t Seen(v1::Method method) const;
  [[nodiscard]] std::vector<v1::Method> Order() const;
  [[nodiscard]] std::string LastMessage(v1::Method method) const;
  [[nodiscard]] uint32_t LastDeadlineMs(v1::Method method) const;
  [[nodiscard]] size_t connections_accepted() const { return accepted_; }
  // Whose descriptors are still open here.
  [[nodiscard]] size_t connections_open() const;
  [[nodiscard]] size_t connections_kept() const;
  [[nodiscard]] size_t live_leases() const;
  [[nodiscard]] size_t live_regions() const;
  [[nodiscard]] std::string last_client_name() const;
  [[nodiscard]] bool last_hello_had_own_pidfd() const { return own_pidfd_; }
  // Waits until the condition holds, at most 30 s; false then.
  [[nodiscard]] static bool Eventually(const std::function<bool()>& condition);

 private:
  void Run();
  void Accept();
  bool Read(const std::shared_ptr<Connection>& connection);
  void Forget(const std::shared_ptr<Connection>& connection);
  void Dispatch(const std::shared_ptr<Connection>& connection,
                const WireHeader& header,
                std::string message);
  void Hello(const Exchange& exchange);
  void Listen();
  void ResetStore();
  void Wake() const;

  const std::string folder_;
  std::atomic<uint64_t> boot_id_{0};
  std::atomic<size_t> accepted_{0};
  // With every connection, which an Exchange may keep longer than the server.
  const std::shared_ptr<std::atomic<size_t>> open_ = std::make_shared<std::atomic<size_t>>(0);
  std::atomic<bool> own_pidfd_{false};
  std::atomic<bool> hung_{false};
  int listener_ = -1;
  int wake_ = -1;

  mutable std::mutex mutex_;
  bool stopping_ = false;
  std::vector<std::shared_ptr<Connection>> connections_;
  bool keeps_ends_ = false;
  std::vector<std::shared_ptr<Connection>> kept_;  // whose clients say no more
  std::map<v1::Method, Script> scripts_;
  std::function<void(v1::HelloReply*)> change_hello_;
  std::vector<v1::Method> order_;
  std::map<v1::Method, std::string> last_messages_;
  std::map<v1::Method, uint32_t> last_deadlines_;
  std::string client_name_;
  std::shared_ptr<ScriptedStore> store_;  // with whoever asks what lives in it
  std::thread thread_;
};

}  // namespace terrace::testing
