// Pools that are sealed with a secret: the class behind PoolSecret
// (tiers/shared/pool_protection.h).
//
// Keys. The secret and the pool's UUID give, by HKDF-SHA256, a key for each purpose, and another
// one with each auth: for fingerprints, listed checksums, records, reports, and the proof in the
// superblock. From the key of records and a namespace comes, by HMAC-SHA256, the key of the
// namespace, which belongs to one tenant: so no two tenants share a key. From that and 32 random
// bytes that the record's header tells comes the key of one record; likewise that of one report.
//
// Nonces. A key that seals is of one record or report and of no other, whoever writes it, when, how
// often and under which name: it is drawn anew each time that one is made, and nothing has to be
// remembered for it, through no restart and no clone of a machine. So nonces are constants: 0, and
// 1 for a record's metadata pages. What is written again after a fault is the same ciphertext.
//
// Ciphers. Records and reports are sealed by AES-256-GCM. A record's tag covers its header, where
// it lies (pool, life, segment, page), its identity, which is nowhere in the file, and its payload;
// the payload is ciphertext (kEncrypt) or is covered and can be read (kMac). HMAC-SHA256 of the
// payload alone takes twice as long as all of such a record (tests/bench/protection_bench.cc), and
// the weakness of GCM, a nonce that is used twice, cannot be had here.
//
// Names. A fingerprint is AES-256 of the fingerprint that an unprotected pool would have; a listed
// checksum is AES-256, under another key, of the checksum with the fingerprint added: equal
// contents of different blocks are not seen to be equal. Both can be made and undone under the
// store's lock.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"

#include "daemon/protection/secret_bytes.h"
#include "tiers/shared/pool_protection.h"

namespace terrace {

inline constexpr size_t kMinSecretBytes = 32;

// `auth` is kMac or kEncrypt. INVALID_ARGUMENT: fewer bytes. INTERNAL: OpenSSL lacks a cipher.
absl::StatusOr<std::unique_ptr<PoolSecret>> MakePoolSecret(PoolAuth auth, SecretBytes secret);

}  // namespace terrace
