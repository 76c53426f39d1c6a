#include "tiers/placement/reuse_record.h"

#include <algorithm>
#include <bit>

namespace terrace {
namespace {

// Nothing known: one of ten comes back.
constexpr double kPriorLeft = 10;
constexpr double kPriorReturned = 1;
constexpr uint32_t kFirstDepths = 3;  // octaves that count as one

constexpr uint32_t kKindBits = 6;
constexpr uint32_t kReturnsBits = 2;
constexpr uint32_t kPrintBits = 23;
static_assert(kKindBits + kReturnsBits + 1 + kPrintBits == 32);

uint64_t Mixed(uint64_t name) {
  name = (name ^ (name >> 32U)) * 0xD6E8FEB86659FD93U;
  name = (name ^ (name >> 32U)) * 0xD6E8FEB86659FD93U;
  return name ^ (name >> 32U);
}

// Never 0, which is that of an empty place.
uint32_t PrintOf(uint64_t name) {
  return static_cast<uint32_t>(Mixed(name) >> (64 - kPrintBits)) | 1U;
}

}  // namespace

ReuseRecord::ReuseRecord(uint64_t blocks) {
  const uint64_t wanted =
      std::clamp<uint64_t>(std::min<uint64_t>(blocks, kMostPlaces) * 2, kLeastPlaces, kMostPlaces);
  places_.resize(std::bit_ceil(wanted));
}

ReuseRecord::Place ReuseRecord::Unpacked(uint32_t bits) {
  return {bits >> (32 - kPrintBits), (bits >> (kKindBits + kReturnsBits) & 1U) != 0,
          bits >> kKindBits & ((1U << kReturnsBits) - 1), bits & ((1U << kKindBits) - 1)};
}

uint32_t ReuseRecord::Packed(const Place& place) {
  return place.print << (32 - kPrintBits) | (place.away ? 1U : 0U) << (kKindBits + kReturnsBits) |
         place.returns << kKindBits | place.kind;
}

uint32_t& ReuseRecord::At(uint64_t name) {
  return places_[Mixed(name) & (places_.size() - 1)];
}

uint32_t ReuseRecord::At(uint64_t name) const {
  return places_[Mixed(name) & (places_.size() - 1)];
}

uint32_t ReuseRecord::Returns(uint64_t name) const {
  const Place place = Unpacked(At(name));
  return place.print == PrintOf(name) ? place.returns : 0;
}

uint32_t ReuseRecord::ClassOf(const Facts& facts) const {
  const auto octave = static_cast<uint32_t>(std::bit_width(facts.depth));
  const uint32_t depth =
      std::min(octave < kFirstDepths ? 0 : octave - kFirstDepths + 1, kDepths - 1);
  return (Returns(facts.name) * 2 + (facts.used ? 1 : 0)) * kDepths + depth;
}

double ReuseRecord::ChanceOf(const Facts& facts) const {
  const Count& count = counts_[ClassOf(facts)];
  return std::min(1.0, (count.returned + kPriorReturned) / (count.left + kPriorLeft));
}

void ReuseRecord::Left(const Facts& facts) {
  const uint32_t kind = ClassOf(facts);
  Count& count = counts_[kind];
  count.left += 1;
  if (count.left >= kMostCounted) {
    count.left /= 2;
    count.returned /= 2;
  }
  At(facts.name) = Packed({PrintOf(facts.name), true, Returns(facts.name), kind});
}

void ReuseRecord::Entered(uint64_t name) {
  Place place = Unpacked(At(name));
  if (place.print != PrintOf(name) || !place.away) {
    return;
  }
  counts_[place.kind].returned += 1;
  place.away = false;
  place.returns = std::min(place.returns + 1, kMostReturns);
  At(name) = Packed(place);
}

}  // namespace terrace
