// A Unix domain socket to listen on: its file's mode, what an earlier server left behind, and its removal.
// Used by the controlling thread only.
#pragma once

#include <sys/types.h>

#include <boost/asio/local/stream_protocol.hpp>
#include <string>

#include "serve/asio.h"

namespace mlxs {

class UnixListener {
 public:
  // Binds and listens. mode: who may connect, as chmod has it (0600: this user). The file of a server that is
  // gone is replaced; that of one that answers, or what is no socket, is kIo. kInvalidArgument: the path is
  // too long for an address.
  UnixListener(net::io_context& context, std::string path, mode_t mode);
  ~UnixListener();  // removes the file, unless another server has put its own there meanwhile
  UnixListener(const UnixListener&) = delete;
  UnixListener& operator=(const UnixListener&) = delete;

  net::local::stream_protocol::acceptor& acceptor() { return acceptor_; }

 private:
  net::local::stream_protocol::acceptor acceptor_;
  std::string path_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace mlxs
