// The certificate and key that the server shows, and the TLS it speaks: 1.2 and 1.3 with forward secrecy,
// ALPN h2 and http/1.1. Thread-safe. Connections keep what they began with; reload() is for those to come.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <mutex>
#include <string>

#include "serve/asio.h"

namespace mlxs {

class TlsCredentials {
 public:
  // PEM files: the certificate with its chain, and its key. Throws kInvalidArgument naming the file and why.
  TlsCredentials(std::string certificate_file, std::string key_file);

  // Reads both files again. Throws as the constructor does; then what was there stays in use.
  void reload();
  std::shared_ptr<net::ssl::context> current() const;

 private:
  std::shared_ptr<net::ssl::context> read() const;

  std::string certificate_file_, key_file_;
  mutable std::mutex mutex_;
  std::shared_ptr<net::ssl::context> current_;
};

}  // namespace mlxs
