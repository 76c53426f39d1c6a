// The few functions of OpenSSL that protect a pool, and nothing that decides how.
//
// HMAC-SHA256: RFC 2104. HKDF: RFC 5869. AES-256-GCM: NIST SP 800-38D. All abort where OpenSSL runs
// out of memory; that it has them is for CheckCiphers to say, once, before anything else is called.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "tiers/vocab/block_key.h"

struct evp_cipher_ctx_st;  // EVP_CIPHER_CTX of OpenSSL

namespace terrace {

// INTERNAL: the OpenSSL that is installed lacks one.
absl::Status CheckCiphers();

// A key that lives for one operation; zeros when it ends.
class BriefKey {
 public:
  BriefKey() = default;
  ~BriefKey();
  BriefKey(const BriefKey&) = delete;
  BriefKey& operator=(const BriefKey&) = delete;
  [[nodiscard]] absl::Span<char> span() { return absl::MakeSpan(bytes_); }
  [[nodiscard]] absl::Span<const char> view() const { return bytes_; }

 private:
  std::array<char, 32> bytes_{};
};

// `out`: 32 bytes.
void HmacSha256(absl::Span<const char> key, absl::Span<const char> message, absl::Span<char> out);
// `out`: 32 bytes. A salt without bytes is RFC 5869's default.
void HkdfExtract(absl::Span<const char> salt, absl::Span<const char> secret, absl::Span<char> out);
// `out`: at most 8160 bytes. `info`: at most 128.
void HkdfExpand(absl::Span<const char> key, absl::Span<const char> info, absl::Span<char> out);

struct FreeCipherContext {
  void operator()(evp_cipher_ctx_st* context) const;
};
using CipherContext = std::unique_ptr<evp_cipher_ctx_st, FreeCipherContext>;

// One message sealed or opened by AES-256-GCM: first what is covered and stays readable, then what
// is converted, then the tag. A key and nonce seal one message and no other. Thread-compatible.
class GcmMessage {
 public:
  enum class Way : uint8_t { kSeal = 1, kOpen = 2 };
  static constexpr size_t kNonceBytes = 12;
  using Nonce = std::array<char, kNonceBytes>;
  using Tag = std::array<char, 16>;

  // `key`: 32 bytes.
  GcmMessage(Way way, absl::Span<const char> key, const Nonce& nonce);

  void Cover(absl::Span<const char> text);
  // `to` is as long as `from`, and apart from it or the same. What is opened is not to be used
  // before IsGenuine.
  void Convert(absl::Span<const char> from, absl::Span<char> to);
  // Each ends the message. The first of what was sealed, the second of what was opened.
  [[nodiscard]] Tag Finish();
  [[nodiscard]] bool IsGenuine(const Tag& tag);

 private:
  const Way way_;
  CipherContext context_;
};

// AES-256 on single blocks: a permutation of 128-bit names that says nothing about them to who has
// no key. Thread-safe.
class NameCipher {
 public:
  // `key`: 32 bytes.
  explicit NameCipher(absl::Span<const char> key);
  ~NameCipher();
  NameCipher(const NameCipher&) = delete;
  NameCipher& operator=(const NameCipher&) = delete;

  [[nodiscard]] Digest128 Hide(const Digest128& name) const;
  [[nodiscard]] Digest128 Reveal(const Digest128& hidden) const;

 private:
  struct Lane;
  [[nodiscard]] Lane& LaneOfThread() const;

  std::unique_ptr<Lane[]> lanes_;
};

}  // namespace terrace
