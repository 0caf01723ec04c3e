// The short names for Asio and Beast, for the few files that know them.
#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace mlxs {

namespace net = boost::asio;
using tcp = net::ip::tcp;
using StreamSocket = net::generic::stream_protocol::socket;  // TCP, or of the Unix domain

// Completion token: the coroutine gets a tuple that starts with the error code, and nothing is thrown.
inline constexpr auto kAsTuple = net::as_tuple(net::use_awaitable);

}  // namespace mlxs
