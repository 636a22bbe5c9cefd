#include "controlplane/identity/token_codec.h"

#include <gtest/gtest.h>

#include "base/coding.h"
#include "controlplane/identity/options.h"
#include "tests/support/results.h"

namespace controlplane::identity {
namespace {

constexpr char kUser[] = "ed32905aff4e48f6910be5f165f706c5";
constexpr char kProject[] = "f42dd58d67f84c28a80d6537ebc9fc3c";

class TokenCodecTest : public testing::Test {
 protected:
  TokenPayload Payload() {
    TokenPayload payload;
    payload.methods = kMethodPassword;
    payload.scope = ScopeKind::kProject;
    payload.user_id = kUser;
    payload.scope_id = kProject;
    payload.issued_at_us = 1'700'000'000'000'001;
    payload.expires_at_us = 1'700'003'600'000'001;
    payload.audit_id = std::string(16, 'a');
    return payload;
  }
  const std::string key_ = std::string(kTokenKeyBytes, 'k');
  const std::string key_id_ = "\x01\x02\x03\x04";
  const std::string nonce_ = std::string(kTokenNonceBytes, 'n');
};

// The format, byte for byte: a change of it breaks tokens that are out there.
TEST_F(TokenCodecTest, GoldenToken) {
  EXPECT_EQ(SealToken(Payload(), key_, key_id_, nonce_),
            "AQECAwRubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm70-TdY9Mh1P6386enY3VSQ_ccvH8ELYf4AI55AVghd3glk7c"
            "EeXN8zV_xM_dw5_XSGSj_S2gGFp2uhYtrigY3lfXNVBld8QW-W2As0DcK7u6IGnQ");
}

TEST_F(TokenCodecTest, ComesBackAsItWas) {
  TokenPayload payload = Payload();
  for (ScopeKind scope :
       {ScopeKind::kUnscoped, ScopeKind::kProject, ScopeKind::kDomain, ScopeKind::kSystem}) {
    for (std::string id : {"", "default", kProject, "ED32905AFF4E48F6910BE5F165F706C5"}) {
      payload.scope = scope;
      payload.scope_id = id;
      payload.application_credential_id = id.empty() ? "" : kUser;
      payload.trust_id = id == kProject ? kUser : "";
      payload.parent_audit_id = id.empty() ? "" : std::string(16, 'p');
      std::string token = SealToken(payload, key_, key_id_, nonce_);
      ASSERT_OK_AND_ASSIGN(TokenPayload opened, OpenToken(token, key_));
      EXPECT_EQ(opened, payload);
      ASSERT_OK_AND_ASSIGN(std::string key_id, TokenKeyId(token));
      EXPECT_EQ(key_id, key_id_);
    }
  }
}

TEST_F(TokenCodecTest, StaysShortWithEverythingInIt) {
  TokenPayload payload = Payload();
  payload.application_credential_id = kUser;
  payload.trust_id = kUser;
  payload.parent_audit_id = std::string(16, 'p');
  EXPECT_LE(SealToken(payload, key_, key_id_, nonce_).size(), 250u);
  EXPECT_LE(SealToken(Payload(), key_, key_id_, nonce_).size(), 160u);
}

TEST_F(TokenCodecTest, EveryBitCounts) {
  std::string token = SealToken(Payload(), key_, key_id_, nonce_);
  ASSERT_OK_AND_ASSIGN(std::string raw, base::FromBase64Url(token));
  for (size_t bit = 0; bit < raw.size() * 8; ++bit) {
    std::string changed = raw;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_ERROR(OpenToken(base::ToBase64Url(changed), key_), base::Code::kUnauthenticated)
        << "bit " << bit;
  }
}

TEST_F(TokenCodecTest, EveryCharacterCounts) {
  std::string token = SealToken(Payload(), key_, key_id_, nonce_);
  for (size_t at = 0; at < token.size(); ++at) {
    for (char other : std::string("Aa0-_=+/ ~")) {
      if (other == token[at]) continue;
      std::string changed = token;
      changed[at] = other;
      EXPECT_ERROR(OpenToken(changed, key_), base::Code::kUnauthenticated) << "at " << at;
    }
  }
}

TEST_F(TokenCodecTest, EveryLengthButTheRightOneIsRefused) {
  std::string token = SealToken(Payload(), key_, key_id_, nonce_);
  for (size_t size = 0; size < token.size(); ++size)
    EXPECT_ERROR(OpenToken(token.substr(0, size), key_), base::Code::kUnauthenticated);
  EXPECT_ERROR(OpenToken(token + "A", key_), base::Code::kUnauthenticated);
  EXPECT_ERROR(OpenToken(token + "AAAA", key_), base::Code::kUnauthenticated);
  EXPECT_ERROR(OpenToken(std::string(kMaxTokenBytes + 1, 'A'), key_), base::Code::kUnauthenticated);
}

TEST_F(TokenCodecTest, AnotherKeyDoesNotOpenIt) {
  std::string token = SealToken(Payload(), key_, key_id_, nonce_);
  EXPECT_ERROR(OpenToken(token, std::string(kTokenKeyBytes, 'K')), base::Code::kUnauthenticated);
}

TEST_F(TokenCodecTest, TellsNothingToWhoHasNoKey) {
  std::string token = SealToken(Payload(), key_, key_id_, nonce_);
  ASSERT_OK_AND_ASSIGN(std::string raw, base::FromBase64Url(token));
  ASSERT_OK_AND_ASSIGN(std::string user, base::FromHex(kUser));
  EXPECT_EQ(raw.find(user), std::string::npos);
}

}  // namespace
}  // namespace controlplane::identity
