#include "serve/unix_socket.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <utility>

#include "mlxs/error.h"

namespace mlxs {
namespace {

using local = net::local::stream_protocol;
using boost::system::error_code;

constexpr const char* kField = "unix_socket";

// Makes room for a new socket file: what stands there may only be a socket that nobody listens on.
void remove_stale(net::io_context& context, const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return;
  if (!S_ISSOCK(status.st_mode)) {
    throw Error(ErrorCode::kIo, fmt::format("'{}' exists and is no socket", path), "choose another path",
                kField);
  }
  local::socket probe(context);
  error_code error;
  probe.connect(local::endpoint(path), error);
  if (!error || error == net::error::try_again) {  // it listens, or its backlog is full
    throw Error(ErrorCode::kIo, fmt::format("a server is listening on '{}' already", path),
                "stop it, or choose another path", kField);
  }
  if (error != net::error::connection_refused) {
    throw Error(ErrorCode::kIo, fmt::format("'{}' is in the way: {}", path, error.message()),
                "remove it, or choose another path", kField);
  }
  ::unlink(path.c_str());
}

}  // namespace

UnixListener::UnixListener(net::io_context& context, std::string path, mode_t mode)
    : acceptor_(context), path_(std::move(path)) {
  if (path_.size() >= sizeof(sockaddr_un::sun_path)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("'{}' has {} bytes, the path of a socket may have {}", path_, path_.size(),
                            sizeof(sockaddr_un::sun_path) - 1),
                "choose a shorter path", kField);
  }
  remove_stale(context, path_);
  error_code error;
  acceptor_.open(local(), error);
  // Before it has a name, so that nobody gets in while it has the wrong mode; not every system lets us.
  if (!error) ::fchmod(acceptor_.native_handle(), mode);
  if (!error) acceptor_.bind(local::endpoint(path_), error);
  if (!error && ::chmod(path_.c_str(), mode) != 0) error = {errno, boost::system::system_category()};
  if (!error) acceptor_.listen(net::socket_base::max_listen_connections, error);
  struct stat status {};
  if (!error && ::lstat(path_.c_str(), &status) == 0) {
    device_ = status.st_dev;
    inode_ = status.st_ino;
  }
  if (error) {
    throw Error(ErrorCode::kIo, fmt::format("cannot listen on '{}': {}", path_, error.message()),
                "choose a path in a folder that this user may write", kField);
  }
}

UnixListener::~UnixListener() {
  struct stat status {};
  const bool ours =
      ::lstat(path_.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_;
  if (ours) ::unlink(path_.c_str());
}

}  // namespace mlxs
