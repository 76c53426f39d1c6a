// A completion with the arrays that its pointers name, in one piece made when the call is
// submitted: delivering it later, also after a loss, needs no memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "terrace/terrace.h"

namespace terrace::client {

class Completion : public terrace_completion {
 public:
  // Every key a miss or not stored; status OK. Throws std::bad_alloc.
  static std::unique_ptr<Completion> Create(terrace_verb verb, uint32_t keys, uint32_t parts);

  // Sets the status and its text, and every key back to a miss or not stored.
  void Fail(terrace_status status, std::string_view text);

  // The arrays behind the const pointers of terrace_completion; nullptr where the verb has none.
  uint8_t* key_states = nullptr;
  uint8_t* key_outcomes = nullptr;
  uint8_t* key_reasons = nullptr;
  uint8_t* key_levels = nullptr;
  uint32_t* key_payload_bytes = nullptr;
  const void** key_data = nullptr;
  uint32_t* hits_of_parts = nullptr;
  uint32_t* boundaries_of_parts = nullptr;

  Completion* next = nullptr;  // in the queue of what is ready

 private:
  Completion() : terrace_completion() {}
  void Carve(uint32_t keys, uint32_t parts);
  void Clear();

  static constexpr size_t kErrorBytes = 232;
  std::unique_ptr<uint64_t[]> arrays_;
  size_t array_words_ = 0;
  char error_text_[kErrorBytes] = {};
};

// First in, first out; owns what is in it.
class CompletionQueue {
 public:
  CompletionQueue() = default;
  CompletionQueue(const CompletionQueue&) = delete;
  CompletionQueue& operator=(const CompletionQueue&) = delete;
  ~CompletionQueue();
  void Push(std::unique_ptr<Completion> completion);
  std::unique_ptr<Completion> Pop();  // nullptr: empty
  [[nodiscard]] bool empty() const { return first_ == nullptr; }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  Completion* first_ = nullptr;
  Completion* last_ = nullptr;
  size_t size_ = 0;
};

}  // namespace terrace::client
