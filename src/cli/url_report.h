// What run_url_bench measured, as tables for the terminal, as Markdown and as plots. Pure functions of the
// JSON document, so that `bench report` makes them of a file of any day; kInvalidArgument if it is none.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace mlxs::cli {

// Throws if this is not what run_url_bench returns.
void check_result(const nlohmann::json& result, const std::string& name);
// Two results of one server each as one of two sides.
nlohmann::json side_by_side(const nlohmann::json& a, const nlohmann::json& b);

std::string result_text(const nlohmann::json& result);
// image: the path of result_svg's picture, as the text refers to it; empty: none.
std::string result_markdown(const nlohmann::json& result, const std::string& image);
std::string result_svg(const nlohmann::json& result);

}  // namespace mlxs::cli
