# quarry_fuzz(name SOURCE a_fuzz.cc CORPUS folder [DICT file] [LIBS lib...])
# The source defines LLVMFuzzerTestOneInput. With QUARRY_FUZZ it becomes a libFuzzer program, bin/fuzz_<name>, that
# `./dev fuzz` runs; in every other build the same inputs are replayed by a small main. Either way ctest runs the
# committed corpus (label fuzz). tests/fuzz/README.md tells how to write one.

# What tests/fuzz/run.py reads: one file for each target, made anew by every configuration.
set(QUARRY_FUZZ_MANIFEST ${CMAKE_BINARY_DIR}/fuzz/targets)
file(REMOVE_RECURSE ${QUARRY_FUZZ_MANIFEST})

# All of them, and nothing else: what `./dev fuzz` builds.
add_custom_target(fuzzers)

if(QUARRY_FUZZ)
  # Every room is instrumented, so that the fuzzer sees which inputs reach new code.
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

function(quarry_fuzz name)
  cmake_parse_arguments(ARG "" "SOURCE;CORPUS;DICT" "LIBS" ${ARGN})
  get_filename_component(corpus ${ARG_CORPUS} ABSOLUTE)
  add_executable(fuzz_${name} ${ARG_SOURCE})
  target_link_libraries(fuzz_${name} PRIVATE ${ARG_LIBS})
  add_dependencies(fuzzers fuzz_${name})
  if(QUARRY_FUZZ)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    set(dict "")
    if(ARG_DICT)
      get_filename_component(dict ${ARG_DICT} ABSOLUTE)
    endif()
    file(WRITE ${QUARRY_FUZZ_MANIFEST}/${name} "${corpus}\n${dict}\n")
    add_test(NAME fuzz_${name} COMMAND fuzz_${name} -runs=0 ${corpus})
  else()
    target_sources(fuzz_${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/fuzz/replay_main.cc)
    add_test(NAME fuzz_${name} COMMAND fuzz_${name} ${corpus})
  endif()
  set_tests_properties(fuzz_${name} PROPERTIES LABELS fuzz TIMEOUT 300)
endfunction()
