// Whose request it is where proxies stand in between: their headers count only as far as each hop, from the
// last one back, is one of the proxies that the operator named. Immutable; any thread.
#pragma once

#include <boost/asio/ip/address.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "serve/http.h"

namespace mlxs {

class TrustedProxies {
 public:
  // Each "10.0.0.0/8", "::1", "192.0.2.7", or "unix" for whoever connects to the Unix socket. Throws
  // kInvalidArgument.
  explicit TrustedProxies(const std::vector<std::string>& networks);

  // The address of the client: the first of Forwarded (RFC 7239) or else X-Forwarded-For, from right to left,
  // that is no trusted proxy's; the peer's, if that is none.
  std::string client_of(std::string_view peer, const HttpRequest& request) const;

 private:
  struct Network {
    boost::asio::ip::address address;
    unsigned bits = 0;
  };
  bool trusts(std::string_view address) const;

  std::vector<Network> networks_;
  bool unix_ = false;
};

}  // namespace mlxs
