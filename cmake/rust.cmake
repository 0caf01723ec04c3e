# The Rust half of text/: one static library with a C ABI (rust/mlxs-text/include/mlxs_text.h), built by cargo from the lock file.
set(MLXS_MIN_RUST 1.87)

# The same places, in the same order, as scripts/bootstrap.sh.
function(mlxs_find_cargo result)
  find_program(in_path cargo NO_CACHE)
  file(GLOB versioned /usr/lib/rust-1.*/bin/cargo)
  list(SORT versioned COMPARE NATURAL ORDER DESCENDING)
  foreach(cargo IN ITEMS $ENV{HOME}/.cargo/bin/cargo ${in_path} /usr/bin/cargo ${versioned})
    if(EXISTS ${cargo})
      execute_process(COMMAND ${cargo} --version OUTPUT_VARIABLE text ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
      if(text MATCHES "^cargo ([0-9.]+)" AND CMAKE_MATCH_1 VERSION_GREATER_EQUAL MLXS_MIN_RUST)
        set(${result} ${cargo} PARENT_SCOPE)
        return()
      endif()
    endif()
  endforeach()
  message(FATAL_ERROR "cargo ${MLXS_MIN_RUST} or newer is missing: run scripts/bootstrap.sh, or install it from https://rustup.rs")
endfunction()

if(NOT MLXS_CARGO)
  mlxs_find_cargo(cargo)
  set(MLXS_CARGO ${cargo} CACHE FILEPATH "cargo, ${MLXS_MIN_RUST} or newer")
endif()
get_filename_component(cargo_folder ${MLXS_CARGO} DIRECTORY)  # rustc of the same version lies beside it

set(MLXS_RUST_DIR ${PROJECT_SOURCE_DIR}/rust)
set(MLXS_RUST_LIB ${CMAKE_BINARY_DIR}/rust/release/libmlxs_text.a)
file(GLOB_RECURSE rust_sources CONFIGURE_DEPENDS
  ${MLXS_RUST_DIR}/mlxs-text/src/*.rs ${MLXS_RUST_DIR}/*.toml ${MLXS_RUST_DIR}/Cargo.lock)
list(FILTER rust_sources EXCLUDE REGEX "/target/")
add_custom_command(OUTPUT ${MLXS_RUST_LIB}
  COMMAND ${CMAKE_COMMAND} -E env --modify PATH=path_list_prepend:${cargo_folder} CARGO_TARGET_DIR=${CMAKE_BINARY_DIR}/rust
          ${MLXS_CARGO} build --release --locked --quiet --manifest-path ${MLXS_RUST_DIR}/Cargo.toml
  DEPENDS ${rust_sources} COMMENT "Building the Rust text library" VERBATIM)
add_custom_target(mlxs_rust_build DEPENDS ${MLXS_RUST_LIB})

add_library(mlxs_rust INTERFACE)
add_dependencies(mlxs_rust mlxs_rust_build)
target_include_directories(mlxs_rust INTERFACE $<BUILD_INTERFACE:${MLXS_RUST_DIR}/mlxs-text/include>)
target_link_libraries(mlxs_rust INTERFACE
  $<BUILD_INTERFACE:${MLXS_RUST_LIB}> $<INSTALL_INTERFACE:$<INSTALL_PREFIX>/${CMAKE_INSTALL_LIBDIR}/libmlxs_rust.a>
  ${CMAKE_DL_LIBS} m Threads::Threads)
add_library(mlxs::rust ALIAS mlxs_rust)
