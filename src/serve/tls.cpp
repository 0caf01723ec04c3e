#include "serve/tls.h"

#include <fmt/format.h>
#include <openssl/ssl.h>

#include <string_view>
#include <utility>

#include "mlxs/error.h"

namespace mlxs {
namespace {

// Length-prefixed names, the one we like best first.
constexpr std::string_view kProtocols = "\x02h2\x08http/1.1";
// Of TLS 1.2; those of 1.3 are all fine. HTTP/2 (RFC 9113, appendix A) forbids the others.
constexpr const char* kCiphers = "ECDHE+AESGCM:ECDHE+CHACHA20";

int choose_protocol(SSL*, const unsigned char** chosen, unsigned char* chosen_size,
                    const unsigned char* offered, unsigned offered_size, void*) {
  unsigned char* name = nullptr;
  const int found =
      SSL_select_next_proto(&name, chosen_size, reinterpret_cast<const unsigned char*>(kProtocols.data()),
                            static_cast<unsigned>(kProtocols.size()), offered, offered_size);
  *chosen = name;
  return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

void check(const boost::system::error_code& error, std::string_view what, const std::string& file,
           const char* hint, const char* field) {
  if (!error) return;
  throw Error(ErrorCode::kInvalidArgument, fmt::format("{} {}: {}", what, file, error.message()), hint,
              field);
}

}  // namespace

TlsCredentials::TlsCredentials(std::string certificate_file, std::string key_file)
    : certificate_file_(std::move(certificate_file)), key_file_(std::move(key_file)), current_(read()) {}

std::shared_ptr<net::ssl::context> TlsCredentials::read() const {
  auto context = std::make_shared<net::ssl::context>(net::ssl::context::tls_server);
  SSL_CTX* native = context->native_handle();
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  SSL_CTX_set_options(native,
                      SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_cipher_list(native, kCiphers);
  SSL_CTX_set_mode(native, SSL_MODE_RELEASE_BUFFERS);  // an idle connection is cheap
  SSL_CTX_set_alpn_select_cb(native, choose_protocol, nullptr);
  SSL_CTX_set_default_passwd_cb(native, [](char*, int, int, void*) { return 0; });  // or it asks the terminal
  boost::system::error_code error;
  context->use_certificate_chain_file(certificate_file_, error);
  check(error, "the certificate", certificate_file_, "give a PEM file: the certificate, then its chain",
        "tls_cert");
  context->use_private_key_file(key_file_, net::ssl::context::pem, error);
  check(error, "the key", key_file_, "give the PEM file of the certificate's key, without a passphrase",
        "tls_key");
  return context;
}

void TlsCredentials::reload() {
  auto fresh = read();
  const std::lock_guard lock(mutex_);
  current_ = std::move(fresh);
}

std::shared_ptr<net::ssl::context> TlsCredentials::current() const {
  const std::lock_guard lock(mutex_);
  return current_;
}

}  // namespace mlxs
