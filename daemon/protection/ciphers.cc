#include "daemon/protection/ciphers.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "absl/synchronization/mutex.h"
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "daemon/protection/secret_bytes.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr size_t kHashBytes = 32;
constexpr size_t kKeyBytes = 32;
constexpr size_t kBlockBytes = 16;
constexpr size_t kMaxExpandedBytes = 255 * kHashBytes;
constexpr size_t kMaxInfoBytes = 128;
constexpr size_t kLanes = 16;

// Fetched once and never freed: a fetch costs more than what is done with it.
struct Fetched {
  EVP_MAC* hmac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  EVP_CIPHER* gcm = EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr);
  EVP_CIPHER* ecb = EVP_CIPHER_fetch(nullptr, "AES-256-ECB", nullptr);
  EVP_MD* sha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr);
};
const Fetched& Ciphers() {
  static const Fetched fetched;
  return fetched;
}

const unsigned char* Raw(const char* bytes) {
  return reinterpret_cast<const unsigned char*>(bytes);
}
unsigned char* Raw(char* bytes) {
  return reinterpret_cast<unsigned char*>(bytes);
}

// Big-endian, as digests are written elsewhere.
std::array<char, kBlockBytes> BytesOf(const Digest128& digest) {
  std::array<char, kBlockBytes> bytes{};
  for (size_t i = 0; i < kBlockBytes; ++i) {
    const uint64_t half = i < 8 ? digest.hi : digest.lo;
    bytes[i] = static_cast<char>(half >> (8 * (7 - i % 8)));
  }
  return bytes;
}
Digest128 DigestOf(const std::array<char, kBlockBytes>& bytes) {
  Digest128 digest;
  for (size_t i = 0; i < kBlockBytes; ++i) {
    uint64_t& half = i < 8 ? digest.hi : digest.lo;
    half = half << 8U | static_cast<unsigned char>(bytes[i]);
  }
  return digest;
}

}  // namespace

absl::Status CheckCiphers() {
  const Fetched& fetched = Ciphers();
  return fetched.hmac != nullptr && fetched.gcm != nullptr && fetched.ecb != nullptr &&
                 fetched.sha256 != nullptr
             ? absl::OkStatus()
             : absl::InternalError("OpenSSL has no HMAC, SHA-256 or AES-256-GCM");
}

BriefKey::~BriefKey() {
  Wipe(span());
}

void HmacSha256(absl::Span<const char> key, absl::Span<const char> message, absl::Span<char> out) {
  struct Free {
    void operator()(EVP_MAC_CTX* context) const { EVP_MAC_CTX_free(context); }
  };
  const std::unique_ptr<EVP_MAC_CTX, Free> context(EVP_MAC_CTX_new(Ciphers().hmac));
  char digest[] = "SHA256";
  const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                               OSSL_PARAM_construct_end()};
  size_t bytes = 0;
  TERRACE_CHECK(out.size() == kHashBytes && context != nullptr &&
                EVP_MAC_init(context.get(), Raw(key.data()), key.size(), params) == 1 &&
                EVP_MAC_update(context.get(), Raw(message.data()), message.size()) == 1 &&
                EVP_MAC_final(context.get(), Raw(out.data()), &bytes, out.size()) == 1 &&
                bytes == kHashBytes);
}

void HkdfExtract(absl::Span<const char> salt, absl::Span<const char> secret, absl::Span<char> out) {
  // OpenSSL takes a null key for no key at all, where HMAC means one of zeros.
  constexpr std::array<char, kHashBytes> kZeros{};
  HmacSha256(salt.empty() ? absl::Span<const char>(kZeros) : salt, secret, out);
}

void HkdfExpand(absl::Span<const char> key, absl::Span<const char> info, absl::Span<char> out) {
  TERRACE_CHECK(out.size() <= kMaxExpandedBytes && info.size() <= kMaxInfoBytes);
  BriefKey block;
  std::array<char, kHashBytes + kMaxInfoBytes + 1> text{};
  size_t before = 0;  // bytes of the block before this one, which are part of its text
  char counter = 1;
  for (size_t done = 0; done < out.size(); ++counter) {
    std::copy_n(block.view().data(), before, text.data());
    std::copy_n(info.data(), info.size(), text.data() + before);
    text[before + info.size()] = counter;
    HmacSha256(key, {text.data(), before + info.size() + 1}, block.span());
    const size_t taken = std::min(kHashBytes, out.size() - done);
    std::copy_n(block.view().data(), taken, out.data() + done);
    done += taken;
    before = kHashBytes;
  }
  Wipe(absl::MakeSpan(text));
}

void FreeCipherContext::operator()(evp_cipher_ctx_st* context) const {
  EVP_CIPHER_CTX_free(context);
}

// ---------------------------------------------------------------- one message

GcmMessage::GcmMessage(Way way, absl::Span<const char> key, const Nonce& nonce)
    : way_(way), context_(EVP_CIPHER_CTX_new()) {
  TERRACE_CHECK(key.size() == kKeyBytes && context_ != nullptr &&
                EVP_CipherInit_ex2(context_.get(), Ciphers().gcm, Raw(key.data()),
                                   Raw(nonce.data()), way == Way::kSeal ? 1 : 0, nullptr) == 1);
}

void GcmMessage::Cover(absl::Span<const char> text) {
  int bytes = 0;
  TERRACE_CHECK(EVP_CipherUpdate(context_.get(), nullptr, &bytes, Raw(text.data()),
                                 static_cast<int>(text.size())) == 1);
}

void GcmMessage::Convert(absl::Span<const char> from, absl::Span<char> to) {
  int bytes = 0;
  TERRACE_CHECK(from.size() == to.size() &&
                EVP_CipherUpdate(context_.get(), Raw(to.data()), &bytes, Raw(from.data()),
                                 static_cast<int>(from.size())) == 1);
}

GcmMessage::Tag GcmMessage::Finish() {
  Tag tag{};
  std::array<unsigned char, kBlockBytes> none{};
  int bytes = 0;
  TERRACE_CHECK(way_ == Way::kSeal &&
                EVP_CipherFinal_ex(context_.get(), none.data(), &bytes) == 1 &&
                EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_AEAD_GET_TAG,
                                    static_cast<int>(tag.size()), tag.data()) == 1);
  return tag;
}

bool GcmMessage::IsGenuine(const Tag& tag) {
  Tag expected = tag;
  std::array<unsigned char, kBlockBytes> none{};
  int bytes = 0;
  TERRACE_CHECK(way_ == Way::kOpen &&
                EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_AEAD_SET_TAG,
                                    static_cast<int>(expected.size()), expected.data()) == 1);
  return EVP_CipherFinal_ex(context_.get(), none.data(), &bytes) == 1;
}

// ---------------------------------------------------------------- names

// A context cannot serve two threads at once; one made for each call costs ten times the cipher.
struct NameCipher::Lane {
  absl::Mutex mutex;
  CipherContext hide ABSL_GUARDED_BY(mutex);
  CipherContext reveal ABSL_GUARDED_BY(mutex);
};

namespace {

CipherContext BlockContext(absl::Span<const char> key, int seal) {
  CipherContext context(EVP_CIPHER_CTX_new());
  TERRACE_CHECK(key.size() == kKeyBytes && context != nullptr &&
                EVP_CipherInit_ex2(context.get(), Ciphers().ecb, Raw(key.data()), nullptr, seal,
                                   nullptr) == 1 &&
                EVP_CIPHER_CTX_set_padding(context.get(), 0) == 1);
  return context;
}

Digest128 OneBlock(evp_cipher_ctx_st* context, const Digest128& name) {
  const std::array<char, kBlockBytes> from = BytesOf(name);
  std::array<char, kBlockBytes> to{};
  int bytes = 0;
  TERRACE_CHECK(EVP_CipherUpdate(context, Raw(to.data()), &bytes, Raw(from.data()), kBlockBytes) ==
                    1 &&
                bytes == kBlockBytes);
  return DigestOf(to);
}

}  // namespace

NameCipher::NameCipher(absl::Span<const char> key) : lanes_(std::make_unique<Lane[]>(kLanes)) {
  for (size_t i = 0; i < kLanes; ++i) {
    absl::MutexLock lock(&lanes_[i].mutex);
    lanes_[i].hide = BlockContext(key, 1);
    lanes_[i].reveal = BlockContext(key, 0);
  }
}

NameCipher::~NameCipher() = default;

NameCipher::Lane& NameCipher::LaneOfThread() const {
  static std::atomic<size_t> threads{0};
  thread_local const size_t mine = threads.fetch_add(1);
  return lanes_[mine % kLanes];
}

Digest128 NameCipher::Hide(const Digest128& name) const {
  Lane& lane = LaneOfThread();
  absl::MutexLock lock(&lane.mutex);
  return OneBlock(lane.hide.get(), name);
}

Digest128 NameCipher::Reveal(const Digest128& hidden) const {
  Lane& lane = LaneOfThread();
  absl::MutexLock lock(&lane.mutex);
  return OneBlock(lane.reveal.get(), hidden);
}

}  // namespace terrace
