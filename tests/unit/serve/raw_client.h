// A client that sends bytes as they are: what no HTTP library would send, too. Blocking; every wait ends
// after 30 s.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mlxs::test {

class RawClient {
 public:
  explicit RawClient(std::uint16_t port, int receive_buffer = 0)
      : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    const timeval limit{30, 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (receive_buffer > 0)
      setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  ~RawClient() { close(); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  void close() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }
  void shutdown_send() { ::shutdown(socket_, SHUT_WR); }

  // False: the other side is gone.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }

  // Some bytes; empty at the end of the connection, or if it was reset.
  std::string receive() {
    char buffer[4096];
    const ssize_t got = ::recv(socket_, buffer, sizeof buffer, 0);
    EXPECT_TRUE(got >= 0 || errno == ECONNRESET) << "nothing came for 30 s";
    return got > 0 ? std::string(buffer, static_cast<std::size_t>(got)) : std::string();
  }
  std::string receive_until(std::string_view mark) {
    while (received_.find(mark) == std::string::npos) {
      const std::string more = receive();
      if (more.empty()) return std::exchange(received_, {});
      received_ += more;
    }
    const std::size_t end = received_.find(mark) + mark.size();
    std::string result = received_.substr(0, end);
    received_.erase(0, end);
    return result;
  }
  std::string receive_all() {
    std::string result = std::exchange(received_, {});
    for (std::string more = receive(); !more.empty(); more = receive()) result += more;
    return result;
  }

  struct Response {
    int status = 0;
    std::string head, body;
  };
  // One response with a content-length.
  Response response(bool with_body = true) {
    Response result;
    result.head = receive_until("\r\n\r\n");
    if (result.head.size() < 12) return result;
    result.status = std::stoi(result.head.substr(9, 3));
    const std::size_t at = result.head.find("content-length: ");
    if (at == std::string::npos || !with_body) return result;
    const std::size_t length = std::stoul(result.head.substr(at + 16));
    while (received_.size() < length) {
      const std::string more = receive();
      if (more.empty()) break;
      received_ += more;
    }
    result.body = received_.substr(0, length);
    received_.erase(0, length);
    return result;
  }

  Response get(std::string_view path) {
    send("GET " + std::string(path) + " HTTP/1.1\r\nhost: x\r\n\r\n");
    return response();
  }
  void start_post(std::string_view path, std::string_view body, std::string_view headers = {}) {
    send("POST " + std::string(path) + " HTTP/1.1\r\nhost: x\r\n" + std::string(headers) +
         "content-length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body));
  }
  Response post(std::string_view path, std::string_view body, std::string_view headers = {}) {
    start_post(path, body, headers);
    return response();
  }

 private:
  int socket_;
  std::string received_;
};

}  // namespace mlxs::test
