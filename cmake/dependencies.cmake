# Third-party packages, each behind one mlxs:: name so that modules do not care where a distribution puts it.
# Installed by scripts/bootstrap.sh; nothing is downloaded while building (cargo fetches the locked crates).
include(GNUInstallDirs)
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

find_package(spdlog REQUIRED)
add_library(mlxs_spdlog INTERFACE)
target_link_libraries(mlxs_spdlog INTERFACE spdlog::spdlog)
add_library(mlxs::spdlog ALIAS mlxs_spdlog)

find_package(nlohmann_json 3.11 REQUIRED)
add_library(mlxs::json ALIAS nlohmann_json::nlohmann_json)

find_package(CLI11 REQUIRED)
add_library(mlxs::cli11 ALIAS CLI11::CLI11)

find_package(prometheus-cpp REQUIRED COMPONENTS core)
add_library(mlxs::prometheus ALIAS prometheus-cpp::core)

find_package(Boost 1.81 REQUIRED)
find_package(OpenSSL REQUIRED)
add_library(mlxs_boost INTERFACE)
target_link_libraries(mlxs_boost INTERFACE Boost::headers OpenSSL::SSL Threads::Threads)
target_compile_definitions(mlxs_boost INTERFACE BOOST_ASIO_NO_DEPRECATED BOOST_ASIO_SEPARATE_COMPILATION BOOST_BEAST_SEPARATE_COMPILATION)
add_library(mlxs::boost ALIAS mlxs_boost)

pkg_check_modules(HWY REQUIRED IMPORTED_TARGET libhwy)
add_library(mlxs::highway ALIAS PkgConfig::HWY)
pkg_check_modules(ARCHIVE REQUIRED IMPORTED_TARGET libarchive)
add_library(mlxs::libarchive ALIAS PkgConfig::ARCHIVE)
pkg_check_modules(EDIT REQUIRED IMPORTED_TARGET libedit)
add_library(mlxs::edit ALIAS PkgConfig::EDIT)

find_path(HIREDIS_INCLUDE_DIR hiredis/hiredis.h REQUIRED)
find_library(HIREDIS_LIBRARY hiredis REQUIRED)
add_library(mlxs_hiredis INTERFACE)
target_include_directories(mlxs_hiredis SYSTEM INTERFACE ${HIREDIS_INCLUDE_DIR})
target_link_libraries(mlxs_hiredis INTERFACE ${HIREDIS_LIBRARY})
add_library(mlxs::hiredis ALIAS mlxs_hiredis)

# The Rust half of text/: one static library with a C ABI (rust/mlxs-text/include/mlxs_text.h).
find_program(MLXS_CARGO cargo HINTS $ENV{HOME}/.cargo/bin REQUIRED)
set(MLXS_RUST_DIR ${PROJECT_SOURCE_DIR}/rust)
set(MLXS_RUST_LIB ${CMAKE_BINARY_DIR}/rust/release/libmlxs_text.a)
file(GLOB_RECURSE MLXS_RUST_SOURCES CONFIGURE_DEPENDS ${MLXS_RUST_DIR}/*.rs ${MLXS_RUST_DIR}/*.toml ${MLXS_RUST_DIR}/Cargo.lock)
list(FILTER MLXS_RUST_SOURCES EXCLUDE REGEX "/target/")
add_custom_command(OUTPUT ${MLXS_RUST_LIB}
  COMMAND ${CMAKE_COMMAND} -E env CARGO_TARGET_DIR=${CMAKE_BINARY_DIR}/rust ${MLXS_CARGO} build --release --locked --quiet
          --manifest-path ${MLXS_RUST_DIR}/Cargo.toml
  DEPENDS ${MLXS_RUST_SOURCES} COMMENT "Building the Rust text library" VERBATIM)
add_custom_target(mlxs_rust_build DEPENDS ${MLXS_RUST_LIB})
add_library(mlxs_rust INTERFACE)
add_dependencies(mlxs_rust mlxs_rust_build)
target_include_directories(mlxs_rust INTERFACE $<BUILD_INTERFACE:${MLXS_RUST_DIR}/mlxs-text/include>)
target_link_libraries(mlxs_rust INTERFACE $<BUILD_INTERFACE:${MLXS_RUST_LIB}> ${CMAKE_DL_LIBS} m Threads::Threads)
add_library(mlxs::rust ALIAS mlxs_rust)
