// The ciphers against the known answers of their standards, and what a tag is worth.
#include "daemon/protection/ciphers.h"

#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "daemon/protection/secret_bytes.h"
#include "tests/unit/protection/hex_text.h"

namespace terrace {
namespace {

std::string Hmac(const std::string& key, const std::string& message) {
  std::string out(32, '\0');
  HmacSha256(key, message, absl::MakeSpan(out));
  return ToHex(out);
}

TEST(Ciphers, AreThere) {
  EXPECT_TRUE(CheckCiphers().ok());
}

// RFC 4231, section 4.
TEST(Ciphers, HmacGivesTheAnswersOfRfc4231) {
  EXPECT_EQ(Hmac(std::string(20, '\x0b'), "Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(Hmac("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(Hmac(std::string(20, '\xaa'), std::string(50, '\xdd')),
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
  EXPECT_EQ(
      Hmac(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First"),
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

struct HkdfAnswer {
  std::string secret, salt, info, extracted, expanded;
};

// RFC 5869, appendix A.
TEST(Ciphers, HkdfGivesTheAnswersOfRfc5869) {
  std::string counting(80, '\0');
  std::string from_60(80, '\0');
  std::string from_b0(80, '\0');
  for (size_t i = 0; i < 80; ++i) {
    counting[i] = static_cast<char>(i);
    from_60[i] = static_cast<char>(0x60 + i);
    from_b0[i] = static_cast<char>(0xb0 + i);
  }
  const std::string elevens(22, '\x0b');
  const std::vector<HkdfAnswer> answers = {
      {elevens, counting.substr(0, 13), FromHex("f0f1f2f3f4f5f6f7f8f9"),
       "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
       "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"},
      {counting, from_60, from_b0,
       "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
       "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e5"
       "90e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"},
      {elevens, "", "", "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
       "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"}};
  for (const HkdfAnswer& answer : answers) {
    std::string key(32, '\0');
    HkdfExtract(answer.salt, answer.secret, absl::MakeSpan(key));
    EXPECT_EQ(ToHex(key), answer.extracted);
    std::string out(answer.expanded.size() / 2, '\0');
    HkdfExpand(key, answer.info, absl::MakeSpan(out));
    EXPECT_EQ(ToHex(out), answer.expanded);
  }
}

struct GcmAnswer {
  std::string key, nonce, covered, plain, sealed, tag;
};

// Cases 13, 14 and 16 of the submission of GCM to NIST.
std::vector<GcmAnswer> GcmAnswers() {
  const std::string zeros(32, '\0');
  return {
      {zeros, zeros.substr(0, 12), "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
      {zeros, zeros.substr(0, 12), "", zeros.substr(0, 16), "cea7403d4d606b6e074ec5d3baf39d18",
       "d0d1c8a799996bf0265b98b5d48ab919"},
      {FromHex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"),
       FromHex("cafebabefacedbaddecaf888"), FromHex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
       FromHex(
           "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf"
           "0e2449a6b525b16aedf5aa0de657ba637b39"),
       "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b10568"
       "28838c5f61e6393ba7a0abcc9f662",
       "76fc6ece0f4e1768cddf8853bb2d551b"}};
}

GcmMessage::Nonce NonceOf(const std::string& bytes) {
  GcmMessage::Nonce nonce{};
  std::copy(bytes.begin(), bytes.end(), nonce.begin());
  return nonce;
}

TEST(Ciphers, GcmGivesTheAnswersOfItsSubmission) {
  for (const GcmAnswer& answer : GcmAnswers()) {
    GcmMessage seal(GcmMessage::Way::kSeal, answer.key, NonceOf(answer.nonce));
    std::string sealed(answer.plain.size(), '\0');
    seal.Cover(answer.covered);
    seal.Convert(answer.plain, absl::MakeSpan(sealed));
    const GcmMessage::Tag tag = seal.Finish();
    EXPECT_EQ(ToHex(sealed), answer.sealed);
    EXPECT_EQ(ToHex(tag), answer.tag);
    GcmMessage open(GcmMessage::Way::kOpen, answer.key, NonceOf(answer.nonce));
    std::string plain(sealed.size(), '\0');
    open.Cover(answer.covered);
    open.Convert(sealed, absl::MakeSpan(plain));
    EXPECT_TRUE(open.IsGenuine(tag));
    EXPECT_EQ(plain, answer.plain);
  }
}

TEST(Ciphers, GcmMayConvertInPieces) {
  const GcmAnswer answer = GcmAnswers().back();
  GcmMessage seal(GcmMessage::Way::kSeal, answer.key, NonceOf(answer.nonce));
  std::string sealed(answer.plain.size(), '\0');
  seal.Cover(answer.covered.substr(0, 7));
  seal.Cover(answer.covered.substr(7));
  const absl::Span<char> out = absl::MakeSpan(sealed);
  seal.Convert(answer.plain.substr(0, 3), out.subspan(0, 3));
  seal.Convert(answer.plain.substr(3), out.subspan(3));
  EXPECT_EQ(ToHex(seal.Finish()), answer.tag);
  EXPECT_EQ(ToHex(sealed), answer.sealed);
}

TEST(Ciphers, NoTagButItsOwnIsGenuine) {
  const GcmAnswer answer = GcmAnswers().back();
  const std::string right = FromHex(answer.tag);
  for (size_t bit = 0; bit < 128; ++bit) {
    GcmMessage::Tag tag{};
    std::copy(right.begin(), right.end(), tag.begin());
    tag[bit / 8] = static_cast<char>(tag[bit / 8] ^ (1 << bit % 8));
    GcmMessage open(GcmMessage::Way::kOpen, answer.key, NonceOf(answer.nonce));
    std::string plain(answer.plain.size(), '\0');
    open.Cover(answer.covered);
    open.Convert(FromHex(answer.sealed), absl::MakeSpan(plain));
    EXPECT_FALSE(open.IsGenuine(tag)) << bit;
  }
}

// FIPS 197, appendix C.3.
TEST(Ciphers, NamesAreHiddenByAes256) {
  const NameCipher cipher(
      FromHex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"));
  const Digest128 name{0x0011223344556677, 0x8899aabbccddeeff};
  const Digest128 hidden{0x8ea2b7ca516745bf, 0xeafc49904b496089};
  EXPECT_EQ(cipher.Hide(name), hidden);
  EXPECT_EQ(cipher.Reveal(hidden), name);
}

TEST(Ciphers, NamesMayBeHiddenByManyThreadsAtOnce) {
  const NameCipher cipher(std::string(32, 'k'));
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 24; ++t) {
    threads.emplace_back([&cipher, t] {
      for (uint64_t i = 0; i < 500; ++i) {
        ASSERT_EQ(cipher.Reveal(cipher.Hide({t, i})), (Digest128{t, i}));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST(Ciphers, SecretsAreZerosAtFirstAndKeepWhatTheyAreGivenThroughMoves) {
  SecretBytes secret(5000);
  EXPECT_EQ(std::string(secret.view().begin(), secret.view().end()), std::string(5000, '\0'));
  std::fill(secret.span().begin(), secret.span().end(), 's');
  SecretBytes moved = std::move(secret);
  EXPECT_EQ(std::string(moved.view().begin(), moved.view().end()), std::string(5000, 's'));
  const char* memory = moved.view().data();
  moved.Shrink(10);
  EXPECT_EQ(moved.view().size(), 10U);
  EXPECT_EQ(std::string(memory + 10, 4990), std::string(4990, '\0'));
}

}  // namespace
}  // namespace terrace
