// Makes requests that are nearly right: fields at their limits, enums that nobody knows, arrays of the wrong length, and
// on request bytes that are no message at all. Deterministic for a seed.
#pragma once

#include <cstdint>
#include <random>
#include <string>

#include "google/protobuf/message.h"

namespace terrace::doubles {

class MessageMutator {
 public:
  explicit MessageMutator(uint64_t seed) : random_(seed) {}

  // Changes one to four fields, anywhere in the message.
  void Mutate(google::protobuf::Message* message);
  // Flips, cuts, repeats or inserts bytes.
  std::string MutateBytes(std::string bytes);
  // In [0, bound).
  uint64_t Pick(uint64_t bound) { return bound == 0 ? 0 : random_() % bound; }
  bool OneIn(uint64_t n) { return Pick(n) == 0; }
  uint64_t Number();

 private:
  void MutateField(google::protobuf::Message* message, int depth);
  void SetScalar(google::protobuf::Message* message, const google::protobuf::FieldDescriptor* field);
  void AddScalar(google::protobuf::Message* message, const google::protobuf::FieldDescriptor* field);
  std::string Text();

  std::mt19937_64 random_;
};

}  // namespace terrace::doubles
