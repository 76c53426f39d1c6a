#include "client/src/completion.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace terrace::client {
namespace {

constexpr size_t WordsFor(size_t count, size_t bytes_each) {
  return (count * bytes_each + sizeof(uint64_t) - 1) / sizeof(uint64_t);
}

}  // namespace

std::unique_ptr<Completion> Completion::Create(terrace_verb verb, uint32_t keys, uint32_t parts) {
  std::unique_ptr<Completion> completion(new Completion());
  completion->verb = verb;
  completion->key_count = keys;
  completion->part_count = parts;
  completion->error = completion->error_text_;
  completion->Carve(keys, parts);
  return completion;
}

void Completion::Carve(uint32_t keys, uint32_t parts) {
  const size_t bytes_words = WordsFor(keys, 1);
  const size_t counts_words = WordsFor(keys, sizeof(uint32_t));
  const size_t parts_words = WordsFor(parts, sizeof(uint32_t));
  switch (verb) {
    case TERRACE_VERB_PROBE:
      array_words_ = bytes_words + 2 * parts_words;
      break;
    case TERRACE_VERB_GET:
      array_words_ = bytes_words + counts_words + WordsFor(keys, sizeof(void*));
      break;
    case TERRACE_VERB_PUT:
      array_words_ = 3 * bytes_words;
      break;
    case TERRACE_VERB_PIN:
      array_words_ = bytes_words;
      break;
    default:
      return;
  }
  arrays_ = std::make_unique<uint64_t[]>(array_words_);
  uint64_t* word = arrays_.get();
  const auto take = [&word](size_t words) {
    uint64_t* taken = word;
    word += words;
    return reinterpret_cast<uint8_t*>(taken);
  };
  if (verb == TERRACE_VERB_PROBE) {
    states = key_states = take(bytes_words);
    part_hits = hits_of_parts = reinterpret_cast<uint32_t*>(take(parts_words));
    part_boundary_keys = boundaries_of_parts = reinterpret_cast<uint32_t*>(take(parts_words));
  } else if (verb == TERRACE_VERB_GET) {
    outcomes = key_outcomes = take(bytes_words);
    payload_bytes = key_payload_bytes = reinterpret_cast<uint32_t*>(take(counts_words));
    data = key_data = reinterpret_cast<const void**>(take(WordsFor(keys, sizeof(void*))));
  } else if (verb == TERRACE_VERB_PUT) {
    outcomes = key_outcomes = take(bytes_words);
    reasons = key_reasons = take(bytes_words);
    levels = key_levels = take(bytes_words);
  } else {
    reasons = key_reasons = take(bytes_words);
  }
}

void Completion::Clear() {
  // Zero is a miss, not stored, no reason and no level in every array.
  std::fill_n(arrays_.get(), array_words_, uint64_t{0});
  lease = {};
  boundary_tokens = 0;
  load_us = 0;
  hit_bytes = 0;
  hold = {};
  hold_ms = 0;
  ticket = 0;
  ticket_state = 0;
  keys_total = 0;
  keys_arrived = 0;
  keys_failed = 0;
  bytes_arrived = 0;
  count = 0;
  generation = 0;
  recompute_us = 0;
  worth_tokens = 0;
}

void Completion::Fail(terrace_status why, std::string_view text) {
  Clear();
  if (verb == TERRACE_VERB_PIN) {
    std::fill_n(key_reasons, key_count, static_cast<uint8_t>(TERRACE_REASON_NOT_PRESENT));
  }
  status = why;
  const size_t length = std::min(text.size(), kErrorBytes - 1);
  std::memcpy(error_text_, text.data(), length);
  error_text_[length] = '\0';
}

CompletionQueue::~CompletionQueue() {
  while (first_ != nullptr) {
    const std::unique_ptr<Completion> ended(std::exchange(first_, first_->next));
  }
}

void CompletionQueue::Push(std::unique_ptr<Completion> completion) {
  Completion* added = completion.release();
  added->next = nullptr;
  (last_ == nullptr ? first_ : last_->next) = added;
  last_ = added;
  ++size_;
}

std::unique_ptr<Completion> CompletionQueue::Pop() {
  std::unique_ptr<Completion> taken(first_);
  if (taken != nullptr) {
    first_ = taken->next;
    last_ = first_ == nullptr ? nullptr : last_;
    taken->next = nullptr;
    --size_;
  }
  return taken;
}

}  // namespace terrace::client
