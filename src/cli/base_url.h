// The server behind a URL as people write it: without slashes at the end and the "/v1" that OpenAI's clients
// want. Pure.
#pragma once

#include <string>

namespace mlxs::cli {

inline std::string base_url(std::string url) {
  const auto drop_slashes = [&url] {
    while (url.ends_with('/')) url.pop_back();
  };
  drop_slashes();
  if (url.ends_with("/v1")) url.resize(url.size() - 3);
  drop_slashes();
  return url;
}

}  // namespace mlxs::cli
