#include "serve/client_address.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <ranges>

#include "serve/http_text.h"

namespace mlxs {
namespace {

namespace ip = boost::asio::ip;

constexpr std::string_view kUnix = "unix";
constexpr std::size_t kMostHops = 32;  // a client may write as many in front as it likes

// IPv4 also where it comes mapped into IPv6; without a zone.
std::optional<ip::address> parse_address(std::string_view text) {
  boost::system::error_code error;
  const ip::address address = ip::make_address(std::string(text), error);
  if (error) return std::nullopt;
  if (address.is_v6() && address.to_v6().is_v4_mapped()) {
    return ip::make_address_v4(ip::v4_mapped, address.to_v6());
  }
  return address;
}

std::vector<unsigned char> bytes_of(const ip::address& address) {
  if (address.is_v4()) {
    const auto bytes = address.to_v4().to_bytes();
    return {bytes.begin(), bytes.end()};
  }
  const auto bytes = address.to_v6().to_bytes();
  return {bytes.begin(), bytes.end()};
}

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

// The items of all headers of that name, as one list.
std::vector<std::string_view> list_of(const HttpRequest& request, std::string_view name) {
  std::vector<std::string_view> items;
  for (const auto& [own_name, value] : request.headers) {
    if (own_name != name) continue;
    for (std::string_view rest = value; !rest.empty();) {
      const std::string_view item = rest.substr(0, rest.find(','));
      rest.remove_prefix(std::min(item.size() + 1, rest.size()));
      items.push_back(trimmed(item));
    }
  }
  return items;
}

// "192.0.2.7:80", "[2001:db8::1]:80" and the like without the port.
std::string_view without_port(std::string_view node) {
  if (node.starts_with('[')) {
    const std::size_t end = node.find(']');
    return end == std::string_view::npos ? node : node.substr(1, end - 1);
  }
  const std::size_t colon = node.find(':');
  return colon != std::string_view::npos && colon == node.rfind(':') ? node.substr(0, colon) : node;
}

// The node of `for=` in an element of Forwarded; empty: none.
std::string_view forwarded_for(std::string_view element) {
  while (!element.empty()) {
    const std::string_view pair = trimmed(element.substr(0, element.find(';')));
    element.remove_prefix(
        std::min(element.find(';') == std::string_view::npos ? element.size() : element.find(';') + 1,
                 element.size()));
    if (lower_case(pair.substr(0, 4)) != "for=") continue;
    std::string_view node = trimmed(pair.substr(4));
    if (node.size() >= 2 && node.front() == '"' && node.back() == '"') node = node.substr(1, node.size() - 2);
    return node;
  }
  return {};
}

}  // namespace

TrustedProxies::TrustedProxies(const std::vector<std::string>& networks) {
  for (const std::string& text : networks) {
    if (text == kUnix) {
      unix_ = true;
      continue;
    }
    const std::size_t slash = text.find('/');
    const auto address = parse_address(std::string_view(text).substr(0, slash));
    const unsigned most = address && address->is_v4() ? 32 : 128;
    unsigned bits = most;
    bool good = address.has_value();
    if (good && slash != std::string::npos) {
      const char* end = text.data() + text.size();
      const auto [at, error] = std::from_chars(text.data() + slash + 1, end, bits);
      good = error == std::errc() && at == end && bits <= most;
    }
    if (!good) {
      throw Error(ErrorCode::kInvalidArgument, fmt::format("'{}' is no network", text),
                  "give an address or a network, such as 10.0.0.0/8 or ::1, or unix", "trusted_proxy");
    }
    networks_.push_back({*address, bits});
  }
}

bool TrustedProxies::trusts(std::string_view text) const {
  if (text == kUnix) return unix_;
  const auto address = parse_address(text);
  if (!address) return false;
  const std::vector<unsigned char> bytes = bytes_of(*address);
  return std::ranges::any_of(networks_, [&](const Network& network) {
    const std::vector<unsigned char> own = bytes_of(network.address);
    if (own.size() != bytes.size()) return false;
    for (unsigned bit = 0; bit < network.bits; ++bit) {
      const unsigned mask = 0x80u >> (bit % 8);
      if ((own[bit / 8] & mask) != (bytes[bit / 8] & mask)) return false;
    }
    return true;
  });
}

std::string TrustedProxies::client_of(std::string_view peer, const HttpRequest& request) const {
  if (!trusts(peer)) return std::string(peer);
  std::vector<std::string_view> hops = list_of(request, "forwarded");
  const bool standard = !hops.empty();
  if (!standard) hops = list_of(request, "x-forwarded-for");
  std::string client(peer);
  std::size_t seen = 0;
  for (const std::string_view hop : hops | std::views::reverse) {
    const std::string_view node = without_port(standard ? forwarded_for(hop) : hop);
    const auto address = parse_address(node);
    if (!address || ++seen > kMostHops) break;  // "unknown", "_hidden": what is known ends here
    client = address->to_string();
    if (!trusts(client)) break;
  }
  return client;
}

}  // namespace mlxs
